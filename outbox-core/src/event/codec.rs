//! From a Rust value to payload bytes and back.

use super::{
    EventContract, EventType, Message,
    json::{self, JsonError, JsonWriter},
};
use crate::runtime::full_text::BoxError;
use bytes::Bytes;
use serde::Serialize;
use serde_json::error::Category;
use std::fmt;

/// An event that could not be turned into a message.
///
/// ```
/// # use outbox_core::event::{EncodeError, encode_json};
/// #[derive(serde::Serialize)]
/// struct Price { euros: f64 }
///
/// let error = encode_json("price.changed", &Price { euros: f64::NAN }).unwrap_err();
/// assert!(matches!(error, EncodeError::Json { .. }));
/// assert!(error.to_string().contains("euros"), "it names the field");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A value has no form in JSON that reads back as the same value, such as NaN or a map whose keys are no text.
    #[error("the event `{event_type}` cannot be encoded: {fault}")]
    Json {
        /// Type name of the event.
        event_type: String,
        /// The field and its fault.
        fault: JsonError,
    },
    /// An encoder of the event's own has failed.
    #[error("the event `{event_type}` cannot be encoded")]
    Payload {
        /// Type name of the event.
        event_type: String,
        /// The encoder's error.
        source: BoxError,
    },
    /// The payload codec of the outbox has failed, or has named a key that cannot travel.
    #[error("the payload codec `{codec}` cannot encode the event `{event_type}`")]
    Codec {
        /// Type name of the event.
        event_type: String,
        /// Name of the codec.
        codec: String,
        /// The codec's error.
        source: BoxError,
    },
    /// The envelope breaks a rule: an empty type, a key too long, an illegal header name.
    #[error("the event `{event_type}` has an invalid {field}: {reason}")]
    Envelope {
        /// Type name of the event.
        event_type: String,
        /// The attribute.
        field: &'static str,
        /// The fault, and the rule.
        reason: String,
    },
}

impl EncodeError {
    /// Makes the error of an encoder.
    pub fn payload(event_type: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Payload { event_type: event_type.into(), source: source.into() }
    }
}

/// A message that could not be read as the event that a handler takes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No variant or struct has this type name.
    #[error("no event type `{event_type}` here; known: {known}")]
    UnknownType {
        /// Type name of the message.
        event_type: String,
        /// The names that would have been understood, separated by commas.
        known: String,
    },
    /// The version is newer than the type, or older with no upcaster registered.
    #[error(
        "version {version} of `{event_type}` is not understood; this program reads {supported}"
    )]
    UnknownVersion {
        /// Type name of the message.
        event_type: String,
        /// Its version.
        version: u16,
        /// The version that the type reads.
        supported: u16,
    },
    /// The payload does not have the shape of the type.
    #[error("the payload of `{event_type}` does not have the expected shape")]
    Payload {
        /// Type name of the message.
        event_type: String,
        /// The decoder's error; it may quote a field's name, never the payload.
        source: BoxError,
    },
}

impl DecodeError {
    /// Makes the error of a message whose type is none of the given ones.
    #[must_use]
    pub fn unknown_type(message: &Message, known: &[EventType]) -> Self {
        let known = known.iter().map(|t| t.name).collect::<Vec<_>>().join(", ");
        Self::UnknownType { event_type: message.event_type.clone(), known }
    }

    /// Makes the error of a JSON payload that does not fit, without the values that serde quotes.
    #[must_use]
    pub fn json(message: &Message, error: &serde_json::Error) -> Self {
        Self::Payload {
            event_type: message.event_type.clone(),
            source: Box::new(JsonFault::of(error)),
        }
    }
}

/// A type that can be read back from a message; derived with `OutboxEvent` for types that serde can read.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read back from a message",
    note = "add `serde::Deserialize` beside `OutboxEvent` to its derives; types with lifetimes and `encode_only` ones are never read",
    note = "a handler takes its event by value: `event: OrderPlaced` and not `event: &OrderPlaced`"
)]
pub trait DecodeEvent: EventContract + Sized {
    /// Reads the event from a message of one of its types.
    ///
    /// # Errors
    /// [`DecodeError`] when type, version or payload do not fit.
    fn decode(message: &Message) -> Result<Self, DecodeError>;
}

/// Encodes a value as JSON, for an [`OutboxEvent::payload`](super::OutboxEvent::payload) written by hand.
///
/// # Errors
/// [`EncodeError::Json`] with the field that has no JSON form: NaN or an infinity, a map with keys that are no strings, more than 127
/// levels.
pub fn encode_json<T: Serialize + ?Sized>(
    event_type: &str,
    content: &T,
) -> Result<Bytes, EncodeError> {
    encode_with(event_type, |out| content.serialize(out))
}

