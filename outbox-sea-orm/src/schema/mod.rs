//! One outbox in one database, as producers and consumers write to it: inside their own transaction, in any SeaORM
//! connection.

mod append;
mod barrier;
mod claims;
mod dedup;
mod deliveries;
mod inbox;
mod letters;
mod schedule;

pub(crate) use append::{EVENT_COLUMNS, RETRY_HEADER, stored};
pub(crate) use barrier::BARRIER_KEY;
pub use dedup::{DedupClaim, DedupConflict};
pub(crate) use letters::origin;
pub use schedule::DeliverAt;

use crate::{
    dialect::Dialect,
    migration,
    namespace::{Namespace, Tables},
    pool::store_error,
    saga::SagaTexts,
};
use barrier::BarrierTexts;
use outbox_core::outbox::StoreError;
use sea_orm::{DatabaseConnection, Statement, Value};
use std::{sync::Arc, time::Duration};

/// Longest span that is stored, in microseconds: 285 years, so that no sum with an instant overflows.
const LONGEST: i64 = 9_000_000_000_000_000;

/// For how long received messages are remembered where nothing else is said: longer than any retry policy lasts.
pub(crate) const INBOX_RETENTION: Duration = Duration::from_hours(14 * 24);

/// For how long commands of sagas are remembered where nothing else is said: longer than people are waited for.
pub(crate) const BARRIER_RETENTION: Duration = Duration::from_hours(90 * 24);

/// One outbox in one database: its dialect, its tables, its number of partitions, and the texts that are sent most.
#[derive(Debug)]
pub struct Schema {
    dialect: Dialect,
    namespace: Namespace,
    tables: Tables,
    partitions: u16,
    append_one: Arc<str>,
    receive: Arc<str>,
    admit: Arc<str>,
    barrier: BarrierTexts,
    pub(crate) sagas: SagaTexts,
}

impl Schema {
    /// Looks at the outbox in a database: which dialect, how many partitions, and whether its tables are those that
    /// this program knows.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] when the tables are missing, older than this program, or do not agree with each other;
    /// else what the database said.
    pub async fn open(db: &DatabaseConnection, namespace: &Namespace) -> Result<Arc<Self>, StoreError> {
        Self::open_with(db, namespace, INBOX_RETENTION, BARRIER_RETENTION).await
    }

    /// Looks at the outbox in a database; messages that are received by it are remembered for `inbox_retention`, commands
    /// of sagas for `barrier_retention`.
    pub(crate) async fn open_with(
        db: &DatabaseConnection,
        namespace: &Namespace,
        inbox_retention: Duration,
        barrier_retention: Duration,
    ) -> Result<Arc<Self>, StoreError> {
        let dialect = Dialect::detect(db).await.map_err(store_error)?;
        let tables = Tables::new(dialect, namespace);
        let (version, said) = migration::meta(db, dialect, &tables).await.map_err(store_error)?;
        if version < migration::VERSION {
            return Err(StoreError::Mismatch(format!(
                "its version is {version}, this program needs {}: run the migration",
                migration::VERSION
            )));
        }
        let partitions = migration::partitions(db, dialect, &tables).await.map_err(store_error)?;
        let fits = u16::try_from(partitions).ok().filter(|n| i32::from(*n) == said && *n > 0);
        let Some(partitions) = fits else {
            return Err(StoreError::Mismatch(format!(
                "it was installed with {said} partitions and has rows for {partitions}: run the migration"
            )));
        };
        Ok(Arc::new(Self {
            append_one: append::text(dialect, &tables, 1),
            receive: inbox::text(dialect, &tables, inbox_retention),
            admit: deliveries::admit_text(dialect, &tables, inbox_retention),
            barrier: BarrierTexts::new(dialect, &tables, barrier_retention),
            sagas: SagaTexts::new(dialect, &tables),
            dialect,
            namespace: namespace.clone(),
            tables,
            partitions,
        }))
    }

    /// Tells the number of partitions, from 1.
    #[must_use]
    pub const fn partitions(&self) -> u16 {
        self.partitions
    }

    /// Tells which database it is in.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Tells the prefix of the tables.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Fills a text in.
    pub(crate) fn sql(&self, text: &str) -> Arc<str> {
        self.dialect.sql(&self.tables, text)
    }

    pub(crate) fn statement(&self, text: &str, values: Vec<Value>) -> Statement {
        Statement::from_sql_and_values(self.dialect.backend(), text, values)
    }
}

/// The texts whose plans matter, for tests that ask the database for them.
#[cfg(feature = "testing")]
#[doc(hidden)]
impl Schema {
    /// The read over a number of partitions that looks back.
    #[must_use]
    pub fn text_of_read(&self, partitions: usize) -> Arc<str> {
        self.sql(&self.dialect.read(partitions, true))
    }

    /// The settings of a relay's connection.
    #[must_use]
    pub fn settings_of_relay(&self, limit: Duration) -> Vec<String> {
        self.dialect.settings(limit, "")
    }

    /// The finishing of a number of events: the whole of it, or the DELETE.
    #[must_use]
    pub fn text_of_finish(&self, ids: usize) -> Arc<str> {
        self.sql(&self.dialect.finish_at_once(false).unwrap_or_else(|| self.dialect.delete_ids(ids)))
    }
}

/// Gives a span in microseconds.
pub(crate) fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(LONGEST).min(LONGEST)
}

/// Writes `n` groups of the same placeholders, separated by commas.
fn rows(group: &str, n: usize) -> String {
    let mut text = String::with_capacity((group.len() + 2) * n);
    for i in 0..n {
        if i > 0 {
            text.push_str(", ");
        }
        text.push_str(group);
    }
    text
}
