//! Records without a value. A compacted topic forgets their key, and tells so to those who read on.

use crate::headers::{self, Reading, Record};
use bytes::Bytes;
use outbox_core::{
    event::{Headers, Message, MessageParts, TOMBSTONE, Timestamp},
    transport::cloudevents::{identity, key_of},
};
use rdkafka::message::Headers as RecordHeaders;
use std::fmt::Write;

/// The type of a record that does not say one.
const TYPE: &str = "tombstone";
/// Header that keeps a record key which is no text for a key, in hexadecimal.
const RECORD_KEY: &str = "recordkey";
/// JSON without content.
const NULL: &[u8] = b"null";
/// Bytes of such a key that are kept.
const MAX_KEY: usize = 255;

/// Reads one, at a partition and an offset: with the attributes of a CloudEvent where it has them, else as a message whose identity is
/// its place in the topic.
pub(crate) fn read(
    reading: &Reading,
    record: Record<'_>,
    place: (i32, i64),
    headers: Option<&impl RecordHeaders>,
) -> Message {
    let read = |body| headers::read(reading, record, headers, Bytes::from_static(body));
    // Plain JSON is read as such, and its headers say what it is: a body that is none says nothing.
    let told = read(b"").or_else(|_| read(NULL));
    let placed = || {
        headers::with_deaths(
            Message::new(placed(record, place)),
            &headers::texts(headers).unwrap_or_default(),
        )
    };
    let mut parts = told.unwrap_or_else(|_| placed()).into_parts();
    parts.payload = Bytes::new();
    let mut insert = |name: &str, value: String| {
        // Letters and digits are a legal value.
        let _ = parts.headers.insert(name, value);
    };
    insert(TOMBSTONE, "true".to_owned());
    if let Some(key) = record.key.filter(|key| key_of(key).is_none()) {
        let key = key.iter().take(MAX_KEY).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        insert(RECORD_KEY, key);
    }
    Message::new(parts)
}

/// A message for a record that says nothing but its key.
fn placed(record: Record<'_>, (partition, offset): (i32, i64)) -> MessageParts {
    let sent_at =
        record.timestamp.and_then(|millis| millis.checked_mul(1_000)).map(Timestamp::from_micros);
    let source = format!("kafka:{}", record.topic);
    // With the instant, for a topic of the same name that is made anew.
    let id = format!("{partition}/{offset}/{}", record.timestamp.unwrap_or_default());
    MessageParts {
        id: identity(&id, &source),
        sequence: None,
        source,
        event_type: TYPE.to_owned(),
        event_version: 1,
        topic: record.topic.to_owned(),
        aggregate_type: None,
        key: record.key.and_then(key_of).map(str::to_owned),
        content_type: "application/octet-stream".to_owned(),
        payload: Bytes::new(),
        headers: Headers::new(),
        created_at: sent_at.unwrap_or(record.received_at),
        expires_at: None,
        retry: None,
    }
}
