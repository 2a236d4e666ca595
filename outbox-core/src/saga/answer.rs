//! What follows from an answer to a command: pure.

use super::{
    call::{Call, Phase},
    definition::StepShape,
    json::Json,
    plan::{Failed, after_failure},
    progress::StepState,
    record::{Record, cut},
    state::Instance,
};
use std::time::Duration;

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The step is done, and has returned this.
    Done(Json),
    /// The step, or its undoing, cannot be done, and nothing of it is.
    Refused(String),
    /// The step is undone, or was never done and will not be.
    Undone,
}

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// This is to be written down.
    Write(Record),
    /// Nothing: it was known, or speaks of an earlier round.
    Nothing,
    /// It answers no command that is out.
    Unasked,
}

/// Says what follows from an answer, of a type, to a command of a saga. `jitter` may shorten the wait before an undoing
/// that was refused is asked for again.
#[must_use]
pub fn after_answer(
    step: &StepShape,
    instance: &Instance,
    call: &Call,
    answer: Answer,
    answer_type: &str,
    now_us: i64,
    jitter: impl FnOnce(Duration) -> Duration,
) -> Heard {
    let Some(known) = instance.step(&step.name) else { return Heard::Unasked };
    let Some(asked) = &known.asked else { return Heard::Unasked };
    if call.round > asked.round {
        return Heard::Unasked;
    }
    if call.round < asked.round {
        return Heard::Nothing;
    }
    if !known.is_out(call.phase) {
        return Heard::Unasked;
    }
    let name = || step.name.to_string();
    let late = |output| {
        let record = Record::Late { step: name(), answer: cut(answer_type), output };
        if instance.after(&record).is_some() { Heard::Write(record) } else { Heard::Nothing }
    };
    match (call.phase, known.state, answer) {
        (Phase::Do, StepState::Waiting | StepState::Failing, Answer::Done(output))
            if !instance.backward =>
        {
            let (pivot, compensates, attempt) = (step.pivot, step.compensates, asked.times.max(1));
            Heard::Write(Record::Done {
                step: name(),
                output,
                data: None,
                pivot,
                compensates,
                attempt,
            })
        }
        (Phase::Do, StepState::Waiting, Answer::Refused(reason)) => {
            Heard::Write(Record::Refused { step: name(), reason: cut(&reason) })
        }
        (
            Phase::Do,
            StepState::Unknown | StepState::Cancelling | StepState::Undone,
            Answer::Done(output),
        ) => late(Some(output)),
        (
            Phase::Do,
            StepState::Unknown | StepState::Cancelling | StepState::Undone,
            Answer::Refused(_),
        ) => late(None),
        (Phase::Undo, StepState::Cancelling | StepState::Undoing, Answer::Undone) => {
            Heard::Write(Record::Undone { step: name(), data: None, attempt: asked.times.max(1) })
        }
        (Phase::Undo, StepState::Cancelling, Answer::Refused(reason)) => {
            let failed = Failed::Retry(format!("refused: {reason}"));
            Heard::Write(after_failure(step, instance, &failed, now_us, jitter))
        }
        _ => Heard::Nothing,
    }
}
