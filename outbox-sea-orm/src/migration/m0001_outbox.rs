//! Version 1: all tables of the outbox, of consumers and of sagas.

use crate::dialect::{IndexDef, TableDef};

/// The columns of an event, in every table that holds events.
macro_rules! event_columns {
    () => {
        "message_id {uuid} NOT NULL, source {name} NOT NULL, topic {name} NOT NULL, event_type {name} NOT NULL, \
         event_version INTEGER NOT NULL, aggregate_type {name}, message_key {name}, content_type {name} NOT NULL, \
         payload {bytes} NOT NULL, headers {text} NOT NULL"
    };
}

const fn index(name: &'static str, columns: &'static str) -> IndexDef {
    IndexDef { name, columns, columns_without_condition: columns, condition: None, unique: false }
}

const fn unique(name: &'static str, columns: &'static str) -> IndexDef {
    IndexDef { unique: true, ..index(name, columns) }
}

/// An index with a condition, or on all rows where the database knows no such index.
const fn partial(
    name: &'static str,
    columns: &'static str,
    condition: &'static str,
    columns_without_condition: &'static str,
) -> IndexDef {
    IndexDef { name, columns, columns_without_condition, condition: Some(condition), unique: false }
}

/// Written by INSERT and DELETE only; no other index than the key, which is also the order of
/// reading.
const EVENTS: TableDef = TableDef {
    name: "outbox_events",
    body: concat!(
        "partition_no SMALLINT NOT NULL, event_id {ordered_id}, ",
        event_columns!(),
        ", created_at BIGINT NOT NULL, expires_at BIGINT{ordered_key}"
    ),
    queue: true,
    indexes: &[],
};

const ARCHIVE: TableDef = TableDef {
    name: "outbox_archive",
    body: concat!(
        "event_id BIGINT NOT NULL PRIMARY KEY, partition_no SMALLINT NOT NULL, ",
        event_columns!(),
        ", created_at BIGINT NOT NULL, expires_at BIGINT, finished_at BIGINT NOT NULL"
    ),
    queue: true,
    indexes: &[index("outbox_finished_at", "finished_at")],
};

const SCHEDULED: TableDef = TableDef {
    name: "outbox_scheduled",
    body: concat!(
        "scheduled_id {serial}, partition_no SMALLINT NOT NULL, deliver_at BIGINT NOT NULL, ttl_us BIGINT, ",
        event_columns!()
    ),
    queue: true,
    indexes: &[
        index("outbox_scheduled_due", "partition_no, deliver_at, scheduled_id"),
        unique("outbox_scheduled_msg", "message_id"),
    ],
};

const RELAYS: TableDef = TableDef {
    name: "outbox_relays",
    body: "relay_id {word} NOT NULL PRIMARY KEY, lease_until BIGINT NOT NULL, routes BIGINT NOT NULL, \
           started_at BIGINT NOT NULL",
    queue: false,
    indexes: &[],
};

const PARTITIONS: TableDef = TableDef {
    name: "outbox_partitions",
    body: "partition_no SMALLINT NOT NULL PRIMARY KEY, owner {word}, epoch BIGINT NOT NULL DEFAULT 0, \
           CHECK (partition_no >= 0), CHECK (epoch >= 0)",
    queue: false,
    indexes: &[],
};

/// The CHECKs are those of `outbox/status.rs` of the core: three states, and no final one has a due
/// time.
const RETRIES: TableDef = TableDef {
    name: "outbox_retries",
    body: "partition_no SMALLINT NOT NULL, event_id BIGINT NOT NULL, route {name} NOT NULL, message_key {name}, \
           state {word} NOT NULL, attempts_started BIGINT NOT NULL, attempts_finished BIGINT NOT NULL, \
           due_at BIGINT, failing_us BIGINT NOT NULL, errors {text} NOT NULL, redriven {flag} NOT NULL, \
           PRIMARY KEY (partition_no, event_id, route), \
           CHECK (state IN ('waiting', 'done', 'dead')), CHECK (state = 'waiting' OR due_at IS NULL), \
           CHECK (attempts_started >= 0 AND attempts_finished >= 0 AND failing_us >= 0)",
    queue: true,
    indexes: &[partial(
        "outbox_retries_due",
        "partition_no, due_at",
        "due_at IS NOT NULL",
        "partition_no, due_at",
    )],
};

