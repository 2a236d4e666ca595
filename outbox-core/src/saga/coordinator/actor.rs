//! The actor: claims what is due, bounded, and starts a task for each saga.

use super::{
    handle::SagasStats,
    worker::{Worker, WorkerEnd},
};
use crate::{
    failure::{RetryPolicy, full_text},
    outbox::StoreError,
    runtime::{
        Exit, Tasks, Wake,
        fault::{FaultPoint, reach},
        now,
    },
    saga::store::{Claim, Known, SagaSource},
};
use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Between two looks for sagas whose definition nobody here knows, and for those that ended long ago: rare, and the former
/// asks for all that are due.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// Sagas that are forgotten at once, and the pause where they were fewer: their bytes may have made the batch smaller.
const FORGET: u32 = 500;
const FORGET_SOON: Duration = Duration::from_secs(1);

/// Waits after failures of the database: 100 ms doubling to 5 s, for ever.
fn backoff(failures: u32) -> Duration {
    let policy = RetryPolicy::default()
        .backoff(Duration::from_millis(100))
        .max_backoff(Duration::from_secs(5));
    policy.wait_after(failures.max(1))
}

/// Claims sagas and has them carried.
pub(super) struct Coordinator<S: SagaSource> {
    pub(super) worker: Arc<Worker<S>>,
    pub(super) wake: Wake,
    /// Longest pause between two claims of an idle coordinator.
    pub(super) poll: Duration,
    /// How long ended sagas are kept.
    pub(super) retention: Duration,
    /// Sagas carried at once.
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

/// What a task of the coordinator came to.
enum Came {
    Claimed(Result<Vec<Claim>, StoreError>),
    Missing(Result<Vec<Known>, StoreError>),
    Carried(WorkerEnd),
    GivenBack,
    Forgotten,
}

/// What a task does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Claim,
    Look,
    Forget,
    Carry,
    GiveBack,
}

/// What one life of the coordinator remembers.
struct State<S: SagaSource> {
    coordinator: Coordinator<S>,
    known: Arc<[Known]>,
    tasks: Tasks<Work, Came>,
    /// Claimed and not begun.
    waiting: VecDeque<Claim>,
    carried: usize,
    /// How many are asked for, while a claim is under way.
    claiming: Option<usize>,
    /// Whether more may be due.
    hungry: bool,
    /// When to claim again, whatever happens.
    claim_at: Instant,
    look_at: Instant,
    /// Whether old sagas are being forgotten.
    forgetting: bool,
    failures: u32,
    stopping: bool,
}

impl<S: SagaSource> Coordinator<S> {
    pub(super) async fn run(self) -> Result<(), Infallible> {
        let mut wake = self.wake.listen();
        let shutdown = self.worker.shutdown.clone();
        let mut state = State {
            known: self.worker.registry.known().into(),
            coordinator: self,
            tasks: Tasks::default(),
            waiting: VecDeque::new(),
            carried: 0,
            claiming: None,
            hungry: true,
            claim_at: now(),
            look_at: now(),
            forgetting: false,
            failures: 0,
            stopping: false,
        };
        loop {
            state.start_what_may();
            if state.stopping && state.tasks.is_empty() {
                return Ok(());
            }
            let next = state.claim_at.min(state.look_at);
            tokio::select! {
                biased;
                () = shutdown.requested(), if !state.stopping => state.stop(),
                Some((work, exit)) = state.tasks.next() => state.ended(work, exit),
                // The handle keeps the wake alive as long as it lives, and polling goes on without it.
                Ok(()) = wake.changed(), if !state.stopping => state.hungry = true,
                () = tokio::time::sleep_until(next.into()), if !state.stopping => state.on_time(),
            }
        }
    }
}

impl<S: SagaSource> State<S> {
    fn on_time(&mut self) {
        let at = now();
        self.coordinator.worker.report_due();
        if self.claim_at <= at {
            self.hungry = true;
            self.claim_at = at + self.coordinator.poll;
        }
        if self.look_at <= at {
            self.look_at = at + LOOK_EVERY;
            let (worker, known) = (Arc::clone(&self.coordinator.worker), Arc::clone(&self.known));
            self.tasks.spawn(Work::Look, async move {
                Came::Missing(worker.store.missing(&known).await)
            });
            if !self.forgetting {
                self.forgetting = true;
                let (worker, keep) =
                    (Arc::clone(&self.coordinator.worker), self.coordinator.retention);
                self.tasks.spawn(Work::Forget, async move {
                    forget(&worker, keep).await;
                    Came::Forgotten
                });
            }
        }
    }

