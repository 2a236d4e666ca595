//! SQLite.

use super::{Dialect, TableDef, create_indexes, typed};

/// Time in whole milliseconds, which is what SQLite's clock gives; `unixepoch('subsec')` is newer
/// than 3.35.
pub(super) const NOW: &str =
    "(CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)";

pub(super) fn create_table(table: &TableDef, name_of: &dyn Fn(&str) -> String) -> Vec<String> {
    let body = typed(
        table.body,
        &[
            // Without AUTOINCREMENT ids start at 1 again when the table is empty, behind every
            // relay's position.
            ("{ordered_id}", "INTEGER PRIMARY KEY AUTOINCREMENT"),
            ("{ordered_key}", ""),
            ("{serial}", "INTEGER PRIMARY KEY AUTOINCREMENT"),
            ("{word}", "TEXT"),
            ("{name}", "TEXT"),
            ("{text}", "TEXT"),
            ("{bytes}", "BLOB"),
            ("{uuid}", "BLOB"),
            ("{flag}", "BOOLEAN"),
        ],
    );
    let name = Dialect::Sqlite.quote(&name_of(table.name));
    let mut statements = vec![format!("CREATE TABLE IF NOT EXISTS {name} ({body})")];
    if table.body.contains("{ordered_key}") {
        // Named, so that a read can force it: after an ANALYZE the planner prefers to scan the ids
        // of all partitions.
        let place = Dialect::Sqlite.quote(&name_of("outbox_events_place"));
        statements.push(format!(
            "CREATE UNIQUE INDEX IF NOT EXISTS {place} ON {name} (partition_no, event_id)"
        ));
    }
    statements.extend(create_indexes(Dialect::Sqlite, table, name_of));
    statements
}

/// Writes the query whether a column exists.
pub(super) fn has_column(table: &str, column: &str) -> String {
    format!("SELECT count(*) FROM pragma_table_info('{table}') WHERE name = '{column}'")
}
