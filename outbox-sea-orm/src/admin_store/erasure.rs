//! The erasure of what is stored under a key, in short transactions.

use super::{
    column,
    resolutions::{marks, values},
};
use crate::{
    OutboxTransaction,
    chunks::{RESULT_BYTES, chunks_by_size},
    error::database,
    outbox::Outbox,
    schema::{AuditCounts, AuditedAct, CLAIMABLE, letter_rows, letter_rows::id_and_size, stored},
};
use async_trait::async_trait;
use outbox_core::{
    admin::{AuditOutcome, Bounded, EraseStore, ErasurePlan, OperatorNote, TableErasure},
    event::{LetterId, MessageId},
    outbox::{StoreError, partition_of},
};
use sea_orm::{ConnectionTrait, Value};
use std::collections::BTreeSet;

/// Rows of one transaction, so that relays and producers go on.
const CHUNK: usize = 500;
/// Rows that one read walks over.
const WINDOW: u32 = 5_000;
/// Counting events that wait stops here.
const MOST: u64 = 10_000;

/// A table whose rows have a key that no index has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keyed {
    Archive,
    Scheduled,
    Letters,
    Deferred,
}

impl Keyed {
    const ALL: [Self; 4] = [Self::Archive, Self::Scheduled, Self::Letters, Self::Deferred];

    /// Gives the name without prefix, the mark, and the column of ids.
    const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Archive => ("outbox_archive", "{archive}", "event_id"),
            Self::Scheduled => ("outbox_scheduled", "{scheduled}", "scheduled_id"),
            Self::Letters => ("outbox_dead_letters", "{letters}", "letter_id"),
            Self::Deferred => ("outbox_deferred", "{deferred}", "stored_id"),
        }
    }

    const fn content(self) -> &'static [&'static str] {
        match self {
            Self::Archive | Self::Scheduled => &["payload", "headers"],
            Self::Letters | Self::Deferred => letter_rows::CONTENT,
        }
    }
}

/// Rows of a key in one window of ids.
struct Window {
    /// Their ids and bytes.
    rows: Vec<(i64, usize)>,
    /// The last id that the read has walked over.
    last: i64,
}

#[async_trait]
impl EraseStore for Outbox {
    async fn plan_erasure(&self, key: &str) -> Result<ErasurePlan, StoreError> {
        let mut tables = Vec::new();
        for keyed in Keyed::ALL {
            let (mut erased, mut after) = (0, i64::MIN);
            while let Some(window) = self.window(keyed, key, after).await? {
                erased += window.rows.len() as u64;
                after = window.last;
            }
            tables.push(self.table(keyed.names().0, erased, self.claimed(keyed, key).await?));
        }
        let (mut ended, mut running, mut after) = (0, 0, None);
        loop {
            let found = self.sagas_of(key, after).await?;
            let has_ended = found.sagas.iter().filter(|(_, has_ended)| *has_ended).count() as u64;
            ended += has_ended;
            running += found.sagas.len() as u64 - has_ended;
            after = found.last;
            if after.is_none() {
                break;
            }
        }
        tables.push(self.table("outbox_sagas", ended, exactly(running)));
        let sql = "SELECT count(*) FROM {responses} WHERE message_id IN \
                   (SELECT message_id FROM {dedup} WHERE dedup_key = ?)";
        let responses = self.count(sql, vec![Value::from(key)]).await?;
        tables.push(self.table("outbox_responses", responses, exactly(0)));
        tables.push(self.table("outbox_events", 0, self.waiting_events(key).await?));
        Ok(ErasurePlan { key: key.to_owned(), notes: notes(&tables), tables })
    }

    async fn erase(&self, key: &str, note: &OperatorNote) -> Result<Vec<TableErasure>, StoreError> {
        let target = format!("key {key:?}");
        let act = AuditedAct { act: "erase", target: &target, note, plan: None };
        let tx = self.begin_read_committed().await?;
        let (none, running) = (AuditCounts::default(), AuditOutcome::Running);
        let audit = self.schema().insert_audit(&tx, &act, none, running).await.map_err(database)?;
        tx.commit().await?;
        let erased = self.erase_tables(key, note, audit).await;
        let outcome = if erased.is_ok() { AuditOutcome::Done } else { AuditOutcome::Cancelled };
        let ended = self.schema().end_audit(&**self.work(), audit, outcome).await;
        let erased = erased?;
        ended.map_err(database)?;
        Ok(erased)
    }
}

