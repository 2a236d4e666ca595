//! The relay's own connections: apart from the application's, bounded in time, and never left
//! half-way.

use crate::outbox::{LEASE, installed, owner_of_all, read_all, writing};
use outbox_core::{
    admin::AdminStore,
    event::RelayId,
    failure::DeadReason,
    outbox::{
        Fence, NewLetter, PartitionNo, RelayStore, RetrierStore, RouteRow, RouteState, RouteUpdate,
        Store, StoreError,
    },
    testing::store::{PARTITIONS, event},
};
use outbox_sea_orm::{
    Namespace, Outbox, Schema, StoreOptions, TransactionLimits, install, open_relay_store,
};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement, TransactionTrait};
use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};
use tests::{
    databases::{Database, TempDatabase, open_transactions, waiting_for_locks},
    on_every_database, wait_until,
};
use tokio::sync::Notify;

/// Polls a future as often as said, each time that it asks for it, and drops it where it is not
/// ready by then.
async fn drop_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

fn update(at: (PartitionNo, outbox_core::event::EventId)) -> RouteUpdate {
    let dead = RouteRow { state: RouteState::Dead, ..RouteRow::waiting("billing".into()) };
    let waiting = RouteRow::waiting("ledger".into());
    let letters =
        vec![NewLetter { route: "billing".into(), reason: DeadReason::Rejected, parks: true }];
    RouteUpdate { partition: at.0, id: at.1, rows: vec![dead, waiting], letters }
}

/// Cancels every kind of writing call after each number of polls, and checks that no other caller
/// waits for it.
async fn cancel_everything(db: &DatabaseConnection, schema: &std::sync::Arc<Schema>) {
    let (store, fence) = owner_of_all(db, schema, LEASE).await;
    schema.append(db, "/shop", &[event("a"), event("b")]).await.unwrap();
    db.execute_unprepared("CREATE TABLE diary (line INTEGER)").await.unwrap();
    let places: Vec<_> =
        read_all(&*store.reader).await.iter().map(|e| (e.partition, e.id)).collect();
    let mut lines = 0;
    for polls in 0..30 {
        let updates = [update(places[0])];
        let relay = RelayId::generate();
        drop_after(polls, store.settler.record(&fence, &updates)).await;
        drop_after(polls, store.leases.renew(&relay, 1, LEASE)).await;
        drop_after(polls, store.leases.deregister(&relay)).await;
        drop_after(polls, store.reader.fetch(&places, u32::MAX)).await;
        drop_after(polls, store.leases.release(&fence.relay, &[])).await;
        drop_after(polls, store.janitor.prune(10)).await;

        // An application that writes in between: what it wrote stays, and it waits for nobody.
        let write = db.execute_unprepared("INSERT INTO diary (line) VALUES (1)");
        tokio::time::timeout(Duration::from_secs(5), write)
            .await
            .expect("nobody is in the way")
            .unwrap();
        lines += 1;
        let tx = writing(db).await;
        tx.execute_unprepared("UPDATE outbox_partitions SET epoch = epoch").await.unwrap();
        tx.commit().await.unwrap();
        let count = Statement::from_string(db.get_database_backend(), "SELECT count(*) FROM diary");
        let written: i64 =
            db.query_one_raw(count).await.unwrap().unwrap().try_get_by_index(0).unwrap();
        assert_eq!(written, lines, "a write of the application was undone after {polls} polls");
    }
    let settled = store.settler.record(&fence, &[update(places[0])]).await.unwrap();
    assert_eq!(settled.letters.len(), 1, "one letter, however often it was tried");
    assert_eq!(store.settler.finish(&fence, &places[1..]).await.unwrap().deleted, 1);
}

/// Holds the rows of all partitions (SQLite: the file) for as long as the transaction lives.
async fn hold_partitions(db: &DatabaseConnection) -> sea_orm::DatabaseTransaction {
    let tx = writing(db).await;
    tx.execute_unprepared("UPDATE outbox_partitions SET epoch = epoch").await.unwrap();
    tx
}

