//! Rows of the audit: each is written in the transaction of the act that it tells of.

use super::Schema;
use outbox_core::admin::{AuditOutcome, OperatorNote};
use sea_orm::{ConnectionTrait, DbErr, Value};

/// Longest name of an operator, in characters: as in the rows of dead letters.
const LONGEST_NAME: usize = 255;
/// Longest reason, and longest target, in characters: a paragraph each.
const LONGEST_TEXT: usize = 2_000;

/// What an act has changed, left and refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AuditCounts {
    pub(crate) done: u64,
    pub(crate) skipped: u64,
    pub(crate) refused: u64,
}

impl AuditCounts {
    /// Counts things that an act has changed.
    pub(crate) fn done(count: usize) -> Self {
        Self { done: count as u64, ..Self::default() }
    }

    fn values(self) -> [Value; 3] {
        [self.done, self.skipped, self.refused]
            .map(|count| Value::from(i64::try_from(count).unwrap_or(i64::MAX)))
    }
}

/// An act that is audited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AuditedAct<'a> {
    pub(crate) act: &'a str,
    /// What it applies to, in words.
    pub(crate) target: &'a str,
    pub(crate) note: &'a OperatorNote,
    pub(crate) plan: Option<i64>,
}

impl Schema {
    /// Inserts the row of an act; gives its number.
    pub(crate) async fn insert_audit<C: ConnectionTrait>(
        &self,
        conn: &C,
        act: &AuditedAct<'_>,
        counts: AuditCounts,
        outcome: AuditOutcome,
    ) -> Result<i64, DbErr> {
        let insert = "INSERT INTO {audit} (began_at, done_by, reason, act, target, done, skipped, refused, outcome, \
                      plan_id) VALUES ({now}, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let [done, skipped, refused] = counts.values();
        let values = vec![
            Value::from(cut(&act.note.by, LONGEST_NAME)),
            Value::from(cut(&act.note.reason, LONGEST_TEXT)),
            Value::from(act.act),
            Value::from(cut(act.target, LONGEST_TEXT)),
            done,
            skipped,
            refused,
            Value::from(outcome.as_str()),
            Value::from(act.plan),
        ];
        self.insert_with_id(conn, insert, "audit_id", values).await
    }

    /// Adds counts to the row of an act.
    pub(crate) async fn count_in_audit<C: ConnectionTrait>(
        &self,
        conn: &C,
        audit: i64,
        counts: AuditCounts,
    ) -> Result<(), DbErr> {
        let sql = self.filled(
            "UPDATE {audit} SET done = done + ?, skipped = skipped + ?, refused = refused + ? WHERE audit_id = ?",
        );
        let values = counts.values().into_iter().chain([Value::from(audit)]).collect();
        conn.execute_raw(self.statement(&sql, values)).await.map(|_| ())
    }

    /// Writes how an act has ended, unless it has ended before.
    pub(crate) async fn end_audit<C: ConnectionTrait>(
        &self,
        conn: &C,
        audit: i64,
        outcome: AuditOutcome,
    ) -> Result<(), DbErr> {
        let sql = self
            .filled("UPDATE {audit} SET outcome = ? WHERE audit_id = ? AND outcome = 'running'");
        let values = vec![Value::from(outcome.as_str()), Value::from(audit)];
        conn.execute_raw(self.statement(&sql, values)).await.map(|_| ())
    }

    /// Runs an INSERT of one row; gives the id that the database has given it.
    pub(crate) async fn insert_with_id<C: ConnectionTrait>(
        &self,
        conn: &C,
        insert: &str,
        id: &str,
        values: Vec<Value>,
    ) -> Result<i64, DbErr> {
        let sql = self.filled(&format!("{insert}{}", self.dialect.returning(id)));
        let write = self.statement(&sql, values);
        let row = match self.dialect.last_id() {
            None => conn.query_one_raw(write).await?,
            Some(last_id) => {
                conn.execute_raw(write).await?;
                conn.query_one_raw(self.statement(last_id, Vec::new())).await?
            }
        };
        row.map_or(Ok(0), |row| row.try_get_by_index(0))
    }
}

/// The audit of an act without a plan, over its transactions: one row, inserted when it has changed
/// something.
pub(crate) struct Audit<'a> {
    schema: &'a Schema,
    act: AuditedAct<'a>,
    row: Option<i64>,
}

impl<'a> Audit<'a> {
    pub(crate) fn new(schema: &'a Schema, act: AuditedAct<'a>) -> Self {
        Self { schema, act, row: None }
    }

    /// Ends the row of an act that has failed after its first transactions. Where that fails too, the
    /// row says that the act is running.
    pub(crate) async fn cancelled<C: ConnectionTrait>(&self, conn: &C) {
        if let Some(row) = self.row
            && let Err(error) = self.schema.end_audit(conn, row, AuditOutcome::Cancelled).await
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(audit = row, error, "the end of an operator's act could not be audited");
        }
    }

    /// Counts what a transaction has changed, inside of it; the last one ends the act.
    pub(crate) async fn count<C: ConnectionTrait>(
        &mut self,
        conn: &C,
        done: usize,
        is_last: bool,
    ) -> Result<(), DbErr> {
        let counts = AuditCounts::done(done);
        let outcome = if is_last { AuditOutcome::Done } else { AuditOutcome::Running };
        match self.row {
            None if done == 0 => Ok(()),
            None => {
                let row = self.schema.insert_audit(conn, &self.act, counts, outcome).await?;
                self.row = Some(row);
                Ok(())
            }
            Some(row) => {
                if done > 0 {
                    self.schema.count_in_audit(conn, row, counts).await?;
                }
                self.schema.end_audit(conn, row, outcome).await
            }
        }
    }
}

/// Cuts a text to so many characters. PostgreSQL stores no NUL.
fn cut(text: &str, longest: usize) -> String {
    text.chars().take(longest).map(|c| if c == '\0' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_by_characters_and_has_no_nul() {
        for (text, expected) in [("ann", "ann"), ("a\0b", "a b"), ("äöüß", "äöü"), ("", "")]
        {
            assert_eq!(cut(text, 3), expected);
        }
    }
}
