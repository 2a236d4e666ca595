//! Structured mode: one JSON object with attributes and payload.

use super::{CloudEventError, Fallback, attributes, is_json, read::from_attributes};
use crate::event::Message;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::{RawValue, Value};
use std::fmt;

/// Writes a message as one JSON object.
///
/// A JSON payload is embedded byte for byte as `data`, a text in UTF-8 as a string, anything else as `data_base64`.
#[must_use]
pub fn to_json(message: &Message) -> Bytes {
    let mut out = written_attributes(message);
    if !message.payload.is_empty() {
        write_data(message, &mut out);
    }
    out.push('}');
    Bytes::from(out)
}

/// Writes a message as one JSON object for operators: as [`to_json`] does, but for a payload that a codec has encoded. That is
/// `data_base64` whatever it looks like, since as text it says nothing.
pub(crate) fn to_shown_json(message: &Message) -> Bytes {
    if message.encoding().is_none() {
        return to_json(message);
    }
    let mut out = written_attributes(message);
    write_bytes(message, &mut out);
    out.push('}');
    Bytes::from(out)
}

/// Writes the object up to its last attribute.
fn written_attributes(message: &Message) -> String {
    let mut out = String::with_capacity(512 + message.payload.len() * 4 / 3);
    for (name, value) in attributes(message) {
        out.push(if out.is_empty() { '{' } else { ',' });
        out.push_str(&Value::from(name).to_string());
        out.push(':');
        out.push_str(&Value::from(&*value).to_string());
    }
    out
}

fn write_data(message: &Message, out: &mut String) {
    if is_json(&message.content_type) {
        // White space around the value would be lost on the way, so such a payload travels as bytes.
        let value = serde_json::from_slice::<&RawValue>(&message.payload).map(RawValue::get);
        if let Some(value) = value.ok().filter(|v| v.len() == message.payload.len()) {
            out.push_str(",\"data\":");
            out.push_str(value);
            return;
        }
    } else if message.content_type.to_ascii_lowercase().starts_with("text/")
        && let Ok(text) = std::str::from_utf8(&message.payload)
    {
        out.push_str(",\"data\":");
        out.push_str(&Value::from(text).to_string());
        return;
    }
    write_bytes(message, out);
}

fn write_bytes(message: &Message, out: &mut String) {
    out.push_str(",\"data_base64\":\"");
    STANDARD.encode_string(&message.payload, out);
    out.push('"');
}

/// Reads a message from its JSON object.
///
/// A missing `datacontenttype` is `application/json`, as the format says; an attribute that is `null` is not there.
///
/// # Errors
/// [`CloudEventError`] for text that is no object of attributes, members that are there twice, and as
/// [`from_attributes`](super::from_attributes).
pub fn from_json(text: &[u8], fallback: &Fallback<'_>) -> Result<Message, CloudEventError> {
    let members: Members = serde_json::from_slice(text).map_err(|error| {
        let problem = match error.classify() {
            serde_json::error::Category::Eof => "the text ends early",
            serde_json::error::Category::Data => "not an object of attributes",
            _ => "not JSON",
        };
        CloudEventError::Json { problem, line: error.line(), column: error.column() }
    })?;
    if let Some(name) = members.doubled {
        return Err(CloudEventError::Duplicate(name.to_owned()));
    }
    let mut attributes = Vec::with_capacity(members.attributes.len());
    for (name, value) in members.attributes {
        match value {
            Value::Null => {}
            Value::String(text) => attributes.push((name, text)),
            Value::Bool(value) => attributes.push((name, value.to_string())),
            Value::Number(number) if number.is_i64() || number.is_u64() => {
                attributes.push((name, number.to_string()))
            }
            _ => return Err(CloudEventError::invalid(&name, "is no string, boolean or integer")),
        }
    }
    let declared = attributes
        .iter()
        .find(|(name, _)| name == "datacontenttype")
        .map(|(_, value)| value.as_str());
    let payload = payload(members.data, members.data_base64, declared.is_none_or(is_json))?;
    if declared.is_none() {
        attributes.push(("datacontenttype".into(), "application/json".into()));
    }
    from_attributes(attributes, payload, fallback)
}

fn payload(
    data: Option<Box<RawValue>>,
    base64: Option<Value>,
    json: bool,
) -> Result<Bytes, CloudEventError> {
    match (data, base64) {
        (Some(_), Some(_)) => {
            Err(CloudEventError::invalid("data", "and `data_base64` are both there"))
        }
        (Some(data), None) if json => Ok(Bytes::from(String::from(Box::<str>::from(data)))),
        (Some(data), None) if data.get() == "null" => Ok(Bytes::new()),
        (Some(data), None) => match serde_json::from_str::<String>(data.get()) {
            Ok(text) => Ok(Bytes::from(text)),
            Err(_) => Err(CloudEventError::invalid(
                "data",
                "is no string, though `datacontenttype` is not JSON",
            )),
        },
        (None, Some(Value::String(text))) => match STANDARD.decode(text) {
            Ok(bytes) => Ok(Bytes::from(bytes)),
            Err(_) => Err(CloudEventError::invalid("data_base64", "is not base64")),
        },
        (None, None | Some(Value::Null)) => Ok(Bytes::new()),
        (None, Some(_)) => Err(CloudEventError::invalid("data_base64", "is no string")),
    }
}

/// The members of the object: the data untouched, the rest in order, doubled ones included so that they are refused.
#[derive(Default)]
struct Members {
    attributes: Vec<(String, Value)>,
    data: Option<Box<RawValue>>,
    data_base64: Option<Value>,
    doubled: Option<&'static str>,
}

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of attributes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Members::default();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "data" => {
                    if members.data.replace(map.next_value()?).is_some() {
                        members.doubled = Some("data");
                    }
                }
                "data_base64" => {
                    if members.data_base64.replace(map.next_value()?).is_some() {
                        members.doubled = Some("data_base64");
                    }
                }
                _ => members.attributes.push((name, map.next_value()?)),
            }
        }
        Ok(members)
    }
}
