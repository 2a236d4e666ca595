//! Version 7: the instances of consumers.

use super::m0001_outbox::index;
use crate::dialect::TableDef;

// Written when a consumer starts, renewed by an UPDATE of `lease_until` alone, which no index covers, and removed when the
// consumer has ended well. `handlers` is JSON: names, and the types and versions that they take.
pub(super) const TABLES: &[TableDef] = &[TableDef {
    name: "outbox_instances",
    body: "instance_id {word} NOT NULL PRIMARY KEY, consumer {word} NOT NULL, max_in_flight BIGINT NOT NULL, \
           handlers {text} NOT NULL, started_at BIGINT NOT NULL, lease_until BIGINT NOT NULL, \
           CHECK (max_in_flight >= 0)",
    queue: true,
    indexes: &[index("outbox_instances_of", "consumer")],
}];
