//! The actor: claims due sagas, bounded, and starts a task for each of them.

use super::{
    handle::SagasStats,
    operator::{Operated, SagasOperator},
    worker::{DriveOutcome, Worker},
};
use crate::{
    failure::{backoff, full_text},
    outbox::{SagasLive, StoreError},
    runtime::{
        Exit, Tasks, Wake,
        fault::{FaultPoint, fault_point},
        now,
    },
    saga::store::{DefinitionId, SagaClaim, SagaSource},
};
use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Pause between two scans for sagas whose definitions are not registered, and for old ended ones:
/// a scan for the former reads all due sagas.
const SCAN_INTERVAL: Duration = Duration::from_mins(1);
/// Sagas that are deleted at once, and the pause after a smaller batch, which the sagas' bytes may
/// have made smaller.
const PRUNE_BATCH: u32 = 500;
const PRUNE_PAUSE: Duration = Duration::from_secs(1);

/// Claims sagas and drives them.
pub(super) struct Coordinator<S: SagaSource> {
    pub(super) worker: Arc<Worker<S>>,
    pub(super) wake: Wake,
    /// Longest pause between two claims of an idle coordinator.
    pub(super) poll: Duration,
    /// How long ended sagas are kept.
    pub(super) retention: Duration,
    /// Sagas that are driven at once.
    pub(super) concurrency: usize,
    pub(super) stats: Arc<watch::Sender<SagasStats>>,
}

impl<S: SagaSource> Clone for Coordinator<S> {
    fn clone(&self) -> Self {
        Self {
            worker: Arc::clone(&self.worker),
            wake: self.wake.clone(),
            poll: self.poll,
            retention: self.retention,
            concurrency: self.concurrency,
            stats: Arc::clone(&self.stats),
        }
    }
}

/// The outcome of a task of the coordinator.
enum TaskOutcome {
    Claimed(Result<Vec<SagaClaim>, StoreError>),
    Missing(Result<Vec<DefinitionId>, StoreError>),
    Driven(DriveOutcome),
    Released,
    Pruned,
    Operated(Box<Operated>),
}

/// The job of a task.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Job {
    Claim,
    Scan,
    Prune,
    Drive,
    Release,
    Operate,
}

/// The state of the coordinator from its start or restart on.
struct State<S: SagaSource> {
    coordinator: Coordinator<S>,
    definitions: Arc<[DefinitionId]>,
    tasks: Tasks<Job, TaskOutcome>,
    /// Claimed sagas that are not driven yet.
    claimed_sagas: VecDeque<SagaClaim>,
    in_flight: usize,
    /// How many sagas the running claim asks for.
    claiming: Option<usize>,
    /// Whether more sagas may be due.
    more_due: bool,
    /// When to claim again at the latest.
    claim_at: Instant,
    scan_at: Instant,
    /// Whether a task deletes old ended sagas.
    pruning: bool,
    failures: u32,
    operator: SagasOperator,
    /// Whether a task reads the controls.
    operating: bool,
    stopping: bool,
}

impl<S: SagaSource> Coordinator<S> {
    pub(super) async fn run(self) -> Result<(), Infallible> {
        let mut wake = self.wake.listen();
        let shutdown = self.worker.shutdown.clone();
        let mut state = State {
            definitions: self.worker.registry.definition_ids().into(),
            operator: SagasOperator::new(self.worker.store.operator(), self.worker.lease),
            operating: false,
            coordinator: self,
            tasks: Tasks::default(),
            claimed_sagas: VecDeque::new(),
            in_flight: 0,
            claiming: None,
            more_due: true,
            claim_at: now(),
            scan_at: now(),
            pruning: false,
            failures: 0,
            stopping: false,
        };
        state.operate(now());
        loop {
            state.start_ready();
            if state.stopping && state.tasks.is_empty() {
                state.operator.leave().await;
                return Ok(());
            }
            let next = state.claim_at.min(state.scan_at);
            let next = state.operator.next_at(state.operating).map_or(next, |at| at.min(next));
            tokio::select! {
                biased;
                () = shutdown.requested(), if !state.stopping => state.stop(),
                Some((job, exit)) = state.tasks.next() => state.ended(job, exit),
                // The handle keeps the wake alive as long as it lives, and polling goes on without
                // it.
                Ok(()) = wake.changed(), if !state.stopping => state.more_due = true,
                () = tokio::time::sleep_until(next.into()), if !state.stopping => state.on_tick(),
            }
        }
    }
}

