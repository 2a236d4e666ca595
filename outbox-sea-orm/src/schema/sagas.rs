//! The SQL of sagas and of their log.

use crate::dialect::{Dialect, Tables};
use std::sync::Arc;

/// The columns of a saga that is opened.
const OPENED: &str =
    "correlation_id, progress, data, seq, CASE WHEN deadline_at <= {now} THEN 1 ELSE 0 END, {now}";

/// The SQL of the most frequent statements.
#[derive(Debug)]
pub(crate) struct SagaSql {
    pub(crate) start: Arc<str>,
    /// Without a lock, and with one.
    pub(crate) by_correlation: [Arc<str>; 2],
    /// The id alone, which the index has, with a lock.
    pub(crate) id_by_correlation: Arc<str>,
    /// With a lock.
    pub(crate) by_id: Arc<str>,
    /// Locks a saga's row, and gives its correlation id.
    pub(crate) lock_row: Arc<str>,
    pub(crate) set_aside: Arc<str>,
    pub(crate) open: Arc<str>,
    pub(crate) open_for_reply: Arc<str>,
    pub(crate) release: Arc<str>,
    pub(crate) log: [Arc<str>; 2],
    /// By [`Next`], without and with data, with one record or two.
    pub(crate) change: [[[Arc<str>; 2]; 2]; 5],
}

/// When a saga is due after a change, and whether its claim ends.
#[derive(Clone, Copy)]
pub(crate) enum Next {
    Leased,
    After,
    AfterOrDeadline,
    Never,
    Ended,
}

impl SagaSql {
    pub(crate) fn new(dialect: Dialect, tables: &Tables) -> Self {
        let sql = |text: &str| dialect.sql(tables, text);
        let (insert, unless_there) = dialect.insert_if_absent();
        let change = |next: Next| {
            [false, true].map(|data| [1, 2].map(|n| sql(&change(dialect, next, data, n))))
        };
        Self {
            start: sql(&format!(
                "{insert} {{sagas}} (saga_id, name, version, correlation_id, state, progress, data, seq, epoch, due_at, \
                 deadline_at, started_at, changed_at) \
                 VALUES (?, ?, ?, ?, 'running', ?, ?, 1, 0, {{now}}, {{now}} + ?, {{now}}, {{now}}){unless_there}"
            )),
            by_correlation: ["", "{for_share}"].map(|lock| {
                sql(&format!(
                    "SELECT saga_id, state, ended_at FROM {{sagas}} WHERE name = ? AND correlation_id = ?{lock}"
                ))
            }),
            id_by_correlation: sql(
                "SELECT saga_id FROM {sagas} WHERE name = ? AND correlation_id = ?{for_share}",
            ),
            by_id: sql("SELECT saga_id, state, ended_at FROM {sagas} WHERE saga_id = ?{for_share}"),
            lock_row: sql("SELECT correlation_id FROM {sagas} WHERE saga_id = ?{for_update}"),
            set_aside: sql(
                "UPDATE {sagas} SET correlation_id = ? WHERE name = ? AND correlation_id = ? AND ended_at IS NOT NULL",
            ),
            open: sql(&format!("SELECT {OPENED} FROM {{sagas}} WHERE saga_id = ? AND epoch = ?{{for_update}}")),
            open_for_reply: sql(&format!("SELECT {OPENED}, name, version FROM {{sagas}} WHERE saga_id = ?{{for_update}}")),
            release: sql("UPDATE {sagas} SET epoch = epoch + 1, due_at = {now} \
                 WHERE saga_id = ? AND epoch = ? AND due_at IS NOT NULL"),
            log: [1, 2].map(|records| sql(&log(records))),
            change: [Next::Leased, Next::After, Next::AfterOrDeadline, Next::Never, Next::Ended].map(change),
        }
    }
}

/// Gives the SQL that appends so many records.
pub(crate) fn log(records: usize) -> String {
    let row = vec!["(?, ?, ?, ?, ?, {now})"; records].join(", ");
    format!("INSERT INTO {{saga_log}} (saga_id, seq, kind, step, body, at_us) VALUES {row}")
}

/// Gives the SQL that changes a saga's row and, on databases that can, appends the records in the
/// same statement, so that a step takes one round trip less.
pub(crate) fn change(dialect: Dialect, next: Next, data: bool, records: usize) -> String {
    let next = match next {
        // A claimed saga has an odd epoch, and the end of the claim makes it even. A claim is
        // extended once half of it has passed, so that the row's position in the index of due sagas
        // changes less often.
        Next::Leased => "due_at = CASE WHEN due_at < {now} + ? THEN {now} + ? ELSE due_at END",
        Next::After => "epoch = epoch + epoch % 2, due_at = {now} + ?",
        Next::AfterOrDeadline => {
            "epoch = epoch + epoch % 2, due_at = CASE WHEN deadline_at < {now} + ? THEN deadline_at ELSE {now} + ? END"
        }
        Next::Never => "epoch = epoch + epoch % 2, due_at = NULL",
        Next::Ended => "epoch = epoch + epoch % 2, due_at = NULL, ended_at = {now}",
    };
    let data = if data { "data = ?, " } else { "" };
    let update = format!(
        "UPDATE {{sagas}} SET state = ?, progress = ?, {data}seq = ?, changed_at = {{now}}, {next} WHERE saga_id = ?"
    );
    if dialect.changes_and_inserts() && records > 0 {
        dialect.change_and_insert(&update, &log(records))
    } else {
        update
    }
}
