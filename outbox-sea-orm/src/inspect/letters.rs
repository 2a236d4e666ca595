//! Dead letters of a message or a key, without their content.

use super::{
    WINDOW, column, errors, events::Searched, flag, instant, marked, maybe_instant, message_id,
    name, query, short, shown,
};
use crate::{
    dialect::ORIGIN_CONSUMER,
    outbox::Outbox,
    schema::{decode::count, stored},
};
use outbox_core::{
    admin::LetterFacts,
    event::{EventId, LetterId, MessageId, Timestamp},
    failure::{AttemptError, ConsumerOrigin, DeadReason, Resolution},
    outbox::{PartitionNo, StoreError},
};
use sea_orm::{QueryResult, Value};

/// Most letters of one subject.
const MOST: i64 = 50;

/// A dead letter with its history.
#[derive(Debug, Clone)]
pub(super) struct LetterHistory {
    pub(super) facts: LetterFacts,
    pub(super) source: String,
    pub(super) topic: String,
    pub(super) created_at: Timestamp,
    pub(super) errors: Vec<AttemptError>,
}

/// Reads letters for which a condition holds, in the order of their identities.
async fn read(
    outbox: &Outbox,
    condition: &str,
    mut values: Vec<Value>,
) -> Result<Vec<LetterHistory>, StoreError> {
    let sql = format!(
        "SELECT letter_id, message_id, message_key, route, CASE WHEN origin = {ORIGIN_CONSUMER} THEN 1 ELSE 0 END, \
         reason, attempts, {}, CASE WHEN parks THEN 1 ELSE 0 END, dead_at, resolution, resolved_at, resolved_by, {}, \
         source, topic, event_type, created_at, {} FROM {{letters}} WHERE {condition} ORDER BY letter_id LIMIT ?",
        short(outbox, "errors"),
        short(outbox, "resolution_reason"),
        marked("headers")
    );
    values.push(Value::from(MOST));
    query(outbox, &sql, values).await?.iter().map(letter).collect()
}

fn letter(row: &QueryResult) -> Result<LetterHistory, StoreError> {
    let mut route = name(row, 3)?;
    let consumer = flag(row, 4)?.then(|| {
        let by = std::mem::take(&mut route);
        let (consumer, handler) = by.split_once('/').unwrap_or((&by, ""));
        ConsumerOrigin { consumer: consumer.to_owned(), handler: handler.to_owned() }
    });
    let resolution = match column::<Option<String>>(row, 10)? {
        None => None,
        Some(action) => Some(Resolution {
            action,
            at: instant(row, 11)?,
            by: column::<Option<String>>(row, 12)?.map(|by| shown(&by)).unwrap_or_default(),
            reason: column::<Option<String>>(row, 13)?.map(|r| shown(&r)).unwrap_or_default(),
        }),
    };
    let errors = errors(row, 7, 18)?;
    Ok(LetterHistory {
        facts: LetterFacts {
            id: LetterId(column(row, 0)?),
            message: message_id(row, 1)?,
            event_type: name(row, 16)?,
            key: column(row, 2)?,
            route,
            consumer,
            reason: reason(&column::<String>(row, 5)?)?,
            attempts: count(column(row, 6)?),
            last_error: errors.last().map(|error| shown(&error.text)),
            parks: flag(row, 8)?,
            dead_at: instant(row, 9)?,
            resolution,
        },
        source: name(row, 14)?,
        topic: name(row, 15)?,
        created_at: instant(row, 17)?,
        errors,
    })
}

/// Reads a reason.
pub(super) fn reason(text: &str) -> Result<DeadReason, StoreError> {
    let mismatch =
        |()| StoreError::Mismatch(format!("no reason of a dead letter: {}", shown(text)));
    text.parse().map_err(mismatch)
}

/// Finds letters among the newest [`WINDOW`] by a condition on `w`.
async fn newest(
    outbox: &Outbox,
    condition: &str,
    value: Value,
) -> Result<Searched<Vec<LetterHistory>>, StoreError> {
    let sql = format!(
        "SELECT w.letter_id FROM (SELECT letter_id, message_id, message_key, resolution FROM {{letters}} \
         ORDER BY letter_id DESC LIMIT {WINDOW}) w WHERE {condition} ORDER BY w.letter_id DESC LIMIT {MOST}"
    );
    let rows = query(outbox, &sql, vec![value]).await?;
    let ids = rows.iter().map(|row| column::<i64>(row, 0).map(Value::from));
    let ids: Vec<Value> = ids.collect::<Result<_, StoreError>>()?;
    let sql = format!(
        "SELECT letter_id FROM {{letters}} ORDER BY letter_id DESC LIMIT 1 OFFSET {WINDOW}"
    );
    let whole = query(outbox, &sql, Vec::new()).await?.is_empty();
    if ids.is_empty() {
        return Ok(Searched { rows: Vec::new(), whole });
    }
    let marks = vec!["?"; ids.len()].join(", ");
    Ok(Searched { rows: read(outbox, &format!("letter_id IN ({marks})"), ids).await?, whole })
}

