//! The retrier: an actor that runs stored deliveries when they are due.

mod handover;
mod lives;

pub(super) use handover::KEEP_ORPHANED;

use super::{flow::Gate, flow::backoff, instance::claimed_names, work::Worker};
use crate::{
    failure::full_text,
    outbox::{ClaimQuery, ConsumerStore, StoreError, StoredDelivery},
    runtime::{
        Exit, Shutdown, Tasks,
        fault::{FaultPoint, reach},
        now,
    },
};
use handover::Handover;
use lives::{Life, next_life};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// How late a stored delivery may be taken up: the wake that is rung here tells nothing of other processes.
const POLL: Duration = Duration::from_secs(1);
/// Inbox rows forgotten in one transaction, and how often the retrier looks: retention is counted in days.
const FORGET_BATCH: u32 = 500;
const FORGET_EVERY: Duration = Duration::from_mins(1);
/// Pause after a batch that was not full.
const FORGET_SOON: Duration = Duration::from_secs(1);
/// How long it forgets before it looks at what is due again.
const FORGET_FOR: Duration = Duration::from_millis(200);

/// Runs what is stored.
pub(super) struct Retrier<S: ConsumerStore> {
    worker: Arc<Worker<S>>,
    /// Random for each start: a process that comes back from the dead is a stranger.
    by: Arc<str>,
    handlers: Arc<[Arc<str>]>,
    /// Asked to stop when no more deliveries will come.
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
        let at_once = self.worker.settings.stored_at_once();
        let places = Arc::new(Semaphore::new(at_once));
        let mut tasks: Tasks<(), ()> = Tasks::default();
        let mut rung = self.worker.stored.listen();
        let (mut failures, mut forget_at, mut handover) = (0, now(), Handover::default());
        loop {
            let mut wait = POLL;
            if tasks.len() < at_once && self.worker.gate() == Gate::Open {
                rung.mark_unchanged();
                match self.claim(at_once - tasks.len()).await {
                    Ok(claimed) => {
                        failures = 0;
                        for stored in claimed {
                            tasks.spawn((), self.clone().care_for(stored, places.clone()));
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
            if failures == 0 && self.worker.gate() == Gate::Open {
                match self.take_over(at_once.saturating_sub(tasks.len()), &mut handover).await {
                    Ok(claimed) => {
                        for stored in claimed {
                            tasks.spawn((), self.clone().care_for(stored, places.clone()));
                        }
                    }
                    Err(error) => {
                        tracing::debug!(
                            error = full_text(&error),
                            "what other instances left could not be claimed"
                        );
                    }
                }
            }
            if now() >= forget_at && failures == 0 {
                let pause = self.forget().await;
                (forget_at, wait) = (now() + pause, wait.min(pause));
            }
            tokio::select! {
                biased;
                () = self.worker.shutdown.requested() => break,
                () = self.done.requested() => break,
                Some(((), exit)) = tasks.next() => note(&exit),
                _ = rung.changed(), if failures == 0 => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        while let Some(((), exit)) = tasks.next().await {
            note(&exit);
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
            reach(FaultPoint::AfterClaim);
        }
        Ok(claimed)
    }

    /// Forgets old inbox rows for a while; gives after which time there may be more.
    async fn forget(&self) -> Duration {
        let until = now() + FORGET_FOR;
        loop {
            match self.worker.store.forget(FORGET_BATCH).await {
                Ok(0) => return FORGET_EVERY,
                // Its bytes may have made it smaller; or else a few have come of age, and more will by then.
                Ok(gone) if gone < u64::from(FORGET_BATCH) => return FORGET_SOON,
                Ok(_) if now() >= until => return Duration::ZERO,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(
                        error = full_text(&error),
                        "old inbox rows could not be deleted"
                    );
                    return FORGET_EVERY;
                }
            }
        }
    }

    /// Runs one while its claim is kept; without the claim, what was done is rolled back.
    async fn care_for(self, stored: StoredDelivery, places: Arc<Semaphore>) {
        let lost = tokio::select! {
            () = self.run_one(&stored, &places) => false,
            () = self.worker.keep_claim(&stored) => true,
        };
        if lost {
            tracing::warn!(
                "the claim of a stored delivery was lost; what was not committed is rolled back"
            );
            // The process lives: unless somebody else has it by now, it costs no life.
            self.give_back(&stored).await;
        }
    }

    async fn run_one(&self, stored: &StoredDelivery, places: &Semaphore) {
        let all = u32::try_from(self.worker.settings.stored_at_once()).unwrap_or(u32::MAX);
        let life = next_life(stored.started, stored.history.runs);
        let wanted = if life == Life::Alone { all } else { 1 };
        let place = tokio::select! {
            biased;
            () = self.worker.shutdown.requested() => None,
            // It is never closed.
            place = places.acquire_many(wanted) => place.ok(),
        };
        let begins = place.is_some() && life != Life::Over;
        let done = match (begins, life) {
            (_, Life::Over) => self.worker.crashed(stored).await,
            (false, _) => self.worker.store.postpone(&stored.claim, None).await.map(|_| ()),
            (true, _) => match self
                .worker
                .store
                .prolong(&stored.claim, self.worker.settings.lease, true)
                .await
            {
                Ok(true) => self.worker.work_stored(stored).await,
                other => other.map(|_| ()),
            },
        };
        if let Err(error) = done {
            tracing::warn!(
                error = full_text(&error),
                "the database failed; a stored delivery is given back"
            );
            self.give_back(stored).await;
        }
    }

    /// Gives one back as it was, when the database can be reached again: its failure costs no life.
    async fn give_back(&self, stored: &StoredDelivery) {
        for failures in 1.. {
            tokio::select! {
                () = tokio::time::sleep(backoff(failures)) => {}
                () = self.worker.shutdown.requested() => {}
            }
            match self.worker.store.postpone(&stored.claim, None).await {
                Ok(_) => return,
                Err(_) if self.worker.shutdown.is_requested() => return,
                Err(error) => {
                    tracing::debug!(error = full_text(&error), "the database is still down")
                }
            }
        }
    }
}

fn note(exit: &Exit<()>) {
    if let Exit::Panicked(text) = exit {
        tracing::error!(panic = text, "the run of a stored delivery panicked");
    }
}
