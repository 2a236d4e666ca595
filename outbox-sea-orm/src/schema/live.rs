//! The rows that running relays, consumers and coordinators write about themselves.

use super::Schema;
use crate::dialect::Dialect;
use outbox_core::admin::Live;
use sea_orm::{ConnectionTrait, DbErr, Value};

/// Rows that are older, in microseconds, are of parts that have ended: a day.
const ENDED_AFTER: i64 = 86_400_000_000;

/// A part that has written nothing for so long, in microseconds, does not count as running.
pub(crate) const RENEWED_WITHIN: i64 = 60_000_000;

/// Deletes the row of a part that has ended: takes its identity.
pub(crate) const DELETE: &str = "DELETE FROM {live} WHERE id = ?";

/// Writes the statement that writes a row: takes identity, kind, name and body.
pub(crate) fn write_sql(dialect: Dialect) -> String {
    format!(
        "INSERT INTO {{live}} (id, kind, name, body, written_at) VALUES (?, ?, ?, ?, {{now}}){}",
        dialect.or_replace("id", &["kind", "name", "body", "written_at"])
    )
}

/// Writes the condition of rows whose parts have ended.
pub(crate) fn ended() -> String {
    format!("written_at < {{now}} - {ENDED_AFTER}")
}

impl Schema {
    /// Writes the row of a running part.
    pub(crate) async fn write_live<C: ConnectionTrait>(
        &self,
        conn: &C,
        (id, name): (&str, &str),
        live: Live,
    ) -> Result<(), DbErr> {
        let kind = live.kind();
        let bound = vec![
            Value::from(id),
            Value::from(kind),
            Value::from(name),
            Value::from(live.bounded_json()),
        ];
        let sql = self.filled(&write_sql(self.dialect));
        conn.execute_raw(self.statement(&sql, bound)).await.map(|_| ())
    }

    /// Deletes the row of a part that ends.
    pub(crate) async fn delete_live<C: ConnectionTrait>(
        &self,
        conn: &C,
        id: &str,
    ) -> Result<(), DbErr> {
        let sql = self.filled(DELETE);
        conn.execute_raw(self.statement(&sql, vec![Value::from(id)])).await.map(|_| ())
    }
}
