//! Messages as MQTT 5 carries them: attributes as user properties, the media type in the property
//! for it, and the payload untouched.
//!
//! # Source
//! CloudEvents 1.0.2, MQTT protocol binding, section 3.1.

use crate::config::is_text;
use bytes::Bytes;
use outbox_core::{
    event::{Message, Timestamp},
    transport::cloudevents::{self, Fallback, PlainJson},
};
use rumqttc::mqttbytes::v5::PublishProperties;

/// The attribute that the property Content Type carries.
const DATA_CONTENT_TYPE: &str = "datacontenttype";
/// The attribute that every event has, by which one is told from other messages.
const SPEC_VERSION: &str = "specversion";
/// The prefix of the properties that a dead letter has besides those of its message.
const DEAD_PREFIX: &str = "dead_";
/// Most bytes of the properties of a message: those of a packet, less topic and payload.
const MAX_PROPERTIES: usize = 1 << 20;

/// A message as the publisher sends it.
#[derive(Debug)]
pub(crate) struct EncodedMessage {
    pub(crate) properties: PublishProperties,
    pub(crate) body: Bytes,
}

/// Encodes a message, in structured mode where the configuration says so, where the payload is
/// itself a CloudEvent, which a subscriber would read as this message, and where a user property
/// cannot carry an attribute: texts of MQTT have at most 65,535 bytes and no non-characters.
pub(crate) fn write(message: &Message, structured: bool) -> EncodedMessage {
    let attributes = cloudevents::attributes(message);
    let size: usize = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
    let is_binary = !structured
        && !cloudevents::is_cloudevents(&message.content_type)
        && size <= MAX_PROPERTIES
        && attributes.iter().all(|(name, value)| is_text(name) && is_text(value));
    let mut properties = PublishProperties::default();
    if !is_binary {
        properties.content_type = Some(cloudevents::JSON_MEDIA_TYPE.to_owned());
        return EncodedMessage { properties, body: cloudevents::to_json(message) };
    }
    for (name, value) in attributes {
        if name == DATA_CONTENT_TYPE {
            properties.content_type = Some(value.into_owned());
        } else {
            properties.user_properties.push((name.to_owned(), value.into_owned()));
        }
    }
    EncodedMessage { properties, body: message.payload.clone() }
}

/// How to read messages that are no CloudEvents.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadOptions {
    /// How to read messages that are plain JSON with a user property for their type.
    pub(crate) plain_json: Option<PlainJson>,
}

/// Reads a message of a topic, or says why it cannot be read.
pub(crate) fn read(
    options: &ReadOptions,
    topic: &str,
    properties: &PublishProperties,
    body: Bytes,
    received_at: Timestamp,
) -> Result<Message, String> {
    let fallback = Fallback { topic: Some(topic), received_at };
    let media = properties.content_type.as_deref().unwrap_or_default();
    let list = &properties.user_properties;
    let message = if cloudevents::is_cloudevents(media) {
        if !cloudevents::is_json(media) || media.contains("batch") {
            return Err(
                "of the CloudEvents formats only application/cloudevents+json is read".to_owned()
            );
        }
        cloudevents::from_json(&body, &fallback)
    } else if list.iter().any(|(name, _)| name == SPEC_VERSION) {
        let mut attributes: Vec<(&str, &str)> = list
            .iter()
            .filter(|(name, _)| is_attribute(name))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        if !media.is_empty() {
            attributes.push((DATA_CONTENT_TYPE, media));
        }
        cloudevents::from_attributes(attributes, body, &fallback)
    } else {
        plain(options, list, media, body, &fallback)?
    };
    message.map(|message| with_dead_message(message, list)).map_err(|error| error.to_string())
}

