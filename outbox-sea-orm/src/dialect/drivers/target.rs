//! The database of a relay's own connections, as its driver reaches it.

use super::DriverConnection;
#[cfg(not(all(feature = "sqlx-postgres", feature = "sqlx-mysql", feature = "sqlx-sqlite")))]
use super::Drivers;
use crate::dialect::Dialect;
#[cfg(feature = "sqlx-sqlite")]
use outbox_core::runtime::{Exit, spawn};
#[cfg(feature = "sqlx-postgres")]
use sea_orm::RuntimeErr;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement, sqlx};
#[cfg(any(feature = "sqlx-postgres", feature = "sqlx-mysql"))]
use std::sync::Arc;
use std::time::Duration;

/// The database of the connections.
#[derive(Clone)]
pub(crate) enum DriverTarget {
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

impl DriverTarget {
    /// Takes the database of a pool. No connection to it waits for a lock for longer than `limit`,
    /// where the driver decides that.
    pub(crate) async fn of(
        db: &DatabaseConnection,
        dialect: Dialect,
        limit: Duration,
    ) -> Result<Self, DbErr> {
        match dialect {
            #[cfg(feature = "sqlx-postgres")]
            Dialect::Postgres => {
                Ok(Self::Postgres(db.get_postgres_connection_pool().connect_options()))
            }
            #[cfg(feature = "sqlx-mysql")]
            Dialect::MySql | Dialect::MariaDb => {
                Ok(Self::MySql(db.get_mysql_connection_pool().connect_options()))
            }
            #[cfg(feature = "sqlx-sqlite")]
            Dialect::Sqlite => {
                let pool = db.get_sqlite_connection_pool();
                let file =
                    query_text(db, "SELECT file FROM pragma_database_list WHERE name = 'main'")
                        .await?;
                if file.is_empty() {
                    return Ok(Self::Shared(pool.clone()));
                }
                let options = (*pool.connect_options()).clone();
                Ok(Self::Sqlite(Box::new(options.busy_timeout(limit).create_if_missing(false))))
            }
            #[cfg(not(all(
                feature = "sqlx-postgres",
                feature = "sqlx-mysql",
                feature = "sqlx-sqlite"
            )))]
            _ => Err(DbErr::Custom(
                Drivers::BUILT.missing_for(dialect.backend()).unwrap_or_default(),
            )),
        }
    }

    /// Gives the application's search path; empty where the database has none. Behind a pooler the
    /// query goes over a connection of its own.
    pub(crate) async fn search_path(
        &self,
        db: &DatabaseConnection,
        pooled: bool,
    ) -> Result<String, DbErr> {
        match self {
            #[cfg(feature = "sqlx-postgres")]
            Self::Postgres(options) => {
                let sql = "SELECT current_setting('search_path')";
                if !pooled {
                    return query_text(db, sql).await;
                }
                let path = query_text_apart(options, sql).await;
                path.map_err(|error| DbErr::Query(RuntimeErr::SqlxError(Arc::new(error))))
            }
            _ => {
                let _ = (db, pooled);
                Ok(String::new())
            }
        }
    }

    /// Opens a connection.
    pub(crate) async fn open(&self, pooled: bool) -> Result<DriverConnection, sqlx::Error> {
        let _ = pooled;
        match self {
            #[cfg(feature = "sqlx-postgres")]
            Self::Postgres(options) => {
                let connection = sqlx::ConnectOptions::connect(&**options).await?;
                Ok(if pooled {
                    DriverConnection::Pooled(connection)
                } else {
                    DriverConnection::Postgres(connection)
                })
            }
            #[cfg(feature = "sqlx-mysql")]
            Self::MySql(options) => {
                Ok(DriverConnection::MySql(sqlx::ConnectOptions::connect(&**options).await?))
            }
            #[cfg(feature = "sqlx-sqlite")]
            Self::Sqlite(options) => {
                Ok(DriverConnection::Sqlite(sqlx::ConnectOptions::connect(&**options).await?))
            }
            #[cfg(feature = "sqlx-sqlite")]
            Self::Shared(pool) => {
                // A task of its own: the driver closes the connection of a cancelled `acquire`, and
                // with it the database.
                let pool = pool.clone();
                match spawn(async move { pool.acquire().await }).await {
                    Exit::Finished(acquired) => Ok(DriverConnection::Shared(acquired?)),
                    Exit::Panicked(_) | Exit::Cancelled => Err(sqlx::Error::PoolClosed),
                }
            }
        }
    }

    /// Tells whether its connections are the relay's own, not borrowed from the application's pool.
    pub(crate) const fn is_own(&self) -> bool {
        #[cfg(feature = "sqlx-sqlite")]
        if matches!(self, Self::Shared(_)) {
            return false;
        }
        true
    }
}

/// Queries one text.
async fn query_text(db: &DatabaseConnection, sql: &str) -> Result<String, DbErr> {
    match db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await? {
        Some(row) => row.try_get_by_index(0),
        None => Ok(String::new()),
    }
}

/// Queries one text over a connection of its own, without a prepared statement, which a pooler
/// would have to carry over.
#[cfg(feature = "sqlx-postgres")]
async fn query_text_apart(
    options: &sqlx::postgres::PgConnectOptions,
    sql: &'static str,
) -> Result<String, sqlx::Error> {
    use sqlx::{Connection, Row};
    let mut connection = sqlx::ConnectOptions::connect(options).await?;
    let row = sqlx::raw_sql(sql).fetch_one(&mut connection).await?;
    let text = row.try_get(0)?;
    // The connection is not needed any more, so an error of its end is ignored.
    drop(connection.close().await);
    Ok(text)
}
