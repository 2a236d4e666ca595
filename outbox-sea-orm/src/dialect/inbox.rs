//! The INSERT of several inbox rows, which tells what it has written.

use super::Dialect;

/// Handler, source and message: what tells the rows of one consumer apart.
const RETURNED: &str = "handler, source, message_id";

impl Dialect {
    /// Tells whether an INSERT that skips rows can return those that it has written.
    pub(crate) const fn returns_written(self) -> bool {
        !matches!(self, Self::MySql)
    }

    /// Writes the INSERT of `rows` inbox rows that are kept for so many microseconds, each with the order hash of its message,
    /// which skips those that are there and those with deferred deliveries; for databases that do not
    /// [lock gaps](Self::locks_gaps).
    pub(crate) fn insert_unless_deferred(self, rows: usize, keep: i64) -> String {
        // Typed, since the database would take values in a query for texts.
        let marks = match self {
            Self::Postgres => "(?, ?, ?, ?::uuid, ?::bigint)",
            Self::MySql | Self::MariaDb | Self::Sqlite => "(?, ?, ?, ?, ?)",
        };
        let marks = vec![marks; rows].join(", ");
        format!(
            "INSERT INTO {{inbox}} (consumer, handler, source, message_id, keep_until) \
             SELECT v.column1, v.column2, v.column3, v.column4, {{now}} + {keep} FROM (VALUES {marks}) AS v \
             WHERE NOT EXISTS (SELECT 1 FROM {{deferred}} d WHERE d.consumer = v.column1 AND d.handler = v.column2 \
             AND d.order_hash = v.column5) ON CONFLICT DO NOTHING RETURNING {RETURNED}"
        )
    }

    /// Writes the INSERT of `rows` inbox rows that are kept for so many microseconds, which skips those that are there; it
    /// returns those that it has written where the database [can](Self::returns_written).
    pub(crate) fn insert_inbox_rows(self, rows: usize, keep: i64) -> String {
        let (insert, unless_there) = self.insert_if_absent();
        let marks = vec![format!("(?, ?, ?, ?, {{now}} + {keep})"); rows].join(", ");
        let returning =
            if self.returns_written() { format!(" RETURNING {RETURNED}") } else { String::new() };
        format!(
            "{insert} {{inbox}} (consumer, handler, source, message_id, keep_until) VALUES {marks}{unless_there}{returning}"
        )
    }
}
