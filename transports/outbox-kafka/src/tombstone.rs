//! Tombstones: records without a value, which delete their key from a compacted topic.

use crate::headers::{self, ReadOptions, Record};
use bytes::Bytes;
use outbox_core::{
    event::{Headers, Message, MessageParts, TOMBSTONE, Timestamp},
    transport::cloudevents::{identity, key_of},
};
use rdkafka::message::Headers as RecordHeaders;
use std::fmt::Write;

/// The type of a tombstone whose headers name none.
const TYPE: &str = "tombstone";
/// Header that keeps a record key which is no legal message key, in hexadecimal.
const RECORD_KEY: &str = "recordkey";
/// JSON without content.
const NULL: &[u8] = b"null";
/// Bytes of such a key that the header keeps.
const MAX_KEY: usize = 255;

/// Reads the tombstone at a partition and an offset: with the attributes of a CloudEvent where it
/// has them, else as a message whose identity is its position in the topic.
pub(crate) fn read(
    options: &ReadOptions,
    record: Record<'_>,
    position: (i32, i64),
    headers: Option<&impl RecordHeaders>,
) -> Message {
    let read = |body| headers::read(options, record, headers, Bytes::from_static(body));
    // A CloudEvent reads with an empty body, plain JSON only with a JSON one.
    let message = read(b"").or_else(|_| read(NULL));
    let from_position = || {
        headers::with_dead_letter_headers(
            Message::new(from_position(record, position)),
            &headers::texts(headers).unwrap_or_default(),
        )
    };
    let mut parts = message.unwrap_or_else(|_| from_position()).into_parts();
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

/// Makes a message for a record that has nothing but its key.
fn from_position(record: Record<'_>, (partition, offset): (i32, i64)) -> MessageParts {
    let sent_at =
        record.timestamp.and_then(|millis| millis.checked_mul(1_000)).map(Timestamp::from_micros);
    let source = format!("kafka:{}", record.topic);
    // With the timestamp, which differs in a recreated topic of the same name.
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
