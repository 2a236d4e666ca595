//! Decodes the rows of a read into the types of the core. A row that does not decode is given as such; it never
//! fails the read.

use crate::{
    dialect::{column, kind},
    schema::decode::{Layout, count, get, history, message, option, span},
};
use outbox_core::{
    event::EventId,
    outbox::{PartitionNo, RouteRow, RouteState, StoredEvent},
};
use sea_orm::QueryResult;
use std::sync::Arc;

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

/// The layout of what a relay reads.
const READ: Layout =
    Layout { event: column::EVENT, created_at: column::CREATED_AT, expires_at: column::EXPIRES_AT };

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
