//! Opens the relay's own connections, to where the application's pool leads.

use super::{Link, driver_error, store_error};
use crate::dialect::Dialect;
#[cfg(not(all(feature = "sqlx-postgres", feature = "sqlx-mysql", feature = "sqlx-sqlite")))]
use crate::dialect::Drivers;
use outbox_core::outbox::StoreError;
use outbox_core::runtime::now;
#[cfg(feature = "sqlx-sqlite")]
use outbox_core::runtime::{Exit, spawn};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement, sqlx};
use std::{sync::Arc, time::Duration};

/// What the relay waits for an answer beyond the server's own timeouts: the way there and back.
const TRAVEL: Duration = Duration::from_secs(1);

/// Between two tries to change the mode of a SQLite file: a short transaction of somebody else.
const BREATH: Duration = Duration::from_millis(5);

/// Where connections lead.
#[derive(Clone)]
enum Target {
    #[cfg(feature = "sqlx-postgres")]
    Postgres(Arc<sqlx::postgres::PgConnectOptions>),
    #[cfg(feature = "sqlx-mysql")]
    MySql(Arc<sqlx::mysql::MySqlConnectOptions>),
    #[cfg(feature = "sqlx-sqlite")]
    Sqlite(Box<sqlx::sqlite::SqliteConnectOptions>),
    /// A database in memory is there for its own pool only.
    #[cfg(feature = "sqlx-sqlite")]
    Shared(sqlx::SqlitePool),
}

/// Opens connections of the relay.
pub(crate) struct Opener {
    target: Target,
    /// What is said first on each.
    greeting: String,
    begin: String,
    pooled: bool,
    patience: Duration,
}

