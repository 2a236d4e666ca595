//! Records the state of routes, writes dead letters, and finishes events that are final on all
//! their routes.

use super::{Retention, SqlStore, letters::last_letters, settler::in_partition};
use crate::{
    chunks::{STATEMENT_BYTES, chunks_by_size},
    dialect::Dialect,
    pool::{Arg, Tx},
    schema::{
        decode::{column, count},
        micros, stored,
    },
};
use outbox_core::{
    event::{EventId, LetterId},
    outbox::{Fence, NewLetter, PartitionNo, RouteRow, RouteUpdate, Settled, StoreError},
};
use sea_orm::QueryResult;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// Route rows of one INSERT, of eleven parameters each.
const CHUNK: usize = 50;
/// Bytes of a row beside its errors: route and key have 255 characters at most.
const ROW: usize = 2_048;

/// Records updates of partitions that the relay holds; repeating it changes nothing.
pub(super) async fn record(
    store: &SqlStore,
    tx: &mut Tx<'_>,
    fence: &Fence,
    updates: &[RouteUpdate],
) -> Result<Settled, StoreError> {
    let held = store.lock_partitions(tx, fence).await?;
    let mut settled = Settled { held: held.partitions.clone(), ..Settled::default() };
    let mut by_partition: BTreeMap<PartitionNo, Vec<&RouteUpdate>> = BTreeMap::new();
    for update in updates.iter().filter(|v| held.has(v.partition)) {
        by_partition.entry(update.partition).or_default().push(update);
    }
    for (partition, updates) in by_partition {
        for updates in updates.chunks(store.dialect().delete_chunk()) {
            let mut recorder = PartitionRecorder { store, tx, partition, now: held.now };
            recorder.record(updates, &mut settled).await?;
        }
    }
    Ok(settled)
}

/// Records the updates of one partition.
struct PartitionRecorder<'a, 't> {
    store: &'a SqlStore,
    tx: &'a mut Tx<'t>,
    partition: PartitionNo,
    now: i64,
}

impl PartitionRecorder<'_, '_> {
    async fn record(
        &mut self,
        updates: &[&RouteUpdate],
        settled: &mut Settled,
    ) -> Result<(), StoreError> {
        let mut ids: Vec<i64> = updates.iter().map(|v| v.id.0).collect();
        ids.sort_unstable();
        ids.dedup();
        // A missing event was finished by this very record, whose response was lost.
        let keys: HashMap<i64, Option<String>> = self.keys(&ids).await?;
        // Before the rows are written, which would show the redriven route as dead again: a record
        // that was made once more undid a redrive, and one failure had two letters.
        let void = self.redriven_since(updates, &ids).await?;
        let updates: Vec<&RouteUpdate> =
            updates.iter().copied().filter(|v| !void.contains(&v.id.0)).collect();
        // In this order: a letter takes its attempts and errors from the route's row and its
        // content from the event's row, and `finish` deletes both.
        self.upsert_route_rows(&updates, &keys).await?;
        self.write_letters(&updates, &ids, &keys, settled).await?;
        settled.deleted += self.finish(&ids).await?;
        Ok(())
    }

    /// Reads which events are there, with their keys.
    async fn keys(&mut self, ids: &[i64]) -> Result<HashMap<i64, Option<String>>, StoreError> {
        let rows = self.query("present", ids, Dialect::present).await?;
        // A key that does not decode belongs to an event that does not decode either, behind which
        // no event waits.
        rows.iter().map(|row| Ok((column(row, 0)?, column(row, 1).unwrap_or_default()))).collect()
    }

    /// Gives the events whose letters an operator has redriven already: their record is repeated,
    /// since its response was lost, and would undo the redrive.
    async fn redriven_since(
        &mut self,
        updates: &[&RouteUpdate],
        ids: &[i64],
    ) -> Result<HashSet<i64>, StoreError> {
        if updates.iter().all(|v| v.letters.is_empty()) {
            return Ok(HashSet::new());
        }
        let mut redriven: HashMap<(i64, String), u32> = HashMap::new();
        for row in self.query("redriven", ids, Dialect::redriven).await? {
            redriven.insert((column(&row, 0)?, column(&row, 1)?), count(column(&row, 2)?));
        }
        let is_void = |update: &&&RouteUpdate| {
            update.letters.iter().any(|letter| {
                let row = update.rows.iter().find(|row| row.route == letter.route);
                let stored = redriven.get(&(update.id.0, letter.route.to_string()));
                row.zip(stored).is_some_and(|(row, failed)| is_redriven_since(row, *failed))
            })
        };
        Ok(updates.iter().filter(is_void).map(|update| update.id.0).collect())
    }

