//! The store of a relay, over connections of its own: one file for each trait of the core.

mod bind;
mod decode;
mod janitor;
mod leases;
mod letters;
mod live;
mod options;
mod reader;
mod record;
mod recheck;
mod samples;
mod settler;

pub use options::{Retention, StoreOptions};

use crate::{
    dialect::Dialect,
    notify::PgWakeListener,
    pool::{Connector, RelayConnection},
    schema::Schema,
};
use outbox_core::outbox::{RelayStore, StoreError};
use sea_orm::DatabaseConnection;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// SQL by name and number of values; there are only as many numbers as partitions and powers of
/// two.
type SqlCache = Mutex<HashMap<(&'static str, usize), Arc<str>>>;

/// Opens the store of a relay: at most four connections of its own, to the database of the pool,
/// and one more to listen.
///
/// A SQLite database in memory exists for its own pool alone; the relay uses that pool then.
///
/// # Errors
/// [`StoreError::Mismatch`] when no relay can work there (a PostgreSQL replica, a binary log of
/// statements); else the database's error.
///
/// # Cancel safety
/// Nothing is written; call again.
pub async fn open_relay_store(
    db: &DatabaseConnection,
    schema: &Arc<Schema>,
    options: &StoreOptions,
) -> Result<RelayStore, StoreError> {
    let dialect = schema.dialect();
    let limit = options.lease / 3;
    let connector = Arc::new(Connector::new(db, dialect, limit, options.behind_pooler).await?);
    connector.prepare(dialect).await?;
    let listener = (options.notifications && !options.behind_pooler)
        .then(|| PgWakeListener::new(db, schema))
        .flatten();
    let store = Arc::new(SqlStore::new(schema, &connector, options));
    let store = RelayStore::shared(&store).with_live(store.clone()).with_samples(store);
    Ok(match listener {
        Some(listener) => store.with_listener(listener),
        None => store,
    })
}

/// The store of one relay.
struct SqlStore {
    schema: Arc<Schema>,
    options: StoreOptions,
    keeper: RelayConnection,
    reader: RelayConnection,
    settler: RelayConnection,
    janitor: RelayConnection,
    sql_cache: SqlCache,
}

impl SqlStore {
    fn new(schema: &Arc<Schema>, connector: &Arc<Connector>, options: &StoreOptions) -> Self {
        Self {
            schema: Arc::clone(schema),
            options: options.clone(),
            keeper: RelayConnection::new(connector),
            reader: RelayConnection::new(connector),
            settler: RelayConnection::new(connector),
            janitor: RelayConnection::new(connector),
            sql_cache: SqlCache::default(),
        }
    }

    fn dialect(&self) -> Dialect {
        self.schema.dialect()
    }

    /// Gives SQL that depends on a number, from the cache.
    fn sql(&self, name: &'static str, n: usize, write: impl FnOnce() -> String) -> Arc<str> {
        let mut sql_cache = self.sql_cache.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(sql_cache.entry((name, n)).or_insert_with(|| self.schema.filled(&write())))
    }

    /// Gives SQL for a list of `n` values; there is one for each [padded](Dialect::padded) number.
    fn list_sql(
        &self,
        name: &'static str,
        n: usize,
        write: impl FnOnce(Dialect, usize) -> String,
    ) -> Arc<str> {
        let dialect = self.dialect();
        self.sql(name, dialect.padded(n), || write(dialect, n))
    }
}
