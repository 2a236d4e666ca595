//! What starts and steps write, in their own transaction.

use super::row::{column, database, id, id_value, opened, version};
use crate::{OutboxTransaction, outbox::Outbox, schema::micros};
use async_trait::async_trait;
use outbox_core::{
    event::{SagaId, Timestamp},
    outbox::StoreError,
    runtime::Wake,
    saga::{
        Change, Claim, Instance, Known, Marked, NewSaga, OpenSaga, Record, SagaSource, SagaStarts, SagaStore, Started,
        Waiting,
    },
};
use sea_orm::{ConnectionTrait, QueryResult, Value};
use std::time::Duration;

/// Who is waited for.
const WHAT: &str = "the table of sagas";

#[async_trait]
impl SagaStore for Outbox {
    async fn start(&self, tx: &OutboxTransaction, saga: &NewSaga) -> Result<Started, StoreError> {
        let schema = self.schema();
        let known_by = || [Value::from(&*saga.name), Value::from(&*saga.correlation)];
        let [name, correlation] = known_by();
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
        let made =
            tx.bounded(WHAT, tx.execute_raw(schema.statement(&schema.sagas.start, values))).await.map_err(database)?;
        if made.rows_affected() > 0 {
            let record = Record::Started { data: saga.data.clone() };
            self.append_to_log(tx, saga.id, 0, &[record]).await?;
            self.wake_after(tx);
            return Ok(Started::New { id: saga.id });
        }
        // A plain read does not wait for a step that is done meanwhile. At REPEATABLE READ it may show a saga that was set aside
        // since, or none, so that MySQL is asked for the id as of now too: that reads the index alone, of which this transaction
        // has locked the entry by its INSERT already, and so cannot wait for whoever has the row and wants the entry.
        let sagas = &schema.sagas;
        let seen = self.ask_for_saga(tx, &sagas.known_by[0], known_by().to_vec()).await?;
        if let Some(row) = &seen
            && !schema.dialect().is_mysql()
        {
            return started(row);
        }
        let now = if schema.dialect().is_mysql() { &sagas.known_as } else { &sagas.known_by[1] };
        if let Some(row) = self.ask_for_saga(tx, now, known_by().to_vec()).await? {
            if !schema.dialect().is_mysql() {
                return started(&row);
            }
            let there = id(&row, 0)?;
            let seen = seen.as_ref().map(started).transpose()?.filter(|seen| seen.id() == there);
            if let Some(seen) = seen {
                return Ok(seen);
            }
            if let Some(row) = self.ask_for_saga(tx, &sagas.by_id, vec![id_value(there)]).await? {
                return started(&row);
            }
        }
        // It was forgotten at this very moment.
        Err(StoreError::Busy("a saga was there and is not any more".into()))
    }

    async fn set_aside(&self, tx: &OutboxTransaction, new: &NewSaga, correlation: &str) -> Result<(), StoreError> {
        let schema = self.schema();
        if schema.dialect().is_mysql() {
            // Two at once wait for each other at the row itself: one that waited in the index of correlation ids would be in
            // the way of the other's INSERT there, and so would the lock on a gap that an UPDATE of nothing leaves; InnoDB
            // would end one of them as a deadlock. The row is looked up outside of the transaction, whose first read would
            // fix what all its later ones see.
            let asked =
                schema.statement(&schema.sagas.known_by[0], vec![(&*new.name).into(), (&*new.correlation).into()]);
            let Some(row) = self.signs().query_one_raw(asked).await.map_err(database)? else { return Ok(()) };
            let held = self.ask_for_saga(tx, &schema.sagas.hold, vec![id_value(id(&row, 0)?)]).await?;
            let known_as = held.map(|row| column::<String>(&row, 0)).transpose()?;
            if known_as.as_deref() != Some(&*new.correlation) {
                // Somebody has begun anew meanwhile, this transaction perhaps; or it was forgotten.
                return Ok(());
            }
        }
        let values = vec![Value::from(correlation), Value::from(&*new.name), Value::from(&*new.correlation)];
        tx.bounded(WHAT, tx.execute_raw(schema.statement(&schema.sagas.set_aside, values))).await.map_err(database)?;
        Ok(())
    }

    fn starts(&self) -> &SagaStarts {
        self.saga_starts()
    }

    async fn claim(&self, known: &[Known], lease: Duration, limit: u32) -> Result<Vec<Claim>, StoreError> {
        self.claim_sagas(known, lease, limit).await
    }

