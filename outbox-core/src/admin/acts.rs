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
use std::{fmt, str::FromStr, time::Duration};
use tokio::time::sleep;

/// Letters of one chunk: a transaction that relays and producers do not notice.
const CHUNK: u32 = 200;
/// Letters of the steps of a canary, before the rest.
const CANARY_STEPS: [u32; 3] = [1, 10, 100];
/// How often a canary counts the letters that failed again.
const WATCH_EVERY: Duration = Duration::from_secs(1);

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

/// Identity of a plan.
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

/// The progress of an act, over all its chunks and all callers that apply its plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Letters that this act has resolved.
    pub done: u64,
    /// Letters of the plan that somebody else has resolved since.
    pub skipped: u64,
    /// Letters that the act does not apply to, which stay open: see [`Plan::notes`].
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
    /// It ended before it had done all: the operator stopped it, or a chunk of it failed.
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
    /// How many it refused.
    pub refused: u64,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// The plan that it applied or cancelled, where it had one.
    pub plan: Option<PlanId>,
}

/// A plan as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanState {
    /// The plan. Count, first letters and notes are those of its letters that are open now and that
    /// no chunk has looked at.
    #[serde(flatten)]
    pub plan: Plan,
    /// The filter of its letters, to plan again.
    #[serde(skip)]
    pub filter: DeadLetterFilter,
    /// Whether it is void: it has expired before its first chunk.
    pub expired: bool,
    /// Its row of the audit; `None` before its first chunk.
    pub audit: Option<AuditEntry>,
}

/// How a canary goes on: 1 letter, 10, 100, then the rest, each step only if no letter of the plan
/// failed again since. Between the chunks of the rest it counts without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canary {
    /// How long each step waits for letters that fail again.
    pub watch: Duration,
}

/// A step of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CanaryStep {
    /// Resolve so many letters next.
    Next(u32),
    /// Resolve all that are left.
    Rest,
}

/// Gives what an act resolves next when it has resolved `done` letters: without a canary the rest.
/// A step that was cut short, by a crash or by the bytes of its letters, is completed first.
#[must_use]
pub fn next_step(done: u64, canary: Option<Canary>) -> CanaryStep {
    if canary.is_none() {
        return CanaryStep::Rest;
    }
    let mut end = 0;
    for size in CANARY_STEPS {
        end += u64::from(size);
        if done < end {
            return CanaryStep::Next(u32::try_from(end - done).unwrap_or(size));
        }
    }
    CanaryStep::Rest
}

/// Counts the steps of a canary that are complete when `done` letters are resolved.
fn steps_complete(done: u64) -> usize {
    let ends = CANARY_STEPS.iter().scan(0, |end, size| {
        *end += u64::from(*size);
        Some(*end)
    });
    ends.filter(|end| done >= *end).count()
}

/// Stores plans and the audit.
#[async_trait]
pub trait ActStore: Send + Sync + 'static {
    /// Plans an act on all open letters of a filter that exist now, and deletes plans that have
    /// expired before their first chunk.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for a filter [without a condition](DeadLetterFilter::is_empty), unless
    /// `all` is set, and for [one letter](DeadLetterFilter::letter()) that does not exist or is
    /// resolved.
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
    /// or has ended; for a plan of one letter that was resolved since, by whom and when.
    async fn apply_chunk(
        &self,
        plan: PlanId,
        limit: u32,
        note: &OperatorNote,
    ) -> Result<Applied, StoreError>;

    /// Writes how a plan has ended; a plan that has ended already keeps its outcome, and one
    /// without a chunk has none.
    async fn end_plan(&self, plan: PlanId, outcome: AuditOutcome) -> Result<(), StoreError>;

    /// Gives how a plan stands or has ended; `None` before its first chunk. A store without this
    /// gives `None`: then a caller that shares a plan's letters with another one gets that one's end
    /// as an error.
    async fn plan_outcome(&self, plan: PlanId) -> Result<Option<AuditOutcome>, StoreError> {
        let _ = plan;
        Ok(None)
    }

    /// Counts letters of the events that the plan has redriven, written since its first chunk, among
    /// the newest 10,000 letters.
    async fn failed_again(&self, plan: PlanId) -> Result<u64, StoreError>;

    /// Lists the audit, the newest first, from the one before `before`.
    async fn audit(&self, before: Option<i64>, limit: u32) -> Result<Vec<AuditEntry>, StoreError>;
}

