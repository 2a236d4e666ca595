//! Erases the content of sagas: a person's data, where correlation ids are persons.

use super::row::{column, id, id_value, progress, written};
use crate::{OutboxTransaction, error::database, outbox::Outbox};
use outbox_core::{
    event::SagaId,
    outbox::StoreError,
    saga::{Record, rebuild},
};
use sea_orm::{ConnectionTrait, QueryResult, Value};
use uuid::Uuid;

/// Sagas that one read gives at most.
const CHUNK: usize = 500;
/// Sagas that one read walks over: no index has the correlation id alone.
const WINDOW: u32 = 5_000;

/// The sagas of a correlation id in one window of ids.
pub(crate) struct SagasOf {
    /// Their ids, and whether they have ended.
    pub(crate) sagas: Vec<(SagaId, bool)>,
    /// The last id that the read has walked over; `None` at the end.
    pub(crate) last: Option<SagaId>,
}

impl Outbox {
    /// Reads sagas of a correlation id, also those that a later saga has set aside, in a window
    /// after an id.
    pub(crate) async fn sagas_of(
        &self,
        correlation: &str,
        after: Option<SagaId>,
    ) -> Result<SagasOf, StoreError> {
        let schema = self.schema();
        let after = after.unwrap_or_else(|| SagaId::from_uuid(Uuid::nil()));
        let sql = schema.filled(&format!(
            "SELECT saga_id FROM {{sagas}} WHERE saga_id > ? ORDER BY saga_id LIMIT 1 OFFSET {}",
            WINDOW - 1
        ));
        let statement = schema.statement(&sql, vec![id_value(after)]);
        let row = self.work().query_one_raw(statement).await.map_err(database)?;
        let end = row.map(|row| id(&row, 0)).transpose()?;
        let (in_window, until) = match end {
            Some(end) => (" AND saga_id <= ?", Some(id_value(end))),
            None => ("", None),
        };
        let aside = format!("{correlation}#");
        let sql = schema.filled(&format!(
            "SELECT saga_id, correlation_id, CASE WHEN ended_at IS NULL THEN 0 ELSE 1 END FROM {{sagas}} \
             WHERE saga_id > ?{in_window} AND (correlation_id = ? OR substr(correlation_id, 1, {}) = ?) \
             ORDER BY saga_id LIMIT {CHUNK}",
            aside.chars().count()
        ));
        let values = [
            Some(id_value(after)),
            until,
            Some(Value::from(correlation)),
            Some(Value::from(aside)),
        ];
        let statement = schema.statement(&sql, values.into_iter().flatten().collect());
        let rows = self.work().query_all_raw(statement).await.map_err(database)?;
        let found: Vec<Found> = rows.iter().map(found).collect::<Result<_, StoreError>>()?;
        let last = match found.last() {
            Some(last) if found.len() == CHUNK => Some(last.id),
            _ => end,
        };
        let of = found.into_iter().filter(|found| is_of(&found.correlation, correlation));
        Ok(SagasOf { sagas: of.map(|found| (found.id, found.has_ended)).collect(), last })
    }

    /// Empties the data, the outputs and the texts of a saga that has ended, and its log; `false`
    /// where it has not ended, or where its log cannot be read.
    pub(crate) async fn redact_saga(
        &self,
        tx: &OutboxTransaction,
        saga: SagaId,
    ) -> Result<bool, StoreError> {
        let schema = self.schema();
        let lock = schema.filled(
            "SELECT name FROM {sagas} WHERE saga_id = ? AND ended_at IS NOT NULL{for_update}",
        );
        let statement = schema.statement(&lock, vec![id_value(saga)]);
        if tx.query_one_raw(statement).await.map_err(database)?.is_none() {
            return Ok(false);
        }
        let log = match self.read_log(tx, saga).await {
            Ok(log) => log,
            Err(StoreError::Mismatch(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        let redacted: Vec<Record> = log.iter().map(|entry| entry.record.redacted()).collect();
        let Ok((instance, _)) = rebuild(&redacted) else { return Ok(false) };
        let sql = schema.filled("UPDATE {saga_log} SET body = ? WHERE saga_id = ? AND seq = ?");
        for (entry, record) in log.iter().zip(&redacted) {
            if entry.record != *record {
                let seq = i64::try_from(entry.seq).unwrap_or(i64::MAX);
                let values = vec![Value::from(written(record)?), id_value(saga), Value::from(seq)];
                tx.execute_raw(schema.statement(&sql, values)).await.map_err(database)?;
            }
        }
        let sql = schema.filled("UPDATE {sagas} SET data = ?, progress = ? WHERE saga_id = ?");
        let values = vec![Value::from("{}"), Value::from(progress(&instance)?), id_value(saga)];
        tx.execute_raw(schema.statement(&sql, values)).await.map_err(database)?;
        Ok(true)
    }
}

/// A saga that may be one of a correlation id.
struct Found {
    id: SagaId,
    correlation: String,
    has_ended: bool,
}

fn found(row: &QueryResult) -> Result<Found, StoreError> {
    let has_ended = column::<i32>(row, 2)? != 0;
    Ok(Found { id: id(row, 0)?, correlation: column(row, 1)?, has_ended })
}

/// Tells whether a stored correlation id is this one, or that of a saga that was set aside from it:
/// then the saga's id stands behind it.
fn is_of(stored: &str, correlation: &str) -> bool {
    let aside = stored.strip_prefix(correlation).and_then(|rest| rest.strip_prefix('#'));
    stored == correlation || aside.is_some_and(|id| id.parse::<SagaId>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saga_that_was_set_aside_is_one_of_its_correlation_id() {
        let id = SagaId::generate();
        for (stored, expected) in [
            ("7".to_owned(), true),
            (format!("7#{id}"), true),
            ("7#8".to_owned(), false),
            (format!("17#{id}"), false),
            (format!("7{id}"), false),
            ("77".to_owned(), false),
        ] {
            assert_eq!(is_of(&stored, "7"), expected, "{stored}");
        }
    }
}
