//! Stored deliveries as the retrier sees them: claimed for a time, run, given back.

use super::{Schema, append::EVENT_COLUMNS, deliveries::failing, handover, micros};
use crate::cut::{ANSWER_BYTES, fitting};
use crate::store::decode::{Layout, count, get, history, message, span, unplaced};
use outbox_core::{
    event::{EventId, LetterId},
    outbox::{Awaited, Claim, ClaimQuery, History, InboxKey, Postponed, StoredDelivery},
};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};
use std::{sync::Arc, time::Duration};

/// Where the columns of a message stand, and those behind them begin.
const AFTER: usize = 12;
const LAYOUT: Layout = Layout { event: 2, created_at: AFTER, expires_at: AFTER + 1 };
/// That nobody has a delivery at the moment.
pub(super) const CLAIMABLE: &str = "(claimed_until IS NULL OR claimed_until < {now})";

impl Schema {
    /// Claims deliveries that are due, the first of each lane only, and as many as one answer takes by their bytes.
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
        let condition = format!("d.due_at <= {{now}} AND d.handler IN ({known})");
        let bound = query.handlers.iter().map(|handler| Value::from(&**handler)).collect();
        self.claim_where(conn, query, (&condition, bound), ("", "due_at <= {now}")).await
    }

    /// Claims deliveries for which a condition holds, the first of each lane only; `sets` is what is changed of one then, where
    /// `still` holds.
    pub(super) async fn claim_where<C: ConnectionTrait>(
        &self,
        conn: &C,
        query: &ClaimQuery<'_>,
        (condition, bound_to): (&str, Vec<Value>),
        (sets, still): (&str, &str),
    ) -> Result<Vec<StoredDelivery>, DbErr> {
        let text = self.filled(&format!(
            "SELECT d.stored_id, {} FROM {{deliveries}} d WHERE d.consumer = ? AND {condition} \
             AND (d.claimed_until IS NULL OR d.claimed_until < {{now}}) AND NOT EXISTS (SELECT 1 FROM {{deliveries}} e \
             WHERE e.consumer = d.consumer AND e.handler = d.handler AND e.lane = d.lane AND e.stored_id < d.stored_id) \
             ORDER BY d.due_at, d.stored_id LIMIT ?",
            self.dialect.bytes_of(&["d.payload", "d.headers", "d.errors"])
        ));
        let mut bound = vec![Value::from(query.consumer)];
        bound.extend(bound_to);
        bound.push(Value::from(i64::from(query.limit)));
        let due = conn.query_all_raw(self.statement(&text, bound)).await?;
        let id_and_size = |row: &QueryResult| -> Result<(i64, usize), DbErr> {
            Ok((
                row.try_get_by_index(0)?,
                usize::try_from(row.try_get_by_index::<i64>(1)?).unwrap_or(0),
            ))
        };
        let due: Vec<(i64, usize)> = due.iter().map(id_and_size).collect::<Result<_, _>>()?;
        let due = &due[..fitting(due.iter().map(|(_, size)| *size), ANSWER_BYTES)];
        let take = self.filled(&format!(
            "UPDATE {{deliveries}} SET claimed_by = ?, claimed_until = {{now}} + ?{sets} WHERE stored_id = ? \
             AND {still} AND {CLAIMABLE}"
        ));
        let mut mine = Vec::with_capacity(due.len());
        for (id, _) in due {
            let bound =
                vec![Value::from(&**query.by), Value::from(micros(query.lease)), Value::from(*id)];
            if conn.execute_raw(self.statement(&take, bound)).await?.rows_affected() > 0 {
                mine.push(*id);
            }
        }
        if mine.is_empty() {
            return Ok(Vec::new());
        }
        let text = self.filled(&format!(
            "SELECT d.stored_id, COALESCE(d.sequence_no, 0), {EVENT_COLUMNS}, d.created_at, d.expires_at, d.handler, \
             d.attempts_started, d.attempts_finished, d.failures, {{now}} - d.failing_since, d.errors, d.letter_id, \
             d.expires_at - {{now}}, {{now}} - d.awaits_since FROM {{deliveries}} d WHERE d.stored_id IN ({}) \
             AND d.claimed_by = ? ORDER BY d.due_at, d.stored_id",
            vec!["?"; mine.len()].join(", ")
        ));
        let bound = mine.into_iter().map(Value::from).chain([Value::from(&**query.by)]).collect();
        let rows = conn.query_all_raw(self.statement(&text, bound)).await?;
        let claimed = |row: &QueryResult| -> Result<StoredDelivery, DbErr> {
            delivery(row, Claim { id: row.try_get_by_index(0)?, by: Arc::clone(query.by) })
        };
        rows.iter().map(claimed).collect()
    }

    /// Claims the one stored delivery of a message that was not begun yet, and counts a run that starts now.
    ///
    /// # Errors
    /// What the database said.
    pub async fn claim_new<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: InboxKey<'_>,
        by: &Arc<str>,
        lease: Duration,
    ) -> Result<Option<Claim>, DbErr> {
        let text = self.filled(
            "SELECT d.stored_id FROM {deliveries} d WHERE d.consumer = ? AND d.handler = ? AND d.source = ? \
             AND d.message_id = ? AND NOT EXISTS (SELECT 1 FROM {deliveries} e WHERE e.consumer = d.consumer \
             AND e.handler = d.handler AND e.lane = d.lane AND e.stored_id < d.stored_id)",
        );
        let Some(row) =
            conn.query_one_raw(self.statement(&text, super::inbox::values(&key))).await?
        else {
            return Ok(None);
        };
        let id: i64 = row.try_get_by_index(0)?;
        let take = self.filled(
            "UPDATE {deliveries} SET claimed_by = ?, claimed_until = {now} + ?, attempts_started = 1 \
             WHERE stored_id = ? AND attempts_started = 0 AND claimed_until IS NULL AND due_at <= {now}",
        );
        let bound = vec![Value::from(&**by), Value::from(micros(lease)), Value::from(id)];
        let taken = conn.execute_raw(self.statement(&take, bound)).await?.rows_affected() > 0;
        Ok(taken.then(|| Claim { id, by: Arc::clone(by) }))
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
        let text = self.filled(
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

    /// Gives a delivery back; without a history as it was when its run was begun, due at once. One that is `left` waits for an
    /// instance that knows it. `false` when the claim is lost.
    ///
    /// # Errors
    /// What the database said.
    pub async fn postpone_delivery<C: ConnectionTrait>(
        &self,
        conn: &C,
        claim: &Claim,
        postponed: Option<Postponed<'_>>,
        left: Option<Option<&Awaited>>,
    ) -> Result<bool, DbErr> {
        let free = "claimed_by = NULL, claimed_until = NULL";
        let [kind, name, version] = handover::AWAITS;
        let since = if left.is_some() { "COALESCE(awaits_since, {now})" } else { "NULL" };
        let awaits = format!("{kind} = ?, {name} = ?, {version} = ?, awaits_since = {since}");
        let (text, mut bound) = match postponed {
            None => (
                format!("due_at = {{now}}, attempts_started = attempts_finished, {free}"),
                Vec::new(),
            ),
            Some(Postponed { due_in, history }) => (
                format!(
                    "due_at = {{now}} + ?, attempts_started = ?, attempts_finished = ?, failures = ?, \
                     failing_since = COALESCE(failing_since, {{now}} - ?), errors = ?, {awaits}, {free}"
                ),
                vec![
                    Value::from(micros(due_in)),
                    Value::from(i64::from(history.runs)),
                    Value::from(i64::from(history.runs)),
                    Value::from(i64::from(history.failures)),
                    Value::from(failing(history)),
                    Value::from(self.errors(conn, &history.errors).await?),
                ]
                .into_iter()
                .chain(handover::values(left.flatten()))
                .collect(),
            ),
        };
        let text = self.filled(&format!(
            "UPDATE {{deliveries}} SET {text} WHERE stored_id = ? AND claimed_by = ?"
        ));
        bound.extend([Value::from(claim.id), Value::from(&*claim.by)]);
        Ok(conn.execute_raw(self.statement(&text, bound)).await?.rows_affected() > 0)
    }
}

fn delivery(row: &QueryResult, claim: Claim) -> Result<StoredDelivery, DbErr> {
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
        expired: time_left.is_some_and(|left| left <= 0),
        awaited_for: awaited_for.map(span),
        history: History {
            runs: read(4)?,
            failures: read(5)?,
            failing_for: failing.map(span).unwrap_or_default(),
            errors: history(&row.try_get_by_index::<String>(AFTER + 7)?),
            letter: row.try_get_by_index::<Option<i64>>(AFTER + 8)?.map(LetterId),
        },
    })
}
