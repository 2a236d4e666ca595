//! The faults of a configuration, reported all at once and without a secret.

/// One thing that is wrong with the configuration of a publisher, a subscriber or a topology.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFault {
    /// The text is no URL of RabbitMQ. The error does not quote it, since it may hold a password.
    #[error(
        "the URL cannot be read; it is amqp://user:password@host:port/vhost, or amqps:// for TLS, \
         with `%40` for an `@` and `%2F` for a `/` in the password or the vhost"
    )]
    Url,
    /// The name of an exchange or a queue, or a routing key, is not legal.
    #[error("the {what} `{name}` {rule}")]
    Name {
        /// What is named.
        what: &'static str,
        /// The name, shortened.
        name: String,
        /// Its rule, such as "has 1 to 255 bytes".
        rule: &'static str,
    },
    /// Something is declared twice.
    #[error("the {what} `{name}` is declared twice")]
    Twice {
        /// What is declared.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Two settings of a queue exclude one another.
    #[error("the queue `{queue}`: {problem}")]
    Queue {
        /// Its name.
        queue: String,
        /// What is wrong with it.
        problem: &'static str,
    },
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
    const TRANSPORT: &'static str = "RabbitMQ";
}

/// Longest name of the protocol ("short string"), in bytes.
pub(crate) const MAX_NAME: usize = 255;

/// Gives the fault of a name, if it has one.
pub(crate) fn name_fault(what: &'static str, name: &str) -> Option<ConfigFault> {
    let wrong = name.is_empty() || name.len() > MAX_NAME;
    wrong.then(|| ConfigFault::Name {
        what,
        name: name.chars().take(64).collect(),
        rule: "must have 1 to 255 bytes",
    })
}
