//! How a relay uses its database.

use crate::schema::{AUDIT_RETENTION, LETTER_RETENTION};
use std::time::Duration;

/// What happens to an event that is finished.
///
/// ```
/// # use outbox_sea_orm::Retention;
/// # use std::time::Duration;
/// let audit = Retention::Keep(Duration::from_hours(30 * 24)); // in `outbox_archive`
/// assert_eq!(Retention::default(), Retention::Delete);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Retention {
    /// It is deleted.
    #[default]
    Delete,
    /// It is moved to the archive and kept there for so long.
    Keep(Duration),
}

/// How a relay uses its database.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    pub(super) lease: Duration,
    pub(super) retention: Retention,
    pub(super) letter_retention: Duration,
    pub(super) audit_retention: Duration,
    pub(super) notifications: bool,
    pub(super) behind_pooler: bool,
}

impl StoreOptions {
    /// Starts from the length of a relay's lease: no statement of the relay lasts longer than a
    /// third of it.
    ///
    /// The relay deletes finished events, and listens to the wakes of other processes where the
    /// database has notifications.
    #[must_use]
    pub const fn new(lease: Duration) -> Self {
        Self {
            lease,
            retention: Retention::Delete,
            letter_retention: LETTER_RETENTION,
            audit_retention: AUDIT_RETENTION,
            notifications: true,
            behind_pooler: false,
        }
    }

    /// Sets what happens to finished events.
    #[must_use]
    pub const fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Sets how long a dead letter is kept after an operator has resolved it; 90 days unless set.
    /// An unresolved one is kept.
    #[must_use]
    pub const fn letter_retention(mut self, retention: Duration) -> Self {
        self.letter_retention = retention;
        self
    }

    /// Sets how long the audit of operators' acts is kept; a year unless set.
    #[must_use]
    pub const fn audit_retention(mut self, retention: Duration) -> Self {
        self.audit_retention = retention;
        self
    }

    /// Sets whether the relay listens to the wakes of other processes (PostgreSQL).
    #[must_use]
    pub const fn notifications(mut self, enabled: bool) -> Self {
        self.notifications = enabled;
        self
    }

    /// Tells that a pooler in between gives a PostgreSQL connection to another client after each
    /// transaction: then each transaction sets its settings itself, and the relay does not listen
    /// to wakes.
    #[must_use]
    pub const fn behind_pooler(mut self, pooled: bool) -> Self {
        self.behind_pooler = pooled;
        self
    }
}
