//! What a failure means for its message or for the server.

use outbox_core::{
    failure::FailureClass,
    transport::{PublishError, one_line, printable},
};
use std::time::Duration;

/// What a failure says of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The connection is still there.
    None,
    /// The connection is gone, for a reason that has nothing to do with what was sent.
    Ended,
    /// The connection was gone before the message was sent.
    Unsent,
    /// The connection is gone without a word: whatever was sent last may be why.
    Abrupt,
    /// The server has ended the connection over something that was sent.
    Refused,
    /// The server has ended the connection for a reason that may be what was sent, which then has
    /// this class.
    Unclear(FailureClass),
}

/// A failure that several messages may share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) class: FailureClass,
    pub(crate) loss: Loss,
    /// Whether the server has responded, though it refuses this client.
    responded: bool,
    pub(crate) text: String,
}

/// No subscription matched the topic: the server has dropped the message.
const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
const NOT_AUTHORIZED: u8 = 0x87;

/// Reason codes with the standard's names and what to do about them.
///
/// # Source
/// MQTT 5.0, section 2.4.
const REASONS: [(u8, &str, &str); 34] = [
    (0x10, "no matching subscribers", "start its consumer first, or subscribe to it"),
    (0x80, "unspecified error", "see the server's log"),
    (0x81, "malformed packet", ""),
    (0x82, "protocol error", ""),
    (0x83, "implementation specific error", "see the server's log"),
    (0x84, "unsupported protocol version", "MQTT 5 is needed"),
    (0x85, "client identifier not valid", "name another client id"),
    (0x86, "bad user name or password", "check user and password in the URL"),
    (0x87, "not authorized", "check user and password in the URL, and the user's rights"),
    (0x88, "server unavailable", ""),
    (0x89, "server busy", ""),
    (0x8a, "banned", "the server has banned this client"),
    (0x8b, "server shutting down", ""),
    (0x8c, "bad authentication method", "the server wants enhanced authentication"),
    (0x8d, "keep alive timeout", ""),
    (0x8e, "session taken over", "another client has this client id: give each one its own"),
    (0x8f, "topic filter invalid", "name another topic"),
    (0x90, "topic name invalid", "the server does not accept this topic"),
    (0x91, "packet identifier in use", ""),
    (0x93, "receive maximum exceeded", ""),
    (0x94, "topic alias invalid", ""),
    (0x95, "packet too large", "raise the server's limit, or send less"),
    (0x96, "message rate too high", ""),
    (0x97, "quota exceeded", "raise the server's quota, or drain what waits there"),
    (0x98, "administrative action", "an operator of the server has ended the connection"),
    (0x99, "payload format invalid", ""),
    (0x9a, "retain not supported", ""),
    (0x9b, "QoS not supported", "the server takes no QoS 1"),
    (0x9c, "use another server", "name another server in the URL"),
    (0x9d, "server moved", "name the new server in the URL"),
    (0x9e, "shared subscriptions not supported", "subscribe without `share`"),
    (0x9f, "connection rate exceeded", ""),
    (0xa0, "maximum connect time", ""),
    (0xa2, "wildcard subscriptions not supported", "name topics without wildcards"),
];

/// Describes a reason code with the server's own words.
fn reason(code: u8, words: Option<&str>) -> String {
    let row = REASONS.iter().find(|(known, ..)| *known == code);
    let (name, remedy) = row.map_or(("unknown reason", ""), |(_, name, remedy)| (*name, *remedy));
    let words = words.map(|words| format!(": {}", one_line(words))).unwrap_or_default();
    let separator = if remedy.is_empty() { "" } else { "; " };
    format!("{name} (0x{code:02x}){words}{separator}{remedy}")
}

impl Failure {
    fn new(class: FailureClass, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { class, loss: Loss::None, responded: false, text }
    }

    /// No retry of this message can succeed.
    pub(crate) fn permanent(text: impl Into<String>) -> Self {
        Self::new(FailureClass::Permanent, text)
    }

    /// A later retry of this message may succeed.
    pub(crate) fn transient(text: impl Into<String>) -> Self {
        Self::new(FailureClass::Transient, text)
    }

    /// The server is down, or refuses this client altogether.
    pub(crate) fn unavailable(text: impl Into<String>) -> Self {
        Self::new(FailureClass::Unavailable, text)
    }

    fn responded(self) -> Self {
        Self { responded: true, ..self }
    }

    /// The connection is gone without a word of the server.
    pub(crate) fn lost(cause: impl std::fmt::Display) -> Self {
        let text = format!("the connection was lost: {}", one_line(&cause.to_string()));
        Self { loss: Loss::Abrupt, ..Self::unavailable(text) }
    }

    /// The connection is ended, not because of what was sent.
    pub(crate) fn ended(text: impl Into<String>) -> Self {
        Self { loss: Loss::Ended, ..Self::unavailable(text) }
    }