/// Encodes JSON by a function, as emitted code does for the variants of an enum.
///
/// # Errors
/// As of [`encode_json`].
pub fn encode_with(
    event_type: &str,
    write: impl FnOnce(JsonWriter<'_, '_>) -> Result<(), serde_json::Error>,
) -> Result<Bytes, EncodeError> {
    match json::write(write) {
        Ok(bytes) => Ok(bytes.into()),
        Err(fault) => Err(EncodeError::Json { event_type: event_type.to_owned(), fault }),
    }
}

/// Gives the payload of an event without content: an empty object, to which later versions can add.
#[must_use]
pub const fn empty_json() -> Bytes {
    Bytes::from_static(b"{}")
}

/// Serde's error about a payload, without the payload's values, which may be secret: errors are logged and stored.
#[derive(Debug)]
struct JsonFault {
    reason: String,
    line: usize,
    column: usize,
}

impl JsonFault {
    fn of(error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        let text = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
        let reason = match error.classify() {
            // Fixed texts.
            Category::Syntax | Category::Eof | Category::Io => text.to_owned(),
            Category::Data => without_values(text),
        };
        Self { reason, line, column }
    }
}

impl fmt::Display for JsonFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at line {} column {}", self.reason, self.line, self.column)
    }
}

impl std::error::Error for JsonFault {}

/// Shortens serde's sentences about data to what the types say: names of fields, kinds, what was expected.
fn without_values(text: &str) -> String {
    const OF_TYPES: &[&str] = &["missing field `", "duplicate field `"];
    const OF_VALUES: &[&str] =
        &["invalid type", "invalid value", "invalid length", "unknown variant", "unknown field"];
    const KINDS: &[&str] = &[
        "boolean",
        "integer",
        "floating point",
        "character",
        "string",
        "null",
        "sequence",
        "map",
        "number",
    ];
    if OF_TYPES.iter().any(|start| text.starts_with(start)) {
        return text.to_owned();
    }
    // The last one: an earlier one may be part of a value.
    let Some((found, expected)) = text.rsplit_once(", expected ") else {
        return "a value was refused".to_owned();
    };
    let Some(start) = OF_VALUES.iter().find(|start| found.starts_with(*start)) else {
        return "a value was refused".to_owned();
    };
    match KINDS
        .iter()
        .find(|kind| found[start.len()..].trim_start_matches([':', ' ']).starts_with(*kind))
    {
        Some(kind) => format!("{start}: {kind}, expected {expected}"),
        None => format!("{start}, expected {expected}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn json_is_written_as_serde_json_writes_it() {
        let content = (1.5, "ß\u{1}", None::<u8>, BTreeMap::from([(2, 'b'), (1, 'a')]));
        assert_eq!(
            encode_json("a", &content).expect("it has a form"),
            serde_json::to_vec(&content).expect("it has a form")
        );
    }

    #[test]
    fn content_without_json_form_is_an_error_with_the_type() {
        let error =
            encode_json("order.placed", &BTreeMap::from([((1, 2), 3)])).expect_err("keys are text");
        let said = "the event `order.placed` cannot be encoded: `*` cannot be written: key must be a string";
        assert_eq!(error.to_string(), said);
    }

    #[test]
    fn sentences_of_serde_keep_their_kinds_and_lose_their_values() {
        for (said, kept) in [
            ("missing field `order_id`", "missing field `order_id`"),
            ("duplicate field `id`", "duplicate field `id`"),
            (
                "invalid type: string \"4111, expected 4111\", expected i64",
                "invalid type: string, expected i64",
            ),
            (
                "invalid type: floating point `4111.5`, expected i64",
                "invalid type: floating point, expected i64",
            ),
            (
                "invalid type: null, expected struct Order",
                "invalid type: null, expected struct Order",
            ),
            ("invalid value: integer `4111`, expected u8", "invalid value: integer, expected u8"),
            (
                "invalid length 4111, expected a tuple of size 2",
                "invalid length, expected a tuple of size 2",
            ),
            ("unknown variant `4111`, expected `a` or `b`", "unknown variant, expected `a` or `b`"),
            ("unknown variant `4111`, there are no variants", "a value was refused"),
            ("unknown field `4111`, expected `a`", "unknown field, expected `a`"),
            ("the card 4111 is stolen, expected another", "a value was refused"),
            ("the card 4111 is stolen", "a value was refused"),
        ] {
            assert_eq!(without_values(said), kept);
        }
    }
}
