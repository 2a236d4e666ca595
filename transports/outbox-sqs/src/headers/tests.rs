//! Arbitrary messages are read or a clear error, and an encoded message reads back.

use super::*;
use outbox_core::testing::transport::{
    attributes_with_control_characters_are_refused as refused, full,
};
use proptest::{collection::vec, prelude::*};

fn with(content_type: &str, payload: &[u8]) -> Message {
    let mut parts = full().into_parts();
    parts.content_type = content_type.into();
    parts.payload = Bytes::copy_from_slice(payload);
    Message::new(parts)
}

fn owned(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn read_with(options: &ReadOptions, list: &[(&str, &str)], body: &str) -> Result<Message, String> {
    read(options, "orders", &owned(list), body, Timestamp::from_micros(7))
}

fn read_back(encoded: &EncodedMessage) -> Result<Message, String> {
    let list: Vec<_> =
        encoded.attributes.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    read(&ReadOptions::default(), "queue", &list, &encoded.body, Timestamp::from_micros(0))
}

fn value<'e>(encoded: &'e EncodedMessage, name: &str) -> Option<&'e str> {
    let found = encoded.attributes.iter().find(|(attribute, _)| attribute == name);
    found.map(|(_, value)| value.as_str())
}

#[test]
fn both_modes_read_back_and_leave_room_for_a_dead_letters_cause() {
    let message = full();
    for binary in [true, false] {
        let encoded = write(&message, binary);
        assert!(encoded.attributes.len() < MAX_ATTRIBUTES, "{encoded:?}");
        assert_eq!(read_back(&encoded).map(Message::into_parts), Ok(message.clone().into_parts()));
        assert_eq!(value(&encoded, "ce_id"), Some(message.id.to_string().as_str()));
        assert_eq!(value(&encoded, "ce_type"), Some("order.placed"));
    }
    let structured = write(&message, false);
    assert_eq!(value(&structured, CONTENT_TYPE), Some("application/cloudevents+json"));
    assert!(size_of(&structured.attributes) <= MOST_COPIES);
    let binary = write(&message, true);
    assert_eq!(binary.body.as_bytes(), &message.payload[..]);
    assert_eq!(value(&binary, CONTENT_TYPE), Some("application/json"));
    assert!(value(&binary, REST).is_some_and(|rest| rest.contains("\"tenant\":\"t-1\"")));
}

#[test]
fn the_copies_beside_an_event_never_take_more_than_is_left_for_them() {
    let mut parts = full().into_parts();
    parts.source = "s".repeat(255);
    parts.event_type = "t".repeat(255);
    parts.key = Some("k".repeat(255));
    let encoded = write(&Message::new(parts), false);
    assert!(size_of(&encoded.attributes) <= MOST_COPIES, "{}", size_of(&encoded.attributes));
}

#[test]
fn a_payload_that_no_body_can_be_goes_structured_in_both_modes() {
    for payload in [&b""[..], b"a\0b", b"\xff\xfe", "\u{ffff}".as_bytes()] {
        for binary in [true, false] {
            let encoded = write(&with("application/octet-stream", payload), binary);
            assert_eq!(value(&encoded, CONTENT_TYPE), Some("application/cloudevents+json"));
            assert!(is_text(&encoded.body), "{:?}", encoded.body);
            assert_eq!(&read_back(&encoded).expect("read").payload[..], payload);
        }
    }
    let inner = with("application/cloudevents+json", b"{}");
    assert_eq!(value(&write(&inner, true), CONTENT_TYPE), Some("application/cloudevents+json"));
}

#[test]
fn the_two_characters_that_json_does_not_escape_are_escaped_or_go_as_base64() {
    for (media, payload) in [
        ("application/json", "\"a\u{fffe}b\""),
        ("text/plain", "a\u{ffff}b"),
        ("application/json", "{\"total\":1}"),
    ] {
        let mut parts = with(media, payload.as_bytes()).into_parts();
        parts.headers.insert("own", "x\u{ffff}y").expect("legal");
        let message = Message::new(parts);
        for binary in [true, false] {
            let encoded = write(&message, binary);
            assert!(is_text(&encoded.body), "{:?}", encoded.body);
            assert!(encoded.attributes.iter().all(|(_, value)| is_text(value)), "{encoded:?}");
            assert_eq!(
                read_back(&encoded).map(Message::into_parts),
                Ok(message.clone().into_parts())
            );
        }
    }
}

