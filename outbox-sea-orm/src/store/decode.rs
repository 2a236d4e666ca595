//! Decodes rows into the types of the core. A row that does not decode is given as such; it never
//! fails the read.

use crate::{
    dialect::{column, kind},
    schema::RETRY_HEADER,
};
use outbox_core::{
    event::{EventId, Headers, Message, MessageId, MessageParts, Timestamp},
    failure::AttemptError,
    outbox::{PartitionNo, RouteRow, RouteState, StoredEvent},
};
use sea_orm::{
    QueryResult, TryGetable,
    sqlx::{Row as _, ValueRef as _},
};
use std::{fmt, sync::Arc, time::Duration};
use uuid::Uuid;

/// A row of a read.
pub(super) enum Row {
    Event(StoredEvent),
    /// The row of `outbox_retries` of an event on a route.
    Route(PartitionNo, EventId, RouteRow),
    /// Ids of a window.
    Window(PartitionNo, Vec<EventId>),
}

/// Reads a row. Without kind, partition or id the row belongs to no event, and the statement itself
/// is wrong.
pub(super) fn row(row: &QueryResult) -> Result<Row, String> {
    let partition: i64 = get(row, column::PARTITION, "partition_no")?;
    let partition =
        PartitionNo(u16::try_from(partition).map_err(|_| format!("no partition: {partition}"))?);
    match get(row, column::KIND, "kind")? {
        kind::EVENT => {
            let id = EventId(get(row, column::EVENT_ID, "event_id")?);
            let expires_in: Option<i64> =
                option(row, column::EXPIRES_IN, "expires_at").unwrap_or_default();
            let left_out: Option<i64> = option(row, column::LEFT_OUT, "payload's length")?;
            Ok(Row::Event(StoredEvent {
                partition,
                id,
                body: message(row, id, &READ),
                left_out: left_out.and_then(|bytes| u64::try_from(bytes).ok()),
                expires_in: expires_in.map(span),
                rows: Vec::new(),
            }))
        }
        kind::WINDOW => Ok(Row::Window(partition, ids(row)?)),
        kind::ROUTE => {
            let id = EventId(get(row, column::EVENT_ID, "event_id")?);
            Ok(Row::Route(partition, id, route(row)?))
        }
        other => Err(format!("no kind of row: {other}")),
    }
}

/// Where the columns of an event stand.
pub(crate) struct Layout {
    pub(crate) event: usize,
    pub(crate) created_at: usize,
    pub(crate) expires_at: usize,
}

/// The layout of what a relay reads.
const READ: Layout =
    Layout { event: column::EVENT, created_at: column::CREATED_AT, expires_at: column::EXPIRES_AT };

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

/// Reads the row of a route. A relay wrote it, and the table has checked it.
fn route(row: &QueryResult) -> Result<RouteRow, String> {
    let state: String = get(row, column::STATE, "state")?;
    let errors: String = get(row, column::ERRORS, "errors")?;
    let due_in: Option<i64> = get(row, column::DUE_IN, "due_at")?;
    Ok(RouteRow {
        route: Arc::from(get::<String>(row, column::ROUTE, "route")?),
        state: state.parse::<RouteState>().map_err(|()| format!("state: {state}"))?,
        attempts_started: count(get(row, column::STARTED, "attempts_started")?),
        attempts_finished: count(get(row, column::FINISHED, "attempts_finished")?),
        due_in: due_in.map(span),
        failing_for: span(get(row, column::FAILING, "failing_us")?),
        errors: history(&errors),
        redriven: get::<i32>(row, column::REDRIVEN, "redriven")? != 0,
    })
}

/// Reads a list of ids, which may be empty: an array on PostgreSQL, a string on the others.
fn ids(row: &QueryResult) -> Result<Vec<EventId>, String> {
    #[cfg(feature = "sqlx-postgres")]
    if row.try_as_pg_row().is_some() {
        let ids: Option<Vec<i64>> = get(row, column::IDS, "ids")?;
        return Ok(ids.unwrap_or_default().into_iter().map(EventId).collect());
    }
    let text: Option<String> = get(row, column::IDS, "ids")?;
    let id = |part: &str| part.parse().map(EventId).map_err(|_| format!("no id: {part}"));
    text.map_or(Ok(Vec::new()), |text| text.split(',').map(id).collect())
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

/// Reads a column of a row that a relay reads by the thousand. SeaORM formats an error for each
/// absent value.
fn option<T: TryGetable>(row: &QueryResult, index: usize, name: &str) -> Result<Option<T>, String> {
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