    async fn open(&self, tx: &OutboxTransaction, claim: &Claim) -> Result<Option<OpenSaga>, StoreError> {
        let schema = self.schema();
        let values = vec![id_value(claim.id), Value::from(claim.epoch)];
        let row = self.ask_for_saga(tx, &schema.sagas.open, values).await?;
        row.map(|row| opened(&row)).transpose()
    }

    async fn open_any(&self, tx: &OutboxTransaction, saga: SagaId) -> Result<Option<(Known, OpenSaga)>, StoreError> {
        let schema = self.schema();
        let row = self.ask_for_saga(tx, &schema.sagas.open_any, vec![id_value(saga)]).await?;
        row.map(|row| Ok(((column::<String>(&row, 6)?.into(), version(&row, 7)?), opened(&row)?))).transpose()
    }

    fn after_commit(&self, tx: &OutboxTransaction, hook: Box<dyn FnOnce() + Send>) {
        tx.after_commit(hook);
    }

    fn wake_after(&self, tx: &OutboxTransaction) {
        let wake = self.wake_of_sagas().clone();
        tx.after_commit(move || wake.wake());
    }

    async fn lock(&self, tx: &OutboxTransaction, saga: SagaId, entity: &str) -> Result<Marked, StoreError> {
        tx.bounded(WHAT, self.mark(tx, saga, entity)).await
    }

    async fn holder(&self, tx: &OutboxTransaction, entity: &str) -> Result<Option<SagaId>, StoreError> {
        self.marked_by(tx, entity, "").await
    }

    async fn pin_holder(&self, tx: &OutboxTransaction, entity: &str) -> Result<Option<SagaId>, StoreError> {
        self.marked_by(tx, entity, "{for_share}").await
    }

    async fn make_due(&self, tx: &OutboxTransaction, saga: SagaId) -> Result<(), StoreError> {
        self.end_rest(tx, saga).await.map(drop)
    }

    async fn waiting(&self, tx: &OutboxTransaction, sagas: &[SagaId]) -> Result<Vec<Waiting>, StoreError> {
        self.waiting_sagas(tx, sagas).await
    }

    async fn record(&self, tx: &OutboxTransaction, change: &Change<'_>) -> Result<(), StoreError> {
        tx.bounded(WHAT, self.change_saga(tx, change)).await?;
        if !change.before.waits().eq(change.instance.waits()) {
            self.note_waits(tx, change).await?;
        }
        let ends = change.instance.state.is_final() && !change.before.state.is_final();
        if ends && !change.instance.locks.is_empty() {
            self.unlock(tx, change.id, &change.instance.locks).await?;
        }
        Ok(())
    }

    async fn release(&self, claims: &[Claim]) -> Result<(), StoreError> {
        let schema = self.schema();
        for claim in claims {
            let values = vec![id_value(claim.id), Value::from(claim.epoch)];
            let statement = schema.statement(&schema.sagas.release, values);
            self.work().execute_raw(statement).await.map_err(database)?;
        }
        Ok(())
    }
}

/// Reads what is under a name and correlation id.
impl Outbox {
    async fn ask_for_saga(
        &self,
        tx: &OutboxTransaction,
        text: &str,
        values: Vec<Value>,
    ) -> Result<Option<QueryResult>, StoreError> {
        tx.bounded(WHAT, tx.query_one_raw(self.schema().statement(text, values))).await.map_err(database)
    }
}

fn started(row: &QueryResult) -> Result<Started, StoreError> {
    let (id, state) = (id(row, 0)?, column::<String>(row, 1)?);
    Ok(match column::<Option<i64>>(row, 2)? {
        None => Started::Running { id },
        Some(ended_at) => {
            let outcome =
                state.parse().map_err(|()| StoreError::Mismatch(format!("the state of a saga, `{state}`")))?;
            Started::AlreadyEnded { id, outcome, ended_at: Timestamp::from_micros(ended_at) }
        }
    })
}

#[async_trait]
impl SagaSource for Outbox {
    fn saga_wake(&self) -> Wake {
        self.wake_of_sagas().clone()
    }

    async fn missing(&self, known: &[Known]) -> Result<Vec<Known>, StoreError> {
        self.missing_definitions(known).await
    }

    async fn forget(&self, keep: Duration, limit: u32) -> Result<u64, StoreError> {
        self.forget_sagas(keep, limit).await
    }
}
