//! Events of the outbox and of the archive, found without an index of messages or keys: by the time
//! that a message id carries, and in windows of ids.

use super::{
    LONGEST_TEXT, WINDOW, column, errors, instant, marked, maybe_instant, maybe_name, message_id,
    name, number, overview::partition, query, short, shown,
};
use crate::{
    chunks::{RESULT_BYTES, chunks_by_size, one_of},
    outbox::Outbox,
    schema::{decode::count, stored},
};
use outbox_core::{
    admin::{Bounded, RouteFacts},
    event::{EventId, MessageId, Timestamp},
    failure::AttemptError,
    outbox::{PartitionNo, StoreError, partition_of},
};
use sea_orm::{QueryResult, Value};
use std::collections::HashMap;

/// Ids at the beginning of each partition that are searched first: what stands still is there.
pub(super) const FIRST: i64 = 1_000;
/// Rows before and from the place that the time of a message id leads to.
pub(super) const AROUND: (i64, i64) = (200, 800);
/// Route rows of one event that are read: more than any relay has routes.
const MOST_ROUTES: i64 = 200;
/// Events whose route rows are read by one statement; each is a parameter.
const CHUNK: usize = 256;

/// The row of an event, without its content.
#[derive(Debug, Clone)]
pub(super) struct EventRow {
    pub(super) partition: PartitionNo,
    pub(super) id: EventId,
    pub(super) message: MessageId,
    pub(super) source: String,
    pub(super) topic: String,
    pub(super) event_type: String,
    /// As it is stored: it is compared.
    pub(super) key: Option<String>,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
    /// When the event was archived; `None` in the outbox.
    pub(super) finished_at: Option<Timestamp>,
}

/// What a search found, and whether it has looked at every row.
#[derive(Debug)]
pub(crate) struct Searched<T> {
    pub(crate) rows: T,
    pub(crate) whole: bool,
}

/// Rows in the order of their ids: a partition of the outbox, or the archive.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Partition(i16),
    Archive,
}

impl Place {
    /// Gives the table, with the hint that the planner needs, and the condition for the rows.
    fn of(self, outbox: &Outbox) -> (String, &'static str) {
        match self {
            Self::Partition(_) => (
                format!("{{events}} e{}", outbox.schema().dialect().by_key()),
                "e.partition_no = ?",
            ),
            Self::Archive => ("{archive} e".to_owned(), "1 = 1"),
        }
    }

    fn values(self) -> Vec<Value> {
        match self {
            Self::Partition(number) => vec![Value::from(number)],
            Self::Archive => Vec::new(),
        }
    }

