//! Deliveries that other instances of the consumer have handed over: claimed where this instance knows
//! them, counted where no instance does.

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

/// How long deliveries are kept under the name of a handler that no instance has: an operator reads the log
/// within a day.
pub(in crate::consumer) const KEEP_ORPHANED: Duration = Duration::from_hours(24);
/// How often the retrier scans for waiting deliveries while all instances declare the same: an instance may
/// have handed one over just before its end.
const SCAN_INTERVAL: Duration = Duration::from_mins(1);
/// Deliveries that are moved or marked in one transaction, and for how long before the next claim.
const BATCH: u32 = 500;
const MOVES_FOR: Duration = Duration::from_millis(200);

/// When the retrier scanned for handed-over deliveries, and which orphaned ones it has logged.
#[derive(Default)]
pub(super) struct Handover {
    scanned_at: Option<Instant>,
    counted_at: Option<Instant>,
    logged: BTreeMap<Arc<str>, u64>,
}

impl<S: ConsumerStore> Retrier<S> {
    /// Claims deliveries that wait for an instance that knows them, where this one does, and those whose wait is
    /// over; moves deliveries that are stored under former names of handlers.
    pub(super) async fn claim_handed_over(
        &self,
        free: usize,
        handover: &mut Handover,
    ) -> Result<Vec<StoredDelivery>, StoreError> {
        let worker = &self.worker;
        let is_over = |since: Option<Instant>, pause| {
            since.is_none_or(|at| now().duration_since(at) >= pause)
        };
        let mut claimed = Vec::new();
        // Another version that runs beside this one hands deliveries over at any time, and a key may
        // come at any time.
        let codecs = worker.decoding.codecs();
        let is_often = worker.peer_cache.peers().differ() || !codecs.is_empty();
        let pause = if is_often { POLL } else { SCAN_INTERVAL };
        if free > 0 && is_over(handover.scanned_at, pause) {
            let awaited = worker.store.awaited(&worker.consumer).await?;
            let awaited = known_of(&worker.declared, codecs, awaited);
            if !awaited.is_empty() {
                claimed =
                    worker.store.claim_awaited(&self.query(&self.handlers, free), &awaited).await?;
            }
            // With all permits taken there may be more.
            handover.scanned_at = (claimed.len() < free).then(now);
        }
        if is_over(handover.counted_at, SCAN_INTERVAL) {
            let moved = self.move_renamed().await?;
            let free = free.saturating_sub(claimed.len());
            claimed.extend(self.orphaned(free, handover).await?);
            handover.counted_at = moved.then(now);
        }
        Ok(claimed)
    }

    /// Moves deliveries that are stored under a handler's former name, where no other instance has that name any
    /// more; tells whether all are moved.
    async fn move_renamed(&self) -> Result<bool, StoreError> {
        let (worker, until) = (&self.worker, now() + MOVES_FOR);
        for entry in &worker.handlers {
            let (from, to) = (worker.renamed_from(entry), &*entry.name);
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
                            "stored deliveries were moved to the handler's new name"
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

    /// Counts and logs deliveries under names that no instance has, lets them wait for one that has, and claims
    /// those whose wait is over.
    async fn orphaned(
        &self,
        free: usize,
        handover: &mut Handover,
    ) -> Result<Vec<StoredDelivery>, StoreError> {
        let (worker, consumer) = (&self.worker, &*self.worker.consumer);
        let peers = worker.peer_cache.peers();
        let known: Vec<Arc<str>> =
            self.handlers.iter().cloned().chain(peers.names().map(Arc::from)).collect();
        let orphaned = worker.store.under_other_names(consumer, &known).await?;
        let sum: u64 = orphaned.iter().map(|(_, n)| n).sum();
        worker.stats.send_if_modified(|stats| std::mem::replace(&mut stats.orphaned, sum) != sum);
        for (handler, deliveries) in &orphaned {
            if handover.logged.insert(handler.clone(), *deliveries).is_none() {
                tracing::warn!(
                    consumer,
                    handler = &**handler,
                    deliveries,
                    "deliveries are stored under the name of a handler that no instance of this consumer has: say \
                     `renamed_from` at the handler that has another name now; otherwise they become dead letters after a day"
                );
            }
        }
        handover.logged.retain(|handler, _| orphaned.iter().any(|(name, _)| name == handler));
        if orphaned.is_empty() {
            return Ok(Vec::new());
        }
        let until = now() + MOVES_FOR;
        for (handler, _) in &orphaned {
            while worker.store.hand_over_all(consumer, handler, KEEP_ORPHANED, BATCH).await? > 0
                && now() < until
            {}
        }
        let names: Vec<Arc<str>> = orphaned.into_iter().map(|(name, _)| name).collect();
        if free > 0 { worker.store.claim(&self.query(&names, free)).await } else { Ok(Vec::new()) }
    }
}