impl Outbox {
    async fn erase_tables(
        &self,
        key: &str,
        note: &OperatorNote,
        audit: i64,
    ) -> Result<Vec<TableErasure>, StoreError> {
        let mut tables = Vec::new();
        for keyed in Keyed::ALL {
            let erased = self.erase_table(keyed, key, note, audit).await?;
            tables.push(self.table(keyed.names().0, erased, self.claimed(keyed, key).await?));
        }
        let (ended, left) = self.erase_sagas(key, audit).await?;
        tables.push(self.table("outbox_sagas", ended, exactly(left)));
        let responses = self.erase_response(key, audit).await?;
        tables.push(self.table("outbox_responses", responses, exactly(0)));
        tables.push(self.table("outbox_events", 0, self.waiting_events(key).await?));
        Ok(tables)
    }

    fn table(&self, name: &str, erased: u64, left: Bounded) -> TableErasure {
        TableErasure { table: self.schema().namespace().name(name), erased, left }
    }

    /// Reads the rows of a key that an erasure takes, in a window of ids after one; `None` where no
    /// row is behind it.
    async fn window(
        &self,
        keyed: Keyed,
        key: &str,
        after: i64,
    ) -> Result<Option<Window>, StoreError> {
        let schema = self.schema();
        let (_, table, id) = keyed.names();
        let sql = schema.filled(&format!(
            "SELECT max(w.id) FROM (SELECT {id} AS id FROM {table} WHERE {id} > ? ORDER BY {id} LIMIT {WINDOW}) w"
        ));
        let statement = schema.statement(&sql, vec![Value::from(after)]);
        let row = self.work().query_one_raw(statement).await.map_err(database)?;
        let last = row.map(|row| column::<Option<i64>>(&row, 0)).transpose()?.flatten();
        let Some(last) = last else { return Ok(None) };
        let bytes = schema.dialect().bytes_of(keyed.content());
        let takes = match keyed {
            Keyed::Archive | Keyed::Scheduled => "1 = 1".to_owned(),
            Keyed::Letters => format!(
                "(resolution IS NULL OR headers <> '{{}}' OR errors <> '[]' OR {} > 0)",
                schema.dialect().bytes_of(&["payload"])
            ),
            Keyed::Deferred => CLAIMABLE.to_owned(),
        };
        let sql = schema.filled(&format!(
            "SELECT {id}, {bytes} FROM {table} WHERE {id} > ? AND {id} <= ? AND message_key = ? AND {takes} \
             ORDER BY {id} LIMIT {CHUNK}"
        ));
        let bound = vec![Value::from(after), Value::from(last), Value::from(key)];
        let rows =
            self.work().query_all_raw(schema.statement(&sql, bound)).await.map_err(database)?;
        let rows: Vec<(i64, usize)> = rows.iter().map(id_and_size).collect::<Result<_, _>>()?;
        let last = match rows.last() {
            Some((id, _)) if rows.len() == CHUNK => *id,
            _ => last,
        };
        Ok(Some(Window { rows, last }))
    }

    /// Erases the rows of a key, each chunk in a transaction with the counts of the audit.
    async fn erase_table(
        &self,
        keyed: Keyed,
        key: &str,
        note: &OperatorNote,
        audit: i64,
    ) -> Result<u64, StoreError> {
        let (mut erased, mut after) = (0, i64::MIN);
        while let Some(window) = self.window(keyed, key, after).await? {
            for chunk in chunks_by_size(&window.rows, CHUNK, RESULT_BYTES, |(_, size)| *size) {
                let ids: Vec<i64> = chunk.iter().map(|(id, _)| *id).collect();
                let tx = self.begin_read_committed().await?;
                let done = match keyed {
                    Keyed::Letters => self.empty_letters(&tx, &ids, note).await?,
                    Keyed::Deferred => self.delete_deferred(&tx, &ids).await?,
                    Keyed::Archive | Keyed::Scheduled => self.delete_rows(&tx, keyed, &ids).await?,
                };
                self.count_erased(&tx, audit, done).await?;
                tx.commit().await?;
                erased += done as u64;
            }
            after = window.last;
        }
        Ok(erased)
    }

