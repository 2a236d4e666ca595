//! The relay before RabbitMQ: a queue that is gone, and one that is full. SQLite stands for every
//! database.

use crate::support::{SOON, client, name, publisher, queue, url};
use outbox_amqp::{AmqpPublisher, Topology};
use outbox_core::transport::Publisher;
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
    wait_until,
};

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "story.sample", topic = "story")]
pub(crate) struct Sample {
    #[outbox(key)]
    pub(crate) key: String,
    pub(crate) n: i64,
}

/// A database with an outbox in it.
pub(crate) struct World {
    pub(crate) outbox: Outbox,
    pub(crate) db: DatabaseConnection,
    _database: Option<TempDatabase>,
}

impl World {
    pub(crate) async fn open() -> Self {
        let database = TempDatabase::create(Database::Sqlite).await;
        let world = Self::on(&database).await;
        Self { _database: Some(database), ..world }
    }

    /// One in a database that its caller keeps.
    pub(crate) async fn on(database: &TempDatabase) -> Self {
        let db = database.connect().await;
        let outbox =
            Outbox::builder(db.clone()).source("story").install().await.expect("installed");
        Self { outbox, db, _database: None }
    }

    /// Tells events of several keys in one transaction.
    pub(crate) async fn emit(&self, numbers: std::ops::Range<i64>) {
        let tx = self.outbox.begin().await.expect("a transaction");
        for n in numbers {
            tx.emit(Sample { key: format!("k{}", n % 13), n }).expect("encoded");
        }
        tx.commit().await.expect("committed");
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let statement = Statement::from_string(self.db.get_database_backend(), sql);
        let row = self.db.query_one_raw(statement).await.expect("a result").expect("a row");
        row.try_get_by_index(0).expect("a number")
    }

    /// Starts a relay with one route.
    pub(crate) async fn relay(&self, publisher: AmqpPublisher) -> Relay {
        let retry = RetryPolicy::default()
            .backoff(Duration::from_millis(50))
            .max_backoff(Duration::from_millis(200));
        let route = Route::new("rabbit", everything(), publisher).retry(retry);
        Relay::builder(&self.outbox).add_route(route).start().await.expect("started")
    }

    pub(crate) async fn drained(&self) {
        let empty =
            async || tests::equals(self.number("SELECT COUNT(*) FROM outbox_events").await, 0);
        wait_until(SOON, "the outbox is empty", empty).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_deleted_under_the_publisher_lets_events_wait_with_no_route_as_their_error()
{
    const BEFORE: i64 = 40;
    const AFTER: i64 = 100;
    let (world, name) = (World::open().await, name("deleted"));
    let topology = Topology::new().queue(queue(&name));
    let relay = world.relay(publisher().queue(&name).declare(topology.clone())).await;
    world.emit(0..BEFORE).await;
    world.drained().await;

    let client = client(&url()).await;
    client.delete_queue(&name).await;
    world.emit(BEFORE..AFTER).await;
    let named = "SELECT COUNT(*) FROM outbox_retries WHERE errors LIKE '%312 NO_ROUTE%'";
    wait_until(SOON, "NO_ROUTE is named", async || tests::above(world.number(named).await, 0))
        .await;
    assert_eq!(
        world.number("SELECT COUNT(*) FROM outbox_events").await,
        AFTER - BEFORE,
        "all wait"
    );
    let finished = "SELECT COUNT(*) FROM outbox_retries WHERE state <> 'waiting'";
    assert_eq!(world.number(finished).await, 0, "nothing is marked done");
    assert_eq!(world.number("SELECT COUNT(*) FROM outbox_dead_letters").await, 0);
    assert_eq!(relay.stats().borrow().delivered, BEFORE.unsigned_abs());

    // Another publisher declares it again.
    let other = publisher().queue(&name).declare(topology);
    other.publish(&crate::support::full()).await.expect("declared");
    world.drained().await;
    relay.shutdown(SOON).await.expect("stopped");
    assert_eq!(i64::from(client.waiting(&name).await), AFTER - BEFORE + 1, "each is there once");
    assert_eq!(world.number("SELECT COUNT(*) FROM outbox_dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_lets_the_rest_wait_and_drains_as_it_is_read() {
    const EVENTS: i64 = 200;
    let (world, name) = (World::open().await, name("full"));
    let topology = Topology::new().queue(queue(&name).max_length(20));
    let relay = world.relay(publisher().queue(&name).declare(topology.clone())).await;
    world.emit(0..EVENTS).await;
    let refused = "SELECT COUNT(*) FROM outbox_retries WHERE errors LIKE '%basic.nack%'";
    wait_until(SOON, "the queue refuses", async || tests::above(world.number(refused).await, 0))
        .await;
    let mut subscriber = crate::support::subscriber(&name).declare(topology);
    let mut seen = std::collections::BTreeSet::new();
    while i64::try_from(seen.len()).expect("few") < EVENTS {
        let delivery = crate::support::next(&mut subscriber).await;
        seen.insert(delivery.message.as_ref().map(|message| message.id).expect("readable"));
        delivery.ack().await.expect("accepted");
    }
    world.drained().await;
    relay.shutdown(SOON).await.expect("stopped");
    assert_eq!(world.number("SELECT COUNT(*) FROM outbox_dead_letters").await, 0);
}
