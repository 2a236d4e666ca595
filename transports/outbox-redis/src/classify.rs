//! What a failure means for its message or for the server.

use outbox_core::{
    failure::FailureClass,
    transport::{PublishError, one_line},
};
use redis::{ErrorKind, RedisError};
use std::time::Duration;

/// What a failure tells besides its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The connection cannot be used any more.
    Lost,
    /// The group, or the stream that it belongs to, does not exist.
    NoGroup,
    /// The group exists already.
    GroupExists,
    /// The user lacks a right.
    NoPermission,
    /// Nothing more.
    Other,
}

/// A failure that several messages may share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) class: FailureClass,
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// A row of the table of the server's errors: the error's code, a part of its text (empty for any
/// text), what it means, and what to do about it.
type Row = (&'static str, &'static str, FailureClass, Kind, &'static str);

/// The server's errors. The first row that fits counts; an error without a row is transient.
const TABLE: [Row; 29] = {
    use FailureClass::{Permanent, Transient, Unavailable};
    use Kind::{GroupExists, NoGroup, NoPermission, Other};
    [
        ("NOAUTH", "", Unavailable, NoPermission, "name user and password in the URL"),
        ("WRONGPASS", "", Unavailable, NoPermission, "check user and password in the URL"),
        ("NOPERM", "", Unavailable, NoPermission, "grant the command and the key by ACL SETUSER"),
        ("LOADING", "", Unavailable, Other, ""),
        ("READONLY", "", Unavailable, Other, "the URL names a replica: name its master"),
        ("MISCONF", "", Unavailable, Other, "the server cannot write to its disk: see its log"),
        ("MASTERDOWN", "", Unavailable, Other, ""),
        ("CLUSTERDOWN", "", Unavailable, Other, ""),
        ("MOVED", "", Unavailable, Other, CLUSTER),
        ("ASK", "", Unavailable, Other, CLUSTER),
        ("CROSSSLOT", "", Unavailable, Other, CLUSTER),
        ("TRYAGAIN", "", Transient, Other, ""),
        ("OOM", "", Transient, Other, "raise maxmemory, or trim what grows"),
        ("BUSY", "", Transient, Other, ""),
        ("NOREPLICAS", "", Transient, Other, ""),
        ("WRONGTYPE", "", Transient, Other, "the key is no stream: rename or delete it"),
        ("NOGROUP", "", Unavailable, NoGroup, ""),
        ("UNBLOCKED", "", Unavailable, NoGroup, ""),
        ("BUSYGROUP", "", Unavailable, GroupExists, ""),
        ("ERR", "invalid bulk length", Permanent, Other, TOO_LARGE),
        ("ERR", "too large to be stored", Permanent, Other, TOO_LARGE),
        ("ERR", "string exceeds maximum allowed size", Permanent, Other, TOO_LARGE),
        ("ERR", "unauthenticated", Unavailable, NoPermission, "name user and password in the URL"),
        ("ERR", "invalid password", Unavailable, NoPermission, "check the password in the URL"),
        ("ERR", "without any password", Unavailable, NoPermission, "the server has no password"),
        ("ERR", "unknown command", Unavailable, Other, "Redis 6.2 or Valkey is needed"),
        ("ERR", "max number of clients", Unavailable, Other, "raise maxclients"),
        ("ERR", "DB index is out of range", Unavailable, Other, "check the database in the URL"),
        ("ERR", "syntax error", Unavailable, Other, "Redis 6.2 or Valkey is needed"),
    ]
};

const CLUSTER: &str = "this transport speaks to one server: name the node that owns the stream, or a proxy of the cluster";
const TOO_LARGE: &str = "a value is limited by the server's proto-max-bulk-len";

impl Failure {
    fn new(class: FailureClass, kind: Kind, text: impl Into<String>) -> Self {
        Self { class, kind, text: text.into() }
    }

    /// No retry of this message can succeed.
    pub(crate) fn permanent(text: impl Into<String>) -> Self {
        Self::new(FailureClass::Permanent, Kind::Other, text)
    }

    /// A later retry of this message may succeed.
    pub(crate) fn transient(text: impl Into<String>) -> Self {
        Self::new(FailureClass::Transient, Kind::Other, text)
    }

    /// The server is down, or refuses this client altogether.
    pub(crate) fn unavailable(text: impl Into<String>) -> Self {
        Self::new(FailureClass::Unavailable, Kind::Other, text)
    }

    /// The connection cannot be used any more.
    pub(crate) fn lost(text: impl Into<String>) -> Self {
        Self::new(FailureClass::Unavailable, Kind::Lost, text)
    }

    /// The server did not reply in time; `omission` says what it did not do. What it was asked for
    /// may have happened.
    pub(crate) fn timed_out(omission: &str, waited: Duration) -> Self {
        Self::lost(format!("the server {omission} within {waited:?}"))
    }

    /// Classifies an error that the server sent: its code and its text.
    pub(crate) fn from_server(code: &str, text: &str) -> Self {
        // An argument may be a payload with any of the parts.
        let said = without_arguments(text);
        let fits = |row: &&Row| {
            let (known, part, ..) = row;
            *known == code && (part.is_empty() || said.contains(part))
        };
        let row = TABLE.iter().find(fits);
        let (class, kind, remedy) = row
            .map_or((FailureClass::Transient, Kind::Other, ""), |(_, _, class, kind, remedy)| {
                (*class, *kind, *remedy)
            });
        let separator = if remedy.is_empty() { "" } else { "; " };
        Self::new(
            class,
            kind,
            format!("the server replied {code} {}{separator}{remedy}", shown(text)),
        )
    }

    /// Classifies an error of the client library.
    pub(crate) fn from_redis(error: &RedisError, timeout: Duration) -> Self {
        if error.is_timeout() {
            return Self::timed_out("did not reply", timeout);
        }
        if let Some(code) = error.code() {
            return Self::from_server(code, error.detail().unwrap_or_default());
        }
        if error.kind() == ErrorKind::AuthenticationFailed {
            // The library keeps the server's own words to itself.
            let text = "the server refuses user and password of the URL";
            return Self { kind: Kind::NoPermission, ..Self::unavailable(text) };
        }
        Self::lost(format!("no connection to the server: {}", shown(&error.to_string())))
    }

    /// Says that a failure is one to connect: no message is the cause.
    pub(crate) fn of_connecting(self) -> Self {
        Self { class: FailureClass::Unavailable, ..self }
    }

    /// Adds the stream that the failure is about.
    pub(crate) fn on_stream(mut self, stream: &str) -> Self {
        let stream = one_line(stream);
        self.text = format!("stream `{stream}`: {}", self.text);
        self
    }
}

/// Shortens a text of the server for an error.
fn shown(text: &str) -> String {
    one_line(without_arguments(text))
}

/// Cuts off the arguments that the server quotes behind an unknown command: payloads or passwords.
fn without_arguments(text: &str) -> &str {
    text.split_once(", with args").map_or(text, |(said, _)| said)
}

impl From<Failure> for PublishError {
    fn from(failure: Failure) -> Self {
        let Failure { class, kind, text } = failure;
        match class {
            FailureClass::Permanent => Self::permanent(text),
            FailureClass::Transient => Self::transient(text),
            // A right may be missing for one stream alone: the other keys are probed at once.
            FailureClass::Unavailable if kind == Kind::NoPermission => {
                Self::unavailable(text).responded()
            }
            FailureClass::Unavailable => Self::unavailable(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureClass::{Permanent, Transient, Unavailable};

    #[test]
    fn each_error_of_the_server_has_its_class() {
        for (code, text, class, kind) in [
            ("NOAUTH", "Authentication required.", Unavailable, Kind::NoPermission),
            ("WRONGPASS", "invalid username-password pair", Unavailable, Kind::NoPermission),
            ("NOPERM", "this user has no permissions", Unavailable, Kind::NoPermission),
            ("LOADING", "Redis is loading the dataset in memory", Unavailable, Kind::Other),
            ("READONLY", "You can't write against a read only replica.", Unavailable, Kind::Other),
            ("MISCONF", "Redis is configured to save RDB snapshots", Unavailable, Kind::Other),
            ("MASTERDOWN", "Link with MASTER is down", Unavailable, Kind::Other),
            ("CLUSTERDOWN", "The cluster is down", Unavailable, Kind::Other),
            ("MOVED", "3999 127.0.0.1:6381", Unavailable, Kind::Other),
            ("ASK", "3999 127.0.0.1:6381", Unavailable, Kind::Other),
            ("CROSSSLOT", "Keys in request don't hash", Unavailable, Kind::Other),
            ("TRYAGAIN", "Multiple keys request", Transient, Kind::Other),
            ("OOM", "command not allowed when used memory", Transient, Kind::Other),
            ("BUSY", "Redis is busy running a script", Transient, Kind::Other),
            ("NOREPLICAS", "Not enough good replicas to write.", Transient, Kind::Other),
            ("WRONGTYPE", "Operation against a key", Transient, Kind::Other),
            ("NOGROUP", "No such key 's' or consumer group", Unavailable, Kind::NoGroup),
            ("UNBLOCKED", "the stream key no longer exists", Unavailable, Kind::NoGroup),
            ("BUSYGROUP", "Consumer Group name already exists", Unavailable, Kind::GroupExists),
            ("ERR", "Protocol error: invalid bulk length", Permanent, Kind::Other),
            ("ERR", "Elements are too large to be stored", Permanent, Kind::Other),
            ("ERR", "invalid password", Unavailable, Kind::NoPermission),
            ("ERR", "unauthenticated bulk length", Unavailable, Kind::NoPermission),
            ("ERR", "unknown command 'XADD'", Unavailable, Kind::Other),
            ("ERR", "max number of clients reached", Unavailable, Kind::Other),
            ("ERR", "DB index is out of range", Unavailable, Kind::Other),
            ("ERR", "something else", Transient, Kind::Other),
            ("NEWCODE", "of a later server", Transient, Kind::Other),
        ] {
            let failure = Failure::from_server(code, text);
            assert_eq!((failure.class, failure.kind), (class, kind), "{code} {text}");
            assert!(failure.text.contains(code) && failure.text.contains(text), "{failure:?}");
        }
    }

    #[test]
    fn a_failure_says_what_to_do_and_on_which_stream() {
        let failure = Failure::from_server(
            "WRONGTYPE",
            "Operation against a key holding the wrong kind of value",
        );
        assert_eq!(
            failure.on_stream("orders").text,
            "stream `orders`: the server replied WRONGTYPE Operation against a key holding the wrong \
             kind of value; the key is no stream: rename or delete it"
        );
        assert!(Failure::from_server("READONLY", "").text.ends_with("name its master"));
    }

    #[test]
    fn a_text_becomes_one_bounded_line_without_the_arguments_of_a_command() {
        let text =
            "unknown command 'XADD', with args beginning with: 'orders' '*' 'data' 'canary' ";
        let failure = Failure::from_server("ERR", text);
        assert!(
            !failure.text.contains("canary") && !failure.text.contains("orders"),
            "{failure:?}"
        );
        let text = "unknown command 'XADD', with args beginning with: 'orders' 'string exceeds \
                    maximum allowed size'";
        assert_eq!(Failure::from_server("ERR", text).class, Unavailable, "no payload decides");
        let failure = Failure::from_server("MISCONF", &format!("disk\r\n{}", "x".repeat(1000)));
        assert!(
            failure.text.len() < 400 && !failure.text.chars().any(char::is_control),
            "{failure:?}"
        );
    }

    #[test]
    fn a_silent_server_and_a_lost_connection_are_unavailable_and_cost_the_connection() {
        let io = |kind: std::io::ErrorKind| RedisError::from(std::io::Error::from(kind));
        let wait = Duration::from_secs(3);
        let silent = Failure::from_redis(&io(std::io::ErrorKind::TimedOut), wait);
        assert_eq!((silent.class, silent.kind), (Unavailable, Kind::Lost));
        assert_eq!(silent.text, "the server did not reply within 3s");
        let reset = Failure::from_redis(&io(std::io::ErrorKind::ConnectionReset), wait);
        assert_eq!((reset.class, reset.kind), (Unavailable, Kind::Lost));
    }

    #[test]
    fn a_failure_to_connect_is_of_no_message() {
        for (code, text) in [("ERR", "of a later server"), ("BUSY", "a script"), ("TRYAGAIN", "")] {
            let failure = Failure::from_server(code, text);
            assert_eq!(failure.class, Transient);
            assert_eq!(failure.of_connecting().class, Unavailable);
        }
        let refused = Failure::from_server("WRONGPASS", "").of_connecting();
        assert!(PublishError::from(refused).has_responded());
    }

    #[test]
    fn a_right_that_is_missing_is_an_answer_and_a_lost_connection_is_none() {
        assert!(PublishError::from(Failure::from_server("NOPERM", "")).has_responded());
        assert!(!PublishError::from(Failure::lost("gone")).has_responded());
        assert!(!PublishError::from(Failure::from_server("LOADING", "")).has_responded());
    }
}
