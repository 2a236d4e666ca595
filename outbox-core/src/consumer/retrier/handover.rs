//! What other instances of the consumer have left: claimed where this one knows it, counted where nobody does.

use super::{POLL, Retrier};
use crate::{
    consumer::instance::known_of,
    outbox::{ConsumerStore, StoreError, StoredDelivery},
    runtime::now,
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long deliveries are kept under the name of a handler that no instance has: somebody looks at the log within a day.
pub(in crate::consumer) const KEEP_ORPHANED: Duration = Duration::from_hours(24);
/// How often it is looked for what waits while all instances declare the same: somebody may have left it at the very end.
const SELDOM: Duration = Duration::from_mins(1);
/// Deliveries that are moved or marked in one transaction, and how long that is gone on with before the next look.
const BATCH: u32 = 500;
const MOVES_FOR: Duration = Duration::from_millis(200);

/// When it was looked for what others have left, and what was told of it.
#[derive(Default)]
pub(super) struct Handover {
    looked_at: Option<Instant>,
    counted_at: Option<Instant>,
    told: BTreeMap<Arc<str>, u64>,
}

impl<S: ConsumerStore> Retrier<S> {
    /// Claims what waits for an instance that knows it, where this one does, and what nobody has known until its time was over;
    /// moves what is stored under the names that handlers had before.
    pub(super) async fn take_over(
        &self,
        free: usize,
        handover: &mut Handover,
    ) -> Result<Vec<StoredDelivery>, StoreError> {
        let worker = &self.worker;
        let is_over = |since: Option<Instant>, pause| {
            since.is_none_or(|at| now().duration_since(at) >= pause)
        };
        let mut claimed = Vec::new();
        // While another version runs beside this one, it leaves something at any time.
        let pause = if worker.others.peers().differ() { POLL } else { SELDOM };
        if free > 0 && is_over(handover.looked_at, pause) {
            let awaited = known_of(&worker.declared, worker.store.awaited(&worker.consumer).await?);
            if !awaited.is_empty() {
                claimed =
                    worker.store.claim_awaited(&self.query(&self.handlers, free), &awaited).await?;
            }
            // With all places taken there may be more.
            handover.looked_at = (claimed.len() < free).then(now);
        }
        if is_over(handover.counted_at, SELDOM) {
            let moved = self.move_renamed().await?;
            let free = free.saturating_sub(claimed.len());
            claimed.extend(self.orphaned(free, handover).await?);
            handover.counted_at = moved.then(now);
        }
        Ok(claimed)
    }

    /// Moves what is stored under the name that a handler had before, where no other instance has that any more; tells whether
    /// that is all.
    async fn move_renamed(&self) -> Result<bool, StoreError> {
        let (worker, until) = (&self.worker, now() + MOVES_FOR);
        for route in &worker.routes {
            let (from, to) = (worker.renamed_from(route), &*route.name);
            let Some(from) = from else { continue };
            let mut moved = 0;
            loop {
                let more = worker.store.rename_handler(&worker.consumer, from, to, BATCH).await?;
                moved += more;
                if more == 0 || now() >= until {
                    if moved > 0 {
                        tracing::info!(
                            handler = to,
                            renamed_from = from,
                            moved,
                            "stored deliveries have a new name"
                        );
                    }
                    if more > 0 {
                        return Ok(false);
                    }
                    break;
                }
            }
        }
        Ok(true)
    }

    /// Counts and tells of deliveries under names that no instance has, lets them wait for one that has, and claims those whose
    /// time is over.
    async fn orphaned(
        &self,
        free: usize,
        handover: &mut Handover,
    ) -> Result<Vec<StoredDelivery>, StoreError> {
        let (worker, consumer) = (&self.worker, &*self.worker.consumer);
        let peers = worker.others.peers();
        let known: Vec<Arc<str>> =
            self.handlers.iter().cloned().chain(peers.names().map(Arc::from)).collect();
        let orphaned = worker.store.under_other_names(consumer, &known).await?;
        let sum: u64 = orphaned.iter().map(|(_, n)| n).sum();
        worker.stats.send_if_modified(|stats| std::mem::replace(&mut stats.orphaned, sum) != sum);
        for (handler, deliveries) in &orphaned {
            if handover.told.insert(handler.clone(), *deliveries).is_none() {
                tracing::warn!(
                    consumer,
                    handler = &**handler,
                    deliveries,
                    "deliveries are stored under the name of a handler that no instance of this consumer has: say \
                     `renamed_from` at the handler that has another name now; otherwise they become dead letters after a day"
                );
            }
        }
        handover.told.retain(|handler, _| orphaned.iter().any(|(name, _)| name == handler));
        if orphaned.is_empty() {
            return Ok(Vec::new());
        }
        let until = now() + MOVES_FOR;
        for (handler, _) in &orphaned {
            while worker.store.leave_all(consumer, handler, KEEP_ORPHANED, BATCH).await? > 0
                && now() < until
            {}
        }
        let names: Vec<Arc<str>> = orphaned.into_iter().map(|(name, _)| name).collect();
        if free > 0 { worker.store.claim(&self.query(&names, free)).await } else { Ok(Vec::new()) }
    }
}
