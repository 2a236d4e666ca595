//! The writes of starts and steps, in their own transactions.

use super::row::{column, id, id_value, opened, version};
use crate::{OutboxTransaction, error::database, outbox::Outbox, schema::micros};
use async_trait::async_trait;
use outbox_core::{
    event::{SagaId, Timestamp},
    outbox::StoreError,
    runtime::Wake,
    saga::{
        Change, DefinitionId, Instance, LockOutcome, NewSaga, OpenSaga, Record, SagaClaim,
        SagaSource, SagaStarts, SagaStore, Started, WaitEdges,
    },
};
use sea_orm::{ConnectionTrait, QueryResult, Value};
use std::time::Duration;

/// What a statement of a saga waits for, in errors.
const WHAT: &str = "the table of sagas";

#[async_trait]
impl SagaStore for Outbox {
    async fn start(&self, tx: &OutboxTransaction, saga: &NewSaga) -> Result<Started, StoreError> {
        let schema = self.schema();
        let key = || [Value::from(&*saga.name), Value::from(&*saga.correlation)];
        let [name, correlation] = key();
        let version = i32::try_from(saga.version)
            .map_err(|_| StoreError::Mismatch(format!("version {} is too high", saga.version)))?;
        let values = vec![
            id_value(saga.id),
            name,
            Value::from(version),
            correlation,
            Value::from(serde_json::json!(Instance::default()).to_string()),
            Value::from(saga.data.as_str()),
            Value::from(saga.deadline.map(micros)),
        ];
        let inserted = tx
            .bounded(WHAT, tx.execute_raw(schema.statement(&schema.sagas.start, values)))
            .await
            .map_err(database)?;
        if inserted.rows_affected() > 0 {
            let record = Record::Started { data: saga.data.clone() };
            self.append_to_log(tx, saga.id, 0, &[record]).await?;
            self.wake_after_commit(tx);
            return Ok(Started::New { id: saga.id });
        }
        // A plain read does not wait for the transaction of a step. At REPEATABLE READ it may show
        // a saga that was set aside since, or none, so MySQL is asked for the present id too: that
        // reads the index alone, whose entry the INSERT has locked already, and so cannot wait for
        // a transaction that has locked the row and wants the entry.
        let sagas = &schema.sagas;
        let may_be_stale = schema.dialect().first_read_may_fix_snapshot();
        let seen = self.query_saga(tx, &sagas.by_correlation[0], key().to_vec()).await?;
        if let Some(row) = &seen
            && !may_be_stale
        {
            return started(row);
        }
        let present =
            if may_be_stale { &sagas.id_by_correlation } else { &sagas.by_correlation[1] };
        if let Some(row) = self.query_saga(tx, present, key().to_vec()).await? {
            if !may_be_stale {
                return started(&row);
            }
            let present = id(&row, 0)?;
            let seen = seen.as_ref().map(started).transpose()?;
            if let Some(seen) = seen.filter(|seen| seen.id() == present) {
                return Ok(seen);
            }
            if let Some(row) = self.query_saga(tx, &sagas.by_id, vec![id_value(present)]).await? {
                return started(&row);
            }
        }
        // A coordinator has pruned it at this very moment.
        Err(StoreError::Busy("the saga under this correlation id was deleted meanwhile".into()))
    }

    async fn set_aside(
        &self,
        tx: &OutboxTransaction,
        new: &NewSaga,
        correlation: &str,
    ) -> Result<(), StoreError> {
        let schema = self.schema();
        if schema.dialect().locks_gaps() {
            // Two such starts at once wait for each other at the row itself: one that waited in the
            // index of correlation ids would block the other's INSERT there, and so would the gap
            // lock of an UPDATE that finds no row; InnoDB would end one of them as a deadlock. The
            // row is looked up outside the transaction, whose first read would fix what all its
            // later reads see.
            let key = vec![Value::from(&*new.name), Value::from(&*new.correlation)];
            let query = schema.statement(&schema.sagas.by_correlation[0], key);
            let found = self.heartbeat_pool().query_one_raw(query).await.map_err(database)?;
            let Some(row) = found else { return Ok(()) };
            let locked =
                self.query_saga(tx, &schema.sagas.lock_row, vec![id_value(id(&row, 0)?)]).await?;
            let present = locked.map(|row| column::<String>(&row, 0)).transpose()?;
            if present.as_deref() != Some(&*new.correlation) {
                // Another start, perhaps of this transaction, has set it aside, or it was pruned.
                return Ok(());
            }
        }
        let values =
            vec![Value::from(correlation), Value::from(&*new.name), Value::from(&*new.correlation)];
        tx.bounded(WHAT, tx.execute_raw(schema.statement(&schema.sagas.set_aside, values)))
            .await
            .map_err(database)?;
        Ok(())
    }

    fn starts(&self) -> &SagaStarts {
        self.saga_starts()
    }