/// Dead letters of relays and of consumers. Only a relay's event has a partition: a consumer's
/// letter has the route `consumer/handler` and the negated sequence number of its sender, 0 where
/// it has none.
const DEAD_LETTERS: TableDef = TableDef {
    name: "outbox_dead_letters",
    body: concat!(
        "letter_id {serial}, origin {word} NOT NULL, partition_no SMALLINT, event_id BIGINT NOT NULL, ",
        event_columns!(),
        ", created_at BIGINT NOT NULL, expires_at BIGINT, route {name} NOT NULL, reason {word} NOT NULL, \
         attempts BIGINT NOT NULL, errors {text} NOT NULL, parks {flag} NOT NULL, dead_at BIGINT NOT NULL, \
         previous_id BIGINT, resolution {word}, resolved_at BIGINT, resolved_by {name}, resolution_reason {text}, \
         CHECK (origin IN ('relay', 'consumer')), CHECK ((origin = 'relay') = (partition_no IS NOT NULL)), \
         CHECK (attempts >= 0), \
         CHECK (resolution IS NULL OR resolution IN ('redriven', 'discarded', 'resent')), \
         CHECK ((resolution IS NULL) = (resolved_at IS NULL))"
    ),
    queue: false,
    indexes: &[
        index("outbox_letters_event", "event_id, route"),
        partial(
            "outbox_letters_parks",
            "partition_no",
            "parks AND resolution IS NULL",
            "parks, resolution, partition_no",
        ),
        partial("outbox_letters_open", "letter_id", "resolution IS NULL", "resolution, letter_id"),
        partial(
            "outbox_letters_parked",
            "partition_no, letter_id",
            "parks AND resolution IS NULL",
            "parks, resolution, partition_no, letter_id",
        ),
        partial("outbox_letter_resolved", "resolved_at", "resolved_at IS NOT NULL", "resolved_at"),
    ],
};

/// Written in the transaction that resolves a letter, deleted by the partition's relay when it has
/// read the row. So each row that exists is one that the relay has not read yet, whatever order
/// transactions commit in.
const UNPARKED: TableDef = TableDef {
    name: "outbox_unparked",
    body: "letter_id BIGINT NOT NULL PRIMARY KEY, partition_no SMALLINT NOT NULL, event_id BIGINT NOT NULL, \
           route {name} NOT NULL, message_key {name} NOT NULL, redriven {flag} NOT NULL",
    queue: true,
    indexes: &[index("outbox_unparked_place", "partition_no, letter_id")],
};

const DEDUP: TableDef = TableDef {
    name: "outbox_dedup",
    body: "dedup_key {name} NOT NULL PRIMARY KEY, message_id {uuid} NOT NULL, payload_hash BIGINT NOT NULL, \
           until BIGINT NOT NULL",
    queue: true,
    indexes: &[index("outbox_dedup_until", "until")],
};

/// Responses to requests with a dedup key. A row has the message id of the key's present
/// reservation, so that no row of an earlier reservation is taken for it.
const RESPONSES: TableDef = TableDef {
    name: "outbox_responses",
    body: "message_id {uuid} NOT NULL PRIMARY KEY, body {text} NOT NULL, until BIGINT NOT NULL",
    queue: false,
    indexes: &[index("outbox_responses_until", "until")],
};

/// One row at most, written by the first service that installs or opens the outbox with a source of
/// its own.
const SOURCE: TableDef = TableDef {
    name: "outbox_source",
    body: "id INTEGER NOT NULL PRIMARY KEY, source {name} NOT NULL, written_at BIGINT NOT NULL, CHECK (id = 1)",
    queue: false,
    indexes: &[],
};

const INBOX: TableDef = TableDef {
    name: "outbox_inbox",
    body: "consumer {word} NOT NULL, handler {word} NOT NULL, source {name} NOT NULL, message_id {uuid} NOT NULL, \
           keep_until BIGINT NOT NULL, PRIMARY KEY (consumer, handler, source, message_id)",
    queue: true,
    indexes: &[index("outbox_inbox_until", "keep_until")],
};

/// Deliveries that a consumer has deferred. Of the rows with one `order_hash` (of source and key)
/// only the first has a `due_at`: the queue behind it costs nothing. The `awaits` columns are NULL
/// where any instance with the handler may run the delivery, and become NULL when an instance that
/// knows the awaited type or saga, or has the awaited key, claims it; `awaits` is the name of that type,
/// saga or key (codec, slash, key id), NULL where only the handler is missing.
const DEFERRED: TableDef = TableDef {
    name: "outbox_deferred",
    body: concat!(
        "stored_id {serial}, consumer {word} NOT NULL, handler {word} NOT NULL, order_hash BIGINT, sequence_no BIGINT, ",
        event_columns!(),
        ", created_at BIGINT NOT NULL, expires_at BIGINT, stored_at BIGINT NOT NULL, due_at BIGINT, \
         attempts_started BIGINT NOT NULL, attempts_finished BIGINT NOT NULL, failures BIGINT NOT NULL, \
         failing_since BIGINT, errors {text} NOT NULL, letter_id BIGINT, claimed_by {word}, claimed_until BIGINT, \
         awaits_kind {word}, awaits {name}, awaits_version INTEGER, awaits_since BIGINT, \
         CHECK (attempts_started >= 0 AND attempts_finished >= failures AND failures >= 0), \
         CHECK ((claimed_by IS NULL) = (claimed_until IS NULL)), \
         CHECK (due_at IS NOT NULL OR order_hash IS NOT NULL)"
    ),
    queue: true,
    indexes: &[
        unique("outbox_deferred_msg", "consumer, handler, source, message_id"),
        index("outbox_deferred_order", "consumer, handler, order_hash, stored_id"),
        partial(
            "outbox_deferred_due",
            "consumer, due_at",
            "due_at IS NOT NULL",
            "consumer, due_at",
        ),
        partial(
            "outbox_awaited",
            "consumer, handler, awaits_kind, awaits, awaits_version",
            "awaits_since IS NOT NULL",
            "consumer, awaits_since",
        ),
    ],
};

