//! Opens the relay's own connections, to the database of the application's pool.

use super::{DriverConnection, driver_error, store_error};
use crate::dialect::{Dialect, DriverTarget};
use outbox_core::{outbox::StoreError, runtime::now};
use sea_orm::{DatabaseConnection, sqlx};
use std::{sync::Arc, time::Duration};

/// Time that a response may take beyond the server's own timeouts: the way there and back.
const NETWORK_SLACK: Duration = Duration::from_secs(1);

/// Pause between two tries to change the mode of a SQLite file: as long as a short transaction of
/// another connection.
const WAL_RETRY: Duration = Duration::from_millis(5);

/// Opens connections of the relay.
pub(crate) struct Connector {
    target: DriverTarget,
    /// SQL that each connection runs first.
    session_setup: String,
    begin: String,
    pooled: bool,
    response_timeout: Duration,
}

impl Connector {
    /// Prepares connections to the database of a pool; opens none.
    ///
    /// No statement, no wait for a lock and no idle transaction on them lasts longer than `limit`.
    /// `pooled` tells that a pooler in between gives a connection to another client after each
    /// transaction: then each transaction sets the settings itself.
    pub(crate) async fn new(
        db: &DatabaseConnection,
        dialect: Dialect,
        limit: Duration,
        pooled: bool,
    ) -> Result<Self, StoreError> {
        let limit = limit.max(Duration::from_millis(100));
        let response_timeout = limit + NETWORK_SLACK;
        let pooled = pooled && dialect.has_poolers();
        let target = DriverTarget::of(db, dialect, limit).await.map_err(store_error)?;
        let path = target.search_path(db, pooled).await.map_err(store_error)?;
        let settings = dialect.settings(limit, &path);
        let (session_setup, begin) = if pooled {
            let local: Vec<String> = settings.iter().map(|s| format!("; SET LOCAL {s}")).collect();
            (String::new(), format!("{}{}", dialect.begin(), local.concat()))
        } else {
            (dialect.session_setup(&settings), dialect.begin().to_owned())
        };
        Ok(Self { target, session_setup, begin, pooled, response_timeout })
    }

    /// Opens a connection and makes it ready.
    pub(crate) async fn open(&self) -> Result<DriverConnection, sqlx::Error> {
        let mut connection = self.target.open(self.pooled).await?;
        if !self.session_setup.is_empty() {
            connection.run(&self.session_setup).await?;
        }
        Ok(connection)
    }

    /// Prepares the database for a relay over a first connection, or tells why no relay can work on
    /// it.
    pub(crate) async fn prepare(&self, dialect: Dialect) -> Result<(), StoreError> {
        if let Some(sql) = dialect.write_ahead().filter(|_| self.target.is_own()) {
            return self.write_ahead(&sql.into()).await;
        }
        let Some((sql, refusal)) = dialect.unsupported_check() else { return Ok(()) };
        let mut connection = self.open().await.map_err(driver_error)?;
        // Behind a pooler an unnamed statement exists for its transaction only.
        if self.pooled {
            connection.run(&self.begin).await.map_err(driver_error)?;
        }
        let rows = connection.query(&sql.into(), &[]).await.map_err(driver_error)?;
        match rows
            .first()
            .map(|row| row.try_get_by_index::<i64>(0).map_err(store_error))
            .transpose()?
        {
            Some(0) => Ok(()),
            _ => Err(StoreError::Mismatch(refusal.to_owned())),
        }
    }

    /// Switches the file to the mode in which readers and the writer do not wait for each other.
    /// The file keeps it.
    ///
    /// The switch needs the file for a moment to itself, and SQLite does not wait for that: it
    /// fails with "locked" at once, whatever the busy timeout is. The relay works on a file that is
    /// never free without the switch.
    async fn write_ahead(&self, sql: &Arc<str>) -> Result<(), StoreError> {
        let mut connection = self.open().await.map_err(driver_error)?;
        let until = now() + self.response_timeout;
        loop {
            match connection.query(sql, &[]).await.map_err(driver_error) {
                Ok(_) => return Ok(()),
                Err(StoreError::Busy(error)) if now() >= until => {
                    tracing::warn!(%error, "the SQLite file is never free to be put into WAL mode: the relay waits for \
                        writers, and they for it, until one that starts in a quieter moment changes it");
                    return Ok(());
                }
                Err(StoreError::Busy(_)) => tokio::time::sleep(WAL_RETRY).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells how long a response may take.
    pub(crate) const fn response_timeout(&self) -> Duration {
        self.response_timeout
    }

    /// Tells whether a pooler is in between.
    pub(crate) const fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// Gives the SQL that opens a transaction that writes.
    pub(crate) fn begin(&self) -> &str {
        &self.begin
    }
}
