//! Version 9: whose events an outbox has.

use crate::dialect::TableDef;

// One row at most, written by the first service that installs or opens the outbox with a source of its own.
pub(super) const TABLES: &[TableDef] = &[TableDef {
    name: "outbox_source",
    body: "id INTEGER NOT NULL PRIMARY KEY, source {name} NOT NULL, written_at BIGINT NOT NULL, CHECK (id = 1)",
    queue: false,
    indexes: &[],
}];
