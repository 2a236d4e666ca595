//! The relay before Redis: a server without memory, and one that is killed under load. SQLite
//! stands for every database.

use crate::support::{SOON, client, durable, publisher, subscriber};
use outbox_core::{
    testing::Recorder,
    transport::{Publisher, Subscriber},
};
use outbox_redis::RedisPublisher;
use outbox_sea_orm::{
    failure::RetryPolicy,
    prelude::*,
    transport::{Route, everything},
};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{
    databases::{Database, TempDatabase},
    servers::redis as server,
    wait_until,
};

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "story.sample", topic = "story")]
struct Sample {
    #[outbox(key)]
    key: String,
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

    /// Tells events of several keys in one transaction.
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

    /// Starts a relay with one route.
    async fn relay(&self, publisher: RedisPublisher) -> Relay {
        let retry = RetryPolicy::default()
            .backoff(Duration::from_millis(50))
            .max_backoff(Duration::from_millis(200));
        let route = Route::new("redis", everything(), publisher).retry(retry);
        Relay::builder(&self.outbox).add_route(route).start().await.expect("started")
    }

    async fn drained(&self) {
        let empty =
            async || tests::equals(self.number("SELECT COUNT(*) FROM outbox_events").await, 0);
        wait_until(SOON, "the outbox is empty", empty).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_lets_events_wait_and_drains_by_itself() {
    const BEFORE: i64 = 40;
    const AFTER: i64 = 100;
    let (world, server) = (World::open().await, server::start().await);
    let admin = client(&server).await;
    let relay = world.relay(publisher(&server)).await;
    world.emit(0..BEFORE).await;
    world.drained().await;

    admin.ask::<()>("CONFIG SET maxmemory 1").await;
    world.emit(BEFORE..AFTER).await;
    wait_until(SOON, "the breaker opens", async || {
        tests::equals(relay.stats().borrow().open_breakers, 1)
    })
    .await;
    assert_eq!(world.number("SELECT COUNT(*) FROM outbox_events").await, AFTER - BEFORE);
    admin.ask::<()>("CONFIG SET maxmemory 0").await;
    world.drained().await;
    relay.shutdown(SOON).await.expect("stopped");
    assert_eq!(admin.ask::<i64>("XLEN orders").await, AFTER, "each is there once");
    assert_eq!(world.number("SELECT COUNT(*) FROM outbox_dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_costs_no_event_and_no_letter_and_drains_by_itself() {
    const CHUNK: i64 = 50;
    const CHUNKS: i64 = 12;
    let (world, mut server) = (World::open().await, durable().await);
    let relay = world.relay(publisher(&server)).await;
    let emit = async |chunks: std::ops::Range<i64>| {
        for chunk in chunks {
            world.emit(chunk * CHUNK..(chunk + 1) * CHUNK).await;
        }
    };
    emit(0..2).await;
    wait_until(SOON, "events flow", async || tests::above(relay.stats().borrow().delivered, 0))
        .await;
    let (_, ()) = tokio::join!(emit(2..8), server.kill());
    emit(8..10).await;
    wait_until(SOON, "the breaker opens", async || {
        tests::equals(relay.stats().borrow().open_breakers, 1)
    })
    .await;
    server.start().await;
    emit(10..CHUNKS).await;
    world.drained().await;
    relay.shutdown(SOON).await.expect("stopped");

    let (recorder, all) = (Recorder::new(), usize::try_from(CHUNK * CHUNKS).expect("few"));
    let mut subscriber = subscriber(&server);
    let drain = async {
        while recorder.distinct() < all {
            if let Ok(Some(delivery)) = subscriber.next().await {
                recorder.take(delivery).await;
            }
        }
    };
    let came = tokio::time::timeout(SOON, drain).await;
    assert!(came.is_ok(), "{} of {all} came", recorder.distinct());
    assert_eq!(recorder.keys_out_of_order(), Vec::<String>::new());
    assert_eq!(world.number("SELECT COUNT(*) FROM outbox_dead_letters").await, 0);
    // A publisher of its own is told of nothing that happened before.
    publisher(&server).publish(&crate::support::full()).await.expect("confirmed");
}
