//! Version 6: decisions about parked keys, and what makes pages of letters quick.

use super::m0001_outbox::index;
use crate::dialect::{AddedIndex, IndexDef, TableDef};

// Written in the transaction of the decision, deleted by the owner of the partition when it knows. Rows that exist are
// not yet known to it, whatever order transactions commit in.
pub(super) const TABLES: &[TableDef] = &[TableDef {
    name: "outbox_decided_parks",
    body: "letter_id BIGINT NOT NULL PRIMARY KEY, partition_no SMALLINT NOT NULL, event_id BIGINT NOT NULL, \
           route {name} NOT NULL, message_key {name} NOT NULL, redriven {flag} NOT NULL",
    queue: true,
    indexes: &[index("outbox_decided_place", "partition_no, letter_id")],
}];

pub(super) const INDEXES: &[AddedIndex] = &[
    AddedIndex {
        table: "outbox_dead_letters",
        index: IndexDef {
            name: "outbox_letters_parked",
            columns: "partition_no, letter_id",
            columns_without_condition: "parks, fate, partition_no, letter_id",
            condition: Some("parks AND fate IS NULL"),
            unique: false,
        },
    },
    AddedIndex {
        table: "outbox_dead_letters",
        index: IndexDef {
            name: "outbox_letters_decided",
            columns: "fate_at",
            columns_without_condition: "fate_at",
            condition: Some("fate_at IS NOT NULL"),
            unique: false,
        },
    },
];
