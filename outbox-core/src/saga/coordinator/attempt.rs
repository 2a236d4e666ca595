//! One attempt at a step, or at its compensation.

use super::{
    blocked::AttemptFailure,
    handle::SagasStats,
    worker::{DriveOutcome, TestAction, TestPoint, Worker},
};
use crate::{
    event::{
        CorrelationContext, NewEvent,
        command::{CommandHash, CommandId, CommandPhase},
    },
    failure::{FailureClass, full_text},
    runtime::{
        Watch, catch_unwind,
        fault::{FaultPoint, fault_point},
        now, watched,
    },
    saga::{
        definition::{
            Failure, StepContext, StepError, StepOutcome, StepResult, StepShape, Steps, UndoResult,
        },
        json::Json,
        lock::AcquiredLocks,
        plan::{StepFailure, reply_timeout},
        progress::StepState,
        record::Record,
        state::Instance,
        store::{OpenSaga, SagaClaim, SagaStore},
    },
};
use std::{num::NonZeroU32, sync::Arc, time::Duration};
use tokio::sync::watch;

/// An attempt that holds the only write lock of its database for longer is reported, since other
/// writers have waited for it.
const LONG_LOCK: Duration = Duration::from_secs(1);

/// The object of an attempt: a step, or its compensation.
#[derive(Clone, Copy)]
pub(super) struct Task {
    pub(super) step: usize,
    pub(super) undo: bool,
    /// Whether other steps run at the same time.
    pub(super) parallel: bool,
}

impl<S: SagaStore> Worker<S> {
    /// Attempts a step or a compensation once; gives the transaction back, and the records of what
    /// was done.
    pub(super) async fn attempt(
        &self,
        tx: S::Tx,
        claim: &SagaClaim,
        steps: &Arc<dyn Steps<S::Tx>>,
        open: &OpenSaga,
        task: Task,
    ) -> (S::Tx, Result<Result<Vec<Record>, AttemptFailure>, DriveOutcome>) {
        let shape = &steps.shape().steps[task.step];
        match self.test_point(TestPoint::Attempt { step: &shape.name, undo: task.undo }) {
            TestAction::Continue => {}
            TestAction::Fail(failure) => return (tx, Ok(Err(AttemptFailure::Failed(failure)))),
            TestAction::Crash => return (tx, Err(DriveOutcome::Crashed)),
        }
        let attempt = open.instance.attempts(&shape.name).saturating_add(1);
        let (correlation, name) = (Arc::clone(&open.correlation), Arc::clone(&shape.name));
        if let Ok(context) = CorrelationContext::new(Arc::clone(&correlation)) {
            self.store.correlate(&tx, context);
        }
        let locks = AcquiredLocks::new(Arc::new(self.store.clone()));
        let reason = open.instance.reason.clone().filter(|_| task.undo);
        let cx =
            StepContext::new(tx, claim.id, (correlation, name), attempt, task.undo, reason, locks);
        let step = self.run_step(steps, open, task, attempt, &cx);
        let step = self.store.within(&cx.tx, Box::pin(step));
        let limit = self.limit(shape, task);
        let watch =
            Watch { limit, keep_alive_every: self.store.idle_limit().map(|limit| limit / 3) };
        let slow = |after| self.slow(claim, &shape.name, task.undo, after, limit);
        let started = now();
        let (ended, too_long) = match watched(catch_unwind(step), watch, slow, || {
            self.store.keep_alive(&cx.tx)
        })
        .await
        {
            Ok(ended) => (ended, false),
            Err(limit) => {
                self.stats.send_modify(|stats| stats.timed_out += 1);
                (Ok(Err(StepError::retry(limit.to_string()))), true)
            }
        };
        fault_point(FaultPoint::AfterStep);
        self.report_long_lock(claim, &shape.name, task.undo, now().duration_since(started));
        let (tx, locked) = cx.into_parts();
        let failed = matches!(ended, Ok(Err(StepError(Failure::Retry(_)))) | Err(_)) && !too_long;
        // The database has disturbed the transaction in favour of others, which is no failure of
        // the step.
        if let Some(error) = self.store.disturbance(&tx).filter(|_| failed) {
            return (tx, Ok(Err(AttemptFailure::Store(error))));
        }
        let attempted = match ended {
            Ok(Ok(record)) if locked.is_empty() => Ok(vec![record]),
            Ok(Ok(record)) => {
                Ok(vec![Record::Locked { step: shape.name.to_string(), entities: locked }, record])
            }
            Ok(Err(StepError(Failure::Blocked { entity, .. }))) => {
                Err(AttemptFailure::Blocked { entity })
            }
            Ok(Err(StepError(Failure::Store(error))))
                if error.class() == FailureClass::Permanent =>
            {
                Err(AttemptFailure::Failed(StepFailure::Retry(full_text(&error))))
            }
            Ok(Err(StepError(Failure::Store(error)))) => Err(AttemptFailure::Store(error)),
            Ok(Err(StepError(Failure::Retry(error)))) => {
                Err(AttemptFailure::Failed(StepFailure::Retry(full_text(&*error))))
            }
            Ok(Err(StepError(Failure::Abort(reason)))) => {
                Err(AttemptFailure::Failed(StepFailure::Abort(reason)))
            }
            Ok(Err(StepError(Failure::Stop(reason)))) => {
                Err(AttemptFailure::Failed(StepFailure::Stop(reason)))
            }
            Err(panic) => {
                Err(AttemptFailure::Failed(StepFailure::Retry(format!("a panic: {panic}"))))
            }
        };
        (tx, Ok(attempted))
    }

