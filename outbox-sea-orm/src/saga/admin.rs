//! The queries and operations of operators on sagas.

use super::{
    claims::any_of,
    definition_names,
    row::{column, count, id, id_value, instance, read, size, version},
};
use crate::{
    chunks::{RESULT_BYTES, chunks_by_size, fitting_count, one_of},
    error::database,
    outbox::Outbox,
    schema::{Audit, AuditedAct},
};
use async_trait::async_trait;
use outbox_core::{
    admin::OperatorNote,
    event::{SagaId, Timestamp},
    outbox::StoreError,
    saga::{
        Change, Due, Instance, LogEntry, Operation, SagaAdmin, SagaCounts, SagaFilter, SagaStore,
        SagaView,
    },
};
use sea_orm::{ConnectionTrait, QueryResult, Value};
use std::time::Duration;

/// Most sagas of one page, whatever the caller asks for, since each is a parameter.
const LONGEST_PAGE: u32 = 10_000;
/// Most names of definitions under which a correlation id is listed: each costs a statement.
const MOST_NAMES: usize = 1_000;

#[async_trait]
impl SagaAdmin for Outbox {
    async fn saga_counts(&self) -> Result<SagaCounts, StoreError> {
        let limit = SagaCounts::LIMIT;
        let of = |state: &str| {
            format!(
                "(SELECT count(*) FROM (SELECT 1 FROM {{sagas}} WHERE state = '{state}' LIMIT {limit}) {state}_)"
            )
        };
        let sql = format!(
            "SELECT {} AS r, {} AS c, {} AS s",
            of("running"),
            of("compensating"),
            of("stuck")
        );
        let statement = self.schema().statement(&self.schema().filled(&sql), Vec::new());
        match self.reads().query_one_raw(statement).await.map_err(database)? {
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
        let names = match (&filter.name, &filter.correlation) {
            (None, Some(_)) => Some(self.all_names().await?),
            _ => None,
        };
        if names.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let (condition, mut values) = condition(filter, names.as_deref(), after);
        values.push(Value::from(i64::from(limit.min(LONGEST_PAGE))));
        let schema = self.schema();
        let sql = schema.filled(&format!(
            "SELECT saga_id, {} FROM {{sagas}} WHERE {condition} ORDER BY saga_id LIMIT ?",
            schema.dialect().bytes_of(&["progress"]),
        ));
        let rows =
            self.reads().query_all_raw(schema.statement(&sql, values)).await.map_err(database)?;
        let sizes: Vec<usize> = rows.iter().map(|row| size(row, 1)).collect::<Result<_, _>>()?;
        let page = rows.iter().take(fitting_count(sizes, RESULT_BYTES)).map(|row| id(row, 0));
        let page: Vec<SagaId> = page.collect::<Result<_, _>>()?;
        if page.is_empty() {
            return Ok(Vec::new());
        }
        let (these, ids) = any_of("saga_id", page.into_iter());
        let sql = schema.filled(&format!(
            "SELECT saga_id, name, version, correlation_id, progress, started_at, changed_at, state FROM {{sagas}} \
             WHERE {these} ORDER BY saga_id"
        ));
        let rows =
            self.reads().query_all_raw(schema.statement(&sql, ids)).await.map_err(database)?;
        rows.iter().map(view).collect()
    }

    async fn saga_log(&self, saga: SagaId) -> Result<Vec<LogEntry>, StoreError> {
        self.read_log(self.reads(), saga).await
    }

    async fn operate(
        &self,
        saga: SagaId,
        operation: &Operation,
        note: &OperatorNote,
    ) -> Result<bool, StoreError> {
        let schema = self.schema();
        let tx = self.begin_read_committed().await?;
        let sql = schema.filled("SELECT progress, seq FROM {sagas} WHERE saga_id = ?{for_update}");
        let row = tx
            .query_one_raw(schema.statement(&sql, vec![id_value(saga)]))
            .await
            .map_err(database)?;
        let Some(row) = row else { return Ok(false) };
        let record = operation.record(note);
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
        let (act, target) = audited(saga, operation);
        let act = AuditedAct { act, target: &target, note, plan: None };
        Audit::new(schema, act).count(&tx, 1, true).await.map_err(database)?;
        self.wake_after_commit(&tx);
        tx.commit().await?;
        Ok(true)
    }
}

impl Outbox {
    /// Reads all names of definitions, so that a correlation id is found by the index of both.
    async fn all_names(&self) -> Result<Vec<String>, StoreError> {
        let names = definition_names(self, MOST_NAMES + 1).await?;
        if names.len() > MOST_NAMES {
            let why = format!(
                "sagas of more than {MOST_NAMES} definitions are stored: name one beside the correlation id"
            );
            return Err(StoreError::Refused(why.into()));
        }
        Ok(names)
    }

