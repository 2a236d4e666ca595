use super::*;
use crate::event::{EventId, Headers, MessageId, MessageParts};
use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use serde_json::{Value, json};

const FALLBACK: Fallback<'static> =
    Fallback { topic: Some("inbox"), received_at: Timestamp::from_micros(77) };

fn order_placed() -> MessageParts {
    let mut headers = Headers::new();
    headers.insert("tenant", "Zoë & Søn 100% \"quoted\"").expect("legal");
    headers.insert("dataschema", "https://example.com/order.json").expect("legal");
    MessageParts {
        id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("a UUID"),
        sequence: Some(EventId(42)),
        source: "/shop".into(),
        event_type: "order.placed".into(),
        event_version: 2,
        topic: "orders".into(),
        aggregate_type: Some("order".into()),
        key: Some("7".into()),
        content_type: "application/json".into(),
        payload: Bytes::from_static(b"{\"total\" : 1.50, \"total\":2}"),
        headers,
        created_at: Timestamp::from_micros(1_700_000_000_123_456),
        expires_at: Some(Timestamp::from_micros(1_700_000_600_000_000)),
        retry: None,
    }
}

/// A list of names and values that makes an event, with changes: a value replaces, `None` removes.
fn minimal<'a>(changes: &[(&'a str, Option<&'a str>)]) -> Vec<(&'a str, &'a str)> {
    let base = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t")];
    let kept =
        base.into_iter().filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
    kept.chain(changes.iter().filter_map(|(name, value)| value.map(|v| (*name, v)))).collect()
}

fn read(changes: &[(&str, Option<&str>)]) -> Result<Message, CloudEventError> {
    from_attributes(minimal(changes), Bytes::new(), &FALLBACK)
}

#[test]
fn an_event_is_written_with_the_names_of_the_standard() {
    let message = Message::new(order_placed());
    let list: Vec<(String, String)> = attributes(&message)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into_owned()))
        .collect();
    let expected = [
        ("specversion", "1.0"),
        ("id", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ("source", "/shop"),
        ("type", "order.placed"),
        ("time", "2023-11-14T22:13:20.123456Z"),
        ("datacontenttype", "application/json"),
        ("subject", "7"),
        ("partitionkey", "7"),
        ("sequence", "42"),
        ("eventversion", "2"),
        ("aggregatetype", "order"),
        ("expirytime", "2023-11-14T22:23:20Z"),
        ("topic", "orders"),
        ("dataschema", "https://example.com/order.json"),
        ("tenant", "Zoë & Søn 100% \"quoted\""),
    ];
    assert_eq!(list, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn the_json_form_embeds_json_as_it_is_and_reads_like_any_cloudevent() {
    let text = to_json(&Message::new(order_placed()));
    assert!(text.ends_with(b",\"data\":{\"total\" : 1.50, \"total\":2}}"), "{text:?}");
    let value: Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(value["type"], json!("order.placed"));
    assert_eq!(value["tenant"], json!("Zoë & Søn 100% \"quoted\""));
}

#[test]
fn a_payload_that_is_not_what_it_says_travels_as_base64() {
    for (content_type, payload) in [
        ("application/json", &b"{not json"[..]),
        ("application/json", b" {} "),
        ("application/octet-stream", b"\x00\xff"),
        ("text/plain", b"\xff\xfe"),
        ("application/xml", b"<a/>"),
    ] {
        let message = Message::new(MessageParts {
            content_type: content_type.into(),
            payload: Bytes::copy_from_slice(payload),
            ..order_placed()
        });
        let text = to_json(&message);
        let value: Value = serde_json::from_slice(&text).expect("JSON");
        assert!(
            value["data_base64"].is_string() && value.get("data").is_none(),
            "{content_type} {payload:?}"
        );
        assert_eq!(from_json(&text, &FALLBACK), Ok(message));
    }
}

#[test]
fn what_the_standard_leaves_out_is_filled_in() {
    let message = read(&[]).expect("an event");
    assert_eq!((message.topic.as_str(), message.created_at), ("inbox", Timestamp::from_micros(77)));
    assert_eq!((message.event_version, message.key.as_deref(), message.sequence), (1, None, None));
    assert_eq!(message.content_type, "application/octet-stream");
    let by_type =
        from_attributes(minimal(&[]), Bytes::new(), &Fallback { topic: None, ..FALLBACK })
            .expect("an event");
    assert_eq!(by_type.topic, "t");
    let said = read(&[("topic", Some("orders"))]).expect("an event");
    assert_eq!(said.topic, "orders");
}

#[test]
fn a_strangers_event_keeps_everything_it_said() {
    let changes = [
        ("subject", Some("blob/7")),
        ("partitionkey", Some("7")),
        ("sequence", Some("A0-9")),
        ("dataschema", Some("https://example.com/s")),
        ("comexampleother", Some("kept")),
    ];
    let message = read(&changes).expect("an event");
    assert_eq!(message.key.as_deref(), Some("7"));
    for (name, value) in [
        ("subject", "blob/7"),
        ("sequence", "A0-9"),
        ("dataschema", "https://example.com/s"),
        ("comexampleother", "kept"),
        (ORIGINAL_ID, "1"),
    ] {
        assert_eq!(message.headers.get(name), Some(value), "{name}");
    }
    let names: Vec<&str> = attributes(&message).into_iter().map(|(name, _)| name).collect();
    let mut once = names.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), names.len(), "each attribute is sent on once: {names:?}");
}

