//! What a participant of sagas knows of the commands that came to it.

use super::{Schema, micros};
use crate::{dialect::Dialect, error::OutboxError, namespace::Tables};
use outbox_core::{
    event::Headers,
    outbox::{CallAnswer, CallKey, CallOutcome, KnownCall, StoreError},
    saga::CommandHash,
};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value, prelude::Uuid};
use std::{sync::Arc, time::Duration};

/// Its texts.
#[derive(Debug)]
pub(super) struct BarrierTexts {
    note: Arc<str>,
    known: Arc<str>,
    keep: Arc<str>,
    unnote: Arc<str>,
}

/// The primary key.
pub(crate) const BARRIER_KEY: &str = "consumer, saga_id, step, round, phase";
const CALL: &str = "consumer = ? AND saga_id = ? AND step = ? AND round = ? AND phase = ?";

impl BarrierTexts {
    pub(super) fn new(dialect: Dialect, tables: &Tables, keep: Duration) -> Self {
        let sql = |text: &str| dialect.sql(tables, text);
        let keep = micros(keep);
        let (insert, unless_there) = dialect.insert_if_absent();
        Self {
            note: sql(&format!(
                "{insert} {{barrier}} ({BARRIER_KEY}, command_hash, outcome, written_at, keep_until) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, {{now}}, {{now}} + {keep}){unless_there}"
            )),
            // A locking read sees what is committed, whatever the transaction has read before. Shared, as the lock that
            // MySQL has taken by then: two that wait for more would wait for each other.
            known: sql(&format!(
                "SELECT outcome, event_type, event_version, content_type, payload, headers, command_hash FROM {{barrier}} \
                 WHERE {CALL}{{for_share}}"
            )),
            keep: sql(&format!(
                "UPDATE {{barrier}} SET outcome = ?, event_type = ?, event_version = ?, content_type = ?, payload = ?, \
                 headers = ? WHERE {CALL}"
            )),
            unnote: sql(&format!("DELETE FROM {{barrier}} WHERE {CALL}")),
        }
    }
}

impl Schema {
    /// Notes what became of a command, unless something is known of it; then gives that.
    ///
    /// Waits for another transaction that notes the same at the same time.
    ///
    /// # Errors
    /// What the database said.
    pub async fn note_call<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: CallKey<'_>,
        command: Option<CommandHash>,
        outcome: CallOutcome,
    ) -> Result<Option<KnownCall>, StoreError> {
        let mut bound = values(key).to_vec();
        bound.push(Value::from(command.map(|hash| *hash.as_uuid())));
        bound.push(Value::from(outcome.as_str()));
        let note = self.statement(&self.barrier.note, bound);
        if conn.execute_raw(note).await.map_err(database)?.rows_affected() > 0 {
            return Ok(None);
        }
        let known = self.statement(&self.barrier.known, values(key).to_vec());
        match conn.query_one_raw(known).await.map_err(database)? {
            Some(row) => read(&row).map(Some),
            None => Err(StoreError::Busy("a row of the barrier was deleted meanwhile".into())),
        }
    }

    /// Keeps the answer to a command that was noted in the same transaction.
    ///
    /// # Errors
    /// What the database said.
    pub async fn keep_answer<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: CallKey<'_>,
        outcome: CallOutcome,
        answer: &CallAnswer,
    ) -> Result<(), StoreError> {
        let mut bound = vec![
            Value::from(outcome.as_str()),
            Value::from(answer.event_type.as_str()),
            Value::from(i32::from(answer.event_version)),
            Value::from(answer.content_type.as_str()),
            Value::from(answer.payload.as_ref()),
            Value::from(answer.headers.to_json()),
        ];
        bound.extend(values(key));
        conn.execute_raw(self.statement(&self.barrier.keep, bound)).await.map_err(database)?;
        Ok(())
    }

    /// Takes back what was noted of a command in the same transaction.
    ///
    /// # Errors
    /// What the database said.
    pub async fn unnote_call<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: CallKey<'_>,
    ) -> Result<(), StoreError> {
        let unnote = self.statement(&self.barrier.unnote, values(key).to_vec());
        conn.execute_raw(unnote).await.map_err(database)?;
        Ok(())
    }
}

fn values(key: CallKey<'_>) -> [Value; 5] {
    [
        Value::from(key.consumer),
        Value::from(*key.saga.as_uuid()),
        Value::from(key.step),
        Value::from(i64::from(key.round.get())),
        Value::from(key.phase.as_str()),
    ]
}

fn read(row: &QueryResult) -> Result<KnownCall, StoreError> {
    let outcome: String = column(row, 0)?;
    let strange = |what: String| StoreError::Mismatch(format!("a row of the barrier has {what}"));
    let outcome = CallOutcome::from_stored(&outcome)
        .ok_or_else(|| strange(format!("the outcome `{outcome}`")))?;
    let command = column::<Option<Uuid>>(row, 6)?.map(CommandHash::from_uuid);
    let Some(event_type) = column::<Option<String>>(row, 1)? else {
        return Ok(KnownCall { outcome, answer: None, command });
    };
    let version: i32 = column(row, 2)?;
    let headers: String = column(row, 5)?;
    let answer = CallAnswer {
        event_type,
        event_version: u16::try_from(version).map_err(|_| strange(format!("version {version}")))?,
        content_type: column(row, 3)?,
        payload: column::<Vec<u8>>(row, 4)?.into(),
        headers: Headers::from_json(&headers)
            .map_err(|_| strange("headers that are no object of texts".into()))?,
    };
    Ok(KnownCall { outcome, answer: Some(answer), command })
}

fn column<T: sea_orm::TryGetable>(row: &QueryResult, index: usize) -> Result<T, StoreError> {
    row.try_get_by_index(index).map_err(database)
}

fn database(error: DbErr) -> StoreError {
    OutboxError::Database(error).into()
}
