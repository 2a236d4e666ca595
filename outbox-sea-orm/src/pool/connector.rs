//! Opens the relay's own connections, to the database of the application's pool.

use super::{DriverConnection, driver_error, store_error};
use crate::dialect::Dialect;
#[cfg(not(all(feature = "sqlx-postgres", feature = "sqlx-mysql", feature = "sqlx-sqlite")))]
use crate::dialect::Drivers;
use outbox_core::outbox::StoreError;
use outbox_core::runtime::now;
#[cfg(feature = "sqlx-sqlite")]
use outbox_core::runtime::{Exit, spawn};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement, sqlx};
use std::{sync::Arc, time::Duration};

/// Time that a response may take beyond the server's own timeouts: the way there and back.
const NETWORK_SLACK: Duration = Duration::from_secs(1);

/// Pause between two tries to change the mode of a SQLite file: as long as a short transaction of
/// another connection.
const WAL_RETRY: Duration = Duration::from_millis(5);

/// The database of the connections.
#[derive(Clone)]
enum Target {
    #[cfg(feature = "sqlx-postgres")]
    Postgres(Arc<sqlx::postgres::PgConnectOptions>),
    #[cfg(feature = "sqlx-mysql")]
    MySql(Arc<sqlx::mysql::MySqlConnectOptions>),
    #[cfg(feature = "sqlx-sqlite")]
    Sqlite(Box<sqlx::sqlite::SqliteConnectOptions>),
    /// A database in memory exists for its own pool only.
    #[cfg(feature = "sqlx-sqlite")]
    Shared(sqlx::SqlitePool),
}

/// Opens connections of the relay.
pub(crate) struct Connector {
    target: Target,
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
        match dialect {
            #[cfg(feature = "sqlx-postgres")]
            Dialect::Postgres => {
                let options = db.get_postgres_connection_pool().connect_options();
                let sql = "SELECT current_setting('search_path')";
                let path = if pooled {
                    query_text_apart(&options, sql).await?
                } else {
                    query_text(db, sql).await?
                };
                let settings = dialect.settings(limit, &path);
                let (session_setup, begin) = if pooled {
                    let local: Vec<String> =
                        settings.iter().map(|s| format!("; SET LOCAL {s}")).collect();
                    (String::new(), format!("{}{}", dialect.begin(), local.concat()))
                } else {
                    (dialect.session_setup(&settings), dialect.begin().to_owned())
                };
                let target = Target::Postgres(options);
                Ok(Self { target, session_setup, begin, pooled, response_timeout })
            }
            #[cfg(feature = "sqlx-mysql")]
            Dialect::MySql | Dialect::MariaDb => {
                let settings = dialect.settings(limit, "");
                let session_setup = dialect.session_setup(&settings);
                let target = Target::MySql(db.get_mysql_connection_pool().connect_options());
                Ok(Self {
                    target,
                    session_setup,
                    begin: dialect.begin().into(),
                    pooled,
                    response_timeout,
                })
            }
            #[cfg(feature = "sqlx-sqlite")]
            Dialect::Sqlite => {
                let pool = db.get_sqlite_connection_pool();
                let file =
                    query_text(db, "SELECT file FROM pragma_database_list WHERE name = 'main'")
                        .await?;
                let target = if file.is_empty() {
                    Target::Shared(pool.clone())
                } else {
                    let options = (*pool.connect_options()).clone();
                    Target::Sqlite(Box::new(options.busy_timeout(limit).create_if_missing(false)))
                };
                Ok(Self {
                    target,
                    session_setup: String::new(),
                    begin: dialect.begin().into(),
                    pooled,
                    response_timeout,
                })
            }
            #[cfg(not(all(
                feature = "sqlx-postgres",
                feature = "sqlx-mysql",
                feature = "sqlx-sqlite"
            )))]
            _ => Err(StoreError::Mismatch(
                Drivers::BUILT.missing_for(dialect.backend()).unwrap_or_default(),
            )),
        }
    }

    /// Opens a connection and makes it ready.
    pub(crate) async fn open(&self) -> Result<DriverConnection, sqlx::Error> {
        let mut connection = match &self.target {
            #[cfg(feature = "sqlx-postgres")]
            Target::Postgres(options) => {
                let connection = sqlx::ConnectOptions::connect(&**options).await?;
                if self.pooled {
                    DriverConnection::Pooled(connection)
                } else {
                    DriverConnection::Postgres(connection)
                }
            }
            #[cfg(feature = "sqlx-mysql")]
            Target::MySql(options) => {
                DriverConnection::MySql(sqlx::ConnectOptions::connect(&**options).await?)
            }
            #[cfg(feature = "sqlx-sqlite")]
            Target::Sqlite(options) => {
                DriverConnection::Sqlite(sqlx::ConnectOptions::connect(&**options).await?)
            }
            #[cfg(feature = "sqlx-sqlite")]
            Target::Shared(pool) => {
                // A task of its own: the driver closes the connection of a cancelled `acquire`, and
                // with it the database.
                let pool = pool.clone();
                match spawn(async move { pool.acquire().await }).await {
                    Exit::Finished(acquired) => DriverConnection::Shared(acquired?),
                    Exit::Panicked(_) | Exit::Cancelled => return Err(sqlx::Error::PoolClosed),
                }
            }
        };
        if !self.session_setup.is_empty() {
            connection.run(&self.session_setup).await?;
        }
        Ok(connection)
    }

    /// Prepares the database for a relay over a first connection, or tells why no relay can work on
    /// it.
    pub(crate) async fn prepare(&self, dialect: Dialect) -> Result<(), StoreError> {
        if let Some(sql) = dialect.write_ahead().filter(|_| self.is_own()) {
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

    /// Tells whether the connections are the relay's own, not borrowed from the application's pool.
    const fn is_own(&self) -> bool {
        #[cfg(feature = "sqlx-sqlite")]
        if matches!(self.target, Target::Shared(_)) {
            return false;
        }
        true
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

/// Queries one text.
async fn query_text(db: &DatabaseConnection, sql: &str) -> Result<String, StoreError> {
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await;
    match row.map_err(store_error)? {
        Some(row) => row.try_get_by_index(0).map_err(store_error),
        None => Ok(String::new()),
    }
}

/// Queries one text over a connection of its own, without a prepared statement, which a pooler
/// would have to carry over.
#[cfg(feature = "sqlx-postgres")]
async fn query_text_apart(
    options: &sqlx::postgres::PgConnectOptions,
    sql: &'static str,
) -> Result<String, StoreError> {
    use sqlx::{Connection, Row};
    let mut connection = sqlx::ConnectOptions::connect(options).await.map_err(driver_error)?;
    let row = sqlx::raw_sql(sql).fetch_one(&mut connection).await.map_err(driver_error)?;
    let text = row.try_get(0).map_err(driver_error)?;
    // The connection is not needed any more, so an error of its end is ignored.
    drop(connection.close().await);
    Ok(text)
}
