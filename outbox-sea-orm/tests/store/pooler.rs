//! Behind a PgBouncer that gives a connection to another client after each transaction.

use outbox_core::{
    event::EventId,
    outbox::{EventReader, Fence, PartitionNo},
    testing::store::{PARTITIONS, event},
};
use outbox_sea_orm::{
    Namespace, Outbox, OutboxError, Schema, StoreOptions, install, open_relay_store,
};
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection, TransactionTrait};
use std::time::Duration;
use tests::{
    databases::{Database, TempDatabase},
    servers::pgbouncer,
};

async fn through(temp: &TempDatabase, port: u16) -> DatabaseConnection {
    let mut options = ConnectOptions::new(temp.url_through(port));
    options.sqlx_logging(false).max_connections(8).min_connections(8);
    sea_orm::Database::connect(options).await.unwrap()
}

fn says_what_is_needed(error: &OutboxError) -> bool {
    let text = error.to_string();
    matches!(error, OutboxError::Configuration(_))
        && text.contains("PgBouncer 1.21")
        && text.contains("directly")
}

/// PgBouncer 1.18, which Debian has, and later ones up to 1.20 are refused; what they would do is
/// no outbox.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_mixes_prepared_statements_up_is_refused_at_the_start_and_any_other_works() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let server = pgbouncer::start().await;
    let db = through(&temp, server.port()).await;
    let opened = Outbox::builder(db.clone())
        .source("shop")
        .partitions(PARTITIONS)
        .behind_pooler()
        .install()
        .await;
    if !pgbouncer::carries_statements() {
        let error = opened.expect_err("SeaORM itself fails behind it");
        assert!(says_what_is_needed(&error), "{error}");
        let schema = temp.connect().await;
        install(&schema, &Namespace::default(), PARTITIONS).await.unwrap();
        let error = Outbox::builder(db)
            .behind_pooler()
            .build()
            .await
            .expect_err("nor is it opened where its tables are");
        assert!(says_what_is_needed(&error), "{error}");
        return;
    }
    let outbox = opened.expect("prepared statements are carried over");
    let transactions = (0..40).map(|n| {
        let outbox = outbox.clone();
        async move {
            let tx = outbox.begin().await.unwrap();
            let key = format!("k{n}");
            outbox.enqueue(&tx, &Named(key)).await.unwrap();
            tx.commit().await.unwrap();
        }
    });
    futures_util::future::join_all(transactions).await;
    assert_eq!(all_events(&db).await, 40);
}

/// The relay's own connections prepare nothing under a name, so that they work behind any of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relays_own_connections_work_behind_any_pooler() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let server = pgbouncer::start().await;
    let direct = temp.connect().await;
    install(&direct, &Namespace::default(), PARTITIONS).await.unwrap();
    let schema = Schema::open(&direct, &Namespace::default()).await.unwrap();
    // Only its options are used for the relay; it asks one question without parameters before.
    let pooled = through(&temp, server.port()).await;
    let options = StoreOptions::new(Duration::from_secs(30)).behind_pooler(true);
    let mut stores = Vec::new();
    for _ in 0..3 {
        stores.push(open_relay_store(&pooled, &schema, &options).await.unwrap());
    }
    let relay = outbox_core::event::RelayId::generate();
    for store in &stores {
        store.leases.renew(&relay, 1, Duration::from_secs(600)).await.unwrap();
    }
    let all: Vec<PartitionNo> = (0..PARTITIONS).map(PartitionNo).collect();
    let partitions = stores[0].leases.take(&relay, None, &all).await.unwrap();
    let fence = Fence { relay, partitions };
    let mut delivered = 0;
    for round in 0..10 {
        schema
            .append(&direct, "/shop", &[event(&format!("a{round}")), event(&format!("b{round}"))])
            .await
            .unwrap();
        // Each store in turn, and all of them at once.
        for store in &stores {
            store.leases.renew(&fence.relay, 1, Duration::from_secs(600)).await.unwrap();
        }
        let pages =
            futures_util::future::join_all(stores.iter().map(|store| read(&*store.reader))).await;
        assert!(pages.iter().all(|page| *page == pages[0] && page.len() == 2), "{pages:?}");
        delivered += stores[round % 3].settler.finish(&fence, &pages[0]).await.unwrap().deleted;
    }
    assert_eq!(delivered, 20);
}

/// Places of all events.
async fn read(reader: &dyn EventReader) -> Vec<(PartitionNo, EventId)> {
    let mut places = Vec::new();
    for partition in (0..PARTITIONS).map(PartitionNo) {
        let page =
            reader.page(partition, EventId(0), EventId(i64::MAX), 100_000, u32::MAX).await.unwrap();
        places.extend(page.into_iter().map(|event| (event.partition, event.id)));
    }
    places
}

async fn all_events(db: &DatabaseConnection) -> i64 {
    let tx = db.begin().await.unwrap();
    let count = sea_orm::Statement::from_string(
        sea_orm::DbBackend::Postgres,
        "SELECT COUNT(*) FROM outbox_events",
    );
    let count = tx.query_one_raw(count).await.unwrap().unwrap().try_get_by_index(0).unwrap();
    tx.commit().await.unwrap();
    count
}

struct Named(String);

impl outbox_sea_orm::event::OutboxEvent for Named {
    fn meta(&self) -> outbox_sea_orm::event::EventMeta<'_> {
        outbox_sea_orm::event::EventMeta::new("named").key(Some(self.0.as_str()))
    }

    fn payload(&self) -> Result<bytes::Bytes, outbox_sea_orm::event::EncodeError> {
        Ok(bytes::Bytes::from_static(b"{}"))
    }
}