    async fn claim(
        &self,
        definitions: &[DefinitionId],
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<SagaClaim>, StoreError> {
        self.claim_sagas(definitions, lease, limit).await
    }

    async fn open(
        &self,
        tx: &OutboxTransaction,
        claim: &SagaClaim,
    ) -> Result<Option<OpenSaga>, StoreError> {
        let schema = self.schema();
        let values = vec![id_value(claim.id), Value::from(claim.epoch)];
        let row = tx
            .bounded(WHAT, tx.query_one_raw(schema.statement(&schema.sagas.open, values)))
            .await
            .map_err(database)?;
        row.map(|row| opened(&row)).transpose()
    }

    async fn open_for_reply(
        &self,
        tx: &OutboxTransaction,
        saga: SagaId,
    ) -> Result<Option<(DefinitionId, OpenSaga)>, StoreError> {
        let schema = self.schema();
        let query = schema.statement(&schema.sagas.open_for_reply, vec![id_value(saga)]);
        let row = tx.bounded(WHAT, tx.query_one_raw(query)).await.map_err(database)?;
        row.map(|row| Ok(((column::<String>(&row, 6)?.into(), version(&row, 7)?), opened(&row)?)))
            .transpose()
    }

    fn after_commit(&self, tx: &OutboxTransaction, hook: Box<dyn FnOnce() + Send>) {
        tx.after_commit(hook);
    }

    fn wake_after_commit(&self, tx: &OutboxTransaction) {
        let wake = self.wake_of_sagas().clone();
        tx.after_commit(move || wake.wake());
    }

    async fn lock(
        &self,
        tx: &OutboxTransaction,
        saga: SagaId,
        entity: &str,
    ) -> Result<LockOutcome, StoreError> {
        tx.bounded(WHAT, self.lock_entity(tx, saga, entity)).await
    }

    async fn holder(
        &self,
        tx: &OutboxTransaction,
        entity: &str,
    ) -> Result<Option<SagaId>, StoreError> {
        self.lock_holder(tx, entity, "").await
    }

    async fn holder_for_share(
        &self,
        tx: &OutboxTransaction,
        entity: &str,
    ) -> Result<Option<SagaId>, StoreError> {
        self.lock_holder(tx, entity, "{for_share}").await
    }

    async fn schedule_now(&self, tx: &OutboxTransaction, saga: SagaId) -> Result<(), StoreError> {
        self.schedule_saga_now(tx, saga).await.map(drop)
    }

    async fn wait_edges(
        &self,
        tx: &OutboxTransaction,
        sagas: &[SagaId],
    ) -> Result<Vec<WaitEdges>, StoreError> {
        self.find_wait_edges(tx, sagas).await
    }

    async fn record(&self, tx: &OutboxTransaction, change: &Change<'_>) -> Result<(), StoreError> {
        tx.bounded(WHAT, self.change_saga(tx, change)).await?;
        if !change.before.blocked_on().eq(change.instance.blocked_on()) {
            self.record_waits(tx, change).await?;
        }
        let ends = change.instance.state.is_final() && !change.before.state.is_final();
        if ends && !change.instance.locks.is_empty() {
            self.unlock(tx, change.id, &change.instance.locks).await?;
        }
        Ok(())
    }

    async fn release(&self, claims: &[SagaClaim]) -> Result<(), StoreError> {
        let schema = self.schema();
        for claim in claims {
            let values = vec![id_value(claim.id), Value::from(claim.epoch)];
            let statement = schema.statement(&schema.sagas.release, values);
            self.work().execute_raw(statement).await.map_err(database)?;
        }
        Ok(())
    }
}

impl Outbox {
    /// Runs a query on the table of sagas, within the time for its lock.
    async fn query_saga(
        &self,
        tx: &OutboxTransaction,
        sql: &str,
        values: Vec<Value>,
    ) -> Result<Option<QueryResult>, StoreError> {
        let query = self.schema().statement(sql, values);
        tx.bounded(WHAT, tx.query_one_raw(query)).await.map_err(database)
    }
}

/// Reads the outcome of a start from the row under its name and correlation id.
fn started(row: &QueryResult) -> Result<Started, StoreError> {
    let (id, state) = (id(row, 0)?, column::<String>(row, 1)?);
    Ok(match column::<Option<i64>>(row, 2)? {
        None => Started::Running { id },
        Some(ended_at) => {
            let outcome = state
                .parse()
                .map_err(|()| StoreError::Mismatch(format!("the state of a saga, `{state}`")))?;
            Started::AlreadyEnded { id, outcome, ended_at: Timestamp::from_micros(ended_at) }
        }
    })
}

#[async_trait]
impl SagaSource for Outbox {
    fn saga_wake(&self) -> Wake {
        self.wake_of_sagas().clone()
    }

    async fn missing(&self, definitions: &[DefinitionId]) -> Result<Vec<DefinitionId>, StoreError> {
        self.missing_definitions(definitions).await
    }

    async fn prune(&self, keep: Duration, limit: u32) -> Result<u64, StoreError> {
        self.prune_sagas(keep, limit).await
    }
}
