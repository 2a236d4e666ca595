//! What is sent is what arrives.

use super::{TransportFixture, exchange, full, ready};
use crate::{
    event::{CodecContext, Headers, Message, MessageParts, PayloadCodecs, TOMBSTONE, Timestamp},
    testing::FlippingCodec,
};
use bytes::Bytes;

/// Compares two messages attribute by attribute, so that a failure names the one that differs.
fn assert_same(received: &Message, sent: &Message) {
    assert_eq!(received.id, sent.id, "id");
    assert_eq!(received.sequence, sent.sequence, "sequence");
    assert_eq!(received.source, sent.source, "source");
    assert_eq!(received.event_type, sent.event_type, "type");
    assert_eq!(received.event_version, sent.event_version, "version");
    assert_eq!(received.topic, sent.topic, "topic");
    assert_eq!(received.aggregate_type, sent.aggregate_type, "aggregate");
    assert_eq!(received.key, sent.key, "key");
    assert_eq!(received.content_type, sent.content_type, "content type");
    assert_eq!(received.created_at, sent.created_at, "time");
    assert_eq!(received.expires_at, sent.expires_at, "expiry");
    assert_eq!(received.headers, sent.headers, "headers");
    assert_eq!(received.payload.len(), sent.payload.len(), "bytes of payload");
    let differs = received.payload.iter().zip(&sent.payload).position(|(a, b)| a != b);
    assert_eq!(differs, None, "first byte of the payload that differs");
}

async fn arrives_unchanged<T: TransportFixture>(messages: impl IntoIterator<Item = Message>) {
    let mut pair = ready::<T>().await;
    for sent in messages {
        let received = exchange(&mut pair, &sent).await;
        assert_same(&received, &sent);
    }
}

fn with(change: impl FnOnce(&mut MessageParts)) -> Message {
    let mut parts = full().into_parts();
    change(&mut parts);
    Message::new(parts)
}

/// Every attribute arrives unchanged, also at its longest and in every script.
pub async fn every_attribute_arrives_unchanged<T: TransportFixture>() {
    let longest = "k".repeat(255);
    arrives_unchanged::<T>([
        full(),
        with(|m| m.key = Some(longest)),
        with(|m| m.key = Some("ключ/鍵 %41 \"🔑\"".into())),
        with(|m| m.event_type = "bestellung.größe:1/x y".into()),
        with(|m| m.topic = "орders".into()),
        with(|m| m.aggregate_type = Some("Ärger, order".into())),
        with(|m| m.source = "https://shop.example/a%20b?c=d#e".into()),
        with(|m| m.event_version = u16::MAX),
        with(|m| m.created_at = Timestamp::from_micros(0)),
        with(|m| m.created_at = Timestamp::from_micros(253_402_300_799_999_999)),
        with(|m| m.created_at = Timestamp::from_micros(-1)),
    ])
    .await;
}

/// Attributes that are not set stay unset.
pub async fn attributes_that_are_not_set_stay_unset<T: TransportFixture>() {
    let bare = with(|m| {
        m.sequence = None;
        m.key = None;
        m.aggregate_type = None;
        m.expires_at = None;
        m.headers = Headers::new();
    });
    arrives_unchanged::<T>([bare]).await;
}

/// Payloads arrive byte for byte: all bytes, none, much, and JSON as it was written.
pub async fn payloads_arrive_byte_for_byte<T: TransportFixture>() {
    let max = T::promises().max_payload.min(1024 * 1024);
    let much: Vec<u8> = (0..max).map(|n| u8::try_from(n % 251).unwrap_or_default()).collect();
    let payloads = [
        ("application/octet-stream", (0..=255).collect()),
        ("application/octet-stream", Vec::new()),
        ("application/octet-stream", much),
        ("application/octet-stream", b"\r\n\r\nGET / HTTP/1.1\r\n\0".to_vec()),
        ("application/json", b"{\"a\" : 1.0, \"a\":2, \"b\":\"\\ud800\"}".to_vec()),
        ("application/json", b" [1]\n".to_vec()),
        ("application/json", b"{not json".to_vec()),
        ("application/vnd.shop+json; charset=utf-8", b"\"text\"".to_vec()),
        ("application/json", b"null".to_vec()),
        ("text/plain; charset=utf-8", "größer 🚀\u{0}".as_bytes().to_vec()),
        ("text/plain", vec![0xff, 0xfe]),
        (
            "application/cloudevents+json",
            b"{\"specversion\":\"1.0\",\"id\":\"inner\",\"type\":\"t\"}".to_vec(),
        ),
    ];
    arrives_unchanged::<T>(payloads.into_iter().map(|(content_type, payload)| {
        with(|m| {
            m.content_type = content_type.into();
            m.payload = Bytes::from(payload);
        })
    }))
    .await;
}

