//! The inbox: messages that a consumer has received.

use super::{Schema, micros};
use crate::dialect::{Dialect, Tables};
use outbox_core::outbox::{Admission, InboxKey};
use sea_orm::{ConnectionTrait, DbErr, Value};
use std::{sync::Arc, time::Duration};

pub(super) fn receive_sql(dialect: Dialect, tables: &Tables, keep: Duration) -> Arc<str> {
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

/// Writes the insert of an inbox row that a message gets unless deferred deliveries come first,
/// where the database can do that in one statement.
pub(super) fn admit_sql(dialect: Dialect, tables: &Tables, keep: Duration) -> Arc<str> {
    let keep = micros(keep);
    let (insert, unless_there) = dialect.insert_if_absent();
    dialect.sql(
        tables,
        &format!(
            "{insert} {{inbox}} (consumer, handler, source, message_id, keep_until) SELECT ?, ?, ?, ?, {{now}} + {keep} \
             WHERE NOT EXISTS (SELECT 1 FROM {{deferred}} d WHERE d.consumer = ? AND d.handler = ? AND d.order_hash = ?)\
             {unless_there}"
        ),
    )
}

/// The condition for the deferred deliveries that a message has to queue behind.
pub(super) const SAME_ORDER: &str = "consumer = ? AND handler = ? AND order_hash = ?";

#[doc(hidden)]
impl Schema {
    /// Writes the inbox row of a message; `false` when it is there already, which aborts no
    /// transaction.
    ///
    /// Waits for another transaction that writes the same row at the same time.
    ///
    /// # Errors
    /// [`DbErr::Custom`] for a name that the table does not hold (consumer and handler up to 128
    /// characters, source up to 255, no NUL); else the database's error.
    pub async fn receive<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: InboxKey<'_>,
    ) -> Result<bool, DbErr> {
        check(&key)?;
        let bound = values(&key);
        Ok(conn.execute_raw(self.statement(&self.receive, bound)).await?.rows_affected() > 0)
    }

    /// Writes the inbox row of a message, unless it is there already or deferred deliveries with
    /// its order hash come first.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub async fn admit<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: InboxKey<'_>,
        order_hash: Option<i64>,
    ) -> Result<Admission, DbErr> {
        let Some(order_hash) = order_hash else {
            return Ok(if self.receive(conn, key).await? {
                Admission::New
            } else {
                Admission::Duplicate
            });
        };
        check(&key)?;
        let queue = [Value::from(key.consumer), Value::from(key.handler), Value::from(order_hash)];
        if self.dialect.locks_gaps() {
            // An INSERT .. SELECT would lock the rows that it reads, and the gaps where it finds
            // none.
            let sql =
                self.filled(&format!("SELECT 1 FROM {{deferred}} WHERE {SAME_ORDER} LIMIT 1"));
            if conn.query_one_raw(self.statement(&sql, queue.to_vec())).await?.is_none() {
                return Ok(if self.receive(conn, key).await? {
                    Admission::New
                } else {
                    Admission::Duplicate
                });
            }
        } else {
            let mut bound = values(&key);
            bound.extend(queue);
            if conn.execute_raw(self.statement(&self.admit, bound)).await?.rows_affected() > 0 {
                return Ok(Admission::New);
            }
        }
        Ok(if self.is_known(conn, &key).await? {
            Admission::Duplicate
        } else {
            Admission::QueueBehind
        })
    }

    /// Gives the result that [`admit`](Self::admit) would have at this moment, without writing.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub(crate) async fn admission<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: InboxKey<'_>,
        order_hash: Option<i64>,
    ) -> Result<Admission, DbErr> {
        check(&key)?;
        if self.is_known(conn, &key).await? {
            return Ok(Admission::Duplicate);
        }
        let Some(order_hash) = order_hash else { return Ok(Admission::New) };
        let sql = self.filled(&format!("SELECT 1 FROM {{deferred}} WHERE {SAME_ORDER} LIMIT 1"));
        let queue =
            vec![Value::from(key.consumer), Value::from(key.handler), Value::from(order_hash)];
        let deferred = conn.query_one_raw(self.statement(&sql, queue)).await?;
        Ok(if deferred.is_some() { Admission::QueueBehind } else { Admission::New })
    }

    /// Tells whether a message was received before.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub(crate) async fn is_received<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: InboxKey<'_>,
    ) -> Result<bool, DbErr> {
        check(&key)?;
        self.is_known(conn, &key).await
    }

    async fn is_known<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: &InboxKey<'_>,
    ) -> Result<bool, DbErr> {
        let sql =
            self.filled("SELECT 1 FROM {inbox} WHERE consumer = ? AND handler = ? AND source = ? AND message_id = ?");
        Ok(conn.query_one_raw(self.statement(&sql, values(key))).await?.is_some())
    }
}

/// Checks the names. `INSERT IGNORE` on MySQL would cut a long name off, and a NUL aborts the
/// transaction on PostgreSQL.
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
