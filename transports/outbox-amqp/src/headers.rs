//! Messages as AMQP 0-9-1 carries them: attributes as headers `cloudEvents_..`, the payload
//! untouched as body.
//!
//! # Source
//! CloudEvents 1.0.2, AMQP protocol binding. It is written for AMQP 1.0, whose application
//! properties are headers here; both of its prefixes are read.

use crate::config::MAX_NAME;
use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use outbox_core::{
    event::{Message, Timestamp},
    telemetry::{TraceContext, current_context},
    transport::{
        cloudevents::{self, Fallback, PlainJson},
        printable,
    },
};
use serde::{Deserialize, Serialize};

/// The prefix that is written.
const PREFIX: &str = "cloudEvents_";
/// The binding's other prefix, which the subscriber reads too.
const OTHER_PREFIX: &str = "cloudEvents:";
/// Header in which RabbitMQ lists the queues that dead-lettered a message.
const X_DEATH: &str = "x-death";
/// Header in which RabbitMQ's quorum queues count returned deliveries.
const X_DELIVERY_COUNT: &str = "x-delivery-count";
/// Header in which a message keeps RabbitMQ's `x-death`.
const DEATHS: &str = "xdeath";
/// Most deaths that a message keeps: more than any sensible chain of queues has.
const MAX_DEATHS: usize = 32;
/// The delivery mode in which the server writes a message to disk before it confirms.
const PERSISTENT: u8 = 2;
/// Bytes of a frame with properties besides headers and texts: its envelope, flags and numbers.
const FRAME_OVERHEAD: usize = 128;

/// A message as the publisher sends it.
#[derive(Debug)]
pub(crate) struct EncodedMessage {
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

/// Encodes a message, in structured mode where the configuration says so or where binary mode
/// cannot carry it: a subscriber would read a payload that is itself a CloudEvent as this message,
/// and all headers have to fit in one frame.
///
/// The context of the span in which it is sent goes into headers without a prefix; that in which the
/// event was created is an attribute.
pub(crate) fn write(message: &Message, structured: bool, frame_max: usize) -> EncodedMessage {
    let (mut trace, mut trace_size) = (FieldTable::default(), 0);
    for (name, value) in current_context().iter().flat_map(TraceContext::headers) {
        trace_size += name.len() + value.len() + 6;
        trace.insert(ShortString::from(name), AMQPValue::LongString(LongString::from(value)));
    }
    let binary = || {
        let list = cloudevents::attributes(message);
        let content_type = short(message.content_type.as_str())?;
        let mut headers = trace.clone();
        let mut size = FRAME_OVERHEAD + 2 * MAX_NAME + trace_size;
        for (name, value) in list.into_iter().filter(|(name, _)| !carries_content_type(name)) {
            let name = short([PREFIX, name].concat())?;
            size += name.as_str().len() + value.len() + 6;
            headers.insert(name, AMQPValue::LongString(LongString::from(value.into_owned())));
        }
        (size <= frame_max).then_some((content_type, headers))
    };
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let properties = match short(message.id.to_string()) {
        Some(id) => properties.with_message_id(id),
        None => properties,
    };
    let properties = match short(message.event_type.as_str()) {
        Some(event_type) => properties.with_type(event_type),
        None => properties,
    };
    let properties = match u64::try_from(message.created_at.as_micros() / MICROS) {
        Ok(seconds) => properties.with_timestamp(seconds),
        Err(_) => properties,
    };
    let structured = structured || cloudevents::is_cloudevents(&message.content_type);
    match (!structured).then(binary).flatten() {
        Some((content_type, headers)) => EncodedMessage {
            properties: properties.with_content_type(content_type).with_headers(headers),
            body: message.payload.clone(),
        },
        None => EncodedMessage {
            properties: with_trace(properties, trace)
                .with_content_type(ShortString::from(cloudevents::JSON_MEDIA_TYPE)),
            body: cloudevents::to_json(message),
        },
    }
}

fn with_trace(properties: BasicProperties, trace: FieldTable) -> BasicProperties {
    if trace.inner().is_empty() { properties } else { properties.with_headers(trace) }
}

/// Microseconds of a second: the property counts seconds.
const MICROS: i64 = 1_000_000;

/// Tells whether AMQP carries an attribute in its own property.
fn carries_content_type(attribute: &str) -> bool {
    attribute == "datacontenttype"
}

fn short(text: impl Into<String>) -> Option<ShortString> {
    ShortString::try_new(text).ok()
}

/// How to read messages without attributes of CloudEvents.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadOptions {
    /// How to read messages that are plain JSON with a header for their type.
    pub(crate) plain_json: Option<PlainJson>,
    /// The source of messages that are no CloudEvents; `None` refuses them.
    pub(crate) plain_source: Option<String>,
}

