//! Lists, page by page: deferred deliveries, scheduled events, the inbox of a message.

use super::{
    LONGEST_PAGE, WINDOW, column, errors, events::Searched, instant, marked, maybe_instant,
    maybe_name, message_id, name, query, short, shown,
};
use crate::{outbox::Outbox, schema::decode::count};
use outbox_core::{
    admin::{DeferredFacts, DeferredView, InboxView, Page, ScheduledView},
    event::{MessageId, Timestamp},
    failure::AttemptError,
    outbox::{Awaited, StoreError},
};
use sea_orm::{QueryResult, Value};
use std::collections::HashMap;

/// Deliveries of one read, each with up to 64 KiB of errors.
const CHUNK: u32 = 60;
/// Windows of the table that one page of a consumer's deliveries reads at most.
const WINDOWS: usize = 100;
/// Most handlers with their senders among which a message is searched.
const MOST_SENDERS: usize = 200;
/// Senders of one condition: the database nests a condition of so many parts as deeply.
const SENDERS: usize = 50;

/// A deferred delivery with its history.
#[derive(Debug, Clone)]
pub(super) struct DeferredHistory {
    pub(super) facts: DeferredFacts,
    pub(super) errors: Vec<AttemptError>,
    /// What orders it: consumer, handler and hash, as they are stored.
    order: (String, String, Option<i64>),
}

/// Reads deferred deliveries for which a condition holds, by number, at most [`CHUNK`].
async fn read(
    outbox: &Outbox,
    condition: &str,
    mut values: Vec<Value>,
    limit: u32,
) -> Result<Vec<DeferredHistory>, StoreError> {
    let sql = format!(
        "SELECT stored_id, consumer, handler, message_id, topic, event_type, message_key, due_at, failures, {}, \
         awaits_kind, awaits, awaits_version, awaits_since, stored_at, claimed_by, claimed_until, order_hash, {} \
         FROM {{deferred}} WHERE {condition} ORDER BY stored_id LIMIT ?",
        short(outbox, "errors"),
        marked("headers")
    );
    values.push(Value::from(i64::from(limit.min(CHUNK))));
    query(outbox, &sql, values).await?.iter().map(delivery).collect()
}

fn delivery(row: &QueryResult) -> Result<DeferredHistory, StoreError> {
    let errors = errors(row, 9, 18)?;
    let awaits_since = maybe_instant(row, 13)?;
    let (kind, what): (Option<String>, Option<String>) = (column(row, 10)?, column(row, 11)?);
    let version: Option<i32> = column(row, 12)?;
    let awaited = kind.zip(what).and_then(|(kind, what)| {
        Awaited::from_stored(&kind, what, u32::try_from(version.unwrap_or(0)).unwrap_or(0))
    });
    let handler = name(row, 2)?;
    let awaits = awaits_since.map(|_| match &awaited {
        Some(awaited) => shown(&awaited.to_string()),
        None => format!("the handler `{handler}`"),
    });
    let claimed_by: Option<String> = column(row, 15)?;
    Ok(DeferredHistory {
        facts: DeferredFacts {
            view: DeferredView {
                id: column(row, 0)?,
                consumer: name(row, 1)?,
                handler,
                message: message_id(row, 3)?,
                topic: name(row, 4)?,
                event_type: name(row, 5)?,
                key: maybe_name(row, 6)?,
                due_at: maybe_instant(row, 7)?,
                failures: count(column(row, 8)?),
                last_error: errors.last().map(|error| shown(&error.text)),
                awaits,
            },
            stored_at: instant(row, 14)?,
            claimed: claimed_by.zip(maybe_instant(row, 16)?),
            ahead: None,
            awaits: awaits_since.map(|since| (since, awaited)),
        },
        errors,
        order: (column(row, 1)?, column(row, 2)?, column(row, 17)?),
    })
}

