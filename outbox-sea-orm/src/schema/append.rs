//! Appends events to the outbox.

use super::{Schema, micros, rows};
use crate::{
    chunks::{STATEMENT_BYTES, chunks_by_size, event_size, powers_of_two},
    dialect::{Dialect, EVENT_COLUMNS, Tables},
};
use outbox_core::{
    event::{Headers, Message, NewEvent},
    failure::RetryPolicy,
    outbox::{PartitionNo, partition_of},
};
use sea_orm::{ConnectionTrait, DbErr, Value};
use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

/// Rows of one INSERT: SQLite takes 32,766 parameters, the others 65,535, and an event has twelve.
pub(super) const CHUNK: usize = 500;

/// How many events a transaction has whose INSERT is kept, and fewer: what handlers emit.
const KEPT: usize = 65;

/// Header under which an event's own retry policy is stored.
pub(crate) const RETRY_HEADER: &str = "outboxretry";

/// Placeholders of [`EVENT_COLUMNS`].
pub(super) const EVENT_MARKS: &str = "?, ?, ?, ?, ?, ?, ?, ?, ?, ?";

/// The INSERTs of few events, each written when it is needed first.
#[derive(Debug)]
pub(super) struct AppendSql([OnceLock<Arc<str>>; KEPT]);

impl Default for AppendSql {
    fn default() -> Self {
        Self([const { OnceLock::new() }; KEPT])
    }
}

impl AppendSql {
    /// Gives the INSERT of `n` events.
    fn of(&self, dialect: Dialect, tables: &Tables, n: usize) -> Arc<str> {
        let write = || append_sql(dialect, tables, n);
        self.0.get(n).map_or_else(write, |kept| Arc::clone(kept.get_or_init(write)))
    }
}

/// Writes the INSERT of `n` events.
fn append_sql(dialect: Dialect, tables: &Tables, n: usize) -> Arc<str> {
    let group = format!("(?, {EVENT_MARKS}, {{now}}, {{now}} + ?)");
    let columns = format!("partition_no, {EVENT_COLUMNS}, created_at, expires_at");
    dialect.sql(tables, &format!("INSERT INTO {{events}} ({columns}) VALUES {}", rows(&group, n)))
}

#[doc(hidden)]
impl Schema {
    /// Saves events, in the order of their places, in one INSERT (or one for every 500, and for
    /// every 960 KiB; on MySQL and MariaDB in a few, each of a power of two).
    ///
    /// `source` is the service that emits them.
    ///
    /// # Errors
    /// The database's error.
    pub async fn append<C: ConnectionTrait>(
        &self,
        conn: &C,
        source: &str,
        events: &[NewEvent],
    ) -> Result<(), DbErr> {
        let chunks = chunks_by_size(events, CHUNK, STATEMENT_BYTES, event_size);
        let keeps_few = self.dialect.caches_few_statements();
        for chunk in chunks.flat_map(|chunk| powers_of_two(chunk, keeps_few)) {
            let sql = self.append.of(self.dialect, &self.tables, chunk.len());
            let mut bound = Vec::with_capacity(chunk.len() * 12);
            for event in chunk {
                bound.push(Value::SmallInt(Some(self.place(event))));
                push_values(&mut bound, source, event);
                bound.push(Value::BigInt(event.ttl.map(micros)));
            }
            conn.execute_raw(self.statement(&sql, bound)).await?;
        }
        Ok(())
    }

    /// Gives the partition of an event, as it is stored.
    pub(super) fn place(&self, event: &NewEvent) -> i16 {
        stored(partition_of(event.key.as_deref(), event.message_id, self.partitions))
    }
}

/// Gives a partition's number as it is stored; there are 128 at most.
pub(crate) fn stored(partition: PartitionNo) -> i16 {
    i16::try_from(partition.0).unwrap_or(i16::MAX)
}

/// Binds [`EVENT_COLUMNS`].
pub(super) fn push_values(bound: &mut Vec<Value>, source: &str, event: &NewEvent) {
    bound.push(Value::from(*event.message_id.as_uuid()));
    bound.push(Value::from(source));
    bound.push(Value::from(event.topic.as_str()));
    bound.push(Value::from(event.event_type.as_str()));
    bound.push(Value::from(i32::from(event.event_version)));
    bound.push(Value::from(event.aggregate_type.as_deref()));
    bound.push(Value::from(event.key.as_deref()));
    bound.push(Value::from(event.content_type.as_str()));
    bound.push(Value::from(event.payload.as_ref()));
    bound.push(Value::from(with_retry(&event.headers, event.retry).to_json()));
}

/// Binds [`EVENT_COLUMNS`] of a received message.
pub(super) fn push_message(bound: &mut Vec<Value>, message: &Message) {
    bound.push(Value::from(*message.id.as_uuid()));
    bound.push(Value::from(message.source.as_str()));
    bound.push(Value::from(message.topic.as_str()));
    bound.push(Value::from(message.event_type.as_str()));
    bound.push(Value::from(i32::from(message.event_version)));
    bound.push(Value::from(message.aggregate_type.as_deref()));
    bound.push(Value::from(message.key.as_deref()));
    bound.push(Value::from(message.content_type.as_str()));
    bound.push(Value::from(message.payload.as_ref()));
    bound.push(Value::from(with_retry(&message.headers, message.retry).to_json()));
}

/// Adds an event's own retry policy to its headers.
fn with_retry(headers: &Headers, retry: Option<RetryPolicy>) -> Cow<'_, Headers> {
    let Some(retry) = retry else { return Cow::Borrowed(headers) };
    let mut headers = headers.clone();
    headers
        .insert(RETRY_HEADER, retry.to_string())
        .expect("digits and semicolons are a legal value");
    Cow::Owned(headers)
}
