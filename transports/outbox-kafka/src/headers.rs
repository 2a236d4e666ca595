//! Messages as Kafka carries them: attributes as headers `ce_..`, the media type in `content-type`,
//! the payload untouched as value, the message key as record key.
//!
//! # Source
//! CloudEvents 1.0.2, Kafka protocol binding.

use bytes::Bytes;
use outbox_core::{
    event::{Message, Timestamp},
    telemetry::{TraceContext, current_context},
    transport::{
        cloudevents::{self, Fallback, PlainJson},
        printable,
    },
};
use rdkafka::message::{Header, Headers, OwnedHeaders};

/// The prefix of attributes.
const PREFIX: &str = "ce_";
/// The header that carries the attribute `datacontenttype`.
const CONTENT_TYPE: &str = "content-type";
/// The attribute that it carries.
const DATA_CONTENT_TYPE: &str = "datacontenttype";
/// The prefix of Kafka Connect's dead-letter headers.
const DEAD_LETTER_PREFIX: &str = "__connect.errors.";

/// Encodes a message, in structured mode where the configuration says so or where the payload is
/// itself a CloudEvent, which a subscriber would read as this message.
///
/// The context of the span in which it is sent goes into headers without a prefix; that in which the
/// event was created is an attribute.
pub(crate) fn write(message: &Message, structured: bool) -> (OwnedHeaders, Bytes) {
    let (headers, body) = write_event(message, structured);
    let headers = current_context()
        .iter()
        .flat_map(TraceContext::headers)
        .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
    (headers, body)
}

fn write_event(message: &Message, structured: bool) -> (OwnedHeaders, Bytes) {
    let insert = |headers: OwnedHeaders, key: &str, value: &str| {
        headers.insert(Header { key, value: Some(value) })
    };
    if structured || cloudevents::is_cloudevents(&message.content_type) {
        let headers =
            insert(OwnedHeaders::new_with_capacity(1), CONTENT_TYPE, cloudevents::JSON_MEDIA_TYPE);
        return (headers, cloudevents::to_json(message));
    }
    let attributes = cloudevents::attributes(message);
    let headers = OwnedHeaders::new_with_capacity(attributes.len());
    let headers = attributes.iter().fold(headers, |headers, (name, value)| match *name {
        DATA_CONTENT_TYPE => insert(headers, CONTENT_TYPE, value),
        name => insert(headers, &[PREFIX, name].concat(), value),
    });
    (headers, message.payload.clone())
}

/// How to read records without attributes of CloudEvents.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadOptions {
    /// How to read records that are plain JSON with a header for their type.
    pub(crate) plain_json: Option<PlainJson>,
}

/// The metadata of a received record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'r> {
    pub(crate) topic: &'r str,
    pub(crate) key: Option<&'r [u8]>,
    /// Milliseconds since 1970.
    pub(crate) timestamp: Option<i64>,
    pub(crate) received_at: Timestamp,
}

/// Reads a message, or says why it cannot be read.
pub(crate) fn read(
    options: &ReadOptions,
    record: Record<'_>,
    headers: Option<&impl Headers>,
    body: Bytes,
) -> Result<Message, String> {
    let headers = texts(headers)?;
    let sent_at =
        record.timestamp.and_then(|millis| millis.checked_mul(1_000)).map(Timestamp::from_micros);
    let fallback =
        Fallback { topic: Some(record.topic), received_at: sent_at.unwrap_or(record.received_at) };
    let media = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE));
    let media = media.map_or("", |(_, value)| value.as_str());
    let message = if cloudevents::is_cloudevents(media) {
        if !cloudevents::is_json(media) || media.contains("batch") {
            return Err(
                "of the CloudEvents formats only application/cloudevents+json is read".to_owned()
            );
        }
        cloudevents::from_json(&body, &fallback)
    } else {
        let mut attributes: Vec<(&str, &str)> = headers
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value.as_str())))
            .collect();
        if attributes.is_empty() {
            plain(options, &headers, record.key, body, &fallback)?
        } else {
            if !media.is_empty() {
                attributes.push((DATA_CONTENT_TYPE, media));
            }
            cloudevents::from_attributes(attributes, body, &fallback)
        }
    };
    message
        .map(|message| with_dead_letter_headers(with_key(message, record.key), &headers))
        .map_err(|error| error.to_string())
}