#[test]
fn attributes_with_control_characters_are_refused() {
    refused(|list| {
        let list: Vec<_> =
            list.iter().map(|(name, value)| ([PREFIX, name].concat(), *value)).collect();
        let list: Vec<_> = list.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        read_with(&ReadOptions::default(), &list, "x")
    });
}

#[test]
fn an_event_in_the_json_format_is_read_with_its_media_type_and_without_any_attribute() {
    let body = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{}}"#;
    let options = ReadOptions::default();
    for list in [&[][..], &[("Content-Type", "Application/CloudEvents+JSON; charset=utf-8")]] {
        let message = read_with(&options, list, body).expect("a message");
        assert_eq!((message.event_type.as_str(), message.topic.as_str()), ("t", "orders"));
    }
    for media in ["application/cloudevents-batch+json", "application/cloudevents+avro"] {
        let error = read_with(&options, &[("content-type", media)], body).expect_err(media);
        assert!(error.contains("only application/cloudevents+json"), "{error}");
    }
}

#[test]
fn an_envelope_of_sns_says_which_setting_is_missing() {
    let envelope = r#"{"Type":"Notification","TopicArn":"arn:aws:sns:r:1:t","Message":"{}"}"#;
    let error = read_with(&ReadOptions::default(), &[], envelope).expect_err("an envelope");
    assert!(error.contains("RawMessageDelivery"), "{error}");
    let error = read_with(&ReadOptions::default(), &[], "{}").expect_err("no event");
    assert!(error.contains("plain_json"), "{error}");
}

#[test]
fn other_messages_are_read_where_that_is_asked_for() {
    let json = PlainJson::new("x-type", "/legacy").key_header("x-key");
    let options = ReadOptions { plain_json: Some(json) };
    let list = [("x-type", "invoice.sent"), ("x-key", "7"), ("message-id", "I-1")];
    let message = read_with(&options, &list, "{\"n\":1}").expect("a message");
    assert_eq!((message.event_type.as_str(), message.key.as_deref()), ("invoice.sent", Some("7")));
    let error = read_with(&options, &[("x-key", "7")], "{}").expect_err("it has no type");
    assert!(error.contains("nor the attribute for its type"), "{error}");
}

#[test]
fn the_rest_of_the_attributes_is_an_object_of_strings_and_none_is_there_twice() {
    let base = [("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "/s"), ("ce_type", "t")];
    let options = ReadOptions::default();
    for (rest, part) in [
        ("[]", "no JSON object"),
        ("{\"a\":1}", "`a` in `ce_attributes` is no string"),
        ("{\"id\":\"2\"}", "`id` is there twice"),
    ] {
        let list = [base.as_slice(), &[(REST, rest)]].concat();
        let error = read_with(&options, &list, "x").expect_err(rest);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_dead_letter_has_its_cause_as_headers() {
    let cause = DeadMessage {
        queue: "orders".into(),
        deliveries: 3,
        class: "Rejected".into(),
        message: format!("no such\norder {}", "x".repeat(2_000)),
    };
    let mut encoded = write(&full(), false);
    encoded.attributes.push(cause.attribute());
    let message = read_back(&encoded).expect("read");
    let read = DeadMessage::of(&message).expect("a dead letter");
    assert_eq!(
        (read.queue.as_str(), read.deliveries, read.class.as_str()),
        ("orders", 3, "Rejected")
    );
    assert!(read.message.starts_with("no such order xxx") && read.message.len() <= MAX_REASON);
    assert_eq!(DeadMessage::of(&full()), None);
}

proptest! {
    #[test]
    fn every_payload_reads_back_in_both_modes(
        payload in vec(any::<u8>(), 0..80),
        text in any::<String>(),
        binary in any::<bool>(),
        media in "application/json|text/plain|application/octet-stream",
    ) {
        for payload in [payload.clone(), text.into_bytes()] {
            let message = with(&media, &payload);
            let encoded = write(&message, binary);
            prop_assert!(is_text(&encoded.body));
            let read = read_back(&encoded).expect("read");
            prop_assert_eq!(&read.payload[..], &payload[..]);
        }
    }

    #[test]
    fn any_attributes_are_an_event_or_a_clear_error(
        list in vec(("(ce_(id|type|source|specversion|time|data|attributes|[a-z]{1,9})|content-type|dead_letter|[a-z-]{1,9})", "[ -~é]{0,20}"), 0..12),
        body in "[ -~]{0,60}",
    ) {
        let list: Vec<(&str, &str)> = list.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        if let Err(text) = read_with(&ReadOptions::default(), &list, &body) {
            prop_assert!(text.len() < 300, "{}", text);
        }
    }
}
