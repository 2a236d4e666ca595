//! The size of a pool of the application.

use super::work_pool::is_real;
use sea_orm::{DatabaseConnection, DbBackend};

/// Gives the largest number of connections of a pool; `None` where the connection is a mock.
pub(super) fn pool_size(db: &DatabaseConnection) -> Option<u32> {
    match db.get_database_backend() {
        _ if !is_real(db) => None,
        #[cfg(feature = "sqlx-postgres")]
        DbBackend::Postgres => {
            Some(db.get_postgres_connection_pool().options().get_max_connections())
        }
        #[cfg(feature = "sqlx-mysql")]
        DbBackend::MySql => Some(db.get_mysql_connection_pool().options().get_max_connections()),
        #[cfg(feature = "sqlx-sqlite")]
        DbBackend::Sqlite => Some(db.get_sqlite_connection_pool().options().get_max_connections()),
        _ => None,
    }
}
