//! An outbox on any database, for tests that are no part of the suite.

use outbox_core::{
    event::{EventId, RelayId},
    outbox::{EventReader, Fence, PartitionNo, RelayStore, StoredEvent},
    testing::store::PARTITIONS,
};
use outbox_sea_orm::{Namespace, Schema, StoreOptions, install, open_relay_store};
use sea_orm::{DatabaseConnection, TransactionOptions, TransactionTrait};
use std::{sync::Arc, time::Duration};

/// A third of it is the longest that a statement of the relay may take.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// Installs and opens an outbox.
pub(crate) async fn installed(db: &DatabaseConnection, namespace: &Namespace) -> Arc<Schema> {
    install(db, namespace, PARTITIONS).await.unwrap();
    Schema::open(db, namespace).await.unwrap()
}

/// Opens a relay's store and gives it all partitions.
pub(crate) async fn owner_of_all(
    db: &DatabaseConnection,
    schema: &Arc<Schema>,
    lease: Duration,
) -> (RelayStore, Fence) {
    let store = open_relay_store(db, schema, &StoreOptions::new(lease)).await.unwrap();
    let relay = RelayId::generate();
    store.leases.renew(&relay, 1, Duration::from_secs(600)).await.unwrap();
    let all: Vec<PartitionNo> = (0..PARTITIONS).map(PartitionNo).collect();
    let partitions = store.leases.take(&relay, None, &all).await.unwrap();
    assert_eq!(partitions.len(), all.len());
    (store, Fence { relay, partitions })
}

/// Reads everything, in the order of partitions and ids.
pub(crate) async fn read_all(reader: &dyn EventReader) -> Vec<StoredEvent> {
    let mut events = Vec::new();
    for partition in (0..PARTITIONS).map(PartitionNo) {
        let (mut first, last) = (EventId(0), EventId(i64::MAX));
        loop {
            let page = reader.page(partition, first, last, 100_000, u32::MAX).await.unwrap();
            let Some(EventId(read)) = page.last().map(|event| event.id) else { break };
            first = EventId(read + 1);
            events.extend(page);
        }
    }
    events
}

/// Opens a transaction that writes.
pub(crate) async fn writing(db: &DatabaseConnection) -> sea_orm::DatabaseTransaction {
    let mode = Some(sea_orm::SqliteTransactionMode::Immediate);
    let options =
        TransactionOptions { sqlite_transaction_mode: mode, ..TransactionOptions::default() };
    db.begin_with_options(options).await.unwrap()
}
