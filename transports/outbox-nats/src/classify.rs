//! What a failure means for its message or for the server.

use crate::config::SUBJECT_RULE;
use async_nats::{
    ConnectError, ConnectErrorKind, Event, ServerError,
    jetstream::{self, ErrorCode, context::PublishErrorKind},
};
use outbox_core::{
    failure::FailureClass,
    transport::{PublishError, one_line, printable},
};
use std::{collections::VecDeque, error::Error, time::Duration};

/// A failure that several messages may share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) class: FailureClass,
    pub(crate) text: String,
}

impl Failure {
    /// No retry of this message can succeed.
    pub(crate) fn permanent(text: impl Into<String>) -> Self {
        Self { class: FailureClass::Permanent, text: text.into() }
    }

    /// A later retry of this message may succeed.
    pub(crate) fn transient(text: impl Into<String>) -> Self {
        Self { class: FailureClass::Transient, text: text.into() }
    }

    /// The server is down, or refuses this client altogether.
    pub(crate) fn unavailable(text: impl Into<String>) -> Self {
        Self { class: FailureClass::Unavailable, text: text.into() }
    }

    /// The message cannot be published to a subject.
    pub(crate) fn not_a_subject(subject: &str) -> Self {
        Self::permanent(format!("the subject `{}` {SUBJECT_RULE}", printable(subject)))
    }

    /// The message is larger than the server takes.
    pub(crate) fn too_large(size: usize, limit: usize) -> Self {
        Self::permanent(format!(
            "the message has {size} bytes with its headers, of at most {limit}"
        ))
    }

    /// No stream has the subject. One may be created, so the failure is transient.
    pub(crate) fn no_stream(subject: &str) -> Self {
        let subject = one_line(subject);
        Self::transient(format!(
            "no stream takes the subject `{subject}` (503 no responders); create it: \
             `.declare([Stream::new(\"..\").subject(\"{subject}\")])`"
        ))
    }

    /// The server has not confirmed a message in time.
    pub(crate) fn not_confirmed(waited: Duration) -> Self {
        Self::transient(format!("the server did not confirm within {waited:?}"))
    }

    /// The server did not reply in time; `omission` says what it did not do.
    pub(crate) fn timed_out(omission: &str, waited: Duration) -> Self {
        Self::unavailable(format!("the server {omission} within {waited:?}"))
    }

    /// The connection is gone.
    pub(crate) fn lost(reason: Option<&str>) -> Self {
        Self::unavailable(match reason {
            Some(reason) => format!("the connection was lost: {}", one_line(reason)),
            None => "the connection was lost".to_owned(),
        })
    }

    /// The server does not let this user publish to a subject.
    pub(crate) fn denied(subject: &str) -> Self {
        Self::unavailable(format!(
            "the server denies publishing to `{}` (permissions violation); grant it to the user",
            one_line(subject)
        ))
    }

    /// Classifies a connect that failed.
    pub(crate) fn from_connect(error: &ConnectError) -> Self {
        let text = one_line(&error.to_string());
        Self::unavailable(match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                format!("the server refuses the login: {text}")
            }
            _ => format!("no connection to the server: {text}"),
        })
    }

    /// Classifies a publish that the client library reports as failed.
    pub(crate) fn from_publish(
        error: &jetstream::context::PublishError,
        subject: &str,
        waited: Duration,
    ) -> Self {
        match error.kind() {
            PublishErrorKind::StreamNotFound => Self::no_stream(subject),
            PublishErrorKind::TimedOut => Self::not_confirmed(waited),
            PublishErrorKind::BrokenPipe => Self::lost(None),
            PublishErrorKind::MaxAckPending => Self::unavailable(
                "too many messages wait for their confirmation; publish fewer at once",
            ),
            _ => {
                let cause = error.source().and_then(|cause| cause.downcast_ref());
                cause.map_or_else(|| Self::transient(one_line(&error.to_string())), Self::refused)
            }
        }
    }

    /// Classifies the error with which JetStream answers a message in place of a confirmation.
    pub(crate) fn refused(error: &jetstream::Error) -> Self {
        let text = format!("the server refused the message: {}", one_line(&error.to_string()));
        match class_of(error.error_code()) {
            FailureClass::Permanent => Self::permanent(text),
            FailureClass::Unavailable => Self::unavailable(text),
            FailureClass::Transient if error.error_code() == ErrorCode::STREAM_STORE_FAILED => {
                Self::transient(format!(
                    "{text}; the stream is full or cannot be written: raise its limits, or consume \
                     or purge it"
                ))
            }
            FailureClass::Transient => Self::transient(text),
        }
    }
}

/// Tells what an error code of JetStream means for a message.
fn class_of(code: ErrorCode) -> FailureClass {
    match code {
        // The stream has a limit of its own for one message.
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            FailureClass::Permanent
        }
        // Account and server refuse all messages of all streams.
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
        | ErrorCode::JETSTREAM_NOT_ENABLED
        | ErrorCode::CLUSTER_NOT_AVAILABLE
        | ErrorCode::CLUSTER_NOT_LEADER => FailureClass::Unavailable,
        // A full stream among them, which may have limits for each subject.
        _ => FailureClass::Transient,
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

/// Denied publishes that are remembered: a service publishes to few subjects.
const MAX_DENIALS: usize = 64;

/// What the server has said about a connection, besides its replies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    /// Whether the connection is gone.
    pub(crate) lost: bool,
    /// The last error that the server sent; before the end of a connection, its reason.
    pub(crate) reason: Option<String>,
    /// How many publishes were denied.
    pub(crate) denials: u64,
    /// Subjects to which the server denied publishing, each with its number.
    denied: VecDeque<(u64, String)>,
}

