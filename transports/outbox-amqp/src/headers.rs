//! Messages as AMQP 0-9-1 carries them: attributes as headers `cloudEvents_..`, the payload untouched as body.
//!
//! # Source
//! CloudEvents 1.0.2, AMQP protocol binding. It is written for AMQP 1.0, whose application properties are headers here; both
//! of its prefixes are read.

use crate::config::MAX_NAME;
use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use outbox_core::{
    event::{Message, Timestamp},
    transport::cloudevents::{self, Fallback, PlainJson},
};
use serde::{Deserialize, Serialize};

/// The prefix that is written.
const PREFIX: &str = "cloudEvents_";
/// The binding's other prefix, which is read too.
const OTHER_PREFIX: &str = "cloudEvents:";
/// Where RabbitMQ keeps the places in which a message was dead-lettered.
const X_DEATH: &str = "x-death";
/// Where RabbitMQ's quorum queues count deliveries that came back.
const X_DELIVERY_COUNT: &str = "x-delivery-count";
/// Header of a message that keeps what RabbitMQ has written of its deaths.
const DEATHS: &str = "xdeath";
/// Deaths that are kept of one message: more than any sensible chain of queues has.
const MAX_DEATHS: usize = 32;
/// Written to disk before it is confirmed.
const PERSISTENT: u8 = 2;
/// What a frame with properties has besides headers and texts: its envelope, flags and numbers.
const FRAME_OVERHEAD: usize = 128;

/// A message as it is sent.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

/// Writes a message, in structured mode where that is asked for or where binary mode cannot carry it: a payload that is itself
/// a CloudEvent would be taken for this message, and all headers have to fit in one frame.
pub(crate) fn write(message: &Message, structured: bool, frame_max: usize) -> Packet {
    let binary = || {
        let list = cloudevents::attributes(message);
        let content_type = short(message.content_type.as_str())?;
        let mut headers = FieldTable::default();
        let mut size = FRAME_OVERHEAD + 2 * MAX_NAME;
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
    let wanted = structured || cloudevents::is_cloudevents(&message.content_type);
    match (!wanted).then(binary).flatten() {
        Some((content_type, headers)) => Packet {
            properties: properties.with_content_type(content_type).with_headers(headers),
            body: message.payload.clone(),
        },
        None => Packet {
            properties: properties
                .with_content_type(ShortString::from(cloudevents::JSON_MEDIA_TYPE)),
            body: cloudevents::to_json(message),
        },
    }
}

/// Microseconds of a second: the property counts seconds.
const MICROS: i64 = 1_000_000;

/// The attribute that travels as a property of AMQP's own.
fn carries_content_type(attribute: &str) -> bool {
    attribute == "datacontenttype"
}

fn short(text: impl Into<String>) -> Option<ShortString> {
    ShortString::try_new(text).ok()
}

/// How messages without attributes of CloudEvents are read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    /// How those are read that are plain JSON with a header for their type.
    pub(crate) plain_json: Option<PlainJson>,
    /// The source of messages that are no CloudEvents; `None` refuses them.
    pub(crate) plain_source: Option<String>,
}

/// Reads a message, or says why it cannot be read.
pub(crate) fn read(
    reading: &Reading,
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
            if let Some((plain, headers)) = plain_json(reading, properties) {
                let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                let read = plain.read(headers, body, &fallback);
                return read
                    .map(|message| keep_deaths(message, properties))
                    .map_err(|error| error.to_string());
            }
            list = plain(reading, properties)?;
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
            return Err(format!("the attribute `{}` is no text, number or time", shown(name)));
        };
        list.push((name.to_owned(), value));
    }
    Ok(list)
}

/// Gives the headers of a message that is plain JSON with a header for its type, and how it is read; its properties are among
/// them.
fn plain_json<'r>(
    reading: &'r Reading,
    properties: &BasicProperties,
) -> Option<(&'r PlainJson, Vec<(String, String)>)> {
    let plain = reading.plain_json.as_ref()?;
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

/// Lists the attributes of a message that is no CloudEvent: its properties, and the headers that have legal names.
fn plain(reading: &Reading, properties: &BasicProperties) -> Result<Vec<(String, String)>, String> {
    let Some(source) = &reading.plain_source else {
        let problem = match reading.plain_json {
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

fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Gives a value as the text that CloudEvents has for it.
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

/// Says which delivery this is, from 1; `None` where the queue does not count. A queue that counts says nothing of a first
/// delivery.
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

/// One place in which RabbitMQ dead-lettered a message, as its header `x-death` tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Death {
    /// The queue that gave it up.
    pub queue: String,
    /// Why: `rejected`, `expired`, `maxlen` or `delivery_limit`.
    pub reason: String,
    /// How often it died there for this reason.
    pub count: u64,
    /// The exchange to which it had been published.
    pub exchange: String,
    /// The routing keys that it had.
    pub routing_keys: Vec<String>,
    /// When it first died there, in whole seconds.
    pub at: Option<i64>,
}

impl Death {
    /// Lists the deaths of a received message, the last first; empty for one that was never dead-lettered.
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

/// Keeps what the server wrote of a message's deaths as a header, in JSON.
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
        // A text that no header takes (U+0085 in a queue's name) is done without; the message is what counts.
        let _ = parts.headers.insert(DEATHS, text);
    }
    Message::new(parts)
}

#[cfg(test)]
mod tests;
