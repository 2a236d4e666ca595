//! The relay before MQTT: a server that is away for a while, and one message that it cannot bear.
//! SQLite stands for every database.

use crate::support::{SOON, publisher, subscribed};
use outbox_core::{testing::Recorder, transport::Subscriber};
use outbox_mqtt::MqttPublisher;
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
    servers::mosquitto,
    wait_until,
};
use tokio::time::{Instant, interval};

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "story.sample", topic = "orders")]
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

    /// Emits events of several keys in one transaction.
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

    async fn letters(&self) -> i64 {
        self.number("SELECT COUNT(*) FROM outbox_dead_letters").await
    }

    /// Starts a relay whose events have three attempts.
    async fn relay(&self, publisher: MqttPublisher) -> Relay {
        let retry = RetryPolicy::attempts(3, Duration::from_millis(50))
            .max_backoff(Duration::from_millis(200));
        let route = Route::new("mqtt", everything(), publisher).retry(retry);
        Relay::builder(&self.outbox).add_route(route).start().await.expect("started")
    }

    async fn drained(&self) {
        let empty =
            async || tests::equals(self.number("SELECT COUNT(*) FROM outbox_events").await, 0);
        wait_until(SOON, "the outbox is empty", empty).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_for_ten_seconds_under_load_costs_no_event_no_attempt_and_no_order() {
    const AWAY: Duration = Duration::from_secs(10);
    const CHUNK: i64 = 20;
    let (world, mut server) = (World::open().await, mosquitto::start().await);
    let mut subscriber = subscribed(&server).await;
    let relay = world.relay(publisher(&server)).await;
    let mut chunks = 0;
    let mut emit = async || {
        world.emit(chunks * CHUNK..(chunks + 1) * CHUNK).await;
        chunks += 1;
    };
    for _ in 0..5 {
        emit().await;
    }
    wait_until(SOON, "events flow", async || tests::above(relay.stats().borrow().delivered, 0))
        .await;
    server.stop().await;
    let (back, mut ticks) = (Instant::now() + AWAY, interval(Duration::from_millis(500)));
    while Instant::now() < back {
        ticks.tick().await;
        emit().await;
    }
    wait_until(SOON, "the breaker is open", async || {
        tests::equals(relay.stats().borrow().open_breakers, 1)
    })
    .await;
    server.start().await;
    emit().await;
    world.drained().await;
    relay.shutdown(SOON).await.expect("stopped");
    assert_eq!(world.letters().await, 0, "three attempts would be over in a second");

    let (recorder, all) = (Recorder::new(), usize::try_from(chunks * CHUNK).expect("few"));
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_that_the_server_ends_the_connection_over_is_a_dead_letter_and_blocks_nothing() {
    let (world, server) = (World::open().await, mosquitto::start().await);
    let mut subscriber = subscribed(&server).await;
    // Mosquitto ends the connection over a topic with more than 200 levels.
    let publisher = publisher(&server).topic(|message| match &message.payload[..] {
        payload if payload.ends_with(b"\"n\":7}") => "a/".repeat(201),
        _ => message.topic.clone(),
    });
    let relay = world.relay(publisher).await;
    let recorder = Recorder::new();
    let mut emitted = 0;
    let until_buried = async {
        while world.letters().await == 0 {
            world.emit(emitted..emitted + 20).await;
            emitted += 20;
            // What is behind the culprit in its key waits for it.
            let others = u64::try_from(emitted - 1 - emitted / 13).expect("few");
            wait_until(SOON, "all others are delivered", async || {
                relay.stats().borrow().delivered >= others || world.letters().await > 0
            })
            .await;
        }
    };
    tokio::time::timeout(SOON, until_buried).await.expect("it is buried");
    world.drained().await;
    relay.shutdown(SOON).await.expect("stopped");
    assert_eq!(world.letters().await, 1);
    let error = "SELECT COUNT(*) FROM outbox_dead_letters WHERE errors LIKE '%this message alone%'";
    assert_eq!(world.number(error).await, 1, "the letter says why");
    let all = usize::try_from(emitted - 1).expect("few");
    let drain = async {
        while recorder.distinct() < all {
            recorder.take(crate::support::next(&mut subscriber).await).await;
        }
    };
    let came = tokio::time::timeout(SOON, drain).await;
    assert!(came.is_ok(), "{} of {all} came", recorder.distinct());
}
