//! Rows of plans: what an act selects, and how far it is.

use super::{column, filter::condition};
use crate::{
    error::database,
    outbox::Outbox,
    schema::{AuditCounts, micros},
};
use outbox_core::{
    admin::{Act, AuditOutcome, DeadLetterFilter, PlanId},
    event::{LetterId, Timestamp},
    outbox::StoreError,
};
use sea_orm::{ConnectionTrait, Value};

/// What an act selects: the letters of a filter that were open when it was planned.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    pub(super) filter: DeadLetterFilter,
    /// The highest letter of the plan.
    pub(super) up_to: LetterId,
    /// When it was planned: microseconds since 1970-01-01 UTC, by the database's clock.
    pub(super) planned_at: i64,
}

impl Selection {
    /// Writes the condition of the letters between two that are open now.
    pub(super) fn open(&self, after: i64, up_to: LetterId) -> (String, Vec<Value>) {
        self.condition(after, up_to, false)
    }

    /// Writes the condition of the letters between two that were resolved since the plan.
    pub(super) fn resolved(&self, after: i64, up_to: LetterId) -> (String, Vec<Value>) {
        let (condition, mut values) = self.condition(after, up_to, true);
        values.push(Value::from(self.planned_at));
        (format!("{condition} AND resolved_at >= ?"), values)
    }

    fn condition(&self, after: i64, up_to: LetterId, resolved: bool) -> (String, Vec<Value>) {
        let mut filter = self.filter.clone();
        (filter.up_to, filter.include_resolved) = (Some(up_to), resolved);
        // An age is one at the time of the plan: letters do not come of age into it.
        let age = filter.older_than.take();
        let (mut condition, mut values) = condition(&filter, Some(LetterId(after)));
        if let Some(age) = age {
            condition.push_str(" AND dead_at <= ?");
            values.push(Value::from(self.planned_at.saturating_sub(micros(age))));
        }
        (condition, values)
    }
}

/// A plan as it is stored.
#[derive(Debug, Clone)]
pub(super) struct StoredPlan {
    pub(super) id: PlanId,
    pub(super) act: Act,
    pub(super) selection: Selection,
    /// The last letter that a chunk has looked at; 0 before the first chunk.
    pub(super) after: i64,
    pub(super) expires_at: i64,
    /// The row of the audit, from the first chunk on.
    pub(super) audit: Option<StoredAudit>,
    /// The database's time at the read.
    pub(super) now: i64,
}

/// The row of the audit of a plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredAudit {
    pub(super) id: i64,
    pub(super) counts: AuditCounts,
    pub(super) outcome: AuditOutcome,
}