pub(super) async fn deferred(
    outbox: &Outbox,
    consumer: Option<&str>,
    page: Page,
) -> Result<Vec<DeferredView>, StoreError> {
    let limit = usize::try_from(page.limit.min(LONGEST_PAGE)).unwrap_or(usize::MAX);
    let mut after = page.after.unwrap_or(i64::MIN);
    let mut list = Vec::new();
    for _ in 0..WINDOWS {
        let left = u32::try_from(limit - list.len()).unwrap_or(0);
        let mut values = vec![Value::from(after)];
        let (condition, end) = match consumer {
            None => ("stored_id > ?", None),
            // No index has the order of a consumer's deliveries: the table is read in windows.
            Some(consumer) => {
                let Some(end) = window_end(outbox, after).await? else { break };
                values.extend([Value::from(end), Value::from(consumer)]);
                ("stored_id > ? AND stored_id <= ? AND consumer = ?", Some(end))
            }
        };
        let some = read(outbox, condition, values, left).await?;
        let is_full = some.len() == usize::try_from(left.min(CHUNK)).unwrap_or(0);
        let last = some.last().map(|delivery| delivery.facts.view.id);
        list.extend(some.into_iter().map(|delivery| delivery.facts.view));
        match (last, end) {
            _ if list.len() >= limit => break,
            (Some(last), _) if is_full => after = last,
            (_, Some(end)) => after = end,
            (_, None) => break,
        }
    }
    Ok(list)
}

/// Gives the last number of the window of deliveries after a number.
async fn window_end(outbox: &Outbox, after: i64) -> Result<Option<i64>, StoreError> {
    let sql = format!(
        "SELECT max(w.stored_id) FROM (SELECT stored_id FROM {{deferred}} WHERE stored_id > ? \
         ORDER BY stored_id LIMIT {WINDOW}) w"
    );
    let rows = query(outbox, &sql, vec![Value::from(after)]).await?;
    rows.first().map_or(Ok(None), |row| column(row, 0))
}

pub(super) async fn scheduled(
    outbox: &Outbox,
    page: Page,
) -> Result<Vec<ScheduledView>, StoreError> {
    let values = vec![
        Value::from(page.after.unwrap_or(i64::MIN)),
        Value::from(i64::from(page.limit.min(LONGEST_PAGE))),
    ];
    let sql = scheduled_where("scheduled_id > ? ORDER BY scheduled_id LIMIT ?");
    let rows = query(outbox, &sql, values).await?;
    rows.iter().map(scheduled_row).collect()
}

fn scheduled_where(condition: &str) -> String {
    format!(
        "SELECT scheduled_id, message_id, topic, event_type, message_key, deliver_at FROM {{scheduled}} \
         WHERE {condition}"
    )
}

fn scheduled_row(row: &QueryResult) -> Result<ScheduledView, StoreError> {
    Ok(ScheduledView {
        id: column(row, 0)?,
        message: message_id(row, 1)?,
        topic: name(row, 2)?,
        event_type: name(row, 3)?,
        key: maybe_name(row, 4)?,
        deliver_at: instant(row, 5)?,
    })
}

/// Reads a scheduled event by its message.
pub(super) async fn scheduled_message(
    outbox: &Outbox,
    message: MessageId,
) -> Result<Option<ScheduledView>, StoreError> {
    let sql = scheduled_where("message_id = ?");
    let rows = query(outbox, &sql, vec![Value::from(*message.as_uuid())]).await?;
    rows.first().map(scheduled_row).transpose()
}

/// A consumer, a handler and a sender.
pub(crate) type Sender = (String, String, String);

/// Lists the consumers and handlers of a table with the senders of their messages, by steps over its
/// key; not all where there are more than [`MOST_SENDERS`].
pub(crate) async fn senders(
    outbox: &Outbox,
    table: &str,
) -> Result<Searched<Vec<Sender>>, StoreError> {
    let mut found: Vec<Sender> = Vec::new();
    while found.len() < MOST_SENDERS {
        let Some(next) = next_sender(outbox, table, found.last()).await? else {
            return Ok(Searched { rows: found, whole: true });
        };
        found.push(next);
    }
    Ok(Searched { rows: found, whole: false })
}

