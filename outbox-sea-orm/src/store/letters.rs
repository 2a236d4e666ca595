//! Dead letters: reading them, and writing those that bring their events along.

use super::{
    SqlStore,
    bind::bind_ids,
    decode::{self, Layout, count, history},
    settler::column,
};
use crate::{
    dialect::Dialect,
    pool::{Arg, Tx},
    schema::{EVENT_COLUMNS, stored},
};
use outbox_core::{
    event::{EventId, LetterId, Timestamp},
    failure::{DeadLetter, DeadReason, Fate, ReceivedBy},
    outbox::{CarriedLetter, StoreError},
};
use sea_orm::QueryResult;
use std::collections::{BTreeMap, HashMap};

/// Places of the columns behind those of the event.
const AFTER: usize = 12;
/// In the place of a partition: the letter is a consumer's, its route `consumer/handler`, and its event the sender's.
pub(crate) const RECEIVED: i16 = -1;
/// Letters that are written in one INSERT of twenty parameters each.
const CHUNK: usize = 50;
/// A letter that was written for an event and a route: its id, and whether nothing was decided about it yet.
pub(super) type LastLetters = HashMap<(i64, String), (i64, bool)>;
const LAYOUT: Layout = Layout { event: 2, created_at: AFTER, expires_at: AFTER + 1 };

/// Reads letters by id, in their order.
pub(super) async fn read(store: &SqlStore, ids: &[LetterId]) -> Result<Vec<DeadLetter>, StoreError> {
    let mut letters = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(1_024) {
        let chunk: Vec<i64> = chunk.iter().map(|id| id.0).collect();
        let text = store.list_text("letters", chunk.len(), |dialect, n| {
            select(&format!("{} ORDER BY letter_id", dialect.any("letter_id", n)))
        });
        let mut args = Vec::new();
        bind_ids(store.dialect(), &mut args, &chunk);
        for row in store.janitor.query(&text, &args).await? {
            letters.push(letter(&row)?);
        }
    }
    Ok(letters)
}

/// Writes the read of letters for which a condition holds.
pub(crate) fn select(condition: &str) -> String {
    format!(
        "SELECT letter_id, event_id, {EVENT_COLUMNS}, created_at, expires_at, route, reason, attempts, errors, \
         CASE WHEN parks THEN 1 ELSE 0 END, dead_at, previous_id, fate, fate_at, fate_by, fate_why, partition_no \
         FROM {{letters}} WHERE {condition}"
    )
}

/// Writes letters that bring their events along, unless they are there already; gives the ids of all.
pub(super) async fn write(store: &SqlStore, letters: &[CarriedLetter]) -> Result<Vec<LetterId>, StoreError> {
    let mut tx = store.settler.begin().await?;
    let written = write_in(store, &mut tx, letters).await;
    tx.end(written).await
}

