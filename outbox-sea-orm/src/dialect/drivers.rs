//! The drivers that this program was built with, and what has one type for each of them.

mod connection;
mod pool;
mod target;

pub(crate) use connection::{Arg, DriverConnection};
#[cfg(feature = "sqlx-postgres")]
pub(crate) use pool::postgres_options;
pub(crate) use pool::{PoolOptions, close_pool, limits_like_own, used_connections};
pub(crate) use target::DriverTarget;

use sea_orm::DbBackend;

/// Which drivers of its own this crate was built with. The application's SeaORM may have others,
/// which a relay cannot use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drivers {
    postgres: bool,
    mysql: bool,
    sqlite: bool,
}

impl Drivers {
    /// Those of this build.
    pub(crate) const BUILT: Self = Self {
        postgres: cfg!(feature = "sqlx-postgres"),
        mysql: cfg!(feature = "sqlx-mysql"),
        sqlite: cfg!(feature = "sqlx-sqlite"),
    };

    /// Tells which feature to add to work with a database; nothing where the driver is built in.
    pub(crate) fn missing_for(self, backend: DbBackend) -> Option<String> {
        let (is_built, feature, name) = match backend {
            DbBackend::Postgres => (self.postgres, "sqlx-postgres", "PostgreSQL"),
            DbBackend::MySql => (self.mysql, "sqlx-mysql", "MySQL and MariaDB"),
            DbBackend::Sqlite => (self.sqlite, "sqlx-sqlite", "SQLite"),
            _ => return None,
        };
        let missing = format!(
            "the connection is one to {name}, and outbox-saga-sea-orm was built without its driver: add the feature \"{feature}\" of \
             outbox-saga-sea-orm to Cargo.toml"
        );
        (!is_built).then_some(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Outbox, OutboxError};
    use sea_orm::{ConnectionTrait, Database};

    #[test]
    fn a_driver_that_is_missing_is_named_by_its_feature() {
        let none = Drivers { postgres: false, mysql: false, sqlite: false };
        let all = Drivers { postgres: true, mysql: true, sqlite: true };
        for (backend, feature) in [
            (DbBackend::Postgres, "sqlx-postgres"),
            (DbBackend::MySql, "sqlx-mysql"),
            (DbBackend::Sqlite, "sqlx-sqlite"),
        ] {
            let text = none.missing_for(backend).expect("it is missing");
            assert!(
                text.contains(&format!("add the feature \"{feature}\" of outbox-saga-sea-orm")),
                "{text}"
            );
            assert_eq!(all.missing_for(backend), None);
        }
        let other = Drivers { postgres: true, ..none };
        assert_eq!(
            (
                other.missing_for(DbBackend::Postgres),
                other.missing_for(DbBackend::Sqlite).is_some()
            ),
            (None, true)
        );
    }

    #[cfg(feature = "sqlx-sqlite")]
    #[tokio::test]
    async fn an_outbox_without_its_driver_is_refused_before_anything_is_written() {
        let db = Database::connect("sqlite::memory:").await.expect("a database in memory");
        let builder = || {
            let mut builder = Outbox::builder(db.clone()).source("shop");
            builder.drivers = Drivers { sqlite: false, ..Drivers::BUILT };
            builder
        };
        for refused in [builder().install().await, builder().build().await] {
            match refused {
                Err(OutboxError::Configuration(faults)) => {
                    assert!(faults[0].contains("\"sqlx-sqlite\""), "{faults:?}")
                }
                other => panic!("not refused: {:?}", other.err()),
            }
        }
        let tables = "SELECT name FROM sqlite_master";
        let there = db
            .query_all_raw(sea_orm::Statement::from_string(DbBackend::Sqlite, tables))
            .await
            .expect("a list");
        assert!(there.is_empty(), "{} tables were made", there.len());
    }
}
