//! Decodes columns into the types of the core: those of an event, and of what a statement counts. A
//! row that does not decode is given as such; it never fails the read.

use super::RETRY_HEADER;
use crate::pool::store_error;
use outbox_core::{
    event::{EventId, Headers, Message, MessageId, MessageParts, Timestamp},
    failure::AttemptError,
    outbox::StoreError,
};
use sea_orm::{
    QueryResult, TryGetable,
    sqlx::{Row as _, ValueRef as _},
};
use std::{fmt, time::Duration};
use uuid::Uuid;

/// Where the columns of an event stand.
pub(crate) struct Layout {
    pub(crate) event: usize,
    pub(crate) created_at: usize,
    pub(crate) expires_at: usize,
}

/// Reads the message of a row.
pub(crate) fn message(row: &QueryResult, id: EventId, at: &Layout) -> Result<Message, String> {
    let e = at.event;
    let version: i32 = get(row, e + 4, "event_version")?;
    let headers: String = get(row, e + 9, "headers")?;
    let mut headers = Headers::from_json(&headers).map_err(|error| format!("headers: {error}"))?;
    // A header of this name that is no policy is one of the application, and stays.
    let retry = headers.get(RETRY_HEADER).and_then(|text| text.parse().ok());
    if retry.is_some() {
        headers.remove(RETRY_HEADER);
    }
    Ok(Message::new(MessageParts {
        id: MessageId::from_uuid(get::<Uuid>(row, e, "message_id")?),
        sequence: Some(id),
        source: get(row, e + 1, "source")?,
        topic: get(row, e + 2, "topic")?,
        event_type: get(row, e + 3, "event_type")?,
        event_version: u16::try_from(version).map_err(|_| format!("event_version: {version}"))?,
        aggregate_type: get(row, e + 5, "aggregate_type")?,
        key: get(row, e + 6, "message_key")?,
        content_type: get(row, e + 7, "content_type")?,
        payload: option::<Vec<u8>>(row, e + 8, "payload")?.unwrap_or_default().into(),
        headers,
        created_at: Timestamp::from_micros(get(row, at.created_at, "created_at")?),
        expires_at: option(row, at.expires_at, "expires_at")?.map(Timestamp::from_micros),
        retry,
    }))
}

/// Removes the sequence number 0, which stands for a received message without one.
pub(crate) fn unplaced(message: Message) -> Message {
    if message.sequence != Some(EventId(0)) {
        return message;
    }
    Message::new(MessageParts { sequence: None, ..message.into_parts() })
}

/// Reads a history of errors; one that does not decode is no reason to lose the row.
pub(crate) fn history(text: &str) -> Vec<AttemptError> {
    serde_json::from_str(text).unwrap_or_default()
}

/// Reads a column.
pub(crate) fn get<T: TryGetable>(
    row: &QueryResult,
    index: usize,
    name: impl fmt::Display,
) -> Result<T, String> {
    row.try_get_by_index(index).map_err(|error| format!("{name}: {error}"))
}

/// Reads a column that this crate wrote.
pub(crate) fn column<T: TryGetable>(row: &QueryResult, index: usize) -> Result<T, StoreError> {
    row.try_get_by_index(index).map_err(store_error)
}

/// Reads a column of a row that a relay reads by the thousand. SeaORM formats an error for each
/// absent value.
pub(crate) fn option<T: TryGetable>(
    row: &QueryResult,
    index: usize,
    name: &str,
) -> Result<Option<T>, String> {
    if is_absent(row, index) { Ok(None) } else { get(row, index, name) }
}

/// Tells whether a value is surely NULL.
fn is_absent(row: &QueryResult, index: usize) -> bool {
    #[cfg(feature = "sqlx-postgres")]
    if let Some(row) = row.try_as_pg_row() {
        return row.try_get_raw(index).is_ok_and(|value| value.is_null());
    }
    #[cfg(feature = "sqlx-mysql")]
    if let Some(row) = row.try_as_mysql_row() {
        return row.try_get_raw(index).is_ok_and(|value| value.is_null());
    }
    #[cfg(feature = "sqlx-sqlite")]
    if let Some(row) = row.try_as_sqlite_row() {
        return row.try_get_raw(index).is_ok_and(|value| value.is_null());
    }
    false
}

/// Microseconds as a span; a negative number is zero.
pub(crate) fn span(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// A stored count.
pub(crate) fn count(n: i64) -> u32 {
    u32::try_from(n).unwrap_or(if n < 0 { 0 } else { u32::MAX })
}
