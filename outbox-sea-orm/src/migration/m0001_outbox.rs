//! Version 1: all tables of the outbox and the inbox.

use crate::dialect::{IndexDef, TableDef};

/// What is known of an event, in every table that holds events.
macro_rules! event_columns {
    () => {
        "message_id {uuid} NOT NULL, source {name} NOT NULL, topic {name} NOT NULL, event_type {name} NOT NULL, \
         event_version INTEGER NOT NULL, aggregate_type {name}, message_key {name}, content_type {name} NOT NULL, \
         payload {bytes} NOT NULL, headers {text} NOT NULL"
    };
}
pub(super) use event_columns;

pub(super) const fn index(name: &'static str, columns: &'static str) -> IndexDef {
    IndexDef { name, columns, columns_without_condition: columns, condition: None, unique: false }
}

pub(super) const TABLES: &[TableDef] = &[
    // Written by INSERT and DELETE only; no other index than the key, which is also the order of reading.
    TableDef {
        name: "outbox_events",
        body: concat!(
            "partition_no SMALLINT NOT NULL, event_id {ordered_id}, ",
            event_columns!(),
            ", created_at BIGINT NOT NULL, expires_at BIGINT{ordered_key}"
        ),
        queue: true,
        indexes: &[],
    },
    TableDef {
        name: "outbox_done",
        body: concat!(
            "event_id BIGINT NOT NULL PRIMARY KEY, partition_no SMALLINT NOT NULL, ",
            event_columns!(),
            ", created_at BIGINT NOT NULL, expires_at BIGINT, finished_at BIGINT NOT NULL"
        ),
        queue: true,
        indexes: &[index("outbox_done_finished", "finished_at")],
    },
    TableDef {
        name: "outbox_relays",
        body: "relay_id {word} NOT NULL PRIMARY KEY, lease_until BIGINT NOT NULL, routes BIGINT NOT NULL, \
               started_at BIGINT NOT NULL",
        queue: false,
        indexes: &[],
    },
    TableDef {
        name: "outbox_partitions",
        body: "partition_no SMALLINT NOT NULL PRIMARY KEY, owner {word}, epoch BIGINT NOT NULL DEFAULT 0, \
               CHECK (partition_no >= 0), CHECK (epoch >= 0)",
        queue: false,
        indexes: &[],
    },
    // The CHECKs are what `outbox/status.rs` of the core keeps: three states, and nothing is due that is final.
    TableDef {
        name: "outbox_retries",
        body: "partition_no SMALLINT NOT NULL, event_id BIGINT NOT NULL, route {name} NOT NULL, message_key {name}, \
               state {word} NOT NULL, attempts_started BIGINT NOT NULL, attempts_finished BIGINT NOT NULL, \
               due_at BIGINT, failing_us BIGINT NOT NULL, errors {text} NOT NULL, redriven {flag} NOT NULL, \
               PRIMARY KEY (partition_no, event_id, route), \
               CHECK (state IN ('waiting', 'done', 'dead')), CHECK (state = 'waiting' OR due_at IS NULL), \
               CHECK (attempts_started >= 0 AND attempts_finished >= 0 AND failing_us >= 0)",
        queue: true,
        indexes: &[IndexDef {
            name: "outbox_retries_due",
            columns: "partition_no, due_at",
            columns_without_condition: "partition_no, due_at",
            condition: Some("due_at IS NOT NULL"),
            unique: false,
        }],
    },
    TableDef {
        name: "outbox_dead_letters",
        body: concat!(
            "letter_id {serial}, partition_no SMALLINT NOT NULL, event_id BIGINT NOT NULL, ",
            event_columns!(),
            ", created_at BIGINT NOT NULL, expires_at BIGINT, route {name} NOT NULL, reason {word} NOT NULL, \
             attempts BIGINT NOT NULL, errors {text} NOT NULL, parks {flag} NOT NULL, dead_at BIGINT NOT NULL, \
             previous_id BIGINT, fate {word}, fate_at BIGINT, fate_by {name}, fate_why {text}, \
             CHECK (attempts >= 0), CHECK (fate IS NULL OR fate IN ('redriven', 'discarded', 'resent')), \
             CHECK ((fate IS NULL) = (fate_at IS NULL))"
        ),
        queue: false,
        indexes: &[
            index("outbox_letters_event", "event_id, route"),
            IndexDef {
                name: "outbox_letters_parks",
                columns: "partition_no",
                columns_without_condition: "parks, fate, partition_no",
                condition: Some("parks AND fate IS NULL"),
                unique: false,
            },
            IndexDef {
                name: "outbox_letters_open",
                columns: "letter_id",
                columns_without_condition: "fate, letter_id",
                condition: Some("fate IS NULL"),
                unique: false,
            },
        ],
    },
    TableDef {
        name: "outbox_scheduled",
        body: concat!(
            "scheduled_id {serial}, partition_no SMALLINT NOT NULL, deliver_at BIGINT NOT NULL, ttl_us BIGINT, ",
            event_columns!()
        ),
        queue: true,
        indexes: &[
            index("outbox_scheduled_due", "partition_no, deliver_at, scheduled_id"),
            IndexDef {
                name: "outbox_scheduled_msg",
                columns: "message_id",
                columns_without_condition: "message_id",
                condition: None,
                unique: true,
            },
        ],
    },
    TableDef {
        name: "outbox_dedup",
        body: "dedup_key {name} NOT NULL PRIMARY KEY, message_id {uuid} NOT NULL, payload_hash BIGINT NOT NULL, \
               until BIGINT NOT NULL",
        queue: true,
        indexes: &[index("outbox_dedup_until", "until")],
    },
    TableDef {
        name: "outbox_inbox",
        body: "consumer {word} NOT NULL, handler {word} NOT NULL, source {name} NOT NULL, message_id {uuid} NOT NULL, \
               keep_until BIGINT NOT NULL, PRIMARY KEY (consumer, handler, source, message_id)",
        queue: true,
        indexes: &[index("outbox_inbox_until", "keep_until")],
    },
];

/// The table that people know from the books: one row an event, with its status; `{created}` and `{finished}` are
/// readable instants.
pub(super) const VIEW: &str = "{create_view} {view} AS \
    SELECT event_id AS id, {created} AS created_at, 'ready' AS status, message_id, source, topic, event_type, \
    event_version, aggregate_type, message_key, content_type, payload, headers, {expires} AS expires_at, \
    {nothing} AS finished_at FROM {events} UNION ALL \
    SELECT event_id, {created}, 'done', message_id, source, topic, event_type, event_version, aggregate_type, \
    message_key, content_type, payload, headers, {expires}, {finished} FROM {done}";