    const fn finished(self) -> &'static str {
        match self {
            Self::Partition(_) => "e.expires_at",
            Self::Archive => "e.finished_at",
        }
    }

    /// Reads the rows of a window of ids for which a condition on `w` holds.
    pub(super) async fn window(
        self,
        outbox: &Outbox,
        (bound, id, rows): (WindowEdge, i64, i64),
        (condition, value): (&str, Value),
        limit: i64,
    ) -> Result<Vec<EventRow>, StoreError> {
        let (table, place) = self.of(outbox);
        let (compare, order) = match bound {
            WindowEdge::From => (">=", "ASC"),
            WindowEdge::Before => ("<", "DESC"),
        };
        let sql = format!(
            "SELECT w.partition_no, w.event_id, w.message_id, w.source, w.topic, w.event_type, w.message_key, \
             w.created_at, w.expires_at, w.finished_at FROM (SELECT e.partition_no, e.event_id, e.message_id, e.source, \
             e.topic, e.event_type, e.message_key, e.created_at, e.expires_at, {} AS finished_at FROM {table} \
             WHERE {place} AND e.event_id {compare} ? ORDER BY e.event_id {order} LIMIT ?) w WHERE {condition} \
             ORDER BY w.event_id LIMIT ?",
            self.finished()
        );
        let mut values = self.values();
        values.extend([Value::from(id), Value::from(rows), value, Value::from(limit)]);
        let archived = matches!(self, Self::Archive);
        let event = |row: &QueryResult| {
            let finished_at = if archived { maybe_instant(row, 9)? } else { None };
            Ok(EventRow {
                partition: partition(column(row, 0)?),
                id: EventId(column(row, 1)?),
                message: message_id(row, 2)?,
                source: name(row, 3)?,
                topic: column(row, 4)?,
                event_type: name(row, 5)?,
                key: column(row, 6)?,
                created_at: instant(row, 7)?,
                expires_at: maybe_instant(row, 8)?,
                finished_at,
            })
        };
        query(outbox, &sql, values).await?.iter().map(event).collect()
    }

    /// Tells whether there are more rows than a window.
    pub(super) async fn is_longer(self, outbox: &Outbox, rows: i64) -> Result<bool, StoreError> {
        let (table, place) = self.of(outbox);
        let sql = format!(
            "SELECT e.event_id FROM {table} WHERE {place} ORDER BY e.event_id LIMIT 1 OFFSET {rows}"
        );
        Ok(!query(outbox, &sql, self.values()).await?.is_empty())
    }

    /// Finds the id at which rows begin that were saved at a time or later, by halves, down to a
    /// window. Ids are in the order of time but for transactions that ran at once.
    pub(super) async fn begin_of(self, outbox: &Outbox, time: i64) -> Result<i64, StoreError> {
        let (table, place) = self.of(outbox);
        let end = |which| format!("SELECT {which}(e.event_id) FROM {table} WHERE {place}");
        let mut low = number(outbox, &end("min"), self.values()).await?;
        let mut high = number(outbox, &end("max"), self.values()).await?;
        let sql = format!(
            "SELECT e.event_id, e.created_at FROM {table} WHERE {place} AND e.event_id >= ? \
             ORDER BY e.event_id LIMIT 1"
        );
        while high.saturating_sub(low) > AROUND.1 / 2 {
            let middle = low + (high - low) / 2;
            let mut values = self.values();
            values.push(Value::from(middle));
            let rows = query(outbox, &sql, values).await?;
            let Some(row) = rows.first() else {
                high = middle;
                continue;
            };
            let (id, created_at): (i64, i64) = (column(row, 0)?, column(row, 1)?);
            match created_at < time && id < high {
                true => low = id,
                false => high = middle,
            }
        }
        Ok(low)
    }

    /// Searches a message around the time that its id carries.
    async fn around(
        self,
        outbox: &Outbox,
        message: MessageId,
    ) -> Result<Option<EventRow>, StoreError> {
        let Some(time) = time_of(message) else { return Ok(None) };
        let begin = self.begin_of(outbox, time).await?;
        let is_it = || ("w.message_id = ?", Value::from(*message.as_uuid()));
        let after = self.window(outbox, (WindowEdge::From, begin, AROUND.1), is_it(), 1).await?;
        if let Some(found) = after.into_iter().next() {
            return Ok(Some(found));
        }
        let before = self.window(outbox, (WindowEdge::Before, begin, AROUND.0), is_it(), 1).await?;
        Ok(before.into_iter().next())
    }
}

/// Whether a window begins at an id, or ends before it.
#[derive(Debug, Clone, Copy)]
pub(super) enum WindowEdge {
    From,
    Before,
}

/// Gives the time that a message id of version 7 carries, in microseconds.
fn time_of(message: MessageId) -> Option<i64> {
    let (seconds, nanos) = message.as_uuid().get_timestamp()?.to_unix();
    i64::try_from(seconds).ok()?.checked_mul(1_000_000)?.checked_add(i64::from(nanos / 1_000))
}

/// Gives the partition of a key.
pub(super) fn of_key(outbox: &Outbox, key: &str) -> i16 {
    // A key alone decides.
    let any = MessageId::from_uuid(uuid::Uuid::nil());
    stored(partition_of(Some(key), any, outbox.schema().partitions()))
}

