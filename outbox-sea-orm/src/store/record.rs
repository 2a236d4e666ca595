//! Writing down what is to be remembered, burying what is dead, and finishing what is final on all its routes.

use super::{
    Retention, SqlStore,
    decode::count,
    letters::last_letters,
    settler::{column, in_partition},
};
use crate::{
    cut::{STATEMENT_BYTES, stretches},
    dialect::Dialect,
    pool::{Arg, Tx},
    schema::{micros, stored},
};
use outbox_core::{
    event::{EventId, LetterId},
    outbox::{Fence, NewLetter, PartitionNo, RouteRow, Settled, StoreError, Verdict},
};
use sea_orm::QueryResult;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// Rows that are remembered in one INSERT of eleven parameters each.
const CHUNK: usize = 50;
/// Bytes of a row beside its errors: route and key have 255 characters at most.
const ROW: usize = 2_048;

/// Records verdicts of partitions that are held; repeating it changes nothing.
pub(super) async fn record(
    store: &SqlStore,
    tx: &mut Tx<'_>,
    fence: &Fence,
    verdicts: &[Verdict],
) -> Result<Settled, StoreError> {
    let held = store.hold(tx, fence).await?;
    let mut settled = Settled { held: held.partitions.clone(), ..Settled::default() };
    let mut by_partition: BTreeMap<PartitionNo, Vec<&Verdict>> = BTreeMap::new();
    for verdict in verdicts.iter().filter(|v| held.has(v.partition)) {
        by_partition.entry(verdict.partition).or_default().push(verdict);
    }
    for (partition, verdicts) in by_partition {
        for verdicts in verdicts.chunks(store.delete_chunk()) {
            let mut work = Work { store, tx, partition, now: held.now };
            work.record(verdicts, &mut settled).await?;
        }
    }
    Ok(settled)
}

/// The verdicts of one partition.
struct Work<'a, 't> {
    store: &'a SqlStore,
    tx: &'a mut Tx<'t>,
    partition: PartitionNo,
    now: i64,
}

impl Work<'_, '_> {
    async fn record(
        &mut self,
        verdicts: &[&Verdict],
        settled: &mut Settled,
    ) -> Result<(), StoreError> {
        let mut ids: Vec<i64> = verdicts.iter().map(|v| v.id.0).collect();
        ids.sort_unstable();
        ids.dedup();
        // An event that is gone was finished by this very record, whose answer was lost.
        let keys: HashMap<i64, Option<String>> = self.keys(&ids).await?;
        let void = self.redriven_since(verdicts, &ids).await?;
        let verdicts: Vec<&Verdict> =
            verdicts.iter().copied().filter(|v| !void.contains(&v.id.0)).collect();
        self.remember(&verdicts, &keys).await?;
        self.bury(&verdicts, &ids, &keys, settled).await?;
        settled.deleted += self.finish(&ids).await?;
        Ok(())
    }

    /// Reads which events are there, with their keys.
    async fn keys(&mut self, ids: &[i64]) -> Result<HashMap<i64, Option<String>>, StoreError> {
        let rows = self.query("present", ids, Dialect::present).await?;
        // A key that does not decode belongs to an event that does not either, and waits for nobody.
        rows.iter().map(|row| Ok((column(row, 0)?, column(row, 1).unwrap_or_default()))).collect()
    }

    /// Gives the events whose letters an operator has redriven already: their record is made again, since its answer was lost,
    /// and made once more it would undo the redrive.
    async fn redriven_since(
        &mut self,
        verdicts: &[&Verdict],
        ids: &[i64],
    ) -> Result<HashSet<i64>, StoreError> {
        if verdicts.iter().all(|v| v.letters.is_empty()) {
            return Ok(HashSet::new());
        }
        let mut redriven: HashMap<(i64, String), u32> = HashMap::new();
        for row in self.query("redriven", ids, Dialect::redriven).await? {
            redriven.insert((column(&row, 0)?, column(&row, 1)?), count(column(&row, 2)?));
        }
        let is_void = |verdict: &&&Verdict| {
            verdict.letters.iter().any(|letter| {
                let row = verdict.rows.iter().find(|row| row.route == letter.route);
                let stored = redriven.get(&(verdict.id.0, letter.route.to_string()));
                row.zip(stored).is_some_and(|(row, failed)| is_redriven_since(row, *failed))
            })
        };
        Ok(verdicts.iter().filter(is_void).map(|verdict| verdict.id.0).collect())
    }

