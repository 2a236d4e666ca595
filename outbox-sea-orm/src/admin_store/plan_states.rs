//! Plans as they stand, read and cancelled by those who have not made them.

use super::acts::{AUDIT_COLUMNS, entry};
use crate::{
    error::database,
    outbox::Outbox,
    schema::{AuditCounts, AuditedAct},
};
use async_trait::async_trait;
use outbox_core::{
    admin::{AuditEntry, AuditOutcome, OperatorNote, PlanId, PlanState, PlanStore},
    outbox::StoreError,
};
use sea_orm::{ConnectionTrait, Value};

#[async_trait]
impl PlanStore for Outbox {
    async fn plan_state(&self, plan: PlanId) -> Result<Option<PlanState>, StoreError> {
        let Some(stored) = self.find_plan(self.reads(), plan, false).await? else {
            return Ok(None);
        };
        Ok(Some(PlanState {
            plan: self.plan_of(&stored).await?,
            expired: stored.audit.is_none() && stored.expires_at <= stored.now,
            audit: self.plan_audit(plan).await?,
            filter: stored.selection.filter,
        }))
    }

    async fn plan_audit(&self, plan: PlanId) -> Result<Option<AuditEntry>, StoreError> {
        let schema = self.schema();
        let sql = schema.filled(&format!(
            "SELECT {AUDIT_COLUMNS} FROM {{audit}} WHERE audit_id = \
             (SELECT p.audit_id FROM {{plans}} p WHERE p.plan_id = ?)"
        ));
        let statement = schema.statement(&sql, vec![Value::from(plan.0)]);
        let row = self.reads().query_one_raw(statement).await.map_err(database)?;
        row.as_ref().map(entry).transpose()
    }

    async fn cancel_plan(&self, plan: PlanId, note: &OperatorNote) -> Result<bool, StoreError> {
        let tx = self.begin_read_committed().await?;
        // Waits for a chunk that somebody applies.
        let stored = self.read_plan(&tx, plan, true).await?;
        let running = stored.audit.filter(|audit| audit.outcome == AuditOutcome::Running);
        let Some(applied) = running else {
            tx.rollback().await?;
            return Ok(false);
        };
        let schema = self.schema();
        schema.end_audit(&tx, applied.id, AuditOutcome::Cancelled).await.map_err(database)?;
        let target = format!("plan {plan}: {} {}", stored.act, stored.selection.filter);
        let act = AuditedAct { act: "cancel plan", target: &target, note, plan: Some(plan.0) };
        let (one, done) = (AuditCounts::done(1), AuditOutcome::Done);
        schema.insert_audit(&tx, &act, one, done).await.map_err(database)?;
        tx.commit().await?;
        Ok(true)
    }
}
