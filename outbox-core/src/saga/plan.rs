//! What is to be done next: pure. The same plan is made after a step and after a crash, for there is no difference: what
//! is not in the log was not done.

use super::{
    definition::{Shape, StepShape},
    progress::{Held, StepProgress, StepState},
    record::{Record, cut},
    state::{Instance, SagaState},
};
use crate::failure::Decision;
use std::time::Duration;

/// Attempts that were written down before, and did not end, after which a saga is stuck: as many as events have.
const LIVES: u32 = 5;

/// Longest wait for an answer before a command goes out again, unless the step's timeout is longer.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// What is to be done with a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Do these steps, by their numbers; several are done at the same time.
    Run(Vec<usize>),
    /// Undo these steps; several are undone at the same time.
    Undo(Vec<usize>),
    /// Write this down, and plan again.
    Note(Record),
    /// Wait for answers, or to try again, at most for this time.
    Wait(Duration),
    /// Nothing.
    Rest,
}

/// When a plan is made, by the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// Microseconds since 1970-01-01 UTC.
    pub now_us: i64,
    /// Whether the saga's deadline has passed.
    pub overdue: bool,
}

/// Plans what is to be done with a saga. Compensation goes in the reverse order of what was done, group by group.
///
/// An answer that does not come turns the saga back, and the step is undone as if it were done. From the pivot on, and for
/// an undoing, the command goes out again instead, until there is an answer.
#[must_use]
pub fn plan(shape: &Shape, instance: &Instance, when: When) -> Plan {
    if !instance.state.is_active() {
        return Plan::Rest;
    }
    if let Some(unknown) = instance.steps.iter().find(|s| shape.number(&s.step).is_none()) {
        let reason =
            format!("version {} of `{}` has no step `{}`", shape.version, shape.name, unknown.step);
        return Plan::Note(Record::Stuck {
            step: Some(unknown.step.clone()),
            reason,
            pivot: false,
        });
    }
    let unasked = |s: &&StepProgress| {
        let open = s.state.is_asked() || matches!(s.state, StepState::Unknown | StepState::Refused);
        open && shape.number(&s.step).is_some_and(|n| shape.steps[n].asks.is_none())
    };
    if let Some(step) = instance.steps.iter().find(unasked).map(|s| s.step.clone()) {
        let reason = format!(
            "version {} of `{}` does not ask others any more to do `{step}`",
            shape.version, shape.name
        );
        return Plan::Note(Record::Stuck { step: Some(step), reason, pivot: false });
    }
    match instance.state {
        SagaState::Running if when.overdue && !instance.past_pivot() => {
            Plan::Note(Record::TurnedBack {
                reason: "its deadline has passed".to_owned(),
                by: None,
            })
        }
        SagaState::Running => forward(shape, instance, when.now_us),
        _ => backward(shape, instance, when.now_us),
    }
}

fn forward(shape: &Shape, instance: &Instance, now_us: i64) -> Plan {
    let to_do = |step: &StepShape| instance.step(&step.name).is_none_or(|s| !s.state.is_behind());
    if let Some(record) = instance.steps.iter().find_map(|known| given_up(instance, known, now_us))
    {
        return Plan::Note(record);
    }
    let Some(first) = shape.steps.iter().find(|step| to_do(step)) else {
        return Plan::Note(Record::Completed);
    };
    let stage: Vec<usize> =
        shape.of_stage(first.stage).filter(|n| to_do(&shape.steps[*n])).collect();
    those_due(shape, instance, now_us, stage).map_or_else(Plan::Wait, Plan::Run)
}

/// Says what follows from a step that was refused, or whose answer did not come in time.
fn given_up(instance: &Instance, known: &StepProgress, now_us: i64) -> Option<Record> {
    let refusal =
        || known.asked.as_ref().and_then(|asked| asked.refusal.as_deref()).unwrap_or_default();
    let turned_back = |why: &str| Record::TurnedBack {
        reason: cut(&format!("`{}`: {why}", known.step)),
        by: None,
    };
    let (until_us, past_pivot) = (known.asked.as_ref()?.until_us, instance.past_pivot());
    match known.state {
        StepState::Refused if past_pivot => {
            let reason = cut(&format!("refused: {}", refusal()));
            Some(Record::Stuck { step: Some(known.step.clone()), reason, pivot: known.pivot })
        }
        StepState::Refused => Some(turned_back(&format!("refused: {}", refusal()))),
        StepState::Unknown => Some(turned_back("no answer in time")),
        StepState::Waiting if until_us <= now_us && !past_pivot => {
            Some(Record::TimedOut { step: known.step.clone() })
        }
        _ => None,
    }
}

/// Leaves those out whose answers are awaited, or whose next attempt is; where none is left, gives the time until the first
/// wait is over.
fn those_due(
    shape: &Shape,
    instance: &Instance,
    now_us: i64,
    stage: Vec<usize>,
) -> Result<Vec<usize>, Duration> {
    let wait = |n: &usize| {
        let left = instance.step(&shape.steps[*n].name)?.waits_until_us().saturating_sub(now_us);
        u64::try_from(left).ok().filter(|left| *left > 0)
    };
    let least = stage.iter().filter_map(wait).min();
    let due: Vec<usize> = stage.into_iter().filter(|n| wait(n).is_none()).collect();
    match least {
        Some(least) if due.is_empty() => Err(Duration::from_micros(least)),
        _ => Ok(due),
    }
}

