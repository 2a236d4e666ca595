//! What a failure means for its message or for the server.

use lapin::{
    ErrorKind,
    protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError},
};
use outbox_core::{
    failure::FailureClass,
    transport::{PublishError, one_line},
};
use std::time::Duration;

/// Waits before each retry while the server elects the leader of a quorum queue that a client just
/// declared: until then it replies to a declaration or a consumer with an internal error, and to a
/// message with basic.nack. The election mostly takes milliseconds, and seconds where the server's
/// cores are busy.
pub(crate) const LEADER_ELECTION_BACKOFF: [Duration; 6] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1_600),
];

/// How the server begins to say that one message is too large. Behind the code of other refusals it
/// quotes names, which may be anything.
const MESSAGE_SIZE: &str = "PRECONDITION_FAILED - message size ";

/// A failure that several messages may share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) class: FailureClass,
    pub(crate) text: String,
    /// The server has closed the channel because of one message.
    pub(crate) single_message: bool,
    /// The server lacks an exchange or a queue, which a new declaration may restore.
    pub(crate) not_found: bool,
    /// The server had an internal error; a retry may succeed soon.
    pub(crate) internal_error: bool,
    /// The server has sent basic.nack.
    pub(crate) nacked: bool,
}

impl Failure {
    fn new(class: FailureClass, text: impl Into<String>) -> Self {
        Self {
            class,
            text: text.into(),
            single_message: false,
            not_found: false,
            internal_error: false,
            nacked: false,
        }
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

    /// A queue did not accept the message that was routed to it.
    pub(crate) fn nacked() -> Self {
        let text = "the server refused the message (basic.nack): a queue is full, failed, or has no leader";
        Self { nacked: true, ..Self::transient(text) }
    }

    /// Says that a failure is one to connect or to declare: no message is the cause.
    pub(crate) fn of_connecting(self) -> Self {
        Self { class: FailureClass::Unavailable, single_message: false, ..self }
    }

    /// The server did not reply in time; `omission` says what it did not do.
    pub(crate) fn timed_out(omission: &str, waited: Duration) -> Self {
        Self::unavailable(format!("the server {omission} within {waited:?}"))
    }

    /// The server blocks publishers.
    pub(crate) fn blocked(reason: &str) -> Self {
        Self::unavailable(format!(
            "the server blocks publishers (connection.blocked): {}",
            one_line(reason)
        ))
    }

    /// No queue is bound for the message. The queue may come back, so the failure is transient.
    pub(crate) fn returned(code: u16, text: &str, exchange: &str, routing_key: &str) -> Self {
        let (key, exchange) = (one_line(routing_key), one_line(exchange));
        let remedy = if exchange.is_empty() {
            format!(
                "declare the queue: `.declare(Topology::new().queue(Queue::quorum(\"{key}\")))`"
            )
        } else {
            format!("bind one: `Queue::quorum(..).bind(\"{exchange}\", \"{key}\")`")
        };
        Self::transient(format!(
            "returned {code} {}: no queue takes routing key `{key}` of exchange `{exchange}`; {remedy}",
            one_line(text)
        ))
    }

    /// Classifies an error of the client library.
    pub(crate) fn from_lapin(error: &lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(error) => Self::from_server(error),
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
                one_line(&cause.to_string())
            )),
            other => Self::unavailable(format!(
                "no connection to the server: {}",
                one_line(&format!("{other:?}"))
            )),
        }
    }

    /// Classifies an error that the server sent.
    fn from_server(error: &AMQPError) -> Self {
        let reason = one_line(error.get_message().as_str());
        let text = format!("the server closed with {} {reason}", error.get_id());
        match error.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
                if reason.starts_with(MESSAGE_SIZE) =>
            {
                Self { single_message: true, ..Self::permanent(text) }
            }
            AMQPErrorKind::Soft(AMQPSoftError::CONTENTTOOLARGE) => {
                Self { single_message: true, ..Self::permanent(text) }
            }
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => {
                Self { not_found: true, ..Self::unavailable(text) }
            }
            AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR) => {
                Self { internal_error: true, ..Self::unavailable(text) }
            }
            // Access refused, a declaration that differs, a shutdown, a missing vhost: none of them
            // is the fault of one message.
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

#[cfg(test)]
mod tests {
    use super::*;
    use FailureClass::{Permanent, Transient, Unavailable};

    fn from_server(kind: AMQPErrorKind, text: &str) -> Failure {
        Failure::from_lapin(&ErrorKind::ProtocolError(AMQPError::new(kind, text.into())).into())
    }

    #[test]
    fn a_failure_of_one_message_is_told_from_a_failure_of_the_client() {
        let size = "PRECONDITION_FAILED - message size 20 is larger than configured max size 10";
        let named = "PRECONDITION_FAILED - inequivalent arg 'x-expires' for queue 'message size 9'";
        let table: [(AMQPErrorKind, &str, FailureClass, bool); 9] = [
            (AMQPSoftError::PRECONDITIONFAILED.into(), named, Unavailable, false),
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
            // All batches share the connection: the message that broke it may be of another batch.
            (AMQPHardError::FRAMEERROR.into(), "FRAME_ERROR", Unavailable, false),
            (AMQPHardError::CONNECTIONFORCED.into(), "CONNECTION_FORCED", Unavailable, false),
            (AMQPHardError::NOTALLOWED.into(), "NOT_ALLOWED - vhost not found", Unavailable, false),
        ];
        for (kind, text, class, single_message) in table {
            let failure = from_server(kind, text);
            assert_eq!((failure.class, failure.single_message), (class, single_message), "{text}");
            assert!(failure.text.contains(text), "{}", failure.text);
        }
    }

    #[test]
    fn a_failure_to_connect_or_to_declare_is_of_no_message() {
        let too_large = from_server(AMQPSoftError::CONTENTTOOLARGE.into(), "CONTENT_TOO_LARGE");
        for failure in [too_large, Failure::permanent("cannot be encoded"), Failure::nacked()] {
            let connecting = failure.of_connecting();
            assert_eq!((connecting.class, connecting.single_message), (Unavailable, false));
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
    fn a_text_becomes_one_bounded_line() {
        let failure = Failure::blocked(&format!("low on\r\nmemory {}", "x".repeat(1000)));
        assert!(
            failure.text.len() < 400 && !failure.text.chars().any(char::is_control),
            "{}",
            failure.text
        );
    }
}