impl StoredPlan {
    /// Refuses a plan that has ended, or that has expired before its first chunk.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let id = self.id;
        match self.audit {
            Some(StoredAudit { counts, outcome, .. }) if outcome != AuditOutcome::Running => {
                let AuditCounts { done, skipped, refused } = counts;
                Err(refusal(format!(
                    "plan {id} has ended as {}: {} {done} letters, {skipped} skipped, {refused} refused; \
                     plan again for those that are open",
                    outcome.as_str(),
                    past(self.act)
                )))
            }
            None if self.expires_at <= self.now => {
                let at = Timestamp::from_micros(self.expires_at);
                Err(refusal(format!("plan {id} has expired at {at}: plan again")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Names what an act has done.
fn past(act: Act) -> &'static str {
    match act {
        Act::Redrive => "redrove",
        Act::Discard => "discarded",
        Act::Purge => "purged",
        _ => "resolved",
    }
}

/// Makes the error of a refused act.
pub(super) fn refusal(text: String) -> StoreError {
    StoreError::Refused(text.into())
}

impl Outbox {
    /// Reads a plan that must exist; see [`find_plan`](Self::find_plan).
    pub(super) async fn read_plan<C: ConnectionTrait>(
        &self,
        conn: &C,
        plan: PlanId,
        lock: bool,
    ) -> Result<StoredPlan, StoreError> {
        self.find_plan(conn, plan, lock).await?.ok_or_else(|| {
            let text =
                format!("plan {plan} does not exist, or has expired and was deleted: plan again");
            refusal(text)
        })
    }

    /// Reads a plan with its row of the audit; `lock` locks it until the transaction ends, so that
    /// two that apply it take turns.
    pub(super) async fn find_plan<C: ConnectionTrait>(
        &self,
        conn: &C,
        plan: PlanId,
        lock: bool,
    ) -> Result<Option<StoredPlan>, StoreError> {
        let schema = self.schema();
        let lock = if lock { "{for_update}" } else { "" };
        let sql = schema.filled(&format!(
            "SELECT act, selection, up_to, after_letter, planned_at, expires_at, audit_id, {{now}} FROM {{plans}} \
             WHERE plan_id = ?{lock}"
        ));
        let row = conn
            .query_one_raw(schema.statement(&sql, vec![Value::from(plan.0)]))
            .await
            .map_err(database)?;
        let Some(row) = row else { return Ok(None) };
        let (act, filter): (String, String) = (column(&row, 0)?, column(&row, 1)?);
        let unknown =
            |what: &str| StoreError::Mismatch(format!("the {what} of plan {plan} cannot be read"));
        let audit = match column::<Option<i64>>(&row, 6)? {
            Some(audit) => self.read_audit(conn, audit).await?,
            None => None,
        };
        Ok(Some(StoredPlan {
            id: plan,
            act: act.parse().map_err(|()| unknown("act"))?,
            selection: Selection {
                filter: serde_json::from_str(&filter).map_err(|_| unknown("selection"))?,
                up_to: LetterId(column(&row, 2)?),
                planned_at: column(&row, 4)?,
            },
            after: column(&row, 3)?,
            expires_at: column(&row, 5)?,
            audit,
            now: column(&row, 7)?,
        }))
    }

    async fn read_audit<C: ConnectionTrait>(
        &self,
        conn: &C,
        audit: i64,
    ) -> Result<Option<StoredAudit>, StoreError> {
        let schema = self.schema();
        let sql =
            schema.filled("SELECT done, skipped, refused, outcome FROM {audit} WHERE audit_id = ?");
        let row = conn
            .query_one_raw(schema.statement(&sql, vec![Value::from(audit)]))
            .await
            .map_err(database)?;
        let Some(row) = row else { return Ok(None) };
        let count = |index| column::<i64>(&row, index).map(i64::unsigned_abs);
        Ok(Some(StoredAudit {
            id: audit,
            counts: AuditCounts { done: count(0)?, skipped: count(1)?, refused: count(2)? },
            outcome: outcome(&column::<String>(&row, 3)?)?,
        }))
    }

    /// Refuses one letter that does not exist or is resolved, by whom and when.
    pub(super) async fn check_letter<C: ConnectionTrait>(
        &self,
        conn: &C,
        letter: LetterId,
    ) -> Result<(), StoreError> {
        let schema = self.schema();
        let sql = schema.filled(
            "SELECT resolution, resolved_by, resolved_at FROM {letters} WHERE letter_id = ?",
        );
        let row = conn
            .query_one_raw(schema.statement(&sql, vec![Value::from(letter.0)]))
            .await
            .map_err(database)?;
        let Some(row) = row else {
            return Err(refusal(format!("letter {letter} does not exist")));
        };
        let Some(resolution) = column::<Option<String>>(&row, 0)? else { return Ok(()) };
        let by = column::<Option<String>>(&row, 1)?.unwrap_or_default();
        let at = Timestamp::from_micros(column::<Option<i64>>(&row, 2)?.unwrap_or_default());
        Err(refusal(format!("letter {letter} was {resolution} by {by} at {at}")))
    }
}

/// Reads how an act has ended.
pub(super) fn outcome(text: &str) -> Result<AuditOutcome, StoreError> {
    text.parse().map_err(|()| StoreError::Mismatch(format!("no outcome of an act: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn plan(audit: Option<(AuditOutcome, u64)>, expires_at: i64) -> StoredPlan {
        let audit = audit.map(|(outcome, done)| StoredAudit {
            id: 1,
            counts: AuditCounts { done, skipped: 2, refused: 1 },
            outcome,
        });
        let selection =
            Selection { filter: DeadLetterFilter::all(), up_to: LetterId(9), planned_at: 0 };
        StoredPlan {
            id: PlanId(7),
            act: Act::Redrive,
            selection,
            after: 0,
            expires_at,
            audit,
            now: 1_000_000,
        }
    }

    #[test]
    fn a_plan_is_refused_when_it_has_ended_or_expired_before_its_first_chunk() {
        let ended = |outcome| {
            format!(
                "plan 7 has ended as {outcome}: redrove 5 letters, 2 skipped, 1 refused; plan again for those that \
                 are open"
            )
        };
        let expired = "plan 7 has expired at 1970-01-01T00:00:01Z: plan again".to_owned();
        for (audit, expires_at, expected) in [
            (None, 1_000_001, None),
            (None, 1_000_000, Some(expired)),
            (Some((AuditOutcome::Running, 5)), 0, None),
            (Some((AuditOutcome::Done, 5)), 2_000_000, Some(ended("done"))),
            (Some((AuditOutcome::Stopped, 5)), 0, Some(ended("stopped"))),
            (Some((AuditOutcome::Cancelled, 5)), 0, Some(ended("cancelled"))),
        ] {
            let refused = plan(audit, expires_at).check().err().map(|error| match error {
                StoreError::Refused(why) => why.to_string(),
                other => panic!("{other}"),
            });
            assert_eq!(refused, expected, "{audit:?}, {expires_at}");
        }
    }

    #[test]
    fn an_age_is_one_at_the_time_of_the_plan_and_the_bound_is_the_plans() {
        let filter = DeadLetterFilter {
            up_to: Some(LetterId(99)),
            ..DeadLetterFilter::all().older_than(Duration::from_secs(1))
        };
        let selection = Selection { filter, up_to: LetterId(9), planned_at: 5_000_000 };
        let (condition, values) = selection.open(3, LetterId(9));
        assert_eq!(
            condition,
            "1 = 1 AND letter_id <= ? AND resolution IS NULL AND letter_id > ? AND dead_at <= ?"
        );
        assert_eq!(values, [9_i64, 3, 4_000_000].map(Value::from));
        let (condition, values) = selection.resolved(3, LetterId(4));
        assert_eq!(
            condition,
            "1 = 1 AND letter_id <= ? AND letter_id > ? AND dead_at <= ? AND resolved_at >= ?"
        );
        assert_eq!(values, [4_i64, 3, 4_000_000, 5_000_000].map(Value::from));
    }
}