    /// Gives the time limit of an attempt. A step that runs beside others does not hold the saga's
    /// row, and has to end while the claim lasts, or coordinators would attempt it again and again.
    fn limit(&self, shape: &StepShape, task: Task) -> Option<Duration> {
        // A test's claims have no lease.
        let half = Some(self.lease / 2).filter(|half| task.parallel && !half.is_zero());
        // A remote step's timeout is how long the reply is awaited.
        let own = shape.timeout.filter(|_| shape.remote.is_none());
        let limit = if shape.no_timeout { None } else { own.or(self.step_timeout) };
        limit.map(|limit| half.map_or(limit, |half| half.min(limit))).or(half)
    }

    /// Reports an attempt that has blocked all other writers of the database.
    fn report_long_lock(&self, claim: &SagaClaim, step: &str, undo: bool, held_for: Duration) {
        let is_long = held_for > LONG_LOCK && self.store.has_one_writer();
        if is_long
            && self.should_report_slow(
                claim,
                step,
                undo,
                &format!("it held the only write lock for {held_for:?}"),
            )
        {
            tracing::warn!(
                saga = %claim.id,
                name = &*claim.definition.0,
                step,
                undo,
                ?held_for,
                "a step held the database's only write lock, and all other writers waited: make a remote step of what takes \
                 long, or use another database than SQLite"
            );
        }
    }

    /// Reports an attempt that takes long, and counts it as slow until the returned guard is
    /// dropped.
    pub(super) fn slow(
        &self,
        claim: &SagaClaim,
        step: &str,
        undo: bool,
        after: Duration,
        limit: Option<Duration>,
    ) -> SlowStep {
        if self.should_report_slow(claim, step, undo, &format!("it is slow after {after:?}")) {
            tracing::warn!(
                saga = %claim.id,
                name = &*claim.definition.0,
                step,
                undo,
                ?after,
                ?limit,
                "a step is slow; at its time limit, where it has one, it is dropped and counts as failed"
            );
        }
        self.stats.send_modify(|stats| stats.slow += 1);
        SlowStep(Arc::clone(&self.stats))
    }

