//! Messages as SQS and SNS carry them: one JSON object as the body, with copies of a few attributes
//! beside it; or the payload as the body, with all attributes beside it.
//!
//! CloudEvents has no binding for SQS or SNS. A message of theirs has a body that is text, of
//! characters that XML 1.0 allows and not empty, and at most ten attributes: SNS drops a message
//! with more on its way to a queue. An event of an outbox has thirteen and its headers. So the body
//! is the JSON event format unless the configuration says otherwise, which each library of
//! CloudEvents reads; in binary mode what has no attribute of its own stands in one more as JSON.
//!
//! # Source
//! CloudEvents 1.0.2, JSON event format; SQS API reference, `SendMessage`: characters and sizes;
//! SQS developer guide, message attributes; SNS developer guide, raw message delivery.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use outbox_core::{
    event::{Message, Timestamp},
    transport::{
        cloudevents::{self, Fallback, PlainJson},
        printable,
    },
};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The prefix of attributes.
const PREFIX: &str = "ce_";
/// The message attribute that carries the attribute `datacontenttype`.
const CONTENT_TYPE: &str = "content-type";
/// The attribute that it carries.
const DATA_CONTENT_TYPE: &str = "datacontenttype";
/// The message attribute that carries, as a JSON object, what has none of its own.
const REST: &str = "ce_attributes";
/// The message attribute that says why a message is a dead letter.
const DEAD: &str = "dead_letter";
/// The type of every message attribute that is written.
pub(crate) const STRING: &str = "String";
/// Most message attributes: what SNS delivers, and SQS takes.
pub(crate) const MAX_ATTRIBUTES: usize = 10;
/// Attributes that have a message attribute of their own in binary mode: with the media type, the
/// rest and a dead letter's cause they are ten.
const OWN: [&str; 7] =
    ["specversion", "id", "source", "type", "time", "partitionkey", "traceparent"];
/// Most bytes that the copies beside a structured event take: eight names and types, and values as
/// long as attributes can be.
pub(crate) const MOST_COPIES: usize = 2_048;

/// Name and value of a message attribute.
pub(crate) type Attribute = (Cow<'static, str>, String);

/// A message as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EncodedMessage {
    pub(crate) body: String,
    pub(crate) attributes: Vec<Attribute>,
}

impl EncodedMessage {
    /// Counts its bytes as SQS and SNS do: the body, and names, types and values of attributes.
    pub(crate) fn size(&self) -> usize {
        self.body.len() + size_of(&self.attributes)
    }
}

fn size_of(attributes: &[Attribute]) -> usize {
    attributes.iter().map(|(name, value)| name.len() + STRING.len() + value.len()).sum()
}

/// Encodes a message: in binary mode where that is asked for and its payload can be a body.
pub(crate) fn write(message: &Message, binary: bool) -> EncodedMessage {
    let body = std::str::from_utf8(&message.payload).ok().filter(|text| is_text(text));
    match body {
        Some(body) if binary && !cloudevents::is_cloudevents(&message.content_type) => {
            EncodedMessage { body: body.to_owned(), attributes: own_and_rest(message) }
        }
        _ => EncodedMessage { body: to_json(message), attributes: copies(message) },
    }
}

/// Tells whether a text can be a body or the value of an attribute.
fn is_text(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_allowed)
}

const fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// Writes the JSON object, in characters that a body may have. All others are control characters,
/// which JSON escapes, and two that it does not: they are escaped here where that changes no byte
/// of the payload, which else goes as base64.
fn to_json(message: &Message) -> String {
    let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
    let json = text(cloudevents::to_json(message));
    if json.chars().all(is_allowed) {
        return json;
    }
    if !message.payload.windows(3).any(|bytes| matches!(bytes, [0xef, 0xbf, 0xbe | 0xbf])) {
        return escaped(&json);
    }
    let mut parts = message.clone().into_parts();
    let payload = std::mem::take(&mut parts.payload);
    let mut json = escaped(&text(cloudevents::to_json(&Message::new(parts))));
    json.truncate(json.len().saturating_sub(1));
    json.push_str(",\"data_base64\":\"");
    STANDARD.encode_string(&payload, &mut json);
    json.push_str("\"}");
    json
}

