//! The drivers' pools behind SeaORM's connections, which have one type for each database.

use crate::dialect::{Dialect, TransactionLimits};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend,
    sqlx::{Database, Pool},
};
use std::time::Duration;

/// The options of a pool that do not depend on its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolOptions {
    /// The largest number of its connections.
    pub(crate) max_connections: u32,
    /// How long it waits for a free connection.
    pub(crate) acquire_timeout: Duration,
}

impl PoolOptions {
    /// Reads them from a connection; nothing where it is a mock.
    pub(crate) fn of(db: &DatabaseConnection) -> Option<Self> {
        match db.get_database_backend() {
            _ if db.is_mock_connection() => None,
            #[cfg(feature = "sqlx-postgres")]
            DbBackend::Postgres => Some(Self::read(db.get_postgres_connection_pool())),
            #[cfg(feature = "sqlx-mysql")]
            DbBackend::MySql => Some(Self::read(db.get_mysql_connection_pool())),
            #[cfg(feature = "sqlx-sqlite")]
            DbBackend::Sqlite => Some(Self::read(db.get_sqlite_connection_pool())),
            _ => None,
        }
    }

    fn read<D: Database>(pool: &Pool<D>) -> Self {
        let options = pool.options();
        Self {
            max_connections: options.get_max_connections(),
            acquire_timeout: options.get_acquire_timeout(),
        }
    }
}

/// Gives the options of a pool to PostgreSQL; nothing where it is one to another database, or a
/// mock.
#[cfg(feature = "sqlx-postgres")]
pub(crate) fn postgres_options(
    db: &DatabaseConnection,
) -> Option<std::sync::Arc<sea_orm::sqlx::postgres::PgConnectOptions>> {
    let is_postgres = db.get_database_backend() == DbBackend::Postgres && !db.is_mock_connection();
    is_postgres.then(|| db.get_postgres_connection_pool().connect_options())
}

/// Gives the limits of transactions on connections like those of the application's pool, whose own
/// limit of a statement counts where its options set one.
pub(crate) fn limits_like_own(
    db: &DatabaseConnection,
    limits: TransactionLimits,
) -> TransactionLimits {
    #[cfg(feature = "sqlx-postgres")]
    if let Some(options) = postgres_options(db) {
        return options.get_options().map_or(limits, |set| limits.with_postgres_options(set));
    }
    let _ = db;
    limits
}

/// Closes a pool to a server: it closes connections that return to it from now on. The future that
/// is dropped would wait for them.
pub(crate) fn close_pool(db: &DatabaseConnection) {
    match db.get_database_backend() {
        #[cfg(feature = "sqlx-postgres")]
        DbBackend::Postgres => drop(db.get_postgres_connection_pool().close()),
        #[cfg(feature = "sqlx-mysql")]
        DbBackend::MySql => drop(db.get_mysql_connection_pool().close()),
        _ => {}
    }
}

/// Gives how many connections of a pool to a server are in use.
pub(crate) fn used_connections(db: &DatabaseConnection) -> usize {
    match db.get_database_backend() {
        #[cfg(feature = "sqlx-postgres")]
        DbBackend::Postgres => used(db.get_postgres_connection_pool()),
        #[cfg(feature = "sqlx-mysql")]
        DbBackend::MySql => used(db.get_mysql_connection_pool()),
        _ => 0,
    }
}

fn used<D: Database>(pool: &Pool<D>) -> usize {
    let (size, idle) = (pool.size(), pool.num_idle());
    usize::try_from(size).unwrap_or(0).saturating_sub(idle)
}

impl Dialect {
    /// Makes a pool of the framework's own to the server of the application's pool, which opens its
    /// connections when they are needed; nothing where the application's pool is the only one that
    /// reaches the data. `with_limits` sets the limits on PostgreSQL when a connection is opened.
    pub(crate) fn own_pool(
        self,
        application: &DatabaseConnection,
        limits: &TransactionLimits,
        with_limits: bool,
        max_connections: Option<u32>,
    ) -> Option<DatabaseConnection> {
        match self {
            _ if application.is_mock_connection() => None,
            #[cfg(feature = "sqlx-postgres")]
            Self::Postgres => {
                let pool = application.get_postgres_connection_pool();
                let mut options = (*pool.connect_options()).clone();
                if with_limits {
                    options = options.options(self.limits_of_session(limits));
                }
                let mut pool = pool.options().clone().min_connections(0).test_before_acquire(false);
                if let Some(max_connections) = max_connections {
                    pool = pool.max_connections(max_connections);
                }
                Some(sea_orm::SqlxPostgresConnector::from_sqlx_postgres_pool(
                    pool.connect_lazy_with(options),
                ))
            }
            #[cfg(feature = "sqlx-mysql")]
            Self::MySql | Self::MariaDb => {
                let pool = application.get_mysql_connection_pool();
                let options = (*pool.connect_options()).clone();
                let settings = self.limits_of_transaction(limits);
                let mut made = pool
                    .options()
                    .clone()
                    .min_connections(0)
                    .test_before_acquire(false)
                    .after_connect(move |conn, _| {
                        let settings = settings.clone();
                        Box::pin(async move {
                            use sea_orm::sqlx::{AssertSqlSafe, raw_sql};
                            raw_sql(AssertSqlSafe(settings)).execute(conn).await.map(|_| ())
                        })
                    });
                if let Some(max_connections) = max_connections {
                    made = made.max_connections(max_connections);
                }
                Some(sea_orm::SqlxMySqlConnector::from_sqlx_mysql_pool(
                    made.connect_lazy_with(options),
                ))
            }
            // A file has no network, and a database in memory exists for its own pool only.
            _ => {
                let _ = (limits, with_limits, max_connections);
                None
            }
        }
    }
}

#[cfg(all(test, feature = "sqlx-postgres"))]
mod tests {
    use super::*;
    use sea_orm::{
        SqlxPostgresConnector,
        sqlx::postgres::{PgConnectOptions, PgPoolOptions},
    };

    #[tokio::test]
    async fn an_own_pool_has_the_application_s_limit_of_a_statement_and_reads_a_short_one() {
        for (own, statement, of_reads) in [
            (None, "300000", "10000"),
            (Some("500"), "500", "500"),
            (Some("1min"), "60000", "10000"),
        ] {
            let mut options = PgConnectOptions::new_without_pgpass();
            if let Some(own) = own {
                options = options.options([("statement_timeout", own)]);
            }
            let pool = PgPoolOptions::new().connect_lazy_with(options);
            let db = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
            let limits = limits_like_own(&db, TransactionLimits::default());
            for (limits, expected) in [(limits, statement), (limits.of_reads(), of_reads)] {
                let made = Dialect::Postgres.own_pool(&db, &limits, true, None);
                let set = made.and_then(|made| postgres_options(&made)).expect("a pool of its own");
                let set = set.get_options().expect("limits");
                // The last one counts.
                let last = set.rsplit("statement_timeout=").next().unwrap_or_default();
                assert_eq!(last.split(' ').next(), Some(expected), "{own:?}: {set}");
            }
        }
    }
}
