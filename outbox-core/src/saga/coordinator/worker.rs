//! Drives one saga from step to step, until it ends, waits or is stuck.

use super::{
    attempt::Task,
    blocked::AttemptFailure,
    crash_isolation::{IsolationGate, IsolationMode, NextAction},
    handle::SagasStats,
    lost_connections::{LostConnections, write_failure},
    metrics::SagaMetrics,
    registry::Registry,
    reports::SagaReports,
    stuck::StuckListener,
    transition::LockPolls,
};
use crate::{
    event::{NewEvent, command::CommandId, jitter},
    failure::{FailureClass, full_text},
    outbox::{StoreError, roll_back},
    runtime::Shutdown,
    saga::{
        definition::Steps,
        plan::{Plan, StepFailure, after_crash, after_failure, plan},
        record::Record,
        store::{OpenSaga, SagaClaim, SagaStore},
    },
    telemetry::Heartbeats,
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

/// Longest wait before another attempt at a busy database: about as long as a deadlock takes to
/// clear.
const BUSY_WAIT: Duration = Duration::from_millis(50);
/// Failures in a row for which a busy database is not reported.
const BUSY_LIMIT: u32 = 5;
/// First and longest wait before another attempt at a database that is down.
const DOWN_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Drives sagas.
pub(crate) struct Worker<S: SagaStore> {
    pub(crate) store: S,
    pub(crate) registry: Registry<S::Tx>,
    /// How long a claim lasts after its last use.
    pub(crate) lease: Duration,
    /// The time limit of attempts whose step has none of its own.
    pub(crate) step_timeout: Option<Duration>,
    pub(crate) stats: Arc<watch::Sender<SagasStats>>,
    pub(crate) metrics: SagaMetrics,
    pub(crate) heartbeats: Arc<Heartbeats>,
    /// The topic for replies of participants.
    pub(crate) reply_to: Option<Arc<str>>,
    /// How far a test's clock is ahead of the database's, in microseconds.
    pub(crate) ahead_us: AtomicI64,
    pub(crate) shutdown: Shutdown,
    /// Randomises waits before retries.
    pub(crate) jitter: fn(Duration) -> Duration,
    /// Isolates attempts that may end the process.
    pub(crate) isolation: IsolationGate,
    /// The listeners for stuck sagas.
    pub(crate) on_stuck: Vec<StuckListener>,
    pub(crate) reports: SagaReports,
    /// What a test does at each test point.
    pub(crate) test_hook: Option<TestHook>,
}

/// Decides what a test does at each test point.
pub(crate) type TestHook = Arc<dyn Fn(TestPoint<'_>) -> TestAction + Send + Sync>;

/// Where a test may make something fail.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TestPoint<'a> {
    /// An attempt at a step, or at its compensation, is about to start.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "only tests read it"))]
    Attempt { step: &'a str, undo: bool },
    /// A command is sent, if the transaction commits.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "only tests read it"))]
    CommandSent { id: &'a CommandId, command: &'a NewEvent },
    /// Records are written and not committed.
    Written,
    /// Records are committed.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "only tests read it"))]
    Committed(&'a [Record]),
}

/// What a test does at a test point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TestAction {
    /// Nothing.
    Continue,
    /// The attempt fails.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "only tests make it"))]
    Fail(StepFailure),
    /// The process ends here.
    Crash,
}

/// Why a coordinator stopped driving a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DriveOutcome {
    /// The saga has ended, or is stuck.
    Idle,
    /// The saga waits for this time.
    Waiting(Duration),
    /// Another coordinator has claimed it.
    Lost,
    /// This coordinator shuts down, and has released the claim.
    Released,
    /// The coordinator cannot read it.
    Unreadable,
    /// A test has let the process end.
    Crashed,
}

/// The outcome of one transaction of a saga.
pub(super) enum Advance {
    /// The coordinator goes on with the saga.
    Continue,
    Done(DriveOutcome),
}

/// How a step of a group ended.
enum Branch {
    Recorded,
    /// It was the last one, and its record has ended the claim.
    Last(DriveOutcome),
    Failed(Task, AttemptFailure),
    Stopped(DriveOutcome),
}

impl<S: SagaStore> Worker<S> {
    /// Drives a saga until it ends, is stuck, waits, or another coordinator has claimed it.
    pub(crate) async fn drive(&self, claim: &SagaClaim) -> DriveOutcome {
        let (mut failures, mut mode) = (0, IsolationMode::of(claim));
        let lost = LostConnections::default();
        loop {
            if self.shutdown.is_requested() {
                if let Err(error) = self.store.release(std::slice::from_ref(claim)).await {
                    tracing::debug!(
                        error = full_text(&error),
                        "a claim on a saga was not released; it runs out"
                    );
                }
                return DriveOutcome::Released;
            }
            match self.advance(claim, &mut mode, &lost).await {
                Ok(Advance::Continue) => failures = 0,
                Ok(Advance::Done(end)) => return end,
                Err(error) => {
                    failures += 1;
                    let Some(wait) = self.wait_after(claim, &error, failures) else {
                        return DriveOutcome::Unreadable;
                    };
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.shutdown.requested() => {}
                    }
                }
            }
        }
    }

    /// Gives the wait after a failure of the database; `None` where waiting does not help. Another
    /// attempt is safe: it reads the saga again, under the same claim.
    fn wait_after(&self, claim: &SagaClaim, error: &StoreError, failures: u32) -> Option<Duration> {
        match error.class() {
            FailureClass::Transient => {
                if failures.is_multiple_of(BUSY_LIMIT) {
                    self.reports.work.failed("drive a saga whose database is busy", error);
                }
                Some(jitter(BUSY_WAIT * failures.min(20)))
            }
            FailureClass::Unavailable => {
                self.reports.work.failed("drive a saga", error);
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
        claim: &SagaClaim,
        mode: &mut IsolationMode,
        lost: &LostConnections,
    ) -> Result<Advance, StoreError> {
        let Some(steps) = self.registry.get(&claim.definition) else {
            return Ok(Advance::Done(DriveOutcome::Unreadable));
        };
        // Before it takes a connection, since an isolated attempt needs one.
        let shared = if mode.is_exclusive() { None } else { Some(self.isolation.shared().await) };
        // Where the database is unavailable, earlier connections were lost for that reason, and not
        // by a step.
        let tx = self.store.begin().await.inspect_err(|_| lost.clear())?;
        let (tx, open) = match self.open(tx, claim).await? {
            Some(opened) => opened,
            None => return Ok(Advance::Done(DriveOutcome::Lost)),
        };
        let (numbers, undo) = match plan(steps.shape(), &open.instance, open.when) {
            Plan::Idle => {
                roll_back(&self.store, tx).await;
                return Ok(Advance::Done(DriveOutcome::Idle));
            }
            // The last coordinator did not record the wait, or an operator or a reply has cut it
            // short.
            Plan::Wait(_) => {
                return self
                    .write(tx, claim, steps, &open, (Vec::new(), LockPolls::default()))
                    .await;
            }
            Plan::Append(record) => {
                return self
                    .write(tx, claim, steps, &open, (vec![record], LockPolls::default()))
                    .await;
            }
            Plan::Run(numbers) => (numbers, false),
            Plan::Undo(numbers) => (numbers, true),
        };
        match mode.next(steps.shape(), &open.instance, numbers) {
            NextAction::Run(numbers) => {
                let advanced = self.run_all(tx, (claim, lost), steps, open, &numbers, undo).await?;
                // The attempt has not ended this process, so the saga is cleared.
                *mode = IsolationMode::Normal;
                Ok(advanced)
            }
            NextAction::RecordAttempt(step) => {
                let record = after_crash(&steps.shape().steps[step], &open.instance);
                let advanced = self
                    .write(tx, claim, steps, &open, (vec![record], LockPolls::default()))
                    .await?;
                mode.attempt_recorded(step);
                Ok(advanced)
            }
            NextAction::WaitForPermit => {
                // It waits without the saga's row lock and without its shared permit, which would
                // block the exclusive one.
                roll_back(&self.store, tx).await;
                drop(shared);
                Ok(match self.isolation.exclusive(self.lease / 2).await {
                    Some(permit) => {
                        mode.permit_acquired(permit);
                        Advance::Continue
                    }
                    // The claim runs out meanwhile.
                    None => Advance::Done(DriveOutcome::Waiting(self.lease / 2)),
                })
            }
        }
    }

    /// Locks the saga's row in a transaction; `None` where the saga has another epoch, and then
    /// rolls the transaction back.
    pub(super) async fn open(
        &self,
        tx: S::Tx,
        claim: &SagaClaim,
    ) -> Result<Option<(S::Tx, OpenSaga)>, StoreError> {
        match self.store.open(&tx, claim).await {
            Ok(Some(mut open)) => {
                open.when.now_us += self.ahead_us.load(Relaxed);
                Ok(Some((tx, open)))
            }
            Ok(None) => {
                roll_back(&self.store, tx).await;
                Ok(None)
            }
            Err(error) => {
                roll_back(&self.store, tx).await;
                Err(error)
            }
        }
    }

    /// Runs one step in the transaction that holds the saga's row, or several in transactions of
    /// their own.
    async fn run_all(
        &self,
        tx: S::Tx,
        (claim, lost): (&SagaClaim, &LostConnections),
        steps: &Arc<dyn Steps<S::Tx>>,
        open: OpenSaga,
        numbers: &[usize],
        undo: bool,
    ) -> Result<Advance, StoreError> {
        if let [step] = *numbers {
            let task = Task { step, undo, parallel: steps.shape().steps[step].group.is_some() };
            let (tx, attempted) = self.attempt(tx, claim, steps, &open, task).await;
            let written = match attempted {
                Ok(Ok(records)) => {
                    self.write(tx, claim, steps, &open, (records, LockPolls::default())).await
                }
                Ok(Err(failure)) => {
                    roll_back(&self.store, tx).await;
                    return match lost.classify(task, failure) {
                        AttemptFailure::Store(error) => Err(error),
                        failure => self.record_failures(claim, steps, vec![(task, failure)]).await,
                    };
                }
                Err(end) => return Ok(Advance::Done(end)),
            };
            return match written {
                Ok(advance) => {
                    lost.clear();
                    Ok(advance)
                }
                // The step's own writes may be what ends the connection or what the database
                // rejects. When that counted as the store's failure, such a saga ran its step for
                // ever.
                Err(error) => match lost.classify(task, write_failure(error)) {
                    AttemptFailure::Store(error) => Err(error),
                    failure => self.record_failures(claim, steps, vec![(task, failure)]).await,
                },
            };
        }
        roll_back(&self.store, tx).await;
        let open = Arc::new(open);
        let branches = numbers.iter().map(|step| {
            let task = Task { step: *step, undo, parallel: true };
            self.branch((claim, lost), steps, &open, task)
        });
        // All of the group end before anything is decided: another step of it may have been done,
        // and is undone with the others.
        let (mut failures, mut store_error) = (Vec::new(), None);
        let mut advance = Advance::Continue;
        for ended in join_all(branches).await {
            match ended {
                Ok(Branch::Recorded) => {}
                Ok(Branch::Last(end)) => advance = Advance::Done(end),
                Ok(Branch::Failed(task, failure)) => failures.push((task, failure)),
                Ok(Branch::Stopped(end)) => return Ok(Advance::Done(end)),
                Err(error) => store_error = Some(error),
            }
        }
        // Failures of steps are recorded also where the store failed for another step.
        let recorded = if failures.is_empty() {
            Ok(advance)
        } else {
            self.record_failures(claim, steps, failures).await
        };
        store_error.map_or(recorded, Err)
    }

    /// Runs one step of a group. Locks the saga's row only after the step, so that the others run
    /// at the same time; rolls the step back where another coordinator has claimed the saga by
    /// then, or the saga compensates.
    async fn branch(
        &self,
        (claim, lost): (&SagaClaim, &LostConnections),
        steps: &Arc<dyn Steps<S::Tx>>,
        open: &OpenSaga,
        task: Task,
    ) -> Result<Branch, StoreError> {
        let tx = self.store.begin().await.inspect_err(|_| lost.clear())?;
        let (tx, attempted) = self.attempt(tx, claim, steps, open, task).await;
        let records = match attempted {
            Ok(Ok(records)) => records,
            Ok(Err(failure)) => {
                roll_back(&self.store, tx).await;
                return match lost.classify(task, failure) {
                    AttemptFailure::Store(error) => Err(error),
                    failure => Ok(Branch::Failed(task, failure)),
                };
            }
            Err(end) => return Ok(Branch::Stopped(end)),
        };
        let Some((tx, now)) = self.open(tx, claim).await? else {
            return Ok(Branch::Stopped(DriveOutcome::Lost));
        };
        // The saga compensates by now. The step is rolled back and so never done; a record here
        // would be one that does not apply.
        if now.instance.after_all(&records).is_err() {
            roll_back(&self.store, tx).await;
            return Ok(Branch::Recorded);
        }
        match self.write(tx, claim, steps, &now, (records, LockPolls::default())).await {
            Ok(Advance::Done(end @ (DriveOutcome::Idle | DriveOutcome::Waiting(_)))) => {
                Ok(Branch::Last(end))
            }
            Ok(Advance::Done(end)) => Ok(Branch::Stopped(end)),
            Ok(Advance::Continue) => Ok(Branch::Recorded),
            Err(error) => match lost.classify(task, write_failure(error)) {
                AttemptFailure::Store(error) => Err(error),
                failure => Ok(Branch::Failed(task, failure)),
            },
        }
    }

    /// Records failures: each one leads to a retry, to compensation, or makes the saga stuck. A
    /// step that waits for a lock has not failed, and polls the lock again.
    async fn record_failures(
        &self,
        claim: &SagaClaim,
        steps: &Arc<dyn Steps<S::Tx>>,
        failures: Vec<(Task, AttemptFailure)>,
    ) -> Result<Advance, StoreError> {
        let tx = self.store.begin().await?;
        let Some((tx, open)) = self.open(tx, claim).await? else {
            return Ok(Advance::Done(DriveOutcome::Lost));
        };
        let (mut instance, mut records, mut polls) =
            (open.instance.clone(), Vec::new(), LockPolls::default());
        for (task, failure) in failures {
            let step = &steps.shape().steps[task.step];
            if let AttemptFailure::Failed(failure) = &failure {
                self.report_failure(claim, &open, &step.name, task.undo, failure);
            }
            // Compensation has started meanwhile: an operator cancelled the saga, or another step
            // of the group failed for good.
            if instance.backward != task.undo || !instance.state.is_active() {
                continue;
            }
            let record = match failure {
                AttemptFailure::Store(_) => None,
                AttemptFailure::Failed(failure) => {
                    Some(after_failure(step, &instance, &failure, open.when.now_us, self.jitter))
                }
                AttemptFailure::Blocked { entity } => {
                    let at = (&instance, open.when.now_us);
                    match self.block(&tx, claim.id, at, step, entity).await {
                        Ok((record, wait)) => {
                            polls.add(task.step, wait);
                            record
                        }
                        Err(error) => {
                            roll_back(&self.store, tx).await;
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
        if records.is_empty() && polls.is_empty() {
            roll_back(&self.store, tx).await;
            return Ok(Advance::Continue);
        }
        self.write(tx, claim, steps, &open, (records, polls)).await
    }

    pub(super) fn test_point(&self, point: TestPoint<'_>) -> TestAction {
        self.test_hook.as_ref().map_or(TestAction::Continue, |hook| hook(point))
    }
}
