//! Version 5: semantic locks of sagas.

use super::m0001_outbox::index;
use crate::dialect::TableDef;

// A lock is written in the transaction of the step that takes it and goes in the one that ends its saga; what a saga waits
// for is written while its row is locked. No row is changed.
pub(super) const TABLES: &[TableDef] = &[
    TableDef {
        name: "outbox_saga_locks",
        body: "entity {name} NOT NULL PRIMARY KEY, saga_id {uuid} NOT NULL, locked_at BIGINT NOT NULL",
        queue: true,
        indexes: &[],
    },
    TableDef {
        name: "outbox_saga_waits",
        body: "saga_id {uuid} NOT NULL, entity {name} NOT NULL, since_us BIGINT NOT NULL, \
               PRIMARY KEY (saga_id, entity)",
        queue: true,
        indexes: &[index("outbox_waits_entity", "entity, since_us")],
    },
];