/// Finds the letters of a message: by its place in the outbox where that is known, and among the
/// newest.
pub(super) async fn of_message(
    outbox: &Outbox,
    message: MessageId,
    event: Option<EventId>,
) -> Result<Searched<Vec<LetterHistory>>, StoreError> {
    let mut found = newest(outbox, "w.message_id = ?", Value::from(*message.as_uuid())).await?;
    if let Some(event) = event {
        let condition = "event_id = ? AND message_id = ?";
        let values = vec![Value::from(event.0), Value::from(*message.as_uuid())];
        let by_place = read(outbox, condition, values).await?;
        let known: Vec<LetterId> = found.rows.iter().map(|letter| letter.facts.id).collect();
        found.rows.extend(by_place.into_iter().filter(|l| !known.contains(&l.facts.id)));
        found.rows.sort_by_key(|letter| letter.facts.id);
    }
    Ok(found)
}

/// Finds the letters of a key among the newest.
pub(super) async fn of_key(
    outbox: &Outbox,
    key: &str,
) -> Result<Searched<Vec<LetterHistory>>, StoreError> {
    newest(outbox, "w.message_key = ?", Value::from(key)).await
}

/// Reads the open letters whose headers have a text, among the newest [`WINDOW`], each with its
/// headers.
pub(super) async fn open_headed(
    outbox: &Outbox,
    text: &str,
) -> Result<Searched<Vec<(LetterHistory, String)>>, StoreError> {
    let before = format!(
        "SELECT letter_id FROM {{letters}} ORDER BY letter_id DESC LIMIT 1 OFFSET {WINDOW}"
    );
    let before = query(outbox, &before, Vec::new()).await?;
    let before: Option<i64> = before.first().map(|row| column(row, 0)).transpose()?;
    let sql = format!(
        "SELECT letter_id, headers FROM {{letters}} WHERE letter_id > ? AND resolution IS NULL \
         AND headers LIKE ? ORDER BY letter_id LIMIT {MOST}"
    );
    let values = vec![Value::from(before.unwrap_or(0)), Value::from(format!("%{text}%"))];
    let mut rows = Vec::new();
    for row in query(outbox, &sql, values).await? {
        if let Some(letter) = by_number(outbox, column(&row, 0)?).await? {
            rows.push((letter, column(&row, 1)?));
        }
    }
    Ok(Searched { rows, whole: before.is_none() })
}

/// Reads a letter.
pub(super) async fn by_number(
    outbox: &Outbox,
    letter: i64,
) -> Result<Option<LetterHistory>, StoreError> {
    let found = read(outbox, "letter_id = ?", vec![Value::from(letter)]).await?;
    Ok(found.into_iter().next())
}

/// Finds the open letter of an earlier event that parks a key, among the first [`WINDOW`] of its
/// partition.
pub(super) async fn parking(
    outbox: &Outbox,
    partition: PartitionNo,
    key: &str,
    before: EventId,
) -> Result<Option<LetterHistory>, StoreError> {
    let sql = format!(
        "SELECT w.letter_id FROM (SELECT letter_id, message_key, event_id FROM {{letters}} WHERE {} \
         AND resolution IS NULL AND partition_no = ? ORDER BY letter_id LIMIT {WINDOW}) w \
         WHERE w.message_key = ? AND w.event_id < ? ORDER BY w.letter_id LIMIT 1",
        outbox.schema().dialect().is_set("parks")
    );
    let values = vec![Value::from(stored(partition)), Value::from(key), Value::from(before.0)];
    match query(outbox, &sql, values).await?.first() {
        Some(row) => by_number(outbox, column(row, 0)?).await,
        None => Ok(None),
    }
}

/// Tells when the oldest open letter was given up.
pub(crate) async fn oldest_open(outbox: &Outbox) -> Result<Option<Timestamp>, StoreError> {
    let sql = "SELECT dead_at FROM {letters} WHERE resolution IS NULL ORDER BY letter_id LIMIT 1";
    match query(outbox, sql, Vec::new()).await?.first() {
        Some(row) => maybe_instant(row, 0),
        None => Ok(None),
    }
}
