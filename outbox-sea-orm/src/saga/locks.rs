//! Semantic locks: entities that are marked for sagas, and the sagas that wait for them.

use super::{
    claims::any_of,
    row::{database, id, id_value, instance},
};
use crate::{OutboxTransaction, outbox::Outbox};
use outbox_core::{
    event::SagaId,
    outbox::StoreError,
    saga::{Change, Instance, Marked, SagaStore, Waiting},
};
use sea_orm::{ConnectionTrait, Value};
use std::collections::BTreeMap;

/// Sagas whose waits are read in one answer.
const WAITING: usize = 8;

impl Outbox {
    pub(super) async fn mark(
        &self,
        tx: &OutboxTransaction,
        saga: SagaId,
        entity: &str,
    ) -> Result<Marked, StoreError> {
        let schema = self.schema();
        // Nothing is read before: on MySQL a first read would fix what the rest of the transaction sees, and what the last
        // holder has written would not be among it.
        let mark = schema.filled(&schema.dialect().lock_entity());
        let values = vec![Value::from(entity), id_value(saga)];
        if tx.execute_raw(schema.statement(&mark, values)).await.map_err(database)?.rows_affected()
            > 0
        {
            return Ok(Marked::New);
        }
        match self.marked_by(tx, entity, "{for_share}").await? {
            Some(holder) if holder == saga => Ok(Marked::Before),
            Some(holder) => Ok(Marked::ByOther(holder)),
            None => Err(self.why_unmarked(tx, entity).await?),
        }
    }

