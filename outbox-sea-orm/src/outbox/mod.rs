//! The outbox: the handle with which a service opens transactions and saves events.
//!
//! The traits of stores, and the arithmetic of partitions and leases, are in `outbox_core`'s module
//! of the same name.

mod builder;
mod connection;
mod limits;
mod once;
mod options;
mod enqueue;
mod consumer_store;
mod stored_reply;
mod relay_source;
mod relay_watch;
mod source;
mod waiting_limit;
mod write;

pub use builder::OutboxBuilder;
pub use enqueue::InTransaction;
pub use limits::RouteLimits;
pub use once::Responded;
pub use options::{EnqueueOptions, OnDuplicate};
pub(crate) use write::Pending;

use crate::{
    Notifier, Retention, Schema, TransactionLimits,
    error::OutboxError,
    listener::Listeners,
    pool::WorkPool,
    schema::Retentions,
    transaction::{OutboxTransaction, TransactionTasks, refuse_in_trial, within},
};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use outbox_core::{
    event::{CorrelationContext, NewEvent, PayloadCodecs},
    outbox::{InboxKey, OperatorRows, Store, StoreError, TrialStore},
    runtime::{Connections, Wake},
    saga::SagaStarts,
    transport::LimitError,
};
use relay_watch::RelayWatch;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, IsolationLevel, SqliteTransactionMode,
    TransactionOptions,
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use waiting_limit::WaitingLimit;

/// Most bytes of all headers, names and values: more than any server or broker takes beside a
/// payload.
const MAX_HEADERS: usize = 64 * 1024;

/// The outbox of a service: its tables in one database, seen through one connection pool. Cloning
/// is cheap.
///
/// ```
/// # use outbox_sea_orm::prelude::*;
/// # async fn example(db: sea_orm::DatabaseConnection) -> Result<(), OutboxError> {
/// let outbox = Outbox::builder(db).source("orders").build().await?;
/// let tx = outbox.begin().await?;
/// // .. write and emit with `tx` ..
/// tx.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

struct Inner {
    db: DatabaseConnection,
    source: Arc<str>,
    schema: Arc<Schema>,
    wake: Wake,
    saga_wake: Wake,
    dedup_retention: Duration,
    listeners: Listeners,
    limits: RouteLimits,
    codecs: PayloadCodecs,
    max_payload: usize,
    notifier: Notifier,
    retention: Retention,
    retentions: Retentions,
    behind_pooler: bool,
    work: Arc<WorkPool>,
    transaction_tasks: TransactionTasks,
    saga_starts: SagaStarts,
    relay_watch: RelayWatch,
    waiting_limit: Option<Arc<WaitingLimit>>,
    connections: Option<Connections>,
    /// One connection for heartbeats and short lookups, which must not wait for the connections of
    /// handlers.
    heartbeat_pool: Arc<WorkPool>,
    /// Connections for what operators ask, which must not take those of handlers: whoever asked may
    /// be gone, and the statement still runs.
    read_pool: WorkPool,
    /// Transactions of the application that are being opened.
    waiting_writers: AtomicUsize,
}

/// Counts a transaction of the application while it is being opened.
struct WaitingWriter<'a>(&'a AtomicUsize);

