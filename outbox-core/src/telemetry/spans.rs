//! The spans of a message's life: created, sent, processed.

use super::names::{CREATE, PROCESS, SEND, SYSTEM, TRACEPARENT, attribute};
use crate::event::Message;
use std::fmt::Write;
use tracing::{Span, field::Empty};

/// Trace contexts to which one span links at most: a batch of thousands makes no span of 100 KB.
const MAX_LINKS: usize = 64;

/// Opens the span in which an event is saved with its data.
#[must_use]
pub fn create_span(topic: &str, event_type: &str) -> Span {
    tracing::debug_span!(
        "create",
        otel.name = %format_args!("{CREATE} {topic}"),
        otel.kind = "producer",
        { attribute::SYSTEM } = SYSTEM,
        { attribute::OPERATION_NAME } = CREATE,
        { attribute::OPERATION_TYPE } = CREATE,
        { attribute::DESTINATION } = topic,
        { attribute::EVENT_TYPE } = event_type,
    )
}

/// Opens the span in which a route publishes a batch, linked to the messages' own [`TRACEPARENT`]s,
/// of which it names 64 at most. Where all messages have one topic, the span names it. On failure,
/// record [`attribute::ERROR_TYPE`].
#[must_use]
pub fn send_span(system: &str, route: &str, messages: &[Message]) -> Span {
    let topic = single_topic(messages);
    let span = tracing::debug_span!(
        "send",
        otel.name = %format_args!("{SEND} {}", topic.unwrap_or(route)),
        otel.kind = "client",
        { attribute::SYSTEM } = system,
        { attribute::OPERATION_NAME } = SEND,
        { attribute::OPERATION_TYPE } = SEND,
        { attribute::DESTINATION } = topic,
        { attribute::ROUTE } = route,
        { attribute::BATCH_SIZE } = messages.len(),
        { attribute::LINKS } = Empty,
        { attribute::ERROR_TYPE } = Empty,
    );
    if !span.is_disabled() {
        let links = links(messages);
        if !links.is_empty() {
            span.record(attribute::LINKS, links);
        }
    }
    span
}

/// Opens the span in which one handler runs: what it logs at INFO carries these three fields, and no
/// more.
#[must_use]
pub fn handle_span(handler: &str, message: &Message) -> Span {
    tracing::info_span!("handle", handler, message_id = %message.id, event_type = message.event_type.as_str())
}

/// Opens the span in which a consumer handles a message, with the message's [`TRACEPARENT`] to link
/// to. On failure, record [`attribute::ERROR_TYPE`].
#[must_use]
pub fn process_span(consumer: &str, message: &Message) -> Span {
    tracing::debug_span!(
        "process",
        otel.name = %format_args!("{PROCESS} {}", message.topic),
        otel.kind = "consumer",
        { attribute::SYSTEM } = SYSTEM,
        { attribute::OPERATION_NAME } = PROCESS,
        { attribute::OPERATION_TYPE } = PROCESS,
        { attribute::DESTINATION } = message.topic.as_str(),
        { attribute::CONSUMER_GROUP } = consumer,
        { attribute::MESSAGE_ID } = %message.id,
        { attribute::EVENT_TYPE } = message.event_type.as_str(),
        { TRACEPARENT } = message.headers.get(TRACEPARENT),
        { attribute::PROCESS_SECONDS } = Empty,
        { attribute::ERROR_TYPE } = Empty,
    )
}

/// Gives the topic that all messages have; `None` where they have several.
pub(crate) fn single_topic(messages: &[Message]) -> Option<&str> {
    let first = messages.first()?.topic.as_str();
    messages.iter().all(|message| message.topic == first).then_some(first)
}

/// Lists the trace contexts of messages, each once.
fn links(messages: &[Message]) -> String {
    let (mut links, mut count, mut last) = (String::new(), 0, None);
    for context in messages.iter().filter_map(|message| message.headers.get(TRACEPARENT)) {
        // Events of one transaction, which stand side by side, have one context.
        if last.replace(context) == Some(context) {
            continue;
        }
        let separator = if links.is_empty() { "" } else { " " };
        let _ = write!(links, "{separator}{context}");
        count += 1;
        if count == MAX_LINKS {
            break;
        }
    }
    links
}
