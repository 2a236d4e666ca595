//! Semantic locks: entities that sagas have locked, and the sagas that wait for them.

use super::{
    claims::any_of,
    row::{id, id_value, instance},
};
use crate::{OutboxTransaction, error::database, outbox::Outbox};
use outbox_core::{
    event::SagaId,
    outbox::StoreError,
    saga::{Change, Instance, LockOutcome, SagaStore, WaitEdges},
};
use sea_orm::{ConnectionTrait, Value};
use std::collections::BTreeMap;

/// Sagas whose waits one query reads.
const WAITING: usize = 8;

impl Outbox {
    pub(super) async fn lock_entity(
        &self,
        tx: &OutboxTransaction,
        saga: SagaId,
        entity: &str,
    ) -> Result<LockOutcome, StoreError> {
        let schema = self.schema();
        // No read comes before: on MySQL the first read fixes the snapshot of the whole
        // transaction, which would then not have what the last holder has written.
        let lock = schema.filled(&schema.dialect().lock_entity());
        let values = vec![Value::from(entity), id_value(saga)];
        if tx.execute_raw(schema.statement(&lock, values)).await.map_err(database)?.rows_affected()
            > 0
        {
            return Ok(LockOutcome::Acquired);
        }
        match self.lock_holder(tx, entity, "{for_share}").await? {
            Some(holder) if holder == saga => Ok(LockOutcome::AlreadyOwned),
            Some(holder) => Ok(LockOutcome::OwnedBy(holder)),
            None => Err(self.why_not_locked(tx, entity).await?),
        }
    }

    /// Gives the error for an entity that could not be locked though no saga holds the lock.
    async fn why_not_locked(
        &self,
        tx: &OutboxTransaction,
        entity: &str,
    ) -> Result<StoreError, StoreError> {
        if let Some(condition) = self.schema().dialect().sees_latest_commits() {
            let query = self.schema().filled(&format!("SELECT 1 WHERE {condition}"));
            if tx
                .query_one_raw(self.schema().statement(&query, Vec::new()))
                .await
                .map_err(database)?
                .is_none()
            {
                return Ok(StoreError::Mismatch(
                    "an entity can be locked at READ COMMITTED or SERIALIZABLE; at REPEATABLE READ a step would not see \
                     what the last holder has written"
                        .to_owned(),
                ));
            }
        }
        Ok(StoreError::Busy(
            format!("the lock on `{entity}` was released at this very moment").into(),
        ))
    }

    pub(super) async fn lock_holder(
        &self,
        tx: &OutboxTransaction,
        entity: &str,
        lock: &str,
    ) -> Result<Option<SagaId>, StoreError> {
        let schema = self.schema();
        let sql =
            schema.filled(&format!("SELECT saga_id FROM {{saga_locks}} WHERE entity = ?{lock}"));
        let row = tx
            .query_one_raw(schema.statement(&sql, vec![Value::from(entity)]))
            .await
            .map_err(database)?;
        row.map(|row| id(&row, 0)).transpose()
    }

    pub(super) async fn find_wait_edges(
        &self,
        tx: &OutboxTransaction,
        sagas: &[SagaId],
    ) -> Result<Vec<WaitEdges>, StoreError> {
        if sagas.is_empty() {
            return Ok(Vec::new());
        }
        let schema = self.schema();
        let mut found: BTreeMap<SagaId, WaitEdges> = BTreeMap::new();
        // Each row has the saga's progress, which may be as large as an event.
        for some in sagas.chunks(WAITING) {
            let (these, ids) = any_of("w.saga_id", some.iter().copied());
            let sql = schema.filled(&format!(
                "SELECT w.saga_id, l.saga_id, s.progress FROM {{saga_waits}} w \
                 JOIN {{saga_locks}} l ON l.entity = w.entity JOIN {{sagas}} s ON s.saga_id = w.saga_id WHERE {these}"
            ));
            let rows = tx.query_all_raw(schema.statement(&sql, ids)).await.map_err(database)?;
            for row in &rows {
                let (saga, waits_for) = (id(row, 0)?, id(row, 1)?);
                let may_compensate = instance(row, 2)?.may_compensate();
                let edges = found.entry(saga).or_insert(WaitEdges {
                    saga,
                    waits_for: Vec::new(),
                    may_compensate,
                });
                edges.waits_for.push(waits_for);
            }
        }
        Ok(found.into_values().collect())
    }

