//! Dead letters: reading them, and writing those that bring their events along.

use super::{
    SqlStore,
    bind::bind_ids,
    decode::{self, Layout, count, history},
    settler::{column, in_partition},
};
use crate::{
    cut::{ANSWER_BYTES, STATEMENT_BYTES, fitting, of_message, stretches},
    dialect::Dialect,
    pool::{Arg, Tx},
    schema::{EVENT_COLUMNS, stored},
};
use outbox_core::{
    event::{EventId, LetterId, Timestamp},
    failure::{DeadLetter, DeadReason, Fate, ReceivedBy},
    outbox::{CarriedLetter, PartitionNo, StoreError},
};
use sea_orm::QueryResult;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Places of the columns behind those of the event.
const AFTER: usize = 12;
/// In the place of a partition: the letter is a consumer's, its route `consumer/handler`, and its event the sender's.
pub(crate) const RECEIVED: i16 = -1;
/// Letters that are written in one INSERT of twenty parameters each.
const CHUNK: usize = 50;
/// Letters that are read at once.
const READ_CHUNK: usize = 1_024;
/// Bytes of the errors of a letter: ten of a little over 1 KiB.
const ERRORS: usize = 12_288;
/// The columns of a letter that take room.
pub(crate) const CONTENT: &[&str] = &["payload", "headers", "errors"];
/// A letter that was written for an event and a route: its id, and whether nothing was decided about it yet.
pub(super) type LastLetters = HashMap<(i64, String), (i64, bool)>;
const LAYOUT: Layout = Layout { event: 2, created_at: AFTER, expires_at: AFTER + 1 };

/// Reads letters by id, in their order: the first one that is there, and as many more as an answer takes.
pub(super) async fn read(
    store: &SqlStore,
    ids: &[LetterId],
) -> Result<Vec<DeadLetter>, StoreError> {
    let mut ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    ids.sort_unstable();
    ids.dedup();
    for chunk in ids.chunks(READ_CHUNK) {
        let mut args = Vec::new();
        bind_ids(store.dialect(), &mut args, chunk);
        let text = store.list_text("sizes of letters", chunk.len(), |dialect, n| {
            sizes(dialect, &format!("{} ORDER BY letter_id", dialect.any("letter_id", n)))
        });
        let there: Vec<(i64, usize)> = store
            .janitor
            .query(&text, &args)
            .await?
            .iter()
            .map(id_and_size)
            .collect::<Result<_, _>>()?;
        let fitting = fitting(there.iter().map(|(_, size)| *size), ANSWER_BYTES);
        if fitting == 0 {
            continue;
        }
        let chunk: Vec<i64> = there[..fitting].iter().map(|(id, _)| *id).collect();
        let text = store.list_text("letters", chunk.len(), |dialect, n| {
            select(&format!("{} ORDER BY letter_id", dialect.any("letter_id", n)))
        });
        let mut args = Vec::new();
        bind_ids(store.dialect(), &mut args, &chunk);
        return store.janitor.query(&text, &args).await?.iter().map(letter).collect();
    }
    Ok(Vec::new())
}

/// Writes the read of ids and bytes of letters for which a condition holds.
pub(crate) fn sizes(dialect: Dialect, condition: &str) -> String {
    format!("SELECT letter_id, {} FROM {{letters}} WHERE {condition}", dialect.bytes_of(CONTENT))
}

/// Reads a row of [`sizes`].
pub(crate) fn id_and_size(row: &QueryResult) -> Result<(i64, usize), StoreError> {
    Ok((column(row, 0)?, usize::try_from(column::<i64>(row, 1)?).unwrap_or(0)))
}

/// Writes the read of letters for which a condition holds.
pub(crate) fn select(condition: &str) -> String {
    format!(
        "SELECT letter_id, event_id, {EVENT_COLUMNS}, created_at, expires_at, route, reason, attempts, errors, \
         CASE WHEN parks THEN 1 ELSE 0 END, dead_at, previous_id, fate, fate_at, fate_by, fate_why, partition_no \
         FROM {{letters}} WHERE {condition}"
    )
}

