//! Claims due sagas, each under a new epoch, and prunes old ended ones.

use super::row::{column, id, id_value, size, version};
use crate::{
    chunks::{RESULT_BYTES, fitting_count, one_of},
    error::database,
    outbox::Outbox,
    schema::micros,
};
use outbox_core::{
    event::SagaId,
    outbox::StoreError,
    saga::{DefinitionId, SagaClaim},
};
use sea_orm::{ConnectionTrait, QueryResult, Value};
use std::{sync::Arc, time::Duration};

/// Missing definitions that one scan reports at most.
const MISSING: i64 = 20;

impl Outbox {
    pub(super) async fn claim_sagas(
        &self,
        definitions: &[DefinitionId],
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<SagaClaim>, StoreError> {
        let schema = self.schema();
        let (of_definitions, values) = condition(definitions);
        // A query without a transaction comes first: most polls find nothing, and on SQLite a
        // transaction blocks writers.
        let any = schema.filled(&format!(
            "SELECT 1 FROM {{sagas}} WHERE due_at <= {{now}} AND {of_definitions} LIMIT 1"
        ));
        let query = schema.statement(&any, values.clone());
        if self.work().query_one_raw(query).await.map_err(database)?.is_none() {
            return Ok(Vec::new());
        }
        let tx = self.begin_read_committed().await?;
        let sql = schema.filled(&format!(
            "SELECT saga_id, epoch, name, version FROM {{sagas}} WHERE due_at <= {{now}} AND {of_definitions} \
             ORDER BY due_at LIMIT ?{{for_update}}{{skip_locked}}"
        ));
        let values = values.into_iter().chain([Value::from(i64::from(limit))]).collect();
        let rows = tx.query_all_raw(schema.statement(&sql, values)).await.map_err(database)?;
        let claims: Vec<SagaClaim> = rows.iter().map(claim).collect::<Result<_, StoreError>>()?;
        if !claims.is_empty() {
            let (these, ids) = any_of("saga_id", claims.iter().map(|claim| claim.id));
            let sql = format!(
                "UPDATE {{sagas}} SET epoch = epoch + 1 + epoch % 2, due_at = {{now}} + ? WHERE {these}"
            );
            let values = [Value::from(micros(lease))].into_iter().chain(ids).collect();
            tx.execute_raw(schema.statement(&schema.filled(&sql), values))
                .await
                .map_err(database)?;
        }
        tx.commit().await?;
        Ok(claims)
    }

    pub(super) async fn prune_sagas(&self, keep: Duration, limit: u32) -> Result<u64, StoreError> {
        let schema = self.schema();
        let dialect = schema.dialect();
        let sql = schema.filled(&format!(
            "SELECT s.saga_id, {} + CAST((SELECT COALESCE(SUM({}), 0) FROM {{saga_log}} l WHERE l.saga_id = s.saga_id) \
             AS {}) FROM {{sagas}} s WHERE s.ended_at < {{now}} - ? ORDER BY s.ended_at LIMIT ?",
            dialect.bytes_of(&["s.progress", "s.data"]),
            dialect.bytes_of(&["l.body"]),
            dialect.whole_number()
        ));
        let values = vec![Value::from(micros(keep)), Value::from(i64::from(limit))];
        let rows =
            self.work().query_all_raw(schema.statement(&sql, values)).await.map_err(database)?;
        let sizes: Vec<usize> =
            rows.iter().map(|row| size(row, 1)).collect::<Result<_, StoreError>>()?;
        let ended = rows.iter().take(fitting_count(sizes, RESULT_BYTES)).map(|row| id(row, 0));
        let ended: Vec<SagaId> = ended.collect::<Result<_, StoreError>>()?;
        if ended.is_empty() {
            return Ok(0);
        }
        // An ended saga never changes: the rows are still what was read.
        let tx = self.begin_work().await?;
        let mut deleted = 0;
        for table in ["saga_log", "sagas"] {
            let (these, ids) = any_of("saga_id", ended.iter().copied());
            let sql = schema.filled(&format!("DELETE FROM {{{table}}} WHERE {these}"));
            deleted = tx
                .execute_raw(schema.statement(&sql, ids))
                .await
                .map_err(database)?
                .rows_affected();
        }
        tx.commit().await?;
        Ok(deleted)
    }

    pub(super) async fn missing_definitions(
        &self,
        definitions: &[DefinitionId],
    ) -> Result<Vec<DefinitionId>, StoreError> {
        let schema = self.schema();
        let (of_definitions, mut values) = condition(definitions);
        let sql = schema.filled(&format!(
            "SELECT DISTINCT name, version FROM {{sagas}} WHERE due_at <= {{now}} AND NOT {of_definitions} LIMIT ?"
        ));
        values.push(Value::from(MISSING));
        let rows =
            self.work().query_all_raw(schema.statement(&sql, values)).await.map_err(database)?;
        rows.iter()
            .map(|row| Ok((Arc::from(column::<String>(row, 0)?), version(row, 1)?)))
            .collect()
    }
}

/// Gives the condition that a saga is one of these.
pub(super) fn any_of(column: &str, sagas: impl Iterator<Item = SagaId>) -> (String, Vec<Value>) {
    one_of(column, sagas.map(id_value).collect())
}

/// Reads a saga for its claim under the next odd epoch: an odd one before says that its claim was
/// never released.
fn claim(row: &QueryResult) -> Result<SagaClaim, StoreError> {
    let epoch: i64 = column(row, 1)?;
    let name: String = column(row, 2)?;
    let taken_over = epoch % 2 != 0;
    let definition = (name.into(), version(row, 3)?);
    Ok(SagaClaim {
        id: id(row, 0)?,
        epoch: epoch + 1 + i64::from(taken_over),
        definition,
        taken_over,
    })
}

/// Gives the condition that a saga has one of these definitions.
fn condition(definitions: &[DefinitionId]) -> (String, Vec<Value>) {
    let each = vec!["(name = ? AND version = ?)"; definitions.len()].join(" OR ");
    let values = definitions.iter().flat_map(|(name, version)| {
        [Value::from(&**name), Value::from(i32::try_from(*version).unwrap_or(i32::MAX))]
    });
    (format!("({each})"), values.collect())
}