async fn write_in(store: &SqlStore, tx: &mut Tx<'_>, letters: &[CarriedLetter]) -> Result<Vec<LetterId>, StoreError> {
    let mut written = Vec::with_capacity(letters.len());
    for chunk in letters.chunks(CHUNK) {
        let mut ids: Vec<i64> = chunk.iter().map(|carried| carried.id.0).collect();
        ids.sort_unstable();
        ids.dedup();
        // A write whose answer was lost is made again. A letter that was decided about is one of an earlier life.
        let before = last_letters(store, tx, &ids).await?;
        let is_new = |of: &_| !matches!(before.get(of), Some((_, true)));
        let new: BTreeMap<_, _> = chunk.iter().map(|c| (of(c), c)).filter(|(of, _)| is_new(of)).collect();
        if new.is_empty() {
            written.extend(chunk.iter().filter_map(|c| before.get(&of(c))).map(|(id, _)| LetterId(*id)));
            continue;
        }
        let texts: Vec<(String, String)> =
            new.values().map(|c| (c.message.headers.to_json(), serde_json::json!(c.errors).to_string())).collect();
        let mut args = Vec::with_capacity(new.len() * 20);
        for ((of, carried), (headers, errors)) in new.iter().zip(&texts) {
            let m = &carried.message;
            args.extend([
                Arg::Small(stored(carried.partition)),
                Arg::int(carried.id.0),
                Arg::Uuid(*m.id.as_uuid()),
                Arg::Text(Some(&m.source)),
                Arg::Text(Some(&m.topic)),
                Arg::Text(Some(&m.event_type)),
                Arg::int(m.event_version.into()),
                Arg::Text(m.aggregate_type.as_deref()),
                Arg::Text(m.key.as_deref()),
                Arg::Text(Some(&m.content_type)),
                Arg::Bytes(&m.payload),
                Arg::Text(Some(headers)),
                Arg::int(m.created_at.as_micros()),
                Arg::Int(m.expires_at.map(Timestamp::as_micros)),
                Arg::Text(Some(&carried.letter.route)),
                Arg::Text(Some(carried.letter.reason.as_str())),
                Arg::int(i64::try_from(carried.errors.len()).unwrap_or(1)),
                Arg::Text(Some(errors)),
                Arg::Flag(carried.letter.parks),
                Arg::Int(before.get(of).map(|(id, _)| *id)),
            ]);
        }
        let text = store.text("carried letters", new.len(), || {
            let row = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {now}, ?)";
            format!(
                "INSERT INTO {{letters}} (partition_no, event_id, {EVENT_COLUMNS}, created_at, expires_at, route, reason, \
                 attempts, errors, parks, dead_at, previous_id) VALUES {}",
                vec![row; new.len()].join(", ")
            )
        });
        tx.execute(&text, &args).await?;
        let after = last_letters(store, tx, &ids).await?;
        written.extend(chunk.iter().filter_map(|c| after.get(&of(c))).map(|(id, _)| LetterId(*id)));
    }
    Ok(written)
}

/// The event and the route that a letter is of.
fn of(carried: &CarriedLetter) -> (i64, String) {
    (carried.id.0, carried.letter.route.to_string())
}

/// Reads the last letter of each route of the events.
pub(super) async fn last_letters(store: &SqlStore, tx: &mut Tx<'_>, ids: &[i64]) -> Result<LastLetters, StoreError> {
    let mut args = Vec::new();
    bind_ids(store.dialect(), &mut args, ids);
    let text = store.list_text("letters of", ids.len(), Dialect::letters_of);
    let rows = tx.query(&text, &args).await?;
    let letter = |row: &QueryResult| {
        let open: i32 = column(row, 3)?;
        Ok(((column(row, 1)?, column(row, 2)?), (column(row, 0)?, open != 0)))
    };
    rows.iter().map(letter).collect()
}

/// Reads a row of [`select`].
pub(crate) fn letter(row: &QueryResult) -> Result<DeadLetter, StoreError> {
    let partition: i16 = column(row, AFTER + 13)?;
    let event_id = EventId(column::<i64>(row, 1)?.abs());
    let mut route: String = column(row, AFTER + 2)?;
    let received = (partition == RECEIVED).then(|| {
        let origin = std::mem::take(&mut route);
        let (consumer, handler) = origin.split_once('/').unwrap_or((&origin, ""));
        ReceivedBy { consumer: consumer.to_owned(), handler: handler.to_owned() }
    });
    let reason: String = column(row, AFTER + 3)?;
    let reason: DeadReason =
        reason.parse().map_err(|()| StoreError::Mismatch(format!("no reason of a dead letter: {reason}")))?;
    let fate = match column::<Option<String>>(row, AFTER + 9)? {
        None => None,
        Some(what) => Some(Fate {
            what,
            at: Timestamp::from_micros(column(row, AFTER + 10)?),
            by: column::<Option<String>>(row, AFTER + 11)?.unwrap_or_default(),
            why: column::<Option<String>>(row, AFTER + 12)?.unwrap_or_default(),
        }),
    };
    Ok(DeadLetter::new(
        LetterId(column(row, 0)?),
        event_id,
        decode::message(row, event_id, &LAYOUT).ok().map(decode::unplaced),
        route,
        reason,
        count(column(row, AFTER + 4)?),
        history(&column::<String>(row, AFTER + 5)?),
        column::<i32>(row, AFTER + 6)? != 0,
        Timestamp::from_micros(column(row, AFTER + 7)?),
        fate,
        column::<Option<i64>>(row, AFTER + 8)?.map(LetterId),
    )
    .received_by(received))
}
