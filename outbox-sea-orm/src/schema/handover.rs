//! Deferred deliveries that wait for an instance that knows their type or saga, and names of
//! handlers.

use super::{Schema, decode::count, deferred_claims::CLAIMABLE, micros};
use outbox_core::outbox::{
    Awaited, AwaitedBy, COUNTED_DELIVERIES, ClaimQuery, DeferredDelivery, StoredDelivery,
};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};
use std::{sync::Arc, time::Duration};

/// Most kinds of awaited things in one list.
const MAX_KINDS: i64 = 1_000;
/// Kinds in the condition of one statement: the database nests a condition of so many parts as
/// deeply.
const CHUNK: usize = 50;
/// The columns of the awaited type or saga, in the order of [`values`].
pub(super) const AWAITS: [&str; 3] = ["awaits_kind", "awaits", "awaits_version"];

/// Gives the values of [`AWAITS`].
pub(super) fn values(awaited: Option<&Awaited>) -> [Value; 3] {
    [
        Value::from(awaited.map(Awaited::kind)),
        Value::from(awaited.map(Awaited::name)),
        Value::from(awaited.map(|awaited| i32::try_from(awaited.version()).unwrap_or(i32::MAX))),
    ]
}

#[doc(hidden)]
impl Schema {
    /// Defers a delivery, to wait for an instance that knows it; one that is deferred already stays
    /// as it is.
    ///
    /// # Errors
    /// The database's error.
    pub async fn hand_over<C: ConnectionTrait>(
        &self,
        conn: &C,
        delivery: &DeferredDelivery<'_>,
        awaited: Option<&Awaited>,
    ) -> Result<(), DbErr> {
        let due_in = Some(delivery.due_in.unwrap_or_default());
        self.insert_delivery(conn, &DeferredDelivery { due_in, ..delivery.clone() }, Some(awaited))
            .await
    }

    /// Lists the types and sagas that deliveries of a consumer wait for.
    ///
    /// # Errors
    /// The database's error.
    pub async fn awaited<C: ConnectionTrait>(
        &self,
        conn: &C,
        consumer: &str,
    ) -> Result<Vec<AwaitedBy>, DbErr> {
        let sql = self.filled(&format!(
            "SELECT DISTINCT handler, {} FROM {{deferred}} WHERE consumer = ? AND awaits_since IS NOT NULL LIMIT ?",
            AWAITS.join(", ")
        ));
        let bound = vec![Value::from(consumer), Value::from(MAX_KINDS)];
        let rows = conn.query_all_raw(self.statement(&sql, bound)).await?;
        rows.iter().map(awaited_by).filter_map(Result::transpose).collect()
    }

    /// Claims deliveries that wait for one of these; they wait no longer.
    ///
    /// # Errors
    /// The database's error; deliveries that were claimed before it are free again after the lease.
    pub async fn claim_awaited<C: ConnectionTrait>(
        &self,
        conn: &C,
        query: &ClaimQuery<'_>,
        known: &[AwaitedBy],
    ) -> Result<Vec<StoredDelivery>, DbErr> {
        let mut claimed = Vec::new();
        for chunk in known.chunks(CHUNK) {
            let left = query.limit.saturating_sub(u32::try_from(claimed.len()).unwrap_or(u32::MAX));
            if left == 0 {
                break;
            }
            let (mut parts, mut bound) =
                (Vec::with_capacity(chunk.len()), Vec::with_capacity(chunk.len() * 4));
            for AwaitedBy { handler, awaited } in chunk {
                bound.push(Value::from(&**handler));
                if awaited.is_some() {
                    parts.push("(d.handler = ? AND d.awaits_kind = ? AND d.awaits = ? AND d.awaits_version = ?)");
                    bound.extend(values(awaited.as_ref()));
                } else {
                    parts.push("(d.handler = ? AND d.awaits_kind IS NULL)");
                }
            }
            let condition = format!("d.awaits_since IS NOT NULL AND ({})", parts.join(" OR "));
            let nothing: String =
                AWAITS.iter().map(|column| format!(", {column} = NULL")).collect();
            let sets = format!(", due_at = {{now}}{nothing}, awaits_since = NULL");
            let query = ClaimQuery { limit: left, ..query.clone() };
            let some = self
                .claim_where(conn, &query, (&condition, bound), (&sets, "awaits_since IS NOT NULL"))
                .await?;
            claimed.extend(some);
        }
        Ok(claimed)
    }

