//! The tables of one outbox, as producers and consumers write to them: in their own transaction,
//! over any SeaORM connection.

pub(crate) mod decode;
mod source;
mod dedup;
mod append;
mod schedule;
mod inbox;
mod admissions;
mod barrier;
mod deferred;
mod deferred_claims;
mod handover;
pub(crate) mod letter_rows;
mod letters;
mod instances;
mod audit;
mod controls;
pub(crate) mod live;
mod prune;
pub(crate) mod sagas;

pub(crate) use append::{RETRY_HEADER, stored};
pub(crate) use audit::{Audit, AuditCounts, AuditedAct};
pub use dedup::{DedupConflict, DedupReservation};
pub(crate) use deferred_claims::CLAIMABLE;
pub(crate) use letters::consumer_route;
pub(crate) use prune::{Pruned, resolved_before};
pub use schedule::DeliverAt;

use crate::{
    dialect::{Dialect, Tables},
    migration,
    namespace::Namespace,
    pool::{DbErrorClass, classify, store_error},
};
use append::AppendSql;
use barrier::BarrierSql;
use outbox_core::outbox::StoreError;
use sagas::SagaSql;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement, Value};
use std::{sync::Arc, time::Duration};

/// Longest span that is stored, in microseconds: 285 years, so that no sum with an instant
/// overflows.
const LONGEST: i64 = 9_000_000_000_000_000;

/// Reads when the oldest event was made, by a step into each partition.
pub(crate) const OLDEST_EVENT: &str = "SELECT min(d.oldest) FROM (SELECT (SELECT e.created_at FROM {events} e \
     WHERE e.partition_no = p.partition_no ORDER BY e.event_id LIMIT 1) AS oldest FROM {partitions} p) d";

/// How long the inbox keeps received messages unless set: longer than any retry policy lasts.
pub(crate) const INBOX_RETENTION: Duration = Duration::from_hours(14 * 24);

/// How long dead letters are kept after an operator has resolved them unless set: longer than a
/// quarter's audit looks back.
pub(crate) const LETTER_RETENTION: Duration = Duration::from_hours(90 * 24);

/// How long the audit is kept unless set: a year of questions.
pub(crate) const AUDIT_RETENTION: Duration = Duration::from_hours(365 * 24);

/// How long the barrier keeps commands of sagas unless set: longer than a saga waits for people.
pub(crate) const BARRIER_RETENTION: Duration = Duration::from_hours(90 * 24);

/// How long rows are kept.
#[derive(Debug, Clone)]
pub(crate) struct Retentions {
    /// Received messages.
    pub(crate) inbox: Duration,
    /// Received commands of sagas.
    pub(crate) barrier: Duration,
    /// Resolved dead letters.
    pub(crate) letters: Duration,
    /// The audit of operators' acts.
    pub(crate) audit: Duration,
}

impl Default for Retentions {
    fn default() -> Self {
        Self {
            inbox: INBOX_RETENTION,
            barrier: BARRIER_RETENTION,
            letters: LETTER_RETENTION,
            audit: AUDIT_RETENTION,
        }
    }
}

/// One outbox in one database: its dialect, its tables, its number of partitions, and its most
/// frequent SQL.
#[derive(Debug)]
pub struct Schema {
    dialect: Dialect,
    namespace: Namespace,
    tables: Tables,
    partitions: u16,
    letter_retention: Duration,
    inbox_retention: Duration,
    append: AppendSql,
    receive: Arc<str>,
    admit: Arc<str>,
    barrier: BarrierSql,
    pub(crate) sagas: SagaSql,
}

impl Schema {
    /// Version of the tables that this program writes and reads. A later version only adds tables,
    /// columns and indexes, so that programs of an earlier one go on working with its tables.
    pub const VERSION: i32 = migration::VERSION;

    /// Writes the SQL that brings the tables of an outbox from a version to another one, for a
    /// database administrator: each statement ends with a semicolon and a line. Version 0 stands
    /// for no tables; an outbox has 1 to 128 partitions.
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
    /// [`DbErr::Migration`] where `from` is above `to`, or where this program does not know one of
    /// them, or not so many partitions.
    pub fn sql(
        dialect: Dialect,
        namespace: &Namespace,
        partitions: u16,
        from: i32,
        to: i32,
    ) -> Result<String, DbErr> {
        migration::script(dialect, (namespace, partitions), (from, to), migration::VERSIONS)
    }

