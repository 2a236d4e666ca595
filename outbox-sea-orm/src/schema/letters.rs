//! Dead letters of consumers: written in the transactions of handlers, redriven into deferred
//! deliveries.

use super::{
    Schema,
    append::{EVENT_MARKS, push_message},
    letter_rows,
};
use crate::{
    dialect::{EVENT_COLUMNS, ORIGIN_CONSUMER},
    error::database,
};
use outbox_core::{
    event::{MessageId, Timestamp},
    failure::{ConsumerOrigin, DeadLetter},
    outbox::{ReceivedLetter, StoreError, order_hash},
};
use sea_orm::{ConnectionTrait, DbErr, Value};

#[doc(hidden)]
impl Schema {
    /// Writes the dead letter of a received message.
    ///
    /// # Errors
    /// The database's error.
    pub async fn write_dead_letter<C: ConnectionTrait>(
        &self,
        conn: &C,
        letter: &ReceivedLetter<'_>,
    ) -> Result<DeadLetter, StoreError> {
        let returning = self.dialect.returning("letter_id");
        let sql = self.filled(&format!(
            "INSERT INTO {{letters}} (origin, partition_no, event_id, {EVENT_COLUMNS}, created_at, expires_at, route, reason, \
             attempts, errors, parks, dead_at, previous_id) \
             VALUES ({ORIGIN_CONSUMER}, NULL, ?, {EVENT_MARKS}, ?, ?, ?, ?, ?, ?, ?, {{now}}, ?){returning}"
        ));
        let message = letter.message.ok();
        // Not above zero: a relay that reads the letters of its own events by their ids does not
        // find it.
        let mut bound = vec![Value::from(message.and_then(|m| m.sequence).map_or(0, |id| -id.0))];
        match letter.message {
            Ok(message) => push_message(&mut bound, message),
            Err(raw) => push_unreadable(&mut bound, raw.map(AsRef::as_ref).unwrap_or_default()),
        }
        let history = letter.history;
        bound.extend([
            Value::from(message.map_or(0, |m| m.created_at.as_micros())),
            Value::from(message.and_then(|m| m.expires_at).map(Timestamp::as_micros)),
            Value::from(consumer_route(letter.consumer, letter.handler)),
            Value::from(letter.reason.as_str()),
            Value::from(i64::from(history.failures)),
            Value::from(self.errors(conn, &history.errors).await.map_err(database)?),
            Value::from(false),
            Value::from(history.letter.map(|letter| letter.0)),
        ]);
        let write = self.statement(&sql, bound);
        let row = match self.dialect.last_id() {
            None => conn.query_one_raw(write).await.map_err(database)?,
            Some(last_id) => {
                conn.execute_raw(write).await.map_err(database)?;
                conn.query_one_raw(self.statement(last_id, Vec::new())).await.map_err(database)?
            }
        };
        let id: i64 = row.map_or(Ok(0), |row| row.try_get_by_index(0)).map_err(database)?;
        let sql = self.filled(&letter_rows::select("letter_id = ?"));
        let row = conn
            .query_one_raw(self.statement(&sql, vec![Value::from(id)]))
            .await
            .map_err(database)?;
        row.map_or_else(
            || Err(StoreError::Mismatch("a letter that was written is not there".into())),
            |r| letter_rows::letter(&r),
        )
    }

    /// Inserts the message of a letter as a deferred delivery again, due now, and deletes its inbox
    /// row; with other content it is a new message. Gives the message's id; `None` for a message
    /// that cannot be decoded.
    pub(crate) async fn reinsert<C: ConnectionTrait>(
        &self,
        conn: &C,
        letter: &DeadLetter,
        by: &ConsumerOrigin,
        other: Option<&[u8]>,
    ) -> Result<Option<MessageId>, DbErr> {
        let Some(message) = &letter.message else { return Ok(None) };
        let id = if other.is_some() { MessageId::generate() } else { message.id };
        let unless_there = self.dialect.or_keep("stored_id");
        let (columns, others) = EVENT_COLUMNS.split_once(", ").unwrap_or((EVENT_COLUMNS, ""));
        let sql = self.filled(&format!(
            "INSERT INTO {{deferred}} (consumer, handler, order_hash, sequence_no, {columns}, {others}, created_at, expires_at, \
             stored_at, due_at, attempts_started, attempts_finished, failures, failing_since, errors, letter_id) \
             SELECT ?, ?, ?, CASE WHEN l.event_id < 0 THEN -l.event_id END, ?, {}, l.created_at, NULL, {{now}}, {{now}}, \
             0, 0, 0, NULL, '[]', l.letter_id FROM {{letters}} l WHERE l.letter_id = ?{unless_there}",
            others.split(", ").map(|c| if c == "payload" { "COALESCE(?, l.payload)".into() } else { format!("l.{c}") })
                .collect::<Vec<_>>().join(", ")
        ));
        let bound = vec![
            Value::from(by.consumer.as_str()),
            Value::from(by.handler.as_str()),
            Value::from(order_hash(message)),
            Value::from(*id.as_uuid()),
            Value::from(other.map(<[u8]>::to_vec)),
            Value::from(letter.id.0),
        ];
        conn.execute_raw(self.statement(&sql, bound)).await?;
        if other.is_none() {
            let sql =
                self.filled("DELETE FROM {inbox} WHERE consumer = ? AND handler = ? AND source = ? AND message_id = ?");
            let bound = vec![
                Value::from(by.consumer.as_str()),
                Value::from(by.handler.as_str()),
                Value::from(message.source.as_str()),
                Value::from(*id.as_uuid()),
            ];
            conn.execute_raw(self.statement(&sql, bound)).await?;
        }
        Ok(Some(id))
    }
}

/// Gives the route of a consumer's letter; a consumer's name has no slash.
pub(crate) fn consumer_route(consumer: &str, handler: &str) -> String {
    format!("{consumer}/{handler}")
}

/// Binds the columns of a message that could not be read. Its headers are no JSON, so that it does
/// not decode.
fn push_unreadable(bound: &mut Vec<Value>, raw: &[u8]) {
    bound.push(Value::from(*MessageId::generate().as_uuid()));
    bound.extend(["", "", ""].map(Value::from));
    bound.push(Value::from(0_i32));
    bound.extend([
        Value::from(None::<&str>),
        Value::from(None::<&str>),
        Value::from(""),
        Value::from(raw),
        Value::from(""),
    ]);
}
