//! Connections to the database that are lost: by a statement of the handler itself, by a late
//! response, or because the pool is full.

use crate::support::{AckDecision, Cx, Queue, SOON, Sample, World, effect, message, on_servers};
use futures_util::future::join_all;
use outbox_core::outbox::InstanceStore;
use outbox_sea_orm::{
    Outbox, TransactionLimits,
    consumer::{Consumer, EventHandler, HandlerError},
};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend};
use std::{sync::Arc, time::Duration};
use tests::{Proxy, databases::TempDatabase, holds_within, wait_until};
use tokio::{sync::Semaphore, time::timeout};

const SECOND: Duration = Duration::from_secs(1);
/// The key whose handler ends its own connection.
const BAD: &str = "bad";

/// Ends the session that it runs in.
async fn end_session<C: ConnectionTrait>(conn: &C) -> Result<(), sea_orm::DbErr> {
    let kill = match conn.get_database_backend() {
        DbBackend::Postgres => "SELECT pg_terminate_backend(pg_backend_pid())",
        _ => "KILL CONNECTION_ID()",
    };
    conn.execute_unprepared(kill).await.map(|_| ())
}

async fn deadly(sample: Sample, cx: &Cx) -> Result<(), HandlerError> {
    if sample.key == BAD {
        end_session(&cx.tx).await?;
    }
    Ok(effect(sample, cx).await?)
}

async fn pool(url: &str, connections: u32) -> DatabaseConnection {
    let mut options = sea_orm::ConnectOptions::new(url);
    options
        .sqlx_logging(false)
        .max_connections(connections)
        .acquire_timeout(SECOND)
        .test_before_acquire(false);
    sea_orm::Database::connect(options).await.unwrap()
}

fn is_idle(db: &DatabaseConnection) -> bool {
    match db.get_database_backend() {
        DbBackend::Postgres => db.get_postgres_connection_pool().num_idle() == 1,
        _ => db.get_mysql_connection_pool().num_idle() == 1,
    }
}

async fn outbox_on(db: DatabaseConnection) -> Outbox {
    let limits = TransactionLimits::new().idle(SECOND).lock_wait(SECOND);
    Outbox::builder(db).source("story").transaction_limits(limits).build().await.unwrap()
}

/// Has its effect, and then waits for the test.
struct Holding(Arc<Semaphore>);

impl EventHandler<Sample, Outbox> for Holding {
    async fn handle(&self, sample: Sample, cx: &Cx) -> Result<(), HandlerError> {
        effect(sample, cx).await?;
        let _open = self.0.acquire().await?;
        Ok(())
    }
}

on_servers! {
    async fn a_handler_that_ends_its_own_connection_each_time_is_a_letter_and_holds_nobody_up(db: &TempDatabase) {
        let world = World::open(db).await;
        let (queue, subscriber) = Queue::open();
        let consumer = Consumer::builder("story", &world.outbox).on("effect", deadly).subscribe(subscriber);
        let handle = consumer.start().await.unwrap();
        let bad = queue.deliver(Ok(message(BAD, 1)));
        let good: Vec<_> = (0..20).map(|key| queue.deliver(Ok(message(&format!("k{key}"), 1)))).collect();
        let good = timeout(SOON, join_all(good)).await.expect("the others are handled");
        assert!(good.iter().all(|answer| *answer == AckDecision::Ack), "{good:?}");
        timeout(SOON, bad).await.expect("the bad one is answered");
        wait_until(SOON, "the bad one is a letter", async || world.count("outbox_dead_letters").await == 1).await;
        let stats = *handle.stats().borrow();
        handle.shutdown(SOON).await.unwrap();
        assert_eq!((world.count("story_effects").await, stats.store_down), (20, false), "{stats:?}");
    }

    async fn a_begin_that_is_answered_late_leaves_the_application_no_open_transaction(db: &TempDatabase) {
        let world = World::open(db).await;
        let proxy = Proxy::before(db.url()).await;
        let app = pool(&proxy.url(db.url()), 1).await;
        let outbox = outbox_on(app.clone()).await;
        app.execute_unprepared("CREATE TABLE story_rows (n BIGINT)").await.unwrap();
        wait_until(SOON, "the connection is back in the pool", async || is_idle(&app)).await;
        proxy.vanish();
        let error = timeout(SOON, outbox.begin()).await.expect("it is not waited for for ever").unwrap_err();
        assert!(format!("{error:?}").contains("BEGIN"), "{error:?}");
        proxy.come_back();
        let insert = async || app.execute_unprepared("INSERT INTO story_rows VALUES (1)").await.is_ok();
        wait_until(SOON, "the application's pool is well again", insert).await;
        assert_eq!(world.count("story_rows").await, 1, "the row is committed");
    }

    async fn instances_whose_handlers_take_all_connections_live(db: &TempDatabase) {
        let world = World::open(db).await;
        let busy = outbox_on(pool(db.url(), 2).await).await;
        let holding = Holding(Arc::new(Semaphore::new(0)));
        let gate = holding.0.clone();
        let (busy_queue, subscriber) = Queue::open();
        let consumer = Consumer::builder("story", &busy).on("effect", holding).subscribe(subscriber);
        let busy_handle = consumer.concurrency(2).lease(2 * SECOND).start().await.unwrap();
        let (_queue, subscriber) = Queue::open();
        let consumer = Consumer::builder("story", &world.outbox).on("effect", deadly).subscribe(subscriber);
        let other = consumer.lease(2 * SECOND).start().await.unwrap();
        wait_until(SOON, "both live", async || !other.stats().borrow().isolating && !busy_handle.stats().borrow().isolating).await;
        let held: Vec<_> = (0..2).map(|key| busy_queue.deliver(Ok(message(&format!("k{key}"), 1)))).collect();
        // Both run in this process and know of each other; another process would read the row.
        let is_over = async || world.outbox.instances("story").await.unwrap().iter().any(|row| row.expired_for.is_some());
        assert!(!holds_within(5 * SECOND, is_over).await, "a lease runs out while its handlers wait");
        gate.add_permits(Semaphore::MAX_PERMITS);
        timeout(SOON, join_all(held)).await.expect("both are answered");
        busy_handle.shutdown(SOON).await.unwrap();
        other.shutdown(SOON).await.unwrap();
    }
}