/// Tells whether a user property may be an attribute: other tools add properties of their own.
fn is_attribute(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Reads a message without attributes: plain JSON where that is configured, and the structured mode
/// of a client of MQTT 3.1.1, which has no properties.
fn plain(
    options: &ReadOptions,
    list: &[(String, String)],
    media: &str,
    body: Bytes,
    fallback: &Fallback<'_>,
) -> Result<Result<Message, cloudevents::CloudEventError>, String> {
    let named = || list.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    if let Some(plain) = &options.plain_json
        && plain.is_meant(named())
    {
        return Ok(plain.read(named(), body, fallback));
    }
    if list.is_empty()
        && media.is_empty()
        && let Ok(message) = cloudevents::from_json(&body, fallback)
    {
        return Ok(Ok(message));
    }
    Err(match &options.plain_json {
        Some(_) => "it has neither attributes of CloudEvents nor the property for its type",
        None => {
            "it has no attributes of CloudEvents; MqttSubscriber::plain_json would read plain JSON"
        }
    }
    .to_owned())
}

/// The message that a dead letter was, and why it could not be handled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MqttDeadMessage {
    /// The topic of the original message.
    pub topic: String,
    /// The client id of the subscriber that could not handle it.
    pub client: String,
    /// What kind of failure it was: `Rejected`, or `NotHandled` for one that was returned for good.
    pub class: String,
    /// Why it could not be handled.
    pub message: String,
}

impl MqttDeadMessage {
    /// Reads it from a message that is a dead letter; `None` for any other message.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        let header = |name: &str| message.headers.get(name);
        let or_empty = |name: &str| header(name).unwrap_or_default().to_owned();
        Some(Self {
            topic: header("deadtopic")?.to_owned(),
            client: or_empty("deadclient"),
            class: or_empty("deadclass"),
            message: or_empty("deadmessage"),
        })
    }

    /// Lists the properties of a dead letter: those of its message as they came, without the cause
    /// of an earlier death, and its cause.
    pub(crate) fn properties(&self, original: &PublishProperties) -> PublishProperties {
        let cause = [
            ("topic", &self.topic),
            ("client", &self.client),
            ("class", &self.class),
            ("message", &self.message),
        ];
        let cause = cause.map(|(name, value)| ([DEAD_PREFIX, name].concat(), shortened(value)));
        let kept = original.user_properties.iter();
        let kept = kept.filter(|(name, _)| !name.starts_with(DEAD_PREFIX)).cloned();
        PublishProperties {
            content_type: original.content_type.clone(),
            payload_format_indicator: original.payload_format_indicator,
            user_properties: kept.chain(cause).collect(),
            ..PublishProperties::default()
        }
    }
}

/// Keeps what a dead letter was as headers of its message.
fn with_dead_message(message: Message, list: &[(String, String)]) -> Message {
    let kept = ["topic", "client", "class", "message"];
    let value_of = |wanted: &str| {
        let is_it = |name: &str| name.strip_prefix(DEAD_PREFIX) == Some(wanted);
        list.iter().rev().find(|(name, _)| is_it(name)).map(|(_, value)| value.as_str())
    };
    if value_of("topic").is_none() {
        return message;
    }
    let mut parts = message.into_parts();
    for name in kept {
        if let Some(value) = value_of(name) {
            // A text that is no legal header value is dropped: the message matters more.
            let _ = parts.headers.insert(["dead", name].concat(), value);
        }
    }
    Message::new(parts)
}

/// Bytes of a reason that a dead letter keeps.
const MAX_REASON: usize = 1_024;

/// Makes a reason fit for a property: one line, bounded, without what MQTT does not carry.
fn shortened(reason: &str) -> String {
    let end = (0..=MAX_REASON.min(reason.len()))
        .rev()
        .find(|end| reason.is_char_boundary(*end))
        .unwrap_or(0);
    let carried = |c: char| if is_text(c.encode_utf8(&mut [0; 4])) { c } else { ' ' };
    reason[..end].chars().map(carried).collect()
}

#[cfg(test)]
mod tests;
