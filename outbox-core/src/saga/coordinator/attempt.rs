//! One attempt at a step, or at its compensation.

use super::{
    handle::SagasStats,
    held::Fell,
    worker::{Moment, Strike, Worker, WorkerEnd},
};
use crate::{
    event::{NewEvent, Trail},
    failure::{FailureClass, full_text},
    runtime::{
        Watch, caught,
        fault::{FaultPoint, reach},
        now, watched,
    },
    saga::{
        call::{Call, CommandHash, Phase},
        definition::{Failure, Product, Ran, StepContext, StepError, StepShape, Steps, Undid},
        json::Json,
        lock::Marker,
        plan::{Failed, patience},
        progress::StepState,
        record::Record,
        state::Instance,
        store::{Claim, OpenSaga, SagaStore},
    },
};
use std::{num::NonZeroU32, sync::Arc, time::Duration};
use tokio::sync::watch;

/// An attempt that holds the only write lock of its database for longer is told of: others have waited for it by then.
const LOCKED_LONG: Duration = Duration::from_secs(1);

/// What is tried: a step, or its compensation.
#[derive(Clone, Copy)]
pub(super) struct Task {
    pub(super) step: usize,
    pub(super) undo: bool,
    /// Whether others are done at the same time.
    pub(super) beside: bool,
}

impl<S: SagaStore> Worker<S> {
    /// Tries a step or a compensation once; gives the transaction back, and the records of what was done.
    pub(super) async fn attempt(
        &self,
        tx: S::Tx,
        claim: &Claim,
        steps: &Arc<dyn Steps<S::Tx>>,
        open: &OpenSaga,
        task: Task,
    ) -> (S::Tx, Result<Result<Vec<Record>, Fell>, WorkerEnd>) {
        let shape = &steps.shape().steps[task.step];
        match self.strike(Moment::Attempt { step: &shape.name, undo: task.undo }) {
            Strike::Pass => {}
            Strike::Fail(failed) => return (tx, Ok(Err(Fell::Failed(failed)))),
            Strike::Cut => return (tx, Err(WorkerEnd::Cut)),
        }
        let attempt = open.instance.attempts(&shape.name).saturating_add(1);
        let (correlation, name) = (Arc::clone(&open.correlation), Arc::clone(&shape.name));
        if let Ok(trail) = Trail::new(Arc::clone(&correlation)) {
            self.store.follow(&tx, trail);
        }
        let marker = Marker::new(Arc::new(self.store.clone()));
        let reason = open.instance.reason.clone().filter(|_| task.undo);
        let cx =
            StepContext::new(tx, claim.id, (correlation, name), attempt, task.undo, reason, marker);
        let work = self.store.within(&cx.tx, Box::pin(self.work(steps, open, task, attempt, &cx)));
        let limit = self.limit(shape, task);
        let watch = Watch { limit, awake_every: self.store.idle_limit().map(|limit| limit / 3) };
        let slow = |after| self.slow(claim, &shape.name, task.undo, after, limit);
        let begun = now();
        let (ended, too_long) =
            match watched(caught(work), watch, slow, || self.store.keep_awake(&cx.tx)).await {
                Ok(ended) => (ended, false),
                Err(limit) => {
                    self.stats.send_modify(|stats| stats.timed_out += 1);
                    (Ok(Err(StepError::retry(limit.to_string()))), true)
                }
            };
        reach(FaultPoint::AfterStep);
        self.tell_of_the_lock(claim, &shape.name, task.undo, now().duration_since(begun));
        let (tx, locked) = cx.into_parts();
        let failed = matches!(ended, Ok(Err(StepError(Failure::Retry(_)))) | Err(_)) && !too_long;
        // The database disturbed it for the sake of others: the step is not to blame.
        if let Some(error) = self.store.disturbance(&tx).filter(|_| failed) {
            return (tx, Ok(Err(Fell::Store(error))));
        }
        let tried = match ended {
            Ok(Ok(record)) if locked.is_empty() => Ok(vec![record]),
            Ok(Ok(record)) => {
                Ok(vec![Record::Locked { step: shape.name.to_string(), entities: locked }, record])
            }
            Ok(Err(StepError(Failure::Held { entity, .. }))) => Err(Fell::Held { entity }),
            Ok(Err(StepError(Failure::Store(error))))
                if error.class() == FailureClass::Permanent =>
            {
                Err(Fell::Failed(Failed::Retry(full_text(&error))))
            }
            Ok(Err(StepError(Failure::Store(error)))) => Err(Fell::Store(error)),
            Ok(Err(StepError(Failure::Retry(error)))) => {
                Err(Fell::Failed(Failed::Retry(full_text(&*error))))
            }
            Ok(Err(StepError(Failure::Abort(reason)))) => Err(Fell::Failed(Failed::Abort(reason))),
            Ok(Err(StepError(Failure::Stop(reason)))) => Err(Fell::Failed(Failed::Stop(reason))),
            Err(panic) => Err(Fell::Failed(Failed::Retry(format!("a panic: {panic}")))),
        };
        (tx, Ok(tried))
    }