    fn start_what_may(&mut self) {
        while self.carried < self.coordinator.concurrency
            && let Some(claim) = self.waiting.pop_front()
        {
            self.carried += 1;
            let worker = Arc::clone(&self.coordinator.worker);
            self.tasks.spawn(Work::Carry, async move { Came::Carried(worker.carry(&claim).await) });
        }
        // As many wait as are carried, so that a claim is one transaction for many.
        let room =
            (2 * self.coordinator.concurrency).saturating_sub(self.carried + self.waiting.len());
        let low = 2 * self.waiting.len() <= self.coordinator.concurrency;
        if self.hungry && !self.stopping && self.claiming.is_none() && low && room > 0 {
            self.hungry = false;
            self.claiming = Some(room);
            let (worker, known) = (Arc::clone(&self.coordinator.worker), Arc::clone(&self.known));
            let limit = u32::try_from(room).unwrap_or(u32::MAX);
            self.tasks.spawn(Work::Claim, async move {
                Came::Claimed(worker.store.claim(&known, worker.lease, limit).await)
            });
        }
        self.coordinator.stats.send_if_modified(|stats| {
            let changed = stats.in_flight != self.carried;
            stats.in_flight = self.carried;
            changed
        });
    }

    fn ended(&mut self, work: Work, exit: Exit<Came>) {
        match work {
            Work::Carry => self.carried -= 1,
            Work::Forget => self.forgetting = false,
            Work::Claim | Work::Look | Work::GiveBack => {}
        }
        let asked = if work == Work::Claim { self.claiming.take() } else { None };
        match exit {
            Exit::Finished(Came::Claimed(Ok(claims))) => self.claimed(claims, asked.unwrap_or(0)),
            Exit::Finished(Came::Claimed(Err(error))) => {
                self.failures = self.failures.saturating_add(1);
                self.coordinator.worker.reports.work.failed("claim sagas", &error);
                self.claim_at = now() + backoff(self.failures);
            }
            Exit::Finished(Came::Missing(found)) => self.missing(found),
            Exit::Finished(Came::Carried(end)) => self.carried_to(end),
            Exit::Finished(Came::GivenBack | Came::Forgotten) => {}
            Exit::Panicked(cause) => {
                tracing::error!(cause, "carrying a saga panicked; its claim runs out")
            }
            Exit::Cancelled => {}
        }
    }

    fn claimed(&mut self, claims: Vec<Claim>, asked: usize) {
        self.failures = 0;
        self.coordinator.worker.reports.work.succeeded("claim sagas");
        self.hungry |= claims.len() >= asked;
        if claims.is_empty() {
            return;
        }
        reach(FaultPoint::AfterSagaClaim);
        self.count(|stats| stats.claimed += claims.len() as u64);
        self.waiting.extend(claims);
        if self.stopping {
            self.give_back();
        }
    }

    fn carried_to(&mut self, end: WorkerEnd) {
        self.count(|stats| match end {
            WorkerEnd::Rests => stats.rested += 1,
            WorkerEnd::Waits(_) => stats.waited += 1,
            WorkerEnd::Lost => stats.lost += 1,
            WorkerEnd::Broken => stats.broken += 1,
            WorkerEnd::GivenBack | WorkerEnd::Cut => {}
        });
        if let WorkerEnd::Waits(wait) = end {
            // A wait longer than a century is none that this process sees the end of.
            let due = now().checked_add(wait).unwrap_or(self.claim_at);
            self.claim_at = self.claim_at.min(due);
        }
    }

    fn missing(&mut self, found: Result<Vec<Known>, StoreError>) {
        match found {
            Ok(found) => {
                for (name, version) in &found {
                    tracing::error!(
                        saga = &**name,
                        version,
                        "sagas of this version wait, and it is not registered"
                    );
                }
                self.count(|stats| stats.missing_definitions = found.len());
            }
            Err(error) => tracing::debug!(
                error = full_text(&error),
                "it is unknown whether definitions are missing"
            ),
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.give_back();
    }

    fn give_back(&mut self) {
        let claims: Vec<Claim> = self.waiting.drain(..).collect();
        if claims.is_empty() {
            return;
        }
        let worker = Arc::clone(&self.coordinator.worker);
        self.tasks.spawn(Work::GiveBack, async move {
            if let Err(error) = worker.store.release(&claims).await {
                tracing::debug!(
                    error = full_text(&error),
                    "sagas were not given back; their claims run out"
                );
            }
            Came::GivenBack
        });
    }

    fn count(&self, change: impl FnOnce(&mut SagasStats)) {
        self.coordinator.stats.send_modify(change);
    }
}

/// Forgets sagas that ended long ago, until there are no more.
async fn forget<S: SagaSource>(worker: &Worker<S>, keep: Duration) {
    loop {
        match worker.store.forget(keep, FORGET).await {
            Ok(0) => return,
            Ok(gone) if gone >= u64::from(FORGET) && !worker.shutdown.is_requested() => {}
            Ok(_) => tokio::select! {
                () = tokio::time::sleep(FORGET_SOON) => {}
                () = worker.shutdown.requested() => return,
            },
            Err(error) => {
                tracing::debug!(
                    error = full_text(&error),
                    "sagas that ended long ago are still there"
                );
                return;
            }
        }
    }
}