/// A payload that a codec has encoded decodes on the other side: its headers arrive, and the envelope that it is bound to.
pub async fn an_encoded_payload_decodes_on_the_other_side<T: TransportFixture>() {
    let codecs = PayloadCodecs::NONE.encode_with(FlippingCodec::new("flip", ["arn:kms:key/7"]));
    let mut pair = ready::<T>().await;
    let keyed = with(|m| m.key = Some("ключ/鍵 %41 \"🔑\"".into()));
    for clear in [full(), keyed, with(|m| m.key = None)] {
        let context = CodecContext {
            source: &clear.source,
            message_id: clear.id,
            event_type: &clear.event_type,
            topic: &clear.topic,
            key: clear.key.as_deref(),
        };
        let encoded = codecs.encode_content(context, &clear.payload, &clear.headers);
        let (payload, headers) = encoded.expect("it has a key").expect("there is a codec");
        let sent = Message::new(MessageParts { payload, headers, ..clear.clone().into_parts() });
        let received = exchange(&mut pair, &sent).await;
        assert_same(&received, &sent);
        assert_eq!(codecs.decode(&received), Ok(clear));
    }
}

/// A tombstone arrives as a tombstone, with key and attributes.
pub async fn a_tombstone_arrives_as_one<T: TransportFixture>() {
    let gone = with(|m| {
        m.payload = Bytes::new();
        m.headers.insert(TOMBSTONE, "true").expect("the value is legal");
    });
    let mut pair = ready::<T>().await;
    let received = exchange(&mut pair, &gone).await;
    assert!(received.is_tombstone(), "{received:?}");
    assert_same(&received, &gone);
}

/// Every header that can be enqueued arrives unchanged: each printable character, all planes of Unicode, white space at the
/// ends, escapes that are none, the longest name, a hundred of them.
pub async fn every_legal_header_arrives_unchanged<T: TransportFixture>() {
    let ascii: String = (' '..='~').collect();
    let latin: String = ('\u{a0}'..='\u{ff}').collect();
    let mut values = vec![ascii, latin];
    if T::promises().all_header_values {
        values.extend(
            ["", " ", " both ends ", "%41%zz%", "\"quoted \\\" text\"", "a,b;c=d", "=?UTF-8?Q?a?="]
                .map(str::to_owned),
        );
        values.extend(
            ["ß日本語🚀\u{10ffff}\u{feff}e\u{301}", "\u{202e}right to left", "\u{2028}\u{2029}"]
                .map(str::to_owned),
        );
        values.push("x".repeat(1024));
    }
    let each = values.iter().map(|value| {
        with(|m| {
            m.headers.insert("own", value.as_str()).expect("the value is legal");
        })
    });
    let names = with(|m| {
        for name in ["a", "0", "x".repeat(64).as_str(), "contenttype", "host", "dataschema"] {
            m.headers.insert(name, name).expect("the name is legal");
        }
    });
    let many = T::promises().all_header_values.then(|| {
        with(|m| {
            for n in 0..100 {
                m.headers.insert(format!("own{n}"), "ü".repeat(100)).expect("the value is legal");
            }
        })
    });
    arrives_unchanged::<T>(each.chain([names]).chain(many)).await;
}

/// A message that is published twice is the same message twice.
pub async fn a_repeat_is_the_same_message<T: TransportFixture>() {
    let mut pair = ready::<T>().await;
    let sent = full();
    let first = exchange(&mut pair, &sent).await;
    assert_same(&first, &sent);
    if T::promises().end_to_end {
        let second = exchange(&mut pair, &sent).await;
        assert_same(&second, &first);
    } else {
        // A broker may know the id and keep the repeat to itself; that is confirmed too.
        let repeat = super::in_time("a publish", pair.publisher.publish(&sent)).await;
        assert!(repeat.is_ok(), "a repeat is confirmed: {repeat:?}");
    }
}

/// The publisher's configuration is right and its limits can be worked with.
pub async fn the_publisher_says_what_it_takes<T: TransportFixture>() {
    let pair = T::pair().await;
    assert!(pair.publisher.check().is_ok(), "the fixture's publisher is configured right");
    let limits = pair.publisher.limits();
    assert!(limits.max_batch >= 1 && limits.max_in_flight >= 1, "{limits:?}");
    let room = limits.max_payload.unwrap_or(usize::MAX);
    assert!(room >= T::promises().max_payload, "{limits:?} allows less than the fixture promises");
}

/// Fails unless a binding refuses each attribute that holds a control character, as not every database takes it, and reads it
/// without one. `read` reads a message that comes with these attributes, each in its place of the binding.
///
/// # Panics
/// When an attribute is taken that should be refused, or the other way round.
pub fn attributes_with_control_characters_are_refused(
    read: impl Fn(&[(&str, &str)]) -> Result<Message, String>,
) {
    let base = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t")];
    let names = [
        "id",
        "source",
        "type",
        "subject",
        "partitionkey",
        "topic",
        "datacontenttype",
        "aggregatetype",
        "tenant",
    ];
    for name in names {
        for (text, is_taken) in [
            ("a b", true),
            ("a\0b", false),
            ("a\nb", false),
            ("a\u{7f}b", false),
            ("a\u{85}b", false),
        ] {
            let others = base.iter().copied().filter(|(other, _)| *other != name);
            let list: Vec<_> = others.chain([(name, text)]).collect();
            assert_eq!(read(&list).is_ok(), is_taken, "{name} {text:?}");
        }
    }
}