    /// After which time an attempt is dropped. What is done beside others does not hold the saga's row, and has to end
    /// while the claim lasts, or it would be begun again and again.
    fn limit(&self, shape: &StepShape, task: Task) -> Option<Duration> {
        // A test's claims last for no time.
        let half = Some(self.lease / 2).filter(|half| task.beside && !half.is_zero());
        // Of a step that others are asked to do, it is how long their answer is awaited.
        let own = shape.timeout.filter(|_| shape.asks.is_none());
        let limit = if shape.no_timeout { None } else { own.or(self.step_timeout) };
        limit.map(|limit| half.map_or(limit, |half| half.min(limit))).or(half)
    }

    /// Tells of an attempt that kept all other writers of the database waiting.
    fn tell_of_the_lock(&self, claim: &Claim, step: &str, undo: bool, held_for: Duration) {
        let is_long = held_for > LOCKED_LONG && self.store.has_one_writer();
        if is_long
            && self.tells_slow(
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
                "a step held the database's only write lock, and all other writers waited: let others do what takes long \
                 (`ask`), or use another database than SQLite"
            );
        }
    }

    /// Tells of an attempt that takes long, and counts it until what this gives is dropped.
    pub(super) fn slow(
        &self,
        claim: &Claim,
        step: &str,
        undo: bool,
        after: Duration,
        limit: Option<Duration>,
    ) -> SlowStep {
        if self.tells_slow(claim, step, undo, &format!("it is slow after {after:?}")) {
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

    async fn work(
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
            let Undid { data, command } = steps.undo(task.step, &open.data, output, cx).await?;
            let data = (!task.beside).then_some(data);
            return match command {
                Some(command) => self.ask(shape, open, Phase::Undo, data, *command, cx).await,
                None => Ok(Record::Undone { step, data, attempt }),
            };
        }
        if steps.leaves_out(task.step, &open.data)? {
            return Ok(Record::LeftOut { step, pivot: shape.pivot });
        }
        let outputs = if shape.merges {
            of_group_before(steps, &open.instance, task.step)
        } else {
            nothing()
        };
        let Ran { made, data } = steps.run(task.step, &open.data, &outputs, cx).await?;
        let (pivot, compensates) = (shape.pivot, shape.compensates);
        match made {
            Product::Output(output) => {
                Ok(Record::Done { step, output, data, pivot, compensates, attempt })
            }
            Product::Command(command) => self.ask(shape, open, Phase::Do, data, *command, cx).await,
        }
    }

    /// Sends a command in the step's transaction.
    async fn ask(
        &self,
        shape: &StepShape,
        open: &OpenSaga,
        phase: Phase,
        data: Option<Json>,
        mut command: NewEvent,
        cx: &StepContext<S::Tx>,
    ) -> Result<Record, StepError> {
        let (state, known) = match phase {
            Phase::Do => (StepState::Waiting, open.instance.step(&shape.name)),
            Phase::Undo => (StepState::Cancelling, open.instance.step(&shape.name)),
        };
        let asked = known.and_then(|known| known.asked.as_ref());
        let round = asked.map_or(NonZeroU32::MIN, |asked| asked.round);
        let before = asked
            .filter(|_| known.is_some_and(|known| known.state == state))
            .map_or(0, |asked| asked.times);
        let times = before.saturating_add(1);
        let call = Call { saga: cx.saga(), step: shape.name.to_string(), round, phase };
        // Of a command that went out already, what it was told by then, also where it is made differently now.
        let first = match (phase, asked) {
            (Phase::Do, Some(asked)) if !asked.unsent => asked.command.clone(),
            (Phase::Do, _) => {
                Some(CommandHash::of(&command.event_type, &command.payload).to_string())
            }
            (Phase::Undo, asked) => asked.and_then(|asked| asked.command.clone()),
        };
        call.write_command(&mut command.headers, self.reply_to.as_deref(), first.as_deref());
        let _ = self.strike(Moment::Asked { call: &call, command: &command });
        self.store.append(&cx.tx, &[command]).await?;
        let wait = patience(shape.timeout.unwrap_or(self.lease), times);
        let wait_us = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
        let until_us = open.when.now_us.saturating_add(wait_us);
        let (pivot, compensates) = (shape.pivot, shape.compensates);
        let step = shape.name.to_string();
        Ok(Record::Asked { step, data, pivot, compensates, times, until_us, command: first })
    }
}

/// An attempt that is slow, counted while it runs.
pub(super) struct SlowStep(Arc<watch::Sender<SagasStats>>);

impl Drop for SlowStep {
    fn drop(&mut self) {
        self.0.send_modify(|stats| stats.slow -= 1);
    }
}

fn nothing() -> Json {
    Json::list(std::iter::empty())
}

/// What a step returned, where it is known.
fn output_of<'i>(instance: &'i Instance, step: &str) -> Option<&'i Json> {
    instance.step(step).and_then(|known| known.output.as_ref())
}

/// What the steps of the group before a step returned, in their order.
fn of_group_before<Tx: 'static>(
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
