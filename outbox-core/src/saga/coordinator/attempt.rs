//! One attempt at a step, or at its compensation.

use super::{
    held::Fell,
    worker::{Moment, Strike, Worker, WorkerEnd},
};
use crate::{
    event::{NewEvent, Trail},
    failure::{FailureClass, full_text},
    runtime::{
        caught,
        fault::{FaultPoint, reach},
    },
    saga::{
        call::{Call, Phase},
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
        let cx = StepContext::new(tx, claim.id, (correlation, name), attempt, task.undo, marker);
        let work = self.work(steps, open, task, attempt, &cx);
        let ended = match self.limit(shape, task) {
            Some(limit) => match tokio::time::timeout(limit, caught(work)).await {
                Ok(ended) => ended,
                Err(_) => Ok(Err(StepError::retry(format!("it did not end within {limit:?}")))),
            },
            None => caught(work).await,
        };
        reach(FaultPoint::AfterStep);
        let (tx, locked) = cx.into_parts();
        let tried = match ended {
            Ok(Ok(record)) if locked.is_empty() => Ok(vec![record]),
            Ok(Ok(record)) => Ok(vec![Record::Locked { step: shape.name.to_string(), entities: locked }, record]),
            Ok(Err(StepError(Failure::Held { entity, .. }))) => Err(Fell::Held { entity }),
            Ok(Err(StepError(Failure::Store(error)))) if error.class() == FailureClass::Permanent => {
                Err(Fell::Failed(Failed::Retry(full_text(&error))))
            }
            Ok(Err(StepError(Failure::Store(error)))) => Err(Fell::Store(error)),
            Ok(Err(StepError(Failure::Retry(error)))) => Err(Fell::Failed(Failed::Retry(full_text(&*error)))),
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
        let timeout = shape.timeout.filter(|_| shape.asks.is_none());
        timeout.map(|limit| half.map_or(limit, |half| half.min(limit))).or(half)
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
        let outputs = if shape.merges { of_group_before(steps, &open.instance, task.step) } else { nothing() };
        let Ran { made, data } = steps.run(task.step, &open.data, &outputs, cx).await?;
        let (pivot, compensates) = (shape.pivot, shape.compensates);
        match made {
            Product::Output(output) => Ok(Record::Done { step, output, data, pivot, compensates, attempt }),
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
        let before = asked.filter(|_| known.is_some_and(|known| known.state == state)).map_or(0, |asked| asked.times);
        let times = before.saturating_add(1);
        let call = Call { saga: cx.saga(), step: shape.name.to_string(), round, phase };
        call.write(&mut command.headers, self.reply_to.as_deref());
        let _ = self.strike(Moment::Asked { call: &call, command: &command });
        self.store.append(&cx.tx, &[command]).await?;
        let wait = patience(shape.timeout.unwrap_or(self.lease), times);
        let wait_us = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
        let until_us = open.when.now_us.saturating_add(wait_us);
        let (pivot, compensates) = (shape.pivot, shape.compensates);
        Ok(Record::Asked { step: shape.name.to_string(), data, pivot, compensates, times, until_us })
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
fn of_group_before<Tx: 'static>(steps: &Arc<dyn Steps<Tx>>, instance: &Instance, step: usize) -> Json {
    let shape = steps.shape();
    let before = shape.steps[step].stage.saturating_sub(1);
    let null = Json::null();
    let steps = shape.of_stage(before).map(|n| &shape.steps[n].name);
    Json::list(steps.map(|step| output_of(instance, step).unwrap_or(&null)))
}