/// Reads the first sender after another one: of the same handler, of a later one of the same
/// consumer, of a later consumer.
async fn next_sender(
    outbox: &Outbox,
    table: &str,
    after: Option<&Sender>,
) -> Result<Option<Sender>, StoreError> {
    let text = |text: &String| Value::from(text.as_str());
    let steps: Vec<(&str, Vec<Value>)> = match after {
        None => vec![("1 = 1", Vec::new())],
        Some((consumer, handler, source)) => vec![
            (
                "consumer = ? AND handler = ? AND source > ?",
                vec![text(consumer), text(handler), text(source)],
            ),
            ("consumer = ? AND handler > ?", vec![text(consumer), text(handler)]),
            ("consumer > ?", vec![text(consumer)]),
        ],
    };
    for (condition, values) in steps {
        let sql = format!(
            "SELECT consumer, handler, source FROM {{{table}}} WHERE {condition} \
             ORDER BY consumer, handler, source LIMIT 1"
        );
        if let Some(row) = query(outbox, &sql, values).await?.first() {
            return Ok(Some((column(row, 0)?, column(row, 1)?, column(row, 2)?)));
        }
    }
    Ok(None)
}

/// Writes the condition that a message came from one of these senders.
fn from_any(senders: &[Sender], message: MessageId) -> (String, Vec<Value>) {
    let one = "(consumer = ? AND handler = ? AND source = ? AND message_id = ?)";
    let values = senders.iter().flat_map(|(consumer, handler, source)| {
        let texts = [consumer, handler, source].map(|text| Value::from(text.as_str()));
        texts.into_iter().chain([Value::from(*message.as_uuid())])
    });
    (vec![one; senders.len()].join(" OR "), values.collect())
}

/// Reads the rows of the inbox of a message.
pub(super) async fn inbox(
    outbox: &Outbox,
    message: MessageId,
) -> Result<Searched<Vec<InboxView>>, StoreError> {
    let senders = senders(outbox, "inbox").await?;
    let mut rows = Vec::new();
    for some in senders.rows.chunks(SENDERS) {
        let (condition, values) = from_any(some, message);
        let sql = format!(
            "SELECT consumer, handler, source, keep_until FROM {{inbox}} WHERE {condition} \
             ORDER BY consumer, handler, source"
        );
        for row in query(outbox, &sql, values).await? {
            rows.push(InboxView {
                consumer: name(&row, 0)?,
                handler: name(&row, 1)?,
                source: name(&row, 2)?,
                message,
                keep_until: instant(&row, 3)?,
            });
        }
    }
    Ok(Searched { rows, whole: senders.whole })
}

/// Reads the deferred deliveries of a message.
pub(super) async fn deferred_message(
    outbox: &Outbox,
    message: MessageId,
) -> Result<Searched<Vec<DeferredHistory>>, StoreError> {
    let senders = senders(outbox, "deferred").await?;
    let mut rows = Vec::new();
    for some in senders.rows.chunks(SENDERS) {
        let (condition, values) = from_any(some, message);
        rows.extend(read(outbox, &condition, values, CHUNK).await?);
    }
    Ok(Searched { rows: with_heads(outbox, rows).await?, whole: senders.whole })
}

