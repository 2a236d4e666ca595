//! Connections and locks of the transactions of consumers.

use crate::{
    script::{Actor, What},
    world::{Handle, Receiving, SOON, World, handle, message},
};
use outbox_core::{outbox::Store, transport::Delivery};
use outbox_sea_orm::prelude::*;
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use std::time::Duration;
use tests::{
    databases::{Database, TempDatabase, run_on},
    holds_within, wait_until,
};
use tokio::sync::{mpsc, oneshot};

/// Ends all sessions of the database but its own.
async fn end_sessions(temp: &TempDatabase) {
    let db = temp
        .connect_with(|options| {
            options.max_connections(1);
        })
        .await;
    let (list, end) = match db.get_database_backend() {
        DbBackend::Postgres => (
            "SELECT pid::bigint FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
             AND backend_type = 'client backend'",
            "SELECT pg_terminate_backend",
        ),
        _ => (
            "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE db = database() AND id <> connection_id()",
            "KILL ",
        ),
    };
    let query = || Statement::from_string(db.get_database_backend(), list);
    let sessions = db.query_all_raw(query()).await.unwrap();
    assert!(sessions.len() > 1, "the consumer has several connections");
    for session in sessions {
        let id: i64 = session.try_get_by_index(0).unwrap();
        // One that has ended meanwhile is no fault.
        let _ = db.execute_unprepared(&format!("{end}({id})")).await;
    }
    wait_until(SOON, "they are gone", async || {
        tests::equals(db.query_all_raw(query()).await.unwrap().len(), 0)
    })
    .await;
}

async fn begins_over_another_connection(db: &TempDatabase) {
    let world = World::open(db).await;
    for (name, batched) in [("single", false), ("batched", true)] {
        let actor = Actor::default();
        let consumer = || {
            let consumer = world.consumer(name, &actor).concurrency(4).prefetch(64);
            if batched { consumer.batch_eagerly() } else { consumer.one_by_one() }
        };
        let messages =
            |from| (from..from + 20).map(|n| message(n, None, What::Ends)).collect::<Vec<_>>();
        handle(&world, consumer(), &messages(0)).await;
        end_sessions(db).await;
        let stats = handle(&world, consumer(), &messages(20)).await;
        assert_eq!((stats.handled, stats.disturbed, stats.returned), (20, 0, 0), "{name}");
        assert_eq!(world.left(name).await.effects.len(), 40);
    }
}

#[test]
fn a_transaction_begins_over_another_connection_where_idle_ones_were_lost_on_postgres() {
    run_on(Database::Postgres, begins_over_another_connection);
}

#[test]
fn a_transaction_begins_over_another_connection_where_idle_ones_were_lost_on_mariadb() {
    run_on(Database::MariaDb, begins_over_another_connection);
}

async fn waits_for_its_connection(temp: &TempDatabase) {
    World::open(temp).await;
    let db = temp.connect_with(|options| _ = options.max_connections(1)).await;
    let outbox = Outbox::builder(db.clone()).source("batches").build().await.unwrap();
    let (world, actor) = (World { db, outbox }, Actor::default());
    let (sender, receiver) = mpsc::unbounded_channel();
    let consumer = world.consumer("c", &actor).concurrency(1).prefetch(64).batch_eagerly();
    let handle = consumer.subscribe(Receiving(receiver)).start().await.unwrap();
    let mut stats = handle.stats();
    stats.wait_for(|stats| !stats.isolating).await.unwrap();
    let deliver = |n, what| {
        let handle = Box::new(Handle(oneshot::channel().0));
        sender.send(Delivery::new(Ok(message(n, None, what)), None, handle)).unwrap();
    };
    let runs = || actor.runs.lock().unwrap().len();
    // It has the only connection, while the others arrive and another transaction waits for it.
    deliver(0, What::Sleeps(300));
    wait_until(SOON, "the first one runs", async || tests::equals(runs(), 1)).await;
    (1..20).for_each(|n| deliver(n, What::Ends));
    let held = Store::begin(&world.outbox).await.unwrap();
    let others_run = holds_within(Duration::from_millis(1_500), async || runs() > 1).await;
    assert!(!others_run, "they wait for the connection, for longer than a batch may take");
    held.rollback().await.unwrap();
    stats.wait_for(|stats| stats.handled == 20).await.unwrap();
    let seen = *stats.borrow();
    handle.shutdown(SOON).await.unwrap();
    assert_eq!(seen.batches_rolled_back, 0, "{seen:?}");
    assert!(seen.batches > 0, "{seen:?}");
}

#[test]
fn a_batch_that_waits_for_its_connection_counts_as_no_failure_on_postgres() {
    run_on(Database::Postgres, waits_for_its_connection);
}

#[test]
fn a_batch_that_waits_for_its_connection_counts_as_no_failure_on_mariadb() {
    run_on(Database::MariaDb, waits_for_its_connection);
}

#[test]
fn an_application_that_waits_for_the_only_writer_is_seen() {
    run_on(Database::Sqlite, async |db: &TempDatabase| {
        let world = World::open(db).await;
        let held = world.outbox.begin().await.unwrap();
        assert!(!world.outbox.has_waiting_writer(), "it has the lock");
        let outbox = world.outbox.clone();
        let waiting = tokio::spawn(async move { outbox.begin().await.map(drop) });
        wait_until(SOON, "it is seen", async || {
            tests::equals(world.outbox.has_waiting_writer(), true)
        })
        .await;
        held.rollback().await.unwrap();
        waiting.await.unwrap().unwrap();
        assert!(!world.outbox.has_waiting_writer(), "it waits no more");
    });
}
