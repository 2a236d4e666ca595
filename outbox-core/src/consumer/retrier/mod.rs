//! The retrier: an actor that runs stored deliveries when they are due.

mod handover;
mod crash_budget;

pub(super) use handover::KEEP_ORPHANED;

use super::{instance::claimed_names, intake::GateState, work::Worker};
use crate::{
    failure::{backoff, full_text, loggable_text},
    outbox::{ClaimQuery, ConsumerStore, StoreError, StoredDelivery},
    runtime::{
        Exit, Shutdown, Tasks,
        fault::{FaultPoint, fault_point},
        now,
    },
};
use crash_budget::{RunMode, run_mode};
use handover::Handover;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// How late the retrier may claim a stored delivery: the wake does not reach other processes.
const POLL: Duration = Duration::from_secs(1);
/// Inbox rows deleted in one transaction, and how often the retrier prunes: retention is counted in days.
const PRUNE_BATCH: u32 = 500;
const PRUNE_EVERY: Duration = Duration::from_mins(1);
/// Pause after a batch that was not full.
const PRUNE_SOON: Duration = Duration::from_secs(1);
/// How long it prunes before it claims due deliveries again.
const PRUNE_FOR: Duration = Duration::from_millis(200);

/// Runs stored deliveries.
pub(super) struct Retrier<S: ConsumerStore> {
    worker: Arc<Worker<S>>,
    /// Identity of this start, random: a process that was taken for dead has no claim any more.
    by: Arc<str>,
    handlers: Arc<[Arc<str>]>,
    /// Requested when the dispatcher has ended.
    done: Shutdown,
}

impl<S: ConsumerStore> Clone for Retrier<S> {
    fn clone(&self) -> Self {
        let Self { worker, by, handlers, done } = self;
        Self {
            worker: worker.clone(),
            by: by.clone(),
            handlers: handlers.clone(),
            done: done.clone(),
        }
    }
}

impl<S: ConsumerStore> Retrier<S> {
    pub(super) fn new(worker: Arc<Worker<S>>, by: &str, done: Shutdown) -> Self {
        let handlers = claimed_names(&worker.declared);
        Self { worker, by: by.into(), handlers, done }
    }