/// Finds an event in the outbox: at the beginning of each partition, then by its time.
pub(super) async fn event(
    outbox: &Outbox,
    message: MessageId,
) -> Result<Searched<Option<EventRow>>, StoreError> {
    let mut whole = true;
    let mut long = Vec::new();
    for number in 0..outbox.schema().partitions() {
        let place = Place::Partition(stored(PartitionNo(number)));
        let is_it = ("w.message_id = ?", Value::from(*message.as_uuid()));
        let found = place.window(outbox, (WindowEdge::From, 0, FIRST), is_it, 1).await?;
        if let Some(found) = found.into_iter().next() {
            return Ok(Searched { rows: Some(found), whole: true });
        }
        if place.is_longer(outbox, FIRST).await? {
            long.push(place);
        }
    }
    for place in long {
        whole = false;
        if let Some(found) = place.around(outbox, message).await? {
            return Ok(Searched { rows: Some(found), whole: true });
        }
    }
    Ok(Searched { rows: None, whole })
}

/// Finds an event in the archive, by its time.
pub(super) async fn archived(
    outbox: &Outbox,
    message: MessageId,
) -> Result<Searched<Option<EventRow>>, StoreError> {
    let place = Place::Archive;
    let is_it = ("w.message_id = ?", Value::from(*message.as_uuid()));
    let found = place.window(outbox, (WindowEdge::From, 0, FIRST), is_it, 1).await?;
    if let Some(found) = found.into_iter().next() {
        return Ok(Searched { rows: Some(found), whole: true });
    }
    if !place.is_longer(outbox, FIRST).await? {
        return Ok(Searched { rows: None, whole: true });
    }
    let rows = place.around(outbox, message).await?;
    Ok(Searched { whole: rows.is_some(), rows })
}

/// Reads the first events of a key, from the first [`WINDOW`] rows of its partition.
pub(super) async fn of_this_key(
    outbox: &Outbox,
    key: &str,
    limit: i64,
) -> Result<Searched<Vec<EventRow>>, StoreError> {
    let place = Place::Partition(of_key(outbox, key));
    let is_it = ("w.message_key = ?", Value::from(key));
    let rows = place.window(outbox, (WindowEdge::From, 0, WINDOW), is_it, limit).await?;
    Ok(Searched { rows, whole: !place.is_longer(outbox, WINDOW).await? })
}

/// Counts the later events of an event's key within the [`WINDOW`] rows behind it.
pub(super) async fn behind(outbox: &Outbox, event: &EventRow) -> Result<Bounded, StoreError> {
    let Some(key) = &event.key else { return Ok(Bounded::default()) };
    let (table, place) = Place::Partition(stored(event.partition)).of(outbox);
    let sql = format!(
        "SELECT count(CASE WHEN w.message_key = ? THEN 1 END), count(*) FROM (SELECT e.message_key FROM {table} \
         WHERE {place} AND e.event_id > ? ORDER BY e.event_id LIMIT {WINDOW}) w"
    );
    let values = vec![
        Value::from(key.as_str()),
        Value::from(stored(event.partition)),
        Value::from(event.id.0),
    ];
    let rows = query(outbox, &sql, values).await?;
    let Some(row) = rows.first() else { return Ok(Bounded::default()) };
    let (count, rows): (i64, i64) = (column(row, 0)?, column(row, 1)?);
    Ok(Bounded { count: count.unsigned_abs(), or_more: rows >= WINDOW })
}

/// The row of an event on a route, with its history.
#[derive(Debug, Clone)]
pub(super) struct RouteHistory {
    pub(super) facts: RouteFacts,
    pub(super) errors: Vec<AttemptError>,
}

/// The columns of a route row `r`, as [`route`] reads them. One whose event is gone meanwhile
/// counts as marked.
fn route_columns(outbox: &Outbox) -> String {
    format!(
        "route, state, attempts_started, attempts_finished, due_at, {}, CASE WHEN redriven THEN 1 ELSE 0 END, event_id, \
         COALESCE((SELECT {} FROM {{events}} e WHERE e.partition_no = r.partition_no AND e.event_id = r.event_id), 1)",
        short(outbox, "errors"),
        marked("e.headers")
    )
}

