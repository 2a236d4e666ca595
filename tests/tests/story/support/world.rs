//! A database with an outbox in it, and what tests read from it.

use super::{checks::Expected, event::Sample};
use async_trait::async_trait;
use outbox_core::{outbox::RelayStore, relay::RelaySource, runtime::Wake};
use outbox_sea_orm::{
    Outbox, StoreError, StoreOptions, open_relay_store,
    relay::{Relay, RelayBuilder},
};
use sea_orm::{ConnectionTrait, DatabaseConnection, QueryResult, Statement, TransactionTrait};
use std::time::Duration;
use tests::{databases::TempDatabase, wait_until};

/// Rows of one INSERT of many events.
const CHUNK: usize = 500;

/// The row that a transaction writes beside its event.
const FACTS: &str = "CREATE TABLE story_facts (fact VARCHAR(64) NOT NULL PRIMARY KEY)";
/// The row that a handler writes in its transaction.
const EFFECTS: &str =
    "CREATE TABLE story_effects (message VARCHAR(64) NOT NULL, sample VARCHAR(64) NOT NULL)";

/// A database with an outbox in it.
pub(crate) struct World {
    pub(crate) db: DatabaseConnection,
    pub(crate) outbox: Outbox,
}

/// An outbox as the source of relays.
pub(crate) struct Source(Outbox);

#[async_trait]
impl RelaySource for Source {
    async fn open_relay_store(&self, lease: Duration) -> Result<RelayStore, StoreError> {
        open_relay_store(self.0.connection(), self.0.schema(), &StoreOptions::new(lease)).await
    }

    fn wake_handle(&self) -> Wake {
        self.0.wake_handle()
    }
}

/// A dead letter, as far as tests read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) route: String,
    pub(crate) reason: String,
    pub(crate) attempts: i64,
    pub(crate) errors: String,
    pub(crate) key: Option<String>,
    pub(crate) payload: String,
}

impl World {
    /// Makes the tables and opens the outbox.
    pub(crate) async fn open(database: &TempDatabase) -> Self {
        Self::on(database.connect().await).await
    }

    /// Makes the tables and opens the outbox, on a connection.
    pub(crate) async fn on(db: DatabaseConnection) -> Self {
        // The lines of a failed test are printed. A second world in one process finds the
        // subscriber set.
        let _ = tracing_subscriber::fmt()
            .with_test_writer()
            .with_max_level(tracing::Level::WARN)
            .try_init();
        let outbox = Outbox::builder(db.clone()).source("story").install().await.unwrap();
        for table in [FACTS, EFFECTS] {
            db.execute_unprepared(table).await.unwrap();
        }
        Self { db, outbox }
    }

    /// Gives the source for a relay.
    pub(crate) fn source(&self) -> Source {
        Source(self.outbox.clone())
    }

    /// Emits one event in a transaction of its own.
    pub(crate) async fn emit(&self, key: &str, n: u64) {
        let tx = self.outbox.begin().await.unwrap();
        tx.emit(Sample::new(key, n)).unwrap();
        tx.commit().await.unwrap();
    }

    /// Enqueues many events, keys in turn.
    pub(crate) async fn emit_all(&self, expected: &Expected) {
        let most = expected.values().copied().max().unwrap_or(0);
        let events = (1..=most).flat_map(|n| {
            expected
                .iter()
                .filter(move |(_, count)| n <= **count)
                .map(move |(key, _)| Sample::new(key.as_str(), n))
        });
        let events: Vec<Sample> = events.collect();
        for chunk in events.chunks(CHUNK) {
            let txn = self.db.begin().await.unwrap();
            self.outbox.enqueue_many(&txn, chunk).await.unwrap();
            txn.commit().await.unwrap();
        }
        self.outbox.wake();
    }

