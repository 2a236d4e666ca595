//! From received attributes to a message.

use super::{CloudEventError, Fallback, ORIGINAL_ID, SPEC_VERSION};
use crate::event::{
    EventId, HeaderError, Headers, Message, MessageId, MessageParts, TextRule, Timestamp, printable,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Bytes that every database's column takes, as for events of our own.
const MAX_TEXT: usize = 255;
/// Attributes of one event: five times what a rich one has, few enough to keep.
const MAX_ATTRIBUTES: usize = 128;

/// Makes a message of received attributes and the payload.
///
/// A missing `datacontenttype` becomes `application/octet-stream`, a missing `partitionkey` the `subject`. An `id` that is
/// no UUID becomes the version 5 UUID of `source` and `id`, and the original is kept in the header [`ORIGINAL_ID`].
///
/// # Errors
/// [`CloudEventError`] naming the first attribute that is missing, doubled or breaks its rule.
///
/// ```
/// # use outbox_core::{event::Timestamp, transport::cloudevents::{Fallback, from_attributes}};
/// let fallback = Fallback { topic: Some("orders"), received_at: Timestamp::from_micros(0) };
/// let attributes = [("specversion", "1.0"), ("id", "A-1"), ("source", "/shop"), ("type", "order.placed")];
/// let message = from_attributes(attributes, "{}".into(), &fallback)?;
/// assert_eq!((message.event_type.as_str(), message.headers.get("originalid")), ("order.placed", Some("A-1")));
/// # Ok::<(), outbox_core::transport::cloudevents::CloudEventError>(())
/// ```
pub fn from_attributes<N: AsRef<str>, V: Into<String>>(
    attributes: impl IntoIterator<Item = (N, V)>,
    payload: Bytes,
    fallback: &Fallback<'_>,
) -> Result<Message, CloudEventError> {
    let mut known = Received::default();
    for (name, value) in attributes {
        known.add(name.as_ref(), value.into())?;
    }
    known.into_message(payload, fallback)
}

/// Received attributes, each once.
#[derive(Default)]
struct Received(BTreeMap<String, String>);

impl Received {
    fn add(&mut self, name: &str, value: String) -> Result<(), CloudEventError> {
        if self.0.len() >= MAX_ATTRIBUTES {
            return Err(CloudEventError::TooMany(MAX_ATTRIBUTES));
        }
        if value.chars().any(char::is_control) {
            return Err(CloudEventError::invalid(name, "holds a control character"));
        }
        match self.0.insert(name.to_owned(), value) {
            Some(_) => Err(CloudEventError::Duplicate(printable(name))),
            None => Ok(()),
        }
    }

    /// Takes a text of 1 to 255 bytes.
    fn text(&mut self, name: &'static str) -> Result<Option<String>, CloudEventError> {
        match self.0.remove(name) {
            Some(text) if text.is_empty() || text.len() > MAX_TEXT => {
                Err(CloudEventError::invalid(name, "has 1 to 255 bytes"))
            }
            other => Ok(other),
        }
    }

    fn needed(&mut self, name: &'static str) -> Result<String, CloudEventError> {
        self.text(name)?.ok_or(CloudEventError::Missing(name))
    }

    fn time(&mut self, name: &'static str) -> Result<Option<Timestamp>, CloudEventError> {
        self.0
            .remove(name)
            .map(|text| {
                Timestamp::parse_rfc3339(&text)
                    .ok_or(CloudEventError::invalid(name, "is no RFC 3339 time"))
            })
            .transpose()
    }

    fn version(&mut self) -> Result<u16, CloudEventError> {
        match self.0.remove("eventversion").map(|version| version.parse()) {
            None => Ok(1),
            Some(Ok(version @ 1..)) => Ok(version),
            Some(_) => Err(CloudEventError::invalid("eventversion", "is a number from 1 to 65535")),
        }
    }

    fn into_message(
        mut self,
        payload: Bytes,
        fallback: &Fallback<'_>,
    ) -> Result<Message, CloudEventError> {
        if self.needed("specversion")? != SPEC_VERSION {
            return Err(CloudEventError::invalid("specversion", "is not 1.0"));
        }
        let (id, source, event_type) =
            (self.needed("id")?, self.needed("source")?, self.needed("type")?);
        let event_version = self.version()?;
        let named = fallback.topic.filter(|topic| TextRule::ATTRIBUTE.allows(topic));
        let topic = self.text("topic")?.unwrap_or_else(|| named.unwrap_or(&event_type).to_owned());
        let content_type =
            self.text("datacontenttype")?.unwrap_or_else(|| "application/octet-stream".into());
        let (created_at, expires_at) =
            (self.time("time")?.unwrap_or(fallback.received_at), self.time("expirytime")?);
        let aggregate_type = self.text("aggregatetype")?;

        let mut headers = Headers::new();
        let (subject, key) = (self.text("subject")?, self.text("partitionkey")?);
        let key = match (subject, key) {
            (Some(subject), Some(key)) if subject != key => {
                headers.keep("subject", subject);
                Some(key)
            }
            (subject, key) => key.or(subject),
        };
        let sequence = self.0.remove("sequence").and_then(|text| match text.parse() {
            Ok(place @ 1..) => Some(EventId(place)),
            // Other systems count otherwise; theirs is kept as it is.
            _ => {
                headers.keep("sequence", text);
                None
            }
        });
        let (id, text) = (identity(&id, &source), id);
        let original = (text != id.to_string()).then(|| (ORIGINAL_ID.to_owned(), text));
        for (name, value) in self.0.into_iter().chain(original) {
            headers
                .insert(&name, value)
                .map_err(|error| CloudEventError::invalid(&name, rule(&error)))?;
        }
        Ok(Message::new(MessageParts {
            id,
            sequence,
            source,
            event_type,
            event_version,
            topic,
            aggregate_type,
            key,
            content_type,
            payload,
            headers,
            created_at,
            expires_at,
            retry: None,
        }))
    }
}

/// Checks a message that a transport or a test has made by itself as [`from_attributes`] checks a received one: type, source,
/// topic and content type have 1 to 255 bytes, key and aggregate type up to 255, and none of them a control character. No
/// database takes others, or not every one. Headers cannot hold others.
///
/// # Errors
/// [`CloudEventError::Invalid`] naming the first attribute that breaks its rule.
pub fn check(message: &Message) -> Result<(), CloudEventError> {
    for (name, text) in [
        ("source", &message.source),
        ("type", &message.event_type),
        ("topic", &message.topic),
        ("datacontenttype", &message.content_type),
    ] {
        if !TextRule::ATTRIBUTE.allows(text) {
            return Err(CloudEventError::invalid(name, TEXT));
        }
    }
    for (name, text) in [("partitionkey", &message.key), ("aggregatetype", &message.aggregate_type)]
    {
        if text.as_deref().is_some_and(|text| !text.is_empty() && !TextRule::ATTRIBUTE.allows(text))
        {
            return Err(CloudEventError::invalid(
                name,
                "has up to 255 bytes and no control character",
            ));
        }
    }
    Ok(())
}

/// Gives the key of a message from the bytes by which a transport orders it; nothing where they are no text of 1 to 255 bytes
/// without control characters, which no message has for its key.
#[must_use]
pub fn key_of(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|key| TextRule::ATTRIBUTE.allows(key))
}

const TEXT: &str = "has 1 to 255 bytes and no control character";

/// Gives the identity of an event: its `id` where that is a UUID, else the version 5 UUID of `source` and `id`.
#[must_use]
pub fn identity(id: &str, source: &str) -> MessageId {
    // No attribute holds a line break, so that the two cannot run into each other.
    let named = || {
        MessageId::from_uuid(Uuid::new_v5(
            &Uuid::NAMESPACE_URL,
            format!(
                "{source}
{id}"
            )
            .as_bytes(),
        ))
    };
    id.parse().unwrap_or_else(|_| named())
}

fn rule(error: &HeaderError) -> &'static str {
    match error {
        HeaderError::Name(_) => "has a name other than 1 to 64 characters of a-z and 0-9",
        HeaderError::Reserved(_) => "is no attribute",
        HeaderError::Value(_) => "holds a control character",
    }
}
