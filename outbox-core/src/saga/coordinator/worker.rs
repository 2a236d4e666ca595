//! One saga, carried from step to step as far as it goes.

use super::{
    attempt::Task,
    care::{Care, Next, Suspects},
    handle::SagasStats,
    held::Fell,
    losses::{Losses, refused},
    registry::Registry,
    reports::SagaReports,
    stuck::StuckListener,
    writing::Looks,
};
use crate::{
    event::{NewEvent, jitter},
    failure::{FailureClass, full_text},
    outbox::StoreError,
    runtime::Shutdown,
    saga::{
        call::Call,
        definition::Steps,
        plan::{Failed, Plan, after_crash, after_failure, plan},
        record::Record,
        store::{Claim, OpenSaga, SagaStore},
    },
};
use futures_util::future::join_all;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::watch;

/// Longest wait before a busy database is asked again: about as long as a deadlock takes to clear.
const BUSY_WAIT: Duration = Duration::from_millis(50);
/// Times in a row that a busy database is nothing to speak of.
const BUSY_LIMIT: u32 = 5;
/// First and longest wait before a database that is down is asked again.
const DOWN_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What carries sagas.
pub(crate) struct Worker<S: SagaStore> {
    pub(crate) store: S,
    pub(crate) registry: Registry<S::Tx>,
    /// How long a claim lasts from its last use.
    pub(crate) lease: Duration,
    /// After which time an attempt is dropped whose step has no time limit of its own.
    pub(crate) step_timeout: Option<Duration>,
    pub(crate) stats: Arc<watch::Sender<SagasStats>>,
    /// The topic on which others answer.
    pub(crate) reply_to: Option<Arc<str>>,
    /// How far a test's clock is ahead of the database's, in microseconds.
    pub(crate) ahead_us: AtomicI64,
    pub(crate) shutdown: Shutdown,
    /// Shortens waits before retries.
    pub(crate) jitter: fn(Duration) -> Duration,
    /// Those that may have ended a process.
    pub(crate) suspects: Suspects,
    /// Those who want to be told of sagas that are stuck.
    pub(crate) on_stuck: Vec<StuckListener>,
    pub(crate) reports: SagaReports,
    /// What a test does to it.
    pub(crate) probe: Option<Probe>,
}

/// What a test does at each moment.
pub(crate) type Probe = Arc<dyn Fn(Moment<'_>) -> Strike + Send + Sync>;

/// Where a test may strike.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment<'a> {
    /// A step, or its compensation, is about to be tried.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "only tests look"))]
    Attempt { step: &'a str, undo: bool },
    /// A command goes out, if the transaction commits.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "only tests look"))]
    Asked { call: &'a Call, command: &'a NewEvent },
    /// Records are written and not committed.
    Written,
    /// Records are committed.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "only tests look"))]
    Committed(&'a [Record]),
}

/// What a test does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Strike {
    /// Nothing.
    Pass,
    /// The attempt fails.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "only tests strike"))]
    Fail(Failed),
    /// The process ends here.
    Cut,
}

/// How the carrying of a saga ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerEnd {
    /// It is final, or waits for an operator.
    Rests,
    /// It is to be tried again after this time.
    Waits(Duration),
    /// Somebody else has it.
    Lost,
    /// It was given back at shutdown.
    GivenBack,
    /// It cannot be read.
    Broken,
    /// A test has cut it off.
    Cut,
}

/// What one transaction came to.
pub(super) enum Advance {
    /// There is more to do.
    Goes,
    Ends(WorkerEnd),
}

/// How a step of a group ended.
enum Branch {
    Done,
    /// It was the last one, and what it has written gives the saga back.
    Last(WorkerEnd),
    Fell(Task, Fell),
    Ends(WorkerEnd),
}

