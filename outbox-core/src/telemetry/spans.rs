//! The spans of a message's life: created, sent, processed.

use super::{
    names::{CREATE, PROCESS, SEND, SYSTEM, TRACEPARENT, attribute},
    traces::{TraceContext, is_traced, place},
};
use crate::{
    event::{Message, command::CommandId},
    runtime::wall_clock,
};
use std::{collections::BTreeSet, time::Duration};
use tracing::{Span, field::Empty};

/// Trace contexts to which one span links at most: a batch of thousands makes no span of 100 KB.
const MAX_LINKS: usize = 64;
/// Age of a command or reply from which on its handling is a trace of its own: a trace that goes on
/// after minutes is closed already in most systems that show it.
const SAME_TRACE: Duration = Duration::from_mins(1);

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

/// Opens the span in which a route publishes a batch: a trace of its own, with links to the contexts in
/// which the messages were created, 64 at most. Where all messages have one topic, the span names it.
/// What went wrong is recorded by [`record_error`].
///
/// Without a [`TraceBackend`](super::TraceBackend) the links are the text of [`attribute::LINKS`].
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
        otel.status_code = Empty,
    );
    if !span.is_disabled() {
        let links = links(messages);
        if is_traced() {
            place(&span, None, &links);
        } else if !links.is_empty() {
            let texts: Vec<&str> = links.iter().map(|link| &*link.traceparent).collect();
            span.record(attribute::LINKS, texts.join(" "));
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

/// Opens the span in which a consumer handles a message, in its number of attempts from 1, `None` where
/// nobody counts. What went wrong is recorded by [`record_error`].
///
/// An event is handled in a trace of its own, with a link to the context in which it was created. A
/// command of a saga, or its reply, is handled in the trace in which it was created; but in one of its
/// own as well, with a link, when it was attempted before, or is older than a minute.
#[must_use]
pub fn process_span(consumer: &str, message: &Message, attempt: Option<u32>) -> Span {
    let span = tracing::debug_span!(
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
        { TRACEPARENT } = message.headers.get(TRACEPARENT).filter(|_| !is_traced()),
        { attribute::PROCESS_SECONDS } = Empty,
        { attribute::ERROR_TYPE } = Empty,
        otel.status_code = Empty,
    );
    if is_traced() && !span.is_disabled() {
        let created = TraceContext::read(&message.headers);
        match created {
            Some(created) if continues(message, attempt) => place(&span, Some(&created), &[]),
            created => place(&span, None, created.as_slice()),
        }
    }
    span
}

/// Tells whether the handling of a message belongs to the trace in which it was created.
fn continues(message: &Message, attempt: Option<u32>) -> bool {
    let age = || crate::event::Timestamp::from(wall_clock()).since(message.created_at);
    matches!(CommandId::read(&message.headers), Ok(Some(_)))
        && attempt.is_none_or(|attempt| attempt <= 1)
        && age() <= SAME_TRACE
}

/// Records in a span of this module what went wrong, as [`attribute::ERROR_TYPE`] names it.
pub fn record_error(span: &Span, error_type: &str) {
    span.record(attribute::ERROR_TYPE, error_type);
    span.record("otel.status_code", "ERROR");
}

/// Gives the topic that all messages have; `None` where they have several.
pub(crate) fn single_topic(messages: &[Message]) -> Option<&str> {
    let first = messages.first()?.topic.as_str();
    messages.iter().all(|message| message.topic == first).then_some(first)
}

/// Lists the trace contexts of messages, each once.
fn links(messages: &[Message]) -> Vec<TraceContext> {
    let (mut links, mut known) = (Vec::new(), BTreeSet::new());
    for message in messages {
        let Some(traceparent) = message.headers.get(TRACEPARENT) else { continue };
        if known.insert(traceparent) {
            links.extend(TraceContext::read(&message.headers));
        }
        if links.len() == MAX_LINKS {
            break;
        }
    }
    links
}
