//! Our relay with its defaults, over a store that measures its calls.

use super::checker::{Checker, CheckingPublisher};
use anyhow::{Context, Result};
use async_trait::async_trait;
use outbox_core::{
    event::{EventId, LetterId},
    failure::DeadLetter,
    outbox::{
        DetachedLetter, EventReader, Fence, PartitionNo, PartitionRows, ReadPlan, RelayStore,
        RouteUpdate, SettleStore, Settled, StoreError, StoredEvent,
    },
    relay::{Relay, RelayBuilder, RelaySource},
    runtime::Wake,
    transport::{Publisher, Route, everything},
};
use outbox_sea_orm::{Outbox, StoreOptions, open_relay_store};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::timeout};

/// How long a drain may take at least.
const TIME_LIMIT: Duration = Duration::from_secs(180);
/// A drain with fewer events a second than this is stuck.
const SLOWEST: u64 = 5_000;

/// The relay's calls of its store.
#[derive(Default)]
pub(crate) struct Meter {
    finished: AtomicU64,
    wanted: u64,
    all: Notify,
    reads: AtomicU64,
    read_us: AtomicU64,
    settles: AtomicU64,
    settle_us: AtomicU64,
}

impl Meter {
    /// Gives the number of events that are finished in the database so far.
    pub(crate) fn finished(&self) -> u64 {
        self.finished.load(Relaxed)
    }

    fn note_finished(&self, events: u64) {
        if self.finished.fetch_add(events, Relaxed) + events >= self.wanted {
            self.all.notify_one();
        }
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reads, settles) = (self.reads.load(Relaxed), self.settles.load(Relaxed));
        let ms = |us: &AtomicU64| us.load(Relaxed) / 1_000;
        let of = |n: u64| self.finished.load(Relaxed) / n.max(1);
        write!(
            f,
            "{reads} reads of {} events in {} ms, {settles} settles of {} events in {} ms",
            of(reads),
            ms(&self.read_us),
            of(settles),
            ms(&self.settle_us)
        )
    }
}

/// An outbox whose relays have a metered store.
pub(crate) struct MeteredOutbox<'a> {
    outbox: &'a Outbox,
    meter: Arc<Meter>,
}

impl<'a> MeteredOutbox<'a> {
    /// Measures until so many events are finished.
    pub(crate) fn new(outbox: &'a Outbox, wanted: u64) -> Self {
        Self { outbox, meter: Arc::new(Meter { wanted, ..Meter::default() }) }
    }

    /// Starts a relay with all defaults and one route for all events.
    pub(crate) async fn start(&self, publisher: impl Publisher) -> Result<Relay> {
        self.start_routes(vec![Route::new("bench", everything(), publisher)]).await
    }

    /// Starts a relay with all defaults and these routes.
    pub(crate) async fn start_routes(&self, routes: Vec<Route>) -> Result<Relay> {
        let relay = routes.into_iter().fold(Relay::builder(self), RelayBuilder::add_route);
        Ok(relay.start().await?)
    }

    /// Waits until all events are finished in the database.
    pub(crate) async fn all(&self) -> Result<()> {
        let limit = TIME_LIMIT.max(Duration::from_secs(self.meter.wanted / SLOWEST));
        timeout(limit, self.meter.all.notified()).await.context("the drain stands still")
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }
}

/// Drains the outbox to a publisher; the time runs from before the relay is started until the last event is finished
/// in the database.
pub(crate) async fn drain_to(
    outbox: &Outbox,
    events: u32,
    publisher: impl Publisher,
) -> Result<(Duration, String)> {
    let metered = MeteredOutbox::new(outbox, u64::from(events));
    let begun = Instant::now();
    let relay = metered.start(publisher).await?;
    metered.all().await?;
    let took = begun.elapsed();
    relay.shutdown(Duration::from_secs(10)).await?;
    Ok((took, metered.meter().to_string()))
}

/// Drains the outbox to a checker.
pub(crate) async fn drain(
    outbox: &Outbox,
    events: u32,
    checker: &Arc<Checker>,
) -> Result<(Duration, String)> {
    drain_to(outbox, events, CheckingPublisher(Arc::clone(checker))).await
}

#[async_trait]
impl RelaySource for MeteredOutbox<'_> {
    async fn open_relay_store(&self, lease: Duration) -> Result<RelayStore, StoreError> {
        let options = StoreOptions::new(lease);
        let mut store =
            open_relay_store(self.outbox.connection(), self.outbox.schema(), &options).await?;
        store.reader = Arc::new(Reads(store.reader, Arc::clone(&self.meter)));
        store.settler = Arc::new(Settles(store.settler, Arc::clone(&self.meter)));
        Ok(store)
    }

    fn wake_handle(&self) -> Wake {
        self.outbox.wake_handle()
    }
}

struct Reads(Arc<dyn EventReader>, Arc<Meter>);

#[async_trait]
impl EventReader for Reads {
    async fn read(&self, plan: &ReadPlan) -> Result<Vec<PartitionRows>, StoreError> {
        let begun = Instant::now();
        let rows = self.0.read(plan).await;
        self.1.reads.fetch_add(1, Relaxed);
        self.1.read_us.fetch_add(micros(begun), Relaxed);
        rows
    }

    async fn fetch(
        &self,
        ids: &[(PartitionNo, EventId)],
        payload_limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.0.fetch(ids, payload_limit).await
    }

    async fn page(
        &self,
        partition: PartitionNo,
        from: EventId,
        to: EventId,
        limit: u32,
        payload_limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.0.page(partition, from, to, limit, payload_limit).await
    }

    async fn ids(
        &self,
        partition: PartitionNo,
        from: EventId,
        to: EventId,
        limit: u32,
    ) -> Result<Vec<EventId>, StoreError> {
        self.0.ids(partition, from, to, limit).await
    }
}

struct Settles(Arc<dyn SettleStore>, Arc<Meter>);

#[async_trait]
impl SettleStore for Settles {
    async fn finish(
        &self,
        fence: &Fence,
        ids: &[(PartitionNo, EventId)],
    ) -> Result<Settled, StoreError> {
        let (begun, meter) = (Instant::now(), &self.1);
        let settled = self.0.finish(fence, ids).await?;
        meter.settles.fetch_add(1, Relaxed);
        meter.settle_us.fetch_add(micros(begun), Relaxed);
        // Not the deleted rows: a settle whose answer was lost is repeated, and deletes none.
        meter.note_finished(ids.iter().filter(|(no, _)| settled.held.contains(no)).count() as u64);
        Ok(settled)
    }

    async fn write_detached_letters(
        &self,
        letters: &[DetachedLetter],
    ) -> Result<Vec<LetterId>, StoreError> {
        self.0.write_detached_letters(letters).await
    }

    async fn record(&self, fence: &Fence, updates: &[RouteUpdate]) -> Result<Settled, StoreError> {
        let settled = self.0.record(fence, updates).await?;
        // Events that failed before are finished here.
        self.1.note_finished(settled.deleted);
        Ok(settled)
    }

    async fn letters(&self, ids: &[LetterId]) -> Result<Vec<DeadLetter>, StoreError> {
        self.0.letters(ids).await
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
