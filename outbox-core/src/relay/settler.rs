//! The settler: writes the board's decisions, many events in one statement, each write under its
//! epoch.

use super::{
    board::Writes,
    messages::{Backoff, DispatcherMsg, DispatcherStopped, Lease, OwnedEvent},
    metrics::{count_detached, count_letters},
};
use crate::{
    event::{EventId, LetterId, RelayId},
    failure::{BackgroundWork, FailureClass},
    outbox::{
        DetachedLetter, Epoch, Fence, PartitionNo, RouteUpdate, SettleStore, Settled, StoreError,
    },
    runtime::fault::{FaultPoint, fault_point},
    telemetry::Metrics,
};
use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
    time::sleep,
};

/// Events of one statement: large enough that its cost is the rows', small enough for a short
/// transaction.
const MAX_EVENTS: usize = 2_000;
/// Route updates of one transaction; each costs as much as several statements.
const MAX_UPDATES: usize = 200;
/// With fewer events than this the settler waits a few milliseconds for more: one commit for many.
const SMALL_BATCH: usize = 100;
const BATCH_DELAY: Duration = Duration::from_millis(3);
/// Refusals in a row by a reachable database after which the relay is restarted with the cause.
const MAX_REFUSALS: u32 = 10;

/// Why the settler ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettlerError {
    #[error(transparent)]
    DispatcherStopped(#[from] DispatcherStopped),
    #[error("the database refuses to settle delivered events")]
    Refused(#[source] StoreError),
}

/// The settler with its store and channels.
pub(crate) struct Settler {
    pub(crate) relay: RelayId,
    pub(crate) store: Arc<dyn SettleStore>,
    pub(crate) writes: mpsc::Receiver<Writes>,
    pub(crate) dispatcher: mpsc::Sender<DispatcherMsg>,
    pub(crate) letters: mpsc::Sender<Vec<LetterId>>,
    pub(crate) lease: watch::Receiver<Lease>,
    pub(crate) metrics: Metrics,
    pub(crate) work: BackgroundWork,
}

impl Settler {
    /// Settles until the dispatcher has stopped.
    pub(crate) async fn run(mut self) -> Result<(), SettlerError> {
        let mut finish: Vec<OwnedEvent> = Vec::new();
        let mut record: VecDeque<(Epoch, RouteUpdate)> = VecDeque::new();
        let mut letters: Vec<DetachedLetter> = Vec::new();
        while let Some(writes) = self.writes.recv().await {
            finish.extend(writes.finish);
            record.extend(writes.record);
            letters.extend(writes.letters);
            if finish.len() + record.len() < SMALL_BATCH {
                sleep(BATCH_DELAY).await;
            }
            loop {
                while let Ok(more) = self.writes.try_recv() {
                    finish.extend(more.finish);
                    record.extend(more.record);
                    letters.extend(more.letters);
                }
                if !finish.is_empty() {
                    let rest = finish.split_off(finish.len().min(MAX_EVENTS));
                    self.finish(std::mem::replace(&mut finish, rest)).await?;
                }
                if !record.is_empty() {
                    let batch = take_distinct(&mut record);
                    self.record(batch).await?;
                }
                if !letters.is_empty() {
                    self.write_detached(std::mem::take(&mut letters)).await?;
                }
                if finish.is_empty() && record.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn finish(&mut self, mut events: Vec<OwnedEvent>) -> Result<(), SettlerError> {
        events.sort_unstable();
        let fence = self.fence(events.iter().map(|(p, e, _)| (*p, *e)));
        events.retain(|(p, e, _)| fence.partitions.contains(&(*p, *e)));
        let ids: Vec<(PartitionNo, EventId)> = events.iter().map(|(p, _, id)| (*p, *id)).collect();
        fault_point(FaultPoint::BeforeSettle);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut refusals = 0;
        let settled = loop {
            match self.store.finish(&fence, &ids).await {
                Ok(settled) => break settled,
                Err(error) => self.pause_after(error, &mut backoff, &mut refusals).await?,
            }
        };
        fault_point(FaultPoint::AfterSettle);
        self.work.succeeded("settle events");
        self.report(&fence, events, &settled, DispatcherMsg::Finished).await
    }

    async fn record(&mut self, batch: Vec<(Epoch, RouteUpdate)>) -> Result<(), SettlerError> {
        let fence = self.fence(batch.iter().map(|(epoch, v)| (v.partition, *epoch)));
        let mut batch = batch;
        batch.retain(|(epoch, v)| fence.partitions.contains(&(v.partition, *epoch)));
        let events: Vec<OwnedEvent> =
            batch.iter().map(|(epoch, v)| (v.partition, *epoch, v.id)).collect();
        let updates: Vec<RouteUpdate> = batch.into_iter().map(|(_, update)| update).collect();
        fault_point(FaultPoint::BeforeRecord);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut refusals = 0;
        let settled = loop {
            match self.store.record(&fence, &updates).await {
                Ok(settled) => break settled,
                Err(error) => self.pause_after(error, &mut backoff, &mut refusals).await?,
            }
        };
        fault_point(FaultPoint::AfterRecord);
        self.work.succeeded("settle events");
        count_letters(&self.metrics, &updates, &settled);
        if !settled.letters.is_empty() {
            let ids = settled.letters.iter().map(|(_, _, id)| *id).collect();
            let message = DispatcherMsg::LettersWritten(settled.letters.clone());
            self.dispatcher.send(message).await.map_err(|_| DispatcherStopped)?;
            self.notify_listeners(ids);
        }
        self.report(&fence, events, &settled, DispatcherMsg::Recorded).await
    }

    async fn write_detached(&mut self, letters: Vec<DetachedLetter>) -> Result<(), SettlerError> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut refusals = 0;
        let ids = loop {
            match self.store.write_detached_letters(&letters).await {
                Ok(ids) => break ids,
                Err(error) => self.pause_after(error, &mut backoff, &mut refusals).await?,
            }
        };
        count_detached(&self.metrics, &letters);
        self.notify_listeners(ids);
        Ok(())
    }

    fn notify_listeners(&self, letters: Vec<LetterId>) {
        if letters.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(letters) | TrySendError::Closed(letters)) =
            self.letters.try_send(letters)
        {
            let letters: Vec<i64> = letters.iter().map(|id| id.0).collect();
            tracing::warn!(
                ?letters,
                "the dead-letter listeners are behind: these dead letters were written, and no \
                 listener is notified of them"
            );
        }
    }

    /// Waits before the write is repeated. It is repeated under the same epochs: if the partitions
    /// were lost meanwhile, the store refuses it.
    async fn pause_after(
        &mut self,
        error: StoreError,
        backoff: &mut Backoff,
        refusals: &mut u32,
    ) -> Result<(), SettlerError> {
        self.work.failed("settle events", &error);
        match error.class() {
            FailureClass::Permanent => {
                *refusals += 1;
                if *refusals >= MAX_REFUSALS {
                    return Err(SettlerError::Refused(error));
                }
            }
            FailureClass::Unavailable => {
                // The write is repeated only after the lease was renewed: until then the partitions
                // may be lost.
                let before = self.lease.borrow_and_update().renewals;
                sleep(backoff.take()).await;
                let renewed = self.lease.wait_for(|lease| lease.renewals > before).await;
                return renewed.map(|_| ()).map_err(|_| DispatcherStopped.into());
            }
            FailureClass::Transient => {}
        }
        sleep(backoff.take()).await;
        Ok(())
    }

    fn fence(&self, partitions: impl Iterator<Item = (PartitionNo, Epoch)>) -> Fence {
        // Of two epochs of one partition the later one is owned; decisions under the earlier one
        // are void.
        let partitions: BTreeMap<PartitionNo, Epoch> =
            partitions.fold(BTreeMap::new(), |mut map, (no, epoch)| {
                let entry = map.entry(no).or_insert(epoch);
                *entry = (*entry).max(epoch);
                map
            });
        Fence { relay: self.relay.clone(), partitions: partitions.into_iter().collect() }
    }

    /// Reports lost partitions and the written events of the others.
    async fn report(
        &self,
        fence: &Fence,
        events: Vec<OwnedEvent>,
        settled: &Settled,
        message: fn(Vec<OwnedEvent>) -> DispatcherMsg,
    ) -> Result<(), SettlerError> {
        let owned: HashSet<PartitionNo> = settled.held.iter().copied().collect();
        let lost: Vec<_> =
            fence.partitions.iter().filter(|(no, _)| !owned.contains(no)).copied().collect();
        if !lost.is_empty() {
            self.dispatcher.send(DispatcherMsg::Lost(lost)).await.map_err(|_| DispatcherStopped)?;
        }
        let written = events.into_iter().filter(|(no, _, _)| owned.contains(no)).collect();
        Ok(self.dispatcher.send(message(written)).await.map_err(|_| DispatcherStopped)?)
    }
}

/// Takes updates from the front, at most one of each event: a later update of an event replaces
/// rows of the earlier one, and one statement writes them in no order.
fn take_distinct(record: &mut VecDeque<(Epoch, RouteUpdate)>) -> Vec<(Epoch, RouteUpdate)> {
    let mut seen = HashSet::new();
    let mut batch = Vec::new();
    while let Some((_, update)) = record.front()
        && batch.len() < MAX_UPDATES
        && seen.insert(update.id)
    {
        batch.extend(record.pop_front());
    }
    batch
}
