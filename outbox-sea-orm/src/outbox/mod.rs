//! The outbox: the handle of a service, of which transactions are opened and events saved.
//!
//! What a store must do, and the arithmetic of partitions and leases, is `outbox_core`'s room of the same name.

mod builder;
mod connection;
mod limits;
mod options;
mod plain;
mod received;
mod relay_source;
mod write;

pub use builder::OutboxBuilder;
pub use limits::RouteLimits;
pub use options::{EnqueueOptions, OnDuplicate};
pub use outbox_core::outbox::*;
pub use plain::InTransaction;
pub(crate) use write::Pending;

use crate::{Notifier, Retention, Schema, error::OutboxError, listener::Listeners, transaction::OutboxTransaction};
use async_trait::async_trait;
use outbox_core::{
    event::{NewEvent, Trail},
    runtime::Wake,
};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, SqliteTransactionMode, TransactionOptions};
use std::{fmt, sync::Arc, time::Duration};

/// The outbox of a service: its tables in one database, seen through one connection pool. Cloning is cheap.
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
    notifier: Notifier,
    retention: Retention,
    inbox_retention: Duration,
    behind_pooler: bool,
}

impl Outbox {
    /// Starts to configure an outbox on a connection pool.
    pub fn builder(db: DatabaseConnection) -> OutboxBuilder {
        OutboxBuilder::new(db)
    }

    /// Opens the outbox of a database, with everything at its default. Its tables must be there.
    ///
    /// # Errors
    /// [`OutboxError::Store`] when the tables are missing or are not those of this version.
    pub async fn new(db: DatabaseConnection) -> Result<Self, OutboxError> {
        Self::builder(db).build().await
    }

    /// Opens a transaction.
    ///
    /// On SQLite it is a writing one from its beginning (`BEGIN IMMEDIATE`), because one that reads first and then writes
    /// fails when another has written in between.
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
    /// # Errors
    /// [`OutboxError::Begin`] when there is no connection.
    ///
    /// # Cancel safety
    /// Dropped, it leaves no connection inside a transaction.
    pub async fn begin_with(&self, mut options: TransactionOptions) -> Result<OutboxTransaction, OutboxError> {
        if self.backend() == DbBackend::Sqlite {
            let read_only = options.access_mode == Some(sea_orm::AccessMode::ReadOnly);
            let mode = if read_only { SqliteTransactionMode::Deferred } else { SqliteTransactionMode::Immediate };
            options.sqlite_transaction_mode.get_or_insert(mode);
            // There is one isolation; the driver would warn of each.
            (options.isolation_level, options.access_mode) = (None, None);
        }
        OutboxTransaction::open(self.clone(), options).await
    }

    /// Runs an async closure in a transaction: `Ok` commits, `Err`, a panic and a dropped future roll back.
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
    /// The closure's own, and those of [`begin`](Self::begin) and [`commit`](OutboxTransaction::commit).
    ///
    /// # Cancel safety
    /// That of [`commit`](OutboxTransaction::commit).
    pub async fn transaction<F, T, E>(&self, work: F) -> Result<T, E>
    where
        F: AsyncFnOnce(&OutboxTransaction) -> Result<T, E>,
        E: From<OutboxError>,
    {
        let tx = self.begin().await?;
        match work(&tx).await {
            Ok(value) => {
                tx.commit().await?;
                Ok(value)
            }
            Err(error) => {
                tx.end_unsaved().await;
                Err(error)
            }
        }
    }

    /// Wakes the relays of this process, and those of other processes where the database can carry it.
    ///
    /// Commits of an [`OutboxTransaction`] do so by themselves; after an ordinary SeaORM transaction it saves the wait for
    /// the next poll.
    pub fn wake(&self) {
        self.0.wake.wake();
        self.0.notifier.ring();
    }

    /// Gives the wake that rings after each commit of this process that wrote events.
    #[must_use]
    pub fn wake_handle(&self) -> Wake {
        self.0.wake.clone()
    }

    /// Gives the wake that rings when a saga was started in this process or an operator has decided.
    pub(crate) fn wake_of_sagas(&self) -> &Wake {
        &self.0.saga_wake
    }

    /// The name of this service in its events: CloudEvents `source`.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The connection pool.
    #[must_use]
    pub fn connection(&self) -> &DatabaseConnection {
        &self.0.db
    }

    /// The tables.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.0.schema
    }

    /// The limits of the routes that are known in this process.
    #[must_use]
    pub fn limits(&self) -> &RouteLimits {
        &self.0.limits
    }

    pub(crate) fn listeners(&self) -> &Listeners {
        &self.0.listeners
    }

    fn backend(&self) -> DbBackend {
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
        Ok(Self::begin(self).await?)
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
        Ok(self.0.schema.receive(tx, key).await.map_err(OutboxError::Database)?)
    }

    fn follow(&self, tx: &OutboxTransaction, trail: Trail) {
        tx.follow(trail);
    }
}