    async fn count_erased(
        &self,
        tx: &OutboxTransaction,
        audit: i64,
        done: usize,
    ) -> Result<(), StoreError> {
        let counts = AuditCounts::done(done);
        self.schema().count_in_audit(tx, audit, counts).await.map_err(database)
    }

    /// Discards open letters, and deletes the content of all.
    async fn empty_letters(
        &self,
        tx: &OutboxTransaction,
        ids: &[i64],
        note: &OperatorNote,
    ) -> Result<usize, StoreError> {
        let ids: Vec<LetterId> = ids.iter().copied().map(LetterId).collect();
        self.resolve(tx, &ids, "discarded", note).await?;
        self.delete_content(tx, &ids).await
    }

    /// Deletes deferred deliveries that no instance runs, and makes those due that waited behind
    /// them.
    async fn delete_deferred(
        &self,
        tx: &OutboxTransaction,
        ids: &[i64],
    ) -> Result<usize, StoreError> {
        let schema = self.schema();
        let letters: Vec<LetterId> = ids.iter().copied().map(LetterId).collect();
        let sql = schema.filled(&format!(
            "SELECT stored_id, consumer, handler, order_hash FROM {{deferred}} WHERE stored_id IN ({}) AND {CLAIMABLE} \
             ORDER BY stored_id{{for_update}}",
            marks(&letters)
        ));
        let statement = schema.statement(&sql, values(&letters).collect());
        let rows = tx.query_all_raw(statement).await.map_err(database)?;
        let (mut free, mut queues) = (Vec::new(), BTreeSet::new());
        for row in &rows {
            free.push(column::<i64>(row, 0)?);
            let queue: (String, String) = (column(row, 1)?, column(row, 2)?);
            queues.insert((queue, column::<Option<i64>>(row, 3)?));
        }
        let deleted = self.delete_rows(tx, Keyed::Deferred, &free).await?;
        for ((consumer, handler), order_hash) in queues {
            let released = schema.release_head(tx, &consumer, &handler, order_hash).await;
            released.map_err(database)?;
        }
        Ok(deleted)
    }

    async fn delete_rows(
        &self,
        tx: &OutboxTransaction,
        keyed: Keyed,
        ids: &[i64],
    ) -> Result<usize, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let (_, table, id) = keyed.names();
        let marks = vec!["?"; ids.len()].join(", ");
        let schema = self.schema();
        let sql = schema.filled(&format!("DELETE FROM {table} WHERE {id} IN ({marks})"));
        let bound = ids.iter().copied().map(Value::from).collect();
        let done = tx.execute_raw(schema.statement(&sql, bound)).await.map_err(database)?;
        Ok(usize::try_from(done.rows_affected()).unwrap_or(ids.len()))
    }

    /// Empties sagas that have ended, each in a transaction; gives how many, and how many are left.
    async fn erase_sagas(&self, key: &str, audit: i64) -> Result<(u64, u64), StoreError> {
        let (mut ended, mut left, mut after) = (0, 0, None);
        loop {
            let found = self.sagas_of(key, after).await?;
            for (saga, _) in found.sagas {
                let tx = self.begin_read_committed().await?;
                if self.redact_saga(&tx, saga).await? {
                    self.count_erased(&tx, audit, 1).await?;
                    ended += 1;
                } else {
                    left += 1;
                }
                tx.commit().await?;
            }
            after = found.last;
            if after.is_none() {
                return Ok((ended, left));
            }
        }
    }

    /// Deletes the response whose dedup key is the key; the dedup key stays, so that the work is not
    /// done again.
    async fn erase_response(&self, key: &str, audit: i64) -> Result<u64, StoreError> {
        let schema = self.schema();
        let sql = schema.filled(
            "DELETE FROM {responses} WHERE message_id IN (SELECT message_id FROM {dedup} WHERE dedup_key = ?)",
        );
        let tx = self.begin_read_committed().await?;
        let statement = schema.statement(&sql, vec![Value::from(key)]);
        let deleted = tx.execute_raw(statement).await.map_err(database)?.rows_affected();
        self.count_erased(&tx, audit, usize::try_from(deleted).unwrap_or(usize::MAX)).await?;
        tx.commit().await?;
        Ok(deleted)
    }

    /// Counts the rows of a key that an erasure leaves, as an instance runs them.
    async fn claimed(&self, keyed: Keyed, key: &str) -> Result<Bounded, StoreError> {
        if keyed != Keyed::Deferred {
            return Ok(exactly(0));
        }
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM {{deferred}} WHERE message_key = ? \
             AND claimed_until >= {{now}} LIMIT {}) c",
            MOST + 1
        );
        self.count(&sql, vec![Value::from(key)]).await.map(bounded)
    }

    /// Counts the events of a key that wait to be delivered: all are in one partition.
    async fn waiting_events(&self, key: &str) -> Result<Bounded, StoreError> {
        let partitions = self.schema().partitions();
        let place = partition_of(Some(key), MessageId::from_uuid(uuid::Uuid::nil()), partitions);
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM {{events}} WHERE partition_no = ? AND message_key = ? LIMIT {}) e",
            MOST + 1
        );
        let bound = vec![Value::SmallInt(Some(stored(place))), Value::from(key)];
        self.count(&sql, bound).await.map(bounded)
    }

    async fn count(&self, sql: &str, bound: Vec<Value>) -> Result<u64, StoreError> {
        let schema = self.schema();
        let statement = schema.statement(&schema.filled(sql), bound);
        let row = self.work().query_one_raw(statement).await.map_err(database)?;
        row.map_or(Ok(0), |row| column::<i64>(&row, 0).map(i64::unsigned_abs))
    }
}

