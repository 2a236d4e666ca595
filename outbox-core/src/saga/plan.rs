//! Plans what a coordinator does next with a saga: pure. The plan after a crash is the plan after a
//! step, since what is not in the log was not done.

use super::{
    definition::{Shape, StepShape},
    progress::{BlockedOn, StepProgress, StepState},
    record::{Record, cut},
    state::{Instance, SagaState},
};
use crate::failure::{Decision, MAX_CRASHES};
use std::time::Duration;

/// Longest wait for a reply before the command is sent again, unless the step's timeout is longer.
const MAX_REPLY_TIMEOUT: Duration = Duration::from_hours(1);

/// What a coordinator does next with a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Run these steps, by their numbers; several run at the same time.
    Run(Vec<usize>),
    /// Undo these steps; several are undone at the same time.
    Undo(Vec<usize>),
    /// Append this record to the log, and plan again.
    Append(Record),
    /// Wait for replies or for the next attempt, at most for this time.
    Wait(Duration),
    /// Nothing: the saga has ended or is stuck.
    Idle,
}

/// When a plan is made, by the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// Microseconds since 1970-01-01 UTC.
    pub now_us: i64,
    /// Whether the saga's deadline has passed.
    pub overdue: bool,
}

/// Plans what a coordinator does next with a saga. Compensations run in the reverse order of the
/// steps, group by group.
///
/// Where no reply comes in time, the saga compensates, and the step is undone as if it were done.
/// From the pivot on, and for a compensation, the command is sent again instead until there is a
/// reply.
#[must_use]
pub fn plan(shape: &Shape, instance: &Instance, when: When) -> Plan {
    if !instance.state.is_active() {
        return Plan::Idle;
    }
    if let Some(unknown) = instance.steps.iter().find(|s| shape.number(&s.step).is_none()) {
        let reason =
            format!("version {} of `{}` has no step `{}`", shape.version, shape.name, unknown.step);
        return Plan::Append(Record::Stuck {
            step: Some(unknown.step.clone()),
            reason,
            pivot: false,
        });
    }
    let lost_remote = |s: &&StepProgress| {
        let open =
            s.state.awaits_reply() || matches!(s.state, StepState::Unknown | StepState::Rejected);
        open && shape.number(&s.step).is_some_and(|n| shape.steps[n].remote.is_none())
    };
    if let Some(step) = instance.steps.iter().find(lost_remote).map(|s| s.step.clone()) {
        let reason = format!(
            "`{step}` is no remote step any more in version {} of `{}`",
            shape.version, shape.name
        );
        return Plan::Append(Record::Stuck { step: Some(step), reason, pivot: false });
    }
    match instance.state {
        SagaState::Running if when.overdue && !instance.past_pivot() => {
            Plan::Append(Record::CompensationStarted {
                reason: "its deadline has passed".to_owned(),
                by: None,
            })
        }
        SagaState::Running => forward(shape, instance, when.now_us),
        _ => backward(shape, instance, when.now_us),
    }
}

fn forward(shape: &Shape, instance: &Instance, now_us: i64) -> Plan {
    let to_do = |step: &StepShape| instance.step(&step.name).is_none_or(|s| !s.state.is_settled());
    if let Some(record) =
        instance.steps.iter().find_map(|known| after_remote(instance, known, now_us))
    {
        return Plan::Append(record);
    }
    let Some(first) = shape.steps.iter().find(|step| to_do(step)) else {
        return Plan::Append(Record::Completed);
    };
    let stage: Vec<usize> =
        shape.of_stage(first.stage).filter(|n| to_do(&shape.steps[*n])).collect();
    due_steps(shape, instance, now_us, stage).map_or_else(Plan::Wait, Plan::Run)
}

/// Plans what follows from a remote step that was rejected, or whose reply did not come in time.
fn after_remote(instance: &Instance, known: &StepProgress, now_us: i64) -> Option<Record> {
    let command = known.command.as_ref()?;
    let rejected = || format!("rejected: {}", command.rejection.as_deref().unwrap_or_default());
    let compensate = |why: &str| Record::CompensationStarted {
        reason: cut(&format!("`{}`: {why}", known.step)),
        by: None,
    };
    let (reply_due_us, past_pivot) = (command.reply_due_us, instance.past_pivot());
    match known.state {
        StepState::Rejected if past_pivot => {
            let reason = cut(&rejected());
            Some(Record::Stuck { step: Some(known.step.clone()), reason, pivot: known.pivot })
        }
        StepState::Rejected => Some(compensate(&rejected())),
        StepState::Unknown => Some(compensate("no reply in time")),
        StepState::Waiting if reply_due_us <= now_us && !past_pivot => {
            Some(Record::TimedOut { step: known.step.clone() })
        }
        _ => None,
    }
}

