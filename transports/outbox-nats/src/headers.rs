//! Messages as NATS carries them: attributes as headers `ce-..`, percent-encoded, and the payload
//! untouched.
//!
//! # Source
//! CloudEvents 1.0.3, NATS protocol binding, section 3.1.3.

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use outbox_core::{
    event::{Message, Timestamp},
    telemetry::{TraceContext, current_context},
    transport::{
        cloudevents::{self, Fallback, PlainJson},
        printable,
    },
};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};
use std::borrow::Cow;

/// The prefix of attributes.
const PREFIX: &str = "ce-";
/// Header by which JetStream recognises a message that it has already.
const MESSAGE_ID: &str = "Nats-Msg-Id";
/// Header with the media type of the payload.
const CONTENT_TYPE: &str = "Content-Type";
/// The attribute for that media type.
const DATA_CONTENT_TYPE: &str = "datacontenttype";
/// Characters that the binding percent-encodes besides control characters and non-ASCII ones.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
/// Bytes of the headers' first line and of the empty one at their end.
const ENVELOPE: usize = "NATS/1.0\r\n\r\n".len();
/// Bytes of a header besides its name and value: a colon, a space and the end of the line.
const SEPARATORS: usize = 4;

/// A message as the publisher sends it.
#[derive(Debug)]
pub(crate) struct EncodedMessage {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Bytes of headers and body together, which the server limits.
    pub(crate) size: usize,
}

/// Encodes a message, in structured mode where the configuration says so or where the payload is
/// itself a CloudEvent, which a subscriber would read as this message. `Err` names the attribute
/// that no header can carry.
///
/// The context of the span in which it is sent goes into headers without a prefix; that in which the
/// event was created is an attribute.
pub(crate) fn write(message: &Message, structured: bool) -> Result<EncodedMessage, String> {
    let mut headers = HeaderMap::new();
    let mut size = ENVELOPE;
    let mut add = |name: &str, value: &str| {
        let (Ok(header), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
        else {
            return Err(printable(name));
        };
        size += name.len() + value.as_str().len() + SEPARATORS;
        headers.insert(header, value);
        Ok(())
    };
    add(MESSAGE_ID, &message.id.to_string())?;
    let body = if structured || cloudevents::is_cloudevents(&message.content_type) {
        add(CONTENT_TYPE, cloudevents::JSON_MEDIA_TYPE)?;
        cloudevents::to_json(message)
    } else {
        for (name, value) in cloudevents::attributes(message) {
            add(&[PREFIX, name].concat(), &encode(&value))?;
        }
        message.payload.clone()
    };
    for (name, value) in current_context().iter().flat_map(TraceContext::headers) {
        add(name, value)?;
    }
    size += body.len();
    Ok(EncodedMessage { headers, body, size })
}

/// Encodes an attribute's value.
fn encode(value: &str) -> Cow<'_, str> {
    utf8_percent_encode(value, ENCODED).into()
}

/// Decodes an attribute's value: first a quoted string, then one round of percent-decoding; `None`
/// where that is no UTF-8.
fn decode(value: &str) -> Option<String> {
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let value = quoted.and_then(unescape).map_or(Cow::Borrowed(value), Cow::Owned);
    percent_decode(value.as_bytes()).decode_utf8().ok().map(Cow::into_owned)
}

/// Takes the backslashes out of the inside of a quoted string; `None` where it is none.
fn unescape(inner: &str) -> Option<String> {
    let mut text = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => text.push(letters.next()?),
            '"' => return None,
            letter => text.push(letter),
        }
    }
    Some(text)
}

/// How to read messages that are no CloudEvents.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadOptions {
    /// How to read messages that are plain JSON with a header for their type.
    pub(crate) plain_json: Option<PlainJson>,
    /// The source of messages that are no CloudEvents; `None` refuses them.
    pub(crate) plain_source: Option<String>,
}

