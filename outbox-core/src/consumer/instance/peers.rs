//! The declarations of a consumer's instances, and what follows for a delivery that one of them does not know: pure.

use crate::{
    event::{Message, PayloadCodecs},
    outbox::{Awaited, AwaitedBy, DeclaredHandler, DeclaredType, InstanceRow},
    saga::is_reply,
};
use std::{sync::Arc, time::Duration};

/// Shortest further wait of a delivery whose time is over while another instance knows it.
const MIN_FURTHER_WAIT: Duration = Duration::from_mins(1);

/// The declarations of a consumer's other instances, without repeats.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::consumer) struct Peers {
    handlers: Vec<DeclaredHandler>,
    differ: bool,
}

impl Peers {
    /// Reads the rows of the other instances, also of those that have ended without deregistering: they may restart.
    pub(in crate::consumer) fn of(rows: &[InstanceRow], own: &[DeclaredHandler]) -> Self {
        let mut handlers: Vec<DeclaredHandler> = Vec::new();
        for handler in rows.iter().flat_map(|row| &row.handlers) {
            if !handlers.contains(handler) {
                handlers.push(handler.clone());
            }
        }
        Self { handlers, differ: rows.iter().any(|row| row.handlers != own) }
    }

    /// Tells whether another instance has other declarations than this one: another version runs beside it.
    pub(in crate::consumer) const fn differ(&self) -> bool {
        self.differ
    }

    /// Gives the names of the handlers of other instances that take a message.
    pub(in crate::consumer) fn takers(&self, message: &Message) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.handlers.iter().filter(|h| takes(h, message)).map(|h| &*h.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Tells whether another instance can run a delivery that waits for this.
    pub(in crate::consumer) fn know(&self, handler: &str, awaited: Option<&Awaited>) -> bool {
        // Which keys another instance has is not declared; it claims the delivery where it has one.
        knows(&self.handlers, &PayloadCodecs::NONE, handler, awaited)
    }

    /// Tells whether another instance has a handler of exactly this name.
    pub(in crate::consumer) fn have(&self, handler: &str) -> bool {
        self.handlers.iter().any(|h| h.name == handler)
    }

    /// Gives every name under which another instance claims stored deliveries.
    pub(in crate::consumer) fn names(&self) -> impl Iterator<Item = &str> {
        self.handlers.iter().flat_map(names)
    }
}

fn names(handler: &DeclaredHandler) -> impl Iterator<Item = &str> {
    std::iter::once(&*handler.name).chain(handler.renamed_from.as_deref())
}

fn takes(handler: &DeclaredHandler, message: &Message) -> bool {
    let reads =
        |t: &DeclaredType| t.name == message.event_type && t.version >= message.event_version;
    if handler.sagas.is_empty() {
        handler.types.iter().any(reads)
    } else {
        is_reply(&message.headers)
    }
}

fn reads(handler: &DeclaredHandler, codecs: &PayloadCodecs, awaited: &Awaited) -> bool {
    match awaited {
        Awaited::Key { .. } => {
            awaited.codec_and_key().is_some_and(|(codec, key_id)| codecs.has_key(codec, key_id))
        }
        Awaited::Type { name, version } => {
            handler.types.iter().any(|t| t.name == *name && t.version >= *version)
        }
        Awaited::Saga { name, version } => {
            handler.sagas.iter().any(|s| s.name == *name && s.version == *version)
        }
    }
}

/// Tells whether an instance with these declarations and codecs can run a delivery that waits for this. A delivery under
/// no name is for any handler that reads it.
pub(in crate::consumer) fn knows(
    declared: &[DeclaredHandler],
    codecs: &PayloadCodecs,
    handler: &str,
    awaited: Option<&Awaited>,
) -> bool {
    declared.iter().any(|known| {
        let is_it = handler.is_empty() || names(known).any(|name| name == handler);
        is_it && awaited.is_none_or(|awaited| reads(known, codecs, awaited))
    })
}

/// Gives the waiting deliveries, by what they wait for, that an instance with these declarations and codecs can run.
pub(in crate::consumer) fn known_of(
    declared: &[DeclaredHandler],
    codecs: &PayloadCodecs,
    mut awaited: Vec<AwaitedBy>,
) -> Vec<AwaitedBy> {
    awaited.retain(|by| knows(declared, codecs, &by.handler, by.awaited.as_ref()));
    awaited
}

/// What follows for a delivery that an instance does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::consumer) enum Unknown {
    /// It waits for an instance that knows it, for this time.
    Wait(Duration),
    /// No instance knows it: it is given up.
    GiveUp,
}