/// A consumer inserts its row at start, renews it by an UPDATE of `lease_until` alone, which no
/// index covers, and deletes it at an orderly end. `handlers` is JSON: names, and the types and
/// versions that they accept.
const INSTANCES: TableDef = TableDef {
    name: "outbox_instances",
    body: "instance_id {word} NOT NULL PRIMARY KEY, consumer {word} NOT NULL, max_in_flight BIGINT NOT NULL, \
           handlers {text} NOT NULL, started_at BIGINT NOT NULL, lease_until BIGINT NOT NULL, \
           CHECK (max_in_flight >= 0)",
    queue: true,
    indexes: &[index("outbox_instances_of", "consumer")],
};

/// The CHECKs are those of `consumer/barrier.rs` of the core. A consumer inserts the row before the
/// handler runs; a reply that is not the default one follows in the same transaction, and no row is
/// changed after that. `command_hash` is NULL where a compensation came first whose saga does not
/// name the command. A message with the headers of another command has a row under a saga id that
/// is made of both.
const SAGA_BARRIER: TableDef = TableDef {
    name: "outbox_saga_barrier",
    body: "consumer {word} NOT NULL, saga_id {uuid} NOT NULL, step {word} NOT NULL, round BIGINT NOT NULL, \
           phase {word} NOT NULL, outcome {word} NOT NULL, event_type {name}, event_version INTEGER, \
           content_type {name}, payload {bytes}, headers {text}, written_at BIGINT NOT NULL, \
           keep_until BIGINT NOT NULL, command_hash {uuid}, \
           PRIMARY KEY (consumer, saga_id, step, round, phase), CHECK (round >= 1), \
           CHECK ((phase = 'do' AND outcome IN ('done', 'rejected', 'blocked')) \
           OR (phase = 'undo' AND outcome = 'undone')), \
           CHECK (outcome <> 'rejected' OR event_type IS NOT NULL), \
           CHECK (outcome <> 'blocked' OR event_type IS NULL), \
           CHECK ((event_type IS NULL) = (event_version IS NULL) AND (event_type IS NULL) = (content_type IS NULL)), \
           CHECK ((event_type IS NULL) = (payload IS NULL) AND (event_type IS NULL) = (headers IS NULL))",
    queue: true,
    indexes: &[index("outbox_barrier_until", "keep_until")],
};

/// The CHECKs are those of `saga/state.rs` of the core: five states, and an active saga has a due
/// time. A step in the middle of a saga changes no column of an index: on PostgreSQL its row stays
/// where it is.
const SAGAS: TableDef = TableDef {
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
        unique("outbox_sagas_known_by", "name, correlation_id"),
        partial("outbox_sagas_due", "due_at", "due_at IS NOT NULL", "due_at"),
        partial(
            "outbox_sagas_open",
            "state, saga_id",
            "state IN ('running', 'compensating', 'stuck')",
            "state, saga_id",
        ),
        partial("outbox_sagas_ended", "ended_at", "ended_at IS NOT NULL", "ended_at"),
    ],
};

/// Written by INSERT only, but for an erasure of an ended saga's content. `kind` and `step` are in
/// the body too; these columns are for people.
const SAGA_LOG: TableDef = TableDef {
    name: "outbox_saga_log",
    body: "saga_id {uuid} NOT NULL, seq BIGINT NOT NULL, kind {word} NOT NULL, step {word}, body {text} NOT NULL, \
           at_us BIGINT NOT NULL, PRIMARY KEY (saga_id, seq), CHECK (seq >= 1)",
    queue: false,
    indexes: &[],
};

/// A lock is inserted in the transaction of the step that takes it and deleted in the one that ends
/// its saga. No row is changed.
const SAGA_LOCKS: TableDef = TableDef {
    name: "outbox_saga_locks",
    body: "entity {name} NOT NULL PRIMARY KEY, saga_id {uuid} NOT NULL, locked_at BIGINT NOT NULL",
    queue: true,
    indexes: &[],
};