#[test]
fn an_id_that_is_no_uuid_has_one_identity_for_each_source() {
    let at = |id: &'static str, source: &'static str| {
        read(&[("id", Some(id)), ("source", Some(source))]).map(|m| m.id).expect("an event")
    };
    assert_eq!(at("A-1", "/s"), at("A-1", "/s"));
    assert_ne!(at("A-1", "/s"), at("A-2", "/s"));
    assert_ne!(at("A-1", "/s"), at("A-1", "/t"));
    let upper = read(&[("id", Some("01890A5D-AC96-774B-BCCE-B302099A8057"))]).expect("an event");
    assert_eq!(upper.id.to_string(), "01890a5d-ac96-774b-bcce-b302099a8057");
    assert_eq!(upper.headers.get(ORIGINAL_ID), Some("01890A5D-AC96-774B-BCCE-B302099A8057"));
}

#[test]
fn each_broken_attribute_is_named() {
    let long = "x".repeat(256);
    for name in ["specversion", "id", "source", "type"] {
        assert_eq!(read(&[(name, None)]), Err(CloudEventError::Missing(name)));
    }
    for (name, value) in [
        ("specversion", "0.3"),
        ("id", ""),
        ("source", long.as_str()),
        ("type", "a\nb"),
        ("time", "yesterday"),
        ("expirytime", "1"),
        ("eventversion", "0"),
        ("eventversion", "two"),
        ("partitionkey", ""),
        ("my-own", "x"),
        ("Upper", "x"),
        ("data", "x"),
        ("tenant", "a\u{7f}"),
    ] {
        let error = read(&[(name, Some(value))]).expect_err(name);
        assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
    }
    let twice = [minimal(&[("tenant", Some("a"))]), vec![("tenant", "b")]].concat();
    let error = from_attributes(twice, Bytes::new(), &FALLBACK).expect_err("doubled");
    assert_eq!(error, CloudEventError::Duplicate("tenant".into()));
    let many = (0..200).map(|n| (format!("a{n}"), "x"));
    assert_eq!(from_attributes(many, Bytes::new(), &FALLBACK), Err(CloudEventError::TooMany(128)));
}

