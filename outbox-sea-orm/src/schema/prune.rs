//! Deleting what is old and has content: bounded by rows and by bytes.

use super::{Schema, barrier::BARRIER_KEY, micros};
use crate::{
    cut::{ANSWER_BYTES, fitting},
    dialect::Dialect,
    store::letters::CONTENT,
};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};
use std::time::Duration;

/// Rows of one table that are deleted, the oldest first.
pub(crate) struct Pruned<'a> {
    /// Names of the two texts.
    pub(crate) name: &'static str,
    pub(crate) sizes: &'static str,
    table: &'static str,
    key: &'static str,
    content: &'static [&'static str],
    condition: &'a str,
    order: &'static str,
}

impl<'a> Pruned<'a> {
    /// Finished events for which a condition holds.
    pub(crate) const fn done(condition: &'a str) -> Self {
        Self {
            name: "prune done",
            sizes: "sizes of done",
            table: "{done}",
            key: "event_id",
            content: &["payload", "headers"],
            condition,
            order: "finished_at",
        }
    }

    /// Dead letters that [were decided about](decided_before).
    pub(crate) const fn letters(condition: &'a str) -> Self {
        Self {
            name: "prune letters",
            sizes: "sizes of decided letters",
            table: "{letters}",
            key: "letter_id",
            content: CONTENT,
            condition,
            order: "fate_at",
        }
    }

    /// Rows of the barrier whose time is over, with the answers that they keep.
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

    /// Answers whose dedup key is free again.
    pub(crate) const fn answers() -> Self {
        Self {
            name: "prune answers",
            sizes: "sizes of answers",
            table: "{answers}",
            key: "message_id",
            content: &["body"],
            condition: "until < {now}",
            order: "until",
        }
    }

    /// Writes the DELETE: takes a limit.
    pub(crate) fn text(&self, dialect: Dialect) -> String {
        dialect.prune_first(self.table, self.key, self.condition, self.order)
    }

    /// Writes the read of the bytes of each row that the DELETE deletes: takes its limit.
    pub(crate) fn sizes_text(&self, dialect: Dialect) -> String {
        dialect.prune_sizes(self.table, self.content, self.condition, self.order)
    }
}

/// Writes that a letter was decided about longer ago than it is kept.
pub(crate) fn decided_before(retention: Duration) -> String {
    format!("fate_at IS NOT NULL AND fate_at < {{now}} - {}", micros(retention))
}

impl Schema {
    /// Deletes rows of the inbox and of the barrier whose time is over, and dead letters that were decided about longer
    /// ago than they are kept, at most `limit` of all; gives how many went.
    ///
    /// # Errors
    /// What the database said.
    pub async fn forget_received<C: ConnectionTrait>(
        &self,
        conn: &C,
        limit: u32,
    ) -> Result<u64, DbErr> {
        let text = self.filled(&self.dialect.prune(
            "{inbox}",
            "consumer, handler, source, message_id",
            "keep_until < {now}",
        ));
        let bound = vec![Value::from(i64::from(limit))];
        let mut gone = conn.execute_raw(self.statement(&text, bound)).await?.rows_affected();
        let decided = decided_before(self.letter_retention);
        for pruned in [Pruned::barrier(), Pruned::letters(&decided)] {
            let left = u64::from(limit).saturating_sub(gone);
            let text = self.filled(&pruned.sizes_text(self.dialect));
            let rows = conn
                .query_all_raw(self.statement(&text, vec![Value::from(left.cast_signed())]))
                .await?;
            let size = |row: &QueryResult| {
                row.try_get_by_index::<i64>(0).map(|n| usize::try_from(n).unwrap_or(0))
            };
            let sizes: Vec<usize> = rows.iter().map(size).collect::<Result<_, DbErr>>()?;
            let n = fitting(sizes, ANSWER_BYTES);
            if n > 0 {
                let text = self.filled(&pruned.text(self.dialect));
                let bound = vec![Value::from(i64::try_from(n).unwrap_or(1))];
                gone += conn.execute_raw(self.statement(&text, bound)).await?.rows_affected();
            }
        }
        Ok(gone)
    }
}
