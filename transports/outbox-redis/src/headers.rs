//! Messages as entries of a stream carry them: attributes as fields `ce_..`, the media type in
//! `content-type`, the payload untouched in `data`.
//!
//! CloudEvents has no binding for Redis. These fields are those of its Kafka binding, with the
//! record's value in the field `data`.
//!
//! # Source
//! CloudEvents 1.0.2, Kafka protocol binding.

use bytes::Bytes;
use outbox_core::{
    event::{Message, Timestamp},
    transport::{
        cloudevents::{self, Fallback, PlainJson},
        printable,
    },
};
use std::borrow::Cow;

/// The prefix of attributes.
const PREFIX: &str = "ce_";
/// The field that carries the attribute `datacontenttype`.
const CONTENT_TYPE: &str = "content-type";
/// The attribute that it carries.
const DATA_CONTENT_TYPE: &str = "datacontenttype";
/// The field that carries the payload.
const DATA: &str = "data";
/// The prefix of the fields that a dead letter has besides those of its entry.
const DEAD_PREFIX: &str = "dead_";

/// A field of an entry, name and value, as it came.
pub(crate) type Field = (Bytes, Bytes);

/// Encodes a message, in structured mode where the configuration says so or where the payload is
/// itself a CloudEvent, which a subscriber would read as this message.
pub(crate) fn write(message: &Message, structured: bool) -> Vec<(Cow<'static, str>, Bytes)> {
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    if structured || cloudevents::is_cloudevents(&message.content_type) {
        return vec![
            (CONTENT_TYPE.into(), text(cloudevents::JSON_MEDIA_TYPE)),
            (DATA.into(), cloudevents::to_json(message)),
        ];
    }
    let attributes = cloudevents::attributes(message);
    let fields = attributes.iter().map(|(name, value)| match *name {
        DATA_CONTENT_TYPE => (CONTENT_TYPE.into(), text(value)),
        name => ([PREFIX, name].concat().into(), text(value)),
    });
    fields.chain([(DATA.into(), message.payload.clone())]).collect()
}

/// How to read entries without attributes of CloudEvents.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadOptions {
    /// How to read entries that are plain JSON with a field for their type.
    pub(crate) plain_json: Option<PlainJson>,
}

/// Reads the message of an entry of a stream, or says why it cannot be read. An entry without a
/// time of its own was made at `added_at`.
pub(crate) fn read(
    options: &ReadOptions,
    stream: &str,
    fields: &[Field],
    added_at: Timestamp,
) -> Result<Message, String> {
    let (body, fields) = texts(fields)?;
    let fallback = Fallback { topic: Some(stream), received_at: added_at };
    let media = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE));
    let media = media.map_or("", |(_, value)| *value);
    let message = if cloudevents::is_cloudevents(media) {
        if !cloudevents::is_json(media) || media.contains("batch") {
            return Err(
                "of the CloudEvents formats only application/cloudevents+json is read".to_owned()
            );
        }
        cloudevents::from_json(&body, &fallback)
    } else {
        let mut attributes: Vec<(&str, &str)> = fields
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, *value)))
            .collect();
        if attributes.is_empty() {
            plain(options, &fields, body, &fallback)?
        } else {
            if !media.is_empty() {
                attributes.push((DATA_CONTENT_TYPE, media));
            }
            cloudevents::from_attributes(attributes, body, &fallback)
        }
    };
    message.map(|message| with_dead_entry(message, &fields)).map_err(|error| error.to_string())
}

/// Reads an entry that is no CloudEvent.
fn plain(
    options: &ReadOptions,
    fields: &[(&str, &str)],
    body: Bytes,
    fallback: &Fallback<'_>,
) -> Result<Result<Message, cloudevents::CloudEventError>, String> {
    let named = || fields.iter().copied();
    match &options.plain_json {
        Some(plain) if plain.is_meant(named()) => Ok(plain.read(named(), body, fallback)),
        Some(_) => {
            Err("it has neither attributes of CloudEvents nor the field for its type".to_owned())
        }
        None => {
            Err("it has no attributes of CloudEvents; RedisSubscriber::plain_json would read it"
                .to_owned())
        }
    }
}

