//! Deferred deliveries, as the retrier claims, runs and releases them.

use super::{
    Schema,
    decode::{Layout, count, get, history, message, span, unplaced},
    deferred::failing,
    handover, micros,
};
use crate::chunks::{RESULT_BYTES, fitting_count};
use crate::dialect::EVENT_COLUMNS;
use outbox_core::{
    event::{EventId, LetterId},
    outbox::{Awaited, ClaimQuery, Deferral, DeliveryClaim, History, InboxKey, StoredDelivery},
};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};
use std::{sync::Arc, time::Duration};

/// Index of the first column behind those of the event.
const AFTER: usize = 12;
const LAYOUT: Layout = Layout { event: 2, created_at: AFTER, expires_at: AFTER + 1 };
/// The condition that no instance has claimed a delivery.
pub(crate) const CLAIMABLE: &str = "(claimed_until IS NULL OR claimed_until < {now})";

#[doc(hidden)]
impl Schema {
    /// Claims deliveries that are due, only the first with each order hash, and as many as one
    /// result takes by their bytes.
    ///
    /// Each is claimed by a statement of its own, which has no effect where another instance has
    /// claimed it.
    ///
    /// # Errors
    /// The database's error; deliveries that were claimed before it are released again after the
    /// lease.
    pub async fn claim_deliveries<C: ConnectionTrait>(
        &self,
        conn: &C,
        query: &ClaimQuery<'_>,
    ) -> Result<Vec<StoredDelivery>, DbErr> {
        let handlers = vec!["?"; query.handlers.len()].join(", ");
        let condition = format!("d.due_at <= {{now}} AND d.handler IN ({handlers})");
        let bound = query.handlers.iter().map(|handler| Value::from(&**handler)).collect();
        self.claim_where(conn, query, (&condition, bound), ("", "due_at <= {now}")).await
    }

    /// Claims deliveries for which a condition holds, only the first with each order hash; the
    /// UPDATE has the further assignments `sets`, where the condition `still` holds.
    pub(super) async fn claim_where<C: ConnectionTrait>(
        &self,
        conn: &C,
        query: &ClaimQuery<'_>,
        (condition, condition_values): (&str, Vec<Value>),
        (sets, still): (&str, &str),
    ) -> Result<Vec<StoredDelivery>, DbErr> {
        let sql = self.filled(&format!(
            "SELECT d.stored_id, {} FROM {{deferred}} d WHERE d.consumer = ? AND {condition} \
             AND (d.claimed_until IS NULL OR d.claimed_until < {{now}}) AND NOT EXISTS (SELECT 1 FROM {{deferred}} e \
             WHERE e.consumer = d.consumer AND e.handler = d.handler AND e.order_hash = d.order_hash AND e.stored_id < d.stored_id) \
             ORDER BY d.due_at, d.stored_id LIMIT ?",
            self.dialect.bytes_of(&["d.payload", "d.headers", "d.errors"])
        ));
        let mut bound = vec![Value::from(query.consumer)];
        bound.extend(condition_values);
        bound.push(Value::from(i64::from(query.limit)));
        let due = conn.query_all_raw(self.statement(&sql, bound)).await?;
        let id_and_size = |row: &QueryResult| -> Result<(i64, usize), DbErr> {
            Ok((
                row.try_get_by_index(0)?,
                usize::try_from(row.try_get_by_index::<i64>(1)?).unwrap_or(0),
            ))
        };
        let due: Vec<(i64, usize)> = due.iter().map(id_and_size).collect::<Result<_, _>>()?;
        let due = &due[..fitting_count(due.iter().map(|(_, size)| *size), RESULT_BYTES)];
        let take = self.filled(&format!(
            "UPDATE {{deferred}} SET claimed_by = ?, claimed_until = {{now}} + ?{sets} WHERE stored_id = ? \
             AND {still} AND {CLAIMABLE}"
        ));
        let mut claimed = Vec::with_capacity(due.len());
        for (id, _) in due {
            let bound =
                vec![Value::from(&**query.by), Value::from(micros(query.lease)), Value::from(*id)];
            if conn.execute_raw(self.statement(&take, bound)).await?.rows_affected() > 0 {
                claimed.push(*id);
            }
        }
        if claimed.is_empty() {
            return Ok(Vec::new());
        }
        let sql = self.filled(&format!(
            "SELECT d.stored_id, COALESCE(d.sequence_no, 0), {EVENT_COLUMNS}, d.created_at, d.expires_at, d.handler, \
             d.attempts_started, d.attempts_finished, d.failures, {{now}} - d.failing_since, d.errors, d.letter_id, \
             d.expires_at - {{now}}, {{now}} - d.awaits_since FROM {{deferred}} d WHERE d.stored_id IN ({}) \
             AND d.claimed_by = ? ORDER BY d.due_at, d.stored_id",
            vec!["?"; claimed.len()].join(", ")
        ));
        let bound =
            claimed.into_iter().map(Value::from).chain([Value::from(&**query.by)]).collect();
        let rows = conn.query_all_raw(self.statement(&sql, bound)).await?;
        let read = |row: &QueryResult| -> Result<StoredDelivery, DbErr> {
            delivery(row, DeliveryClaim { id: row.try_get_by_index(0)?, by: Arc::clone(query.by) })
        };
        rows.iter().map(read).collect()
    }