impl Opener {
    /// Prepares connections to the database of a pool; none is opened.
    ///
    /// No statement, no wait for a lock and no idle transaction on them lasts longer than `limit`. Where a pooler that
    /// gives a connection to another client after each transaction stands between, `pooled` says it: every setting
    /// travels with its transaction then.
    pub(crate) async fn new(
        db: &DatabaseConnection,
        dialect: Dialect,
        limit: Duration,
        pooled: bool,
    ) -> Result<Self, StoreError> {
        let limit = limit.max(Duration::from_millis(100));
        let patience = limit + TRAVEL;
        let pooled = pooled && dialect == Dialect::Postgres;
        match dialect {
            #[cfg(feature = "sqlx-postgres")]
            Dialect::Postgres => {
                let options = db.get_postgres_connection_pool().connect_options();
                let question = "SELECT current_setting('search_path')";
                let path = if pooled {
                    ask_apart(&options, question).await?
                } else {
                    ask(db, question).await?
                };
                let settings = dialect.settings(limit, &path);
                let (greeting, begin) = if pooled {
                    let local: Vec<String> =
                        settings.iter().map(|s| format!("; SET LOCAL {s}")).collect();
                    (String::new(), format!("{}{}", dialect.begin(), local.concat()))
                } else {
                    (dialect.greeting(&settings), dialect.begin().to_owned())
                };
                let target = Target::Postgres(options);
                Ok(Self { target, greeting, begin, pooled, patience })
            }
            #[cfg(feature = "sqlx-mysql")]
            Dialect::MySql | Dialect::MariaDb => {
                let settings = dialect.settings(limit, "");
                let greeting = dialect.greeting(&settings);
                let target = Target::MySql(db.get_mysql_connection_pool().connect_options());
                Ok(Self { target, greeting, begin: dialect.begin().into(), pooled, patience })
            }
            #[cfg(feature = "sqlx-sqlite")]
            Dialect::Sqlite => {
                let pool = db.get_sqlite_connection_pool();
                let file =
                    ask(db, "SELECT file FROM pragma_database_list WHERE name = 'main'").await?;
                let target = if file.is_empty() {
                    Target::Shared(pool.clone())
                } else {
                    let options = (*pool.connect_options()).clone();
                    Target::Sqlite(Box::new(options.busy_timeout(limit).create_if_missing(false)))
                };
                Ok(Self {
                    target,
                    greeting: String::new(),
                    begin: dialect.begin().into(),
                    pooled,
                    patience,
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
    pub(crate) async fn open(&self) -> Result<Link, sqlx::Error> {
        let mut link = match &self.target {
            #[cfg(feature = "sqlx-postgres")]
            Target::Postgres(options) => {
                let connection = sqlx::ConnectOptions::connect(&**options).await?;
                if self.pooled { Link::Pooled(connection) } else { Link::Postgres(connection) }
            }
            #[cfg(feature = "sqlx-mysql")]
            Target::MySql(options) => Link::MySql(sqlx::ConnectOptions::connect(&**options).await?),
            #[cfg(feature = "sqlx-sqlite")]
            Target::Sqlite(options) => {
                Link::Sqlite(sqlx::ConnectOptions::connect(&**options).await?)
            }
            #[cfg(feature = "sqlx-sqlite")]
            Target::Shared(pool) => {
                // A task of its own: the driver closes the connection of a cancelled `acquire`, and with it the database.
                let pool = pool.clone();
                match spawn(async move { pool.acquire().await }).await {
                    Exit::Finished(acquired) => Link::Shared(acquired?),
                    Exit::Panicked(_) | Exit::Cancelled => return Err(sqlx::Error::PoolClosed),
                }
            }
        };
        if !self.greeting.is_empty() {
            link.run(&self.greeting).await?;
        }
        Ok(link)
    }

    /// Makes the database ready for a relay by a first connection, or says why no relay can work on it.
    pub(crate) async fn prepare(&self, dialect: Dialect) -> Result<(), StoreError> {
        if let Some(ask) = dialect.write_ahead().filter(|_| self.is_own()) {
            return self.write_ahead(&ask.into()).await;
        }
        let Some((question, refusal)) = dialect.unfit() else { return Ok(()) };
        let mut link = self.open().await.map_err(driver_error)?;
        // Behind a pooler a statement without a name is there for its transaction only.
        if self.pooled {
            link.run(&self.begin).await.map_err(driver_error)?;
        }
        let answer = link.query(&question.into(), &[]).await.map_err(driver_error)?;
        match answer
            .first()
            .map(|row| row.try_get_by_index::<i64>(0).map_err(store_error))
            .transpose()?
        {
            Some(0) => Ok(()),
            _ => Err(StoreError::Mismatch(refusal.to_owned())),
        }
    }

    /// Asks for the mode in which readers and the writer do not wait for each other. The file keeps it.
    ///
    /// The change needs the file for a moment to itself, and SQLite does not wait for that: it says "locked" at once,
    /// whatever the busy timeout is. A file that is never free is worked on as it is.
    async fn write_ahead(&self, ask: &Arc<str>) -> Result<(), StoreError> {
        let mut link = self.open().await.map_err(driver_error)?;
        let until = now() + self.patience;
        loop {
            match link.query(ask, &[]).await.map_err(driver_error) {
                Ok(_) => return Ok(()),
                Err(StoreError::Busy(error)) if now() >= until => {
                    tracing::warn!(%error, "the SQLite file is never free to be put into WAL mode: the relay waits for \
                        writers, and they for it, until one that starts in a quieter moment changes it");
                    return Ok(());
                }
                Err(StoreError::Busy(_)) => tokio::time::sleep(BREATH).await,
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

    /// Tells how long an answer may take.
    pub(crate) const fn patience(&self) -> Duration {
        self.patience
    }

    /// Tells whether a pooler stands between.
    pub(crate) const fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// Tells what opens a transaction that writes.
    pub(crate) fn begin(&self) -> &str {
        &self.begin
    }
}

/// Asks for one text.
async fn ask(db: &DatabaseConnection, question: &str) -> Result<String, StoreError> {
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), question)).await;
    match row.map_err(store_error)? {
        Some(row) => row.try_get_by_index(0).map_err(store_error),
        None => Ok(String::new()),
    }
}

/// Asks for one text over a connection of its own, without a statement that a pooler would have to carry over.
#[cfg(feature = "sqlx-postgres")]
async fn ask_apart(
    options: &sqlx::postgres::PgConnectOptions,
    question: &'static str,
) -> Result<String, StoreError> {
    use sqlx::{Connection, Row};
    let mut connection = sqlx::ConnectOptions::connect(options).await.map_err(driver_error)?;
    let row = sqlx::raw_sql(question).fetch_one(&mut connection).await.map_err(driver_error)?;
    let text = row.try_get(0).map_err(driver_error)?;
    // It is not needed any more, whatever is said to that.
    drop(connection.close().await);
    Ok(text)
}