    pub(super) async fn run(self) -> Result<(), Infallible> {
        let concurrency = self.worker.settings.deferred_concurrency();
        let permits = Arc::new(Semaphore::new(concurrency));
        let mut tasks: Tasks<(), ()> = Tasks::default();
        let mut wakes = self.worker.stored.listen();
        let (mut failures, mut prune_at, mut handover) = (0, now(), Handover::default());
        loop {
            let mut wait = POLL;
            if tasks.len() < concurrency && self.worker.gate() == GateState::Open {
                wakes.mark_unchanged();
                match self.claim(concurrency - tasks.len()).await {
                    Ok(claimed) => {
                        failures = 0;
                        for stored in claimed {
                            tasks.spawn((), self.clone().run_claimed(stored, permits.clone()));
                        }
                    }
                    Err(error) => {
                        failures += 1;
                        wait = backoff(failures);
                        tracing::debug!(
                            failures,
                            error = full_text(&error),
                            "stored deliveries could not be claimed"
                        );
                    }
                }
            }
            if failures == 0 && self.worker.gate() == GateState::Open {
                match self
                    .claim_handed_over(concurrency.saturating_sub(tasks.len()), &mut handover)
                    .await
                {
                    Ok(claimed) => {
                        for stored in claimed {
                            tasks.spawn((), self.clone().run_claimed(stored, permits.clone()));
                        }
                    }
                    Err(error) => {
                        tracing::debug!(
                            error = full_text(&error),
                            "deliveries that other instances handed over could not be claimed"
                        );
                    }
                }
            }
            if now() >= prune_at && failures == 0 {
                let pause = self.prune().await;
                (prune_at, wait) = (now() + pause, wait.min(pause));
            }
            tokio::select! {
                biased;
                () = self.worker.shutdown.requested() => break,
                () = self.done.requested() => break,
                Some(((), exit)) = tasks.next() => log_panic(&exit),
                _ = wakes.changed(), if failures == 0 => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        while let Some(((), exit)) = tasks.next().await {
            log_panic(&exit);
        }
        Ok(())
    }

    fn query<'a>(&'a self, handlers: &'a [Arc<str>], free: usize) -> ClaimQuery<'a> {
        ClaimQuery {
            consumer: &self.worker.consumer,
            handlers,
            by: &self.by,
            lease: self.worker.settings.lease,
            limit: u32::try_from(free).unwrap_or(u32::MAX),
        }
    }

    async fn claim(&self, free: usize) -> Result<Vec<StoredDelivery>, StoreError> {
        let claimed = self.worker.store.claim(&self.query(&self.handlers, free)).await?;
        if !claimed.is_empty() {
            fault_point(FaultPoint::AfterClaim);
        }
        Ok(claimed)
    }

    /// Deletes old inbox rows for a while; gives the pause after which there may be more.
    async fn prune(&self) -> Duration {
        let until = now() + PRUNE_FOR;
        loop {
            match self.worker.store.prune_inbox(PRUNE_BATCH).await {
                Ok(0) => return PRUNE_EVERY,
                // The bytes may have limited the batch; or else few rows are old enough, and more will be.
                Ok(gone) if gone < u64::from(PRUNE_BATCH) => return PRUNE_SOON,
                Ok(_) if now() >= until => return Duration::ZERO,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(
                        error = full_text(&error),
                        "old inbox rows could not be deleted"
                    );
                    return PRUNE_EVERY;
                }
            }
        }
    }

    /// Runs a claimed delivery while its claim lasts; when the claim is lost, the run is rolled back.
    async fn run_claimed(self, stored: StoredDelivery, permits: Arc<Semaphore>) {
        let lost = tokio::select! {
            () = self.run_one(&stored, &permits) => false,
            () = self.worker.renew_claim(&stored) => true,
        };
        if lost {
            tracing::warn!(
                "the claim of a stored delivery was lost; its transaction is rolled back"
            );
            // The process is alive: unless another instance has claimed the delivery, no crash is counted.
            self.release(&stored).await;
        }
    }

    async fn run_one(&self, stored: &StoredDelivery, permits: &Semaphore) {
        let all = u32::try_from(self.worker.settings.deferred_concurrency()).unwrap_or(u32::MAX);
        let mode = run_mode(stored.started, stored.history.attempts);
        let wanted = if mode == RunMode::Isolated { all } else { 1 };
        let permit = tokio::select! {
            biased;
            () = self.worker.shutdown.requested() => None,
            // It is never closed.
            permit = permits.acquire_many(wanted) => permit.ok(),
        };
        let starts = permit.is_some() && mode != RunMode::Exhausted;
        let done = match (starts, mode) {
            (_, RunMode::Exhausted) => self.worker.dead_letter_crashed(stored).await,
            (false, _) => self.worker.store.reschedule(&stored.claim, None).await.map(|_| ()),
            (true, _) => match self
                .worker
                .store
                .extend_claim(&stored.claim, self.worker.settings.lease, true)
                .await
            {
                Ok(true) => self.worker.work_stored(stored).await,
                other => other.map(|_| ()),
            },
        };
        if let Err(error) = done {
            let message = stored.message.as_ref().ok();
            tracing::warn!(
                error = loggable_text(&full_text(&error), error.class(), message),
                "the database failed; releasing a stored delivery"
            );
            self.release(stored).await;
        }
    }

    /// Releases a claimed delivery unchanged when the database is up again: its failure counts as no crash.
    async fn release(&self, stored: &StoredDelivery) {
        for failures in 1.. {
            tokio::select! {
                () = tokio::time::sleep(backoff(failures)) => {}
                () = self.worker.shutdown.requested() => {}
            }
            match self.worker.store.reschedule(&stored.claim, None).await {
                Ok(_) => return,
                Err(_) if self.worker.shutdown.is_requested() => return,
                Err(error) => {
                    tracing::debug!(error = full_text(&error), "the database is still down")
                }
            }
        }
    }
}

fn log_panic(exit: &Exit<()>) {
    if let Exit::Panicked(text) = exit {
        tracing::error!(panic = text, "the run of a stored delivery panicked");
    }
}
