//! What the suite needs beside the store: producers, an operator, and damage.

use async_trait::async_trait;
use outbox_core::{
    admin::{AdminStore, OperatorNote},
    event::{EventId, LetterId, MessageId, NewEvent, RelayId},
    outbox::{InboxKey, RelayStore},
    testing::store::{PARTITIONS, StoreFixture},
};
use outbox_sea_orm::{
    DeliverAt, Namespace, Outbox, Retention, Schema, StoreOptions, install, open_relay_store,
};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, SqliteTransactionMode,
    Statement, TransactionOptions, TransactionTrait, Value,
};
use std::{marker::PhantomData, sync::Arc, time::Duration};
use tests::databases::{Database, TempDatabase};
use uuid::Uuid;

/// A third of it is the longest that a statement of the relay may take.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// An outbox in a database of its own, under a namespace, so that no sql forgets it.
pub(crate) struct Fixture<D> {
    pub(crate) db: DatabaseConnection,
    pub(crate) schema: Arc<Schema>,
    options: StoreOptions,
    _temp: Option<TempDatabase>,
    _which: PhantomData<D>,
}

/// Which database.
#[async_trait]
pub(crate) trait Which: Send + Sync + 'static {
    async fn connect() -> (DatabaseConnection, Option<TempDatabase>);
}

macro_rules! which {
    ($($name:ident = $database:expr;)*) => {$(
        pub(crate) struct $name;

        #[async_trait]
        impl Which for $name {
            async fn connect() -> (DatabaseConnection, Option<TempDatabase>) {
                let temp = TempDatabase::create($database).await;
                (temp.connect().await, Some(temp))
            }
        }
    )*};
}
which! {
    Sqlite = Database::Sqlite;
    Postgres = Database::Postgres;
    MariaDb = Database::MariaDb;
}

/// SQLite in memory, where the relay has to share the application's one connection.
pub(crate) struct SqliteInMemory;

#[async_trait]
impl Which for SqliteInMemory {
    async fn connect() -> (DatabaseConnection, Option<TempDatabase>) {
        (sea_orm::Database::connect("sqlite::memory:").await.unwrap(), None)
    }
}

pub(crate) type OnSqlite = Fixture<Sqlite>;
pub(crate) type OnSqliteInMemory = Fixture<SqliteInMemory>;
pub(crate) type OnPostgres = Fixture<Postgres>;
pub(crate) type OnMariaDb = Fixture<MariaDb>;

/// Options of a transaction that writes.
pub(crate) fn writing() -> TransactionOptions {
    TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    }
}

impl<D> Fixture<D> {
    /// Fills in the quoted names of the tables `events`, `relays` and so on, and writes parameters
    /// the database's way.
    fn statement(&self, template: &str, values: Vec<Value>) -> Statement {
        let backend = self.db.get_database_backend();
        let quote = if backend == DbBackend::MySql { '`' } else { '"' };
        let mut sql = String::new();
        let mut n = 0;
        for part in template.split_inclusive(['{', '}', '?']) {
            match part.as_bytes().last() {
                Some(b'{') => {
                    sql.push_str(&format!("{}{quote}shop_outbox_", part.trim_end_matches('{')))
                }
                Some(b'}') => sql.push_str(&format!("{}{quote}", part.trim_end_matches('}'))),
                Some(b'?') if backend == DbBackend::Postgres => {
                    n += 1;
                    sql.push_str(&format!("{}${n}", part.trim_end_matches('?')));
                }
                _ => sql.push_str(part),
            }
        }
        Statement::from_sql_and_values(backend, sql, values)
    }

    pub(crate) async fn run(&self, sql: &str, values: Vec<Value>) -> u64 {
        self.db.execute_raw(self.statement(sql, values)).await.unwrap().rows_affected()
    }

    async fn number(&self, sql: &str) -> i64 {
        let row = self.db.query_one_raw(self.statement(sql, Vec::new())).await.unwrap().unwrap();
        row.try_get_by_index(0).unwrap()
    }

    /// Opens what an operator uses.
    async fn operator(&self) -> Outbox {
        Outbox::builder(self.db.clone()).source("/shop").namespace("shop").build().await.unwrap()
    }
}

#[async_trait]
impl<D: Which> StoreFixture for Fixture<D> {
    type Tx = DatabaseTransaction;
    type Consumer = Outbox;

