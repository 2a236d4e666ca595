//! One outbox in one database, as producers and consumers write to it: inside their own transaction, in any SeaORM
//! connection.

mod append;
mod barrier;
mod claims;
mod dedup;
mod deliveries;
mod handover;
mod inbox;
mod instances;
mod letters;
mod prune;
mod schedule;
mod source;

pub(crate) use append::{EVENT_COLUMNS, RETRY_HEADER, stored};
pub use dedup::{DedupClaim, DedupConflict};
pub(crate) use letters::origin;
pub(crate) use prune::{Pruned, decided_before};
pub use schedule::DeliverAt;

use crate::{
    dialect::Dialect,
    migration,
    namespace::{Namespace, Tables},
    pool::{Fault, fault_of, store_error},
    saga::SagaTexts,
};
use barrier::BarrierTexts;
use outbox_core::outbox::StoreError;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement, Value};
use std::{sync::Arc, time::Duration};

/// Longest span that is stored, in microseconds: 285 years, so that no sum with an instant overflows.
const LONGEST: i64 = 9_000_000_000_000_000;

/// For how long received messages are remembered where nothing else is said: longer than any retry policy lasts.
pub(crate) const INBOX_RETENTION: Duration = Duration::from_hours(14 * 24);

/// For how long dead letters are kept after they were decided about where nothing else is said: longer than a quarter's
/// audit looks back.
pub(crate) const LETTER_RETENTION: Duration = Duration::from_hours(90 * 24);

/// For how long commands of sagas are remembered where nothing else is said: longer than people are waited for.
pub(crate) const BARRIER_RETENTION: Duration = Duration::from_hours(90 * 24);

/// What is kept for how long.
#[derive(Debug, Clone)]
pub(crate) struct Retentions {
    /// Messages that were received.
    pub(crate) inbox: Duration,
    /// Commands of sagas that were received.
    pub(crate) barrier: Duration,
    /// Dead letters that were decided about.
    pub(crate) letters: Duration,
}

impl Default for Retentions {
    fn default() -> Self {
        Self { inbox: INBOX_RETENTION, barrier: BARRIER_RETENTION, letters: LETTER_RETENTION }
    }
}

/// One outbox in one database: its dialect, its tables, its number of partitions, and the texts that are sent most.
#[derive(Debug)]
pub struct Schema {
    dialect: Dialect,
    namespace: Namespace,
    tables: Tables,
    partitions: u16,
    letter_retention: Duration,
    append_one: Arc<str>,
    receive: Arc<str>,
    admit: Arc<str>,
    barrier: BarrierTexts,
    pub(crate) sagas: SagaTexts,
}

impl Schema {
    /// Version of the tables that this program writes and reads. Tables of a later one only have more, so that programs of an
    /// earlier one go on working beside them.
    pub const VERSION: i32 = migration::VERSION;

    /// Writes the SQL that brings the tables of an outbox from a version to another one, for somebody who runs it by hand: each
    /// statement ends with a semicolon and a line. Version 0 stands for no tables; an outbox has 1 to 128 partitions.
    ///
    /// ```
    /// use outbox_sea_orm::{Dialect, Namespace, Schema};
    ///
    /// let sql = Schema::sql(Dialect::Postgres, &Namespace::default(), 16, 0, Schema::VERSION)?;
    /// assert!(sql.starts_with("CREATE TABLE"));
    /// # Ok::<(), sea_orm::DbErr>(())
    /// ```
    ///
    /// # Errors
    /// [`DbErr::Migration`] where `from` is above `to`, or where this program does not know one of them, or not so many
    /// partitions.
    pub fn sql(
        dialect: Dialect,
        namespace: &Namespace,
        partitions: u16,
        from: i32,
        to: i32,
    ) -> Result<String, DbErr> {
        migration::script(dialect, (namespace, partitions), (from, to), migration::VERSIONS)
    }

    /// Looks at the outbox in a database: which dialect, how many partitions, and whether its tables are those that
    /// this program knows.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] when the tables are missing, older than this program, or do not agree with each other;
    /// else what the database said.
    pub async fn open(
        db: &DatabaseConnection,
        namespace: &Namespace,
    ) -> Result<Arc<Self>, StoreError> {
        Self::open_with(db, namespace, &Retentions::default()).await
    }

    /// Looks at the outbox in a database, with what is kept for how long.
    pub(crate) async fn open_with(
        db: &DatabaseConnection,
        namespace: &Namespace,
        retentions: &Retentions,
    ) -> Result<Arc<Self>, StoreError> {
        let dialect = Dialect::detect(db).await.map_err(store_error)?;
        let tables = Tables::new(dialect, namespace);
        let (version, said) = migration::meta(db, dialect, &tables).await.map_err(|error| {
            match fault_of(&error) {
                Fault::Missing => StoreError::Mismatch(migration::outdated(0)),
                _ => store_error(error),
            }
        })?;
        if version < migration::VERSION {
            return Err(StoreError::Mismatch(migration::outdated(version)));
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
            receive: inbox::text(dialect, &tables, retentions.inbox),
            admit: deliveries::admit_text(dialect, &tables, retentions.inbox),
            barrier: BarrierTexts::new(dialect, &tables, retentions.barrier),
            sagas: SagaTexts::new(dialect, &tables),
            dialect,
            namespace: namespace.clone(),
            tables,
            partitions,
            letter_retention: retentions.letters,
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

    /// Asks for the largest statement in bytes that the database takes, where it ends the connection over a larger one.
    pub(crate) async fn largest_packet<C: ConnectionTrait>(
        &self,
        db: &C,
    ) -> Result<Option<usize>, DbErr> {
        let Some(ask) = self.dialect.largest_packet() else { return Ok(None) };
        let row = db.query_one_raw(Statement::from_string(self.dialect.backend(), ask)).await?;
        let limit: Option<i64> = row.map(|row| row.try_get_by_index(0)).transpose()?;
        Ok(limit.and_then(|limit| usize::try_from(limit).ok()))
    }

    /// Fills a text in.
    pub(crate) fn filled(&self, text: &str) -> Arc<str> {
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
        self.filled(&self.dialect.read(partitions, true))
    }

    /// The second look at the ids of a number of partitions.
    #[must_use]
    pub fn text_of_second_look(&self, partitions: usize) -> Arc<str> {
        self.filled(&self.dialect.look_again(partitions))
    }

    /// The read of a page of parked keys.
    #[must_use]
    pub fn text_of_parks(&self) -> Arc<str> {
        self.filled(&self.dialect.parks())
    }

    /// The settings of a relay's connection.
    #[must_use]
    pub fn settings_of_relay(&self, limit: Duration) -> Vec<String> {
        self.dialect.settings(limit, "")
    }

    /// The finishing of a number of events: the whole of it, or the DELETE.
    #[must_use]
    pub fn text_of_finish(&self, ids: usize) -> Arc<str> {
        self.filled(
            &self.dialect.finish_at_once(false).unwrap_or_else(|| self.dialect.delete_ids(ids)),
        )
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
