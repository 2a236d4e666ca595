//! What an operator sees of sagas and does with them.

use super::{
    claims::any_of,
    row::{column, count, database, id, id_value, instance, read, size, version},
};
use crate::{
    cut::{ANSWER_BYTES, fitting, stretches},
    outbox::Outbox,
};
use async_trait::async_trait;
use outbox_core::{
    admin::Decision,
    event::{SagaId, Timestamp},
    outbox::StoreError,
    saga::{
        Change, Due, Instance, LogEntry, Operation, SagaAdmin, SagaCounts, SagaFilter, SagaStore,
        SagaView,
    },
};
use sea_orm::{ConnectionTrait, IsolationLevel, QueryResult, Value};
use std::time::Duration;

/// Most sagas of one page, whatever was asked for: each is a parameter.
const LONGEST_PAGE: u32 = 10_000;

#[async_trait]
impl SagaAdmin for Outbox {
    async fn saga_counts(&self) -> Result<SagaCounts, StoreError> {
        let limit = SagaCounts::LIMIT;
        let of = |state: &str| {
            format!(
                "(SELECT count(*) FROM (SELECT 1 FROM {{sagas}} WHERE state = '{state}' LIMIT {limit}) {state}_)"
            )
        };
        let text = format!(
            "SELECT {} AS r, {} AS c, {} AS s",
            of("running"),
            of("compensating"),
            of("stuck")
        );
        let statement = self.schema().statement(&self.schema().filled(&text), Vec::new());
        match self.work().query_one_raw(statement).await.map_err(database)? {
            Some(row) => Ok(SagaCounts {
                running: count(&row, 0)?,
                compensating: count(&row, 1)?,
                stuck: count(&row, 2)?,
            }),
            None => Ok(SagaCounts::default()),
        }
    }

    async fn sagas(
        &self,
        filter: &SagaFilter,
        after: Option<SagaId>,
        limit: u32,
    ) -> Result<Vec<SagaView>, StoreError> {
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
        values.push(Value::from(i64::from(limit.min(LONGEST_PAGE))));
        let schema = self.schema();
        let text = schema.filled(&format!(
            "SELECT saga_id, {} FROM {{sagas}} WHERE {} ORDER BY saga_id LIMIT ?",
            schema.dialect().bytes_of(&["progress"]),
            parts.join(" AND ")
        ));
        let there =
            self.work().query_all_raw(schema.statement(&text, values)).await.map_err(database)?;
        let sizes: Vec<usize> = there.iter().map(|row| size(row, 1)).collect::<Result<_, _>>()?;
        let page = there.iter().take(fitting(sizes, ANSWER_BYTES)).map(|row| id(row, 0));
        let page: Vec<SagaId> = page.collect::<Result<_, _>>()?;
        if page.is_empty() {
            return Ok(Vec::new());
        }
        let (these, ids) = any_of("saga_id", page.into_iter());
        let text = schema.filled(&format!(
            "SELECT saga_id, name, version, correlation_id, progress, started_at, changed_at, state FROM {{sagas}} \
             WHERE {these} ORDER BY saga_id"
        ));
        let rows =
            self.work().query_all_raw(schema.statement(&text, ids)).await.map_err(database)?;
        rows.iter().map(view).collect()
    }

    async fn saga_log(&self, saga: SagaId) -> Result<Vec<LogEntry>, StoreError> {
        let schema = self.schema();
        let text = schema.filled(&format!(
            "SELECT seq, {} FROM {{saga_log}} WHERE saga_id = ? ORDER BY seq",
            schema.dialect().bytes_of(&["body"])
        ));
        let statement = schema.statement(&text, vec![id_value(saga)]);
        let there = self.work().query_all_raw(statement).await.map_err(database)?;
        let there = there.iter().map(|row| Ok((column::<i64>(row, 0)?, size(row, 1)?)));
        let there: Vec<(i64, usize)> = there.collect::<Result<_, StoreError>>()?;
        let text = schema
            .filled("SELECT seq, body, at_us FROM {saga_log} WHERE saga_id = ? AND seq >= ? AND seq <= ? ORDER BY seq");
        let mut log = Vec::with_capacity(there.len());
        // A step writes several records at once, so a saga of large steps has a log that no answer should carry whole.
        for stretch in stretches(&there, usize::MAX, ANSWER_BYTES, |(_, size)| *size) {
            let (Some((first, _)), Some((last, _))) = (stretch.first(), stretch.last()) else {
                continue;
            };
            let values = vec![id_value(saga), Value::from(*first), Value::from(*last)];
            let rows = self
                .work()
                .query_all_raw(schema.statement(&text, values))
                .await
                .map_err(database)?;
            for row in &rows {
                let record = read(&column::<String>(row, 1)?, "log")?;
                log.push(LogEntry {
                    seq: count(row, 0)?,
                    record,
                    at: Timestamp::from_micros(column(row, 2)?),
                });
            }
        }
        Ok(log)
    }

    async fn operate(
        &self,
        saga: SagaId,
        operation: &Operation,
        decision: &Decision,
    ) -> Result<bool, StoreError> {
        let schema = self.schema();
        let tx = self.begin_work(Some(IsolationLevel::ReadCommitted)).await?;
        let text = schema.filled("SELECT progress, seq FROM {sagas} WHERE saga_id = ?{for_update}");
        let row = tx
            .query_one_raw(schema.statement(&text, vec![id_value(saga)]))
            .await
            .map_err(database)?;
        let Some(row) = row else { return Ok(false) };
        let record = operation.record(decision);
        let before = instance(&row, 0)?;
        let Some(after) = before.after(&record) else { return Ok(false) };
        let due = if after.state.is_active() { Due::After(Duration::ZERO) } else { Due::Never };
        let (seq, records) = (count(&row, 1)?, [record]);
        let change = Change {
            id: saga,
            before: &before,
            instance: &after,
            data: None,
            seq,
            records: &records,
            due,
        };
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
    Ok(Instance {
        state: state.parse().map_err(strange)?,
        reason: Some(error.to_string()),
        ..Instance::default()
    })
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