    /// Queries one number.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let rows = self.rows(sql).await;
        rows.first().map_or(0, |row| row.try_get_by_index(0).unwrap())
    }

    /// Queries rows.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<QueryResult> {
        self.db
            .query_all_raw(Statement::from_string(self.db.get_database_backend(), sql))
            .await
            .unwrap()
    }

    /// Counts the rows of a table.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        self.number(&format!("SELECT COUNT(*) FROM {table}")).await
    }

    /// Tells whether another process holds the whole database; only SQLite's can be held.
    pub(crate) async fn is_locked(&self) -> bool {
        let is_file = self.db.get_database_backend() == sea_orm::DbBackend::Sqlite;
        is_file && self.db.execute_unprepared("BEGIN IMMEDIATE; ROLLBACK").await.is_err()
    }

    /// Waits until the outbox is empty.
    pub(crate) async fn drained(&self, within: Duration) {
        let is_empty =
            async || self.rows("SELECT event_id FROM outbox_events LIMIT 1").await.is_empty();
        if !tests::holds_within(within, is_empty).await {
            let left = self.count("outbox_events").await;
            let owners = self
                .rows("SELECT DISTINCT owner FROM outbox_partitions WHERE owner IS NOT NULL")
                .await
                .len();
            panic!("{left} events are left after {within:?}; {owners} relays own partitions");
        }
    }

    /// Waits until there are so many dead letters.
    pub(crate) async fn wait_for_letters(&self, n: i64, within: Duration) {
        let what = format!("{n} dead letters");
        wait_until(within, &what, async || {
            tests::above(self.count("outbox_dead_letters").await, n - 1)
        })
        .await;
    }

    /// Waits until there are so many dead letters, while the destination confirms events of the keys
    /// `beside1`, `beside2` and so on: the relay buries a rejected event only between confirmations of
    /// others. Gives how many of these events there were.
    pub(crate) async fn wait_for_letters_beside_others(&self, n: i64, within: Duration) -> u64 {
        let emitted = std::cell::Cell::new(0);
        let what = format!("{n} dead letters beside events that are confirmed");
        let there = async || {
            emitted.set(emitted.get() + 1);
            self.emit(&format!("beside{}", emitted.get()), 1).await;
            self.count("outbox_dead_letters").await >= n
        };
        wait_until(within, &what, there).await;
        emitted.get()
    }

    /// Reads the dead letters, in order.
    pub(crate) async fn letters(&self) -> Vec<Letter> {
        let sql = "SELECT route, reason, attempts, errors, message_key, payload FROM outbox_dead_letters \
                   ORDER BY letter_id";
        let letter = |row: QueryResult| Letter {
            route: row.try_get_by_index(0).unwrap(),
            reason: row.try_get_by_index(1).unwrap(),
            attempts: row.try_get_by_index(2).unwrap(),
            errors: row.try_get_by_index(3).unwrap(),
            key: row.try_get_by_index(4).unwrap(),
            payload: String::from_utf8_lossy(&row.try_get_by_index::<Vec<u8>>(5).unwrap())
                .into_owned(),
        };
        self.rows(sql).await.into_iter().map(letter).collect()
    }

    /// Waits until the relays own so many partitions each.
    pub(crate) async fn wait_for_shares(&self, shares: &[i64], what: &str) {
        if tests::holds_within(super::SOON, async || self.shares().await == shares).await {
            return;
        }
        let relays =
            "SELECT relay_id, lease_until, started_at FROM outbox_relays ORDER BY started_at";
        let relays = self.rows(relays).await;
        let found = relays.iter().map(|row| -> (String, i64, i64) {
            let number = |index| row.try_get_by_index(index).unwrap();
            (row.try_get_by_index(0).unwrap(), number(1), number(2))
        });
        let found: Vec<_> = found.collect();
        panic!(
            "not within {:?}: {what}; shares {:?}, relays {found:?}",
            super::SOON,
            self.shares().await
        );
    }

    /// Reads how many partitions each relay owns.
    pub(crate) async fn shares(&self) -> Vec<i64> {
        let sql = "SELECT COUNT(*) FROM outbox_partitions WHERE owner IS NOT NULL GROUP BY owner ORDER BY 1";
        self.rows(sql).await.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
    }
}

/// Sets up a relay with a lease.
pub(crate) fn relay(source: &Source, lease: Duration) -> RelayBuilder<'_> {
    Relay::builder(source).lease(lease).poll(Duration::from_millis(200))
}
