//! The phases of a transaction's end, in which listeners run.

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Data and events are in the database.
    Committed,
    /// Nothing is.
    RolledBack,
    /// COMMIT was sent, and the response was lost.
    Unknown,
}

/// A phase in which listeners of an event type run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Inside the transaction; an error rolls it back.
    BeforeCommit,
    /// After the data and the events are in the database.
    AfterCommit,
    /// After nothing was saved: an error, a panic, a dropped future.
    AfterRollback,
    /// After either, and when the outcome is unknown.
    AfterCompletion,
}

impl Phase {
    /// Tells whether the phase runs after an outcome.
    pub(crate) const fn runs_after(self, outcome: Outcome) -> bool {
        matches!(
            (self, outcome),
            (Self::AfterCompletion, _)
                | (Self::AfterCommit, Outcome::Committed)
                | (Self::AfterRollback, Outcome::RolledBack)
        )
    }
}
