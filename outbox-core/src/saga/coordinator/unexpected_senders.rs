//! Replies of consumers or sources that a step does not name: each sender is reported once.

use crate::{
    event::{
        Message,
        command::{CommandId, replied_by},
    },
    saga::definition::RemoteSpec,
};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// Senders that are reported at most: one that replies under ever new names fills no memory.
const MAX_SENDERS: usize = 1_000;

/// A saga and a step, and the consumer and the source of a reply to it.
type Sender = (String, String, Option<String>, String);

/// The senders that were reported.
#[derive(Debug, Default)]
pub(crate) struct UnexpectedSenders(Mutex<BTreeSet<Sender>>);

impl UnexpectedSenders {
    /// Warns, once for each sender, of a reply that is not from the consumer or the source that the
    /// step names.
    pub(super) fn warn_once(
        &self,
        name: &str,
        id: &CommandId,
        remote: Option<RemoteSpec>,
        message: &Message,
    ) {
        let by = replied_by(&message.headers);
        let sender =
            (name.to_owned(), id.step.clone(), by.map(str::to_owned), message.source.clone());
        if !self.add(sender) {
            return;
        }
        tracing::warn!(
            name,
            step = id.step,
            saga = %id.saga,
            consumer = by,
            source = message.source,
            expected = remote.and_then(|remote| remote.consumer),
            expected_source = remote.and_then(|remote| remote.from_source),
            "a reply to a saga's command is ignored: it is not from the consumer that the step names (`remote`, `of`), or not \
             from its source; further ones of this sender are not logged"
        );
    }

    /// Adds a sender; tells whether it is new, and the caller logs it.
    fn add(&self, sender: Sender) -> bool {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reported.len() < MAX_SENDERS && reported.insert(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unexpected_sender_is_reported_once_for_each_step_and_their_number_is_limited() {
        let senders = UnexpectedSenders::default();
        let of = |step: &str, consumer: Option<&str>, source: &str| -> Sender {
            ("s".into(), step.into(), consumer.map(Into::into), source.into())
        };
        for sender in [
            of("a", None, "/x"),
            of("b", None, "/x"),
            of("a", Some("c"), "/x"),
            of("a", None, "/y"),
        ] {
            assert!(senders.add(sender.clone()), "{sender:?}");
            assert!(!senders.add(sender.clone()), "{sender:?} again");
        }
        let reported =
            (0..2 * MAX_SENDERS).filter(|n| senders.add(of("a", None, &n.to_string()))).count();
        assert_eq!(reported, MAX_SENDERS - 4);
    }
}
