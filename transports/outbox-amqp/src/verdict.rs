//! Which failure means what.

use lapin::{
    ErrorKind,
    protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError},
};
use outbox_core::{failure::FailureClass, transport::PublishError};
use std::time::Duration;

/// Waits before each further try while the server chooses the leader of a quorum queue that was just declared, by us or by
/// somebody else: it answers a declaration or a consumer with an internal error, and a message with basic.nack. Mostly it
/// takes milliseconds, and seconds where the server's cores are taken.
pub(crate) const UNTIL_A_LEADER: [Duration; 6] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1_600),
];

/// Characters of the server's own words that are kept.
const MAX_WORDS: usize = 256;

/// A failure that several messages may share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) class: FailureClass,
    pub(crate) text: String,
    /// The server has closed the channel over one message, which alone it speaks of.
    pub(crate) of_one_message: bool,
    /// What the server does not have may be declared.
    pub(crate) missing: bool,
    /// The server failed at something that may work at once.
    pub(crate) stumbled: bool,
    /// The server has answered with basic.nack.
    pub(crate) refused: bool,
}

impl Failure {
    fn new(class: FailureClass, text: impl Into<String>) -> Self {
        Self {
            class,
            text: text.into(),
            of_one_message: false,
            missing: false,
            stumbled: false,
            refused: false,
        }
    }

    /// This message can never go.
    pub(crate) fn permanent(text: impl Into<String>) -> Self {
        Self::new(FailureClass::Permanent, text)
    }

    /// This message may go later.
    pub(crate) fn transient(text: impl Into<String>) -> Self {
        Self::new(FailureClass::Transient, text)
    }

    /// The server is down, or does not let us publish at all.
    pub(crate) fn unavailable(text: impl Into<String>) -> Self {
        Self::new(FailureClass::Unavailable, text)
    }

    /// A queue that the message was routed to did not take it.
    pub(crate) fn refused() -> Self {
        let text = "the server refused the message (basic.nack): a queue is full, failed, or has no leader";
        Self { refused: true, ..Self::transient(text) }
    }

    /// The server was silent for too long.
    pub(crate) fn silent(what: &str, waited: Duration) -> Self {
        Self::unavailable(format!("the server {what} within {waited:?}"))
    }

    /// The server holds publishers back.
    pub(crate) fn blocked(reason: &str) -> Self {
        Self::unavailable(format!(
            "the server blocks publishers (connection.blocked): {}",
            plain(reason)
        ))
    }

    /// No queue takes the message. The queue may come back, so it is tried again.
    pub(crate) fn returned(code: u16, words: &str, exchange: &str, routing_key: &str) -> Self {
        let (key, exchange) = (plain(routing_key), plain(exchange));
        let remedy = if exchange.is_empty() {
            format!(
                "declare the queue: `.declare(Topology::new().queue(Queue::quorum(\"{key}\")))`"
            )
        } else {
            format!("bind one: `Queue::quorum(..).bind(\"{exchange}\", \"{key}\")`")
        };
        Self::transient(format!(
            "returned {code} {}: no queue takes routing key `{key}` of exchange `{exchange}`; {remedy}",
            plain(words)
        ))
    }

    /// Says what an error of the client library means.
    pub(crate) fn of(error: &lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(said) => Self::said(said),
            ErrorKind::SerialisationError(_) => {
                Self::permanent("the message cannot be encoded as AMQP 0-9-1")
            }
            ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidChannel(_) => {
                Self::unavailable("the channel was lost")
            }
            ErrorKind::InvalidConnectionState(_) => Self::unavailable("the connection was lost"),
            ErrorKind::MissingHeartbeatError => {
                Self::unavailable("the server went silent: no heartbeat")
            }
            ErrorKind::IOError(cause) => Self::unavailable(format!(
                "no connection to the server: {}",
                plain(&cause.to_string())
            )),
            other => Self::unavailable(format!(
                "no connection to the server: {}",
                plain(&format!("{other:?}"))
            )),
        }
    }

    /// Says what an answer of the server means.
    fn said(error: &AMQPError) -> Self {
        let words = plain(error.get_message().as_str());
        let text = format!("the server closed with {} {words}", error.get_id());
        match error.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
                if words.contains("message size") =>
            {
                Self { of_one_message: true, ..Self::permanent(text) }
            }
            AMQPErrorKind::Soft(AMQPSoftError::CONTENTTOOLARGE) => {
                Self { of_one_message: true, ..Self::permanent(text) }
            }
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => {
                Self { missing: true, ..Self::unavailable(text) }
            }
            AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR) => {
                Self { stumbled: true, ..Self::unavailable(text) }
            }
            // Access refused, a declaration that differs, a shutdown, a missing vhost: it speaks of no message.
            AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => Self::unavailable(text),
        }
    }
}

