//! Deferred deliveries, as consumers write them in the transactions of their handlers.

use super::{
    Schema,
    append::{EVENT_MARKS, push_message},
    handover,
    inbox::SAME_ORDER,
    micros,
};
use crate::dialect::EVENT_COLUMNS;
use outbox_core::{
    event::{LetterId, Timestamp},
    failure::AttemptError,
    outbox::{Awaited, DeferredDelivery, DeliveryClaim, History, order_hash},
};
use sea_orm::{ConnectionTrait, DbErr, Value};

#[doc(hidden)]
impl Schema {
    /// Defers a delivery; one that is deferred already stays as it is. `false`, with nothing
    /// written, when it should queue behind others with its order hash and there are none.
    ///
    /// # Errors
    /// The database's error.
    pub async fn defer<C: ConnectionTrait>(
        &self,
        conn: &C,
        delivery: &DeferredDelivery<'_>,
    ) -> Result<bool, DbErr> {
        let DeferredDelivery { consumer, handler, message, due_in, .. } = delivery;
        if due_in.is_none() {
            let order_hash = order_hash(message);
            let Some(head) = self.head(conn, consumer, handler, order_hash).await? else {
                return Ok(false);
            };
            // An UPDATE, not only a lock: a transaction that finishes the head on an older
            // snapshot, which does not show the delivery behind it, then fails with a conflict.
            let sql = self.filled("UPDATE {deferred} SET due_at = due_at WHERE stored_id = ?");
            conn.execute_raw(self.statement(&sql, vec![Value::from(head)])).await?;
        }
        self.insert_delivery(conn, delivery, None).await.map(|()| true)
    }

    /// Inserts a delivery unless it is there; one that is `handed_over` waits for an instance that
    /// knows it.
    pub(super) async fn insert_delivery<C: ConnectionTrait>(
        &self,
        conn: &C,
        delivery: &DeferredDelivery<'_>,
        handed_over: Option<Option<&Awaited>>,
    ) -> Result<(), DbErr> {
        let DeferredDelivery { consumer, handler, message, due_in, history } = delivery;
        let order_hash = order_hash(message);
        let unless_there = self.dialect.or_keep("stored_id");
        let (awaits, marks) = match handed_over {
            Some(_) => {
                (format!(", {}, awaits_since", handover::AWAITS.join(", ")), ", ?, ?, ?, {now}")
            }
            None => (String::new(), ""),
        };
        let sql = self.filled(&format!(
            "INSERT INTO {{deferred}} (consumer, handler, order_hash, sequence_no, {EVENT_COLUMNS}, created_at, expires_at, \
             stored_at, due_at, attempts_started, attempts_finished, failures, failing_since, errors, letter_id{awaits}) \
             VALUES (?, ?, ?, ?, {EVENT_MARKS}, ?, ?, {{now}}, {{now}} + ?, ?, ?, ?, {{now}} - ?, ?, ?{marks}){unless_there}"
        ));
        let mut bound = vec![
            Value::from(*consumer),
            Value::from(*handler),
            Value::from(order_hash),
            Value::from(message.sequence.map(|id| id.0)),
        ];
        push_message(&mut bound, message);
        bound.extend([
            Value::from(message.created_at.as_micros()),
            Value::from(message.expires_at.map(Timestamp::as_micros)),
            Value::from(due_in.map(micros)),
            Value::from(i64::from(history.attempts)),
            Value::from(i64::from(history.attempts)),
            Value::from(i64::from(history.failures)),
            Value::from(failing(history)),
            Value::from(self.errors(conn, &history.errors).await?),
            Value::from(history.letter.map(|LetterId(id)| id)),
        ]);
        if let Some(awaited) = handed_over {
            bound.extend(handover::values(awaited));
        }
        conn.execute_raw(self.statement(&sql, bound)).await.map(|_| ())
    }

    /// Deletes a claimed delivery and makes the next one with its order hash due; `false` when the
    /// claim is lost.
    ///
    /// # Errors
    /// The database's error.
    pub async fn finish_delivery<C: ConnectionTrait>(
        &self,
        conn: &C,
        claim: &DeliveryClaim,
    ) -> Result<bool, DbErr> {
        let mine = || vec![Value::from(claim.id), Value::from(&*claim.by)];
        let sql = self.filled(
            "SELECT consumer, handler, order_hash FROM {deferred} WHERE stored_id = ? AND claimed_by = ?{for_update}",
        );
        let Some(row) = conn.query_one_raw(self.statement(&sql, mine())).await? else {
            return Ok(false);
        };
        let (consumer, handler): (String, String) =
            (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
        let order_hash: Option<i64> = row.try_get_by_index(2)?;
        let sql = self.filled("DELETE FROM {deferred} WHERE stored_id = ? AND claimed_by = ?");
        if conn.execute_raw(self.statement(&sql, mine())).await?.rows_affected() == 0 {
            return Ok(false);
        }
        self.release_head(conn, &consumer, &handler, order_hash).await?;
        Ok(true)
    }

    /// Makes the first delivery with an order hash due, after the one before it was deleted.
    pub(crate) async fn release_head<C: ConnectionTrait>(
        &self,
        conn: &C,
        consumer: &str,
        handler: &str,
        order_hash: Option<i64>,
    ) -> Result<(), DbErr> {
        // A second statement sees deliveries that were inserted behind the deleted one while the
        // DELETE waited for its row.
        if let Some(head) = self.head(conn, consumer, handler, order_hash).await? {
            let sql = self.filled(
                "UPDATE {deferred} SET due_at = {now} WHERE stored_id = ? AND due_at IS NULL",
            );
            conn.execute_raw(self.statement(&sql, vec![Value::from(head)])).await?;
        }
        Ok(())
    }

    /// Locks the first delivery with an order hash.
    async fn head<C: ConnectionTrait>(
        &self,
        conn: &C,
        consumer: &str,
        handler: &str,
        order_hash: Option<i64>,
    ) -> Result<Option<i64>, DbErr> {
        let Some(order_hash) = order_hash else { return Ok(None) };
        let sql = self.filled(&format!(
            "SELECT stored_id FROM {{deferred}} WHERE {SAME_ORDER} ORDER BY stored_id LIMIT 1{{for_update}}"
        ));
        let queue = vec![Value::from(consumer), Value::from(handler), Value::from(order_hash)];
        let row = conn.query_one_raw(self.statement(&sql, queue)).await?;
        row.map(|row| row.try_get_by_index(0)).transpose()
    }

    /// Encodes errors as they are stored; new ones get the database's time.
    pub(super) async fn errors<C: ConnectionTrait>(
        &self,
        conn: &C,
        errors: &[AttemptError],
    ) -> Result<String, DbErr> {
        if errors.iter().all(|error| error.at != 0) {
            return Ok(serde_json::json!(errors).to_string());
        }
        // With the condition it has a parameter, and every driver prepares it.
        let sql = self.filled("SELECT {now} FROM {meta} WHERE id = ?");
        let row = conn.query_one_raw(self.statement(&sql, vec![Value::from(1_i32)])).await?;
        let now: i64 = row.map_or(Ok(0), |row| row.try_get_by_index(0))?;
        let mut errors = errors.to_vec();
        errors.iter_mut().filter(|error| error.at == 0).for_each(|error| error.at = now);
        Ok(serde_json::json!(errors).to_string())
    }
}

/// Gives how long a delivery has been failing; nothing before its first failure.
pub(super) fn failing(history: &History) -> Option<i64> {
    (history.failures > 0).then(|| micros(history.failing_for))
}
