//! The settler: writes what was decided, many events in one statement, each write under its epoch.

use super::{
    board::Writes,
    messages::{Gone, Lease, Note, Pauses, Place},
};
use crate::{
    event::{EventId, LetterId, RelayId},
    failure::{BackgroundWork, FailureClass},
    outbox::{CarriedLetter, Epoch, Fence, PartitionNo, SettleStore, Settled, StoreError, Verdict},
    runtime::fault::{FaultPoint, reach},
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

/// Events of one statement: large enough that its cost is the rows', small enough for a short transaction.
const MOST: usize = 2_000;
/// Verdicts of one transaction; each is several statements' worth of work.
const MOST_VERDICTS: usize = 200;
/// With fewer events than this waiting, a few milliseconds are given to the next ones: one commit for many.
const FEW: usize = 100;
const LINGER: Duration = Duration::from_millis(3);
/// Refusals in a row by a database that answers, after which the relay is restarted with the cause.
const REFUSALS: u32 = 10;

/// Why the settler ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettlerError {
    #[error(transparent)]
    Gone(#[from] Gone),
    #[error("what was delivered cannot be written down")]
    Refused(#[source] StoreError),
}

/// What the settler works with.
pub(crate) struct Settler {
    pub(crate) relay: RelayId,
    pub(crate) store: Arc<dyn SettleStore>,
    pub(crate) writes: mpsc::Receiver<Writes>,
    pub(crate) dispatcher: mpsc::Sender<Note>,
    pub(crate) letters: mpsc::Sender<Vec<LetterId>>,
    pub(crate) lease: watch::Receiver<Lease>,
    pub(crate) work: BackgroundWork,
}

impl Settler {
    /// Settles until the dispatcher is gone.
    pub(crate) async fn run(mut self) -> Result<(), SettlerError> {
        let mut finish: Vec<Place> = Vec::new();
        let mut record: VecDeque<(Epoch, Verdict)> = VecDeque::new();
        let mut bury: Vec<CarriedLetter> = Vec::new();
        while let Some(writes) = self.writes.recv().await {
            finish.extend(writes.finish);
            record.extend(writes.record);
            bury.extend(writes.bury);
            if finish.len() + record.len() < FEW {
                sleep(LINGER).await;
            }
            loop {
                while let Ok(more) = self.writes.try_recv() {
                    finish.extend(more.finish);
                    record.extend(more.record);
                    bury.extend(more.bury);
                }
                if !finish.is_empty() {
                    let rest = finish.split_off(finish.len().min(MOST));
                    self.finish(std::mem::replace(&mut finish, rest)).await?;
                }
                if !record.is_empty() {
                    let batch = distinct(&mut record);
                    self.record(batch).await?;
                }
                if !bury.is_empty() {
                    self.bury(std::mem::take(&mut bury)).await?;
                }
                if finish.is_empty() && record.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn finish(&mut self, mut places: Vec<Place>) -> Result<(), SettlerError> {
        places.sort_unstable();
        let fence = self.fence(places.iter().map(|(p, e, _)| (*p, *e)));
        places.retain(|(p, e, _)| fence.partitions.contains(&(*p, *e)));
        let ids: Vec<(PartitionNo, EventId)> = places.iter().map(|(p, _, id)| (*p, *id)).collect();
        reach(FaultPoint::BeforeSettle);
        let mut pauses = Pauses::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut refusals = 0;
        let settled = loop {
            match self.store.finish(&fence, &ids).await {
                Ok(settled) => break settled,
                Err(error) => self.after(error, &mut pauses, &mut refusals).await?,
            }
        };
        reach(FaultPoint::AfterSettle);
        self.work.succeeded("write down what was delivered");
        self.tell(&fence, places, &settled, Note::Finished).await
    }

    async fn record(&mut self, batch: Vec<(Epoch, Verdict)>) -> Result<(), SettlerError> {
        let fence = self.fence(batch.iter().map(|(epoch, v)| (v.partition, *epoch)));
        let mut batch = batch;
        batch.retain(|(epoch, v)| fence.partitions.contains(&(v.partition, *epoch)));
        let places: Vec<Place> =
            batch.iter().map(|(epoch, v)| (v.partition, *epoch, v.id)).collect();
        let verdicts: Vec<Verdict> = batch.into_iter().map(|(_, verdict)| verdict).collect();
        reach(FaultPoint::BeforeRecord);
        let mut pauses = Pauses::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut refusals = 0;
        let settled = loop {
            match self.store.record(&fence, &verdicts).await {
                Ok(settled) => break settled,
                Err(error) => self.after(error, &mut pauses, &mut refusals).await?,
            }
        };
        reach(FaultPoint::AfterRecord);
        self.work.succeeded("write down what was delivered");
        if !settled.letters.is_empty() {
            let ids = settled.letters.iter().map(|(_, _, id)| *id).collect();
            self.dispatcher.send(Note::Buried(settled.letters.clone())).await.map_err(|_| Gone)?;
            self.listeners(ids);
        }
        self.tell(&fence, places, &settled, Note::Recorded).await
    }

    async fn bury(&mut self, letters: Vec<CarriedLetter>) -> Result<(), SettlerError> {
        let mut pauses = Pauses::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut refusals = 0;
        let ids = loop {
            match self.store.bury_carried(&letters).await {
                Ok(ids) => break ids,
                Err(error) => self.after(error, &mut pauses, &mut refusals).await?,
            }
        };
        self.listeners(ids);
        Ok(())
    }

    fn listeners(&self, letters: Vec<LetterId>) {
        if letters.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(letters) | TrySendError::Closed(letters)) =
            self.letters.try_send(letters)
        {
            let letters: Vec<i64> = letters.iter().map(|id| id.0).collect();
            tracing::warn!(
                ?letters,
                "the listeners of dead letters are behind: these were written and are not told of"
            );
        }
    }

    /// Waits before the write is made again. It is made under the same epochs: if the partitions were lost meanwhile,
    /// nothing is written.
    async fn after(
        &mut self,
        error: StoreError,
        pauses: &mut Pauses,
        refusals: &mut u32,
    ) -> Result<(), SettlerError> {
        self.work.failed("write down what was delivered", &error);
        match error.class() {
            FailureClass::Permanent => {
                *refusals += 1;
                if *refusals >= REFUSALS {
                    return Err(SettlerError::Refused(error));
                }
            }
            FailureClass::Unavailable => {
                // After a reconnect the lease is renewed first.
                let before = self.lease.borrow_and_update().renewals;
                sleep(pauses.take()).await;
                let renewed = self.lease.wait_for(|lease| lease.renewals > before).await;
                return renewed.map(|_| ()).map_err(|_| Gone.into());
            }
            FailureClass::Transient => {}
        }
        sleep(pauses.take()).await;
        Ok(())
    }

    fn fence(&self, partitions: impl Iterator<Item = (PartitionNo, Epoch)>) -> Fence {
        // Of two epochs of one partition the later is ours; what was decided under the earlier one is void.
        let partitions: BTreeMap<PartitionNo, Epoch> =
            partitions.fold(BTreeMap::new(), |mut map, (no, epoch)| {
                let entry = map.entry(no).or_insert(epoch);
                *entry = (*entry).max(epoch);
                map
            });
        Fence { relay: self.relay.clone(), partitions: partitions.into_iter().collect() }
    }

    async fn tell(
        &self,
        fence: &Fence,
        places: Vec<Place>,
        settled: &Settled,
        done: fn(Vec<Place>) -> Note,
    ) -> Result<(), SettlerError> {
        let held: HashSet<PartitionNo> = settled.held.iter().copied().collect();
        let lost: Vec<_> =
            fence.partitions.iter().filter(|(no, _)| !held.contains(no)).copied().collect();
        if !lost.is_empty() {
            self.dispatcher.send(Note::Lost(lost)).await.map_err(|_| Gone)?;
        }
        let kept = places.into_iter().filter(|(no, _, _)| held.contains(no)).collect();
        Ok(self.dispatcher.send(done(kept)).await.map_err(|_| Gone)?)
    }
}

/// Takes verdicts from the front, each event at most once: a later verdict of an event replaces rows of the earlier.
fn distinct(record: &mut VecDeque<(Epoch, Verdict)>) -> Vec<(Epoch, Verdict)> {
    let mut seen = HashSet::new();
    let mut batch = Vec::new();
    while let Some((_, verdict)) = record.front()
        && batch.len() < MOST_VERDICTS
        && seen.insert(verdict.id)
    {
        batch.extend(record.pop_front());
    }
    batch
}
