//! Version 3: sagas and their log.

use crate::dialect::{IndexDef, TableDef};

pub(super) const TABLES: &[TableDef] = &[
    // The CHECKs are what `saga/state.rs` of the core keeps: five states, and what is active is due some time. A step in
    // the middle of a saga changes no column of an index: on PostgreSQL its row stays where it is.
    TableDef {
        name: "outbox_sagas",
        body: "saga_id {uuid} NOT NULL PRIMARY KEY, name {word} NOT NULL, version INTEGER NOT NULL, \
               correlation_id {name} NOT NULL, state {word} NOT NULL, progress {text} NOT NULL, data {text} NOT NULL, \
               seq BIGINT NOT NULL, epoch BIGINT NOT NULL, due_at BIGINT, deadline_at BIGINT, \
               started_at BIGINT NOT NULL, changed_at BIGINT NOT NULL, ended_at BIGINT, \
               CHECK (state IN ('running', 'compensating', 'stuck', 'completed', 'compensated')), \
               CHECK ((due_at IS NOT NULL) = (state IN ('running', 'compensating'))), \
               CHECK ((ended_at IS NOT NULL) = (state IN ('completed', 'compensated'))), \
               CHECK (version >= 1 AND seq >= 1 AND epoch >= 0)",
        queue: true,
        indexes: &[
            IndexDef {
                name: "outbox_sagas_known_by",
                columns: "name, correlation_id",
                columns_without_condition: "name, correlation_id",
                condition: None,
                unique: true,
            },
            IndexDef {
                name: "outbox_sagas_due",
                columns: "due_at",
                columns_without_condition: "due_at",
                condition: Some("due_at IS NOT NULL"),
                unique: false,
            },
            IndexDef {
                name: "outbox_sagas_open",
                columns: "state, saga_id",
                columns_without_condition: "state, saga_id",
                condition: Some("state IN ('running', 'compensating', 'stuck')"),
                unique: false,
            },
            IndexDef {
                name: "outbox_sagas_ended",
                columns: "ended_at",
                columns_without_condition: "ended_at",
                condition: Some("ended_at IS NOT NULL"),
                unique: false,
            },
        ],
    },
    // Written by INSERT only. `kind` and `step` are in the body too; they stand apart for people.
    TableDef {
        name: "outbox_saga_log",
        body: "saga_id {uuid} NOT NULL, seq BIGINT NOT NULL, kind {word} NOT NULL, step {word}, body {text} NOT NULL, \
               at_us BIGINT NOT NULL, PRIMARY KEY (saga_id, seq), CHECK (seq >= 1)",
        queue: false,
        indexes: &[],
    },
];
