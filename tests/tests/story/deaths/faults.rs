//! Connections are cut, servers stop, files are locked, while the relay works.

use crate::support::{
    Deliveries, Destination, LATE, LEASE, SOON, VictimConfig, World, keys, on_servers, relay,
    victim,
};
use outbox_sea_orm::transport::everything;
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tests::{
    databases::{Database, TempDatabase, run_on},
    servers::{self, Server},
};

/// How long the database is stopped.
const AWAY: Duration = Duration::from_secs(10);
/// How many times all sessions of the relay are ended.
const CUTS: u32 = 15;

/// Ends every other session on the database.
async fn cut_all(connection: &DatabaseConnection, database: Database) {
    use sea_orm::{DbBackend, Statement};
    if database == Database::Postgres {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        connection.execute_unprepared(sql).await.unwrap();
        return;
    }
    let sql = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist \
               WHERE db = DATABASE() AND id <> CONNECTION_ID()";
    for row in
        connection.query_all_raw(Statement::from_string(DbBackend::MySql, sql)).await.unwrap()
    {
        let id: i64 = row.try_get_by_index(0).unwrap();
        // It may have ended by itself.
        let _ = connection.execute_unprepared(&format!("KILL {id}")).await;
    }
}

// SQLite has no sessions that another could end.
on_servers! {
    async fn sessions_that_are_ended_again_and_again_cost_nothing(db: &TempDatabase) {
        let (world, destination) = (World::open(db).await, Destination::new());
        let expected = keys(50, 400);
        world.emit_all(&expected).await;
        let one = db.connect_with(|options| _ = options.max_connections(1)).await;
        let source = world.source();
        let running = relay(&source, LEASE * 2).route("a", everything(), destination.publisher("a"));
        let running = running.start().await.unwrap();
        destination.wait_for(100, SOON).await;
        for _ in 0..CUTS {
            let seen = destination.count();
            cut_all(&one, db.database()).await;
            // Somewhere in the middle of what follows, or where nothing is left.
            let moved = async || {
                let count = destination.count();
                count > seen + 300 || count >= expected.len()
            };
            tests::wait_until(SOON, "the relay goes on after its sessions ended", moved).await;
        }
        // The pool of the world lost its connections too: a query finds the dead ones.
        let answers = async || world.db.ping().await.is_ok();
        tests::wait_until(SOON, "the pool has replaced its dead connections", answers).await;
        world.drained(LATE).await;
        running.shutdown(SOON).await.unwrap();
        Deliveries::of(&destination.confirmed()).is_whole(&expected).is_in_order();
    }
}

/// A server stops while a relay and producers work, and comes back.
async fn comes_back(server: &mut Server) {
    let mut options = ConnectOptions::new(server.url());
    options.sqlx_logging(false).max_connections(5).acquire_timeout(Duration::from_secs(2));
    let world = Arc::new(World::on(sea_orm::Database::connect(options).await.unwrap()).await);
    let destination = Destination::new();
    let source = world.source();
    let running = relay(&source, LEASE)
        .route("a", everything(), destination.publisher("a"))
        .start()
        .await
        .unwrap();
    let expected = keys(50, 400);
    world.emit_all(&expected).await;
    destination.wait_for(1_000, SOON).await;
    server.stop().await;
    tokio::time::sleep(AWAY).await;
    server.start().await;
    let answers = async || world.db.ping().await.is_ok();
    tests::wait_until(SOON, "the pool has replaced its dead connections", answers).await;
    world.drained(LATE).await;
    world.emit("k0", 401).await;
    world.drained(SOON).await;
    running.shutdown(SOON).await.unwrap();
    let mut expected = expected;
    expected.insert("k0".into(), 401);
    Deliveries::of(&destination.confirmed()).is_whole(&expected).is_in_order();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_stops_under_load_and_comes_back_costs_nothing() {
    comes_back(&mut servers::postgres::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mariadb_that_stops_under_load_and_comes_back_costs_nothing() {
    comes_back(&mut servers::mariadb::start().await).await;
}

#[test]
fn a_sqlite_file_that_another_process_locks_costs_nothing() {
    run_on(Database::Sqlite, file_locked);
}

async fn file_locked(db: &TempDatabase) {
    let (world, destination) = (Arc::new(World::open(db).await), Destination::new());
    let source = world.source();
    let running = relay(&source, LEASE)
        .route("a", everything(), destination.publisher("a"))
        .start()
        .await
        .unwrap();
    let expected = keys(50, 400);
    world.emit_all(&expected).await;
    destination.wait_for(1_000, SOON).await;
    let locker =
        VictimConfig { url: db.url().to_owned(), locks_the_file: true, ..VictimConfig::default() };
    let mut locker = victim(&locker).await;
    let is_locked = Arc::new(AtomicBool::new(true));
    let emitting = {
        let (world, is_locked) = (world.clone(), is_locked.clone());
        tokio::spawn(async move {
            // A producer waits for the lock as long as its driver does, and then tries again.
            loop {
                let Ok(tx) = world.outbox.begin().await else { continue };
                tx.emit(crate::support::Sample::new("k0", 401)).unwrap();
                tx.commit().await.unwrap();
                return is_locked.load(Ordering::SeqCst);
            }
        })
    };
    tokio::time::sleep(AWAY).await;
    is_locked.store(false, Ordering::SeqCst);
    locker.kill().await;
    assert!(!emitting.await.unwrap(), "the file was locked until then");
    world.drained(LATE).await;
    running.shutdown(SOON).await.unwrap();
    let mut expected = expected;
    expected.insert("k0".into(), 401);
    Deliveries::of(&destination.confirmed()).is_whole(&expected).is_in_order();
}