impl Health {
    /// Takes an event of the connection.
    pub(crate) fn observe(&mut self, event: &Event) {
        match event {
            Event::Disconnected | Event::Closed => self.lost = true,
            Event::ServerError(ServerError::SlowConsumer(_)) => {}
            Event::ServerError(error) => {
                let text = error.to_string();
                if let Some(subject) = denied_subject(&text) {
                    self.denials += 1;
                    self.denied.push_back((self.denials, subject.to_owned()));
                    while self.denied.len() > MAX_DENIALS {
                        self.denied.pop_front();
                    }
                } else {
                    self.reason = Some(text);
                }
            }
            _ => {}
        }
    }

    /// Tells whether the server has denied publishing to a subject since a number of denials.
    pub(crate) fn has_denied(&self, subject: &str, since: u64) -> bool {
        self.denied.iter().any(|(number, denied)| *number > since && denied == subject)
    }
}

/// Gives the subject of the server's error `Permissions Violation for Publish to "subject"`.
fn denied_subject(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("ermissions Violation for Publish to \"")?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureClass::{Permanent, Transient, Unavailable};

    fn refused(code: usize, err_code: u64, description: &str) -> Failure {
        let error =
            serde_json::json!({ "code": code, "err_code": err_code, "description": description });
        Failure::refused(&serde_json::from_value(error).expect("an error of JetStream"))
    }

    #[test]
    fn what_jetstream_refuses_is_about_the_message_the_stream_or_the_account() {
        for (code, err_code, description, class) in [
            (400, 10054, "message size exceeds maximum allowed", Permanent),
            (400, 10097, "header size exceeds maximum allowed of 64k", Permanent),
            (503, 10077, "maximum messages exceeded", Transient),
            (503, 10077, "maximum bytes exceeded", Transient),
            (400, 10002, "resource limits exceeded for account", Unavailable),
            (503, 10023, "insufficient resources", Unavailable),
            (500, 10028, "insufficient memory resources available", Unavailable),
            (500, 10047, "insufficient storage resources available", Unavailable),
            (503, 10039, "JetStream not enabled for account", Unavailable),
            (503, 10076, "JetStream not enabled", Unavailable),
            (503, 10008, "JetStream system temporarily unavailable", Unavailable),
            (500, 10009, "JetStream cluster can not handle request", Unavailable),
            (400, 19999, "an error of a later version", Transient),
        ] {
            let failure = refused(code, err_code, description);
            assert_eq!(failure.class, class, "{description}");
            assert!(failure.text.contains(description), "{}", failure.text);
        }
        let full = refused(503, 10077, "maximum messages exceeded");
        assert!(full.text.contains("raise its limits"), "{}", full.text);
    }

    #[test]
    fn what_the_client_library_reports_has_its_class() {
        let waited = Duration::from_secs(3);
        for (kind, class, part) in [
            (PublishErrorKind::StreamNotFound, Transient, "`.declare([Stream::new(\"..\")"),
            (PublishErrorKind::TimedOut, Transient, "did not confirm within 3s"),
            (PublishErrorKind::BrokenPipe, Unavailable, "the connection was lost"),
            (PublishErrorKind::MaxAckPending, Unavailable, "publish fewer at once"),
            (PublishErrorKind::Other, Transient, "publish failed"),
        ] {
            let error = jetstream::context::PublishError::new(kind);
            let failure = Failure::from_publish(&error, "orders", waited);
            assert_eq!(failure.class, class, "{kind:?}");
            assert!(failure.text.contains(part), "{kind:?}: {}", failure.text);
        }
    }

    #[test]
    fn a_connection_that_is_refused_is_no_fault_of_a_message() {
        for (kind, part) in [
            (ConnectErrorKind::AuthorizationViolation, "refuses the login"),
            (ConnectErrorKind::Authentication, "refuses the login"),
            (ConnectErrorKind::Dns, "no connection"),
            (ConnectErrorKind::TimedOut, "no connection"),
            (ConnectErrorKind::Tls, "no connection"),
            (ConnectErrorKind::Io, "no connection"),
        ] {
            let failure = Failure::from_connect(&ConnectError::new(kind));
            assert_eq!(failure.class, Unavailable, "{kind:?}");
            assert!(failure.text.contains(part), "{kind:?}: {}", failure.text);
        }
    }

    #[test]
    fn a_denied_publish_is_told_from_an_error_that_ends_the_connection() {
        let error = |text: &str| Event::ServerError(ServerError::Other(text.to_owned()));
        let mut health = Health::default();
        health.observe(&error("Permissions Violation for Publish to \"orders\""));
        assert!(health.has_denied("orders", 0) && !health.has_denied("payments", 0));
        assert!(!health.has_denied("orders", 1), "a later publish has not been denied");
        assert!(health.reason.is_none() && !health.lost);
        health.observe(&error("User Authentication Expired"));
        health.observe(&Event::Disconnected);
        let lost = Failure::lost(health.reason.as_deref());
        assert!(health.lost && lost.text.contains("User Authentication Expired"), "{}", lost.text);
    }
}
