//! The faults of a configuration, reported all at once and without a secret.

use crate::signature::SecretError;

/// One thing that is wrong with the configuration of a publisher or a receiver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFault {
    /// The text is no URL. The error does not quote it, since it may hold a password.
    #[error("the URL cannot be read: {0}")]
    Url(String),
    /// The URL is not one of HTTP.
    #[error("the URL's scheme is `{0}`; it must be http or https")]
    Scheme(String),
    /// The URL names a forbidden address.
    #[error(
        "the URL names the address {address}, which is {what}; allow_subnet or allow_loopback would permit it"
    )]
    Address {
        /// The address.
        address: std::net::IpAddr,
        /// What kind it is, such as "private".
        what: &'static str,
    },
    /// A signing secret cannot be read.
    #[error("signing secret number {number}: {problem}")]
    Secret {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        problem: SecretError,
    },
    /// The receiver neither verifies signatures nor accepts unsigned messages.
    #[error("neither verify(\"whsec_...\") nor unsigned() was called")]
    Unverified,
    /// The receiver both verifies signatures and accepts unsigned messages.
    #[error("both verify and unsigned were called")]
    Contradiction,
    /// A header cannot be sent.
    #[error("the header number {number} {problem}")]
    Header {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A subnet cannot be read.
    #[error("`{0}` is no subnet such as 10.0.0.0/8")]
    Subnet(String),
    /// A certificate cannot be read, or the system's cannot be loaded.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// A path is not one of plain segments.
    #[error("the path `{0}` must start with / and have only letters, digits and - . _ ~ /")]
    Path(String),
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
    const TRANSPORT: &'static str = "HTTP";
}
