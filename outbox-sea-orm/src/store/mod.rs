//! What a relay needs of the database, over connections of its own: one room a file, as in the core.

mod bind;
pub(crate) mod decode;
mod janitor;
mod leases;
pub(crate) mod letters;
mod options;
mod reader;
mod record;
mod second_look;
mod settler;

pub use options::{Retention, StoreOptions};

use crate::{
    dialect::Dialect,
    notify::Listener,
    pool::{Lane, Opener},
    schema::Schema,
};
use outbox_core::outbox::{RelayStore, StoreError};
use sea_orm::DatabaseConnection;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Texts that are kept; there are only as many as numbers of partitions and powers of two.
type Texts = Mutex<HashMap<(&'static str, usize), Arc<str>>>;

/// Opens what a relay needs: at most four connections of its own, to where the pool leads, and one more to listen.
///
/// A SQLite database in memory is there for its own pool alone; the relay shares it then.
///
/// # Errors
/// [`StoreError::Mismatch`] when no relay can work there (a PostgreSQL replica, a binary log of statements); else what
/// the database said.
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
    let opener = Arc::new(Opener::new(db, dialect, limit, options.behind_pooler).await?);
    opener.prepare(dialect).await?;
    let listener = (options.notifications && !options.behind_pooler)
        .then(|| Listener::new(db, schema))
        .flatten();
    let store = RelayStore::new(SqlStore::new(schema, &opener, options));
    Ok(match listener {
        Some(listener) => store.with_listener(listener),
        None => store,
    })
}

/// The store of one relay.
struct SqlStore {
    schema: Arc<Schema>,
    options: StoreOptions,
    keeper: Lane,
    reader: Lane,
    settler: Lane,
    janitor: Lane,
    texts: Texts,
}

impl SqlStore {
    fn new(schema: &Arc<Schema>, opener: &Arc<Opener>, options: &StoreOptions) -> Self {
        Self {
            schema: Arc::clone(schema),
            options: options.clone(),
            keeper: Lane::new(opener),
            reader: Lane::new(opener),
            settler: Lane::new(opener),
            janitor: Lane::new(opener),
            texts: Texts::default(),
        }
    }

    fn dialect(&self) -> Dialect {
        self.schema.dialect()
    }

    /// Gives a text that depends on a number, and keeps it.
    fn text(&self, name: &'static str, n: usize, write: impl FnOnce() -> String) -> Arc<str> {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(texts.entry((name, n)).or_insert_with(|| self.schema.filled(&write())))
    }

    /// Gives a text for a list of `n` values; there is one for each number that stands for it.
    fn list_text(
        &self,
        name: &'static str,
        n: usize,
        write: impl FnOnce(Dialect, usize) -> String,
    ) -> Arc<str> {
        let dialect = self.dialect();
        self.text(name, dialect.padded(n), || write(dialect, n))
    }
}
