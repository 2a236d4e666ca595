//! The failures of a store.

use super::Awaited;
use crate::failure::{BoxError, FailureClass};

/// A failure of the store.
///
/// ```
/// # use outbox_core::{failure::FailureClass, outbox::StoreError};
/// let busy = StoreError::Busy("deadlock detected".into());
/// assert_eq!(busy.class(), FailureClass::Transient); // the same work may succeed later
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database cannot be reached, or the connection broke: whether the work was done is
    /// unknown.
    #[error("the database cannot be reached")]
    Unavailable(#[source] BoxError),
    /// The database was busy with other transactions: a deadlock, a serialization failure, a lock
    /// timeout. Nothing was done.
    #[error("the database is busy")]
    Busy(#[source] BoxError),
    /// The outbox in the database is not what this program expects.
    #[error("the outbox in the database does not fit: {0}")]
    Mismatch(String),
    /// The database refused these values: too long, not of the type, against a constraint.
    #[error("the database refused")]
    Refused(#[source] BoxError),
    /// The database refuses every write, whatever the values are: a privilege was revoked, a
    /// setting does not fit, a file is damaged. An operator has to repair it.
    #[error("the database cannot be used")]
    Unusable(#[source] BoxError),
    /// What the database has can only be read by an instance that knows this; nothing was done.
    #[error("what is stored can only be read with {0}, which this instance does not have")]
    Unknown(Awaited),
}

impl StoreError {
    /// Says whether the same call may succeed later.
    #[must_use]
    pub const fn class(&self) -> FailureClass {
        match self {
            Self::Unavailable(_) => FailureClass::Unavailable,
            Self::Busy(_) | Self::Unknown(_) => FailureClass::Transient,
            Self::Mismatch(_) | Self::Refused(_) | Self::Unusable(_) => FailureClass::Permanent,
        }
    }
}
