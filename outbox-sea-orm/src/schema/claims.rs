//! Stored deliveries as the retrier sees them: claimed for a time, run, given back.

use super::{Schema, append::EVENT_COLUMNS, barrier::BARRIER_KEY, deliveries::failing, micros};
use crate::store::decode::{Layout, count, get, history, message, span, unplaced};
use outbox_core::{
    event::{EventId, LetterId},
    outbox::{Claim, ClaimQuery, History, Postponed, StoredDelivery},
};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};
use std::{sync::Arc, time::Duration};

/// Where the columns of a message stand, and those behind them begin.
const AFTER: usize = 12;
const LAYOUT: Layout = Layout { event: 2, created_at: AFTER, expires_at: AFTER + 1 };

impl Schema {
    /// Claims deliveries that are due, the first of each lane only.
    ///
    /// Each is claimed by a statement of its own, which whoever comes second finds without effect.
    ///
    /// # Errors
    /// What the database said; what was claimed before that is free again after the lease.
    pub async fn claim_deliveries<C: ConnectionTrait>(
        &self,
        conn: &C,
        query: &ClaimQuery<'_>,
    ) -> Result<Vec<StoredDelivery>, DbErr> {
        let known = vec!["?"; query.handlers.len()].join(", ");
        let text = self.sql(&format!(
            "SELECT d.stored_id, COALESCE(d.sequence_no, 0), {EVENT_COLUMNS}, d.created_at, d.expires_at, d.handler, \
             d.attempts_started, d.attempts_finished, d.failures, {{now}} - d.failing_since, d.errors, d.letter_id, \
             d.expires_at - {{now}} \
             FROM {{deliveries}} d WHERE d.consumer = ? AND d.due_at <= {{now}} \
             AND (d.claimed_until IS NULL OR d.claimed_until < {{now}}) AND d.handler IN ({known}) \
             AND NOT EXISTS (SELECT 1 FROM {{deliveries}} e WHERE e.consumer = d.consumer AND e.handler = d.handler \
             AND e.lane = d.lane AND e.stored_id < d.stored_id) ORDER BY d.due_at, d.stored_id LIMIT ?"
        ));
        let mut bound = vec![Value::from(query.consumer)];
        bound.extend(query.handlers.iter().map(|handler| Value::from(&**handler)));
        bound.push(Value::from(i64::from(query.limit)));
        let due = conn.query_all_raw(self.statement(&text, bound)).await?;
        let take = self.sql(
            "UPDATE {deliveries} SET claimed_by = ?, claimed_until = {now} + ? WHERE stored_id = ? \
             AND due_at <= {now} AND (claimed_until IS NULL OR claimed_until < {now})",
        );
        let mut claimed = Vec::with_capacity(due.len());
        for row in due {
            let id: i64 = row.try_get_by_index(0)?;
            let bound = vec![Value::from(&**query.by), Value::from(micros(query.lease)), Value::from(id)];
            if conn.execute_raw(self.statement(&take, bound)).await?.rows_affected() > 0 {
                claimed.push(delivery(&row, Claim { id, by: Arc::clone(query.by) })?);
            }
        }
        Ok(claimed)
    }

    /// Prolongs a claim; `begins` counts a run that starts now. `false` when the claim is lost.
    ///
    /// # Errors
    /// What the database said.
    pub async fn prolong_claim<C: ConnectionTrait>(
        &self,
        conn: &C,
        claim: &Claim,
        lease: Duration,
        begins: bool,
    ) -> Result<bool, DbErr> {
        let text = self.sql(
            "UPDATE {deliveries} SET claimed_until = {now} + ?, attempts_started = attempts_started + ? \
             WHERE stored_id = ? AND claimed_by = ?",
        );
        let bound = vec![
            Value::from(micros(lease)),
            Value::from(i64::from(begins)),
            Value::from(claim.id),
            Value::from(&*claim.by),
        ];
        Ok(conn.execute_raw(self.statement(&text, bound)).await?.rows_affected() > 0)
    }

    /// Gives a delivery back; without a history as it was when its run was begun, due at once. `false` when the claim is
    /// lost.
    ///
    /// # Errors
    /// What the database said.
    pub async fn postpone_delivery<C: ConnectionTrait>(
        &self,
        conn: &C,
        claim: &Claim,
        postponed: Option<Postponed<'_>>,
    ) -> Result<bool, DbErr> {
        let free = "claimed_by = NULL, claimed_until = NULL";
        let (text, mut bound) = match postponed {
            None => (format!("due_at = {{now}}, attempts_started = attempts_finished, {free}"), Vec::new()),
            Some(Postponed { due_in, history }) => (
                format!(
                    "due_at = {{now}} + ?, attempts_started = ?, attempts_finished = ?, failures = ?, \
                     failing_since = COALESCE(failing_since, {{now}} - ?), errors = ?, {free}"
                ),
                vec![
                    Value::from(micros(due_in)),
                    Value::from(i64::from(history.runs)),
                    Value::from(i64::from(history.runs)),
                    Value::from(i64::from(history.failures)),
                    Value::from(failing(history)),
                    Value::from(self.errors(conn, &history.errors).await?),
                ],
            ),
        };
        let text = self.sql(&format!("UPDATE {{deliveries}} SET {text} WHERE stored_id = ? AND claimed_by = ?"));
        bound.extend([Value::from(claim.id), Value::from(&*claim.by)]);
        Ok(conn.execute_raw(self.statement(&text, bound)).await?.rows_affected() > 0)
    }

    /// Deletes rows of the inbox and of the barrier whose time is over, at most `limit` of both; gives how many went.
    ///
    /// # Errors
    /// What the database said.
    pub async fn forget_received<C: ConnectionTrait>(&self, conn: &C, limit: u32) -> Result<u64, DbErr> {
        let over = "keep_until < {now}";
        let mut gone = 0;
        for (table, key) in [("{inbox}", "consumer, handler, source, message_id"), ("{barrier}", BARRIER_KEY)] {
            let left = u64::from(limit).saturating_sub(gone);
            if left > 0 {
                let text = self.sql(&self.dialect.prune(table, key, over));
                let bound = vec![Value::from(left.cast_signed())];
                gone += conn.execute_raw(self.statement(&text, bound)).await?.rows_affected();
            }
        }
        Ok(gone)
    }
}

fn delivery(row: &QueryResult, claim: Claim) -> Result<StoredDelivery, DbErr> {
    let read = |at: usize| row.try_get_by_index::<i64>(AFTER + at).map(count);
    let failing: Option<i64> = row.try_get_by_index(AFTER + 6)?;
    let sequence: i64 = row.try_get_by_index(1)?;
    let time_left: Option<i64> = row.try_get_by_index(AFTER + 9)?;
    Ok(StoredDelivery {
        claim,
        handler: Arc::from(get::<String>(row, AFTER + 2, "handler").map_err(DbErr::Type)?),
        message: message(row, EventId(sequence), &LAYOUT).map(unplaced),
        started: read(3)?,
        expired: time_left.is_some_and(|left| left <= 0),
        history: History {
            runs: read(4)?,
            failures: read(5)?,
            failing_for: failing.map(span).unwrap_or_default(),
            errors: history(&row.try_get_by_index::<String>(AFTER + 7)?),
            letter: row.try_get_by_index::<Option<i64>>(AFTER + 8)?.map(LetterId),
        },
    })
}
