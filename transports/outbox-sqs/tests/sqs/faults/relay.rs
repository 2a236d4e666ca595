//! The relay before SQS: a network that is cut under load for ten seconds, a service that forgets.
//! SQLite stands for every database.

use crate::support::{FIFO, SOON, client, publisher_at, start, subscriber_at};
use outbox_core::{
    testing::Recorder,
    transport::{Publisher, Subscriber},
};
use outbox_sea_orm::{
    failure::RetryPolicy,
    prelude::*,
    transport::{Route, everything},
};
use outbox_sqs::SqsPublisher;
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{
    Proxy, above,
    databases::{Database, TempDatabase},
    equals, wait_until,
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

    async fn waiting(&self) -> i64 {
        self.number("SELECT COUNT(*) FROM outbox_events").await
    }

    /// Starts a relay with one route.
    async fn relay(&self, publisher: SqsPublisher) -> Relay {
        let retry = RetryPolicy::default()
            .backoff(Duration::from_millis(50))
            .max_backoff(Duration::from_millis(200));
        let route = Route::new("sqs", everything(), publisher).retry(retry);
        Relay::builder(&self.outbox).add_route(route).start().await.expect("started")
    }

    async fn drained(&self) {
        let empty = async || equals(self.waiting().await, 0);
        wait_until(SOON, "the outbox is empty", empty).await;
    }

    async fn letters(&self) -> i64 {
        self.number("SELECT COUNT(*) FROM outbox_dead_letters").await
    }
}

async fn breaker_opens(relay: &Relay) {
    let open = async || equals(relay.stats().borrow().open_breakers, 1);
    wait_until(SOON, "the breaker opens", open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_cut_for_ten_seconds_under_load_costs_no_event_no_letter_and_no_order() {
    const CHUNK: i64 = 20;
    const CHUNKS: i64 = 12;
    const AWAY: Duration = Duration::from_secs(10);
    let (world, server) = (World::open().await, start().await);
    let proxy = Proxy::before(&server.url()).await;
    let url = proxy.url(&server.url());
    let relay = world.relay(publisher_at(&url, FIFO)).await;
    let (recorder, all) = (Recorder::new(), usize::try_from(CHUNK * CHUNKS).expect("few"));
    let mut subscriber = subscriber_at(&url, FIFO);
    let consume = async {
        while recorder.distinct() < all {
            if let Ok(Some(delivery)) = subscriber.next().await {
                recorder.take(delivery).await;
            }
        }
    };
    let load = async {
        let emit = async |chunks: std::ops::Range<i64>| {
            for chunk in chunks {
                world.emit(chunk * CHUNK..(chunk + 1) * CHUNK).await;
            }
        };
        emit(0..2).await;
        wait_until(SOON, "events arrive", async || above(recorder.distinct(), 0)).await;
        let (_, ()) = tokio::join!(emit(2..8), async { proxy.cut() });
        let since = tokio::time::Instant::now();
        emit(8..10).await;
        breaker_opens(&relay).await;
        tokio::time::sleep_until(since + AWAY).await;
        proxy.come_back();
        emit(10..CHUNKS).await;
        world.drained().await;
    };
    let both = async { tokio::join!(consume, load) };
    let came = tokio::time::timeout(SOON * 2, both).await;
    assert!(came.is_ok(), "{} of {all} came", recorder.distinct());
    relay.shutdown(SOON).await.expect("stopped");
    assert_eq!(recorder.keys_out_of_order(), Vec::<String>::new());
    assert_eq!(world.letters().await, 0);
}

/// An emulator that is killed has forgotten its queues and messages, which Amazon's service does
/// not: what was confirmed is gone with it, and is not sent again; what was not confirmed still
/// waits in the outbox.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_forgets_is_sent_nothing_twice_and_everything_that_was_not_confirmed() {
    const BEFORE: i64 = 40;
    const AFTER: i64 = 100;
    let (world, mut server) = (World::open().await, start().await);
    let relay = world.relay(publisher_at(&server.url(), FIFO)).await;
    world.emit(0..BEFORE).await;
    world.drained().await;
    assert_eq!(client(&server).depth(FIFO).await.0, BEFORE);
    server.kill().await;
    world.emit(BEFORE..AFTER).await;
    breaker_opens(&relay).await;
    assert_eq!(world.waiting().await, AFTER - BEFORE);
    server.start().await;
    world.drained().await;
    relay.shutdown(SOON).await.expect("stopped");
    assert_eq!(
        client(&server).depth(FIFO).await.0,
        AFTER - BEFORE,
        "each once, and none of before"
    );
    assert_eq!(world.letters().await, 0);
    // A publisher of its own finds the queue that was declared again.
    let publisher = SqsPublisher::new(server.url()).expect("a URL").queue(FIFO);
    publisher.publish(&crate::support::full()).await.expect("confirmed");
}
