//! Events so large that a few of them fill the memory of their route.

use crate::support::{Destination, LATE, LEASE, SOON, World};
use async_trait::async_trait;
use outbox_core::{
    event::EventId,
    outbox::{EventReader, PartitionNo, PartitionRows, ReadPlan, RelayStore, StoredEvent},
    relay::RelaySource,
    runtime::Wake,
};
use outbox_sea_orm::{
    OutboxEvent, StoreError, StoreOptions, open_relay_store,
    relay::Relay,
    transport::{Route, everything},
};
use sea_orm::TransactionTrait;
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tests::{databases::TempDatabase, on_every_database};

/// Bytes of a payload, and how many there are.
const LARGE: usize = 512 << 10;
const MANY: usize = 60;
/// The memory limit of the route: a tenth of all payloads.
const MEMORY: usize = 3 << 20;

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "story.large", topic = "story", no_key)]
struct Large {
    filler: String,
}

/// An outbox whose reads are measured.
struct Weighed {
    world: World,
    scales: Scales,
}

/// The bytes that were read: in all, and in the heaviest read.
#[derive(Clone, Default)]
struct Scales(Arc<(AtomicUsize, AtomicUsize)>);

struct Reader(Arc<dyn EventReader>, Scales);

impl Scales {
    fn weigh<'a>(&self, events: impl Iterator<Item = &'a StoredEvent>) {
        let read: usize =
            events.filter_map(|e| e.body.as_ref().ok()).map(|message| message.payload.len()).sum();
        self.0.0.fetch_add(read, Ordering::SeqCst);
        self.0.1.fetch_max(read, Ordering::SeqCst);
    }
}

#[async_trait]
impl EventReader for Reader {
    async fn read(&self, plan: &ReadPlan) -> Result<Vec<PartitionRows>, StoreError> {
        let rows = self.0.read(plan).await?;
        self.1.weigh(rows.iter().flat_map(|rows| &rows.past));
        Ok(rows)
    }

    async fn fetch(
        &self,
        ids: &[(PartitionNo, EventId)],
        payload_limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let events = self.0.fetch(ids, payload_limit).await?;
        self.1.weigh(events.iter());
        Ok(events)
    }

    async fn page(
        &self,
        partition: PartitionNo,
        from: EventId,
        to: EventId,
        limit: u32,
        payload_limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let events = self.0.page(partition, from, to, limit, payload_limit).await?;
        self.1.weigh(events.iter());
        Ok(events)
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

#[async_trait]
impl RelaySource for Weighed {
    async fn open_relay_store(&self, lease: Duration) -> Result<RelayStore, StoreError> {
        let outbox = &self.world.outbox;
        let mut store =
            open_relay_store(outbox.connection(), outbox.schema(), &StoreOptions::new(lease))
                .await?;
        store.reader = Arc::new(Reader(store.reader, self.scales.clone()));
        Ok(store)
    }

    fn wake_handle(&self) -> Wake {
        self.world.outbox.wake_handle()
    }
}

on_every_database! {
    async fn a_backlog_of_large_events_is_read_once_or_twice_and_a_few_at_a_time(db: &TempDatabase) {
        let world = World::open(db).await;
        let events: Vec<Large> = (0..4).map(|_| Large { filler: "x".repeat(LARGE) }).collect();
        for _ in 0..MANY / events.len() {
            let txn = world.db.begin().await.unwrap();
            world.outbox.enqueue_many(&txn, &events).await.unwrap();
            txn.commit().await.unwrap();
        }
        let weighed = Weighed { world, scales: Scales::default() };
        let destination = Destination::new();
        let route = Route::new("a", everything(), destination.publisher("a")).max_in_memory(MEMORY);
        let running = Relay::builder(&weighed).lease(LEASE).add_route(route).start().await.unwrap();
        destination.wait_for(MANY, LATE).await;
        weighed.world.drained(SOON).await;
        running.shutdown(SOON).await.unwrap();
        let mut ids: Vec<_> = destination.confirmed().into_iter().map(|sent| sent.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), destination.count()), (MANY, MANY), "each once");
        let (all, heaviest) = (weighed.scales.0.0.load(Ordering::SeqCst), weighed.scales.0.1.load(Ordering::SeqCst));
        assert!(all < 3 * MANY * LARGE, "{all} bytes were read of {}", MANY * LARGE);
        assert!(heaviest <= MEMORY + LARGE + 1_024, "{heaviest} bytes were read at once");
    }
}
