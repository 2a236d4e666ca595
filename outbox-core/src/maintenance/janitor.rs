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
            let more = self.promote().await | self.prune(&mut prune_at).await;
            if !more {
                tokio::select! {
                    () = sleep(PROMOTE_EVERY) => {}
                    () = self.shutdown.requested() => return,
                }
            } else if self.shutdown.is_requested() {
                return;
            }
        }
    }

    async fn promote(&self) -> bool {
        let partitions = self.owned.borrow().clone();
        if partitions.is_empty() {
            return false;
        }
        let fence = Fence { relay: self.relay.clone(), partitions };
        match self.store.promote_scheduled(&fence, BATCH).await {
            Ok(0) => {
                self.work.succeeded("promote scheduled events");
                false
            }
            // A batch may be smaller by its bytes: the next one tells whether there is more.
            Ok(_) => {
                self.wake.wake();
                true
            }
            Err(error) => {
                self.work.failed("promote scheduled events", &error);
                false
            }
        }
    }

    async fn prune(&self, prune_at: &mut Instant) -> bool {
        if now() < *prune_at {
            return false;
        }
        match self.store.prune(BATCH).await {
            Ok(0) => self.work.succeeded("delete old rows"),
            Ok(_) => return true,
            Err(error) => self.work.failed("delete old rows", &error),
        }
        *prune_at = now() + PRUNE_EVERY;
        false
    }
}
