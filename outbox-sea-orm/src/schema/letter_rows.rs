//! The rows of dead letters, as operators, consumers and relays read them.

use super::decode::{Layout, column, count, history, message, unplaced};
use crate::dialect::{Dialect, EVENT_COLUMNS, ORIGIN_CONSUMER};
use outbox_core::{
    event::{EventId, LetterId, Timestamp},
    failure::{ConsumerOrigin, DeadLetter, DeadReason, Resolution},
    outbox::StoreError,
};
use sea_orm::QueryResult;

/// Index of the first column behind those of the event.
const AFTER: usize = 12;
/// The large columns of a letter.
pub(crate) const CONTENT: &[&str] = &["payload", "headers", "errors"];
const LAYOUT: Layout = Layout { event: 2, created_at: AFTER, expires_at: AFTER + 1 };

/// Writes the read of ids and bytes of letters for which a condition holds.
pub(crate) fn sizes(dialect: Dialect, condition: &str) -> String {
    sizes_of(dialect, CONTENT, condition)
}

/// Writes the read of ids, and of bytes without those of payloads.
pub(crate) fn sizes_without_payload(dialect: Dialect, condition: &str) -> String {
    sizes_of(dialect, &["headers", "errors"], condition)
}

fn sizes_of(dialect: Dialect, columns: &[&str], condition: &str) -> String {
    format!("SELECT letter_id, {} FROM {{letters}} WHERE {condition}", dialect.bytes_of(columns))
}

/// Reads a row of [`sizes`].
pub(crate) fn id_and_size(row: &QueryResult) -> Result<(i64, usize), StoreError> {
    Ok((column(row, 0)?, usize::try_from(column::<i64>(row, 1)?).unwrap_or(0)))
}

/// Writes the read of letters for which a condition holds.
pub(crate) fn select(condition: &str) -> String {
    format!(
        "SELECT letter_id, event_id, {EVENT_COLUMNS}, created_at, expires_at, route, reason, attempts, errors, \
         CASE WHEN parks THEN 1 ELSE 0 END, dead_at, previous_id, resolution, resolved_at, resolved_by, \
         resolution_reason, CASE WHEN origin = {ORIGIN_CONSUMER} THEN 1 ELSE 0 END \
         FROM {{letters}} WHERE {condition}"
    )
}

/// Writes the read of letters for which a condition holds, with empty payloads.
pub(crate) fn select_without_payload(dialect: Dialect, condition: &str) -> String {
    select(condition).replacen("payload", dialect.no_bytes(), 1)
}

/// Reads a row of [`select`].
pub(crate) fn letter(row: &QueryResult) -> Result<DeadLetter, StoreError> {
    let is_received = column::<i32>(row, AFTER + 13)? != 0;
    let event_id = EventId(column::<i64>(row, 1)?.abs());
    let mut route: String = column(row, AFTER + 2)?;
    let received = is_received.then(|| {
        let origin = std::mem::take(&mut route);
        let (consumer, handler) = origin.split_once('/').unwrap_or((&origin, ""));
        ConsumerOrigin { consumer: consumer.to_owned(), handler: handler.to_owned() }
    });
    let reason: String = column(row, AFTER + 3)?;
    let reason: DeadReason = reason
        .parse()
        .map_err(|()| StoreError::Mismatch(format!("no reason of a dead letter: {reason}")))?;
    let resolution = match column::<Option<String>>(row, AFTER + 9)? {
        None => None,
        Some(action) => Some(Resolution {
            action,
            at: Timestamp::from_micros(column(row, AFTER + 10)?),
            by: column::<Option<String>>(row, AFTER + 11)?.unwrap_or_default(),
            reason: column::<Option<String>>(row, AFTER + 12)?.unwrap_or_default(),
        }),
    };
    Ok(DeadLetter::new(
        LetterId(column(row, 0)?),
        event_id,
        message(row, event_id, &LAYOUT).ok().map(unplaced),
        route,
        reason,
        count(column(row, AFTER + 4)?),
        history(&column::<String>(row, AFTER + 5)?),
        column::<i32>(row, AFTER + 6)? != 0,
        Timestamp::from_micros(column(row, AFTER + 7)?),
        resolution,
        column::<Option<i64>>(row, AFTER + 8)?.map(LetterId),
    )
    .with_consumer_origin(received))
}
