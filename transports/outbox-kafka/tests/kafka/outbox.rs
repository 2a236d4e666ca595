//! The relay before Kafka: a broker that is gone for a while, one that has forgotten everything,
//! and what enqueue refuses.

use crate::support::{SOON, name, next, publisher_at, subscriber_at, url};
use outbox_core::testing::Recorder;
use outbox_core::transport::{LimitError, Subscriber};
use outbox_kafka::KafkaPublisher;
use outbox_sea_orm::{
    failure::RetryPolicy,
    prelude::*,
    relay::RelayBuilder,
    transport::{Route, everything},
};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tests::{
    databases::{Database, TempDatabase},
    servers::kafka,
    wait_until,
};

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "story.sample", topic = "story")]
struct Sample {
    #[outbox(key)]
    key: String,
    n: i64,
}

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "story.lost", topic = "no:colon")]
struct Lost {
    n: i64,
}

/// A database with an outbox in it.
struct World {
    outbox: Outbox,
    db: DatabaseConnection,
    _database: TempDatabase,
}

impl World {
    async fn open() -> Self {
        let database = TempDatabase::create(Database::Sqlite).await;
        let db = database.connect().await;
        let outbox =
            Outbox::builder(db.clone()).source("story").install().await.expect("installed");
        Self { outbox, db, _database: database }
    }

    async fn emit(&self, numbers: std::ops::Range<i64>) {
        let tx = self.outbox.begin().await.expect("a transaction");
        for n in numbers {
            tx.emit(Sample { key: format!("k{}", n % 13), n }).expect("encoded");
        }
        tx.commit().await.expect("committed");
    }

    async fn number(&self, sql: &str) -> i64 {
        let statement = Statement::from_string(self.db.get_database_backend(), sql);
        let row = self.db.query_one_raw(statement).await.expect("a result").expect("a row");
        row.try_get_by_index(0).expect("a number")
    }

    fn relay(&self, publisher: KafkaPublisher) -> RelayBuilder<'_> {
        let retry = RetryPolicy::default()
            .backoff(Duration::from_millis(50))
            .max_backoff(Duration::from_millis(200));
        Relay::builder(&self.outbox)
            .add_route(Route::new("kafka", everything(), publisher).retry(retry))
    }

    async fn drained(&self) {
        let empty =
            async || tests::equals(self.number("SELECT COUNT(*) FROM outbox_events").await, 0);
        wait_until(SOON, "the outbox is empty", empty).await;
        assert_eq!(self.number("SELECT COUNT(*) FROM outbox_dead_letters").await, 0, "dead: 0");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_sees_partition_and_offset_of_what_is_delivered_and_the_error_of_what_is_not() {
    let (world, topic) = (World::open().await, name("callbacks"));
    let server = kafka::start().await;
    let (seen, failed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (note, wrong) = (seen.clone(), failed.clone());
    let publisher = publisher_at(&server.url(), &topic, 1).timeout(Duration::from_secs(1));
    let relay = world
        .relay(publisher)
        .on_delivered(move |_, receipt| {
            note.lock().expect("whole").push((receipt.destination.clone(), receipt.position));
        })
        .on_failed(move |_, error, _| wrong.lock().expect("whole").push(error.to_string()));
    let relay = relay.start().await.expect("started");
    world.emit(0..3).await;
    world.drained().await;
    let mut receipts = seen.lock().expect("whole").clone();
    receipts.sort();
    let place = Some(format!("{topic}[0]"));
    assert_eq!(receipts, [(place.clone(), Some(0)), (place.clone(), Some(1)), (place, Some(2))]);
    drop(server);
    world.emit(3..4).await;
    let reported = async || {
        failed.lock().expect("whole").iter().any(|error| error.contains("not confirmed in time"))
    };
    wait_until(SOON, "the failure is reported", reported).await;
    relay.shutdown(SOON).await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_gone_under_load_costs_no_event_and_no_letter_and_all_drains_by_itself() {
    const CHUNK: i64 = 50;
    let (world, topic, mut server) = (World::open().await, name("outage"), kafka::start().await);
    let publisher = publisher_at(&server.url(), &topic, 3).timeout(Duration::from_secs(2));
    let relay = world.relay(publisher).start().await.expect("started");
    world.emit(0..4 * CHUNK).await;
    wait_until(SOON, "events flow", async || tests::above(relay.stats().borrow().delivered, 0))
        .await;
    server.kill().await;
    world.emit(4 * CHUNK..16 * CHUNK).await;
    wait_until(SOON, "the breaker opens", async || {
        tests::equals(relay.stats().borrow().open_breakers, 1)
    })
    .await;
    server.start().await;
    world.emit(16 * CHUNK..18 * CHUNK).await;
    world.drained().await;
    relay.shutdown(SOON).await.expect("stopped");
    let recorder = Recorder::new();
    let mut subscriber = subscriber_at(&server.url(), &topic, 3);
    let all = usize::try_from(18 * CHUNK).expect("few");
    let drain = async {
        while recorder.distinct() < all {
            if let Ok(Some(delivery)) = subscriber.next().await {
                recorder.take(delivery).await;
            }
        }
    };
    tokio::time::timeout(SOON, drain)
        .await
        .unwrap_or_else(|_| panic!("{} of {all} came", recorder.distinct()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_has_forgotten_everything_gets_a_new_producer_and_the_topic_again() {
    let (world, topic, mut server) = (World::open().await, name("amnesia"), kafka::start().await);
    let publisher = publisher_at(&server.url(), &topic, 3).timeout(Duration::from_secs(2));
    let relay = world.relay(publisher).start().await.expect("started");
    world.emit(0..100).await;
    world.drained().await;
    server.kill().await;
    kafka::forget(&server);
    server.start().await;
    world.emit(100..200).await;
    world.drained().await;
    relay.shutdown(SOON).await.expect("stopped");
    let mut subscriber = subscriber_at(&server.url(), &topic, 3);
    for _ in 0..100 {
        next(&mut subscriber).await.ack().await.expect("accepted");
    }
}

#[tokio::test]
async fn a_topic_that_kafka_does_not_take_is_refused_at_enqueue() {
    let world = World::open().await;
    let relay =
        world.relay(KafkaPublisher::new(url()).expect("brokers")).start().await.expect("started");
    let tx = world.outbox.begin().await.expect("a transaction");
    let error = tx.emit(Lost { n: 1 }).expect_err("refused");
    let OutboxError::Limit(LimitError::Topic { topic, .. }) = &error else { panic!("{error:?}") };
    assert_eq!(topic, "no:colon");
    // SQLite has one writer, and a relay that leaves writes.
    tx.rollback().await.expect("rolled back");
    relay.shutdown(SOON).await.expect("stopped");
}
