//! The faults of a transport's configuration, all reported at once.

use std::fmt;

/// One fault in a transport's configuration. It quotes no secret.
pub trait TransportFault: fmt::Debug + fmt::Display {
    /// Names the transport, such as "Kafka".
    const TRANSPORT: &'static str;
}

/// A configuration that cannot work, with all its faults.
///
/// ```
/// use outbox_core::transport::{ConfigError, TransportFault};
/// #[derive(Debug, thiserror::Error)]
/// enum Fault {
///     #[error("the port is missing")]
///     Port,
///     #[error("the timeout must be longer than zero")]
///     Timeout,
/// }
/// impl TransportFault for Fault {
///     const TRANSPORT: &'static str = "pigeon";
/// }
/// let error = ConfigError::check(vec![Fault::Port, Fault::Timeout]).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "the pigeon transport is not configured right: the port is missing; the timeout must be longer than zero"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError<F>(Vec<F>);

impl<F> ConfigError<F> {
    /// Reports faults, of which there is at least one.
    #[must_use]
    pub fn new(faults: Vec<F>) -> Self {
        debug_assert!(!faults.is_empty(), "an error without a fault");
        Self(faults)
    }

    /// Gives all faults, at least one.
    #[must_use]
    pub fn faults(&self) -> &[F] {
        &self.0
    }

    /// Fails with all faults, if there are any.
    ///
    /// # Errors
    /// The faults.
    pub fn check(faults: Vec<F>) -> Result<(), Self> {
        if faults.is_empty() { Ok(()) } else { Err(Self(faults)) }
    }
}

impl<F> From<F> for ConfigError<F> {
    fn from(fault: F) -> Self {
        Self(vec![fault])
    }
}

impl<F: TransportFault> fmt::Display for ConfigError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} transport is not configured right: ", F::TRANSPORT)?;
        for (index, fault) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

impl<F: TransportFault> std::error::Error for ConfigError<F> {}