/// Says what follows for a delivery that has waited so long, where the longest wait is `longest`. A delivery that another
/// instance knows is not given up.
pub(in crate::consumer) fn after_unknown(
    awaited_for: Option<Duration>,
    longest: Duration,
    another_knows_it: bool,
) -> Unknown {
    let left = longest.saturating_sub(awaited_for.unwrap_or_default());
    match (left.is_zero(), another_knows_it) {
        (false, _) => Unknown::Wait(left),
        (true, true) => Unknown::Wait(longest.max(MIN_FURTHER_WAIT)),
        (true, false) => Unknown::GiveUp,
    }
}

/// Gives all names under which deliveries for these handlers are stored, and the name of messages that no handler took.
pub(in crate::consumer) fn claimed_names(declared: &[DeclaredHandler]) -> Arc<[Arc<str>]> {
    declared.iter().flat_map(names).chain([""]).map(Arc::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Headers, MessageId, MessageParts, SagaId, Timestamp},
        outbox::DeclaredSaga,
        saga::{CommandId, CommandPhase},
        testing::FlippingCodec,
    };
    use std::num::NonZeroU32;

    const HOUR: Duration = Duration::from_hours(1);

    fn handler(name: &str, types: &[(&str, u16)]) -> DeclaredHandler {
        let types = types
            .iter()
            .map(|(name, version)| DeclaredType { name: (*name).into(), version: *version });
        DeclaredHandler { name: name.into(), types: types.collect(), ..DeclaredHandler::default() }
    }

    fn replies(sagas: &[(&str, u32)]) -> DeclaredHandler {
        let sagas = sagas
            .iter()
            .map(|(name, version)| DeclaredSaga { name: (*name).into(), version: *version });
        DeclaredHandler {
            sagas: sagas.collect(),
            ..handler("saga-replies", &[("payment.taken", 1)])
        }
    }

    fn row(handlers: &[DeclaredHandler]) -> InstanceRow {
        let handlers = handlers.to_vec();
        InstanceRow {
            id: "x".into(),
            max_in_flight: 0,
            lease_until: 0,
            expired_for: None,
            handlers,
        }
    }

    fn message(event_type: &str, version: u16, answers: bool) -> Message {
        let mut headers = Headers::new();
        if answers {
            let (saga, step) = (SagaId::generate(), "charge".to_owned());
            CommandId { saga, step, round: NonZeroU32::MIN, phase: CommandPhase::Do }
                .write_reply(&mut headers, "payments");
        }
        Message::new(MessageParts {
            id: MessageId::generate(),
            sequence: None,
            source: "/shop".into(),
            event_type: event_type.into(),
            event_version: version,
            topic: "orders".into(),
            aggregate_type: None,
            key: None,
            content_type: "application/json".into(),
            payload: "{}".into(),
            headers,
            created_at: Timestamp::from_micros(0),
            expires_at: None,
            retry: None,
        })
    }

    fn of_type(name: &str, version: u16) -> Option<Awaited> {
        Some(Awaited::Type { name: name.into(), version })
    }

    fn of_saga(name: &str, version: u32) -> Option<Awaited> {
        Some(Awaited::Saga { name: name.into(), version })
    }

    #[test]
    fn only_an_instance_that_declares_handler_type_and_version_or_has_the_key_knows_a_delivery() {
        let renamed = DeclaredHandler {
            renamed_from: Some("old".into()),
            ..handler("new", &[("order.placed", 2)])
        };
        let declared = [
            renamed,
            handler("bill", &[("order.paid", 1)]),
            replies(&[("checkout", 1), ("checkout", 3)]),
        ];
        let codecs = PayloadCodecs::NONE.decode_with(FlippingCodec::new("flip", ["k1"]));
        for (handler, awaited, expected) in [
            ("new", of_type("order.placed", 1), true),
            ("new", of_type("order.placed", 2), true),
            ("new", of_type("order.placed", 3), false),
            ("old", of_type("order.placed", 2), true),
            ("old", None, true),
            ("older", None, false),
            ("bill", of_type("order.placed", 1), false),
            // Under no name: any handler that reads it.
            ("", of_type("order.placed", 2), true),
            ("", of_type("order.placed", 3), false),
            ("", of_type("order.left", 1), false),
            ("saga-replies", of_saga("checkout", 1), true),
            // A saga is known in exactly its version.
            ("saga-replies", of_saga("checkout", 2), false),
            ("saga-replies", of_saga("checkout", 3), true),
            ("saga-replies", of_saga("order.placed", 1), false),
            ("saga-replies", of_type("payment.taken", 2), false),
            ("saga-replies", None, true),
            ("bill", Some(Awaited::key("flip", "k1")), true),
            ("bill", Some(Awaited::key("flip", "k2")), false),
            ("bill", Some(Awaited::key("other", "k1")), false),
            ("gone", Some(Awaited::key("flip", "k1")), false),
        ] {
            assert_eq!(
                knows(&declared, &codecs, handler, awaited.as_ref()),
                expected,
                "{handler} {awaited:?}"
            );
        }
    }

    #[test]
    fn a_message_has_takers_where_another_instance_declares_its_type_in_its_version() {
        let own = [handler("bill", &[("order.placed", 1)])];
        let other = [
            handler("bill", &[("order.placed", 2)]),
            handler("ship", &[("order.paid", 1)]),
            replies(&[("a", 1)]),
        ];
        let peers = Peers::of(&[row(&own), row(&other), row(&other)], &own);
        for (event_type, version, answers, expected) in [
            ("order.placed", 1, false, &["bill"][..]),
            ("order.placed", 2, false, &["bill"]),
            ("order.placed", 3, false, &[]),
            ("order.paid", 1, false, &["ship"]),
            ("order.left", 1, false, &[]),
            // The type of a reply has no taker where the message is no reply.
            ("payment.taken", 1, false, &[]),
            ("payment.taken", 1, true, &["saga-replies"]),
            ("whatever", 9, true, &["saga-replies"]),
        ] {
            assert_eq!(
                peers.takers(&message(event_type, version, answers)),
                expected,
                "{event_type} {version}"
            );
        }
        assert!(peers.differ() && peers.have("ship") && !peers.have("old"));
        assert!(
            !Peers::of(&[row(&own), row(&own)], &own).differ() && !Peers::of(&[], &own).differ()
        );
    }

    #[test]
    fn a_delivery_that_no_instance_knows_is_given_up_when_its_time_is_over_and_others_never() {
        let minutes = |n| Some(Duration::from_mins(n));
        for (awaited_for, known, expected) in [
            (None, false, Unknown::Wait(HOUR)),
            (minutes(0), false, Unknown::Wait(HOUR)),
            (minutes(59), false, Unknown::Wait(Duration::from_mins(1))),
            (minutes(60), false, Unknown::GiveUp),
            (minutes(600), false, Unknown::GiveUp),
            (minutes(59), true, Unknown::Wait(Duration::from_mins(1))),
            (minutes(60), true, Unknown::Wait(HOUR)),
            (minutes(600), true, Unknown::Wait(HOUR)),
        ] {
            assert_eq!(
                after_unknown(awaited_for, HOUR, known),
                expected,
                "{awaited_for:?} {known}"
            );
        }
        assert_eq!(after_unknown(None, Duration::ZERO, false), Unknown::GiveUp, "no wait at all");
        assert_eq!(after_unknown(None, Duration::ZERO, true), Unknown::Wait(MIN_FURTHER_WAIT));
    }
}
