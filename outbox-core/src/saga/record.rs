//! The log of a saga: every transition, appended. State and data can be rebuilt from it.

use super::{
    json::Json,
    state::{Instance, SagaState},
};
use crate::{admin::Decision, event::Timestamp};
use serde::{Deserialize, Serialize};

/// Longest text kept of a failure in bytes: a status line and a cause.
const MAX_TEXT: usize = 1024;

/// One transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// It was started with these data.
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
        /// Which attempt did it, from 1.
        attempt: u32,
    },
    /// A command went out: for a step, or for its undoing where the saga goes back.
    Asked {
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
        /// Which command for this it is in a row, from 1.
        times: u32,
        /// Until when the answer is awaited: microseconds since 1970-01-01 UTC, by the database's clock.
        until_us: i64,
        /// Hash of the command that was sent first for the step, where it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
    },
    /// The answer was that a step cannot be done, and that nothing of it is.
    Refused {
        /// Its name.
        step: String,
        /// Why.
        reason: String,
    },
    /// The answer to a step's command did not come in time.
    TimedOut {
        /// Its name.
        step: String,
    },
    /// An answer to a step's command came when the saga had turned back already.
    Late {
        /// Its name.
        step: String,
        /// Type of the answer.
        answer: String,
        /// What the step returned; `None` where it could not be done.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "super::json::present"
        )]
        output: Option<Json>,
    },
    /// A step was left out by its own condition.
    LeftOut {
        /// Its name.
        step: String,
        /// Whether it is the pivot.
        pivot: bool,
    },
    /// Entities are marked for the saga until it ends, in the transaction of the step's own record, which follows.
    Locked {
        /// The step's name.
        step: String,
        /// The entities.
        entities: Vec<String>,
    },
    /// A step, or its compensation where the saga goes back, waits for an entity that another saga has marked. Written once,
    /// however long it waits.
    Held {
        /// The step's name.
        step: String,
        /// The entity.
        entity: String,
        /// The saga that had it.
        holder: String,
        /// Since when it waits: microseconds since 1970-01-01 UTC, by the database's clock.
        since_us: i64,
    },
    /// A step, or its compensation where the saga goes back, failed and is tried again.
    Failed {
        /// Its name.
        step: String,
        /// Which attempt, from 1.
        attempt: u32,
        /// What it said.
        error: String,
        /// The wait before the next one, in microseconds.
        wait_us: u64,
        /// Its end: microseconds since 1970-01-01 UTC, by the database's clock.
        #[serde(default)]
        until_us: i64,
    },
    /// A step, or its compensation where the saga goes back, is about to be tried, after an attempt that may have ended its
    /// process. Unlike others it is written down before, so that it is counted if it ends so too.
    Begun {
        /// Its name.
        step: String,
        /// How many such attempts in a row, with this one.
        times: u32,
    },
    /// The saga turns back.
    TurnedBack {
        /// Why.
        reason: String,
        /// Who wanted it, where it was somebody.
        by: Option<By>,
    },
    /// A step's compensation is done.
    Undone {
        /// The step.
        step: String,
        /// The saga's data after it; `None` where others were undone beside it.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "super::json::present"
        )]
        data: Option<Json>,
        /// Which attempt did it, from 1.
        attempt: u32,
    },
    /// Nothing goes on by itself.
    Stuck {
        /// Where, if it is a step.
        step: Option<String>,
        /// Why.
        reason: String,
        /// Whether the step is the pivot: if it is counted as done, the saga only goes forward.
        #[serde(default)]
        pivot: bool,
    },
    /// An operator lets it go on where it is.
    Resumed {
        /// Who, and why.
        by: By,
    },
    /// An operator lets it go on from a step.
    RetriedFrom {
        /// The step.
        step: String,
        /// Who, and why.
        by: By,
    },
    /// An operator says that a step, or its compensation where the saga goes back, counts as done.
    Passed {
        /// The step.
        step: String,
        /// Who, and why.
        by: By,
    },
    /// All steps are done.
    Completed,
    /// All that was done is undone.
    Compensated,
}

/// Who decided, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
}

impl From<&Decision> for By {
    fn from(decision: &Decision) -> Self {
        Self { who: cut(&decision.by), why: cut(&decision.why) }
    }
}

impl Record {
    /// Gives the name that is stored.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Done { .. } => "done",
            Self::Asked { .. } => "asked",
            Self::Refused { .. } => "refused",
            Self::TimedOut { .. } => "timed_out",
            Self::Late { .. } => "late",
            Self::LeftOut { .. } => "left_out",
            Self::Locked { .. } => "locked",
            Self::Held { .. } => "held",
            Self::Failed { .. } => "failed",
            Self::Begun { .. } => "begun",
            Self::TurnedBack { .. } => "turned_back",
            Self::Undone { .. } => "undone",
            Self::Stuck { .. } => "stuck",
            Self::Resumed { .. } => "resumed",
            Self::RetriedFrom { .. } => "retried_from",
            Self::Passed { .. } => "passed",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
        }
    }

    /// Gives the step that it speaks of.
    #[must_use]
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::Done { step, .. }
            | Self::Asked { step, .. }
            | Self::Refused { step, .. }
            | Self::TimedOut { step }
            | Self::Late { step, .. }
            | Self::LeftOut { step, .. }
            | Self::Locked { step, .. }
            | Self::Held { step, .. }
            | Self::Failed { step, .. }
            | Self::Begun { step, .. }
            | Self::Undone { step, .. }
            | Self::RetriedFrom { step, .. }
            | Self::Passed { step, .. } => Some(step),
            Self::Stuck { step, .. } => step.as_deref(),
            Self::Started { .. }
            | Self::TurnedBack { .. }
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
            Self::Done { data, .. } | Self::Asked { data, .. } | Self::Undone { data, .. } => {
                data.as_ref()
            }
            _ => None,
        }
    }
}

/// A record as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// Its place, from 1, without gaps.
    pub seq: u64,
    /// What happened.
    pub record: Record,
    /// When, by the database's clock.
    pub at: Timestamp,
}

/// A log that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {seq}, `{kind}`, cannot follow a saga that is {state}")]
pub struct BrokenLog {
    /// The record's place.
    pub seq: u64,
    /// Its kind.
    pub kind: &'static str,
    /// The state in which it was found.
    pub state: SagaState,
}

/// Rebuilds a saga from its log, the first record first: where it stands, and its data.
///
/// # Errors
/// [`BrokenLog`] for a record that means nothing where it stands.
pub fn rebuild<'r>(
    records: impl IntoIterator<Item = &'r Record>,
) -> Result<(Instance, Option<Json>), BrokenLog> {
    let (mut instance, mut data) = (Instance::default(), None);
    for (seq, record) in (1..).zip(records) {
        if !matches!((seq, record), (1, Record::Started { .. })) {
            let broken = || BrokenLog { seq, kind: record.kind(), state: instance.state };
            instance = instance.after(record).ok_or_else(broken)?;
        }
        data = record.data().cloned().or(data);
    }
    Ok((instance, data))
}

/// Cuts a text at a character, to be stored.
pub(super) fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // PostgreSQL stores no NUL, and JSON's own form of it is refused by some readers.
    text[..end].replace('\0', " ")
}