/// Writes the read of letters for which a condition holds, with empty payloads.
pub(crate) fn select_without_payload(dialect: Dialect, condition: &str) -> String {
    select(condition).replacen("payload", dialect.no_bytes(), 1)
}

/// Writes letters that bring their events along, unless they are there already; gives the ids of all. What does not fit
/// in one statement is written in transactions of its own: a write that is made again finds what is there.
pub(super) async fn write(
    store: &SqlStore,
    letters: &[CarriedLetter],
) -> Result<Vec<LetterId>, StoreError> {
    let mut written = Vec::with_capacity(letters.len());
    let size = |carried: &CarriedLetter| of_message(&carried.message) + ERRORS;
    for chunk in stretches(letters, CHUNK, STATEMENT_BYTES, size) {
        let mut tx = store.settler.begin().await?;
        let ids = write_in(store, &mut tx, chunk).await;
        written.extend(tx.end(ids).await?);
    }
    Ok(written)
}

async fn write_in(
    store: &SqlStore,
    tx: &mut Tx<'_>,
    chunk: &[CarriedLetter],
) -> Result<Vec<LetterId>, StoreError> {
    let mut written = Vec::with_capacity(chunk.len());
    let mut ids: Vec<i64> = chunk.iter().map(|carried| carried.id.0).collect();
    ids.sort_unstable();
    ids.dedup();
    // A write whose answer was lost is made again. A letter that was decided about is one of an earlier life.
    let before = last_letters(store, tx, &ids).await?;
    let void = redriven_since(store, tx, chunk, &before).await?;
    let chunk: Vec<&CarriedLetter> =
        chunk.iter().filter(|carried| !void.contains(&of(carried))).collect();
    let is_new = |of: &_| !matches!(before.get(of), Some((_, true)));
    let new: BTreeMap<_, _> =
        chunk.iter().map(|c| (of(c), *c)).filter(|(of, _)| is_new(of)).collect();
    if new.is_empty() {
        written
            .extend(chunk.iter().filter_map(|c| before.get(&of(c))).map(|(id, _)| LetterId(*id)));
        return Ok(written);
    }
    let texts: Vec<(String, String)> = new
        .values()
        .map(|c| (c.message.headers.to_json(), serde_json::json!(c.errors).to_string()))
        .collect();
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
    Ok(written)
}

/// Gives the letters that an operator has redriven already: their write is made again, since its answer was lost. When a
/// letter is written its event does not wait on that route, unless it was redriven since.
async fn redriven_since(
    store: &SqlStore,
    tx: &mut Tx<'_>,
    chunk: &[CarriedLetter],
    before: &LastLetters,
) -> Result<HashSet<(i64, String)>, StoreError> {
    let mut decided: BTreeMap<PartitionNo, Vec<i64>> = BTreeMap::new();
    for carried in
        chunk.iter().filter(|carried| matches!(before.get(&of(carried)), Some((_, false))))
    {
        decided.entry(carried.partition).or_default().push(carried.id.0);
    }
    let mut void = HashSet::new();
    for (partition, ids) in decided {
        let text = store.list_text("redriven", ids.len(), Dialect::redriven);
        for row in tx.query(&text, &in_partition(store.dialect(), partition, &ids)).await? {
            void.insert((column(&row, 0)?, column(&row, 1)?));
        }
    }
    Ok(void)
}

/// The event and the route that a letter is of.
fn of(carried: &CarriedLetter) -> (i64, String) {
    (carried.id.0, carried.letter.route.to_string())
}

/// Reads the last letter of each route of the events.
pub(super) async fn last_letters(
    store: &SqlStore,
    tx: &mut Tx<'_>,
    ids: &[i64],
) -> Result<LastLetters, StoreError> {
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
    let reason: DeadReason = reason
        .parse()
        .map_err(|()| StoreError::Mismatch(format!("no reason of a dead letter: {reason}")))?;
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
