//! Rows of sagas and of their log: how they are read and written.

use crate::{
    error::database,
    outbox::Outbox,
    schema::{
        micros,
        sagas::{self, Next},
    },
};
use outbox_core::{
    event::SagaId,
    outbox::StoreError,
    saga::{Change, Due, Instance, Json, OpenSaga, Record, When},
};
use sea_orm::{ConnectionTrait, QueryResult, TryGetable, Value};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Bytes of a saga's progress at most: half of the packet that MariaDB takes unless told otherwise.
const MAX_PROGRESS: usize = 8 << 20;

impl Outbox {
    /// Writes a change of a saga whose row is locked.
    pub(super) async fn change_saga<C: ConnectionTrait>(
        &self,
        conn: &C,
        change: &Change<'_>,
    ) -> Result<(), StoreError> {
        let schema = self.schema();
        let waits_until_deadline = !change.instance.backward && !change.instance.past_pivot();
        let (next, spans) = match change.due {
            Due::Leased(lease) => (Next::Leased, vec![lease / 2, lease]),
            Due::After(wait) if waits_until_deadline => (Next::AfterOrDeadline, vec![wait, wait]),
            Due::After(wait) => (Next::After, vec![wait]),
            Due::Never if change.instance.state.is_final() => (Next::Ended, Vec::new()),
            Due::Never => (Next::Never, Vec::new()),
        };
        let mut values = vec![
            Value::from(change.instance.state.as_str()),
            Value::from(progress(change.instance)?),
        ];
        values.extend(change.data.map(|data| Value::from(data.as_str())));
        values.push(Value::from(stored(change.seq + change.records.len() as u64)));
        values.extend(spans.into_iter().map(|span| Value::from(micros(span))));
        values.push(id_value(change.id));
        let (dialect, with_data) = (schema.dialect(), change.data.is_some());
        let sql = match change.records.len() {
            n @ 1..=2 => {
                Arc::clone(&schema.sagas.change[next as usize][usize::from(with_data)][n - 1])
            }
            n => schema.filled(&sagas::change(dialect, next, with_data, n)),
        };
        let together = dialect.changes_and_inserts() && !change.records.is_empty();
        if together {
            values.extend(logged(change.id, change.seq, change.records)?);
        }
        conn.execute_raw(schema.statement(&sql, values)).await.map_err(database)?;
        if together {
            Ok(())
        } else {
            self.append_to_log(conn, change.id, change.seq, change.records).await
        }
    }

    /// Appends records behind a number of a saga's log.
    pub(super) async fn append_to_log<C: ConnectionTrait>(
        &self,
        conn: &C,
        saga: SagaId,
        behind: u64,
        records: &[Record],
    ) -> Result<(), StoreError> {
        let schema = self.schema();
        let sql = match records.len() {
            0 => return Ok(()),
            n @ 1..=2 => Arc::clone(&schema.sagas.log[n - 1]),
            n => schema.filled(&sagas::log(n)),
        };
        let values = logged(saga, behind, records)?;
        conn.execute_raw(schema.statement(&sql, values)).await.map_err(database)?;
        Ok(())
    }
}

/// Gives the values of records behind a number of a saga's log.
fn logged(saga: SagaId, behind: u64, records: &[Record]) -> Result<Vec<Value>, StoreError> {
    let mut values = Vec::with_capacity(records.len() * 5);
    for (seq, record) in (behind + 1..).zip(records) {
        values.extend([
            id_value(saga),
            Value::from(stored(seq)),
            Value::from(record.kind()),
            Value::from(record.step()),
            Value::from(written(record)?),
        ]);
    }
    Ok(values)
}

/// Reads the row of a saga that is opened.
pub(super) fn opened(row: &QueryResult) -> Result<OpenSaga, StoreError> {
    Ok(OpenSaga {
        correlation: column::<String>(row, 0)?.into(),
        instance: instance(row, 1)?,
        data: data(row, 2)?,
        seq: count(row, 3)?,
        when: When { overdue: column::<i32>(row, 4)? != 0, now_us: column(row, 5)? },
    })
}

/// Reads a saga's state.
pub(super) fn instance(row: &QueryResult, index: usize) -> Result<Instance, StoreError> {
    read(&column::<String>(row, index)?, "progress")
}

/// Reads JSON that the store has written.
pub(super) fn read<T: DeserializeOwned>(text: &str, what: &str) -> Result<T, StoreError> {
    serde_json::from_str(text)
        .map_err(|e| StoreError::Mismatch(format!("a saga's {what}: {:?}", e.classify())))
}

/// Reads a saga's data.
fn data(row: &QueryResult, index: usize) -> Result<Json, StoreError> {
    let text: String = column(row, index)?;
    Json::from_text(&text)
        .map_err(|e| StoreError::Mismatch(format!("a saga's data: {:?}", e.classify())))
}

/// Encodes a saga's state, with the outputs of its steps, for one statement.
pub(super) fn progress<T: serde::Serialize>(instance: &T) -> Result<String, StoreError> {
    let text = written(instance)?;
    if text.len() > MAX_PROGRESS {
        let bytes = text.len();
        return Err(StoreError::Refused(
            format!(
                "the outputs of the saga's steps have {bytes} bytes together as JSON, and at most {MAX_PROGRESS} are stored: keep \
                 large values in a table of your own, and their keys in the outputs"
            )
            .into(),
        ));
    }
    Ok(text)
}

/// Encodes a value as JSON.
pub(super) fn written<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Refused(e.into()))
}

pub(super) fn id_value(saga: SagaId) -> Value {
    Value::from(*saga.as_uuid())
}

pub(super) fn id(row: &QueryResult, index: usize) -> Result<SagaId, StoreError> {
    column(row, index).map(SagaId::from_uuid)
}

/// Converts a number to its stored type, which has a sign.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn count(row: &QueryResult, index: usize) -> Result<u64, StoreError> {
    column::<i64>(row, index).map(i64::unsigned_abs)
}

/// Reads a number of bytes.
pub(super) fn size(row: &QueryResult, index: usize) -> Result<usize, StoreError> {
    Ok(usize::try_from(column::<i64>(row, index)?).unwrap_or(0))
}

pub(super) fn version(row: &QueryResult, index: usize) -> Result<u32, StoreError> {
    column::<i32>(row, index).map(i32::unsigned_abs)
}

pub(super) fn column<T: TryGetable>(row: &QueryResult, index: usize) -> Result<T, StoreError> {
    row.try_get_by_index(index).map_err(database)
}
