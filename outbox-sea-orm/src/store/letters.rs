//! Reads dead letters, and writes those that are detached from their events' rows.

use super::{SqlStore, bind::bind_ids, settler::in_partition};
use crate::{
    chunks::{RESULT_BYTES, STATEMENT_BYTES, chunks_by_size, fitting_count, message_size},
    dialect::{Dialect, EVENT_COLUMNS, ORIGIN_RELAY},
    pool::{Arg, Tx},
    schema::{
        decode::column,
        letter_rows::{id_and_size, letter, select, sizes},
        stored,
    },
};
use outbox_core::{
    event::{LetterId, Timestamp},
    failure::DeadLetter,
    outbox::{DetachedLetter, PartitionNo, StoreError},
};
use sea_orm::QueryResult;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Letters that are written in one INSERT of twenty parameters each.
const CHUNK: usize = 50;
/// Letters that are read at once.
const READ_CHUNK: usize = 1_024;
/// Bytes of the errors of a letter: ten of a little over 1 KiB.
const ERRORS: usize = 12_288;
/// The last letter of an event on a route: its id, and whether it is unresolved.
pub(super) type LastLetters = HashMap<(i64, String), (i64, bool)>;

/// Reads letters by id, in their order: the first one that exists, and as many more as a result
/// takes.
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
        let sql = store.list_sql("sizes of letters", chunk.len(), |dialect, n| {
            sizes(dialect, &format!("{} ORDER BY letter_id", dialect.any("letter_id", n)))
        });
        let there: Vec<(i64, usize)> = store
            .janitor
            .query(&sql, &args)
            .await?
            .iter()
            .map(id_and_size)
            .collect::<Result<_, _>>()?;
        let fits = fitting_count(there.iter().map(|(_, size)| *size), RESULT_BYTES);
        if fits == 0 {
            continue;
        }
        let chunk: Vec<i64> = there[..fits].iter().map(|(id, _)| *id).collect();
        let sql = store.list_sql("letters", chunk.len(), |dialect, n| {
            select(&format!("{} ORDER BY letter_id", dialect.any("letter_id", n)))
        });
        let mut args = Vec::new();
        bind_ids(store.dialect(), &mut args, &chunk);
        return store.janitor.query(&sql, &args).await?.iter().map(letter).collect();
    }
    Ok(Vec::new())
}

/// Writes letters with the content of their events, unless they exist already; gives the ids of
/// all. Each statement has a transaction of its own: a repeated write finds the letters that exist.
pub(super) async fn write(
    store: &SqlStore,
    letters: &[DetachedLetter],
) -> Result<Vec<LetterId>, StoreError> {
    let mut written = Vec::with_capacity(letters.len());
    let size = |detached: &DetachedLetter| message_size(&detached.message) + ERRORS;
    for chunk in chunks_by_size(letters, CHUNK, STATEMENT_BYTES, size) {
        let mut tx = store.settler.begin().await?;
        let ids = write_in(store, &mut tx, chunk).await;
        written.extend(tx.end(ids).await?);
    }
    Ok(written)
}

/// Writes the INSERT of `n` letters.
fn insert(n: usize) -> String {
    let row = format!(
        "({ORIGIN_RELAY}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {{now}}, ?)"
    );
    format!(
        "INSERT INTO {{letters}} (origin, partition_no, event_id, {EVENT_COLUMNS}, created_at, expires_at, route, reason, \
         attempts, errors, parks, dead_at, previous_id) VALUES {}",
        vec![row.as_str(); n].join(", ")
    )
}

