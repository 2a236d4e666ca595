//! What a consumer has received.

use super::{Schema, micros};
use crate::{dialect::Dialect, namespace::Tables};
use outbox_core::outbox::InboxKey;
use sea_orm::{ConnectionTrait, DbErr, Value};
use std::{sync::Arc, time::Duration};

pub(super) fn text(dialect: Dialect, tables: &Tables, keep: Duration) -> Arc<str> {
    let keep = micros(keep);
    let (insert, unless_there) = dialect.insert_if_absent();
    dialect.sql(
        tables,
        &format!(
            "{insert} {{inbox}} (consumer, handler, source, message_id, keep_until) \
             VALUES (?, ?, ?, ?, {{now}} + {keep}){unless_there}"
        ),
    )
}

impl Schema {
    /// Notes that a message was received; `false` when it had been already, which aborts no transaction.
    ///
    /// Waits for another transaction that notes the same at the same time.
    ///
    /// # Errors
    /// [`DbErr::Custom`] for a name that the table does not hold (consumer and handler up to 128 characters, source up
    /// to 255, no NUL); else what the database said.
    pub async fn receive<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: InboxKey<'_>,
    ) -> Result<bool, DbErr> {
        check(&key)?;
        let bound = values(&key);
        Ok(conn.execute_raw(self.statement(&self.receive, bound)).await?.rows_affected() > 0)
    }
}

/// Checked here: what ignores a repeat on MySQL would also cut a long name off, and a NUL aborts the transaction on
/// PostgreSQL.
pub(super) fn check(key: &InboxKey<'_>) -> Result<(), DbErr> {
    for (what, value, longest) in [
        ("consumer", key.consumer, 128),
        ("handler", key.handler, 128),
        ("source", key.source, 255),
    ] {
        if value.chars().count() > longest || value.contains('\0') {
            return Err(DbErr::Custom(format!(
                "the {what} of an inbox row has up to {longest} characters, no NUL"
            )));
        }
    }
    Ok(())
}

pub(super) fn values(key: &InboxKey<'_>) -> Vec<Value> {
    vec![
        Value::from(key.consumer),
        Value::from(key.handler),
        Value::from(key.source),
        Value::from(*key.message_id.as_uuid()),
    ]
}
