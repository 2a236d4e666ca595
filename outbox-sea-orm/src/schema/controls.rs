//! What operators have paused or slowed down.

use super::{Schema, micros};
use outbox_core::{
    admin::{Control, ControlAction, ControlScope, Controls, OperatorNote},
    event::Timestamp,
};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};
use std::time::Duration;

/// Most characters of an operator's name, which its column takes, and of a reason.
const MAX_NAME: usize = 255;
const MAX_REASON: usize = 4_096;

impl Schema {
    /// Reads the controls that are in force, by scope and name. Rows of a later version, which this
    /// program cannot obey, are left out.
    pub(crate) async fn controls<C: ConnectionTrait>(&self, conn: &C) -> Result<Controls, DbErr> {
        let sql = self.filled(
            "SELECT scope, name, action, rate, set_by, reason, set_at, until, until - {now} FROM {controls} \
             WHERE until IS NULL OR until > {now} ORDER BY scope, name, action",
        );
        let rows = conn.query_all_raw(self.statement(&sql, Vec::new())).await?;
        let controls: Result<Vec<_>, DbErr> = rows.iter().map(control).collect();
        Ok(Controls(controls?.into_iter().flatten().collect()))
    }

    /// Deletes the controls that have ended by themselves.
    pub(crate) async fn delete_ended_controls<C: ConnectionTrait>(
        &self,
        conn: &C,
    ) -> Result<(), DbErr> {
        let sql = self.filled("DELETE FROM {controls} WHERE until <= {now}");
        conn.execute_raw(self.statement(&sql, Vec::new())).await.map(|_| ())
    }

    /// Writes a control in place of one with the same scope, name and kind of action.
    pub(crate) async fn write_control<C: ConnectionTrait>(
        &self,
        conn: &C,
        (scope, name): (ControlScope, &str),
        action: ControlAction,
        lasts: Option<Duration>,
        note: &OperatorNote,
    ) -> Result<(), DbErr> {
        let replaced = self
            .dialect
            .or_replace("scope, name, action", &["rate", "set_by", "reason", "set_at", "until"]);
        let sql = self.filled(&format!(
            "INSERT INTO {{controls}} (scope, name, action, rate, set_by, reason, set_at, until) \
             VALUES (?, ?, ?, ?, ?, ?, {{now}}, {{now}} + ?){replaced}"
        ));
        let rate = match action {
            ControlAction::Pause => None,
            ControlAction::Rate(rate) => Some(thousandths(rate)),
        };
        let bound = vec![
            Value::from(scope.as_str()),
            Value::from(name),
            Value::from(action.as_str()),
            Value::BigInt(rate),
            Value::from(printable(&note.by, MAX_NAME)),
            Value::from(printable(&note.reason, MAX_REASON)),
            Value::BigInt(lasts.map(micros)),
        ];
        conn.execute_raw(self.statement(&sql, bound)).await.map(|_| ())
    }

    /// Deletes the controls of a scope and name; gives how many there were.
    pub(crate) async fn delete_controls<C: ConnectionTrait>(
        &self,
        conn: &C,
        (scope, name): (ControlScope, &str),
    ) -> Result<u64, DbErr> {
        let sql = self.filled("DELETE FROM {controls} WHERE scope = ? AND name = ?");
        let bound = vec![Value::from(scope.as_str()), Value::from(name)];
        Ok(conn.execute_raw(self.statement(&sql, bound)).await?.rows_affected())
    }

    /// Writes the row of an act that is done at once.
    pub(crate) async fn write_audit<C: ConnectionTrait>(
        &self,
        conn: &C,
        (act, target): (&str, &str),
        done: u64,
        note: &OperatorNote,
    ) -> Result<(), DbErr> {
        let sql = self.filled(
            "INSERT INTO {audit} (began_at, done_by, reason, act, target, done, skipped, outcome) \
             VALUES ({now}, ?, ?, ?, ?, ?, 0, 'done')",
        );
        let bound = vec![
            Value::from(printable(&note.by, MAX_NAME)),
            Value::from(printable(&note.reason, MAX_REASON)),
            Value::from(act),
            Value::from(target),
            Value::from(i64::try_from(done).unwrap_or(i64::MAX)),
        ];
        conn.execute_raw(self.statement(&sql, bound)).await.map(|_| ())
    }
}

/// Reads a control; `None` for one of a later version.
fn control(row: &QueryResult) -> Result<Option<Control>, DbErr> {
    let (scope, action): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(2)?);
    let rate: Option<i64> = row.try_get_by_index(3)?;
    let action = match (action.as_str(), rate) {
        ("pause", _) => ControlAction::Pause,
        // The column's numbers are whole, and far below those that a float cannot tell apart.
        ("rate", Some(rate)) => ControlAction::Rate(rate as f64 / 1_000.0),
        _ => return Ok(None),
    };
    let Ok(scope) = scope.parse::<ControlScope>() else { return Ok(None) };
    let (until, left): (Option<i64>, Option<i64>) =
        (row.try_get_by_index(7)?, row.try_get_by_index(8)?);
    let micros = |left: i64| Duration::from_micros(u64::try_from(left).unwrap_or(0));
    Ok(Some(Control {
        scope,
        name: row.try_get_by_index(1)?,
        action,
        by: row.try_get_by_index(4)?,
        reason: row.try_get_by_index(5)?,
        set_at: Timestamp::from_micros(row.try_get_by_index(6)?),
        until: until.map(Timestamp::from_micros),
        ends_in: left.map(micros),
    }))
}

/// Gives a rate as it is stored: a checked rate has at least one thousandth.
fn thousandths(rate: f64) -> i64 {
    // A rate in events is a time in seconds here, whose conversions say where they round.
    let thousandths = Duration::try_from_secs_f64(rate).map_or(u128::MAX, |n| n.as_millis());
    i64::try_from(thousandths).unwrap_or(i64::MAX).max(1)
}

/// Gives the beginning of what an operator wrote, without characters that a database refuses.
fn printable(text: &str, longest: usize) -> String {
    text.trim().chars().filter(|c| !c.is_control() || *c == '\n').take(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_stored_in_thousandths() {
        for (rate, stored) in
            [(0.001, 1), (0.5, 500), (2.3, 2_300), (100.0, 100_000), (1e9, 1_000_000_000_000)]
        {
            assert_eq!(thousandths(rate), stored, "{rate}");
        }
    }

    #[test]
    fn what_an_operator_wrote_is_cut_and_has_no_character_that_a_database_refuses() {
        assert_eq!(printable(" ann\0 \n", 255), "ann");
        assert_eq!(printable("two\nlines", 255), "two\nlines");
        assert_eq!(printable(&"é".repeat(300), 255).chars().count(), 255);
    }
}
