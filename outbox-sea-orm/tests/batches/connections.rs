//! Connections and locks of the transactions of consumers.

use crate::{
    script::{Actor, What},
    world::{SOON, World, handle, message},
};
use outbox_core::outbox::Store;
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use tests::{
    databases::{Database, TempDatabase, run_on},
    wait_until,
};

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
            if batched { consumer.batch_eagerly() } else { consumer }
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