/// Reads plans that are stored, and cancels them, for those who have not made them: a page that is
/// loaded again, an operator who was sent its address.
#[async_trait]
pub trait PlanStore: Send + Sync + 'static {
    /// Gives a plan as it stands; `None` for one that does not exist, or has expired and was deleted.
    async fn plan_state(&self, plan: PlanId) -> Result<Option<PlanState>, StoreError>;

    /// Gives the row of the audit of a plan, by its key alone, to show progress; `None` before its
    /// first chunk.
    async fn plan_audit(&self, plan: PlanId) -> Result<Option<AuditEntry>, StoreError>;

    /// Cancels a plan that is applied, after its present chunk, whoever applies it; a row of the audit
    /// of its own says who has cancelled it (`cancel plan`). Gives `false` for a plan that has not
    /// begun, or has ended before.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for a plan that does not exist.
    async fn cancel_plan(&self, plan: PlanId, note: &OperatorNote) -> Result<bool, StoreError>;
}

/// Applies a plan in chunks of 200 letters, or in the steps of a canary, until it is complete,
/// stopped by the canary, or cancelled; reports the progress after each chunk. `cancel` is looked at
/// between chunks and while a canary waits. Gives how the plan ended, also where another caller that
/// shares its letters has ended it.
///
/// # Errors
/// [`StoreError`] of the chunk that failed; those before it are applied, and applying the plan again
/// goes on. [`StoreError::Refused`] for a plan that has ended before, with what it had done.
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
    let mut before: Option<Applied> = None;
    loop {
        if cancel.is_requested() {
            return end(store, plan, AuditOutcome::Cancelled).await;
        }
        let done = before.map_or(0, |applied| applied.done);
        let limit = match next_step(done, canary) {
            CanaryStep::Next(letters) => letters.min(CHUNK),
            CanaryStep::Rest => CHUNK,
        };
        let applied = match store.apply_chunk(plan, limit, note).await {
            Ok(applied) => applied,
            Err(error @ StoreError::Refused(_)) if before.is_some() => {
                return ended_elsewhere(store, plan, error).await;
            }
            Err(error) => return Err(error),
        };
        on_progress(applied);
        if applied.complete {
            return end(store, plan, AuditOutcome::Done).await;
        }
        if let Some(canary) = canary {
            let is_step_complete = steps_complete(applied.done) > steps_complete(done);
            let time = if is_step_complete { canary.watch } else { Duration::ZERO };
            if let Some(outcome) = watch(store, plan, time, cancel).await? {
                return end(store, plan, outcome).await;
            }
        }
        before = Some(applied);
    }
}

/// Waits for a time, in which it counts the letters that failed again; gives the outcome of an act
/// that goes no further.
async fn watch(
    store: &dyn ActStore,
    plan: PlanId,
    mut time: Duration,
    cancel: &Shutdown,
) -> Result<Option<AuditOutcome>, StoreError> {
    loop {
        if store.failed_again(plan).await? > 0 {
            return Ok(Some(AuditOutcome::Stopped));
        }
        if time.is_zero() {
            return Ok(None);
        }
        let pause = time.min(WATCH_EVERY);
        tokio::select! {
            () = sleep(pause) => time -= pause,
            () = cancel.requested() => return Ok(Some(AuditOutcome::Cancelled)),
        }
    }
}

/// Ends a plan; gives the outcome that it has then, which is that of the first caller who ended it.
async fn end(
    store: &dyn ActStore,
    plan: PlanId,
    outcome: AuditOutcome,
) -> Result<AuditOutcome, StoreError> {
    store.end_plan(plan, outcome).await?;
    Ok(store.plan_outcome(plan).await?.unwrap_or(outcome))
}

/// Gives how another caller has ended a plan in the middle of this one's chunks; the error where
/// nobody has.
async fn ended_elsewhere(
    store: &dyn ActStore,
    plan: PlanId,
    error: StoreError,
) -> Result<AuditOutcome, StoreError> {
    match store.plan_outcome(plan).await? {
        Some(outcome) if outcome != AuditOutcome::Running => Ok(outcome),
        Some(_) | None => Err(error),
    }
}

#[cfg(test)]
mod tests;