impl<'a> WaitingWriter<'a> {
    fn count(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for WaitingWriter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Outbox {
    /// Starts to configure an outbox on a connection pool.
    pub fn builder(db: DatabaseConnection) -> OutboxBuilder {
        OutboxBuilder::new(db)
    }

    /// Opens the outbox of a database, with everything at its default, as tools do. Its tables must
    /// be there.
    ///
    /// ```
    /// # use outbox_sea_orm::{admin::AdminStore, prelude::*};
    /// # async fn example(db: sea_orm::DatabaseConnection) -> Result<(), Box<dyn std::error::Error>> {
    /// println!("{:?}", Outbox::new(db).await?.stats().await?); // a tool, which needs no source
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`OutboxError::Store`] when the tables are missing or are not those of this version.
    pub async fn new(db: DatabaseConnection) -> Result<Self, OutboxError> {
        Self::builder(db).build().await
    }

    /// Opens a transaction.
    ///
    /// On SQLite it is a writing one from its beginning (`BEGIN IMMEDIATE`), because one that reads
    /// first and then writes fails when another has written in between. Elsewhere it has the isolation
    /// that the connection begins with. On MariaDB and MySQL that is REPEATABLE READ unless the server
    /// is set otherwise: one that saves an event and stays open may make others that save events wait
    /// for its end, which READ COMMITTED, by [`begin_with`](Self::begin_with), does not.
    ///
    /// ```
    /// # use outbox_sea_orm::{admin::AdminStore, prelude::*};
    /// # use sea_orm::ConnectionTrait;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, OutboxEvent)]
    /// # #[outbox(type = "order.placed", topic = "orders")]
    /// # struct OrderPlaced { #[outbox(key)] order_id: i64 }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let outbox = Outbox::builder(sea_orm::Database::connect("sqlite::memory:").await?).install().await?;
    /// # outbox.connection().execute_unprepared("CREATE TABLE orders (id INTEGER)").await?;
    /// let tx = outbox.begin().await?;
    /// tx.execute_unprepared("INSERT INTO orders VALUES (7)").await?; // any SeaORM call
    /// tx.emit(OrderPlaced { order_id: 7 })?;
    /// tx.commit().await?;
    /// assert_eq!(outbox.stats().await?.pending, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`OutboxError::Begin`] when there is no connection.
    ///
    /// # Cancel safety
    /// Dropped, it leaves no connection inside a transaction.
    pub async fn begin(&self) -> Result<OutboxTransaction, OutboxError> {
        self.begin_with(TransactionOptions::default()).await
    }

    /// Opens a transaction with an isolation level, an access mode or, on SQLite, a mode.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # use sea_orm::{IsolationLevel, TransactionOptions};
    /// # async fn example(outbox: &Outbox) -> Result<(), OutboxError> {
    /// let options = TransactionOptions {
    ///     isolation_level: Some(IsolationLevel::Serializable),
    ///     ..TransactionOptions::default()
    /// };
    /// let tx = outbox.begin_with(options).await?;
    /// # tx.commit().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`OutboxError::Begin`] when there is no connection.
    ///
    /// # Cancel safety
    /// Dropped, it leaves no connection inside a transaction.
    pub async fn begin_with(
        &self,
        options: TransactionOptions,
    ) -> Result<OutboxTransaction, OutboxError> {
        refuse_in_trial(self, "Outbox::begin")?;
        Ok(self.open(options).await?.registered())
    }

    /// Opens a transaction inside of which the application runs without a handle of it.
    pub(crate) async fn open(
        &self,
        mut options: TransactionOptions,
    ) -> Result<OutboxTransaction, OutboxError> {
        let read_only = options.access_mode == Some(sea_orm::AccessMode::ReadOnly);
        self.adapt(&mut options);
        let _waiting = (!read_only).then(|| WaitingWriter::count(&self.0.waiting_writers));
        OutboxTransaction::open(self.clone(), options, read_only).await
    }

    /// Opens a transaction of the framework's own: for a handler, a step of a saga.
    pub(crate) async fn begin_work(&self) -> Result<OutboxTransaction, OutboxError> {
        self.begin_work_with(TransactionOptions::default(), None).await
    }

    /// Opens a transaction of the framework's own whose statements last, and wait for locks, for so
    /// long at most, if not for less.
    pub(crate) async fn begin_work_within(
        &self,
        limit: Duration,
    ) -> Result<OutboxTransaction, OutboxError> {
        let usual = *self.work().limits();
        let limits = usual.lock_wait(usual.lock_wait.min(limit)).statement(limit);
        // The application's own limit may be shorter than a setting of it.
        let limits =
            TransactionLimits { statement: usual.statement.min(limits.statement), ..limits };
        self.begin_work_with(TransactionOptions::default(), Some(limits)).await
    }

    /// Opens a transaction of the framework's own at READ COMMITTED, so that each of its statements
    /// sees what others have committed: for claims and operators.
    pub(crate) async fn begin_read_committed(&self) -> Result<OutboxTransaction, OutboxError> {
        let isolation_level = Some(IsolationLevel::ReadCommitted);
        let options = TransactionOptions { isolation_level, ..TransactionOptions::default() };
        self.begin_work_with(options, None).await
    }

    /// Opens a transaction of the framework's own that takes SQLite's write lock with its first
    /// write; with limits of its own, where it needs some.
    pub(crate) async fn begin_work_deferred(
        &self,
        limits: Option<TransactionLimits>,
    ) -> Result<OutboxTransaction, OutboxError> {
        let sqlite_transaction_mode = Some(SqliteTransactionMode::Deferred);
        let options =
            TransactionOptions { sqlite_transaction_mode, ..TransactionOptions::default() };
        self.begin_work_with(options, limits).await
    }

    async fn begin_work_with(
        &self,
        mut options: TransactionOptions,
        limits: Option<TransactionLimits>,
    ) -> Result<OutboxTransaction, OutboxError> {
        self.adapt(&mut options);
        OutboxTransaction::open_for_work(self.clone(), options, limits).await
    }

    fn adapt(&self, options: &mut TransactionOptions) {
        if self.schema().dialect().has_one_writer() {
            let read_only = options.access_mode == Some(sea_orm::AccessMode::ReadOnly);
            let mode = if read_only {
                SqliteTransactionMode::Deferred
            } else {
                SqliteTransactionMode::Immediate
            };
            options.sqlite_transaction_mode.get_or_insert(mode);
            // There is one isolation; the driver would warn of each.
            (options.isolation_level, options.access_mode) = (None, None);
        }
    }

    /// Runs an async closure in a transaction: `Ok` commits, `Err`, a panic and a dropped future
    /// roll back.
    ///
    /// `#[transactional_outbox(tx = self.outbox)]` methods that it calls join it. A second call
    /// inside the closure opens another transaction, which waits for this one on SQLite.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # async fn example(outbox: &Outbox, event: impl OutboxEvent) -> Result<(), OutboxError> {
    /// outbox.transaction(async |tx| {
    ///     // .. any SeaORM call with `tx` ..
    ///     tx.emit(event)
    /// })
    /// .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The closure's own, and those of [`begin`](Self::begin) and
    /// [`commit`](OutboxTransaction::commit).
    ///
    /// # Cancel safety
    /// That of [`commit`](OutboxTransaction::commit).
    pub async fn transaction<F, T, E>(&self, work: F) -> Result<T, E>
    where
        F: AsyncFnOnce(&OutboxTransaction) -> Result<T, E>,
        E: From<OutboxError>,
    {
        refuse_in_trial(self, "Outbox::transaction")?;
        let tx = self.open(TransactionOptions::default()).await?;
        match within(&tx, work(&tx)).await {
            Ok(value) => {
                tx.commit().await?;
                Ok(value)
            }
            Err(error) => {
                tx.rollback_quietly().await;
                Err(error)
            }
        }
    }

    /// Wakes the relays of this process, and those of other processes where the database has
    /// notifications.
    ///
    /// Commits of an [`OutboxTransaction`] do so by themselves; after an ordinary SeaORM
    /// transaction it saves the wait for the next poll.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # use sea_orm::DatabaseTransaction;
    /// # async fn example(outbox: &Outbox, txn: DatabaseTransaction, event: impl OutboxEvent) -> Result<(), OutboxError> {
    /// outbox.enqueue(&txn, &event).await?;
    /// txn.commit().await?; // the outbox does not see this commit
    /// outbox.wake();
    /// # Ok(()) }
    /// ```
    pub fn wake(&self) {
        self.0.wake.wake();
        self.0.notifier.notify();
        self.schedule_relay_check();
    }

    /// Gives the wake of the relays: after each commit of this process that wrote events.
    #[must_use]
    pub fn wake_handle(&self) -> Wake {
        self.0.wake.clone()
    }

    /// Gives the wake of the coordinators: after a saga was started in this process, or an operator
    /// has acted.
    pub(crate) fn wake_of_sagas(&self) -> &Wake {
        &self.0.saga_wake
    }

    /// The name of this service in its events: CloudEvents `source`. Where the builder set none, it
    /// is the one that the outbox belongs to.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The connection pool.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # use sea_orm::{ConnectionTrait, DbErr};
    /// # async fn example(outbox: &Outbox) -> Result<(), DbErr> {
    /// outbox.connection().execute_unprepared("DELETE FROM sessions").await?; // no transaction, no events
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn connection(&self) -> &DatabaseConnection {
        &self.0.db
    }

    /// The registered definitions of sagas.
    pub(crate) fn saga_starts(&self) -> &SagaStarts {
        &self.0.saga_starts
    }

    /// The connection that no handler holds.
    pub(crate) fn heartbeat_pool(&self) -> &WorkPool {
        &self.0.heartbeat_pool
    }

    /// The transactions that the application's tasks hold.
    pub(crate) fn transaction_tasks(&self) -> &TransactionTasks {
        &self.0.transaction_tasks
    }

    /// Tells whether two handles are of one outbox.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The framework's own connections.
    pub(crate) fn work(&self) -> &Arc<WorkPool> {
        &self.0.work
    }

    /// The connections for what operators ask.
    pub(crate) fn reads(&self) -> &WorkPool {
        &self.0.read_pool
    }

    /// The tables.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.0.schema
    }