    async fn run_step(
        &self,
        steps: &Arc<dyn Steps<S::Tx>>,
        open: &OpenSaga,
        task: Task,
        attempt: u32,
        cx: &StepContext<S::Tx>,
    ) -> Result<Record, StepError> {
        let shape = &steps.shape().steps[task.step];
        let step = shape.name.to_string();
        if task.undo {
            let output = output_of(&open.instance, &step);
            let UndoResult { data, command } =
                steps.undo(task.step, &open.data, output, cx).await?;
            let data = (!task.parallel).then_some(data);
            return match command {
                Some(command) => {
                    self.send_command(shape, open, CommandPhase::Undo, data, *command, cx).await
                }
                None => Ok(Record::Undone { step, data, attempt }),
            };
        }
        if steps.skips(task.step, &open.data)? {
            return Ok(Record::SkippedByCondition { step, pivot: shape.pivot });
        }
        let outputs = if shape.merges {
            group_outputs(steps, &open.instance, task.step)
        } else {
            no_outputs()
        };
        let StepResult { outcome, data } = steps.run(task.step, &open.data, &outputs, cx).await?;
        let (pivot, compensates) = (shape.pivot, shape.compensates);
        match outcome {
            StepOutcome::Output(output) => {
                Ok(Record::Done { step, output, data, pivot, compensates, attempt })
            }
            StepOutcome::Command(command) => {
                self.send_command(shape, open, CommandPhase::Do, data, *command, cx).await
            }
        }
    }

    /// Writes a command to the outbox in the step's transaction.
    async fn send_command(
        &self,
        shape: &StepShape,
        open: &OpenSaga,
        phase: CommandPhase,
        data: Option<Json>,
        mut command: NewEvent,
        cx: &StepContext<S::Tx>,
    ) -> Result<Record, StepError> {
        let (state, known) = match phase {
            CommandPhase::Do => (StepState::Waiting, open.instance.step(&shape.name)),
            CommandPhase::Undo => (StepState::Cancelling, open.instance.step(&shape.name)),
        };
        let sent = known.and_then(|known| known.command.as_ref());
        // Repeats stay in their round: a reply to any of them is the step's, and the participant's
        // barrier knows them by it. Only an operator's retry may begin another one.
        let round = sent.map_or(NonZeroU32::MIN, |sent| sent.round);
        let before = sent
            .filter(|_| known.is_some_and(|known| known.state == state))
            .map_or(0, |sent| sent.sends);
        let sends = before.saturating_add(1);
        let id = CommandId { saga: cx.saga(), step: shape.name.to_string(), round, phase };
        // A repeat carries the hash of the first command, also where the step makes another command
        // now.
        let first_hash = match (phase, sent) {
            (CommandPhase::Do, Some(sent)) if !sent.unsent => sent.hash.clone(),
            (CommandPhase::Do, _) => {
                Some(CommandHash::of(&command.event_type, &command.payload).to_string())
            }
            (CommandPhase::Undo, sent) => sent.and_then(|sent| sent.hash.clone()),
        };
        id.write_command(&mut command.headers, self.reply_to.as_deref(), first_hash.as_deref());
        let _ = self.test_point(TestPoint::CommandSent { id: &id, command: &command });
        self.store.append(&cx.tx, &[command]).await?;
        let wait = reply_timeout(shape.timeout.unwrap_or(self.lease), sends);
        let wait_us = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
        // By the database's clock, since another instance may find the reply overdue.
        let reply_due_us = open.when.now_us.saturating_add(wait_us);
        let (pivot, compensates) = (shape.pivot, shape.compensates);
        let step = shape.name.to_string();
        Ok(Record::CommandSent {
            step,
            data,
            pivot,
            compensates,
            sends,
            reply_due_us,
            command_hash: first_hash,
        })
    }
}

/// Counts a slow attempt while it runs.
pub(super) struct SlowStep(Arc<watch::Sender<SagasStats>>);

impl Drop for SlowStep {
    fn drop(&mut self) {
        self.0.send_modify(|stats| stats.slow -= 1);
    }
}

fn no_outputs() -> Json {
    Json::list(std::iter::empty())
}

/// Gives a step's output, where it is known.
fn output_of<'i>(instance: &'i Instance, step: &str) -> Option<&'i Json> {
    instance.step(step).and_then(|known| known.output.as_ref())
}

/// Lists the outputs of the group before a step, in the order of its steps.
fn group_outputs<Tx: 'static>(
    steps: &Arc<dyn Steps<Tx>>,
    instance: &Instance,
    step: usize,
) -> Json {
    let shape = steps.shape();
    let before = shape.steps[step].stage.saturating_sub(1);
    let null = Json::null();
    let steps = shape.of_stage(before).map(|n| &shape.steps[n].name);
    Json::list(steps.map(|step| output_of(instance, step).unwrap_or(&null)))
}
