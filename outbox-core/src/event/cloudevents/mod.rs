//! CloudEvents 1.0, the form in which messages travel, so that other tools can read them.
//!
//! Binary mode is a list of attributes beside the untouched payload ([`attributes`], [`from_attributes`]); each transport
//! carries the list in its own header fields. Structured mode is one JSON object ([`to_json`], [`from_json`]).
//! A transport that is configured so reads other messages as [`PlainJson`].
//!
//! | attribute | of the message |
//! | --- | --- |
//! | `id`, `source`, `type`, `time`, `datacontenttype` | `id`, `source`, `event_type`, `created_at`, `content_type` |
//! | `subject`, `partitionkey` | `key` |
//! | `sequence`, `eventversion`, `aggregatetype`, `expirytime`, `topic` | the same, as extensions |
//! | every other extension | `headers` |
//!
//! # Source
//! CloudEvents 1.0.2 with its JSON event format; the extensions `partitionkey`, `sequence` and `expirytime` as it documents them.

mod json;
mod plain;
mod read;

pub(crate) use json::to_shown_json;
pub use json::{from_json, to_json};
pub use plain::PlainJson;
pub use read::{check, from_attributes, identity, key_of};

use crate::event::{Message, Timestamp, printable};
use std::borrow::Cow;

/// The version of the specification that is written and read.
pub const SPEC_VERSION: &str = "1.0";
/// The media type of a message in structured mode.
pub const JSON_MEDIA_TYPE: &str = "application/cloudevents+json";
/// Header that keeps the `id` of a foreign event where it is no UUID in the usual notation.
pub const ORIGINAL_ID: &str = "originalid";

/// Attributes of a received message that its sender did not set.
#[derive(Debug, Clone, Copy)]
pub struct Fallback<'a> {
    /// The topic when there is no extension `topic`; the event type when this is `None` too, or no text for a topic.
    pub topic: Option<&'a str>,
    /// The instant when there is no `time`, which the standard leaves to the sender's choice.
    pub received_at: Timestamp,
}

/// Received attributes that make no message. Names the attribute, never its value, which may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloudEventError {
    /// An attribute that every event has is not there.
    #[error("the attribute `{0}` is missing")]
    Missing(&'static str),
    /// An attribute breaks its rule.
    #[error("the attribute `{attribute}` {rule}")]
    Invalid {
        /// Its name, shortened.
        attribute: String,
        /// The rule, such as "has 1 to 255 bytes".
        rule: &'static str,
    },
    /// An attribute is there twice, so that two readers could see two events.
    #[error("the attribute `{0}` is there twice")]
    Duplicate(String),
    /// More attributes than are read.
    #[error("there are more than {0} attributes")]
    TooMany(usize),
    /// The text is no JSON object of attributes.
    #[error("no CloudEvent in JSON: {problem} at line {line}, column {column}")]
    Json {
        /// The kind of problem.
        problem: &'static str,
        /// Line of the text, from 1.
        line: usize,
        /// Column of the line.
        column: usize,
    },
}

impl CloudEventError {
    fn invalid(attribute: &str, rule: &'static str) -> Self {
        Self::Invalid { attribute: printable(attribute), rule }
    }
}

/// Lists the attributes of a message, name and value, without its payload.
///
/// Empty attributes are left out, as the standard has no empty `subject` or `partitionkey`.
#[must_use]
pub fn attributes<'m>(message: &'m Message) -> Vec<(&'m str, Cow<'m, str>)> {
    let mut list: Vec<(&str, Cow<'_, str>)> = Vec::with_capacity(14 + message.headers.len());
    let kept = |name: &str| message.headers.get(name).is_some();
    let mut add = |name: &'static str, value: Option<Cow<'m, str>>| {
        if let Some(value) = value.filter(|v| !v.is_empty() && !kept(name)) {
            list.push((name, value));
        }
    };
    add("specversion", Some(SPEC_VERSION.into()));
    add("id", Some(message.id.to_string().into()));
    add("source", Some(message.source.as_str().into()));
    add("type", Some(message.event_type.as_str().into()));
    add("time", message.created_at.to_rfc3339().map(Cow::Owned));
    add("datacontenttype", Some(message.content_type.as_str().into()));
    add("subject", message.key.as_deref().map(Cow::Borrowed));
    add("partitionkey", message.key.as_deref().map(Cow::Borrowed));
    add("sequence", message.sequence.map(|s| s.to_string().into()));
    add("eventversion", Some(message.event_version.to_string().into()));
    add("aggregatetype", message.aggregate_type.as_deref().map(Cow::Borrowed));
    add("expirytime", message.expires_at.and_then(Timestamp::to_rfc3339).map(Cow::Owned));
    add("topic", Some(message.topic.as_str().into()));
    list.extend(message.headers.iter().map(|(name, value)| (name, Cow::Borrowed(value))));
    list
}

/// Tells whether a media type says that its content is JSON: `*/json` or `*/*+json`, whatever its parameters.
#[must_use]
pub fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || (essence.contains('/') && essence.ends_with("+json"))
}

/// Tells whether a media type belongs to CloudEvents itself, so that a payload of it can only travel in structured mode.
#[must_use]
pub fn is_cloudevents(media_type: &str) -> bool {
    media_type.trim_start().to_ascii_lowercase().starts_with("application/cloudevents")
}

#[cfg(test)]
mod tests;