impl<S: SagaSource> State<S> {
    fn on_tick(&mut self) {
        let at = now();
        self.coordinator.worker.report_due();
        self.operate(at);
        if self.claim_at <= at {
            self.more_due = true;
            self.claim_at = at + self.coordinator.poll;
        }
        if self.scan_at <= at {
            self.scan_at = at + SCAN_INTERVAL;
            let worker = Arc::clone(&self.coordinator.worker);
            let definitions = Arc::clone(&self.definitions);
            self.tasks.spawn(Job::Scan, async move {
                TaskOutcome::Missing(worker.store.missing(&definitions).await)
            });
            if !self.pruning {
                self.pruning = true;
                let (worker, retention) =
                    (Arc::clone(&self.coordinator.worker), self.coordinator.retention);
                self.tasks.spawn(Job::Prune, async move {
                    prune(&worker, retention).await;
                    TaskOutcome::Pruned
                });
            }
        }
    }

    /// Reads the controls and writes the live row, when it is time.
    fn operate(&mut self, at: Instant) {
        let (definitions, driving) = (&self.definitions, self.in_flight as u64);
        let live = || {
            let definitions =
                definitions.iter().map(|(name, version)| (name.to_string(), *version));
            SagasLive { definitions: definitions.collect(), driving, ..SagasLive::default() }
        };
        if let Some(task) = self.operator.task(self.operating, at, live) {
            self.operating = true;
            self.tasks.spawn(Job::Operate, async move {
                TaskOutcome::Operated(Box::new(task.run().await))
            });
        }
    }

    fn start_ready(&mut self) {
        while self.in_flight < self.coordinator.concurrency
            && let Some(claim) = self.claimed_sagas.pop_front()
        {
            self.in_flight += 1;
            let worker = Arc::clone(&self.coordinator.worker);
            self.tasks
                .spawn(Job::Drive, async move { TaskOutcome::Driven(worker.drive(&claim).await) });
        }
        // As many claimed sagas wait as are driven, so that one transaction claims many.
        let room = (2 * self.coordinator.concurrency)
            .saturating_sub(self.in_flight + self.claimed_sagas.len());
        let low = 2 * self.claimed_sagas.len() <= self.coordinator.concurrency;
        let may_claim = self.operator.is_known() && !self.stopping && self.claiming.is_none();
        let definitions = self.operator.claimable(&self.definitions, now());
        if self.more_due && may_claim && low && room > 0 && !definitions.is_empty() {
            // Before the claim and not after it: a start that wakes the coordinator meanwhile may
            // be missing from its result.
            self.more_due = false;
            self.claiming = Some(room);
            let worker = Arc::clone(&self.coordinator.worker);
            let limit = u32::try_from(room).unwrap_or(u32::MAX);
            self.tasks.spawn(Job::Claim, async move {
                let claim = worker.store.claim(&definitions, worker.lease, limit);
                TaskOutcome::Claimed(worker.heartbeats.polled(claim).await)
            });
        }
        self.coordinator.stats.send_if_modified(|stats| {
            let changed = stats.in_flight != self.in_flight;
            stats.in_flight = self.in_flight;
            changed
        });
    }

    fn ended(&mut self, job: Job, exit: Exit<TaskOutcome>) {
        match job {
            Job::Drive => self.in_flight -= 1,
            Job::Prune => self.pruning = false,
            Job::Operate => self.operating = false,
            Job::Claim | Job::Scan | Job::Release => {}
        }
        let requested = if job == Job::Claim { self.claiming.take() } else { None };
        match exit {
            Exit::Finished(TaskOutcome::Claimed(Ok(claims))) => {
                self.claimed(claims, requested.unwrap_or(0))
            }
            Exit::Finished(TaskOutcome::Claimed(Err(error))) => {
                self.failures = self.failures.saturating_add(1);
                self.coordinator.worker.reports.work.failed("claim sagas", &error);
                self.claim_at = now() + backoff(self.failures);
            }
            Exit::Finished(TaskOutcome::Missing(found)) => self.missing(found),
            Exit::Finished(TaskOutcome::Driven(end)) => self.driven(end),
            Exit::Finished(TaskOutcome::Released | TaskOutcome::Pruned) => {}
            Exit::Finished(TaskOutcome::Operated(operated)) => {
                if self.operator.done(*operated, &self.coordinator.worker.reports.work) {
                    self.more_due = true;
                    self.release_paused();
                }
            }
            Exit::Panicked(cause) => {
                tracing::error!(cause, "driving a saga panicked; its claim runs out")
            }
            Exit::Cancelled => {}
        }
    }