/// Reads the route rows of an event.
pub(super) async fn routes(
    outbox: &Outbox,
    partition: PartitionNo,
    id: EventId,
) -> Result<Vec<RouteHistory>, StoreError> {
    let sql = format!(
        "SELECT {} FROM {{retries}} r WHERE partition_no = ? AND event_id = ? ORDER BY route LIMIT ?",
        route_columns(outbox)
    );
    let values = vec![Value::from(stored(partition)), Value::from(id.0), Value::from(MOST_ROUTES)];
    query(outbox, &sql, values).await?.iter().map(route).collect()
}

/// Route rows by their events.
pub(super) type RoutesByEvent = HashMap<EventId, Vec<RouteHistory>>;

/// Reads the route rows of many events of a partition, in a few statements: first which events have
/// some and how many bytes, since most have none, and then these in results that are bounded.
pub(super) async fn routes_of(
    outbox: &Outbox,
    partition: PartitionNo,
    ids: &[EventId],
) -> Result<Searched<RoutesByEvent>, StoreError> {
    let (mut found, mut whole) = (RoutesByEvent::new(), true);
    for chunk in ids.chunks(CHUNK) {
        let sizes = sizes_of_routes(outbox, partition, chunk).await?;
        whole &= sizes.whole;
        for some in chunks_by_size(&sizes.rows, CHUNK, RESULT_BYTES, |(_, bytes)| *bytes) {
            let ids = some.iter().map(|(id, _)| Value::from(id.0)).collect();
            let (these, ids) = one_of("event_id", ids);
            let sql = format!(
                "SELECT {} FROM {{retries}} r WHERE partition_no = ? AND {these} ORDER BY event_id, route",
                route_columns(outbox)
            );
            let values = [Value::from(stored(partition))].into_iter().chain(ids).collect();
            for row in &query(outbox, &sql, values).await? {
                let of_event = found.entry(EventId(column(row, 7)?)).or_default();
                of_event.push(route(row)?);
            }
        }
    }
    Ok(Searched { rows: found, whole })
}

/// Gives the events of a chunk that have route rows, each with the bytes of these, of the first
/// [`WINDOW`] rows.
async fn sizes_of_routes(
    outbox: &Outbox,
    partition: PartitionNo,
    ids: &[EventId],
) -> Result<Searched<Vec<(EventId, usize)>>, StoreError> {
    let (these, ids) = one_of("event_id", ids.iter().map(|id| Value::from(id.0)).collect());
    let bytes = outbox.schema().dialect().bytes_of(&["errors"]);
    let sql = format!(
        "SELECT event_id, {bytes} FROM {{retries}} WHERE partition_no = ? AND {these} \
         ORDER BY event_id, route LIMIT {WINDOW}"
    );
    let values = [Value::from(stored(partition))].into_iter().chain(ids).collect();
    let rows = query(outbox, &sql, values).await?;
    let mut sizes: Vec<(EventId, usize)> = Vec::new();
    for row in &rows {
        let bytes = usize::try_from(column::<i64>(row, 1)?).unwrap_or(0);
        // A longer one is left out.
        let bytes = if bytes > LONGEST_TEXT { 0 } else { bytes };
        match (sizes.last_mut(), EventId(column(row, 0)?)) {
            (Some((last, sum)), id) if *last == id => *sum += bytes,
            (_, id) => sizes.push((id, bytes)),
        }
    }
    Ok(Searched { whole: i64::try_from(rows.len()).is_ok_and(|rows| rows < WINDOW), rows: sizes })
}

fn route(row: &QueryResult) -> Result<RouteHistory, StoreError> {
    let state: String = column(row, 1)?;
    let mismatch = |()| StoreError::Mismatch(format!("a route's state is `{state}`"));
    let errors = errors(row, 5, 8)?;
    let facts = RouteFacts {
        route: maybe_name(row, 0)?.unwrap_or_default(),
        state: state.parse().map_err(mismatch)?,
        started: count(column(row, 2)?),
        attempts: count(column(row, 3)?),
        due_at: maybe_instant(row, 4)?,
        last_error: errors.last().map(|error| shown(&error.text)),
        redriven: super::flag(row, 6)?,
    };
    Ok(RouteHistory { facts, errors })
}