/// Reads a message, or says why it cannot be read.
pub(crate) fn read(
    options: &ReadOptions,
    properties: &BasicProperties,
    exchange: &str,
    body: Bytes,
    received_at: Timestamp,
) -> Result<Message, String> {
    let sent_at =
        properties.timestamp().and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(MICROS));
    let fallback = Fallback {
        topic: Some(exchange).filter(|exchange| !exchange.is_empty()),
        received_at: sent_at.map_or(received_at, Timestamp::from_micros),
    };
    let media = properties.content_type().as_ref().map_or("", ShortString::as_str);
    let read = if cloudevents::is_cloudevents(media) {
        if cloudevents::is_json(media) && !media.contains("batch") {
            cloudevents::from_json(&body, &fallback)
        } else {
            return Err(
                "of the CloudEvents formats only application/cloudevents+json is read".to_owned()
            );
        }
    } else {
        let mut list = attributes(properties)?;
        if list.is_empty() {
            if let Some((plain, headers)) = plain_json(options, properties) {
                let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                let read = plain.read(headers, body, &fallback);
                return read
                    .map(|message| keep_deaths(message, properties))
                    .map_err(|error| error.to_string());
            }
            list = plain(options, properties)?;
        }
        if !media.is_empty() {
            list.push(("datacontenttype".to_owned(), media.to_owned()));
        }
        cloudevents::from_attributes(list, body, &fallback)
    };
    read.map(|message| keep_deaths(message, properties)).map_err(|error| error.to_string())
}

/// Lists the attributes of CloudEvents among the headers.
fn attributes(properties: &BasicProperties) -> Result<Vec<(String, String)>, String> {
    let mut list = Vec::new();
    for (header, value) in table(properties) {
        let name = header
            .as_str()
            .strip_prefix(PREFIX)
            .or_else(|| header.as_str().strip_prefix(OTHER_PREFIX));
        let Some(name) = name else { continue };
        let Some(value) = text(value) else {
            return Err(format!("the attribute `{}` is no text, number or time", printable(name)));
        };
        list.push((name.to_owned(), value));
    }
    Ok(list)
}

/// Gives the headers, properties included, of a message that is plain JSON with a header for its
/// type, and how to read it.
fn plain_json<'r>(
    options: &'r ReadOptions,
    properties: &BasicProperties,
) -> Option<(&'r PlainJson, Vec<(String, String)>)> {
    let plain = options.plain_json.as_ref()?;
    let mut headers: Vec<(String, String)> = table(properties)
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)))
        .collect();
    for (name, property) in [("message-id", properties.message_id()), ("type", properties.kind())] {
        if let Some(property) = property
            && !headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name))
        {
            headers.push((name.to_owned(), property.as_str().to_owned()));
        }
    }
    let is_meant =
        plain.is_meant(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    is_meant.then_some((plain, headers))
}

/// Lists the attributes of a message that is no CloudEvent: its properties, and the headers that
/// have legal names.
fn plain(
    options: &ReadOptions,
    properties: &BasicProperties,
) -> Result<Vec<(String, String)>, String> {
    let Some(source) = &options.plain_source else {
        let problem = match options.plain_json {
            None => {
                "it has no attributes of CloudEvents; AmqpSubscriber::plain or plain_json would read it"
            }
            Some(_) => "it has neither attributes of CloudEvents nor the header for its type",
        };
        return Err(problem.to_owned());
    };
    let header = |name: &str| {
        table(properties).find(|(header, _)| header.as_str() == name).and_then(|(_, v)| text(v))
    };
    let named =
        |property: &Option<ShortString>| property.as_ref().map(|text| text.as_str().to_owned());
    let mut list = vec![
        ("specversion".to_owned(), cloudevents::SPEC_VERSION.to_owned()),
        ("source".to_owned(), source.clone()),
    ];
    let id = named(properties.message_id()).or_else(|| header("id"));
    let event_type = named(properties.kind()).or_else(|| header("type"));
    list.extend(id.map(|id| ("id".to_owned(), id)));
    list.extend(event_type.map(|event_type| ("type".to_owned(), event_type)));
    for (header, value) in table(properties) {
        let name = header.as_str();
        let is_legal = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if is_legal && !list.iter().any(|(taken, _)| taken == name) {
            list.extend(text(value).map(|value| (name.to_owned(), value)));
        }
    }
    Ok(list)
}