    /// Counts deliveries of a consumer under other names than these.
    ///
    /// # Errors
    /// The database's error.
    pub async fn under_other_names<C: ConnectionTrait>(
        &self,
        conn: &C,
        consumer: &str,
        handlers: &[Arc<str>],
    ) -> Result<Vec<(Arc<str>, u64)>, DbErr> {
        let known = vec!["?"; handlers.len() + 1].join(", ");
        let sql = self.filled(&format!(
            "SELECT o.handler, COUNT(*) FROM (SELECT d.handler FROM {{deferred}} d WHERE d.consumer = ? \
             AND d.handler NOT IN ({known}) LIMIT ?) o GROUP BY o.handler ORDER BY o.handler"
        ));
        let mut bound = vec![Value::from(consumer), Value::from("")];
        bound.extend(handlers.iter().map(|handler| Value::from(&**handler)));
        bound.push(Value::from(i64::from(COUNTED_DELIVERIES)));
        let rows = conn.query_all_raw(self.statement(&sql, bound)).await?;
        let counted = |row: &QueryResult| -> Result<(Arc<str>, u64), DbErr> {
            Ok((
                Arc::from(row.try_get_by_index::<String>(0)?),
                u64::from(count(row.try_get_by_index(1)?)),
            ))
        };
        rows.iter().map(counted).collect()
    }

    /// Lets deliveries under a name wait for an instance that has the handler.
    ///
    /// # Errors
    /// The database's error.
    pub async fn hand_over_all<C: ConnectionTrait>(
        &self,
        conn: &C,
        (consumer, handler): (&str, &str),
        due_in: Duration,
        limit: u32,
    ) -> Result<u64, DbErr> {
        let free = format!("awaits_since IS NULL AND {CLAIMABLE}");
        let sql = self.filled(&format!(
            "SELECT stored_id FROM {{deferred}} WHERE consumer = ? AND handler = ? AND {free} LIMIT ?"
        ));
        let bound =
            vec![Value::from(consumer), Value::from(handler), Value::from(i64::from(limit))];
        let (ids, marks) = self.ids(conn, &sql, bound).await?;
        if ids.is_empty() {
            return Ok(0);
        }
        let sql = self.filled(&format!(
            "UPDATE {{deferred}} SET awaits_since = {{now}}, due_at = {{now}} + ? WHERE stored_id IN ({marks}) AND {free}"
        ));
        let bound = [Value::from(micros(due_in))].into_iter().chain(ids).collect();
        Ok(conn.execute_raw(self.statement(&sql, bound)).await?.rows_affected())
    }

    /// Moves deliveries from one handler's name to another's.
    ///
    /// The first go first. Each is due then: one that was behind another that has gone would wait
    /// for ever.
    ///
    /// # Errors
    /// The database's error.
    pub async fn rename_handler<C: ConnectionTrait>(
        &self,
        conn: &C,
        consumer: &str,
        (from, to): (&str, &str),
        limit: u32,
    ) -> Result<u64, DbErr> {
        let sql = self.filled(
            "SELECT d.stored_id FROM {deferred} d WHERE d.consumer = ? AND d.handler = ? AND NOT EXISTS (SELECT 1 \
             FROM {deferred} e WHERE e.consumer = d.consumer AND e.handler = ? AND e.source = d.source \
             AND e.message_id = d.message_id) ORDER BY d.stored_id LIMIT ?",
        );
        let bound = vec![
            Value::from(consumer),
            Value::from(from),
            Value::from(to),
            Value::from(i64::from(limit)),
        ];
        let (ids, marks) = self.ids(conn, &sql, bound).await?;
        if ids.is_empty() {
            return Ok(0);
        }
        let sql = self.filled(&format!(
            "UPDATE {{deferred}} SET handler = ?, due_at = COALESCE(due_at, {{now}}) \
             WHERE stored_id IN ({marks}) AND handler = ?"
        ));
        let bound = [Value::from(to)].into_iter().chain(ids).chain([Value::from(from)]).collect();
        Ok(conn.execute_raw(self.statement(&sql, bound)).await?.rows_affected())
    }

    /// Reads ids; gives them with as many placeholders.
    async fn ids<C: ConnectionTrait>(
        &self,
        conn: &C,
        sql: &str,
        bound: Vec<Value>,
    ) -> Result<(Vec<Value>, String), DbErr> {
        let rows = conn.query_all_raw(self.statement(sql, bound)).await?;
        let id = |row: &QueryResult| row.try_get_by_index::<i64>(0).map(Value::from);
        let ids = rows.iter().map(id).collect::<Result<Vec<Value>, DbErr>>()?;
        let marks = vec!["?"; ids.len()].join(", ");
        Ok((ids, marks))
    }
}

/// Reads what is waited for; nothing where a later program has written something else.
fn awaited_by(row: &QueryResult) -> Result<Option<AwaitedBy>, DbErr> {
    let (handler, kind): (String, Option<String>) =
        (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
    let Some(kind) = kind else {
        return Ok(Some(AwaitedBy { handler: handler.into(), awaited: None }));
    };
    let (name, version): (String, i32) = (row.try_get_by_index(2)?, row.try_get_by_index(3)?);
    let awaited = Awaited::from_stored(&kind, name, u32::try_from(version).unwrap_or(0));
    Ok(awaited.map(|awaited| AwaitedBy { handler: handler.into(), awaited: Some(awaited) }))
}