/// Gives a count that is known.
fn exactly(count: u64) -> Bounded {
    Bounded { count, or_more: false }
}

/// Gives a count that stopped behind its limit.
fn bounded(count: u64) -> Bounded {
    Bounded { count: count.min(MOST), or_more: count > MOST }
}

/// Says what is left and until when, and what a key does not find.
fn notes(tables: &[TableErasure]) -> Vec<String> {
    let mut notes = Vec::new();
    for (suffix, text) in [
        (
            "outbox_events",
            "events still wait to be delivered, and are left: erase again after that.",
        ),
        (
            "outbox_deferred",
            "deferred deliveries are being run by an instance, and are left: erase again after that.",
        ),
        ("outbox_sagas", "sagas have not ended, and are left: erase again after that."),
    ] {
        let left =
            tables.iter().find(|table| table.table.ends_with(suffix)).map(|table| table.left);
        if let Some(left) = left.filter(|left| left.count > 0) {
            notes.push(format!("{left} {text}"));
        }
    }
    notes.extend(
        [
            "Open dead letters of the key are discarded, and the later events of the key, which wait, are delivered.",
            "The archive, scheduled events, dead letters, deferred deliveries and sagas are scanned in the order of \
             their ids: no index has the key.",
            "The key itself stays in dead letters, in the correlation ids of sagas, as a dedup key and in the audit \
             until their retention has passed.",
            "Replies in outbox_saga_barrier have no key: their retention deletes them.",
            "What was delivered is not here any more: the receivers erase it.",
        ]
        .map(str::to_owned),
    );
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_is_left() {
        let table = |name: &str, left| TableErasure { table: name.into(), erased: 1, left };
        let quiet = notes(&[
            table("shop_outbox_events", exactly(0)),
            table("shop_outbox_sagas", exactly(0)),
        ]);
        assert_eq!(quiet.len(), 5, "{quiet:?}");
        let busy = [
            table("shop_outbox_deferred", exactly(2)),
            table("shop_outbox_sagas", exactly(1)),
            table("shop_outbox_events", bounded(MOST + 1)),
        ];
        let said = notes(&busy);
        assert!(said[0].starts_with("10000+ events still wait"), "{said:?}");
        assert!(said[1].starts_with("2 deferred deliveries"), "{said:?}");
        assert!(said[2].starts_with("1 sagas have"), "{said:?}");
        assert_eq!(said[3..], quiet);
    }
}
