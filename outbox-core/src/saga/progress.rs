//! Where one step of a saga stands.

use super::{call::Phase, json::Json};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

/// State of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// It was tried and failed, and nothing of it is done.
    Failing,
    /// Its command is on its way, and the answer is awaited.
    Waiting,
    /// The answer was that it cannot be done, and that nothing of it is.
    Refused,
    /// No answer came in time, or the saga turned back before: it may be done, and may be done yet.
    Unknown,
    /// Its effect is there.
    Done,
    /// It was left out: by its own condition, or by an operator.
    Skipped,
    /// Its effect is there, and its compensation was tried and failed.
    Undoing,
    /// The command that undoes it, or keeps it from being done, is on its way, and the answer is awaited.
    Cancelling,
    /// Its compensation is done, or an operator said that it counts as done.
    Undone,
}

impl StepState {
    /// Tells whether the saga goes on behind it when it goes forward.
    #[must_use]
    pub const fn is_behind(self) -> bool {
        matches!(self, Self::Done | Self::Skipped)
    }

    /// Tells whether there is something to undo, or may be.
    #[must_use]
    pub const fn is_there(self) -> bool {
        matches!(self, Self::Done | Self::Undoing | Self::Unknown | Self::Cancelling)
    }

    /// Tells whether an answer is awaited.
    #[must_use]
    pub const fn is_asked(self) -> bool {
        matches!(self, Self::Waiting | Self::Cancelling)
    }
}

/// What is known of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepProgress {
    /// Its stable name.
    pub step: String,
    /// Its state.
    pub state: StepState,
    /// What it returned.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::json::present"
    )]
    pub output: Option<Json>,
    /// Failed attempts in a row at what is to be done now: the step, or its compensation.
    #[serde(default)]
    pub failures: u32,
    /// Time since the first of them, waits only, in microseconds.
    #[serde(default)]
    pub failing_us: u64,
    /// Until when it is not tried again: microseconds since 1970-01-01 UTC, by the database's clock.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rests_until_us: i64,
    /// Attempts in a row that were begun after one that may have ended its process, and that are not known to have ended.
    #[serde(default)]
    pub begun: u32,
    /// Whether it is the pivot.
    #[serde(default)]
    pub pivot: bool,
    /// Whether it had a compensation when it was done.
    #[serde(default)]
    pub compensates: bool,
    /// What is known of it where others are asked to do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// What it waits for, where another saga has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// What a step, or its compensation, waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The entity.
    pub entity: String,
    /// The saga that had it when the wait began.
    pub holder: String,
    /// Since when: microseconds since 1970-01-01 UTC, by the database's clock.
    pub since_us: i64,
}

/// What is known of a step that others are asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// How often it was begun, from 1.
    pub round: NonZeroU32,
    /// Commands in a row for what is to be done now: the step, or its undoing.
    pub times: u32,
    /// Until when the answer to the last one is awaited: microseconds since 1970-01-01 UTC, by the database's clock.
    pub until_us: i64,
    /// Hash of the command that was sent first for the step; that of the commands which undo it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Whether its round has just begun, so that no command of it is out.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unsent: bool,
    /// Whether a command to undo it has gone out.
    #[serde(default, skip_serializing_if = "is_false")]
    pub undoing_sent: bool,
    /// Why it cannot be done, where that was the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// The last answer that came too late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Asked {
    /// One of a round of which no command is out.
    const fn begun(round: NonZeroU32) -> Self {
        let (times, until_us, unsent, undoing_sent) = (0, 0, true, false);
        Self {
            round,
            times,
            until_us,
            command: None,
            unsent,
            undoing_sent,
            refusal: None,
            late: None,
        }
    }
}

impl StepProgress {
    /// Tells whether a command of its round has gone out, and may be answered.
    pub(super) fn is_out(&self, phase: Phase) -> bool {
        let Some(asked) = &self.asked else { return false };
        match phase {
            Phase::Do => !asked.unsent,
            Phase::Undo => {
                asked.undoing_sent
                    || matches!(self.state, StepState::Cancelling | StepState::Undone)
            }
        }
    }

    /// Until when there is nothing to do about it but to wait: for an answer, or to try again.
    pub(super) fn waits_until_us(&self) -> i64 {
        match &self.asked {
            // A command that goes out again may fail before it does.
            Some(asked) if self.state.is_asked() => asked.until_us.max(self.rests_until_us),
            _ => self.rests_until_us,
        }
    }

    /// One of which nothing is known.
    pub(super) fn new(step: &str) -> Self {
        Self {
            step: step.to_owned(),
            state: StepState::Failing,
            output: None,
            failures: 0,
            failing_us: 0,
            rests_until_us: 0,
            begun: 0,
            pivot: false,
            compensates: false,
            asked: None,
            held: None,
        }
    }

    /// Counts anew.
    pub(super) fn forget_failures(&mut self) {
        (self.failures, self.failing_us, self.begun, self.held) = (0, 0, 0, None);
        self.rests_until_us = 0;
    }

    /// Tells whether its undoing is under way, or is owed.
    pub(super) fn is_open_behind(&self) -> bool {
        let owed = self.state == StepState::Unknown && self.compensates;
        owed || matches!(self.state, StepState::Undoing | StepState::Cancelling)
    }

    /// Notes a command that goes out, for the step or for its undoing.
    pub(super) fn ask(&mut self, state: StepState, until_us: i64, command: Option<&str>) {
        let known = self.asked.get_or_insert(Asked::begun(NonZeroU32::MIN));
        known.times = if self.state == state { known.times.saturating_add(1) } else { 1 };
        known.until_us = until_us;
        known.command = command.map(str::to_owned);
        known.unsent &= state != StepState::Waiting;
        known.undoing_sent |= state == StepState::Cancelling;
        self.state = state;
        (self.begun, self.held, self.rests_until_us) = (0, None, 0);
    }

    /// Forgets everything but in which round it is, to be done once more. A participant that has answered for this round
    /// would only repeat its answer; one that has not may be doing it yet.
    ///
    /// `was_stuck` says that the saga is stuck at this step. Where it is done all the same its answer came meanwhile, unseen by
    /// the operator who decided: the participant repeats that answer, and does not do it twice.
    pub(super) fn once_more(&self, was_stuck: bool) -> Option<Self> {
        let known = self.asked.as_ref()?;
        let open =
            matches!(self.state, StepState::Waiting | StepState::Unknown | StepState::Failing)
                || (was_stuck && self.state == StepState::Done);
        let round = if open { known.round } else { known.round.saturating_add(1) };
        let command = known.command.clone().filter(|_| open);
        let asked = Asked { unsent: !open || known.unsent, command, ..Asked::begun(round) };
        Some(Self { asked: Some(asked), ..Self::new(&self.step) })
    }
}
