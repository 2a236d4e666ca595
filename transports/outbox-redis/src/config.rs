//! The faults of a configuration, reported all at once and without a secret.

use outbox_core::transport::printable;

/// One thing that is wrong with the configuration of a publisher or a subscriber.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFault {
    /// The text is no URL of Redis. The error does not quote it, since it may hold a password.
    #[error(
        "the URL cannot be read; it is redis://user:password@host:port/database, or rediss:// for TLS"
    )]
    Url,
    /// The name of a stream, a group or a consumer is not legal.
    #[error("the {what} `{name}` {rule}")]
    Name {
        /// What is named.
        what: &'static str,
        /// The name, shortened.
        name: String,
        /// Its rule, such as "must have 1 to 65535 bytes".
        rule: &'static str,
    },
    /// The subscriber has no stream.
    #[error("no stream is subscribed to; name at least one with `stream`")]
    NoStream,
    /// A stream is named twice.
    #[error("the stream `{0}` is named twice")]
    Twice(String),
    /// A certificate cannot be read, or the system's cannot be loaded.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// A number or a span of time is out of range.
    #[error("{what} {rule}")]
    Range {
        /// Which setting.
        what: &'static str,
        /// Its rule, such as "must be longer than zero".
        rule: &'static str,
    },
}

/// A configuration that cannot work, with everything that is wrong with it.
pub type ConfigError = outbox_core::transport::ConfigError<ConfigFault>;

impl outbox_core::transport::TransportFault for ConfigFault {
    const TRANSPORT: &'static str = "Redis";
}

/// Longest name of a stream, a group or a consumer, in bytes. The server takes names up to its
/// limit of a string; a longer name than this is a mistake.
pub(crate) const MAX_NAME: usize = 65_535;

/// The rule for names.
pub(crate) const NAME_RULE: &str = "must have 1 to 65535 bytes";

/// Tells whether a name is legal.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
}

/// Gives the fault of a name, if it has one.
pub(crate) fn name_fault(what: &'static str, name: &str) -> Option<ConfigFault> {
    let fault = || ConfigFault::Name { what, name: printable(name), rule: NAME_RULE };
    (!is_name(name)).then(fault)
}