    /// Reads the log of a saga, in order, in results that are bounded by their bytes.
    pub(super) async fn read_log<C: ConnectionTrait>(
        &self,
        conn: &C,
        saga: SagaId,
    ) -> Result<Vec<LogEntry>, StoreError> {
        let schema = self.schema();
        let sql = schema.filled(&format!(
            "SELECT seq, {} FROM {{saga_log}} WHERE saga_id = ? ORDER BY seq",
            schema.dialect().bytes_of(&["body"])
        ));
        let statement = schema.statement(&sql, vec![id_value(saga)]);
        let rows = conn.query_all_raw(statement).await.map_err(database)?;
        let rows = rows.iter().map(|row| Ok((column::<i64>(row, 0)?, size(row, 1)?)));
        let rows: Vec<(i64, usize)> = rows.collect::<Result<_, StoreError>>()?;
        let sql = schema
            .filled("SELECT seq, body, at_us FROM {saga_log} WHERE saga_id = ? AND seq >= ? AND seq <= ? ORDER BY seq");
        let mut log = Vec::with_capacity(rows.len());
        // A step writes several records at once, so that the log of a saga with large steps may not
        // fit one result.
        for stretch in chunks_by_size(&rows, usize::MAX, RESULT_BYTES, |(_, size)| *size) {
            let (Some((first, _)), Some((last, _))) = (stretch.first(), stretch.last()) else {
                continue;
            };
            let values = vec![id_value(saga), Value::from(*first), Value::from(*last)];
            let rows =
                conn.query_all_raw(schema.statement(&sql, values)).await.map_err(database)?;
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
}

/// Writes the condition of a filter. Under `names`, all that there are, a correlation id has one row
/// for each at most, which an index finds; without a name the whole table would be read.
fn condition(
    filter: &SagaFilter,
    names: Option<&[String]>,
    after: Option<SagaId>,
) -> (String, Vec<Value>) {
    let mut parts = vec!["1 = 1".to_owned()];
    let mut values = Vec::new();
    if let Some(names) = names {
        let names = names.iter().map(|name| Value::from(name.as_str()));
        let (under_these, of_names) = one_of("name", names.collect());
        parts.push(under_these);
        values.extend(of_names);
    }
    for (part, text) in [
        ("name = ?", filter.name.as_deref()),
        ("state = ?", filter.state.map(|s| s.as_str())),
        ("correlation_id = ?", filter.correlation.as_deref()),
    ] {
        if let Some(text) = text {
            parts.push(part.to_owned());
            values.push(Value::from(text));
        }
    }
    if let Some(after) = after {
        parts.push("saga_id > ?".to_owned());
        values.push(id_value(after));
    }
    (parts.join(" AND "), values)
}

/// Gives the name of an operation, and its target in words.
fn audited(saga: SagaId, operation: &Operation) -> (&'static str, String) {
    match operation {
        Operation::Cancel => ("saga cancel", format!("saga {saga}")),
        Operation::Resume => ("saga resume", format!("saga {saga}")),
        Operation::RetryFrom(step) => ("saga retry from", format!("step `{step}` of saga {saga}")),
        Operation::Skip(step) => ("saga skip", format!("step `{step}` of saga {saga}")),
    }
}

/// Gives the state of a saga whose progress cannot be read, so that it does not hide the others.
fn unreadable(row: &QueryResult, error: &StoreError) -> Result<Instance, StoreError> {
    let state: String = column(row, 7)?;
    let mismatch = |()| StoreError::Mismatch(format!("a saga's state is `{state}`"));
    Ok(Instance {
        state: state.parse().map_err(mismatch)?,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correlation_id_is_never_searched_without_the_names_that_its_index_begins_with() {
        let of = |name: Option<&str>, correlation: Option<&str>| SagaFilter {
            name: name.map(str::to_owned),
            correlation: correlation.map(str::to_owned),
            ..SagaFilter::default()
        };
        let names = ["place-order".to_owned(), "ship".to_owned()];
        for (filter, names, expected, values) in [
            (of(None, None), None, "1 = 1", &[][..]),
            (
                of(Some("ship"), Some("7")),
                None,
                "1 = 1 AND name = ? AND correlation_id = ?",
                &["ship", "7"],
            ),
            (
                of(None, Some("7")),
                Some(&names[..]),
                "1 = 1 AND name IN (?, ?) AND correlation_id = ?",
                &["place-order", "ship", "7"],
            ),
        ] {
            let values = values.iter().copied().map(Value::from).collect();
            assert_eq!(condition(&filter, names, None), (expected.to_owned(), values));
        }
    }
}
