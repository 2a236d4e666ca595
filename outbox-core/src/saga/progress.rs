//! Where one step of a saga stands.

use super::json::Json;
use crate::event::command::CommandPhase;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

/// State of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// It is not done: no attempt was made, or the last one failed and left nothing behind.
    Pending,
    /// Its command was sent, and the reply is awaited.
    Waiting,
    /// The participant has rejected its command: nothing of it is done.
    Rejected,
    /// No reply came in time, or compensation started before one came: the participant may have
    /// done it, or may do it yet.
    Unknown,
    /// Its effect is committed.
    Done,
    /// It was skipped: by its own condition, or by an operator.
    Skipped,
    /// Its effect is committed, and the last attempt at its compensation failed.
    CompensationFailing,
    /// The command that undoes it, or keeps the participant from doing it, was sent, and the reply
    /// is awaited.
    Cancelling,
    /// Its compensation is done, or an operator skipped it.
    Undone,
}

impl StepState {
    /// Tells whether a saga that goes forward may do the next step.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::Done | Self::Skipped)
    }

    /// Tells whether the step may have an effect that a compensation has to undo.
    #[must_use]
    pub const fn may_need_undo(self) -> bool {
        matches!(self, Self::Done | Self::CompensationFailing | Self::Unknown | Self::Cancelling)
    }

    /// Tells whether a reply is awaited.
    #[must_use]
    pub const fn awaits_reply(self) -> bool {
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
    /// When the next attempt may be made: microseconds since 1970-01-01 UTC, by the database's
    /// clock.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_at_us: i64,
    /// Attempts in a row that were recorded before they were made, after one that may have ended
    /// its process, and whose end is not known.
    #[serde(default)]
    pub unfinished_attempts: u32,
    /// Whether it is the pivot.
    #[serde(default)]
    pub pivot: bool,
    /// Whether it had a compensation when it was done.
    #[serde(default)]
    pub compensates: bool,
    /// The state of its command, where it is a remote step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandState>,
    /// The lock that it waits for, where another saga holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_on: Option<BlockedOn>,
}

/// The lock that a step, or its compensation, waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedOn {
    /// The entity.
    pub entity: String,
    /// The saga that held the lock when the wait began.
    pub holder: String,
    /// Since when: microseconds since 1970-01-01 UTC, by the database's clock.
    pub since_us: i64,
}

/// The state of the commands of a remote step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandState {
    /// The round of the step, from 1: an operator's retry may begin another one.
    pub round: NonZeroU32,
    /// How often the command was sent in a row for what is to be done now: the step, or its
    /// compensation.
    pub sends: u32,
    /// Until when the reply to the last one is awaited: microseconds since 1970-01-01 UTC, by the
    /// database's clock.
    pub reply_due_us: i64,
    /// Hash of the step's first command; the commands that undo the step carry it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Whether no command of this round was sent yet.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unsent: bool,
    /// Whether a command to undo the step was sent.
    #[serde(default, skip_serializing_if = "is_false")]
    pub undo_sent: bool,
    /// Why the participant rejected the command, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<String>,
    /// Type of the last reply that came after compensation had started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_reply: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl CommandState {
    /// Makes that of a round of which no command was sent yet.
    const fn unsent(round: NonZeroU32) -> Self {
        let (sends, reply_due_us, unsent, undo_sent) = (0, 0, true, false);
        Self {
            round,
            sends,
            reply_due_us,
            hash: None,
            unsent,
            undo_sent,
            rejection: None,
            late_reply: None,
        }
    }
}

impl StepProgress {
    /// Tells whether a command of its round was sent, so that a reply may come.
    pub(super) fn was_sent(&self, phase: CommandPhase) -> bool {
        let Some(command) = &self.command else { return false };
        match phase {
            CommandPhase::Do => !command.unsent,
            CommandPhase::Undo => {
                command.undo_sent || matches!(self.state, StepState::Cancelling | StepState::Undone)
            }
        }
    }

    /// When its wait ends, for a reply or for the next attempt.
    pub(super) fn wait_ends_us(&self) -> i64 {
        match &self.command {
            // The attempt that sends the command again may fail before it does.
            Some(command) if self.state.awaits_reply() => {
                command.reply_due_us.max(self.retry_at_us)
            }
            _ => self.retry_at_us,
        }
    }

    /// Makes that of a step of which nothing is recorded.
    pub(super) fn new(step: &str) -> Self {
        Self {
            step: step.to_owned(),
            state: StepState::Pending,
            output: None,
            failures: 0,
            failing_us: 0,
            retry_at_us: 0,
            unfinished_attempts: 0,
            pivot: false,
            compensates: false,
            command: None,
            blocked_on: None,
        }
    }

    /// Resets what counts its failures.
    pub(super) fn reset_failures(&mut self) {
        (self.failures, self.failing_us) = (0, 0);
        (self.unfinished_attempts, self.blocked_on) = (0, None);
        self.retry_at_us = 0;
    }

    /// Tells whether its compensation is under way, or must still run.
    pub(super) fn owes_undo(&self) -> bool {
        let owed = self.state == StepState::Unknown && self.compensates;
        owed || matches!(self.state, StepState::CompensationFailing | StepState::Cancelling)
    }

    /// Applies that a command was sent, for the step or for its compensation.
    pub(super) fn command_sent(&mut self, state: StepState, reply_due_us: i64, hash: Option<&str>) {
        let command = self.command.get_or_insert(CommandState::unsent(NonZeroU32::MIN));
        command.sends = if self.state == state { command.sends.saturating_add(1) } else { 1 };
        command.reply_due_us = reply_due_us;
        command.hash = hash.map(str::to_owned);
        command.unsent &= state != StepState::Waiting;
        command.undo_sent |= state == StepState::Cancelling;
        self.state = state;
        (self.unfinished_attempts, self.blocked_on, self.retry_at_us) = (0, None, 0);
    }

    /// Gives the step for an operator's retry: everything is reset but its round. A participant
    /// that has replied for this round would only repeat its reply, so the next round begins; one
    /// that has not may still be doing the step.
    ///
    /// `was_stuck` says that the saga is stuck at this step. Where the step is done all the same,
    /// the reply came after the saga was stuck, and the operator may not have seen it: the round
    /// stays, so that the participant repeats its reply and does not do the step twice.
    pub(super) fn reset_for_retry(&self, was_stuck: bool) -> Option<Self> {
        let command = self.command.as_ref()?;
        let same_round =
            matches!(self.state, StepState::Waiting | StepState::Unknown | StepState::Pending)
                || (was_stuck && self.state == StepState::Done);
        let round = if same_round { command.round } else { command.round.saturating_add(1) };
        let hash = command.hash.clone().filter(|_| same_round);
        let unsent = !same_round || command.unsent;
        let command = CommandState { unsent, hash, ..CommandState::unsent(round) };
        Some(Self { command: Some(command), ..Self::new(&self.step) })
    }
}