/// Reads a message of a subject, or says why it cannot be read.
pub(crate) fn read(
    options: &ReadOptions,
    subject: &str,
    headers: Option<&HeaderMap>,
    body: Bytes,
    received_at: Timestamp,
) -> Result<Message, String> {
    let fallback = Fallback { topic: Some(subject), received_at };
    let headers: Vec<(&str, &str)> = texts(headers).collect();
    let media = header(&headers, CONTENT_TYPE).unwrap_or_default();
    if cloudevents::is_cloudevents(media) {
        if !cloudevents::is_json(media) || media.contains("batch") {
            return Err(
                "of the CloudEvents formats only application/cloudevents+json is read".to_owned()
            );
        }
        return cloudevents::from_json(&body, &fallback).map_err(|error| error.to_string());
    }
    let mut list = attributes(&headers)?;
    if list.is_empty() {
        if let Some(plain) = &options.plain_json
            && plain.is_meant(headers.iter().copied())
        {
            let headers = with_message_id(headers);
            return plain.read(headers, body, &fallback).map_err(|error| error.to_string());
        }
        // The binding's own example of structured mode has no headers at all.
        if headers.is_empty()
            && let Ok(message) = cloudevents::from_json(&body, &fallback)
        {
            return Ok(message);
        }
        list = plain(options, &headers, subject)?;
    }
    if !media.is_empty() && !list.iter().any(|(name, _)| name == DATA_CONTENT_TYPE) {
        list.push((DATA_CONTENT_TYPE.to_owned(), media.to_owned()));
    }
    cloudevents::from_attributes(list, body, &fallback).map_err(|error| error.to_string())
}

/// Lists the headers, one entry for each value.
fn texts(headers: Option<&HeaderMap>) -> impl Iterator<Item = (&str, &str)> {
    headers.into_iter().flat_map(|headers| {
        headers.iter().flat_map(|(name, values)| {
            values.iter().map(move |value| (name.as_ref(), value.as_str()))
        })
    })
}

/// Gives the value of a header; names are compared without case, as the binding says.
fn header<'h>(headers: &[(&'h str, &'h str)], name: &str) -> Option<&'h str> {
    headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

/// Lists the attributes of CloudEvents among the headers.
fn attributes(headers: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
    let mut list = Vec::new();
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        let Some(name) = name.strip_prefix(PREFIX) else { continue };
        let Some(value) = decode(value) else {
            return Err(format!(
                "the attribute `{}` is not encoded as the NATS binding says",
                printable(name)
            ));
        };
        list.push((name.to_owned(), value));
    }
    Ok(list)
}

/// Adds the server's header for the identity of a message as `message-id`, where it has no such
/// header.
fn with_message_id<'h>(mut headers: Vec<(&'h str, &'h str)>) -> Vec<(&'h str, &'h str)> {
    const PLAIN_ID: &str = "message-id";
    if header(&headers, PLAIN_ID).is_none() {
        headers.extend(header(&headers, MESSAGE_ID).map(|id| (PLAIN_ID, id)));
    }
    headers
}

/// Lists the attributes of a message that is no CloudEvent: its identity by the server's header,
/// its type by the header `type` or the subject, and the headers that have legal names.
fn plain(
    options: &ReadOptions,
    headers: &[(&str, &str)],
    subject: &str,
) -> Result<Vec<(String, String)>, String> {
    let Some(source) = &options.plain_source else {
        return Err(match options.plain_json {
            None => {
                "it has no attributes of CloudEvents; NatsSubscriber::plain or plain_json would read \
                 it"
            }
            Some(_) => "it has neither attributes of CloudEvents nor the header for its type",
        }
        .to_owned());
    };
    let mut list = vec![
        ("specversion".to_owned(), cloudevents::SPEC_VERSION.to_owned()),
        ("source".to_owned(), source.clone()),
        ("type".to_owned(), header(headers, "type").unwrap_or(subject).to_owned()),
    ];
    let id = header(headers, MESSAGE_ID).or_else(|| header(headers, "id"));
    list.extend(id.map(|id| ("id".to_owned(), id.to_owned())));
    for (name, value) in headers {
        let is_legal = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if is_legal && !list.iter().any(|(taken, _)| taken == name) {
            list.push(((*name).to_owned(), (*value).to_owned()));
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests;
