//! Scheduled events.

use super::{
    Schema,
    append::{CHUNK, EVENT_MARKS, push_values},
    micros, rows,
};
use crate::{
    chunks::{STATEMENT_BYTES, chunks_by_size, event_size},
    dialect::EVENT_COLUMNS,
};
use outbox_core::event::{MessageId, NewEvent, Timestamp};
use sea_orm::{ConnectionTrait, DbErr, Value};
use std::time::Duration;

/// When a scheduled event enters the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliverAt {
    /// After a delay from its saving, by the database's clock.
    In(Duration),
    /// At an instant, by the database's clock.
    At(Timestamp),
}

#[doc(hidden)]
impl Schema {
    /// Saves events for later. Each enters the outbox when it is due, under a new place, its time
    /// to live counted from then.
    ///
    /// # Errors
    /// The database's error.
    pub async fn schedule<C: ConnectionTrait>(
        &self,
        conn: &C,
        source: &str,
        events: &[(NewEvent, DeliverAt)],
    ) -> Result<(), DbErr> {
        // The first parameter is 1 where the second counts from now.
        let group = format!("(?, {{now}} * ? + ?, ?, {EVENT_MARKS})");
        for chunk in chunks_by_size(events, CHUNK, STATEMENT_BYTES, |(event, _)| event_size(event))
        {
            let sql = self.filled(&format!(
                "INSERT INTO {{scheduled}} (partition_no, deliver_at, ttl_us, {EVENT_COLUMNS}) VALUES {}",
                rows(&group, chunk.len())
            ));
            let mut bound = Vec::with_capacity(chunk.len() * 14);
            for (event, when) in chunk {
                let (from_now, at) = match *when {
                    DeliverAt::In(wait) => (1_i64, micros(wait)),
                    DeliverAt::At(instant) => (0, instant.as_micros()),
                };
                bound.extend([
                    Value::SmallInt(Some(self.place(event))),
                    Value::from(from_now),
                    Value::from(at),
                ]);
                bound.push(Value::BigInt(event.ttl.map(micros)));
                push_values(&mut bound, source, event);
            }
            conn.execute_raw(self.statement(&sql, bound)).await?;
        }
        Ok(())
    }

    /// Cancels a scheduled event; `false` when it has entered the outbox or was never scheduled.
    ///
    /// # Errors
    /// The database's error.
    pub async fn cancel_scheduled<C: ConnectionTrait>(
        &self,
        conn: &C,
        message: MessageId,
    ) -> Result<bool, DbErr> {
        let sql = self.filled("DELETE FROM {scheduled} WHERE message_id = ?");
        let bound = vec![Value::from(*message.as_uuid())];
        Ok(conn.execute_raw(self.statement(&sql, bound)).await?.rows_affected() > 0)
    }
}