    async fn create(keep: bool) -> Self {
        let (db, temp) = D::connect().await;
        let namespace = Namespace::new("shop").unwrap();
        install(&db, &namespace, PARTITIONS).await.unwrap();
        let schema = Schema::open(&db, &namespace).await.unwrap();
        let retention =
            if keep { Retention::Keep(Duration::from_hours(1)) } else { Retention::Delete };
        Self {
            db,
            schema,
            options: StoreOptions::new(LEASE).retention(retention),
            _temp: temp,
            _which: PhantomData,
        }
    }

    async fn relay(&self) -> RelayStore {
        open_relay_store(&self.db, &self.schema, &self.options).await.unwrap()
    }

    async fn consumer(&self) -> Outbox {
        Outbox::builder(self.db.clone()).namespace("shop").build().await.unwrap()
    }

    async fn begin(&self) -> DatabaseTransaction {
        self.db.begin_with_options(writing()).await.unwrap()
    }

    async fn append(&self, tx: &mut DatabaseTransaction, events: &[NewEvent]) {
        self.schema.append(tx, "/shop", events).await.unwrap();
    }

    async fn commit(&self, tx: DatabaseTransaction) {
        tx.commit().await.unwrap();
    }

    async fn receive(&self, key: InboxKey<'_>) -> bool {
        let tx = self.begin().await;
        let first = self.schema.receive(&tx, key).await.unwrap();
        // The transaction can go on, whatever the answer was.
        tx.execute_unprepared("SELECT 1").await.unwrap();
        tx.commit().await.unwrap();
        first
    }

    async fn schedule(&self, event: NewEvent, wait: Duration) {
        self.schema.schedule(&self.db, "/shop", &[(event, DeliverAt::In(wait))]).await.unwrap();
    }

    async fn cancel(&self, message: MessageId) -> bool {
        self.schema.cancel_scheduled(&self.db, message).await.unwrap()
    }

    async fn redrive(&self, letter: LetterId) {
        let redriven =
            self.operator().await.redrive(&[letter], &OperatorNote::new("ann", "repaired")).await;
        assert_eq!(redriven.unwrap(), [letter]);
    }

    async fn discard(&self, letter: LetterId) {
        let discarded =
            self.operator().await.discard(&[letter], &OperatorNote::new("ann", "not wanted")).await;
        assert_eq!(discarded.unwrap(), [letter]);
    }

    async fn discard_all(&self, letters: &[LetterId]) {
        let discarded =
            self.operator().await.discard(letters, &OperatorNote::new("ann", "not wanted")).await;
        assert_eq!(discarded.unwrap(), letters);
    }

    async fn spoil(&self, event: EventId) {
        let damaged = vec![Value::from("{\"tenant\": 7"), Value::from(event.0)];
        assert_eq!(
            self.run(
                "UPDATE {events} SET headers = ?, event_version = 70000 WHERE event_id = ?",
                damaged
            )
            .await,
            1
        );
    }

    async fn expire(&self, relay: &RelayId) {
        self.run(
            "UPDATE {relays} SET lease_until = 0 WHERE relay_id = ?",
            vec![Value::from(relay.as_str())],
        )
        .await;
    }

    async fn remove(&self, relay: &RelayId) {
        self.run("DELETE FROM {relays} WHERE relay_id = ?", vec![Value::from(relay.as_str())])
            .await;
    }

    async fn age(&self) {
        self.run("UPDATE {archive} SET finished_at = finished_at - 7200000000", Vec::new()).await;
        self.run("UPDATE {dedup} SET until = until - 31536000000000", Vec::new()).await;
        self.run("UPDATE {inbox} SET keep_until = keep_until - 31536000000000", Vec::new()).await;
    }

    async fn kept(&self) -> Vec<(EventId, MessageId)> {
        let query = self
            .statement("SELECT event_id, message_id FROM {archive} ORDER BY event_id", Vec::new());
        let kept = self.db.query_all_raw(query).await.unwrap();
        let row = |row: &sea_orm::QueryResult| {
            let id: Uuid = row.try_get_by_index(1).unwrap();
            (EventId(row.try_get_by_index(0).unwrap()), MessageId::from_uuid(id))
        };
        kept.iter().map(row).collect()
    }

    async fn counts(&self) -> (u64, u64) {
        let events = self.number("SELECT count(*) FROM {events}").await;
        let retries = self.number("SELECT count(*) FROM {retries}").await;
        (events.unsigned_abs(), retries.unsigned_abs())
    }
}