fn table(properties: &BasicProperties) -> impl Iterator<Item = (&ShortString, &AMQPValue)> {
    properties.headers().iter().flat_map(|headers| headers.inner().iter())
}

/// Converts a value to its CloudEvents text.
fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        AMQPValue::Boolean(value) => Some(value.to_string()),
        AMQPValue::Timestamp(seconds) => {
            let micros = i64::try_from(*seconds).ok()?.checked_mul(MICROS)?;
            Timestamp::from_micros(micros).to_rfc3339()
        }
        number => whole(number).map(|number| number.to_string()),
    }
}

fn whole(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortShortUInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortUInt(n) => Some(i64::from(*n)),
        AMQPValue::LongInt(n) => Some(i64::from(*n)),
        AMQPValue::LongUInt(n) => Some(i64::from(*n)),
        AMQPValue::LongLongInt(n) => Some(*n),
        _ => None,
    }
}

/// Gives the number of this delivery, from 1; `None` where the queue does not count. A queue that
/// counts adds no header to a first delivery.
pub(crate) fn attempt(
    properties: &BasicProperties,
    redelivered: bool,
    counts: bool,
) -> Option<u32> {
    match table(properties).find(|(name, _)| name.as_str() == X_DELIVERY_COUNT) {
        Some((_, count)) => u32::try_from(whole(count)?).ok()?.checked_add(1),
        None => (counts && !redelivered).then_some(1),
    }
}

/// One entry of RabbitMQ's header `x-death`: a queue that dead-lettered a message.
///
/// ```
/// # use outbox_amqp::Death;
/// # use outbox_core::event::Message;
/// # fn example(message: &Message) {
/// for death in Death::all_of(message) {
///     println!("{} times from {}: {}", death.count, death.queue, death.reason);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Death {
    /// The queue that dead-lettered it.
    pub queue: String,
    /// Why: `rejected`, `expired`, `maxlen` or `delivery_limit`.
    pub reason: String,
    /// How often the queue dead-lettered it for this reason.
    pub count: u64,
    /// The exchange to which it had been published.
    pub exchange: String,
    /// The routing keys that it had.
    pub routing_keys: Vec<String>,
    /// When the queue first dead-lettered it, in whole seconds since 1970.
    pub at: Option<i64>,
}

impl Death {
    /// Lists the deaths of a received message, the last first; empty for one that was never
    /// dead-lettered.
    ///
    /// A message that is published again keeps them.
    #[must_use]
    pub fn all_of(message: &Message) -> Vec<Self> {
        let kept = message.headers.get(DEATHS);
        kept.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    fn of(entry: &AMQPValue) -> Option<Self> {
        let AMQPValue::FieldTable(entry) = entry else { return None };
        let field = |name: &str| entry.inner().get(name);
        let words = |name: &str| field(name).and_then(text).unwrap_or_default();
        let routing_keys = match field("routing-keys") {
            Some(AMQPValue::FieldArray(keys)) => keys.as_slice().iter().filter_map(text).collect(),
            _ => Vec::new(),
        };
        let at = match field("time") {
            Some(AMQPValue::Timestamp(seconds)) => i64::try_from(*seconds).ok(),
            _ => None,
        };
        Some(Self {
            queue: words("queue"),
            reason: words("reason"),
            count: field("count").and_then(whole).and_then(|n| u64::try_from(n).ok()).unwrap_or(1),
            exchange: words("exchange"),
            routing_keys,
            at,
        })
    }
}

/// Keeps the server's `x-death` as a header of the message, in JSON.
fn keep_deaths(message: Message, properties: &BasicProperties) -> Message {
    let Some((_, AMQPValue::FieldArray(entries))) =
        table(properties).find(|(name, _)| name.as_str() == X_DEATH)
    else {
        return message;
    };
    let deaths: Vec<Death> =
        entries.as_slice().iter().take(MAX_DEATHS).filter_map(Death::of).collect();
    let mut parts = message.into_parts();
    if let Ok(text) = serde_json::to_string(&deaths) {
        // A text that is no legal header value (U+0085 in a queue's name) is dropped: the message
        // matters more.
        let _ = parts.headers.insert(DEATHS, text);
    }
    Message::new(parts)
}

#[cfg(test)]
mod tests;