/// Reads a record that is no CloudEvent.
fn plain(
    options: &ReadOptions,
    headers: &[(String, String)],
    key: Option<&[u8]>,
    body: Bytes,
    fallback: &Fallback<'_>,
) -> Result<Result<Message, cloudevents::CloudEventError>, String> {
    let named = || headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    match &options.plain_json {
        Some(plain) if plain.is_meant(named()) => {
            let message = plain.read(named(), body, fallback);
            Ok(message.map(|message| with_key(message, key)))
        }
        Some(_) => {
            Err("it has neither attributes of CloudEvents nor the header for its type".to_owned())
        }
        None => {
            Err("it has no attributes of CloudEvents; KafkaSubscriber::plain_json would read it"
                .to_owned())
        }
    }
}

/// Sets the key of a message without one to the record key, by which Kafka has ordered it, where
/// that is a legal message key.
fn with_key(message: Message, key: Option<&[u8]>) -> Message {
    let key = key.and_then(cloudevents::key_of);
    match (&message.key, key) {
        (None, Some(key)) => {
            let mut parts = message.into_parts();
            parts.key = Some(key.to_owned());
            Message::new(parts)
        }
        _ => message,
    }
}

/// Lists the headers whose values are UTF-8.
pub(crate) fn texts(headers: Option<&impl Headers>) -> Result<Vec<(String, String)>, String> {
    let mut list = Vec::new();
    for header in headers.into_iter().flat_map(Headers::iter) {
        match std::str::from_utf8(header.value.unwrap_or_default()) {
            Ok(value) => list.push((header.key.to_owned(), value.to_owned())),
            Err(_)
                if header.key.starts_with(PREFIX)
                    || header.key.eq_ignore_ascii_case(CONTENT_TYPE) =>
            {
                return Err(format!("the header `{}` is no UTF-8", printable(header.key)));
            }
            Err(_) => {}
        }
    }
    Ok(list)
}

/// Why a record is a dead letter, after Kafka Connect's headers.
///
/// ```
/// # use outbox_core::event::Message;
/// # use outbox_kafka::DeadLetterCause;
/// # fn example(message: &Message) {
/// if let Some(cause) = DeadLetterCause::of(message) {
///     println!("{}[{}] at {}: {}", cause.topic, cause.partition, cause.offset, cause.message);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterCause {
    /// The topic of the original record.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// What kind of failure it was.
    pub class: String,
    /// Why it could not be handled.
    pub message: String,
}

impl DeadLetterCause {
    /// Reads the cause of a message that is a dead letter; `None` for any other message.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        let header = |name: &str| message.headers.get(name);
        Some(Self {
            topic: header("deadtopic")?.to_owned(),
            partition: header("deadpartition")?.parse().ok()?,
            offset: header("deadoffset")?.parse().ok()?,
            class: header("deadclass").unwrap_or_default().to_owned(),
            message: header("deadmessage").unwrap_or_default().to_owned(),
        })
    }

    /// Lists the headers of a dead letter.
    pub(crate) fn headers(&self) -> [(String, String); 5] {
        let named = |name: &str, value: String| (format!("{DEAD_LETTER_PREFIX}{name}"), value);
        [
            named("topic", self.topic.clone()),
            named("partition", self.partition.to_string()),
            named("offset", self.offset.to_string()),
            named("exception.class.name", self.class.clone()),
            named("exception.message", self.message.clone()),
        ]
    }
}

/// Keeps the dead-letter headers of a record as headers of its message.
pub(crate) fn with_dead_letter_headers(message: Message, headers: &[(String, String)]) -> Message {
    let kept = [
        ("topic", "deadtopic"),
        ("partition", "deadpartition"),
        ("offset", "deadoffset"),
        ("exception.class.name", "deadclass"),
        ("exception.message", "deadmessage"),
    ];
    let value_of = |name: &str| {
        let is_it = |header: &str| header.strip_prefix(DEAD_LETTER_PREFIX) == Some(name);
        headers.iter().rev().find(|(header, _)| is_it(header)).map(|(_, value)| value)
    };
    if value_of("topic").is_none() {
        return message;
    }
    let mut parts = message.into_parts();
    for (name, header) in kept {
        if let Some(value) = value_of(name) {
            // A text that is no legal header value is dropped: the message matters more.
            let _ = parts.headers.insert(header, value.as_str());
        }
    }
    Message::new(parts)
}

/// Tells whether a header is a dead-letter header, which the next dead letter replaces.
pub(crate) fn is_dead_letter_header(header: &str) -> bool {
    header.starts_with(DEAD_LETTER_PREFIX)
}

#[cfg(test)]
mod tests;
