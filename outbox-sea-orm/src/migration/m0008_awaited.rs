//! Version 8: stored deliveries that wait for an instance that knows them.

use crate::dialect::{AddedColumn, AddedIndex, IndexDef};

// All of them are empty for what whoever has the handler may run, and go when one that knows it claims it. `awaits` is the
// name of a type or of a saga; it is empty where nothing but the handler is missing.
pub(super) const COLUMNS: &[AddedColumn] = &[
    AddedColumn { table: "outbox_deliveries", name: "awaits_kind", kind: "{word}" },
    AddedColumn { table: "outbox_deliveries", name: "awaits", kind: "{name}" },
    AddedColumn { table: "outbox_deliveries", name: "awaits_version", kind: "INTEGER" },
    AddedColumn { table: "outbox_deliveries", name: "awaits_since", kind: "BIGINT" },
];

pub(super) const INDEXES: &[AddedIndex] = &[AddedIndex {
    table: "outbox_deliveries",
    index: IndexDef {
        name: "outbox_awaited",
        columns: "consumer, handler, awaits_kind, awaits, awaits_version",
        columns_without_condition: "consumer, awaits_since",
        condition: Some("awaits_since IS NOT NULL"),
        unique: false,
    },
}];