fn backward(shape: &Shape, instance: &Instance, now_us: i64) -> Plan {
    let lost = |s: &&StepProgress| {
        let known = s.is_open_behind() || (s.state == StepState::Done && s.compensates);
        known && shape.number(&s.step).is_some_and(|n| !shape.steps[n].compensates)
    };
    if let Some(step) = instance.steps.iter().find(lost).map(|s| s.step.clone()) {
        let reason = format!(
            "version {} of `{}` does not say any more how `{step}` is undone",
            shape.version, shape.name
        );
        return Plan::Note(Record::Stuck { step: Some(step), reason, pivot: false });
    }
    let to_undo = |step: &StepShape| {
        step.compensates && instance.step(&step.name).is_some_and(|known| known.state.is_there())
    };
    let done_last = instance
        .steps
        .iter()
        .rev()
        .filter_map(|known| shape.number(&known.step).map(|n| &shape.steps[n]));
    let Some(last) = done_last.into_iter().find(|step| to_undo(step)) else {
        return Plan::Note(Record::Compensated);
    };
    let stage = shape.of_stage(last.stage).filter(|n| to_undo(&shape.steps[*n])).collect();
    those_due(shape, instance, now_us, stage).map_or_else(Plan::Wait, Plan::Undo)
}

/// How long an answer is awaited: the step's timeout the first time, then twice as long each time, up to an hour.
pub(super) fn patience(timeout: Duration, times: u32) -> Duration {
    timeout.saturating_mul(1 << times.saturating_sub(1).min(20)).min(LONGEST_WAIT.max(timeout))
}

/// How an attempt at a step, or at its compensation, failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// It may succeed later.
    Retry(String),
    /// It never will.
    Abort(String),
    /// What is stored does not fit the code.
    Stop(String),
}

/// Says what follows from a failed attempt. The wait of a [`Record::Failed`] is the policy's, which `jitter` may shorten.
///
/// A step that gives up turns the saga back, past the pivot it makes it stuck; a compensation that gives up always makes
/// it stuck.
#[must_use]
pub fn after_failure(
    step: &StepShape,
    instance: &Instance,
    failed: &Failed,
    now_us: i64,
    jitter: impl FnOnce(Duration) -> Duration,
) -> Record {
    let name = || step.name.to_string();
    let stuck = |text: &str| stuck(step, instance, text);
    let give_up = |text: &str| {
        if instance.backward || instance.past_pivot() {
            stuck(text)
        } else {
            Record::TurnedBack { reason: cut(&format!("`{}`: {text}", step.name)), by: None }
        }
    };
    match failed {
        Failed::Stop(text) => stuck(text),
        Failed::Abort(text) => give_up(text),
        Failed::Retry(text) => {
            let policy = if instance.backward { &step.undo_retry } else { &step.retry };
            let attempt = instance.failures(&step.name).saturating_add(1);
            let failing =
                Duration::from_micros(instance.step(&step.name).map_or(0, |s| s.failing_us));
            match policy.decide(attempt, failing) {
                Decision::GiveUp => give_up(text),
                Decision::RetryWithin(wait) => {
                    let wait_us = u64::try_from(jitter(wait).as_micros()).unwrap_or(u64::MAX);
                    let until_us =
                        now_us.saturating_add(i64::try_from(wait_us).unwrap_or(i64::MAX));
                    Record::Failed { step: name(), attempt, error: cut(text), wait_us, until_us }
                }
            }
        }
    }
}

/// Says what is written down before a step, or its compensation, is tried of a saga whose last holder went without a word:
/// that it is begun, or that it was begun often enough.
///
/// Such an end says nothing of what caused it: the first attempt after it may be an innocent one, done beside others. So
/// the saga is stuck only after further ones that ended so too.
#[must_use]
pub fn after_crash(step: &StepShape, instance: &Instance) -> Record {
    match instance.begun(&step.name) {
        begun if begun < LIVES => Record::Begun { step: step.name.to_string(), times: begun + 1 },
        begun => stuck(
            step,
            instance,
            &format!(
                "crashed: {begun} attempts in a row ended without a word, as when the process dies"
            ),
        ),
    }
}

/// Says what follows where another saga has marked an entity that a step, or its compensation, needs: it waits, which is
/// written down once (and once more after a crash), or gives way where those that wait for each other are a ring.
#[must_use]
pub fn after_held(
    step: &StepShape,
    instance: &Instance,
    held: Held,
    gives_way: bool,
) -> Option<Record> {
    let ring = || {
        format!(
            "`{}` is held by the saga {}, and they wait for each other",
            held.entity, held.holder
        )
    };
    if gives_way && instance.may_turn_back() {
        return Some(Record::TurnedBack {
            reason: cut(&format!("`{}`: {}", step.name, ring())),
            by: None,
        });
    }
    if gives_way {
        return Some(stuck(step, instance, &ring()));
    }
    let known = instance.step(&step.name);
    let Held { entity, holder, since_us } = held;
    let waits_on =
        known.and_then(|known| known.held.as_ref()).is_some_and(|known| known.entity == entity);
    // An attempt that was written down before has ended: it does not count among those that ended their process.
    let begun = instance.begun(&step.name) > 0;
    (begun || !waits_on).then(|| Record::Held {
        step: step.name.to_string(),
        entity,
        holder,
        since_us,
    })
}

fn stuck(step: &StepShape, instance: &Instance, reason: &str) -> Record {
    Record::Stuck {
        step: Some(step.name.to_string()),
        reason: cut(reason),
        pivot: step.pivot && !instance.backward,
    }
}
