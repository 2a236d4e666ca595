//! The log of a saga: each transition is appended to it. State and data can be rebuilt from the
//! log.

use super::{
    json::Json,
    state::{Instance, SagaState},
};
use crate::{event::Timestamp, outbox::OperatorNote};
use serde::{Deserialize, Serialize};

/// Longest text of a failure that is stored, in bytes: enough for a status line and a cause.
const MAX_TEXT: usize = 1024;

/// One transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A caller started the saga with these data.
    Started {
        /// The saga's data.
        data: Json,
    },
    /// A step is done.
    Done {
        /// Its name.
        step: String,
        /// What it returned.
        output: Json,
        /// The saga's data after it; `None` where it cannot change them.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "super::json::present"
        )]
        data: Option<Json>,
        /// Whether it is the pivot.
        pivot: bool,
        /// Whether it has a compensation: a later definition without one cannot undo it.
        #[serde(default)]
        compensates: bool,
        /// Which attempt succeeded, from 1.
        attempt: u32,
    },
    /// A remote step's command was sent: for the step, or for its compensation where the saga
    /// compensates.
    CommandSent {
        /// The step's name.
        step: String,
        /// The saga's data after it.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "super::json::present"
        )]
        data: Option<Json>,
        /// Whether it is the pivot.
        pivot: bool,
        /// Whether it has a compensation.
        compensates: bool,
        /// How often the command was sent in a row, with this time.
        sends: u32,
        /// Until when the reply is awaited: microseconds since 1970-01-01 UTC, by the database's
        /// clock.
        reply_due_us: i64,
        /// Hash of the step's first command, where it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command_hash: Option<String>,
    },
    /// The participant rejected a step's command: nothing of the step is done.
    Rejected {
        /// Its name.
        step: String,
        /// Why.
        reason: String,
    },
    /// No reply to a step's command came in time.
    TimedOut {
        /// Its name.
        step: String,
    },
    /// A reply to a step's command came after compensation had started.
    LateReply {
        /// Its name.
        step: String,
        /// Type of the reply.
        reply: String,
        /// What the step returned; `None` where the participant rejected the command.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "super::json::present"
        )]
        output: Option<Json>,
    },
    /// The step's own condition skipped it.
    SkippedByCondition {
        /// Its name.
        step: String,
        /// Whether it is the pivot.
        pivot: bool,
    },
    /// The step locked entities for the saga until it ends. The step's own record follows in the
    /// same transaction.
    Locked {
        /// The step's name.
        step: String,
        /// The entities.
        entities: Vec<String>,
    },
    /// A step, or its compensation where the saga compensates, waits for an entity that another
    /// saga has locked. One record is written, however long the step waits.
    BlockedOnLock {
        /// The step's name.
        step: String,
        /// The entity.
        entity: String,
        /// The saga that held the lock.
        holder: String,
        /// Since when it waits: microseconds since 1970-01-01 UTC, by the database's clock.
        since_us: i64,
    },
    /// An attempt at a step, or at its compensation where the saga compensates, failed, and another
    /// one follows.
    Failed {
        /// Its name.
        step: String,
        /// Which attempt, from 1.
        attempt: u32,
        /// The error's text.
        error: String,
        /// The wait before the next one, in microseconds.
        wait_us: u64,
        /// The end of that wait: microseconds since 1970-01-01 UTC, by the database's clock.
        #[serde(default)]
        retry_at_us: i64,
    },
    /// The coordinator is about to attempt a step, or its compensation where the saga compensates,
    /// after an attempt that may have ended its process. This record is committed before the
    /// attempt, so that the attempt counts if it ends its process too.
    AttemptStarted {
        /// Its name.
        step: String,
        /// How many such attempts in a row have no known end, with this one.
        unfinished_attempts: u32,
    },
    /// The saga starts compensating.
    CompensationStarted {
        /// Why.
        reason: String,
        /// The operator who cancelled the saga, where one did.
        by: Option<Operator>,
    },
    /// A step's compensation is done.
    Undone {
        /// The step.
        step: String,
        /// The saga's data after it; `None` where other steps were undone at the same time.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "super::json::present"
        )]
        data: Option<Json>,
        /// Which attempt succeeded, from 1.
        attempt: u32,
    },
    /// The saga is stuck until an operator decides.
    Stuck {
        /// The step at which it is stuck, where a step is the cause.
        step: Option<String>,
        /// Why.
        reason: String,
        /// Whether the step is the pivot: if an operator skips it, the saga only goes forward.
        #[serde(default)]
        pivot: bool,
    },
    /// An operator resumed the saga.
    Resumed {
        /// The operator, and the reason.
        by: Operator,
    },
    /// An operator resumed the saga from a step.
    RetriedFrom {
        /// The step.
        step: String,
        /// The operator, and the reason.
        by: Operator,
    },
    /// An operator skipped a step, or its compensation where the saga compensates: it counts as
    /// done.
    SkippedByOperator {
        /// The step.
        step: String,
        /// The operator, and the reason.
        by: Operator,
    },
    /// All steps are done.
    Completed,
    /// Everything that was done is undone.
    Compensated,
}