    /// Says that a failure is one to connect: nothing was sent that could be the cause.
    pub(crate) fn of_connecting(self) -> Self {
        Self { class: FailureClass::Unavailable, loss: Loss::Ended, ..self }
    }

    /// The server did not reply in time; `omission` says what it did not do.
    pub(crate) fn timed_out(omission: &str, waited: Duration) -> Self {
        Self::ended(format!("the server {omission} within {waited:?}"))
    }

    /// The server did not confirm a message in time. It may have it.
    pub(crate) fn not_confirmed(waited: Duration) -> Self {
        Self::transient(format!("the server did not confirm the message within {waited:?}"))
    }

    /// A message is larger than the server takes.
    pub(crate) fn too_large(size: usize, limit: usize) -> Self {
        Self::permanent(format!("the message has {size} bytes, of at most {limit}"))
    }

    /// Classifies the answer to CONNECT.
    pub(crate) fn from_connack(code: u8, words: Option<&str>) -> Self {
        let refusal = format!("the server refuses the connection: {}", reason(code, words));
        let refused = Self::ended(refusal);
        // It is there, and refuses this user or client.
        if matches!(code, 0x85..=0x87 | 0x8a | 0x8c) { refused.responded() } else { refused }
    }

    /// Classifies the answer to a message; `None` where the server has it.
    pub(crate) fn from_puback(code: u8, words: Option<&str>, topic: &str) -> Option<Self> {
        if code < 0x80 && code != NO_MATCHING_SUBSCRIBERS {
            return None;
        }
        let topic = printable(topic);
        let text = match code {
            NO_MATCHING_SUBSCRIBERS => {
                format!("no subscription takes the topic `{topic}`: {}", reason(code, words))
            }
            NOT_AUTHORIZED => format!(
                "the server refuses the topic `{topic}`: not authorized (0x87); grant the user of \
                 the URL to publish to it"
            ),
            code => format!("the server refuses the message to `{topic}`: {}", reason(code, words)),
        };
        Some(match code {
            0x90 | 0x95 | 0x99 => Self::permanent(text),
            // A right may be missing for one topic alone: the other keys are probed at once.
            NOT_AUTHORIZED => Self::unavailable(text).responded(),
            _ => Self::transient(text),
        })
    }

    /// Classifies the answer to SUBSCRIBE; `None` where the server grants QoS 1.
    pub(crate) fn from_suback(code: u8, filter: &str) -> Option<Self> {
        let filter = printable(filter);
        let text = match code {
            1 | 2 => return None,
            0 => format!("the server grants QoS 0 alone for `{filter}`: it would lose messages"),
            NOT_AUTHORIZED => format!(
                "the server refuses the subscription to `{filter}`: not authorized (0x87); grant \
                 the user of the URL to read it"
            ),
            code => {
                format!("the server refuses the subscription to `{filter}`: {}", reason(code, None))
            }
        };
        Some(Self::ended(text))
    }

    /// Classifies the server's DISCONNECT.
    pub(crate) fn from_disconnect(code: u8, words: Option<&str>) -> Self {
        let text = format!("the server has ended the connection: {}", reason(code, words));
        let loss = match code {
            0x81 | 0x82 | 0x90 | 0x94 | 0x95 | 0x99 | 0x9a | 0x9b => Loss::Refused,
            // Servers end the connection with these over one message too: over a topic that its
            // user may not publish to, or by a rule of their own.
            NOT_AUTHORIZED => Loss::Unclear(FailureClass::Unavailable),
            0x80 | 0x83 => Loss::Unclear(FailureClass::Transient),
            _ => Loss::Ended,
        };
        let ended = Self { loss, ..Self::unavailable(text) };
        // A right may be missing for one topic alone: the other keys are probed at once.
        if code == NOT_AUTHORIZED { ended.responded() } else { ended }
    }

    /// Says that the message was not sent before its connection was lost.
    pub(crate) fn unsent(self) -> Self {
        Self { loss: Loss::Unsent, ..self }
    }

    /// Says that a message was sent over a connection of its own, and the connection ended: the
    /// message is the cause where the server says so, and probably where it says nothing.
    pub(crate) fn of_one_message(self) -> Self {
        let class = match self.loss {
            Loss::None | Loss::Ended | Loss::Unsent => return self,
            Loss::Abrupt => FailureClass::Transient,
            Loss::Refused => FailureClass::Permanent,
            Loss::Unclear(class) => class,
        };
        let text = format!("{}, while this message alone was in flight", self.text);
        Self { class, text, ..self }
    }
}

