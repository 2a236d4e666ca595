//! The janitor: moves scheduled events when they are due, deletes what nobody needs any more.

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
/// How late a scheduled event may be; with reading and renewing it makes less than two statements a second.
const PROMOTE_EVERY: Duration = Duration::from_secs(2);
/// Retention is counted in hours.
const PRUNE_EVERY: Duration = Duration::from_mins(1);

/// Pause where a batch was not full: what comes up meanwhile goes together, and what its bytes have made smaller goes on.
const SOON: Duration = Duration::from_secs(1);

/// When there is more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Again {
    AtOnce,
    Soon,
    Later,
}

impl Again {
    /// Says it after a batch of so many.
    fn after(done: u64) -> Self {
        match done {
            0 => Self::Later,
            done if done < u64::from(BATCH) => Self::Soon,
            _ => Self::AtOnce,
        }
    }
}

/// What the janitor works with.
pub(crate) struct Janitor {
    pub(crate) relay: RelayId,
    pub(crate) store: Arc<dyn JanitorStore>,
    /// What the relay owns, as the keeper last saw it.
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
                Again::AtOnce if self.shutdown.is_requested() => return,
                Again::AtOnce => continue,
                Again::Soon => SOON,
                Again::Later => PROMOTE_EVERY,
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.shutdown.requested() => return,
            }
        }
    }

    async fn promote(&self) -> Again {
        let partitions = self.owned.borrow().clone();
        if partitions.is_empty() {
            return Again::Later;
        }
        let fence = Fence { relay: self.relay.clone(), partitions };
        match self.store.promote_scheduled(&fence, BATCH).await {
            Ok(promoted) => {
                self.work.succeeded("promote scheduled events");
                if promoted > 0 {
                    self.wake.wake();
                }
                Again::after(promoted)
            }
            Err(error) => {
                self.work.failed("promote scheduled events", &error);
                Again::Later
            }
        }
    }

    async fn prune(&self, prune_at: &mut Instant) -> Again {
        if now() < *prune_at {
            return Again::Later;
        }
        let (again, pause) = match self.store.prune(BATCH).await {
            Ok(deleted) => {
                self.work.succeeded("delete old rows");
                match Again::after(deleted) {
                    Again::AtOnce => (Again::AtOnce, Duration::ZERO),
                    Again::Soon => (Again::Soon, SOON),
                    Again::Later => (Again::Later, PRUNE_EVERY),
                }
            }
            Err(error) => {
                self.work.failed("delete old rows", &error);
                (Again::Later, PRUNE_EVERY)
            }
        };
        *prune_at = now() + pause;
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::StoreError;
    use async_trait::async_trait;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// A store of which so many rows come of age each second, and that says how often it was asked to delete some.
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

    /// Lets a janitor clean for two minutes; gives how often it deleted, and how many rows went.
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