/// Keeps the steps that wait neither for a reply nor for their next attempt; where none is left,
/// gives the time until the first wait ends.
fn due_steps(
    shape: &Shape,
    instance: &Instance,
    now_us: i64,
    stage: Vec<usize>,
) -> Result<Vec<usize>, Duration> {
    let wait = |n: &usize| {
        let left = instance.step(&shape.steps[*n].name)?.wait_ends_us().saturating_sub(now_us);
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
    let lost_compensation = |s: &&StepProgress| {
        let owed = s.owes_undo() || (s.state == StepState::Done && s.compensates);
        owed && shape.number(&s.step).is_some_and(|n| !shape.steps[n].compensates)
    };
    if let Some(step) = instance.steps.iter().find(lost_compensation).map(|s| s.step.clone()) {
        let reason = format!(
            "`{step}` has no compensation any more in version {} of `{}`",
            shape.version, shape.name
        );
        return Plan::Append(Record::Stuck { step: Some(step), reason, pivot: false });
    }
    let to_undo = |step: &StepShape| {
        step.compensates
            && instance.step(&step.name).is_some_and(|known| known.state.may_need_undo())
    };
    let done_last = instance
        .steps
        .iter()
        .rev()
        .filter_map(|known| shape.number(&known.step).map(|n| &shape.steps[n]));
    let Some(last) = done_last.into_iter().find(|step| to_undo(step)) else {
        return Plan::Append(Record::Compensated);
    };
    let stage = shape.of_stage(last.stage).filter(|n| to_undo(&shape.steps[*n])).collect();
    due_steps(shape, instance, now_us, stage).map_or_else(Plan::Wait, Plan::Undo)
}

/// How long a reply is awaited: the step's timeout the first time, then twice as long each time, up
/// to an hour.
pub(super) fn reply_timeout(timeout: Duration, sends: u32) -> Duration {
    timeout.saturating_mul(1 << sends.saturating_sub(1).min(20)).min(MAX_REPLY_TIMEOUT.max(timeout))
}

/// Why an attempt at a step, or at its compensation, failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepFailure {
    /// A later attempt may succeed.
    Retry(String),
    /// No attempt will succeed.
    Abort(String),
    /// The code cannot read what is stored.
    Stop(String),
}

/// Gives the record that follows from a failed attempt. The wait of a [`Record::Failed`] is that of
/// the retry policy, which `jitter` may shorten.
///
/// Where a step has no attempts left, the saga compensates, or is stuck past its pivot; where a
/// compensation has none left, the saga is always stuck.
#[must_use]
pub fn after_failure(
    step: &StepShape,
    instance: &Instance,
    failure: &StepFailure,
    now_us: i64,
    jitter: impl FnOnce(Duration) -> Duration,
) -> Record {
    let name = || step.name.to_string();
    let stuck = |text: &str| stuck(step, instance, text);
    let give_up = |text: &str| {
        if instance.backward || instance.past_pivot() {
            stuck(text)
        } else {
            Record::CompensationStarted {
                reason: cut(&format!("`{}`: {text}", step.name)),
                by: None,
            }
        }
    };
    match failure {
        StepFailure::Stop(text) => stuck(text),
        StepFailure::Abort(text) => give_up(text),
        StepFailure::Retry(text) => {
            let policy = if instance.backward { &step.undo_retry } else { &step.retry };
            let attempt = instance.failures(&step.name).saturating_add(1);
            let failing =
                Duration::from_micros(instance.step(&step.name).map_or(0, |s| s.failing_us));
            match policy.decide(attempt, failing) {
                Decision::GiveUp => give_up(text),
                Decision::RetryWithin(wait) => {
                    let wait_us = u64::try_from(jitter(wait).as_micros()).unwrap_or(u64::MAX);
                    let retry_at_us =
                        now_us.saturating_add(i64::try_from(wait_us).unwrap_or(i64::MAX));
                    Record::Failed { step: name(), attempt, error: cut(text), wait_us, retry_at_us }
                }
            }
        }
    }
}

/// Gives the record that is committed before an attempt at a step, or at its compensation, of a
/// saga whose last coordinator never gave its claim back: the attempt starts, or the saga is stuck
/// after too many crashes.
///
/// A lost coordinator does not show which attempt ended its process: this saga's step may only have
/// run beside the cause. So the saga is stuck only after further attempts that have no end either.
#[must_use]
pub fn after_crash(step: &StepShape, instance: &Instance) -> Record {
    match instance.unfinished_attempts(&step.name) {
        unfinished if unfinished < MAX_CRASHES => Record::AttemptStarted {
            step: step.name.to_string(),
            unfinished_attempts: unfinished + 1,
        },
        unfinished => stuck(
            step,
            instance,
            &format!(
                "crashed: {unfinished} attempts in a row have no recorded end, as when the process dies"
            ),
        ),
    }
}

/// Gives the record that follows where another saga has locked an entity that a step, or its
/// compensation, needs. The step waits, which is recorded once, and once more after a crash; the
/// victim of a deadlock compensates or is stuck.
#[must_use]
pub fn after_blocked(
    step: &StepShape,
    instance: &Instance,
    blocked_on: BlockedOn,
    is_victim: bool,
) -> Option<Record> {
    let deadlock = || {
        format!(
            "deadlock: `{}` is locked by the saga {}, and they wait for each other",
            blocked_on.entity, blocked_on.holder
        )
    };
    if is_victim && instance.may_compensate() {
        return Some(Record::CompensationStarted {
            reason: cut(&format!("`{}`: {}", step.name, deadlock())),
            by: None,
        });
    }
    if is_victim {
        return Some(stuck(step, instance, &deadlock()));
    }
    let known = instance.step(&step.name);
    let BlockedOn { entity, holder, since_us } = blocked_on;
    let is_recorded = known
        .and_then(|known| known.blocked_on.as_ref())
        .is_some_and(|known| known.entity == entity);
    // The record shows that the attempt has ended, so that it is not counted as a crash.
    let unfinished = instance.unfinished_attempts(&step.name) > 0;
    (unfinished || !is_recorded).then(|| Record::BlockedOnLock {
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