#[test]
fn broken_json_is_refused_with_its_place_and_without_its_content() {
    const HEAD: &str = r#""specversion":"1.0","id":"1","source":"/s","type":"t""#;
    for text in [
        "",
        "[]",
        "\"secret\"",
        "{",
        "{} {}",
        &format!("{{{HEAD},\"tenant\":1.5}}"),
        &format!("{{{HEAD},\"tenant\":[\"secret\"]}}"),
        &format!("{{{HEAD},\"id\":\"secret\"}}"),
        &format!("{{{HEAD},\"data\":1,\"data\":\"secret\"}}"),
        &format!("{{{HEAD},\"data\":1,\"data_base64\":\"c2VjcmV0\"}}"),
        &format!("{{{HEAD},\"data_base64\":\"!secret\"}}"),
        &format!("{{{HEAD},\"data_base64\":7}}"),
        &format!("{{{HEAD},\"datacontenttype\":\"text/plain\",\"data\":{{\"secret\":1}}}}"),
    ] {
        let error = from_json(text.as_bytes(), &FALLBACK).expect_err(text);
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn json_types_of_the_format_become_their_texts() {
    let text =
        br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","flag":true,"count":-3,"gone":null,"data":null}"#;
    let message = from_json(text, &FALLBACK).expect("an event");
    assert_eq!(
        (message.headers.get("flag"), message.headers.get("count")),
        (Some("true"), Some("-3"))
    );
    assert_eq!(message.headers.get("gone"), None);
    assert_eq!(
        (&message.payload[..], message.content_type.as_str()),
        (&b"null"[..], "application/json")
    );
}

#[test]
fn deeply_nested_data_passes_through() {
    let payload = Bytes::from("[".repeat(20_000) + &"]".repeat(20_000));
    let message = Message::new(MessageParts { payload, ..order_placed() });
    assert_eq!(from_json(&to_json(&message), &FALLBACK), Ok(message));
}

fn text() -> impl Strategy<Value = String> {
    "[^\\p{Cc}]{1,60}"
}

fn any_message() -> impl Strategy<Value = Message> {
    let times = -62_135_596_800_000_000i64..253_402_300_800_000_000;
    let names = (any::<u128>(), option::of(1i64..), text(), text(), 1u16.., text());
    let more = (
        option::of(text()),
        option::of(text()),
        text(),
        vec(("x[a-z0-9]{1,20}", "[^\\p{Cc}]{0,60}"), 0..6),
    );
    let content = prop_oneof![
        vec(any::<u8>(), 0..200).prop_map(|b| ("application/octet-stream", b)),
        vec(any::<u8>(), 0..200).prop_map(|b| ("application/json", b)),
        "\\PC{0,60}".prop_map(|t| ("text/plain; charset=utf-8", t.into_bytes())),
        "\\PC{0,60}".prop_map(|t| ("application/x+json", Value::from(t).to_string().into_bytes())),
    ];
    (names, more, content, times.clone(), option::of(times)).prop_map(
        |(names, more, content, created, expires)| {
            let (id, sequence, source, event_type, event_version, topic) = names;
            let (aggregate_type, key, _, extra) = more;
            let mut headers = Headers::new();
            for (name, value) in extra {
                headers.insert(name, value).expect("legal");
            }
            Message::new(MessageParts {
                id: MessageId::from_uuid(uuid::Uuid::from_u128(id)),
                sequence: sequence.map(EventId),
                source,
                event_type,
                event_version,
                topic,
                aggregate_type,
                key,
                content_type: content.0.into(),
                payload: content.1.into(),
                headers,
                created_at: Timestamp::from_micros(created),
                expires_at: expires.map(Timestamp::from_micros),
                retry: None,
            })
        },
    )
}

proptest! {
    #[test]
    fn every_message_reads_back_from_its_attributes(message in any_message()) {
        let list: Vec<_> = attributes(&message).into_iter().map(|(n, v)| (n.to_owned(), v.into_owned())).collect();
        prop_assert_eq!(from_attributes(list, message.payload.clone(), &FALLBACK), Ok(message));
    }

    #[test]
    fn every_message_reads_back_from_its_json(message in any_message()) {
        prop_assert_eq!(from_json(&to_json(&message), &FALLBACK), Ok(message));
    }

    #[test]
    fn any_bytes_are_an_event_or_a_clear_error(bytes in vec(any::<u8>(), 0..300)) {
        if let Err(error) = from_json(&bytes, &FALLBACK) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn a_spoiled_event_is_an_event_or_a_clear_error(message in any_message(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = to_json(&message).to_vec();
        let at = at.index(text.len());
        text[at] = byte;
        if let Err(error) = from_json(&text, &FALLBACK) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_attributes_are_an_event_or_a_clear_error(list in vec(("(id|type|source|specversion|time|sequence|[a-z]{1,9}|\\PC{0,9})", "(1\\.0|\\PC{0,40}|.{0,9})"), 0..12)) {
        if let Err(error) = from_attributes(list, Bytes::new(), &FALLBACK) {
            let text = error.to_string();
            prop_assert!(!text.chars().any(char::is_control) && text.len() < 400, "{}", text);
        }
    }
}

#[cfg(feature = "testing")]
#[test]
fn attributes_with_control_characters_are_refused_in_both_modes_and_in_plain_json() {
    use crate::testing::transport::attributes_with_control_characters_are_refused as refused;
    refused(|list| {
        from_attributes(list.iter().copied(), Bytes::new(), &FALLBACK)
            .map_err(|error| error.to_string())
    });
    refused(|list| {
        let members = list.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        from_json(Value::Object(members).to_string().as_bytes(), &FALLBACK)
            .map_err(|error| error.to_string())
    });
    let plain = PlainJson::new("type", "/s").id_header("id").key_header("key");
    for (header, text) in [("type", "a\0b"), ("id", "a\nb"), ("key", "a\u{85}b")] {
        let others = [("type", "t"), ("id", "1"), ("key", "k")]
            .into_iter()
            .filter(|(other, _)| *other != header);
        let list: Vec<_> = others.chain([(header, text)]).collect();
        assert!(plain.read(list, "{}".into(), &FALLBACK).is_err(), "{header} {text:?}");
    }
}

#[test]
fn a_topic_that_a_transport_names_is_taken_where_it_is_a_text_for_one() {
    for (named, topic) in [("orders", "orders"), ("a\0b", "t"), ("", "t"), (&*"x".repeat(256), "t")]
    {
        let fallback = Fallback { topic: Some(named), ..FALLBACK };
        let message = from_attributes(minimal(&[]), Bytes::new(), &fallback).expect("it is whole");
        assert_eq!(message.topic, topic, "{named:?}");
    }
}

#[test]
fn a_key_that_a_transport_orders_by_is_a_key_where_it_is_a_text_for_one() {
    for (bytes, key) in [
        (&b"k"[..], Some("k")),
        (b"", None),
        (b"a\0b", None),
        (b"\xff", None),
        (b"a\tb", None),
        ("\u{85}".as_bytes(), None),
        (&[b'k'; 255], Some(&*"k".repeat(255))),
        (&[b'k'; 256], None),
    ] {
        assert_eq!(key_of(bytes), key, "{bytes:?}");
    }
}
