//! The janitor: moves scheduled events when they are due, and deletes rows whose retention has
//! passed.

use crate::{
    event::RelayId,
    failure::BackgroundWork,
    outbox::{Epoch, Fence, JanitorStore, PartitionNo},
    runtime::{Shutdown, Wake, now},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, time::sleep};

/// Events promoted in one transaction, and rows of each kind deleted in one.
const BATCH: u32 = 500;
/// How late a scheduled event may be; with reading and renewing it makes less than two statements a
/// second.
const PROMOTE_EVERY: Duration = Duration::from_secs(2);
/// Retention is counted in hours.
const PRUNE_EVERY: Duration = Duration::from_mins(1);

/// Pause after a batch that was not full: rows that come due meanwhile are handled in one
/// transaction, and a batch that its bytes cut short goes on soon.
const SHORT_PAUSE: Duration = Duration::from_secs(1);

/// When the next batch follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum NextBatch {
    AtOnce,
    Soon,
    Later,
}

impl NextBatch {
    /// Decides it after a batch of `done` rows.
    fn after(done: u64) -> Self {
        match done {
            0 => Self::Later,
            done if done < u64::from(BATCH) => Self::Soon,
            _ => Self::AtOnce,
        }
    }
}

/// The janitor with its store and channels.
pub(crate) struct Janitor {
    pub(crate) relay: RelayId,
    pub(crate) store: Arc<dyn JanitorStore>,
    /// The relay's partitions, by the keeper's last renewal.
    pub(crate) owned: watch::Receiver<Vec<(PartitionNo, Epoch)>>,
    pub(crate) wake: Wake,
    pub(crate) shutdown: Shutdown,
    pub(crate) work: BackgroundWork,
}

impl Janitor {
    /// Cleans until the relay stops.
    pub(crate) async fn run(self) {
        let mut prune_at = now();
        loop {
            let promoted = self.promote().await;
            let pause = match promoted.min(self.prune(&mut prune_at).await) {
                NextBatch::AtOnce if self.shutdown.is_requested() => return,
                NextBatch::AtOnce => continue,
                NextBatch::Soon => SHORT_PAUSE,
                NextBatch::Later => PROMOTE_EVERY,
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.shutdown.requested() => return,
            }
        }
    }

    async fn promote(&self) -> NextBatch {
        let partitions = self.owned.borrow().clone();
        if partitions.is_empty() {
            return NextBatch::Later;
        }
        let fence = Fence { relay: self.relay.clone(), partitions };
        match self.store.promote_scheduled(&fence, BATCH).await {
            Ok(promoted) => {
                self.work.succeeded("promote scheduled events");
                if promoted > 0 {
                    self.wake.wake();
                }
                NextBatch::after(promoted)
            }
            Err(error) => {
                self.work.failed("promote scheduled events", &error);
                NextBatch::Later
            }
        }
    }

    async fn prune(&self, prune_at: &mut Instant) -> NextBatch {
        if now() < *prune_at {
            return NextBatch::Later;
        }
        let (next, pause) = match self.store.prune(BATCH).await {
            Ok(deleted) => {
                self.work.succeeded("delete old rows");
                match NextBatch::after(deleted) {
                    NextBatch::AtOnce => (NextBatch::AtOnce, Duration::ZERO),
                    NextBatch::Soon => (NextBatch::Soon, SHORT_PAUSE),
                    NextBatch::Later => (NextBatch::Later, PRUNE_EVERY),
                }
            }
            Err(error) => {
                self.work.failed("delete old rows", &error);
                (NextBatch::Later, PRUNE_EVERY)
            }
        };
        *prune_at = now() + pause;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::StoreError;
    use async_trait::async_trait;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// A store in which rows come of age each second, and which counts how often it was asked to
    /// delete some.
    #[derive(Default)]
    struct Ages {
        each_second: u64,
        backlog: AtomicU64,
        gone: AtomicU64,
        asked: AtomicU64,
        since: std::sync::OnceLock<Instant>,
    }

    #[async_trait]
    impl JanitorStore for Ages {
        async fn promote_scheduled(&self, _: &Fence, _: u32) -> Result<u64, StoreError> {
            Ok(0)
        }

        async fn prune(&self, limit: u32) -> Result<u64, StoreError> {
            self.asked.fetch_add(1, Relaxed);
            sleep(Duration::from_millis(5)).await;
            let aged =
                now().duration_since(*self.since.get_or_init(now)).as_secs() * self.each_second;
            let due = self.backlog.load(Relaxed) + aged - self.gone.load(Relaxed);
            let gone = due.min(limit.into());
            self.gone.fetch_add(gone, Relaxed);
            Ok(gone)
        }
    }

    /// Runs a janitor for two minutes; gives how often it deleted, and how many rows.
    async fn cleaned(store: Ages) -> (u64, u64) {
        let (store, shutdown) = (Arc::new(store), Shutdown::default());
        let janitor = Janitor {
            relay: RelayId::generate(),
            store: store.clone(),
            owned: watch::channel(Vec::new()).1,
            wake: Wake::default(),
            shutdown: shutdown.clone(),
            work: BackgroundWork::default(),
        };
        let running = tokio::spawn(janitor.run());
        sleep(Duration::from_mins(2)).await;
        shutdown.request(Duration::from_secs(1));
        running.await.expect("it ends");
        (store.asked.load(Relaxed), store.gone.load(Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn rows_that_come_of_age_all_the_time_go_together_and_a_backlog_goes_at_once() {
        let (asked, gone) = cleaned(Ages { each_second: 200, ..Ages::default() }).await;
        assert!(asked <= 125, "{asked} transactions in two minutes");
        assert!(gone >= 200 * 59, "{gone} of 24,000 rows");
        let (asked, gone) =
            cleaned(Ages { backlog: AtomicU64::new(1_000_000), ..Ages::default() }).await;
        assert!(gone == 1_000_000 && asked <= 2_010, "{gone} rows in {asked} transactions");
        let (asked, _) = cleaned(Ages::default()).await;
        assert!(asked <= 3, "nothing is there, and it asked {asked} times");
    }
}