async fn write_in(
    store: &SqlStore,
    tx: &mut Tx<'_>,
    chunk: &[DetachedLetter],
) -> Result<Vec<LetterId>, StoreError> {
    let mut written = Vec::with_capacity(chunk.len());
    let mut ids: Vec<i64> = chunk.iter().map(|detached| detached.id.0).collect();
    ids.sort_unstable();
    ids.dedup();
    // A write whose response was lost is repeated. A resolved letter belongs to an earlier failure
    // of the event.
    let before = last_letters(store, tx, &ids).await?;
    let void = redriven_since(store, tx, chunk, &before).await?;
    let chunk: Vec<&DetachedLetter> =
        chunk.iter().filter(|detached| !void.contains(&of(detached))).collect();
    let is_new = |of: &_| !matches!(before.get(of), Some((_, true)));
    let new: BTreeMap<_, _> =
        chunk.iter().map(|c| (of(c), *c)).filter(|(of, _)| is_new(of)).collect();
    if new.is_empty() {
        written
            .extend(chunk.iter().filter_map(|c| before.get(&of(c))).map(|(id, _)| LetterId(*id)));
        return Ok(written);
    }
    let encoded: Vec<(String, String)> = new
        .values()
        .map(|c| (c.message.headers.to_json(), serde_json::json!(c.errors).to_string()))
        .collect();
    let mut args = Vec::with_capacity(new.len() * 20);
    for ((of, detached), (headers, errors)) in new.iter().zip(&encoded) {
        let m = &detached.message;
        args.extend([
            Arg::Small(stored(detached.partition)),
            Arg::int(detached.id.0),
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
            Arg::Text(Some(&detached.letter.route)),
            Arg::Text(Some(detached.letter.reason.as_str())),
            Arg::int(i64::try_from(detached.errors.len()).unwrap_or(1)),
            Arg::Text(Some(errors)),
            Arg::Flag(detached.letter.parks),
            Arg::Int(before.get(of).map(|(id, _)| *id)),
        ]);
    }
    let sql = store.sql("detached letters", new.len(), || insert(new.len()));
    tx.execute(&sql, &args).await?;
    let after = last_letters(store, tx, &ids).await?;
    written.extend(chunk.iter().filter_map(|c| after.get(&of(c))).map(|(id, _)| LetterId(*id)));
    Ok(written)
}

/// Gives the letters that an operator has redriven already: their write is repeated, since its
/// response was lost. When a letter is written its event does not wait on that route, unless it was
/// redriven since.
async fn redriven_since(
    store: &SqlStore,
    tx: &mut Tx<'_>,
    chunk: &[DetachedLetter],
    before: &LastLetters,
) -> Result<HashSet<(i64, String)>, StoreError> {
    let mut resolved: BTreeMap<PartitionNo, Vec<i64>> = BTreeMap::new();
    for detached in
        chunk.iter().filter(|detached| matches!(before.get(&of(detached)), Some((_, false))))
    {
        resolved.entry(detached.partition).or_default().push(detached.id.0);
    }
    let mut void = HashSet::new();
    for (partition, ids) in resolved {
        let sql = store.list_sql("redriven", ids.len(), Dialect::redriven);
        for row in tx.query(&sql, &in_partition(store.dialect(), partition, &ids)).await? {
            void.insert((column(&row, 0)?, column(&row, 1)?));
        }
    }
    Ok(void)
}

/// The event and the route of a letter.
fn of(detached: &DetachedLetter) -> (i64, String) {
    (detached.id.0, detached.letter.route.to_string())
}

/// Reads the last letter of each route of the events.
pub(super) async fn last_letters(
    store: &SqlStore,
    tx: &mut Tx<'_>,
    ids: &[i64],
) -> Result<LastLetters, StoreError> {
    let mut args = Vec::new();
    bind_ids(store.dialect(), &mut args, ids);
    let sql = store.list_sql("letters of", ids.len(), Dialect::letters_of);
    let rows = tx.query(&sql, &args).await?;
    let letter = |row: &QueryResult| {
        let open: i32 = column(row, 3)?;
        Ok(((column(row, 1)?, column(row, 2)?), (column(row, 0)?, open != 0)))
    };
    rows.iter().map(letter).collect()
}