    /// The limits of the routes that are known in this process.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # use outbox_core::transport::Limits;
    /// # fn example(outbox: &Outbox) {
    /// let billing = Limits::default().max_payload(262_144); // its relay is another process
    /// outbox.limits().set("billing", billing, |event| event.topic == "orders");
    /// # }
    /// ```
    #[must_use]
    pub fn limits(&self) -> &RouteLimits {
        &self.0.limits
    }

    /// The codecs of payloads.
    pub(crate) fn codecs(&self) -> &PayloadCodecs {
        &self.0.codecs
    }

    /// Checks an event against the limits of this outbox, and of every route that takes it.
    pub(crate) fn check(&self, event: &NewEvent) -> Result<(), LimitError> {
        let headers = event.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        for (what, actual, limit) in [
            ("payload", event.payload.len(), self.0.max_payload),
            ("headers", headers, MAX_HEADERS),
        ] {
            if actual > limit {
                return Err(LimitError::TooLarge {
                    event_type: event.event_type.clone(),
                    what,
                    actual,
                    limit,
                });
            }
        }
        self.0.limits.check(event)
    }

    pub(crate) fn listeners(&self) -> &Listeners {
        &self.0.listeners
    }

    pub(crate) fn backend(&self) -> DbBackend {
        ConnectionTrait::get_database_backend(&self.0.db)
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("source", &self.0.source).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for Outbox {
    type Tx = OutboxTransaction;

    async fn begin(&self) -> Result<OutboxTransaction, StoreError> {
        Ok(self.begin_work().await?)
    }

    async fn commit(&self, tx: OutboxTransaction) -> Result<(), StoreError> {
        Ok(tx.commit().await?)
    }

    async fn rollback(&self, tx: OutboxTransaction) -> Result<(), StoreError> {
        Ok(tx.rollback().await?)
    }

    async fn append(&self, tx: &OutboxTransaction, events: &[NewEvent]) -> Result<(), StoreError> {
        Ok(tx.append(events)?)
    }

    async fn receive(&self, tx: &OutboxTransaction, key: InboxKey<'_>) -> Result<bool, StoreError> {
        Ok(tx
            .bounded("the inbox", self.0.schema.receive(tx, key))
            .await
            .map_err(OutboxError::Database)?)
    }

    fn disturbance(&self, tx: &OutboxTransaction) -> Option<StoreError> {
        tx.disturbance().map(|error| OutboxError::Aborted(error).into())
    }

    fn connections(&self) -> Option<Connections> {
        self.0.connections.clone()
    }

    fn writes(&self, tx: &OutboxTransaction) -> Option<u64> {
        Some(tx.writes())
    }

    fn has_one_writer(&self) -> bool {
        self.schema().dialect().has_one_writer()
    }

    fn has_waiting_writer(&self) -> bool {
        self.has_one_writer() && self.0.waiting_writers.load(Ordering::Relaxed) > 0
    }

    fn idle_limit(&self) -> Option<Duration> {
        Some(self.0.work.limits().idle).filter(|_| self.0.work.ends_idle())
    }

    async fn keep_alive(&self, tx: &OutboxTransaction) {
        tx.keep_alive().await;
    }

    fn operator(&self) -> Option<Arc<dyn OperatorRows>> {
        Some(Arc::new(self.clone()))
    }

    fn payload_codecs(&self) -> PayloadCodecs {
        self.0.codecs.clone()
    }

    fn trials(&self) -> Option<Arc<dyn TrialStore<OutboxTransaction>>> {
        Some(Arc::new(self.clone()))
    }

    fn correlate(&self, tx: &OutboxTransaction, correlation: CorrelationContext) {
        tx.correlate(correlation);
    }

    fn within<'a, T: Send + 'a>(
        &'a self,
        tx: &'a OutboxTransaction,
        work: BoxFuture<'a, T>,
    ) -> BoxFuture<'a, T> {
        Box::pin(within(tx, work))
    }
}
