//! Names of spans, attributes and metrics, in one place, and the three spans of a message's life.
//!
//! No identity of an event or a key is ever an attribute of a metric.
//!
//! # Source
//! OpenTelemetry semantic conventions for messaging; W3C Trace Context.

use crate::event::Message;
use tracing::{Span, field::Empty};

/// The header that carries the W3C trace context of the business transaction.
pub const TRACEPARENT: &str = "traceparent";
/// The header that carries what vendors add to it.
pub const TRACESTATE: &str = "tracestate";

/// Names of attributes of spans and metrics.
pub mod attribute {
    /// Which messaging system.
    pub const SYSTEM: &str = "messaging.system";
    /// What was done, in the system's words.
    pub const OPERATION_NAME: &str = "messaging.operation.name";
    /// What was done, in the convention's words: `create`, `send`, `process`.
    pub const OPERATION_TYPE: &str = "messaging.operation.type";
    /// The topic.
    pub const DESTINATION: &str = "messaging.destination.name";
    /// The consumer's stable name.
    pub const CONSUMER_GROUP: &str = "messaging.consumer.group.name";
    /// The public identity of a message; on spans only.
    pub const MESSAGE_ID: &str = "messaging.message.id";
    /// How many messages a batch has; on spans only.
    pub const BATCH_SIZE: &str = "messaging.batch.message_count";
    /// The class of a failure.
    pub const ERROR_TYPE: &str = "error.type";
    /// The event's type name.
    pub const EVENT_TYPE: &str = "cloudevents.event_type";
    /// The route's stable name.
    pub const ROUTE: &str = "outbox.route";
    /// The handler's stable name.
    pub const HANDLER: &str = "outbox.handler";
}

/// Names of metrics by the conventions. Durations are in seconds.
pub mod metric {
    /// How long a publish took; histogram, s.
    pub const CLIENT_DURATION: &str = "messaging.client.operation.duration";
    /// Messages that were confirmed; counter.
    pub const SENT: &str = "messaging.client.sent.messages";
    /// Messages that were received; counter.
    pub const CONSUMED: &str = "messaging.client.consumed.messages";
    /// How long handlers took with one delivery; histogram, s.
    pub const PROCESS_DURATION: &str = "messaging.process.duration";
}

/// Names of figures that are this crate's own.
pub mod gauge {
    /// Events that wait.
    pub const PENDING: &str = "outbox.pending";
    /// Events handed to a publisher and not yet settled.
    pub const IN_FLIGHT: &str = "outbox.in_flight";
    /// Routes of events that wait for a retry.
    pub const RETRYING: &str = "outbox.retrying";
    /// Dead letters about which nothing was decided.
    pub const DEAD: &str = "outbox.dead";
    /// Age of the oldest event that waits, s.
    pub const OLDEST_PENDING_AGE: &str = "outbox.oldest_pending.age";
    /// Times that a lease was lost; counter.
    pub const LEASES_LOST: &str = "outbox.leases.lost";
    /// Repeats that an inbox recognised; counter.
    pub const DUPLICATES_SUPPRESSED: &str = "outbox.duplicates.suppressed";
    /// 0 while a route's breaker is closed, 1 while it is open.
    pub const BREAKER_OPEN: &str = "outbox.breaker.open";
}

/// What [`attribute::SYSTEM`] says where no broker is known.
pub const SYSTEM: &str = "outbox";

/// Opens the span in which an event is saved with its data.
#[must_use]
pub fn create_span(topic: &str, event_type: &str) -> Span {
    tracing::debug_span!(
        "create",
        otel.kind = "producer",
        { attribute::SYSTEM } = SYSTEM,
        { attribute::OPERATION_NAME } = "create",
        { attribute::OPERATION_TYPE } = "create",
        { attribute::DESTINATION } = topic,
        { attribute::EVENT_TYPE } = event_type,
    )
}

/// Opens the span in which a route publishes a batch. The subscriber of the spans links it to the messages' own
/// [`TRACEPARENT`]; on failure, record [`attribute::ERROR_TYPE`].
#[must_use]
pub fn send_span(route: &str, messages: usize) -> Span {
    tracing::debug_span!(
        "send",
        otel.kind = "producer",
        { attribute::SYSTEM } = SYSTEM,
        { attribute::OPERATION_NAME } = "send",
        { attribute::OPERATION_TYPE } = "send",
        { attribute::ROUTE } = route,
        { attribute::BATCH_SIZE } = messages,
        { attribute::ERROR_TYPE } = Empty,
    )
}

/// Opens the span in which one handler runs: what it logs at INFO carries these three fields, and no more.
#[must_use]
pub fn handle_span(handler: &str, message: &Message) -> Span {
    tracing::info_span!("handle", handler, message_id = %message.id, event_type = message.event_type.as_str())
}

/// Opens the span in which a consumer handles a message, with the message's [`TRACEPARENT`] to link to. At its end,
/// record [`metric::PROCESS_DURATION`], and [`attribute::ERROR_TYPE`] on failure.
#[must_use]
pub fn process_span(consumer: &str, message: &Message) -> Span {
    tracing::debug_span!(
        "process",
        otel.kind = "consumer",
        { attribute::SYSTEM } = SYSTEM,
        { attribute::OPERATION_NAME } = "process",
        { attribute::OPERATION_TYPE } = "process",
        { attribute::DESTINATION } = message.topic.as_str(),
        { attribute::CONSUMER_GROUP } = consumer,
        { attribute::MESSAGE_ID } = %message.id,
        { attribute::EVENT_TYPE } = message.event_type.as_str(),
        { TRACEPARENT } = message.headers.get(TRACEPARENT),
        { metric::PROCESS_DURATION } = Empty,
        { attribute::ERROR_TYPE } = Empty,
    )
}