on_every_database! {
    async fn a_call_that_is_dropped_at_any_point_hinders_nobody(temp: &TempDatabase) {
        let db = temp.connect().await;
        let schema = installed(&db, &Namespace::default()).await;
        cancel_everything(&db, &schema).await;
    }

    async fn a_single_statement_that_is_dropped_at_any_point_leaves_no_session_in_a_transaction(temp: &TempDatabase) {
        let db = temp.connect_with(|options| { options.max_connections(1); }).await;
        installed(&db, &Namespace::default()).await;
        let outbox = Outbox::builder(db).source("/shop").build().await.unwrap();
        let onlooker = temp.connect().await;
        let mut dropped = 0;
        for polls in 0..60 {
            let statement = RetrierStore::prune_inbox(&outbox, 10);
            dropped += usize::from(drop_after(polls % 12, statement).await.is_none());
            let at_rest = async || open_transactions(&onlooker).await == 0;
            wait_until(Duration::from_secs(10), "no session is inside a transaction", at_rest).await;
            // MariaDB refuses the isolation of this one on a session that is inside a transaction.
            let next = RetrierStore::begin_stored(&outbox).await;
            let next = next.unwrap_or_else(|error| panic!("dropped after {polls} polls: {error:?}"));
            next.execute_unprepared("SELECT 1").await.unwrap();
            next.rollback().await.unwrap();
        }
        assert!(dropped > 10, "{dropped}");
    }

    async fn a_settle_that_waits_too_long_for_a_lock_says_that_the_database_is_busy(temp: &TempDatabase) {
        let db = temp.connect_with(|options| { options.max_connections(3); }).await;
        let schema = installed(&db, &Namespace::default()).await;
        let (store, fence) = owner_of_all(&db, &schema, Duration::from_secs(3)).await;
        schema.append(&db, "/shop", &[event("a")]).await.unwrap();
        let place = read_all(&*store.reader).await.first().map(|e| (e.partition, e.id)).unwrap();
        let held = hold_partitions(&db).await;
        let started = Instant::now();
        let result = store.settler.finish(&fence, &[place]).await;
        assert!(matches!(result, Err(StoreError::Busy(_))), "{result:?}");
        let waited = started.elapsed();
        assert!(waited > Duration::from_millis(700) && waited < Duration::from_secs(10), "{waited:?}");
        held.rollback().await.unwrap();
        assert_eq!(store.settler.finish(&fence, &[place]).await.unwrap().deleted, 1, "on the same connection");
    }

    async fn an_application_that_uses_up_its_pool_does_not_stop_the_relay(temp: &TempDatabase) {
        let db = temp.connect_with(|options| { options.max_connections(1); }).await;
        let schema = installed(&db, &Namespace::default()).await;
        let (store, fence) = owner_of_all(&db, &schema, LEASE).await;
        schema.append(&db, "/shop", &[event("a")]).await.unwrap();
        // A transaction that reads, and stays.
        let reading = sea_orm::TransactionTrait::begin(&db).await.unwrap();
        reading.query_all_raw(Statement::from_string(db.get_database_backend(), "SELECT 1")).await.unwrap();
        let places: Vec<_> = read_all(&*store.reader).await.iter().map(|e| (e.partition, e.id)).collect();
        assert_eq!(store.settler.finish(&fence, &places).await.unwrap().deleted, 1);
        assert!(store.leases.renew(&fence.relay, 1, LEASE).await.unwrap().known);
        reading.rollback().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_on_a_shared_connection_in_memory_leaves_it_clean() {
    let db = sea_orm::Database::connect("sqlite::memory:").await.unwrap();
    let schema = installed(&db, &Namespace::default()).await;
    cancel_everything(&db, &schema).await;
}

/// Lets a settle and a record wait for a takeover that commits; on PostgreSQL, whose default is
/// SERIALIZABLE there.
async fn is_fenced(database: Database) {
    let temp = TempDatabase::create(database).await;
    if database == Database::Postgres {
        let stricter = format!(
            "ALTER DATABASE {} SET default_transaction_isolation = 'serializable'",
            temp.name()
        );
        temp.connect().await.execute_unprepared(&stricter).await.unwrap();
    }
    let db = temp.connect().await;
    let schema = installed(&db, &Namespace::default()).await;
    let (store, fence) = owner_of_all(&db, &schema, LEASE).await;
    schema.append(&db, "/shop", &[event("a")]).await.unwrap();
    let place = read_all(&*store.reader).await.first().map(|e| (e.partition, e.id)).unwrap();
    let tx = writing(&db).await;
    tx.execute_unprepared("UPDATE outbox_partitions SET owner = 'another', epoch = epoch + 1")
        .await
        .unwrap();
    let settle = {
        let (settler, fence) = (store.settler.clone(), fence.clone());
        tokio::spawn(async move { settler.finish(&fence, &[place]).await })
    };
    let recorded = {
        let (store, fence): (RelayStore, Fence) = (
            open_relay_store(&db, &schema, &StoreOptions::new(LEASE)).await.unwrap(),
            fence.clone(),
        );
        tokio::spawn(async move { store.settler.record(&fence, &[update(place)]).await })
    };
    let both_wait = async || waiting_for_locks(&db).await >= 2;
    tests::wait_until(Duration::from_secs(8), "both wait for the takeover", both_wait).await;
    tx.commit().await.unwrap();
    for settled in [settle.await.unwrap().unwrap(), recorded.await.unwrap().unwrap()] {
        assert!(settled.held.is_empty() && settled.letters.is_empty(), "{settled:?}");
        assert_eq!(settled.deleted, 0);
    }
    assert_eq!(read_all(&*store.reader).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_that_a_settle_waited_for_fences_it_whatever_the_isolation_on_postgresql() {
    is_fenced(Database::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_that_a_settle_waited_for_fences_it_on_mariadb() {
    is_fenced(Database::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_finds_its_way_back_after_the_server_ended_its_connections() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let db = temp.connect().await;
    let schema = installed(&db, &Namespace::default()).await;
    let (store, fence) = owner_of_all(&db, &schema, LEASE).await;
    for _ in 0..3 {
        let end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                       WHERE datname = current_database() AND pid <> pg_backend_pid()";
        db.execute_unprepared(end_all).await.unwrap();
        match store.leases.renew(&fence.relay, 1, LEASE).await {
            Ok(_) | Err(StoreError::Unavailable(_)) => {}
            Err(other) => panic!("a connection that is gone is unavailable, not {other:?}"),
        }
        let renewal =
            store.leases.renew(&fence.relay, 1, LEASE).await.expect("the next call opens another");
        assert!(renewal.known);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_unavailable() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let db = temp.connect().await;
    let schema = installed(&db, &Namespace::default()).await;
    let (store, fence) = owner_of_all(&db, &schema, LEASE).await;
    drop(temp);
    for _ in 0..2 {
        let result = store.leases.renew(&fence.relay, 1, LEASE).await;
        assert!(
            matches!(result, Err(StoreError::Unavailable(_) | StoreError::Unusable(_))),
            "{result:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooler_every_setting_travels_with_its_transaction() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let db = temp.connect().await;
    let schema = installed(&db, &Namespace::default()).await;
    let options = StoreOptions::new(Duration::from_secs(3)).behind_pooler(true);
    let store = open_relay_store(&db, &schema, &options).await.unwrap();
    assert!(store.listener.is_none(), "a pooler carries no notifications");
    let relay = RelayId::generate();
    store.leases.renew(&relay, 1, LEASE).await.unwrap();
    let all: Vec<PartitionNo> = (0..PARTITIONS).map(PartitionNo).collect();
    let fence = Fence { partitions: store.leases.take(&relay, None, &all).await.unwrap(), relay };
    schema.append(&db, "/shop", &[event("a")]).await.unwrap();
    let place = read_all(&*store.reader).await.first().map(|e| (e.partition, e.id)).unwrap();
    // The timeout holds in the one transaction, though the session was told nothing.
    let held = hold_partitions(&db).await;
    let result = store.settler.finish(&fence, &[place]).await;
    assert!(matches!(result, Err(StoreError::Busy(_))), "{result:?}");
    held.rollback().await.unwrap();
    assert_eq!(store.settler.finish(&fence, &[place]).await.unwrap().deleted, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_applications_search_path_is_the_relays_too() {
    let temp = TempDatabase::create(Database::Postgres).await;
    temp.connect().await.execute_unprepared("CREATE SCHEMA \"Tenant 1\"").await.unwrap();
    let db = temp
        .connect_with(|options| {
            options.set_schema_search_path("Tenant 1");
        })
        .await;
    install(&db, &Namespace::default(), PARTITIONS).await.unwrap();
    let schema = Schema::open(&db, &Namespace::default()).await.unwrap();
    let (store, _) = owner_of_all(&db, &schema, LEASE).await;
    schema.append(&db, "/shop", &[event("a")]).await.unwrap();
    assert_eq!(read_all(&*store.reader).await.len(), 1);
    let elsewhere = temp.connect().await;
    assert!(Schema::open(&elsewhere, &Namespace::default()).await.is_err());
}

/// Asks on a new connection: one that is open already sees a change only when it next reads.
async fn journal_mode(database: &TempDatabase) -> String {
    let query = Statement::from_string(DbBackend::Sqlite, "PRAGMA journal_mode");
    database
        .connect()
        .await
        .query_one_raw(query)
        .await
        .unwrap()
        .unwrap()
        .try_get_by_index(0)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_operators_have_asked_and_wait_for_no_more_takes_no_connection_of_a_handler() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let db = temp.connect_with(|options| _ = options.max_connections(3)).await;
    let limits = TransactionLimits::new().lock_wait(Duration::from_secs(2));
    let outbox = Outbox::builder(db.clone()).transaction_limits(limits).install().await.unwrap();
    let held = TransactionTrait::begin(&db).await.unwrap();
    held.execute_unprepared("LOCK TABLE outbox_events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    // A page that gives up drops its question, which still waits at the server.
    for _ in 0..6 {
        let asked = tokio::time::timeout(Duration::from_millis(100), outbox.stats()).await;
        assert!(asked.is_err(), "it waits for the lock: {asked:?}");
    }
    let begun = tokio::time::timeout(Duration::from_secs(1), Store::begin(&outbox)).await;
    outbox.commit(begun.expect("a handler has a connection at once").unwrap()).await.unwrap();
    let ended = outbox.stats().await;
    assert!(matches!(ended, Err(StoreError::Busy(_))), "the server has ended it: {ended:?}");
    held.rollback().await.unwrap();
    wait_until(Duration::from_secs(30), "the next question is answered", async || {
        outbox.stats().await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_file_is_in_wal_mode_so_that_readers_and_the_writer_do_not_wait() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let db = temp
        .connect_with(|options| {
            options.max_connections(2);
        })
        .await;
    let schema = installed(&db, &Namespace::default()).await;
    let (store, _) = owner_of_all(&db, &schema, LEASE).await;
    assert_eq!(journal_mode(&temp).await, "wal");
    let held = hold_partitions(&db).await;
    let read = tokio::time::timeout(Duration::from_secs(5), read_all(&*store.reader)).await;
    assert!(read.expect("a reader does not wait for the writer").is_empty());
    held.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_opens_a_sqlite_file_that_others_write_to_all_the_time() {
    for _ in 0..20 {
        let temp = TempDatabase::create(Database::Sqlite).await;
        let (writer, db) = (temp.connect().await, temp.connect().await);
        let schema = installed(&writer, &Namespace::default()).await;
        let (ends, started) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let load = {
            let (ends, started, schema) = (ends.clone(), started.clone(), schema.clone());
            tokio::spawn(async move {
                while !ends.load(Ordering::SeqCst) {
                    schema.append(&writer, "/shop", &[event("a")]).await.unwrap();
                    started.notify_one();
                }
            })
        };
        started.notified().await;
        let store = open_relay_store(&db, &schema, &StoreOptions::new(LEASE)).await.unwrap();
        store.leases.info().await.unwrap();
        ends.store(true, Ordering::SeqCst);
        load.await.unwrap();
        assert_eq!(journal_mode(&temp).await, "wal");
    }
}

/// Lets a take wait for the end of its relay's registration.
async fn takes_nothing(database: Database) {
    let temp = TempDatabase::create(database).await;
    let db = temp.connect().await;
    let schema = installed(&db, &Namespace::default()).await;
    let store = open_relay_store(&db, &schema, &StoreOptions::new(LEASE)).await.unwrap();
    let relay = RelayId::generate();
    store.leases.renew(&relay, 1, LEASE).await.unwrap();
    let signs_off = db.begin().await.unwrap();
    let of_it = format!("WHERE relay_id = '{}'", relay.as_str());
    signs_off
        .execute_unprepared(&format!("UPDATE outbox_relays SET routes = 2 {of_it}"))
        .await
        .unwrap();
    let all: Vec<PartitionNo> = (0..PARTITIONS).map(PartitionNo).collect();
    let take = store.leases.take(&relay, None, &all);
    let ends = async {
        wait_until(LEASE, "the take waits", async || waiting_for_locks(&db).await == 1).await;
        signs_off.execute_unprepared(&format!("DELETE FROM outbox_relays {of_it}")).await.unwrap();
        signs_off.commit().await.unwrap();
    };
    let (taken, ()) = tokio::join!(take, ends);
    assert_eq!(taken.unwrap(), [], "{database:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_that_comes_too_late_takes_nothing_for_a_relay_that_has_signed_off_on_postgresql() {
    takes_nothing(Database::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_that_comes_too_late_takes_nothing_for_a_relay_that_has_signed_off_on_mariadb() {
    takes_nothing(Database::MariaDb).await;
}
