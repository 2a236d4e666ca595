//! The row that says whose events an outbox has.

use super::Schema;
use sea_orm::{ConnectionTrait, DbErr, Value};

impl Schema {
    /// Reads the source that the outbox belongs to; `None` where nobody has said one.
    ///
    /// # Errors
    /// What the database said.
    pub async fn source<C: ConnectionTrait>(&self, conn: &C) -> Result<Option<String>, DbErr> {
        let text = self.filled("SELECT source FROM {source} WHERE id = ?");
        let row = conn.query_one_raw(self.statement(&text, vec![Value::from(1_i32)])).await?;
        row.map(|row| row.try_get_by_index(0)).transpose()
    }

    /// Writes the source, unless there is one, and gives the one that is there then: of two services that start at once, the
    /// first one's.
    ///
    /// # Errors
    /// What the database said.
    pub(crate) async fn claim_source<C: ConnectionTrait>(
        &self,
        conn: &C,
        source: &str,
    ) -> Result<String, DbErr> {
        // A role that only reads this table goes with one that is written down.
        if let Some(there) = self.source(conn).await? {
            return Ok(there);
        }
        let text = self.filled(&format!(
            "INSERT INTO {{source}} (id, source, written_at) VALUES (?, ?, {{now}}){}",
            self.dialect.or_keep("id")
        ));
        conn.execute_raw(self.statement(&text, vec![Value::from(1_i32), Value::from(source)]))
            .await?;
        Ok(self.source(conn).await?.unwrap_or_else(|| source.to_owned()))
    }

    /// Writes another source in place of the former one, and gives the one that is there then.
    ///
    /// # Errors
    /// What the database said.
    pub(crate) async fn rename_source<C: ConnectionTrait>(
        &self,
        conn: &C,
        former: &str,
        source: &str,
    ) -> Result<String, DbErr> {
        let text = self.filled(
            "UPDATE {source} SET source = ?, written_at = {now} WHERE id = ? AND source = ?",
        );
        let bound = vec![Value::from(source), Value::from(1_i32), Value::from(former)];
        conn.execute_raw(self.statement(&text, bound)).await?;
        Ok(self.source(conn).await?.unwrap_or_else(|| source.to_owned()))
    }
}