    fn claimed(&mut self, claims: Vec<SagaClaim>, requested: usize) {
        self.failures = 0;
        self.coordinator.worker.reports.work.succeeded("claim sagas");
        self.more_due |= claims.len() >= requested;
        if claims.is_empty() {
            return;
        }
        fault_point(FaultPoint::AfterSagaClaim);
        self.count(|stats| stats.claimed += claims.len() as u64);
        self.claimed_sagas.extend(claims);
        // The stop came while the claim was under way. Kept, these sagas would wait until it runs
        // out.
        if self.stopping {
            self.release_all();
        } else {
            self.release_paused();
        }
    }

    fn driven(&mut self, end: DriveOutcome) {
        self.count(|stats| match end {
            DriveOutcome::Idle => stats.idle += 1,
            DriveOutcome::Waiting(_) => stats.waited += 1,
            DriveOutcome::Lost => stats.lost += 1,
            DriveOutcome::Unreadable => stats.unreadable += 1,
            DriveOutcome::Released | DriveOutcome::Crashed => {}
        });
        if let DriveOutcome::Waiting(wait) = end {
            // The addition overflows for waits of centuries only.
            let due = now().checked_add(wait).unwrap_or(self.claim_at);
            self.claim_at = self.claim_at.min(due);
        }
    }

    fn missing(&mut self, found: Result<Vec<DefinitionId>, StoreError>) {
        match found {
            Ok(found) => {
                for (name, version) in &found {
                    tracing::error!(
                        saga = &**name,
                        version,
                        "sagas of this version are due, and it is not registered"
                    );
                }
                self.count(|stats| stats.missing_definitions = found.len());
            }
            Err(error) => tracing::debug!(
                error = full_text(&error),
                "a scan for sagas of missing definitions failed"
            ),
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.release_all();
    }

    fn release_all(&mut self) {
        let claims = self.claimed_sagas.drain(..).collect();
        self.release(claims);
    }

    /// Releases claimed sagas whose definition is paused; those that are driven go on.
    fn release_paused(&mut self) {
        let at = now();
        let (paused, rest): (Vec<_>, Vec<_>) = self
            .claimed_sagas
            .drain(..)
            .partition(|claim| self.operator.is_paused(&claim.definition, at));
        self.claimed_sagas.extend(rest);
        self.release(paused);
    }

    fn release(&mut self, claims: Vec<SagaClaim>) {
        if claims.is_empty() {
            return;
        }
        let worker = Arc::clone(&self.coordinator.worker);
        self.tasks.spawn(Job::Release, async move {
            if let Err(error) = worker.store.release(&claims).await {
                tracing::debug!(
                    error = full_text(&error),
                    "claims on sagas were not released; they run out"
                );
            }
            TaskOutcome::Released
        });
    }

    fn count(&self, change: impl FnOnce(&mut SagasStats)) {
        self.coordinator.stats.send_modify(change);
    }
}

/// Deletes old ended sagas, until there are no more.
async fn prune<S: SagaSource>(worker: &Worker<S>, retention: Duration) {
    loop {
        match worker.store.prune(retention, PRUNE_BATCH).await {
            Ok(0) => return,
            Ok(deleted) if deleted >= u64::from(PRUNE_BATCH) && !worker.shutdown.is_requested() => {
            }
            Ok(_) => tokio::select! {
                () = tokio::time::sleep(PRUNE_PAUSE) => {}
                () = worker.shutdown.requested() => return,
            },
            Err(error) => {
                tracing::debug!(error = full_text(&error), "old ended sagas were not deleted");
                return;
            }
        }
    }
}
