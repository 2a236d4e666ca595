//! The erasure of what is stored under a key, in short transactions.
//!
//! Rows move while it walks: a scheduled event comes due, an event is archived or given up, a
//! deferred delivery is given up. It takes the tables from which rows move before those to which
//! they do, and counts what is in use before these: so a row is found in one of them, or told.

mod keys;
mod walk;
mod notes;

use super::{
    column,
    resolutions::{marks, values},
};
use crate::{
    OutboxTransaction,
    chunks::{RESULT_BYTES, chunks_by_size},
    error::database,
    outbox::Outbox,
    schema::{AuditCounts, AuditedAct, CLAIMABLE},
};
use async_trait::async_trait;
use keys::Keys;
use notes::notes;
use outbox_core::{
    admin::{AuditOutcome, Bounded, EraseStore, ErasurePlan, OperatorNote, TableErasure},
    event::LetterId,
    outbox::StoreError,
};
use sea_orm::{ConnectionTrait, Value};
use std::collections::BTreeSet;
use walk::{CHUNK, Keyed, Window, exactly};

/// What is done with the rows of the keys.
#[derive(Clone, Copy)]
enum Purpose<'p> {
    Plan,
    Erase {
        note: &'p OperatorNote,
        /// The row of the audit.
        audit: i64,
    },
}

#[async_trait]
impl EraseStore for Outbox {
    async fn plan_erasure(&self, key: &str) -> Result<ErasurePlan, StoreError> {
        let keys = self.keys_of(key).await?;
        let tables = self.walk(&keys, Purpose::Plan).await?;
        Ok(ErasurePlan { notes: notes(&tables, &keys), key: keys.own, tables })
    }

    async fn erase(&self, key: &str, note: &OperatorNote) -> Result<Vec<TableErasure>, StoreError> {
        let target = format!("key {key:?}");
        let act = AuditedAct { act: "erase", target: &target, note, plan: None };
        let tx = self.begin_read_committed().await?;
        let (none, running) = (AuditCounts::default(), AuditOutcome::Running);
        let audit = self.schema().insert_audit(&tx, &act, none, running).await.map_err(database)?;
        tx.commit().await?;
        let erased = async {
            let keys = self.keys_of(key).await?;
            self.walk(&keys, Purpose::Erase { note, audit }).await
        };
        let erased = erased.await;
        let outcome = if erased.is_ok() { AuditOutcome::Done } else { AuditOutcome::Cancelled };
        let ended = self.schema().end_audit(&**self.work(), audit, outcome).await;
        let erased = erased?;
        ended.map_err(database)?;
        Ok(erased)
    }
}

impl Outbox {
    /// Walks through all tables, those first from which rows move into others.
    async fn walk(
        &self,
        keys: &Keys,
        purpose: Purpose<'_>,
    ) -> Result<Vec<TableErasure>, StoreError> {
        let scheduled = self.walk_table(Keyed::Scheduled, keys, purpose).await?;
        // Before the letters and the archive: of these an event may come to the part that is walked
        // already.
        let waiting = self.waiting_events(keys).await?;
        let deferred = self.walk_table(Keyed::Deferred, keys, purpose).await?;
        // Before the letters: a delivery that is given up may do so too.
        let left = self.left_deferred(keys, purpose).await?;
        let letters = self.walk_table(Keyed::Letters, keys, purpose).await?;
        let archive = self.walk_table(Keyed::Archive, keys, purpose).await?;
        let (ended, running) = match purpose {
            Purpose::Plan => (keys.ended.len() as u64, keys.running),
            Purpose::Erase { audit, .. } => self.erase_sagas(keys, audit).await?,
        };
        let responses = match purpose {
            Purpose::Plan => self.responses(&keys.own).await?,
            Purpose::Erase { audit, .. } => self.erase_response(&keys.own, audit).await?,
        };
        let named = |keyed: Keyed| keyed.names().0;
        Ok(vec![
            self.table(named(Keyed::Scheduled), scheduled, exactly(0)),
            self.table(named(Keyed::Deferred), deferred, left),
            self.table(named(Keyed::Letters), letters, exactly(0)),
            self.table(named(Keyed::Archive), archive, exactly(0)),
            self.table("outbox_sagas", ended, exactly(running)),
            self.table("outbox_responses", responses, exactly(0)),
            self.table("outbox_events", 0, waiting),
        ])
    }

    fn table(&self, name: &str, erased: u64, left: Bounded) -> TableErasure {
        TableErasure { table: self.schema().namespace().name(name), erased, left }
    }

    /// Walks through a table; gives how many rows it has counted or erased.
    async fn walk_table(
        &self,
        keyed: Keyed,
        keys: &Keys,
        purpose: Purpose<'_>,
    ) -> Result<u64, StoreError> {
        let mut rows = 0;
        for keys in keys.chunks() {
            let mut after = i64::MIN;
            while let Some(window) = self.window(keyed, keys, after).await? {
                rows += match purpose {
                    Purpose::Plan => window.rows.len() as u64,
                    Purpose::Erase { note, audit } => {
                        self.erase_window(keyed, &window, note, audit).await?
                    }
                };
                after = window.last;
            }
        }
        Ok(rows)
    }

    /// Erases rows, each chunk in a transaction with the counts of the audit.
    async fn erase_window(
        &self,
        keyed: Keyed,
        window: &Window,
        note: &OperatorNote,
        audit: i64,
    ) -> Result<u64, StoreError> {
        let mut erased = 0;
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

    /// Empties the sagas that had ended when their replies were looked for, each in a transaction;
    /// gives how many, and how many are left. One that has ended since is left, for its replies
    /// are.
    async fn erase_sagas(&self, keys: &Keys, audit: i64) -> Result<(u64, u64), StoreError> {
        let (mut ended, mut left, mut after) = (0, 0, None);
        loop {
            let found = self.sagas_of(&keys.own, after).await?;
            for (saga, _) in found.sagas {
                let tx = self.begin_read_committed().await?;
                if keys.ended.contains(&saga) && self.redact_saga(&tx, saga).await? {
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

    /// Counts the response whose dedup key is the key.
    async fn responses(&self, key: &str) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM {responses} WHERE message_id IN \
                   (SELECT message_id FROM {dedup} WHERE dedup_key = ?)";
        self.count(sql, vec![Value::from(key)]).await
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
}