    /// Reads the outbox of a database: its dialect, its number of partitions, and whether its
    /// tables have the version that this program needs.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] when the tables are missing, older than this program, or do not
    /// agree with each other; else the database's error.
    pub async fn open(
        db: &DatabaseConnection,
        namespace: &Namespace,
    ) -> Result<Arc<Self>, StoreError> {
        Self::open_with(db, namespace, &Retentions::default()).await
    }

    /// Reads the outbox of a database, with retentions.
    pub(crate) async fn open_with(
        db: &DatabaseConnection,
        namespace: &Namespace,
        retentions: &Retentions,
    ) -> Result<Arc<Self>, StoreError> {
        let dialect = Dialect::detect(db).await.map_err(store_error)?;
        let tables = Tables::new(dialect, namespace);
        let (version, said) = migration::meta(db, dialect, &tables).await.map_err(|error| {
            match classify(&error) {
                DbErrorClass::Missing => StoreError::Mismatch(migration::outdated(0)),
                _ => store_error(error),
            }
        })?;
        if version < migration::VERSION {
            return Err(StoreError::Mismatch(migration::outdated(version)));
        }
        if migration::has_former_names(db, dialect, &tables).await {
            return Err(StoreError::Mismatch(migration::former_names(version)));
        }
        let partitions = migration::partitions(db, dialect, &tables).await.map_err(store_error)?;
        let fits = u16::try_from(partitions).ok().filter(|n| i32::from(*n) == said && *n > 0);
        let Some(partitions) = fits else {
            return Err(StoreError::Mismatch(format!(
                "it was installed with {said} partitions and has rows for {partitions}: run the migration"
            )));
        };
        Ok(Arc::new(Self {
            append: AppendSql::default(),
            receive: inbox::receive_sql(dialect, &tables, retentions.inbox),
            admit: inbox::admit_sql(dialect, &tables, retentions.inbox),
            barrier: BarrierSql::new(dialect, &tables, retentions.barrier),
            sagas: SagaSql::new(dialect, &tables),
            dialect,
            namespace: namespace.clone(),
            tables,
            partitions,
            letter_retention: retentions.letters,
            inbox_retention: retentions.inbox,
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

    /// Reads the largest statement in bytes that the database takes, where a larger one ends the
    /// connection.
    pub(crate) async fn largest_packet<C: ConnectionTrait>(
        &self,
        db: &C,
    ) -> Result<Option<usize>, DbErr> {
        let Some(sql) = self.dialect.largest_packet() else { return Ok(None) };
        let row = db.query_one_raw(Statement::from_string(self.dialect.backend(), sql)).await?;
        let limit: Option<i64> = row.map(|row| row.try_get_by_index(0)).transpose()?;
        Ok(limit.and_then(|limit| usize::try_from(limit).ok()))
    }

    /// Replaces the marks in SQL.
    pub(crate) fn filled(&self, sql: &str) -> Arc<str> {
        self.dialect.sql(&self.tables, sql)
    }

    pub(crate) fn statement(&self, sql: &str, values: Vec<Value>) -> Statement {
        Statement::from_sql_and_values(self.dialect.backend(), sql, values)
    }
}

/// SQL whose plans matter, for tests that read the plans.
#[cfg(feature = "testing")]
#[doc(hidden)]
impl Schema {
    /// The read over a number of partitions that looks back.
    #[must_use]
    pub fn sql_of_read(&self, partitions: usize) -> Arc<str> {
        self.filled(&self.dialect.read(partitions, true))
    }

    /// The recheck of the ids of a number of partitions.
    #[must_use]
    pub fn sql_of_recheck(&self, partitions: usize) -> Arc<str> {
        self.filled(&self.dialect.recheck_ids(partitions))
    }

    /// The read of a page of parked keys.
    #[must_use]
    pub fn sql_of_parks(&self) -> Arc<str> {
        self.filled(&self.dialect.parks())
    }

    /// The settings of a relay's connection.
    #[must_use]
    pub fn settings_of_relay(&self, limit: Duration) -> Vec<String> {
        self.dialect.settings(limit, "")
    }

    /// The finishing of a number of events: the whole of it, or the DELETE.
    #[must_use]
    pub fn sql_of_finish(&self, ids: usize) -> Arc<str> {
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
    let mut sql = String::with_capacity((group.len() + 2) * n);
    for i in 0..n {
        if i > 0 {
            sql.push_str(", ");
        }
        sql.push_str(group);
    }
    sql
}