/// Escapes the two characters that JSON leaves as they are and no body may have.
fn escaped(json: &str) -> String {
    json.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff")
}

/// Lists the attributes beside a structured event: copies, for filters and for people.
fn copies(message: &Message) -> Vec<Attribute> {
    let all = cloudevents::attributes(message);
    let copied = all.iter().filter(|(name, value)| OWN.contains(name) && is_text(value));
    let copied = copied.map(|(name, value)| ([PREFIX, name].concat().into(), value.to_string()));
    let media = (Cow::Borrowed(CONTENT_TYPE), cloudevents::JSON_MEDIA_TYPE.to_owned());
    std::iter::once(media).chain(copied).collect()
}

/// Lists all attributes for binary mode: some by themselves, the rest as one JSON object.
fn own_and_rest(message: &Message) -> Vec<Attribute> {
    let (mut own, mut rest) = (Vec::with_capacity(MAX_ATTRIBUTES), Map::new());
    for (name, value) in cloudevents::attributes(message) {
        if name == DATA_CONTENT_TYPE && is_text(&value) {
            own.push((CONTENT_TYPE.into(), value.into_owned()));
        } else if OWN.contains(&name) && is_text(&value) {
            own.push(([PREFIX, name].concat().into(), value.into_owned()));
        } else {
            rest.insert(name.to_owned(), value.into_owned().into());
        }
    }
    if !rest.is_empty() {
        own.push((REST.into(), escaped(&Value::Object(rest).to_string())));
    }
    own
}

/// How to read messages without attributes of CloudEvents.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadOptions {
    /// How to read messages that are plain JSON with an attribute for their type.
    pub(crate) plain_json: Option<PlainJson>,
}

/// Reads a message of a queue, or says why it cannot be read. A message without a time of its own
/// was sent at `sent_at`.
pub(crate) fn read(
    options: &ReadOptions,
    queue: &str,
    attributes: &[(String, String)],
    body: &str,
    sent_at: Timestamp,
) -> Result<Message, String> {
    let fallback = Fallback { topic: Some(queue), received_at: sent_at };
    let named = || attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let media = named().find(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE));
    let media = media.map_or("", |(_, value)| value);
    let bytes = || Bytes::copy_from_slice(body.as_bytes());
    let message = if cloudevents::is_cloudevents(media) {
        if !cloudevents::is_json(media) || media.contains("batch") {
            return Err(
                "of the CloudEvents formats only application/cloudevents+json is read".to_owned()
            );
        }
        cloudevents::from_json(body.as_bytes(), &fallback)
    } else {
        let mut list = of_cloudevents(attributes)?;
        if list.is_empty() {
            match &options.plain_json {
                Some(plain) if plain.is_meant(named()) => plain.read(named(), bytes(), &fallback),
                _ => Ok(alone(options, body, &fallback)?),
            }
        } else {
            if !media.is_empty() {
                list.push((DATA_CONTENT_TYPE.to_owned(), media.to_owned()));
            }
            cloudevents::from_attributes(list, bytes(), &fallback)
        }
    };
    message.map(|message| with_cause(message, attributes)).map_err(|error| error.to_string())
}

/// Lists the attributes of CloudEvents among the message attributes.
fn of_cloudevents(attributes: &[(String, String)]) -> Result<Vec<(String, String)>, String> {
    let mut list = Vec::new();
    for (name, value) in attributes {
        if name == REST {
            let rest: Map<String, Value> = serde_json::from_str(value)
                .map_err(|_| format!("the attribute `{REST}` is no JSON object"))?;
            for (name, value) in rest {
                let Value::String(value) = value else {
                    let name = printable(&name);
                    return Err(format!("the attribute `{name}` in `{REST}` is no string"));
                };
                list.push((name, value));
            }
        } else if let Some(name) = name.strip_prefix(PREFIX) {
            list.push((name.to_owned(), value.clone()));
        }
    }
    Ok(list)
}

