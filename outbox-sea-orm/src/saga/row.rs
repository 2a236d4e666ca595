//! Rows of sagas and of their log: SQL, and how rows are read and written.

use crate::{dialect::Dialect, error::database, namespace::Tables, outbox::Outbox, schema::micros};
use outbox_core::{
    event::SagaId,
    outbox::StoreError,
    saga::{Change, Due, Instance, Json, OpenSaga, Record, When},
};
use sea_orm::{ConnectionTrait, QueryResult, TryGetable, Value};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// The columns of a saga that is opened.
const OPENED: &str =
    "correlation_id, progress, data, seq, CASE WHEN deadline_at <= {now} THEN 1 ELSE 0 END, {now}";

/// Bytes of a saga's progress at most: half of the packet that MariaDB takes unless told otherwise.
const MAX_PROGRESS: usize = 8 << 20;

/// The SQL of the most frequent statements.
#[derive(Debug)]
pub(crate) struct SagaSql {
    pub(super) start: Arc<str>,
    /// Without a lock, and with one.
    pub(super) by_correlation: [Arc<str>; 2],
    /// The id alone, which the index has, with a lock.
    pub(super) id_by_correlation: Arc<str>,
    /// With a lock.
    pub(super) by_id: Arc<str>,
    /// Locks a saga's row, and gives its correlation id.
    pub(super) lock_row: Arc<str>,
    pub(super) set_aside: Arc<str>,
    pub(super) open: Arc<str>,
    pub(super) open_for_reply: Arc<str>,
    pub(super) release: Arc<str>,
    log: [Arc<str>; 2],
    /// By [`Next`], without and with data, with one record or two.
    change: [[[Arc<str>; 2]; 2]; 5],
}

/// When a saga is due after a change, and whether its claim ends.
#[derive(Clone, Copy)]
enum Next {
    Leased,
    After,
    AfterOrDeadline,
    Never,
    Ended,
}

impl SagaSql {
    pub(crate) fn new(dialect: Dialect, tables: &Tables) -> Self {
        let sql = |text: &str| dialect.sql(tables, text);
        let (insert, unless_there) = dialect.insert_if_absent();
        let change = |next: Next| {
            [false, true].map(|data| [1, 2].map(|n| sql(&change(dialect, next, data, n))))
        };
        Self {
            start: sql(&format!(
                "{insert} {{sagas}} (saga_id, name, version, correlation_id, state, progress, data, seq, epoch, due_at, \
                 deadline_at, started_at, changed_at) \
                 VALUES (?, ?, ?, ?, 'running', ?, ?, 1, 0, {{now}}, {{now}} + ?, {{now}}, {{now}}){unless_there}"
            )),
            by_correlation: ["", "{for_share}"].map(|lock| {
                sql(&format!(
                    "SELECT saga_id, state, ended_at FROM {{sagas}} WHERE name = ? AND correlation_id = ?{lock}"
                ))
            }),
            id_by_correlation: sql(
                "SELECT saga_id FROM {sagas} WHERE name = ? AND correlation_id = ?{for_share}",
            ),
            by_id: sql("SELECT saga_id, state, ended_at FROM {sagas} WHERE saga_id = ?{for_share}"),
            lock_row: sql("SELECT correlation_id FROM {sagas} WHERE saga_id = ?{for_update}"),
            set_aside: sql(
                "UPDATE {sagas} SET correlation_id = ? WHERE name = ? AND correlation_id = ? AND ended_at IS NOT NULL",
            ),
            open: sql(&format!("SELECT {OPENED} FROM {{sagas}} WHERE saga_id = ? AND epoch = ?{{for_update}}")),
            open_for_reply: sql(&format!("SELECT {OPENED}, name, version FROM {{sagas}} WHERE saga_id = ?{{for_update}}")),
            release: sql("UPDATE {sagas} SET epoch = epoch + 1, due_at = {now} \
                 WHERE saga_id = ? AND epoch = ? AND due_at IS NOT NULL"),
            log: [1, 2].map(|records| sql(&log(records))),
            change: [Next::Leased, Next::After, Next::AfterOrDeadline, Next::Never, Next::Ended].map(change),
        }
    }
}

/// Gives the SQL that appends so many records.
fn log(records: usize) -> String {
    let row = vec!["(?, ?, ?, ?, ?, {now})"; records].join(", ");
    format!("INSERT INTO {{saga_log}} (saga_id, seq, kind, step, body, at_us) VALUES {row}")
}

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
            n => schema.filled(&self::change(dialect, next, with_data, n)),
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
            n => schema.filled(&log(n)),
        };
        let values = logged(saga, behind, records)?;
        conn.execute_raw(schema.statement(&sql, values)).await.map_err(database)?;
        Ok(())
    }
}

/// Gives the SQL that changes a saga's row and, on databases that can, appends the records in the
/// same statement, so that a step takes one round trip less.
fn change(dialect: Dialect, next: Next, data: bool, records: usize) -> String {
    let next = match next {
        // A claimed saga has an odd epoch, and the end of the claim makes it even. A claim is
        // extended once half of it has passed, so that the row's position in the index of due sagas
        // changes less often.
        Next::Leased => "due_at = CASE WHEN due_at < {now} + ? THEN {now} + ? ELSE due_at END",
        Next::After => "epoch = epoch + epoch % 2, due_at = {now} + ?",
        Next::AfterOrDeadline => {
            "epoch = epoch + epoch % 2, due_at = CASE WHEN deadline_at < {now} + ? THEN deadline_at ELSE {now} + ? END"
        }
        Next::Never => "epoch = epoch + epoch % 2, due_at = NULL",
        Next::Ended => "epoch = epoch + epoch % 2, due_at = NULL, ended_at = {now}",
    };
    let data = if data { "data = ?, " } else { "" };
    let update = format!(
        "UPDATE {{sagas}} SET state = ?, progress = ?, {data}seq = ?, changed_at = {{now}}, {next} WHERE saga_id = ?"
    );
    if dialect.changes_and_inserts() && records > 0 {
        dialect.change_and_insert(&update, &log(records))
    } else {
        update
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
fn progress<T: serde::Serialize>(instance: &T) -> Result<String, StoreError> {
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

fn written<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
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
