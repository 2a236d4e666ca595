//! The row with the source that an outbox belongs to.

use super::Schema;
use sea_orm::{ConnectionTrait, DbErr, Value};

#[doc(hidden)]
impl Schema {
    /// Reads the source that the outbox belongs to; `None` where no service has written one.
    ///
    /// # Errors
    /// The database's error.
    pub async fn source<C: ConnectionTrait>(&self, conn: &C) -> Result<Option<String>, DbErr> {
        let sql = self.filled("SELECT source FROM {source} WHERE id = ?");
        let row = conn.query_one_raw(self.statement(&sql, vec![Value::from(1_i32)])).await?;
        row.map(|row| row.try_get_by_index(0)).transpose()
    }

    /// Writes the source unless there is one, and gives the stored one: of two services that start
    /// at once, that of the first.
    ///
    /// # Errors
    /// The database's error.
    pub(crate) async fn write_source<C: ConnectionTrait>(
        &self,
        conn: &C,
        source: &str,
    ) -> Result<String, DbErr> {
        // A role that may only read this table needs no more where a source is stored.
        if let Some(stored) = self.source(conn).await? {
            return Ok(stored);
        }
        let sql = self.filled(&format!(
            "INSERT INTO {{source}} (id, source, written_at) VALUES (?, ?, {{now}}){}",
            self.dialect.or_keep("id")
        ));
        conn.execute_raw(self.statement(&sql, vec![Value::from(1_i32), Value::from(source)]))
            .await?;
        Ok(self.source(conn).await?.unwrap_or_else(|| source.to_owned()))
    }

    /// Replaces the former source by another one, and gives the stored one.
    ///
    /// # Errors
    /// The database's error.
    pub(crate) async fn rename_source<C: ConnectionTrait>(
        &self,
        conn: &C,
        former: &str,
        source: &str,
    ) -> Result<String, DbErr> {
        let sql = self.filled(
            "UPDATE {source} SET source = ?, written_at = {now} WHERE id = ? AND source = ?",
        );
        let bound = vec![Value::from(source), Value::from(1_i32), Value::from(former)];
        conn.execute_raw(self.statement(&sql, bound)).await?;
        Ok(self.source(conn).await?.unwrap_or_else(|| source.to_owned()))
    }
}
