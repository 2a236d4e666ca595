//! The documents for programs: what the command line writes with `--json`, and what the JSON API of
//! the dashboard answers.

use crate::admin::{Applied, AuditOutcome, Explanation, HistoryEntry, PlanId, Subject};
use crate::saga::{LogEntry, SagaView};
use serde::Serialize;

/// The answer of one database.
///
/// ```
/// # use outbox_core::admin::Answer;
/// let answer = Answer { database: "orders", result: 3 };
/// assert_eq!(serde_json::to_string(&answer)?, r#"{"database":"orders","result":3}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Answer<'a, T> {
    /// The database's name.
    pub database: &'a str,
    /// Its answer.
    pub result: T,
}

/// An entry of a history, with the database that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatabaseEntry<'a> {
    /// The database's name.
    pub database: &'a str,
    /// The entry.
    #[serde(flatten)]
    pub entry: &'a HistoryEntry,
}

/// Why one subject stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedSubject {
    /// The subject.
    pub subject: Subject,
    /// Why.
    #[serde(flatten)]
    pub explanation: Explanation,
}

/// A saga with its log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SagaHistory {
    /// The saga.
    pub saga: SagaView,
    /// Its log, in order.
    pub log: Vec<LogEntry>,
}

/// What an act on dead letters has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ActDone {
    /// The plan that was applied; `None` for letters that were named.
    pub plan: Option<PlanId>,
    /// How it ended, or that it goes on.
    pub outcome: AuditOutcome,
    /// How far it is.
    #[serde(flatten)]
    pub applied: Applied,
}

impl ActDone {
    /// Makes the document of an act on `named` letters, of which it has resolved `done`.
    #[must_use]
    pub fn on_letters(named: usize, done: usize) -> Self {
        let applied = Applied {
            done: done as u64,
            skipped: named.saturating_sub(done) as u64,
            complete: true,
            ..Applied::default()
        };
        Self { plan: None, outcome: AuditOutcome::Done, applied }
    }
}