impl From<Failure> for PublishError {
    fn from(failure: Failure) -> Self {
        let Failure { class, responded, text, .. } = failure;
        match class {
            FailureClass::Permanent => Self::permanent(text),
            FailureClass::Transient => Self::transient(text),
            FailureClass::Unavailable if responded => Self::unavailable(text).responded(),
            FailureClass::Unavailable => Self::unavailable(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureClass::{Permanent, Transient, Unavailable};

    #[test]
    fn each_reason_code_of_a_confirmation_has_its_class() {
        assert_eq!(Failure::from_puback(0, None, "orders"), None);
        for (code, class, part) in [
            (0x10, Transient, "no subscription takes the topic `orders`"),
            (0x80, Transient, "unspecified error (0x80)"),
            (0x83, Transient, "implementation specific"),
            (0x87, Unavailable, "grant the user of the URL to publish to it"),
            (0x90, Permanent, "topic name invalid"),
            (0x91, Transient, "identifier in use"),
            (0x95, Permanent, "packet too large"),
            (0x97, Transient, "raise the server's quota"),
            (0x99, Permanent, "payload format invalid"),
            (0xc4, Transient, "unknown reason (0xc4)"),
        ] {
            let failure = Failure::from_puback(code, None, "orders").expect("a failure");
            assert_eq!(failure.class, class, "{code:02x}");
            assert!(failure.text.contains(part), "{failure:?}");
            assert_eq!(failure.loss, Loss::None);
        }
        let words = Failure::from_puback(0x97, Some("no\nroom"), "orders").expect("a failure");
        assert!(words.text.contains("quota exceeded (0x97): no"), "{words:?}");
        assert!(!words.text.contains('\n'), "{words:?}");
    }

    #[test]
    fn a_refused_login_is_no_fault_of_a_message_and_says_what_to_do() {
        for (code, part) in [
            (0x84, "MQTT 5 is needed"),
            (0x85, "name another client id"),
            (0x86, "check user and password in the URL"),
            (0x87, "and the user's rights"),
            (0x9c, "name another server"),
        ] {
            let failure = Failure::from_connack(code, None);
            assert_eq!(failure.class, Unavailable, "{code:02x}");
            assert!(failure.text.contains(part), "{failure:?}");
        }
        assert!(PublishError::from(Failure::from_connack(0x86, None)).has_responded());
        assert!(!PublishError::from(Failure::from_connack(0x88, None)).has_responded());
    }

    #[test]
    fn a_subscription_is_refused_or_granted() {
        assert_eq!(Failure::from_suback(1, "a"), None);
        for (code, part) in [
            (0, "QoS 0 alone"),
            (0x87, "grant the user of the URL to read it"),
            (0x9e, "without `share`"),
            (0xa2, "without wildcards"),
        ] {
            let failure = Failure::from_suback(code, "a").expect("a failure");
            assert!(failure.text.contains(part), "{failure:?}");
        }
    }

    #[test]
    fn a_message_that_ends_its_connection_alone_is_the_cause_and_a_server_that_stops_is_not() {
        for (failure, class) in [
            (Failure::lost("end of file"), Transient),
            (Failure::from_disconnect(0x81, None), Permanent),
            (Failure::from_disconnect(0x95, None), Permanent),
            (Failure::from_disconnect(0x8b, None), Unavailable),
            (Failure::from_disconnect(0x8e, None), Unavailable),
            (Failure::ended("silent"), Unavailable),
            (Failure::unavailable("no connection"), Unavailable),
        ] {
            assert_eq!(failure.class, Unavailable, "before it was alone: {failure:?}");
            let alone = failure.of_one_message();
            assert_eq!(alone.class, class, "{alone:?}");
            assert_eq!(alone.text.ends_with("alone was in flight"), class != Unavailable);
        }
    }

    #[test]
    fn a_connection_that_is_ended_for_an_unclear_reason_tells_of_a_message_that_was_alone() {
        for (code, class, responded) in
            [(0x80, Transient, false), (0x83, Transient, false), (0x87, Unavailable, true)]
        {
            let failure = Failure::from_disconnect(code, None);
            assert_eq!(failure.class, Unavailable, "before it was alone: {failure:?}");
            let alone = failure.clone().of_one_message();
            assert_eq!(alone.class, class, "{alone:?}");
            assert!(alone.text.ends_with("alone was in flight"), "{alone:?}");
            assert_eq!(PublishError::from(alone).has_responded(), responded);
            let connecting = failure.of_connecting().of_one_message();
            assert_eq!((connecting.class, connecting.loss), (Unavailable, Loss::Ended));
        }
    }

    #[test]
    fn a_failure_to_connect_is_of_no_message() {
        for failure in [
            Failure::from_disconnect(0x81, None),
            Failure::lost("reset"),
            Failure::permanent("MQTT cannot carry the packet"),
        ] {
            let connecting = failure.of_connecting().of_one_message();
            assert_eq!(connecting.class, Unavailable, "{connecting:?}");
            assert!(!connecting.text.contains("alone"), "{connecting:?}");
        }
    }

    #[test]
    fn the_table_is_in_order_and_knows_each_code_once() {
        assert!(REASONS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
