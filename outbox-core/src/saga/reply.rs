//! The effect of a participant's reply on a saga: pure.

use super::{
    definition::StepShape,
    json::Json,
    plan::{StepFailure, after_failure},
    progress::StepState,
    record::{Record, cut},
    state::Instance,
};
use crate::event::command::{CommandId, CommandPhase};
use std::time::Duration;

/// A participant's reply to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The step is done, with this output.
    Done(Json),
    /// The participant rejects the command, for this reason: nothing of the step, or of its
    /// compensation, is done.
    Rejected(String),
    /// The step is undone, or was never done and never will be.
    Undone,
}

/// The effect of a reply on a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyEffect {
    /// The coordinator appends this record.
    Append(Record),
    /// None: the reply repeats another one, or belongs to an earlier round.
    Nothing,
    /// The saga has sent no command that this could reply to.
    Unexpected,
}

/// Gives the effect of a reply, of a type, to a command of a saga. Where the participant has
/// rejected a compensation, `jitter` may shorten the wait before the command is sent again.
#[must_use]
pub fn after_reply(
    step: &StepShape,
    instance: &Instance,
    id: &CommandId,
    reply: Reply,
    reply_type: &str,
    now_us: i64,
    jitter: impl FnOnce(Duration) -> Duration,
) -> ReplyEffect {
    let Some(known) = instance.step(&step.name) else { return ReplyEffect::Unexpected };
    let Some(command) = &known.command else { return ReplyEffect::Unexpected };
    if id.round > command.round {
        return ReplyEffect::Unexpected;
    }
    if id.round < command.round {
        return ReplyEffect::Nothing;
    }
    if !known.was_sent(id.phase) {
        return ReplyEffect::Unexpected;
    }
    let name = || step.name.to_string();
    let late = |output| {
        let record = Record::LateReply { step: name(), reply: cut(reply_type), output };
        if instance.after(&record).is_some() {
            ReplyEffect::Append(record)
        } else {
            ReplyEffect::Nothing
        }
    };
    match (id.phase, known.state, reply) {
        (CommandPhase::Do, StepState::Waiting | StepState::Pending, Reply::Done(output))
            if !instance.backward =>
        {
            let (pivot, compensates, attempt) =
                (step.pivot, step.compensates, command.sends.max(1));
            ReplyEffect::Append(Record::Done {
                step: name(),
                output,
                data: None,
                pivot,
                compensates,
                attempt,
            })
        }
        (CommandPhase::Do, StepState::Waiting, Reply::Rejected(reason)) => {
            ReplyEffect::Append(Record::Rejected { step: name(), reason: cut(&reason) })
        }
        (
            CommandPhase::Do,
            StepState::Unknown | StepState::Cancelling | StepState::Undone,
            Reply::Done(output),
        ) => late(Some(output)),
        (
            CommandPhase::Do,
            StepState::Unknown | StepState::Cancelling | StepState::Undone,
            Reply::Rejected(_),
        ) => late(None),
        (
            CommandPhase::Undo,
            StepState::Cancelling | StepState::CompensationFailing,
            Reply::Undone,
        ) => ReplyEffect::Append(Record::Undone {
            step: name(),
            data: None,
            attempt: command.sends.max(1),
        }),
        (CommandPhase::Undo, StepState::Cancelling, Reply::Rejected(reason)) => {
            let failure = StepFailure::Retry(format!("rejected: {reason}"));
            ReplyEffect::Append(after_failure(step, instance, &failure, now_us, jitter))
        }
        _ => ReplyEffect::Nothing,
    }
}