/// Reads the deferred deliveries of a key, among the first [`WINDOW`].
pub(super) async fn deferred_key(
    outbox: &Outbox,
    key: &str,
) -> Result<Searched<Vec<DeferredHistory>>, StoreError> {
    let sql = format!(
        "SELECT w.stored_id FROM (SELECT stored_id, message_key FROM {{deferred}} ORDER BY stored_id LIMIT {WINDOW}) w \
         WHERE w.message_key = ? ORDER BY w.stored_id LIMIT {CHUNK}"
    );
    let found = query(outbox, &sql, vec![Value::from(key)]).await?;
    let ids = found.iter().map(|row| column::<i64>(row, 0).map(Value::from));
    let ids: Vec<Value> = ids.collect::<Result<_, StoreError>>()?;
    let end =
        format!("SELECT stored_id FROM {{deferred}} ORDER BY stored_id LIMIT 1 OFFSET {WINDOW}");
    let whole = query(outbox, &end, Vec::new()).await?.is_empty();
    if ids.is_empty() {
        return Ok(Searched { rows: Vec::new(), whole });
    }
    let marks = vec!["?"; ids.len()].join(", ");
    let rows = read(outbox, &format!("stored_id IN ({marks})"), ids, CHUNK).await?;
    Ok(Searched { rows: with_heads(outbox, rows).await?, whole })
}

/// Reads the deferred deliveries whose headers have a text, among the first [`WINDOW`], each with its
/// headers.
pub(super) async fn deferred_headed(
    outbox: &Outbox,
    text: &str,
) -> Result<Searched<Vec<(DeferredHistory, String)>>, StoreError> {
    let end =
        format!("SELECT stored_id FROM {{deferred}} ORDER BY stored_id LIMIT 1 OFFSET {WINDOW}");
    let end = query(outbox, &end, Vec::new()).await?;
    let end: Option<i64> = end.first().map(|row| column(row, 0)).transpose()?;
    let sql = format!(
        "SELECT stored_id, headers FROM {{deferred}} WHERE stored_id < ? AND headers LIKE ? \
         ORDER BY stored_id LIMIT {CHUNK}"
    );
    let values = vec![Value::from(end.unwrap_or(i64::MAX)), Value::from(format!("%{text}%"))];
    let mut headers: HashMap<i64, String> = HashMap::new();
    for row in query(outbox, &sql, values).await? {
        headers.insert(column(&row, 0)?, column(&row, 1)?);
    }
    let whole = end.is_none();
    if headers.is_empty() {
        return Ok(Searched { rows: Vec::new(), whole });
    }
    let marks = vec!["?"; headers.len()].join(", ");
    let ids: Vec<Value> = headers.keys().map(|id| Value::from(*id)).collect();
    let rows = read(outbox, &format!("stored_id IN ({marks})"), ids, CHUNK).await?;
    let rows = with_heads(outbox, rows).await?;
    let with_headers = |row: DeferredHistory| {
        let of_row = headers.remove(&row.facts.view.id)?;
        Some((row, of_row))
    };
    Ok(Searched { rows: rows.into_iter().filter_map(with_headers).collect(), whole })
}

/// Adds the first delivery of each one's key, where that is another one.
async fn with_heads(
    outbox: &Outbox,
    mut rows: Vec<DeferredHistory>,
) -> Result<Vec<DeferredHistory>, StoreError> {
    for row in &mut rows {
        let (consumer, handler, Some(order_hash)) = &row.order else { continue };
        let sql = "SELECT message_id FROM {deferred} WHERE consumer = ? AND handler = ? AND order_hash = ? \
                   AND stored_id < ? ORDER BY stored_id LIMIT 1";
        let values = vec![
            Value::from(consumer.as_str()),
            Value::from(handler.as_str()),
            Value::from(*order_hash),
            Value::from(row.facts.view.id),
        ];
        let first = query(outbox, sql, values).await?;
        row.facts.ahead = first.first().map(|row| message_id(row, 0)).transpose()?;
    }
    Ok(rows)
}

/// Tells when the oldest deferred delivery was stored.
pub(crate) async fn oldest_deferred(outbox: &Outbox) -> Result<Option<Timestamp>, StoreError> {
    let sql = "SELECT stored_at FROM {deferred} ORDER BY stored_id LIMIT 1";
    match query(outbox, sql, Vec::new()).await?.first() {
        Some(row) => maybe_instant(row, 0),
        None => Ok(None),
    }
}
