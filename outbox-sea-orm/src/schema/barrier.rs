//! The barrier of a participant of sagas: the commands that it has received, with their outcomes
//! and replies.

use super::{Schema, micros};
use crate::{
    dialect::{Dialect, Tables},
    error::database,
};
use outbox_core::{
    event::Headers,
    outbox::{CommandKey, CommandOutcome, RecordedCommand, StoreError, StoredReply},
    saga::CommandHash,
};
use sea_orm::{ConnectionTrait, QueryResult, Value, prelude::Uuid};
use std::{sync::Arc, time::Duration};

/// SQL of the barrier.
#[derive(Debug)]
pub(super) struct BarrierSql {
    insert: Arc<str>,
    select: Arc<str>,
    update: Arc<str>,
    delete: Arc<str>,
}

/// The primary key.
pub(crate) const BARRIER_KEY: &str = "consumer, saga_id, step, round, phase";
const COMMAND: &str = "consumer = ? AND saga_id = ? AND step = ? AND round = ? AND phase = ?";

impl BarrierSql {
    pub(super) fn new(dialect: Dialect, tables: &Tables, keep: Duration) -> Self {
        let sql = |sql: &str| dialect.sql(tables, sql);
        let keep = micros(keep);
        let (insert, unless_there) = dialect.insert_if_absent();
        Self {
            insert: sql(&format!(
                "{insert} {{barrier}} ({BARRIER_KEY}, command_hash, outcome, written_at, keep_until) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, {{now}}, {{now}} + {keep}){unless_there}"
            )),
            // A locking read sees committed rows, whatever the transaction has read before. The
            // lock is shared, as the one that MySQL has taken by then: two transactions that both
            // need an exclusive one would deadlock.
            select: sql(&format!(
                "SELECT outcome, event_type, event_version, content_type, payload, headers, command_hash FROM {{barrier}} \
                 WHERE {COMMAND}{{for_share}}"
            )),
            update: sql(&format!(
                "UPDATE {{barrier}} SET outcome = ?, event_type = ?, event_version = ?, content_type = ?, payload = ?, \
                 headers = ? WHERE {COMMAND}"
            )),
            delete: sql(&format!("DELETE FROM {{barrier}} WHERE {COMMAND}")),
        }
    }
}

#[doc(hidden)]
impl Schema {
    /// Records a command with its outcome, unless it is recorded already; then gives the stored
    /// record.
    ///
    /// Waits for another transaction that records the same command at the same time.
    ///
    /// # Errors
    /// The database's error.
    pub async fn record_command<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: CommandKey<'_>,
        command: Option<CommandHash>,
        outcome: CommandOutcome,
    ) -> Result<Option<RecordedCommand>, StoreError> {
        let mut bound = values(key).to_vec();
        bound.push(Value::from(command.map(|hash| *hash.as_uuid())));
        bound.push(Value::from(outcome.as_str()));
        let insert = self.statement(&self.barrier.insert, bound);
        if conn.execute_raw(insert).await.map_err(database)?.rows_affected() > 0 {
            return Ok(None);
        }
        let select = self.statement(&self.barrier.select, values(key).to_vec());
        match conn.query_one_raw(select).await.map_err(database)? {
            Some(row) => read(&row).map(Some),
            None => Err(StoreError::Busy("a row of the barrier was deleted meanwhile".into())),
        }
    }

    /// Stores the reply to a command that the same transaction has recorded.
    ///
    /// # Errors
    /// The database's error.
    pub async fn store_reply<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: CommandKey<'_>,
        outcome: CommandOutcome,
        reply: &StoredReply,
    ) -> Result<(), StoreError> {
        let mut bound = vec![
            Value::from(outcome.as_str()),
            Value::from(reply.event_type.as_str()),
            Value::from(i32::from(reply.event_version)),
            Value::from(reply.content_type.as_str()),
            Value::from(reply.payload.as_ref()),
            Value::from(reply.headers.to_json()),
        ];
        bound.extend(values(key));
        conn.execute_raw(self.statement(&self.barrier.update, bound)).await.map_err(database)?;
        Ok(())
    }

    /// Deletes the record of a command of the same transaction.
    ///
    /// # Errors
    /// The database's error.
    pub async fn remove_command<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: CommandKey<'_>,
    ) -> Result<(), StoreError> {
        let delete = self.statement(&self.barrier.delete, values(key).to_vec());
        conn.execute_raw(delete).await.map_err(database)?;
        Ok(())
    }
}

fn values(key: CommandKey<'_>) -> [Value; 5] {
    [
        Value::from(key.consumer),
        Value::from(*key.saga.as_uuid()),
        Value::from(key.step),
        Value::from(i64::from(key.round.get())),
        Value::from(key.phase.as_str()),
    ]
}

fn read(row: &QueryResult) -> Result<RecordedCommand, StoreError> {
    let outcome: String = column(row, 0)?;
    let mismatch = |what: String| StoreError::Mismatch(format!("a row of the barrier has {what}"));
    let outcome = CommandOutcome::from_stored(&outcome)
        .ok_or_else(|| mismatch(format!("the outcome `{outcome}`")))?;
    let command = column::<Option<Uuid>>(row, 6)?.map(CommandHash::from_uuid);
    let Some(event_type) = column::<Option<String>>(row, 1)? else {
        return Ok(RecordedCommand { outcome, reply: None, command });
    };
    let version: i32 = column(row, 2)?;
    let headers: String = column(row, 5)?;
    let reply = StoredReply {
        event_type,
        event_version: u16::try_from(version)
            .map_err(|_| mismatch(format!("version {version}")))?,
        content_type: column(row, 3)?,
        payload: column::<Vec<u8>>(row, 4)?.into(),
        headers: Headers::from_json(&headers)
            .map_err(|_| mismatch("headers that are no JSON object of strings".into()))?,
    };
    Ok(RecordedCommand { outcome, reply: Some(reply), command })
}

fn column<T: sea_orm::TryGetable>(row: &QueryResult, index: usize) -> Result<T, StoreError> {
    row.try_get_by_index(index).map_err(database)
}
