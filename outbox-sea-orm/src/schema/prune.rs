//! Deletes old rows that have content: bounded by rows and by bytes.

use super::{Schema, barrier::BARRIER_KEY, letter_rows::CONTENT, micros};
use crate::{
    chunks::{RESULT_BYTES, fitting_count},
    dialect::Dialect,
};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};
use std::time::Duration;

/// Rows of one table that are deleted, the oldest first.
pub(crate) struct Pruned<'a> {
    /// Names of the two statements in the cache.
    pub(crate) name: &'static str,
    pub(crate) sizes: &'static str,
    table: &'static str,
    key: &'static str,
    content: &'static [&'static str],
    condition: &'a str,
    order: &'static str,
}

impl<'a> Pruned<'a> {
    /// Archived events for which a condition holds.
    pub(crate) const fn archive(condition: &'a str) -> Self {
        Self {
            name: "prune archive",
            sizes: "sizes of archive",
            table: "{archive}",
            key: "event_id",
            content: &["payload", "headers"],
            condition,
            order: "finished_at",
        }
    }

    /// Dead letters that [were resolved](resolved_before).
    pub(crate) const fn letters(condition: &'a str) -> Self {
        Self {
            name: "prune letters",
            sizes: "sizes of resolved letters",
            table: "{letters}",
            key: "letter_id",
            content: CONTENT,
            condition,
            order: "resolved_at",
        }
    }

    /// Rows of the barrier whose retention has passed, with their replies.
    pub(crate) const fn barrier() -> Self {
        Self {
            name: "prune barrier",
            sizes: "sizes of barrier",
            table: "{barrier}",
            key: BARRIER_KEY,
            content: &["payload", "headers"],
            condition: "keep_until < {now}",
            order: "keep_until",
        }
    }

    /// Responses whose dedup key is free again.
    pub(crate) const fn responses() -> Self {
        Self {
            name: "prune responses",
            sizes: "sizes of responses",
            table: "{responses}",
            key: "message_id",
            content: &["body"],
            condition: "until < {now}",
            order: "until",
        }
    }

    /// Writes the DELETE: takes a limit.
    pub(crate) fn sql(&self, dialect: Dialect) -> String {
        dialect.prune_first(self.table, self.key, self.condition, self.order)
    }

    /// Writes the read of the bytes of each row that the DELETE deletes: takes its limit.
    pub(crate) fn sizes_sql(&self, dialect: Dialect) -> String {
        dialect.prune_sizes(self.table, self.content, self.condition, self.order)
    }
}

/// Writes the condition that a letter was resolved before its retention began.
pub(crate) fn resolved_before(retention: Duration) -> String {
    format!("resolved_at IS NOT NULL AND resolved_at < {{now}} - {}", micros(retention))
}

#[doc(hidden)]
impl Schema {
    /// Deletes rows of the inbox and of the barrier whose retention has passed, and resolved dead
    /// letters whose retention has passed, at most `limit` of all; gives their number.
    ///
    /// # Errors
    /// The database's error.
    pub async fn prune_received<C: ConnectionTrait>(
        &self,
        conn: &C,
        limit: u32,
    ) -> Result<u64, DbErr> {
        let sql = self.filled(&self.dialect.prune(
            "{inbox}",
            "consumer, handler, source, message_id",
            "keep_until < {now}",
        ));
        let bound = vec![Value::from(i64::from(limit))];
        let mut deleted = conn.execute_raw(self.statement(&sql, bound)).await?.rows_affected();
        let resolved = resolved_before(self.letter_retention);
        for pruned in [Pruned::barrier(), Pruned::letters(&resolved)] {
            let left = u64::from(limit).saturating_sub(deleted);
            let sql = self.filled(&pruned.sizes_sql(self.dialect));
            let rows = conn
                .query_all_raw(self.statement(&sql, vec![Value::from(left.cast_signed())]))
                .await?;
            let size = |row: &QueryResult| {
                row.try_get_by_index::<i64>(0).map(|n| usize::try_from(n).unwrap_or(0))
            };
            let sizes: Vec<usize> = rows.iter().map(size).collect::<Result<_, DbErr>>()?;
            let n = fitting_count(sizes, RESULT_BYTES);
            if n > 0 {
                let sql = self.filled(&pruned.sql(self.dialect));
                let bound = vec![Value::from(i64::try_from(n).unwrap_or(1))];
                deleted += conn.execute_raw(self.statement(&sql, bound)).await?.rows_affected();
            }
        }
        Ok(deleted)
    }
}