impl From<Failure> for PublishError {
    fn from(failure: Failure) -> Self {
        match failure.class {
            FailureClass::Permanent => Self::permanent(failure.text),
            FailureClass::Transient => Self::transient(failure.text),
            FailureClass::Unavailable => Self::unavailable(failure.text),
        }
    }
}

/// Makes words fit for a log: one line, bounded.
fn plain(words: &str) -> String {
    words.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureClass::{Permanent, Transient, Unavailable};

    fn said(kind: AMQPErrorKind, words: &str) -> Failure {
        Failure::of(&ErrorKind::ProtocolError(AMQPError::new(kind, words.into())).into())
    }

    #[test]
    fn what_the_server_says_of_a_message_is_told_from_what_it_says_of_us() {
        let size = "PRECONDITION_FAILED - message size 20 is larger than configured max size 10";
        let table: [(AMQPErrorKind, &str, FailureClass, bool); 8] = [
            (AMQPSoftError::PRECONDITIONFAILED.into(), size, Permanent, true),
            (
                AMQPSoftError::PRECONDITIONFAILED.into(),
                "PRECONDITION_FAILED - inequivalent arg",
                Unavailable,
                false,
            ),
            (AMQPSoftError::CONTENTTOOLARGE.into(), "CONTENT_TOO_LARGE", Permanent, true),
            (AMQPSoftError::NOTFOUND.into(), "NOT_FOUND - no exchange 'x'", Unavailable, false),
            (AMQPSoftError::ACCESSREFUSED.into(), "ACCESS_REFUSED", Unavailable, false),
            // The connection is shared: whoever lost it need not be whose message it was.
            (AMQPHardError::FRAMEERROR.into(), "FRAME_ERROR", Unavailable, false),
            (AMQPHardError::CONNECTIONFORCED.into(), "CONNECTION_FORCED", Unavailable, false),
            (AMQPHardError::NOTALLOWED.into(), "NOT_ALLOWED - vhost not found", Unavailable, false),
        ];
        for (kind, words, class, of_one_message) in table {
            let failure = said(kind, words);
            assert_eq!((failure.class, failure.of_one_message), (class, of_one_message), "{words}");
            assert!(failure.text.contains(words), "{}", failure.text);
        }
    }

    #[test]
    fn an_unroutable_message_may_go_later_and_the_error_names_why() {
        let failure = Failure::returned(312, "NO_ROUTE", "orders", "order.placed");
        assert_eq!(failure.class, Transient);
        assert_eq!(
            failure.text,
            "returned 312 NO_ROUTE: no queue takes routing key `order.placed` of exchange `orders`; bind one: \
             `Queue::quorum(..).bind(\"orders\", \"order.placed\")`"
        );
        let failure = Failure::returned(312, "NO_ROUTE", "", "billing");
        assert!(
            failure.text.ends_with("`.declare(Topology::new().queue(Queue::quorum(\"billing\")))`"),
            "{}",
            failure.text
        );
    }

    #[test]
    fn words_become_one_bounded_line() {
        let failure = Failure::blocked(&format!("low on\r\nmemory {}", "x".repeat(1000)));
        assert!(
            failure.text.len() < 400 && !failure.text.chars().any(char::is_control),
            "{}",
            failure.text
        );
    }
}