impl<S: SagaStore> Worker<S> {
    /// Carries a saga until it rests, waits, or is somebody else's.
    pub(crate) async fn carry(&self, claim: &Claim) -> WorkerEnd {
        let (mut failures, mut care, losses) = (0, Care::of(claim), Losses::default());
        loop {
            if self.shutdown.is_requested() {
                if let Err(error) = self.store.release(std::slice::from_ref(claim)).await {
                    tracing::debug!(
                        error = full_text(&error),
                        "a saga was not given back; its claim runs out"
                    );
                }
                return WorkerEnd::GivenBack;
            }
            match self.advance(claim, &mut care, &losses).await {
                Ok(Advance::Goes) => failures = 0,
                Ok(Advance::Ends(end)) => return end,
                Err(error) => {
                    failures += 1;
                    let Some(wait) = self.wait_after(claim, &error, failures) else {
                        return WorkerEnd::Broken;
                    };
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.shutdown.requested() => {}
                    }
                }
            }
        }
    }

    /// How long to wait after a failure of the database; `None` when waiting does not help. Nothing is lost by asking
    /// again: the saga is read anew, under the same claim.
    fn wait_after(&self, claim: &Claim, error: &StoreError, failures: u32) -> Option<Duration> {
        match error.class() {
            FailureClass::Transient => {
                if failures.is_multiple_of(BUSY_LIMIT) {
                    self.reports.work.failed("carry on a saga whose database is busy", error);
                }
                Some(jitter(BUSY_WAIT * failures.min(20)))
            }
            FailureClass::Unavailable => {
                self.reports.work.failed("carry on a saga", error);
                let (first, longest) = DOWN_WAIT;
                Some(first.saturating_mul(1 << failures.min(10)).min(longest))
            }
            FailureClass::Permanent => {
                tracing::error!(saga = %claim.id, error = full_text(error), "a saga cannot be read");
                None
            }
        }
    }

    async fn advance(
        &self,
        claim: &Claim,
        care: &mut Care,
        losses: &Losses,
    ) -> Result<Advance, StoreError> {
        let Some(steps) = self.registry.get(&claim.definition) else {
            return Ok(Advance::Ends(WorkerEnd::Broken));
        };
        // Before a connection is taken: the suspect needs one.
        let beside = if care.is_alone() { None } else { Some(self.suspects.beside().await) };
        // A database that is away has lost the connections before, and no step is to blame.
        let tx = self.store.begin().await.inspect_err(|_| losses.forget())?;
        let (tx, open) = match self.open(tx, claim).await? {
            Some(opened) => opened,
            None => return Ok(Advance::Ends(WorkerEnd::Lost)),
        };
        let (numbers, undo) = match plan(steps.shape(), &open.instance, open.when) {
            Plan::Rest => {
                self.roll_back(tx).await;
                return Ok(Advance::Ends(WorkerEnd::Rests));
            }
            // Its last holder did not write down how long, or the wait was cut short.
            Plan::Wait(_) => {
                return self.write(tx, claim, steps, &open, (Vec::new(), Looks::default())).await;
            }
            Plan::Note(record) => {
                return self.write(tx, claim, steps, &open, (vec![record], Looks::default())).await;
            }
            Plan::Run(numbers) => (numbers, false),
            Plan::Undo(numbers) => (numbers, true),
        };
        match care.next(steps.shape(), &open.instance, numbers) {
            Next::Do(numbers) => {
                let advanced = self.all(tx, (claim, losses), steps, open, &numbers, undo).await?;
                *care = Care::Usual;
                Ok(advanced)
            }
            Next::WriteDown(step) => {
                let record = after_crash(&steps.shape().steps[step], &open.instance);
                let advanced =
                    self.write(tx, claim, steps, &open, (vec![record], Looks::default())).await?;
                care.written_down(step);
                Ok(advanced)
            }
            Next::WaitForTurn => {
                // Not while the saga's row is locked, nor while it is itself among those that are waited for.
                self.roll_back(tx).await;
                drop(beside);
                Ok(match self.suspects.turn(self.lease / 2).await {
                    Some(turn) => {
                        care.has_turn(turn);
                        Advance::Goes
                    }
                    // Its claim runs out meanwhile.
                    None => Advance::Ends(WorkerEnd::Waits(self.lease / 2)),
                })
            }
        }
    }

    /// Locks the saga's row in a transaction; `None` where it is held under another epoch, and the transaction is over.
    pub(super) async fn open(
        &self,
        tx: S::Tx,
        claim: &Claim,
    ) -> Result<Option<(S::Tx, OpenSaga)>, StoreError> {
        match self.store.open(&tx, claim).await {
            Ok(Some(mut open)) => {
                open.when.now_us += self.ahead_us.load(Relaxed);
                Ok(Some((tx, open)))
            }
            Ok(None) => {
                self.roll_back(tx).await;
                Ok(None)
            }
            Err(error) => {
                self.roll_back(tx).await;
                Err(error)
            }
        }
    }

    /// Does one step in the transaction that has the saga's row, or several in transactions of their own.
    async fn all(
        &self,
        tx: S::Tx,
        (claim, losses): (&Claim, &Losses),
        steps: &Arc<dyn Steps<S::Tx>>,
        open: OpenSaga,
        numbers: &[usize],
        undo: bool,
    ) -> Result<Advance, StoreError> {
        if let [step] = *numbers {
            let task = Task { step, undo, beside: steps.shape().steps[step].group.is_some() };
            let (tx, tried) = self.attempt(tx, claim, steps, &open, task).await;
            let written = match tried {
                Ok(Ok(records)) => {
                    self.write(tx, claim, steps, &open, (records, Looks::default())).await
                }
                Ok(Err(fell)) => {
                    self.roll_back(tx).await;
                    return match losses.judge(task, fell) {
                        Fell::Store(error) => Err(error),
                        fell => self.note_failures(claim, steps, vec![(task, fell)]).await,
                    };
                }
                Err(end) => return Ok(Advance::Ends(end)),
            };
            return match written {
                Ok(advance) => {
                    losses.forget();
                    Ok(advance)
                }
                Err(error) => match losses.judge(task, refused(error)) {
                    Fell::Store(error) => Err(error),
                    fell => self.note_failures(claim, steps, vec![(task, fell)]).await,
                },
            };
        }
        self.roll_back(tx).await;
        let open = Arc::new(open);
        let branches = numbers.iter().map(|step| {
            let task = Task { step: *step, undo, beside: true };
            self.branch((claim, losses), steps, &open, task)
        });
        let (mut failures, mut broken, mut goes) = (Vec::new(), None, Advance::Goes);
        for ended in join_all(branches).await {
            match ended {
                Ok(Branch::Done) => {}
                Ok(Branch::Last(end)) => goes = Advance::Ends(end),
                Ok(Branch::Fell(task, fell)) => failures.push((task, fell)),
                Ok(Branch::Ends(end)) => return Ok(Advance::Ends(end)),
                Err(error) => broken = Some(error),
            }
        }
        // What failed beside a failure of the database failed all the same.
        let noted = if failures.is_empty() {
            Ok(goes)
        } else {
            self.note_failures(claim, steps, failures).await
        };
        broken.map_or(noted, Err)
    }

    /// Does one step of a group. The saga's row is locked after the work, so that others are done at the same time; where
    /// it is another's by then, or the saga has turned back, the work is rolled back.
    async fn branch(
        &self,
        (claim, losses): (&Claim, &Losses),
        steps: &Arc<dyn Steps<S::Tx>>,
        open: &OpenSaga,
        task: Task,
    ) -> Result<Branch, StoreError> {
        let tx = self.store.begin().await.inspect_err(|_| losses.forget())?;
        let (tx, tried) = self.attempt(tx, claim, steps, open, task).await;
        let records = match tried {
            Ok(Ok(records)) => records,
            Ok(Err(fell)) => {
                self.roll_back(tx).await;
                return match losses.judge(task, fell) {
                    Fell::Store(error) => Err(error),
                    fell => Ok(Branch::Fell(task, fell)),
                };
            }
            Err(end) => return Ok(Branch::Ends(end)),
        };
        let Some((tx, now)) = self.open(tx, claim).await? else {
            return Ok(Branch::Ends(WorkerEnd::Lost));
        };
        if now.instance.after_all(&records).is_err() {
            self.roll_back(tx).await;
            return Ok(Branch::Done);
        }
        match self.write(tx, claim, steps, &now, (records, Looks::default())).await {
            Ok(Advance::Ends(end @ (WorkerEnd::Rests | WorkerEnd::Waits(_)))) => {
                Ok(Branch::Last(end))
            }
            Ok(Advance::Ends(end)) => Ok(Branch::Ends(end)),
            Ok(Advance::Goes) => Ok(Branch::Done),
            Err(error) => match losses.judge(task, refused(error)) {
                Fell::Store(error) => Err(error),
                fell => Ok(Branch::Fell(task, fell)),
            },
        }
    }

    /// Writes failures down: each one is tried again, turns the saga back, or makes it stuck. What waits for another saga is
    /// no failure, and looks again.
    async fn note_failures(
        &self,
        claim: &Claim,
        steps: &Arc<dyn Steps<S::Tx>>,
        failures: Vec<(Task, Fell)>,
    ) -> Result<Advance, StoreError> {
        let tx = self.store.begin().await?;
        let Some((tx, open)) = self.open(tx, claim).await? else {
            return Ok(Advance::Ends(WorkerEnd::Lost));
        };
        let (mut instance, mut records, mut looks) =
            (open.instance.clone(), Vec::new(), Looks::default());
        for (task, fell) in failures {
            let step = &steps.shape().steps[task.step];
            if let Fell::Failed(failed) = &fell {
                self.report_failure(claim, &open, &step.name, task.undo, failed);
            }
            // It was cancelled meanwhile, or another step of the group has turned it back.
            if instance.backward != task.undo || !instance.state.is_active() {
                continue;
            }
            let record = match fell {
                Fell::Store(_) => None,
                Fell::Failed(failed) => {
                    Some(after_failure(step, &instance, &failed, open.when.now_us, self.jitter))
                }
                Fell::Held { entity } => {
                    let at = (&instance, open.when.now_us);
                    match self.held(&tx, claim.id, at, step, entity).await {
                        Ok((record, wait)) => {
                            looks.add(task.step, wait);
                            record
                        }
                        Err(error) => {
                            self.roll_back(tx).await;
                            return Err(error);
                        }
                    }
                }
            };
            if let Some((record, after)) =
                record.and_then(|record| instance.after(&record).map(|after| (record, after)))
            {
                instance = after;
                records.push(record);
            }
        }
        if records.is_empty() && looks.is_empty() {
            self.roll_back(tx).await;
            return Ok(Advance::Goes);
        }
        self.write(tx, claim, steps, &open, (records, looks)).await
    }

    pub(super) async fn roll_back(&self, tx: S::Tx) {
        if let Err(error) = self.store.rollback(tx).await {
            tracing::debug!(
                error = full_text(&error),
                "a rollback was not answered; the connection's end does it"
            );
        }
    }

    pub(super) fn strike(&self, moment: Moment<'_>) -> Strike {
        self.probe.as_ref().map_or(Strike::Pass, |probe| probe(moment))
    }
}
