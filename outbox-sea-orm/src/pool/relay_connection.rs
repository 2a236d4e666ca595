//! One connection of the relay, used by one caller at a time, opened when first needed.
//!
//! It is used again only after a caller has finished with it. A cancelled caller drops it, and the
//! server ends its transaction; so no half-done BEGIN can reach the next caller.

use super::{Arg, DriverConnection, connector::Connector, driver_error};
use outbox_core::{
    outbox::StoreError,
    runtime::{now, spawn},
};
use sea_orm::{QueryResult, sqlx};
use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, MutexGuard};

/// A connection that was idle for longer is pinged before use: servers and firewalls close idle
/// ones.
const PING_AFTER_IDLE: Duration = Duration::from_secs(2);

/// One connection of the relay, used by one caller at a time.
pub(crate) struct RelayConnection {
    connector: Arc<Connector>,
    idle: Mutex<Option<(DriverConnection, Instant)>>,
}

/// A transaction on the connection. Dropped without an end, it drops the connection.
pub(crate) struct Tx<'a>(ConnectionGuard<'a>);

/// The connection in use.
struct ConnectionGuard<'a> {
    response_timeout: Duration,
    idle: MutexGuard<'a, Option<(DriverConnection, Instant)>>,
    connection: Option<DriverConnection>,
    /// Whether a transaction may be open.
    open: bool,
}

impl RelayConnection {
    pub(crate) fn new(connector: &Arc<Connector>) -> Self {
        Self { connector: Arc::clone(connector), idle: Mutex::new(None) }
    }

    /// Runs one statement by itself and gives its rows.
    pub(crate) async fn query(
        &self,
        sql: &Arc<str>,
        args: &[Arg<'_>],
    ) -> Result<Vec<QueryResult>, StoreError> {
        if self.connector.is_pooled() {
            let mut tx = self.begin().await?;
            let rows = tx.query(sql, args).await;
            return tx.end(rows).await;
        }
        let mut guard = self.take().await?;
        let rows = guard.query(sql, args).await;
        guard.put_back(rows)
    }

    /// Runs one statement by itself and gives the number of affected rows.
    pub(crate) async fn execute(
        &self,
        sql: &Arc<str>,
        args: &[Arg<'_>],
    ) -> Result<u64, StoreError> {
        if self.connector.is_pooled() {
            let mut tx = self.begin().await?;
            let affected = tx.execute(sql, args).await;
            return tx.end(affected).await;
        }
        let mut guard = self.take().await?;
        let affected = guard.execute(sql, args).await;
        guard.put_back(affected)
    }

    /// Opens a transaction that writes, READ COMMITTED.
    pub(crate) async fn begin(&self) -> Result<Tx<'_>, StoreError> {
        let mut guard = self.take().await?;
        guard.open = true;
        match guard.run(self.connector.begin()).await {
            Ok(()) => Ok(Tx(guard)),
            Err(error) => guard.put_back(Err(error)),
        }
    }

    async fn take(&self) -> Result<ConnectionGuard<'_>, StoreError> {
        let mut idle = self.idle.lock().await;
        let response_timeout = self.connector.response_timeout();
        let mut guard = match idle.take() {
            Some((connection, since)) => {
                let mut guard = ConnectionGuard {
                    response_timeout,
                    idle,
                    connection: Some(connection),
                    open: false,
                };
                if now().saturating_duration_since(since) < PING_AFTER_IDLE
                    || guard.ping().await.is_ok()
                {
                    return Ok(guard);
                }
                guard
            }
            None => ConnectionGuard { response_timeout, idle, connection: None, open: false },
        };
        guard.connection = Some(bounded(response_timeout, self.connector.open()).await?);
        Ok(guard)
    }
}

impl Tx<'_> {
    /// Runs a statement and gives its rows.
    pub(crate) async fn query(
        &mut self,
        sql: &Arc<str>,
        args: &[Arg<'_>],
    ) -> Result<Vec<QueryResult>, StoreError> {
        self.0.query(sql, args).await
    }

    /// Runs a statement and gives the number of affected rows.
    pub(crate) async fn execute(
        &mut self,
        sql: &Arc<str>,
        args: &[Arg<'_>],
    ) -> Result<u64, StoreError> {
        self.0.execute(sql, args).await
    }

    /// Commits after a success, rolls back after a failure.
    pub(crate) async fn end<T>(mut self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        let last = match outcome {
            Ok(_) => "COMMIT",
            // The connection is lost; the server ends the transaction by itself.
            Err(StoreError::Unavailable(_)) => return outcome,
            Err(_) => "ROLLBACK",
        };
        match (outcome, self.0.run(last).await) {
            (outcome, Ok(())) => self.0.put_back(outcome),
            (Ok(_), Err(error)) | (Err(error), Err(_)) => Err(error),
        }
    }
}

impl ConnectionGuard<'_> {
    async fn query(
        &mut self,
        sql: &Arc<str>,
        args: &[Arg<'_>],
    ) -> Result<Vec<QueryResult>, StoreError> {
        bounded(self.response_timeout, present(&mut self.connection)?.query(sql, args)).await
    }

    async fn execute(&mut self, sql: &Arc<str>, args: &[Arg<'_>]) -> Result<u64, StoreError> {
        bounded(self.response_timeout, present(&mut self.connection)?.execute(sql, args)).await
    }

    async fn run(&mut self, sql: &str) -> Result<(), StoreError> {
        bounded(self.response_timeout, present(&mut self.connection)?.run(sql)).await
    }

    async fn ping(&mut self) -> Result<(), StoreError> {
        bounded(self.response_timeout, present(&mut self.connection)?.ping()).await
    }

    /// Keeps the connection for the next caller, unless the failure is one of the connection.
    fn put_back<T>(mut self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        if !matches!(outcome, Err(StoreError::Unavailable(_))) {
            self.open = false;
            // A shared connection returns to the application's pool at once.
            *self.idle = self
                .connection
                .take()
                .filter(|connection| !connection.is_shared())
                .map(|connection| (connection, now()));
        }
        outcome
    }
}

impl Drop for ConnectionGuard<'_> {
    fn drop(&mut self) {
        // Dropping the relay's own connection closes it, which rolls back. The application's may
        // not be closed, since its memory is the database; so its transaction is rolled back before
        // the pool lends it again.
        if let Some(mut connection) =
            self.connection.take().filter(|connection| self.open && connection.is_shared())
        {
            let rollback = spawn(async move {
                if let Err(error) = connection.run("ROLLBACK").await {
                    tracing::debug!(%error, "nothing was open on the shared connection");
                }
            });
            rollback.detach();
        }
    }
}

fn present(connection: &mut Option<DriverConnection>) -> Result<&mut DriverConnection, StoreError> {
    connection.as_mut().ok_or_else(|| StoreError::Unavailable("the connection is gone".into()))
}

/// Waits for a response until the timeout: a network that drops everything never gives one.
async fn bounded<T>(
    response_timeout: Duration,
    call: impl Future<Output = Result<T, sqlx::Error>> + Send,
) -> Result<T, StoreError> {
    match tokio::time::timeout(response_timeout, call).await {
        Ok(response) => response.map_err(driver_error),
        Err(late) => Err(StoreError::Unavailable(late.into())),
    }
}
