//! Acts that were planned: chunk by chunk, each in one transaction with the position of its plan and
//! the counts of its row of the audit.

use super::{
    LONGEST_PAGE, column,
    plans::{StoredAudit, StoredPlan, outcome},
    resolutions::{marks, values},
};
use crate::{
    OutboxTransaction,
    chunks::{RESULT_BYTES, fitting_count},
    dialect::ORIGIN_CONSUMER,
    error::database,
    outbox::Outbox,
    schema::{
        AuditCounts, AuditedAct,
        letter_rows::{self, id_and_size},
        micros,
    },
};
use async_trait::async_trait;
use outbox_core::{
    admin::{
        Act, ActStore, Applied, AuditEntry, AuditOutcome, DeadLetterFilter, OperatorNote, Plan,
        PlanId,
    },
    event::{LetterId, Timestamp},
    outbox::{ConsumerStore, StoreError},
};
use sea_orm::{ConnectionTrait, QueryResult, Value};

/// Most letters of one chunk, whatever the caller asks for.
const CHUNK: u32 = 200;
/// The newest letters among which those are looked for that failed again: more than are written
/// between two looks.
const NEWEST: u32 = 10_000;

/// The columns of a row of the audit, as [`entry`] reads them.
pub(super) const AUDIT_COLUMNS: &str =
    "audit_id, began_at, done_by, reason, act, target, done, skipped, refused, outcome, plan_id";

/// The letters of one chunk.
struct Chunk {
    /// Those that are open.
    open: Vec<LetterId>,
    /// The last letter that the chunk looks at.
    last: LetterId,
    /// Whether no letter of the plan is behind it.
    is_last: bool,
}

#[async_trait]
impl ActStore for Outbox {
    async fn plan(
        &self,
        act: Act,
        filter: &DeadLetterFilter,
        all: bool,
    ) -> Result<Plan, StoreError> {
        self.plan_act(act, filter, all).await
    }

    async fn apply_chunk(
        &self,
        plan: PlanId,
        limit: u32,
        note: &OperatorNote,
    ) -> Result<Applied, StoreError> {
        let tx = self.begin_read_committed().await?;
        let stored = self.read_plan(&tx, plan, true).await?;
        stored.check()?;
        if let Some(letter) = stored.selection.filter.letter
            && stored.after < letter.0
        {
            self.check_letter(&tx, letter).await?;
        }
        let chunk = self.next_chunk(&tx, &stored, limit).await?;
        let counts = self.resolve_chunk(&tx, &stored, &chunk, note).await?;
        let total = self.advance(&tx, &stored, &chunk, counts, note).await?;
        tx.commit().await?;
        if stored.act == Act::Redrive && counts.done > 0 {
            self.wake();
        }
        Ok(Applied {
            done: total.done,
            skipped: total.skipped,
            refused: total.refused,
            after: Some(chunk.last.0),
            complete: chunk.is_last,
        })
    }

