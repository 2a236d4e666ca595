//! Version 4: what participants of sagas know of the commands that came to them.

use super::m0001_outbox::index;
use crate::dialect::TableDef;

// The CHECKs are what `consumer/barrier.rs` of the core keeps. Written by INSERT before a handler runs; its answer, where
// it is another than the usual one, follows in the same transaction, and no row is changed after that.
pub(super) const TABLES: &[TableDef] = &[TableDef {
    name: "outbox_saga_barrier",
    body: "consumer {word} NOT NULL, saga_id {uuid} NOT NULL, step {word} NOT NULL, round BIGINT NOT NULL, \
           phase {word} NOT NULL, outcome {word} NOT NULL, event_type {name}, event_version INTEGER, \
           content_type {name}, payload {bytes}, headers {text}, written_at BIGINT NOT NULL, \
           keep_until BIGINT NOT NULL, PRIMARY KEY (consumer, saga_id, step, round, phase), CHECK (round >= 1), \
           CHECK ((phase = 'do' AND outcome IN ('done', 'rejected', 'blocked')) \
           OR (phase = 'undo' AND outcome = 'undone')), \
           CHECK (outcome <> 'rejected' OR event_type IS NOT NULL), \
           CHECK (outcome <> 'blocked' OR event_type IS NULL), \
           CHECK ((event_type IS NULL) = (event_version IS NULL) AND (event_type IS NULL) = (content_type IS NULL)), \
           CHECK ((event_type IS NULL) = (payload IS NULL) AND (event_type IS NULL) = (headers IS NULL))",
    queue: true,
    indexes: &[index("outbox_barrier_until", "keep_until")],
}];
