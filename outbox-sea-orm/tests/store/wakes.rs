//! Wakes that go from process to process.

use crate::outbox::{LEASE, installed};
use outbox_core::{outbox::RelayStore, runtime::Wake};
use outbox_sea_orm::{Namespace, Notifier, Schema, StoreOptions, open_relay_store};
use sea_orm::{ConnectionTrait, DatabaseConnection, sqlx::postgres::PgListener};
use std::{sync::Arc, time::Duration};
use tests::databases::{Database, TempDatabase};
use tokio::sync::watch;

const SOON: Duration = Duration::from_secs(20);

/// A relay of another process, that listens.
struct Other {
    woken: watch::Receiver<u64>,
    listening: tokio::task::JoinHandle<String>,
}

impl Other {
    async fn listens(db: &DatabaseConnection, schema: &Arc<Schema>) -> Self {
        let store: RelayStore =
            open_relay_store(db, schema, &StoreOptions::new(LEASE)).await.unwrap();
        let listener = store.listener.expect("PostgreSQL carries wakes");
        let wake = Wake::default();
        let mut woken = wake.listen();
        let listening =
            tokio::spawn(async move { listener.listen(&wake).await.unwrap_err().to_string() });
        // It wakes once when it listens, for whatever was rung before.
        tests::in_time(SOON, "a wake comes", woken.changed()).await.unwrap();
        Self { woken, listening }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_is_heard_by_other_processes_of_the_same_outbox_only() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let db = temp.connect().await;
    let schema = installed(&db, &Namespace::default()).await;
    let elsewhere = installed(&db, &Namespace::new("shop").unwrap()).await;
    let (mut here, mut there) =
        (Other::listens(&db, &schema).await, Other::listens(&db, &elsewhere).await);
    Notifier::new(&temp.connect().await, &schema).notify();
    // The notifier is dropped at once here: a ring that was not sent yet may be lost, so that it is
    // not.
    let notifier = Notifier::new(&temp.connect().await, &schema);
    notifier.notify();
    tests::in_time(SOON, "a wake comes", here.woken.changed()).await.unwrap();
    // Rings of the other outbox come by the same server, so that this one would have come before.
    let other = Notifier::new(&temp.connect().await, &elsewhere);
    assert!(!there.woken.has_changed().unwrap());
    other.notify();
    tests::in_time(SOON, "a wake comes", there.woken.changed()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_rings_are_a_few_notifications() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let db = temp.connect().await;
    let schema = installed(&db, &Namespace::default()).await;
    let mut listener = PgListener::connect(temp.url()).await.unwrap();
    listener.listen("outbox_wake").await.unwrap();
    let notifier = Notifier::new(&db, &schema);
    let started = tokio::time::Instant::now();
    for _ in 0..20_000 {
        notifier.notify();
        tokio::task::yield_now().await;
    }
    let notified_for = started.elapsed();
    listener.recv().await.unwrap();
    // One more, from here on another connection, comes after all of them.
    db.execute_unprepared("SELECT pg_notify('outbox_wake', 'last')").await.unwrap();
    let mut woken = 1_u128;
    while listener.recv().await.unwrap().payload() != "last" {
        woken += 1;
    }
    let most = notified_for.as_millis() / 5 + 2;
    assert!(woken <= most, "{woken} notifications in {notified_for:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_whose_connection_is_ended_says_so_and_a_notifier_reconnects() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let db = temp.connect().await;
    let schema = installed(&db, &Namespace::default()).await;
    let mut other = Other::listens(&db, &schema).await;
    let notifier = Notifier::new(&db, &schema);
    notifier.notify();
    tests::in_time(SOON, "a wake comes", other.woken.changed()).await.unwrap();
    let end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
    db.execute_unprepared(end_all).await.unwrap();
    let why = tests::in_time(SOON, "listening ends", other.listening).await.unwrap();
    assert!(why.contains("reached"), "{why}");

    let mut again = Other::listens(&db, &schema).await;
    let rings = async {
        loop {
            notifier.notify();
            if tokio::time::timeout(Duration::from_millis(100), again.woken.changed()).await.is_ok()
            {
                break;
            }
        }
    };
    tests::in_time(SOON, "a wake comes again", rings).await;
}

/// Wakes relays by a database without notifications.
async fn does_nothing(database: Database) {
    let temp = TempDatabase::create(database).await;
    let db = temp.connect().await;
    let schema = installed(&db, &Namespace::default()).await;
    Notifier::new(&db, &schema).notify();
    let store = open_relay_store(&db, &schema, &StoreOptions::new(LEASE)).await.unwrap();
    assert!(store.listener.is_none());
}

#[tokio::test]
async fn where_the_database_carries_no_wakes_a_ring_does_nothing_on_sqlite() {
    does_nothing(Database::Sqlite).await;
}

#[tokio::test]
async fn where_the_database_carries_no_wakes_a_ring_does_nothing_on_mariadb() {
    does_nothing(Database::MariaDb).await;
}