/// The operator who decided, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// The operator's name.
    pub name: String,
    /// The operator's reason.
    pub reason: String,
}

impl From<&OperatorNote> for Operator {
    fn from(note: &OperatorNote) -> Self {
        Self { name: cut(&note.by), reason: cut(&note.reason) }
    }
}

impl Record {
    /// Gives the name that is stored.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Done { .. } => "done",
            Self::CommandSent { .. } => "command_sent",
            Self::Rejected { .. } => "rejected",
            Self::TimedOut { .. } => "timed_out",
            Self::LateReply { .. } => "late_reply",
            Self::SkippedByCondition { .. } => "skipped_by_condition",
            Self::Locked { .. } => "locked",
            Self::BlockedOnLock { .. } => "blocked_on_lock",
            Self::Failed { .. } => "failed",
            Self::AttemptStarted { .. } => "attempt_started",
            Self::CompensationStarted { .. } => "compensation_started",
            Self::Undone { .. } => "undone",
            Self::Stuck { .. } => "stuck",
            Self::Resumed { .. } => "resumed",
            Self::RetriedFrom { .. } => "retried_from",
            Self::SkippedByOperator { .. } => "skipped_by_operator",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
        }
    }

    /// Gives the step that it is about, where it is about one.
    #[must_use]
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::Done { step, .. }
            | Self::CommandSent { step, .. }
            | Self::Rejected { step, .. }
            | Self::TimedOut { step }
            | Self::LateReply { step, .. }
            | Self::SkippedByCondition { step, .. }
            | Self::Locked { step, .. }
            | Self::BlockedOnLock { step, .. }
            | Self::Failed { step, .. }
            | Self::AttemptStarted { step, .. }
            | Self::Undone { step, .. }
            | Self::RetriedFrom { step, .. }
            | Self::SkippedByOperator { step, .. } => Some(step),
            Self::Stuck { step, .. } => step.as_deref(),
            Self::Started { .. }
            | Self::CompensationStarted { .. }
            | Self::Resumed { .. }
            | Self::Completed
            | Self::Compensated => None,
        }
    }

    /// Gives the saga's data after it, where it changes them.
    #[must_use]
    pub const fn data(&self) -> Option<&Json> {
        match self {
            Self::Started { data } => Some(data),
            Self::Done { data, .. }
            | Self::CommandSent { data, .. }
            | Self::Undone { data, .. } => data.as_ref(),
            _ => None,
        }
    }
}

/// An entry of the log.
///
/// ```
/// # use outbox_core::saga::LogEntry;
/// # fn example(log: &[LogEntry]) {
/// for entry in log {
///     println!("{} {} {}", entry.at, entry.record.kind(), entry.record.step().unwrap_or("-"));
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// Its number in the log, from 1, without gaps.
    pub seq: u64,
    /// The record.
    pub record: Record,
    /// When it was written, by the database's clock.
    pub at: Timestamp,
}

/// A log with a record that does not apply in the state before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {seq}, `{kind}`, cannot follow a saga that is {state}")]
pub struct InvalidLog {
    /// The record's number in the log.
    pub seq: u64,
    /// Its kind.
    pub kind: &'static str,
    /// The saga's state before it.
    pub state: SagaState,
}

/// Rebuilds a saga from its log, the first record first: its state and its data.
///
/// # Errors
/// [`InvalidLog`] for a record that does not apply in the state before it.
pub fn rebuild<'r>(
    records: impl IntoIterator<Item = &'r Record>,
) -> Result<(Instance, Option<Json>), InvalidLog> {
    let (mut instance, mut data) = (Instance::default(), None);
    for (seq, record) in (1..).zip(records) {
        if !matches!((seq, record), (1, Record::Started { .. })) {
            let invalid = || InvalidLog { seq, kind: record.kind(), state: instance.state };
            instance = instance.after(record).ok_or_else(invalid)?;
        }
        data = record.data().cloned().or(data);
    }
    Ok((instance, data))
}

/// Cuts a text that is stored to its longest length, at a character's boundary.
pub(super) fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // PostgreSQL stores no NUL, and some readers reject its escape in JSON.
    text[..end].replace('\0', " ")
}