/// Fields that are texts, name and value.
type Texts<'f> = Vec<(&'f str, &'f str)>;

/// Splits fields into the payload, and the others whose names and values are UTF-8.
fn texts(fields: &[Field]) -> Result<(Bytes, Texts<'_>), String> {
    let (mut body, mut list) = (None, Vec::with_capacity(fields.len()));
    for (name, value) in fields {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if name == DATA {
            if body.replace(value.clone()).is_some() {
                return Err(format!("the field `{DATA}` is there twice"));
            }
            continue;
        }
        match std::str::from_utf8(value) {
            Ok(value) => list.push((name, value)),
            Err(_) if name.starts_with(PREFIX) || name.eq_ignore_ascii_case(CONTENT_TYPE) => {
                return Err(format!("the field `{}` is no UTF-8", printable(name)));
            }
            Err(_) => {}
        }
    }
    Ok((body.unwrap_or_default(), list))
}

/// Gives the payload of an entry that cannot be read.
pub(crate) fn payload(fields: &[Field]) -> Bytes {
    let data = fields.iter().find(|(name, _)| &name[..] == DATA.as_bytes());
    data.map(|(_, value)| value.clone()).unwrap_or_default()
}

/// The entry that a dead letter was, and why it could not be handled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadEntry {
    /// The stream of the original entry.
    pub stream: String,
    /// Its id there, such as `1700000000000-0`.
    pub entry: String,
    /// The consumer group that could not handle it.
    pub group: String,
    /// How often it was delivered to that group.
    pub deliveries: u32,
    /// What kind of failure it was: `Rejected`, or `NotHandled` for one that was returned for good.
    pub class: String,
    /// Why it could not be handled.
    pub message: String,
}

impl DeadEntry {
    /// Reads it from a message that is a dead letter; `None` for any other message.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        let header = |name: &str| message.headers.get(name);
        Some(Self {
            stream: header("deadstream")?.to_owned(),
            entry: header("deadentry")?.to_owned(),
            group: header("deadgroup").unwrap_or_default().to_owned(),
            deliveries: header("deaddeliveries")?.parse().ok()?,
            class: header("deadclass").unwrap_or_default().to_owned(),
            message: header("deadmessage").unwrap_or_default().to_owned(),
        })
    }

    /// Lists the fields of a dead letter: those of its entry as they came, without the cause of an
    /// earlier death, and its cause.
    pub(crate) fn fields(&self, entry: &[Field]) -> Vec<Field> {
        let cause = [
            ("stream", self.stream.clone()),
            ("entry", self.entry.clone()),
            ("group", self.group.clone()),
            ("deliveries", self.deliveries.to_string()),
            ("class", self.class.clone()),
            ("message", shortened(&self.message)),
        ];
        let named = cause.map(|(name, value)| {
            (Bytes::from([DEAD_PREFIX, name].concat()), Bytes::from(value.into_bytes()))
        });
        let kept = entry.iter().filter(|(name, _)| !name.starts_with(DEAD_PREFIX.as_bytes()));
        kept.cloned().chain(named).collect()
    }
}

/// Keeps what a dead letter was as headers of its message.
fn with_dead_entry(message: Message, fields: &[(&str, &str)]) -> Message {
    let kept = ["stream", "entry", "group", "deliveries", "class", "message"];
    let value_of = |wanted: &str| {
        let is_it = |name: &str| name.strip_prefix(DEAD_PREFIX) == Some(wanted);
        fields.iter().rev().find(|(name, _)| is_it(name)).map(|(_, value)| *value)
    };
    if value_of("stream").is_none() {
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

/// Makes a reason fit for a field that becomes a header: one line, bounded.
fn shortened(reason: &str) -> String {
    let end = (0..=MAX_REASON.min(reason.len()))
        .rev()
        .find(|end| reason.is_char_boundary(*end))
        .unwrap_or(0);
    reason[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