    /// Says why an entity could not be marked though nobody has it.
    async fn why_unmarked(
        &self,
        tx: &OutboxTransaction,
        entity: &str,
    ) -> Result<StoreError, StoreError> {
        if let Some(condition) = self.schema().dialect().reads_anew() {
            let asked = self.schema().filled(&format!("SELECT 1 WHERE {condition}"));
            if tx
                .query_one_raw(self.schema().statement(&asked, Vec::new()))
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
        Ok(StoreError::Busy(format!("`{entity}` was given back at this very moment").into()))
    }

    pub(super) async fn marked_by(
        &self,
        tx: &OutboxTransaction,
        entity: &str,
        lock: &str,
    ) -> Result<Option<SagaId>, StoreError> {
        let schema = self.schema();
        let text =
            schema.filled(&format!("SELECT saga_id FROM {{saga_locks}} WHERE entity = ?{lock}"));
        let row = tx
            .query_one_raw(schema.statement(&text, vec![Value::from(entity)]))
            .await
            .map_err(database)?;
        row.map(|row| id(&row, 0)).transpose()
    }

    pub(super) async fn waiting_sagas(
        &self,
        tx: &OutboxTransaction,
        sagas: &[SagaId],
    ) -> Result<Vec<Waiting>, StoreError> {
        if sagas.is_empty() {
            return Ok(Vec::new());
        }
        let schema = self.schema();
        let mut found: BTreeMap<SagaId, Waiting> = BTreeMap::new();
        // Each brings its progress along, which may be as large as an event.
        for some in sagas.chunks(WAITING) {
            let (these, ids) = any_of("w.saga_id", some.iter().copied());
            let text = schema.filled(&format!(
                "SELECT w.saga_id, l.saga_id, s.progress FROM {{saga_waits}} w \
                 JOIN {{saga_locks}} l ON l.entity = w.entity JOIN {{sagas}} s ON s.saga_id = w.saga_id WHERE {these}"
            ));
            let rows = tx.query_all_raw(schema.statement(&text, ids)).await.map_err(database)?;
            for row in &rows {
                let (saga, waits_for) = (id(row, 0)?, id(row, 1)?);
                let may_turn_back = instance(row, 2)?.may_turn_back();
                let waiting = found.entry(saga).or_insert(Waiting {
                    saga,
                    waits_for: Vec::new(),
                    may_turn_back,
                });
                waiting.waits_for.push(waits_for);
            }
        }
        Ok(found.into_values().collect())
    }

    /// Writes what a saga waits for now and did not before, and what it waits for no more. Each row by its whole key: on
    /// MySQL that locks nothing beside it.
    pub(super) async fn note_waits(
        &self,
        tx: &OutboxTransaction,
        change: &Change<'_>,
    ) -> Result<(), StoreError> {
        let schema = self.schema();
        // Two steps of a group may wait for the same entity.
        let of = |instance: &Instance| -> BTreeMap<String, i64> {
            instance.waits().map(|held| (held.entity.clone(), held.since_us)).collect()
        };
        let (before, after) = (of(change.before), of(change.instance));
        let gone = schema.filled("DELETE FROM {saga_waits} WHERE saga_id = ? AND entity = ?");
        for entity in before.keys().filter(|entity| !after.contains_key(*entity)) {
            let values = vec![id_value(change.id), Value::from(entity.as_str())];
            tx.execute_raw(schema.statement(&gone, values)).await.map_err(database)?;
            // It may be the one that was made due when the entity was given back.
            if !change.instance.locks.contains(entity) {
                self.wake_first_waiter(tx, entity).await?;
            }
        }
        let note =
            schema.filled("INSERT INTO {saga_waits} (saga_id, entity, since_us) VALUES (?, ?, ?)");
        for (entity, since_us) in after.iter().filter(|(entity, _)| !before.contains_key(*entity)) {
            let values =
                vec![id_value(change.id), Value::from(entity.as_str()), Value::from(*since_us)];
            tx.execute_raw(schema.statement(&note, values)).await.map_err(database)?;
        }
        Ok(())
    }

    /// Gives back what is marked for a saga, and makes the first due of those that wait for each entity.
    pub(super) async fn unlock(
        &self,
        tx: &OutboxTransaction,
        saga: SagaId,
        entities: &[String],
    ) -> Result<(), StoreError> {
        let schema = self.schema();
        let gone = schema.filled("DELETE FROM {saga_locks} WHERE entity = ? AND saga_id = ?");
        for entity in entities {
            let values = vec![Value::from(entity.as_str()), id_value(saga)];
            tx.execute_raw(schema.statement(&gone, values)).await.map_err(database)?;
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
        // A locking read sees what was committed after this transaction's first look. One that goes away is passed by.
        let first = schema.filled(
            "SELECT saga_id FROM {saga_waits} WHERE entity = ? ORDER BY since_us, saga_id LIMIT 8{for_share}{skip_locked}",
        );
        let asked = schema.statement(&first, vec![Value::from(entity)]);
        // One that somebody has, or that nobody carries, may not look soon.
        for row in tx.query_all_raw(asked).await.map_err(database)? {
            if self.end_rest(tx, id(&row, 0)?).await? {
                break;
            }
        }
        Ok(())
    }

    /// Makes a saga due that is at rest; `false` where it is not.
    pub(super) async fn end_rest(
        &self,
        tx: &OutboxTransaction,
        saga: SagaId,
    ) -> Result<bool, StoreError> {
        let schema = self.schema();
        // One that is being looked at cannot be waited for: it may wait for this transaction.
        let at_rest = schema.filled(
            "SELECT saga_id FROM {sagas} WHERE saga_id = ? AND epoch % 2 = 0 AND due_at > {now}{for_update}{skip_locked}",
        );
        let asked = schema.statement(&at_rest, vec![id_value(saga)]);
        if tx.query_one_raw(asked).await.map_err(database)?.is_none() {
            return Ok(false);
        }
        let due = schema.filled("UPDATE {sagas} SET due_at = {now} WHERE saga_id = ?");
        tx.execute_raw(schema.statement(&due, vec![id_value(saga)])).await.map_err(database)?;
        self.wake_after(tx);
        Ok(true)
    }
}
