//! Version 11: what was answered to requests that are answered once.

use super::m0001_outbox::index;
use crate::dialect::TableDef;

// Under the id that holds the dedup key, so that an answer of an earlier time of the key is nobody's.
pub(super) const TABLES: &[TableDef] = &[TableDef {
    name: "outbox_answers",
    body: "message_id {uuid} NOT NULL PRIMARY KEY, body {text} NOT NULL, until BIGINT NOT NULL",
    queue: false,
    indexes: &[index("outbox_answers_until", "until")],
}];
