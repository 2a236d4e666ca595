//! Version 2: what consumers keep for later.

use super::m0001_outbox::{event_columns, index};
use crate::dialect::{IndexDef, TableDef};

// `lane` is a hash of source and key; only the first of a lane has a `due_at`, so that those behind it cost nothing.
pub(super) const TABLES: &[TableDef] = &[TableDef {
    name: "outbox_deliveries",
    body: concat!(
        "stored_id {serial}, consumer {word} NOT NULL, handler {word} NOT NULL, lane BIGINT, sequence_no BIGINT, ",
        event_columns!(),
        ", created_at BIGINT NOT NULL, expires_at BIGINT, stored_at BIGINT NOT NULL, due_at BIGINT, \
         attempts_started BIGINT NOT NULL, attempts_finished BIGINT NOT NULL, failures BIGINT NOT NULL, \
         failing_since BIGINT, errors {text} NOT NULL, letter_id BIGINT, claimed_by {word}, claimed_until BIGINT, \
         CHECK (attempts_started >= 0 AND attempts_finished >= failures AND failures >= 0), \
         CHECK ((claimed_by IS NULL) = (claimed_until IS NULL)), CHECK (due_at IS NOT NULL OR lane IS NOT NULL)"
    ),
    queue: true,
    indexes: &[
        IndexDef {
            name: "outbox_deliveries_msg",
            columns: "consumer, handler, source, message_id",
            columns_without_condition: "consumer, handler, source, message_id",
            condition: None,
            unique: true,
        },
        index("outbox_deliveries_lane", "consumer, handler, lane, stored_id"),
        IndexDef {
            name: "outbox_deliveries_due",
            columns: "consumer, due_at",
            columns_without_condition: "consumer, due_at",
            condition: Some("due_at IS NOT NULL"),
            unique: false,
        },
    ],
}];