    async fn upsert_route_rows(
        &mut self,
        updates: &[&RouteUpdate],
        keys: &HashMap<i64, Option<String>>,
    ) -> Result<(), StoreError> {
        // One row a route, the last one: a statement cannot write the same row twice.
        let mut last: BTreeMap<(i64, &str), &RouteRow> = BTreeMap::new();
        for update in updates.iter().filter(|v| keys.contains_key(&v.id.0)) {
            last.extend(update.rows.iter().map(|row| ((update.id.0, &*row.route), row)));
        }
        let histories: Vec<_> =
            last.into_iter().map(|(of, row)| (of, row, history(row, self.now))).collect();
        for chunk in
            chunks_by_size(&histories, CHUNK, STATEMENT_BYTES, |(_, _, errors)| errors.len() + ROW)
        {
            let mut args = Vec::with_capacity(chunk.len() * 11);
            for ((id, route), row, errors) in chunk {
                args.extend([
                    Arg::Small(stored(self.partition)),
                    Arg::int(*id),
                    Arg::Text(Some(route)),
                    Arg::Text(keys.get(id).and_then(|key| key.as_deref())),
                    Arg::Text(Some(row.state.as_str())),
                    Arg::int(row.attempts_started.into()),
                    Arg::int(row.attempts_finished.into()),
                    Arg::Int(row.due_in.map(micros)),
                    Arg::int(micros(row.failing_for)),
                    Arg::Text(Some(errors)),
                    Arg::Flag(row.redriven),
                ]);
            }
            let sql = self.store.sql("upsert route rows", chunk.len(), || {
                self.store.dialect().upsert_route_rows(chunk.len())
            });
            self.tx.execute(&sql, &args).await?;
        }
        Ok(())
    }

    async fn write_letters(
        &mut self,
        updates: &[&RouteUpdate],
        ids: &[i64],
        keys: &HashMap<i64, Option<String>>,
        settled: &mut Settled,
    ) -> Result<(), StoreError> {
        if updates.iter().all(|v| v.letters.is_empty()) {
            return Ok(());
        }
        let mut last = last_letters(self.store, self.tx, ids).await?;
        for update in updates {
            for letter in &update.letters {
                let of = (update.id.0, letter.route.to_string());
                let id = match last.get(&of) {
                    // This very record wrote it, and its response was lost.
                    Some((id, true)) => Some(*id),
                    resolved if keys.contains_key(&update.id.0) => {
                        let previous = resolved.map(|(id, _)| *id);
                        self.write(update.id, letter, previous).await?
                    }
                    _ => None,
                };
                if let Some(id) = id {
                    last.insert(of, (id, true));
                    settled.letters.push((update.id, Arc::clone(&letter.route), LetterId(id)));
                }
            }
        }
        Ok(())
    }

    async fn write(
        &mut self,
        event: EventId,
        letter: &NewLetter,
        previous: Option<i64>,
    ) -> Result<Option<i64>, StoreError> {
        let dialect = self.store.dialect();
        let sql = self.store.sql("insert letter", 1, || dialect.insert_letter());
        let args = [
            Arg::Text(Some(&letter.route)),
            Arg::Text(Some(letter.reason.as_str())),
            Arg::Flag(letter.parks),
            Arg::Int(previous),
            Arg::Text(Some(&letter.route)),
            Arg::Small(stored(self.partition)),
            Arg::int(event.0),
        ];
        let rows = match dialect.last_id() {
            None => self.tx.query(&sql, &args).await?,
            Some(last_id) => {
                if self.tx.execute(&sql, &args).await? == 0 {
                    return Ok(None);
                }
                self.tx.query(&self.store.sql("last id", 1, || last_id.to_owned()), &[]).await?
            }
        };
        rows.first().map(|row| column(row, 0)).transpose()
    }

    /// Deletes the events that wait on no route, with their route rows.
    async fn finish(&mut self, ids: &[i64]) -> Result<u64, StoreError> {
        let rows = self.query("finished", ids, Dialect::finished).await?;
        let finished: Vec<(i64, bool)> = rows
            .iter()
            .map(|row| Ok((column(row, 0)?, column::<i32>(row, 1)? != 0)))
            .collect::<Result<_, StoreError>>()?;
        if finished.is_empty() {
            return Ok(0);
        }
        if self.store.options.retention != Retention::Delete {
            // An event that no route confirmed is in the dead letters, and does not count as
            // delivered.
            let confirmed: Vec<i64> =
                finished.iter().filter(|(_, confirmed)| *confirmed).map(|(id, _)| *id).collect();
            if !confirmed.is_empty() {
                self.execute("archive", &confirmed, Dialect::archive_of_partition).await?;
            }
        }
        let ids: Vec<i64> = finished.into_iter().map(|(id, _)| id).collect();
        let deleted = self.execute("delete", &ids, Dialect::delete_of_partition).await?;
        self.execute("delete route rows", &ids, Dialect::delete_route_rows).await?;
        Ok(deleted)
    }

    async fn query(
        &mut self,
        name: &'static str,
        ids: &[i64],
        write: fn(Dialect, usize) -> String,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let sql = self.store.list_sql(name, ids.len(), write);
        self.tx.query(&sql, &in_partition(self.store.dialect(), self.partition, ids)).await
    }

    async fn execute(
        &mut self,
        name: &'static str,
        ids: &[i64],
        write: fn(Dialect, usize) -> String,
    ) -> Result<u64, StoreError> {
        let sql = self.store.list_sql(name, ids.len(), write);
        self.tx.execute(&sql, &in_partition(self.store.dialect(), self.partition, ids)).await
    }
}

/// Tells whether a route that a record marks as dead was redriven since that record was first made,
/// where the stored row waits as redriven with so many failed attempts: the record has no redrive,
/// or more failures than the stored row.
fn is_redriven_since(row: &RouteRow, failed: u32) -> bool {
    !row.redriven || failed.saturating_add(1) < row.attempts_finished
}

/// Writes a history of errors; those that are new get the database's time.
fn history(row: &RouteRow, now: i64) -> String {
    let mut errors = row.errors.clone();
    for error in errors.iter_mut().filter(|e| e.at == 0) {
        error.at = now;
    }
    serde_json::json!(errors).to_string()
}