/// Which saga waits for the lock of which entity; written while the saga's row is locked. No row is
/// changed.
const SAGA_WAITS: TableDef = TableDef {
    name: "outbox_saga_waits",
    body: "saga_id {uuid} NOT NULL, entity {name} NOT NULL, since_us BIGINT NOT NULL, \
           PRIMARY KEY (saga_id, entity)",
    queue: true,
    indexes: &[index("outbox_waits_entity", "entity, since_us")],
};

/// What running relays, consumers and coordinators write about themselves, for operators: JSON of at
/// most 16 KiB. No lease depends on a row.
const LIVE: TableDef = TableDef {
    name: "outbox_live",
    body: "id {word} NOT NULL PRIMARY KEY, kind {word} NOT NULL, name {word} NOT NULL, body {text} NOT NULL, \
           written_at BIGINT NOT NULL, CHECK (kind IN ('relay', 'consumer', 'sagas'))",
    queue: true,
    indexes: &[],
};

/// What operators have paused or slowed down; a few rows, read at each renewal. `rate` is in events
/// a thousand seconds.
const CONTROLS: TableDef = TableDef {
    name: "outbox_controls",
    body: "scope {word} NOT NULL, name {name} NOT NULL, action {word} NOT NULL, rate BIGINT, set_by {name} NOT NULL, \
           reason {text} NOT NULL, set_at BIGINT NOT NULL, until BIGINT, PRIMARY KEY (scope, name, action), \
           CHECK (scope IN ('route', 'topic', 'key', 'consumer', 'saga')), CHECK (action IN ('pause', 'rate')), \
           CHECK ((action = 'rate') = (rate IS NOT NULL)), CHECK (rate IS NULL OR rate > 0)",
    queue: true,
    indexes: &[],
};

/// Acts of operators that were planned; a row is void after `expires_at` unless its audit row
/// exists. `selection` is JSON: the filter with its bound.
const PLANS: TableDef = TableDef {
    name: "outbox_plans",
    body: "plan_id {serial}, act {word} NOT NULL, selection {text} NOT NULL, up_to BIGINT NOT NULL, \
           after_letter BIGINT NOT NULL, planned_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, audit_id BIGINT",
    queue: true,
    indexes: &[index("outbox_plans_expires", "expires_at")],
};

/// One row an act of an operator. The counts are written in the transactions that they count. Some
/// acts refuse nothing, and some have no plan.
const AUDIT: TableDef = TableDef {
    name: "outbox_audit",
    body: "audit_id {serial}, began_at BIGINT NOT NULL, done_by {name} NOT NULL, reason {text} NOT NULL, \
           act {word} NOT NULL, target {text} NOT NULL, done BIGINT NOT NULL, skipped BIGINT NOT NULL, \
           refused BIGINT NOT NULL DEFAULT 0, outcome {word} NOT NULL, plan_id BIGINT, \
           CHECK (outcome IN ('running', 'done', 'cancelled', 'stopped')), \
           CHECK (done >= 0 AND skipped >= 0 AND refused >= 0)",
    queue: false,
    indexes: &[index("outbox_audit_began", "began_at")],
};

/// A row a minute and route, for the overview of a day.
const SAMPLES: TableDef = TableDef {
    name: "outbox_samples",
    body: "at_us BIGINT NOT NULL, route {name} NOT NULL, body {text} NOT NULL, PRIMARY KEY (at_us, route)",
    queue: true,
    indexes: &[],
};

pub(super) const TABLES: &[TableDef] = &[
    EVENTS,
    ARCHIVE,
    SCHEDULED,
    RELAYS,
    PARTITIONS,
    RETRIES,
    DEAD_LETTERS,
    UNPARKED,
    DEDUP,
    RESPONSES,
    SOURCE,
    INBOX,
    DEFERRED,
    INSTANCES,
    SAGA_BARRIER,
    SAGAS,
    SAGA_LOG,
    SAGA_LOCKS,
    SAGA_WAITS,
    LIVE,
    CONTROLS,
    PLANS,
    AUDIT,
    SAMPLES,
];

/// A view with one row an event and its status, as the transactional outbox is usually drawn;
/// `{created}` and `{finished}` are readable instants.
pub(super) const VIEW: &str = "{create_view} {view} AS \
    SELECT event_id AS id, {created} AS created_at, 'ready' AS status, message_id, source, topic, event_type, \
    event_version, aggregate_type, message_key, content_type, payload, headers, {expires} AS expires_at, \
    {nothing} AS finished_at FROM {events} UNION ALL \
    SELECT event_id, {created}, 'done', message_id, source, topic, event_type, event_version, aggregate_type, \
    message_key, content_type, payload, headers, {expires}, {finished} FROM {archive}";