    async fn remember(
        &mut self,
        verdicts: &[&Verdict],
        keys: &HashMap<i64, Option<String>>,
    ) -> Result<(), StoreError> {
        // One row a route, the last one said: a statement cannot write the same row twice.
        let mut last: BTreeMap<(i64, &str), &RouteRow> = BTreeMap::new();
        for verdict in verdicts.iter().filter(|v| keys.contains_key(&v.id.0)) {
            last.extend(verdict.rows.iter().map(|row| ((verdict.id.0, &*row.route), row)));
        }
        let histories: Vec<_> =
            last.into_iter().map(|(of, row)| (of, row, history(row, self.now))).collect();
        for chunk in
            stretches(&histories, CHUNK, STATEMENT_BYTES, |(_, _, errors)| errors.len() + ROW)
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
            let text = self
                .store
                .text("remember", chunk.len(), || self.store.dialect().remember(chunk.len()));
            self.tx.execute(&text, &args).await?;
        }
        Ok(())
    }

    async fn bury(
        &mut self,
        verdicts: &[&Verdict],
        ids: &[i64],
        keys: &HashMap<i64, Option<String>>,
        settled: &mut Settled,
    ) -> Result<(), StoreError> {
        if verdicts.iter().all(|v| v.letters.is_empty()) {
            return Ok(());
        }
        let mut last = last_letters(self.store, self.tx, ids).await?;
        for verdict in verdicts {
            for letter in &verdict.letters {
                let of = (verdict.id.0, letter.route.to_string());
                let id = match last.get(&of) {
                    // It was written by this very record, whose answer was lost.
                    Some((id, true)) => Some(*id),
                    decided if keys.contains_key(&verdict.id.0) => {
                        let previous = decided.map(|(id, _)| *id);
                        self.write(verdict.id, letter, previous).await?
                    }
                    _ => None,
                };
                if let Some(id) = id {
                    last.insert(of, (id, true));
                    settled.letters.push((verdict.id, Arc::clone(&letter.route), LetterId(id)));
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
        let text = self.store.text("bury", 1, || dialect.bury());
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
            None => self.tx.query(&text, &args).await?,
            Some(ask) => {
                if self.tx.execute(&text, &args).await? == 0 {
                    return Ok(None);
                }
                self.tx.query(&self.store.text("last id", 1, || ask.to_owned()), &[]).await?
            }
        };
        rows.first().map(|row| column(row, 0)).transpose()
    }

    /// Deletes the events of which nothing waits, with what is remembered of them.
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
            // What no route confirmed is in the letters, and was not done.
            let done: Vec<i64> =
                finished.iter().filter(|(_, done)| *done).map(|(id, _)| *id).collect();
            if !done.is_empty() {
                self.execute("keep", &done, Dialect::keep_of_partition).await?;
            }
        }
        let ids: Vec<i64> = finished.into_iter().map(|(id, _)| id).collect();
        let deleted = self.execute("delete", &ids, Dialect::delete_of_partition).await?;
        self.execute("forget", &ids, Dialect::forget).await?;
        Ok(deleted)
    }

    async fn query(
        &mut self,
        name: &'static str,
        ids: &[i64],
        write: fn(Dialect, usize) -> String,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let text = self.store.list_text(name, ids.len(), write);
        self.tx.query(&text, &in_partition(self.store.dialect(), self.partition, ids)).await
    }

    async fn execute(
        &mut self,
        name: &'static str,
        ids: &[i64],
        write: fn(Dialect, usize) -> String,
    ) -> Result<u64, StoreError> {
        let text = self.store.list_text(name, ids.len(), write);
        self.tx.execute(&text, &in_partition(self.store.dialect(), self.partition, ids)).await
    }
}

/// Tells whether a route that is to be dead by a record was redriven since that record was first made, where it waits as
/// redriven, with so many attempts failed: the record knows of no redrive, or of failures that are not there any more.
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