    async fn end_plan(&self, plan: PlanId, outcome: AuditOutcome) -> Result<(), StoreError> {
        let tx = self.begin_read_committed().await?;
        // Waits for a chunk that another caller applies.
        let stored = self.read_plan(&tx, plan, true).await?;
        if let Some(audit) = stored.audit {
            self.schema().end_audit(&tx, audit.id, outcome).await.map_err(database)?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn plan_outcome(&self, plan: PlanId) -> Result<Option<AuditOutcome>, StoreError> {
        let stored = self.read_plan(self.reads(), plan, false).await?;
        Ok(stored.audit.map(|audit| audit.outcome))
    }

    async fn failed_again(&self, plan: PlanId) -> Result<u64, StoreError> {
        let stored = self.read_plan(self.reads(), plan, false).await?;
        // Not since the audit's beginning: the first chunk resolves letters before it writes that.
        let (selected, of_plan) = stored.selection.resolved(0, LetterId(stored.after));
        let schema = self.schema();
        // Columns without a table's name are those of the inner one.
        let of = |same: &str| {
            format!(
                "EXISTS (SELECT 1 FROM {{letters}} l WHERE {same} AND resolution = 'redriven' AND {selected})"
            )
        };
        let sql = schema.filled(&format!(
            "SELECT count(*) FROM (SELECT letter_id, previous_id, event_id, route FROM {{letters}} \
             WHERE letter_id > ? ORDER BY letter_id DESC LIMIT {NEWEST}) n WHERE {} OR {}",
            of("l.letter_id = n.previous_id"),
            of("l.event_id = n.event_id AND l.route = n.route AND l.event_id <> 0"),
        ));
        let mut bound = vec![Value::from(stored.selection.up_to.0)];
        bound.extend(of_plan.iter().cloned());
        bound.extend(of_plan);
        let row =
            self.reads().query_one_raw(schema.statement(&sql, bound)).await.map_err(database)?;
        row.map_or(Ok(0), |row| column::<i64>(&row, 0).map(i64::unsigned_abs))
    }

    async fn audit(&self, before: Option<i64>, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        let schema = self.schema();
        let sql = schema.filled(
            &format!("SELECT {AUDIT_COLUMNS} FROM {{audit}} WHERE audit_id < ? ORDER BY audit_id DESC LIMIT ?"),
        );
        let bound = vec![
            Value::from(before.unwrap_or(i64::MAX)),
            Value::from(i64::from(limit.min(LONGEST_PAGE))),
        ];
        let rows =
            self.reads().query_all_raw(schema.statement(&sql, bound)).await.map_err(database)?;
        rows.iter().map(entry).collect()
    }
}

impl Outbox {
    /// Reads the next open letters of a plan, as many as a transaction may move by their bytes.
    async fn next_chunk(
        &self,
        tx: &OutboxTransaction,
        plan: &StoredPlan,
        limit: u32,
    ) -> Result<Chunk, StoreError> {
        let schema = self.schema();
        let (limit, up_to) = (limit.clamp(1, CHUNK), plan.selection.up_to);
        let (condition, values) = plan.selection.open(plan.after, up_to);
        let sql = schema.filled(&letter_rows::sizes(
            schema.dialect(),
            &format!("{condition} ORDER BY letter_id LIMIT {}", limit + 1),
        ));
        let rows = tx.query_all_raw(schema.statement(&sql, values)).await.map_err(database)?;
        let letters: Vec<(i64, usize)> = rows.iter().map(id_and_size).collect::<Result<_, _>>()?;
        let sizes = letters.iter().take(limit as usize).map(|(_, size)| *size);
        let fitting = &letters[..fitting_count(sizes, RESULT_BYTES)];
        let is_last = fitting.len() == letters.len();
        let last = fitting.last().map(|(id, _)| LetterId(*id)).filter(|_| !is_last);
        Ok(Chunk {
            open: fitting.iter().map(|(id, _)| LetterId(*id)).collect(),
            last: last.unwrap_or(up_to),
            is_last,
        })
    }

    /// Resolves the letters of a chunk; counts those that were refused, and those that others have
    /// resolved since the plan.
    async fn resolve_chunk(
        &self,
        tx: &OutboxTransaction,
        plan: &StoredPlan,
        chunk: &Chunk,
        note: &OperatorNote,
    ) -> Result<AuditCounts, StoreError> {
        let beyond = if plan.act == Act::Redrive && !note.force {
            self.beyond_inbox_retention(tx, &chunk.open).await?
        } else {
            Vec::new()
        };
        let allowed: Vec<LetterId> =
            chunk.open.iter().copied().filter(|id| !beyond.contains(id)).collect();
        // What has to be refused is left out already.
        let resolved = self.act_in(tx, plan.act, &allowed, &note.clone().force()).await?;
        if plan.act == Act::Purge {
            self.delete_content(tx, &resolved).await?;
        }
        let since = plan.selection.resolved(plan.after, chunk.last);
        let decided = self.count_letters_where(tx, since).await?;
        let still_open = format!("letter_id IN ({}) AND resolution IS NULL", marks(&chunk.open));
        let refused = match chunk.open.as_slice() {
            [] => 0,
            open => self.count_letters_where(tx, (still_open, values(open).collect())).await?,
        };
        let done = resolved.len() as u64;
        Ok(AuditCounts { done, skipped: decided.saturating_sub(done), refused })
    }

    /// Writes the position of a plan and the counts of its row of the audit, which the first chunk
    /// inserts. Gives the counts of all chunks.
    async fn advance(
        &self,
        tx: &OutboxTransaction,
        plan: &StoredPlan,
        chunk: &Chunk,
        counts: AuditCounts,
        note: &OperatorNote,
    ) -> Result<AuditCounts, StoreError> {
        let schema = self.schema();
        let (audit, total) = match plan.audit {
            Some(StoredAudit { id, counts: before, .. }) => {
                schema.count_in_audit(tx, id, counts).await.map_err(database)?;
                let total = AuditCounts {
                    done: before.done + counts.done,
                    skipped: before.skipped + counts.skipped,
                    refused: before.refused + counts.refused,
                };
                (id, total)
            }
            None => {
                let target = plan.selection.filter.to_string();
                let act = AuditedAct {
                    act: plan.act.as_str(),
                    target: &target,
                    note,
                    plan: Some(plan.id.0),
                };
                let running = AuditOutcome::Running;
                let id = schema.insert_audit(tx, &act, counts, running).await.map_err(database)?;
                (id, counts)
            }
        };
        let sql =
            schema.filled("UPDATE {plans} SET after_letter = ?, audit_id = ? WHERE plan_id = ?");
        let bound = [chunk.last.0, audit, plan.id.0].map(Value::from).into();
        tx.execute_raw(schema.statement(&sql, bound)).await.map_err(database)?;
        Ok(total)
    }

    /// Finds the letters of consumers that are older than the retention of the inbox.
    async fn beyond_inbox_retention(
        &self,
        tx: &OutboxTransaction,
        ids: &[LetterId],
    ) -> Result<Vec<LetterId>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let keep = micros(self.inbox_retention());
        let schema = self.schema();
        let sql = schema.filled(&format!(
            "SELECT letter_id FROM {{letters}} WHERE letter_id IN ({}) AND origin = {ORIGIN_CONSUMER} \
             AND dead_at < {{now}} - {keep}",
            marks(ids)
        ));
        let statement = schema.statement(&sql, values(ids).collect());
        let rows = tx.query_all_raw(statement).await.map_err(database)?;
        rows.iter().map(|row| column(row, 0).map(LetterId)).collect()
    }

    async fn count_letters_where(
        &self,
        tx: &OutboxTransaction,
        (condition, values): (String, Vec<Value>),
    ) -> Result<u64, StoreError> {
        let schema = self.schema();
        let sql = schema.filled(&format!("SELECT count(*) FROM {{letters}} WHERE {condition}"));
        let row = tx.query_one_raw(schema.statement(&sql, values)).await.map_err(database)?;
        row.map_or(Ok(0), |row| column::<i64>(&row, 0).map(i64::unsigned_abs))
    }
}

/// Reads a row of the audit.
pub(super) fn entry(row: &QueryResult) -> Result<AuditEntry, StoreError> {
    let count = |index| column::<i64>(row, index).map(i64::unsigned_abs);
    Ok(AuditEntry {
        id: column(row, 0)?,
        at: Timestamp::from_micros(column(row, 1)?),
        by: column(row, 2)?,
        reason: column(row, 3)?,
        act: column(row, 4)?,
        target: column(row, 5)?,
        done: count(6)?,
        skipped: count(7)?,
        refused: count(8)?,
        outcome: outcome(&column::<String>(row, 9)?)?,
        plan: column::<Option<i64>>(row, 10)?.map(PlanId),
    })
}
