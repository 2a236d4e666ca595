//! What an operator sees of sagas and does with them.

use super::row::{column, count, database, id, id_value, instance, read, version};
use crate::outbox::Outbox;
use async_trait::async_trait;
use outbox_core::{
    admin::Decision,
    event::{SagaId, Timestamp},
    outbox::StoreError,
    saga::{Change, Due, Instance, LogEntry, Operation, SagaAdmin, SagaCounts, SagaFilter, SagaStore, SagaView},
};
use sea_orm::{ConnectionTrait, IsolationLevel, QueryResult, TransactionOptions, Value};
use std::time::Duration;

#[async_trait]
impl SagaAdmin for Outbox {
    async fn saga_counts(&self) -> Result<SagaCounts, StoreError> {
        let limit = SagaCounts::LIMIT;
        let of = |state: &str| {
            format!("(SELECT count(*) FROM (SELECT 1 FROM {{sagas}} WHERE state = '{state}' LIMIT {limit}) {state}_)")
        };
        let text = format!("SELECT {} AS r, {} AS c, {} AS s", of("running"), of("compensating"), of("stuck"));
        let statement = self.schema().statement(&self.schema().sql(&text), Vec::new());
        match self.connection().query_one_raw(statement).await.map_err(database)? {
            Some(row) => {
                Ok(SagaCounts { running: count(&row, 0)?, compensating: count(&row, 1)?, stuck: count(&row, 2)? })
            }
            None => Ok(SagaCounts::default()),
        }
    }

    async fn sagas(&self, filter: &SagaFilter, after: Option<SagaId>, limit: u32) -> Result<Vec<SagaView>, StoreError> {
        let mut parts = vec!["1 = 1"];
        let mut values = Vec::new();
        for (part, text) in [
            ("name = ?", filter.name.as_deref()),
            ("state = ?", filter.state.map(|s| s.as_str())),
            ("correlation_id = ?", filter.correlation.as_deref()),
        ] {
            if let Some(text) = text {
                parts.push(part);
                values.push(Value::from(text));
            }
        }
        if let Some(after) = after {
            parts.push("saga_id > ?");
            values.push(id_value(after));
        }
        values.push(Value::from(i64::from(limit)));
        let text = self.schema().sql(&format!(
            "SELECT saga_id, name, version, correlation_id, progress, started_at, changed_at, state FROM {{sagas}} \
             WHERE {} ORDER BY saga_id LIMIT ?",
            parts.join(" AND ")
        ));
        let rows = self.connection().query_all_raw(self.schema().statement(&text, values)).await.map_err(database)?;
        rows.iter().map(view).collect()
    }

    async fn saga_log(&self, saga: SagaId) -> Result<Vec<LogEntry>, StoreError> {
        let text = self.schema().sql("SELECT seq, body, at_us FROM {saga_log} WHERE saga_id = ? ORDER BY seq");
        let statement = self.schema().statement(&text, vec![id_value(saga)]);
        let entry = |row: &QueryResult| {
            let record = read(&column::<String>(row, 1)?, "log")?;
            Ok(LogEntry { seq: count(row, 0)?, record, at: Timestamp::from_micros(column(row, 2)?) })
        };
        self.connection().query_all_raw(statement).await.map_err(database)?.iter().map(entry).collect()
    }

    async fn operate(&self, saga: SagaId, operation: &Operation, decision: &Decision) -> Result<bool, StoreError> {
        let schema = self.schema();
        let isolation_level = Some(IsolationLevel::ReadCommitted);
        let tx = self.begin_with(TransactionOptions { isolation_level, ..TransactionOptions::default() }).await?;
        let text = schema.sql("SELECT progress, seq FROM {sagas} WHERE saga_id = ?{for_update}");
        let row = tx.query_one_raw(schema.statement(&text, vec![id_value(saga)])).await.map_err(database)?;
        let Some(row) = row else { return Ok(false) };
        let record = operation.record(decision);
        let before = instance(&row, 0)?;
        let Some(after) = before.after(&record) else { return Ok(false) };
        let due = if after.state.is_active() { Due::After(Duration::ZERO) } else { Due::Never };
        let (seq, records) = (count(&row, 1)?, [record]);
        let change = Change { id: saga, before: &before, instance: &after, data: None, seq, records: &records, due };
        self.record(&tx, &change).await?;
        self.wake_after(&tx);
        tx.commit().await?;
        Ok(true)
    }
}

/// Shows what is left of a saga whose progress cannot be read: it must not hide the others.
fn unreadable(row: &QueryResult, error: &StoreError) -> Result<Instance, StoreError> {
    let state: String = column(row, 7)?;
    let strange = |()| StoreError::Mismatch(format!("a saga's state is `{state}`"));
    Ok(Instance { state: state.parse().map_err(strange)?, reason: Some(error.to_string()), ..Instance::default() })
}

fn view(row: &QueryResult) -> Result<SagaView, StoreError> {
    let name: String = column(row, 1)?;
    Ok(SagaView {
        id: id(row, 0)?,
        definition: (name.into(), version(row, 2)?),
        correlation: column(row, 3)?,
        instance: instance(row, 4).or_else(|error| unreadable(row, &error))?,
        started_at: Timestamp::from_micros(column(row, 5)?),
        changed_at: Timestamp::from_micros(column(row, 6)?),
    })
}