    /// Claims the one deferred delivery of a message that has no attempt yet, and counts one that
    /// starts now.
    ///
    /// # Errors
    /// The database's error.
    pub async fn claim_new<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: InboxKey<'_>,
        by: &Arc<str>,
        lease: Duration,
    ) -> Result<Option<DeliveryClaim>, DbErr> {
        let sql = self.filled(
            "SELECT d.stored_id FROM {deferred} d WHERE d.consumer = ? AND d.handler = ? AND d.source = ? \
             AND d.message_id = ? AND NOT EXISTS (SELECT 1 FROM {deferred} e WHERE e.consumer = d.consumer \
             AND e.handler = d.handler AND e.order_hash = d.order_hash AND e.stored_id < d.stored_id)",
        );
        let Some(row) =
            conn.query_one_raw(self.statement(&sql, super::inbox::values(&key))).await?
        else {
            return Ok(None);
        };
        let id: i64 = row.try_get_by_index(0)?;
        let take = self.filled(
            "UPDATE {deferred} SET claimed_by = ?, claimed_until = {now} + ?, attempts_started = 1 \
             WHERE stored_id = ? AND attempts_started = 0 AND claimed_until IS NULL AND due_at <= {now}",
        );
        let bound = vec![Value::from(&**by), Value::from(micros(lease)), Value::from(id)];
        let taken = conn.execute_raw(self.statement(&take, bound)).await?.rows_affected() > 0;
        Ok(taken.then(|| DeliveryClaim { id, by: Arc::clone(by) }))
    }

    /// Extends a claim; `begins` counts an attempt that starts now. `false` when the claim is lost.
    ///
    /// # Errors
    /// The database's error.
    pub async fn extend_claim<C: ConnectionTrait>(
        &self,
        conn: &C,
        claim: &DeliveryClaim,
        lease: Duration,
        begins: bool,
    ) -> Result<bool, DbErr> {
        let sql = self.filled(
            "UPDATE {deferred} SET claimed_until = {now} + ?, attempts_started = attempts_started + ? \
             WHERE stored_id = ? AND claimed_by = ?",
        );
        let bound = vec![
            Value::from(micros(lease)),
            Value::from(i64::from(begins)),
            Value::from(claim.id),
            Value::from(&*claim.by),
        ];
        Ok(conn.execute_raw(self.statement(&sql, bound)).await?.rows_affected() > 0)
    }

    /// Releases a delivery, to be due later; without a deferral as it was before the attempt began,
    /// due at once. One that is `handed_over` waits for an instance that knows it. `false` when the
    /// claim is lost.
    ///
    /// # Errors
    /// The database's error.
    pub async fn reschedule_delivery<C: ConnectionTrait>(
        &self,
        conn: &C,
        claim: &DeliveryClaim,
        deferral: Option<Deferral<'_>>,
        handed_over: Option<Option<&Awaited>>,
    ) -> Result<bool, DbErr> {
        let released = "claimed_by = NULL, claimed_until = NULL";
        let [kind, name, version] = handover::AWAITS;
        let since = if handed_over.is_some() { "COALESCE(awaits_since, {now})" } else { "NULL" };
        let awaits = format!("{kind} = ?, {name} = ?, {version} = ?, awaits_since = {since}");
        let (sql, mut bound) = match deferral {
            None => (
                format!("due_at = {{now}}, attempts_started = attempts_finished, {released}"),
                Vec::new(),
            ),
            Some(Deferral { due_in, history }) => (
                format!(
                    "due_at = {{now}} + ?, attempts_started = ?, attempts_finished = ?, failures = ?, \
                     failing_since = COALESCE(failing_since, {{now}} - ?), errors = ?, {awaits}, {released}"
                ),
                vec![
                    Value::from(micros(due_in)),
                    Value::from(i64::from(history.attempts)),
                    Value::from(i64::from(history.attempts)),
                    Value::from(i64::from(history.failures)),
                    Value::from(failing(history)),
                    Value::from(self.errors(conn, &history.errors).await?),
                ]
                .into_iter()
                .chain(handover::values(handed_over.flatten()))
                .collect(),
            ),
        };
        let sql = self.filled(&format!(
            "UPDATE {{deferred}} SET {sql} WHERE stored_id = ? AND claimed_by = ?"
        ));
        bound.extend([Value::from(claim.id), Value::from(&*claim.by)]);
        Ok(conn.execute_raw(self.statement(&sql, bound)).await?.rows_affected() > 0)
    }
}

fn delivery(row: &QueryResult, claim: DeliveryClaim) -> Result<StoredDelivery, DbErr> {
    let read = |at: usize| row.try_get_by_index::<i64>(AFTER + at).map(count);
    let failing: Option<i64> = row.try_get_by_index(AFTER + 6)?;
    let sequence: i64 = row.try_get_by_index(1)?;
    let time_left: Option<i64> = row.try_get_by_index(AFTER + 9)?;
    let awaited_for: Option<i64> = row.try_get_by_index(AFTER + 10)?;
    Ok(StoredDelivery {
        claim,
        handler: Arc::from(get::<String>(row, AFTER + 2, "handler").map_err(DbErr::Type)?),
        message: message(row, EventId(sequence), &LAYOUT).map(unplaced),
        started: read(3)?,
        expired: time_left.is_some_and(|handed_over| handed_over <= 0),
        awaited_for: awaited_for.map(span),
        history: History {
            attempts: read(4)?,
            failures: read(5)?,
            failing_for: failing.map(span).unwrap_or_default(),
            errors: history(&row.try_get_by_index::<String>(AFTER + 7)?),
            letter: row.try_get_by_index::<Option<i64>>(AFTER + 8)?.map(LetterId),
        },
    })
}