    /// Inserts the waits of a saga that are new, and deletes those that are over. It accesses each
    /// row by its whole key, so that MySQL locks no other row.
    pub(super) async fn record_waits(
        &self,
        tx: &OutboxTransaction,
        change: &Change<'_>,
    ) -> Result<(), StoreError> {
        let schema = self.schema();
        // Two steps of a group may wait for the same entity.
        let of = |instance: &Instance| -> BTreeMap<String, i64> {
            instance
                .blocked_on()
                .map(|blocked_on| (blocked_on.entity.clone(), blocked_on.since_us))
                .collect()
        };
        let (before, after) = (of(change.before), of(change.instance));
        let delete = schema.filled("DELETE FROM {saga_waits} WHERE saga_id = ? AND entity = ?");
        for entity in before.keys().filter(|entity| !after.contains_key(*entity)) {
            let values = vec![id_value(change.id), Value::from(entity.as_str())];
            tx.execute_raw(schema.statement(&delete, values)).await.map_err(database)?;
            // It may be the saga that was woken when the lock was released.
            if !change.instance.locks.contains(entity) {
                self.wake_first_waiter(tx, entity).await?;
            }
        }
        let insert =
            schema.filled("INSERT INTO {saga_waits} (saga_id, entity, since_us) VALUES (?, ?, ?)");
        for (entity, since_us) in after.iter().filter(|(entity, _)| !before.contains_key(*entity)) {
            let values =
                vec![id_value(change.id), Value::from(entity.as_str()), Value::from(*since_us)];
            tx.execute_raw(schema.statement(&insert, values)).await.map_err(database)?;
        }
        Ok(())
    }

    /// Releases locks of a saga, and wakes the first of the sagas that wait for each of them.
    pub(super) async fn unlock(
        &self,
        tx: &OutboxTransaction,
        saga: SagaId,
        entities: &[String],
    ) -> Result<(), StoreError> {
        let schema = self.schema();
        let delete = schema.filled("DELETE FROM {saga_locks} WHERE entity = ? AND saga_id = ?");
        for entity in entities {
            let values = vec![Value::from(entity.as_str()), id_value(saga)];
            tx.execute_raw(schema.statement(&delete, values)).await.map_err(database)?;
            self.wake_first_waiter(tx, entity).await?;
        }
        Ok(())
    }

    async fn wake_first_waiter(
        &self,
        tx: &OutboxTransaction,
        entity: &str,
    ) -> Result<(), StoreError> {
        let schema = self.schema();
        // A locking read sees what was committed after this transaction's first read. It skips a
        // wait that another transaction deletes.
        let first = schema.filled(
            "SELECT saga_id FROM {saga_waits} WHERE entity = ? ORDER BY since_us, saga_id LIMIT 8{for_share}{skip_locked}",
        );
        let query = schema.statement(&first, vec![Value::from(entity)]);
        // A saga that a coordinator has claimed, or whose definition no coordinator has, may not
        // poll soon.
        for row in tx.query_all_raw(query).await.map_err(database)? {
            if self.schedule_saga_now(tx, id(&row, 0)?).await? {
                break;
            }
        }
        Ok(())
    }

    /// Makes a saga due now that no coordinator has claimed and that is due later; `false` where it
    /// is none.
    pub(super) async fn schedule_saga_now(
        &self,
        tx: &OutboxTransaction,
        saga: SagaId,
    ) -> Result<bool, StoreError> {
        let schema = self.schema();
        // It skips a saga whose row is locked: that transaction may wait for this one.
        let unclaimed = schema.filled(
            "SELECT saga_id FROM {sagas} WHERE saga_id = ? AND epoch % 2 = 0 AND due_at > {now}{for_update}{skip_locked}",
        );
        let query = schema.statement(&unclaimed, vec![id_value(saga)]);
        if tx.query_one_raw(query).await.map_err(database)?.is_none() {
            return Ok(false);
        }
        let due = schema.filled("UPDATE {sagas} SET due_at = {now} WHERE saga_id = ?");
        tx.execute_raw(schema.statement(&due, vec![id_value(saga)])).await.map_err(database)?;
        self.wake_after_commit(tx);
        Ok(true)
    }
}