/// Reads a body without attributes: an event in the JSON format, as a rule of EventBridge sends it
/// too.
fn alone(options: &ReadOptions, body: &str, fallback: &Fallback<'_>) -> Result<Message, String> {
    if let Ok(message) = cloudevents::from_json(body.as_bytes(), fallback) {
        return Ok(message);
    }
    let is_notification = || {
        let object: Map<String, Value> = serde_json::from_str(body).ok()?;
        (object.get("Type")? == "Notification" && object.contains_key("TopicArn")).then_some(())
    };
    Err(if is_notification().is_some() {
        "it is an envelope of SNS: set RawMessageDelivery of the subscription to true"
    } else if options.plain_json.is_some() {
        "it has neither attributes of CloudEvents nor the attribute for its type"
    } else {
        "it has no attributes of CloudEvents; SqsSubscriber::plain_json would read it"
    }
    .to_owned())
}

/// Why a message could not be handled: by a subscriber, or by a queue whose redrive policy moved it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadMessage {
    /// The queue that it was in: its name, or its ARN where its redrive policy moved the message.
    pub queue: String,
    /// How often that queue delivered it; 0 where its redrive policy moved it, which does not say.
    pub deliveries: u32,
    /// What kind of failure it was: `Rejected`, `NotHandled` for one that was returned for good, or
    /// `ReceivedTooOften` for one that a redrive policy moved.
    pub class: String,
    /// Why it could not be handled.
    pub message: String,
}

/// The class of messages that a redrive policy has moved.
const TOO_OFTEN: &str = "ReceivedTooOften";

impl DeadMessage {
    /// Reads it from a message that is a dead letter; `None` for any other message.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        let header = |name: &str| message.headers.get(name);
        Some(Self {
            queue: header("deadqueue")?.to_owned(),
            deliveries: header("deaddeliveries").and_then(|n| n.parse().ok()).unwrap_or_default(),
            class: header("deadclass").unwrap_or_default().to_owned(),
            message: header("deadmessage").unwrap_or_default().to_owned(),
        })
    }

    /// Gives the cause of a message that a redrive policy has moved from a queue.
    pub(crate) fn moved(source: &str) -> Self {
        Self {
            queue: source.to_owned(),
            deliveries: 0,
            class: TOO_OFTEN.to_owned(),
            message: "the redrive policy of its queue has moved it".to_owned(),
        }
    }

    /// Makes the attribute that carries it.
    pub(crate) fn attribute(&self) -> Attribute {
        let cause = serde_json::json!({
            "queue": self.queue,
            "deliveries": self.deliveries.to_string(),
            "class": self.class,
            "message": shortened(&self.message),
        });
        (DEAD.into(), escaped(&cause.to_string()))
    }

    /// Tells whether an attribute carries one.
    pub(crate) fn is_attribute(name: &str) -> bool {
        name == DEAD
    }
}

/// Keeps what a dead letter was as headers of its message.
fn with_cause(message: Message, attributes: &[(String, String)]) -> Message {
    let cause = attributes.iter().rev().find(|(name, _)| name == DEAD);
    let cause = cause.and_then(|(_, text)| serde_json::from_str::<Map<String, Value>>(text).ok());
    let Some(cause) = cause else { return message };
    let mut parts = message.into_parts();
    for name in ["queue", "deliveries", "class", "message"] {
        if let Some(value) = cause.get(name).and_then(Value::as_str) {
            // A text that is no legal header value is dropped: the message matters more.
            let _ = parts.headers.insert(["dead", name].concat(), value);
        }
    }
    Message::new(parts)
}

/// Bytes of a reason that a dead letter keeps.
const MAX_REASON: usize = 1_024;

/// Makes a reason fit for a header: one line, bounded.
fn shortened(reason: &str) -> String {
    let end = (0..=MAX_REASON.min(reason.len()))
        .rev()
        .find(|end| reason.is_char_boundary(*end))
        .unwrap_or(0);
    reason[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
