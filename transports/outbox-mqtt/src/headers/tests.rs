//! Arbitrary properties are a message or a clear error, and an encoded message reads back.

use super::*;
use outbox_core::testing::transport::{
    attributes_with_control_characters_are_refused as refused, full,
};
use proptest::{collection::vec, prelude::*};

const RECEIVED_AT: Timestamp = Timestamp::from_micros(1_700_000_000_123_000);

fn properties(list: &[(&str, &str)], media: Option<&str>) -> PublishProperties {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    PublishProperties {
        user_properties: list.iter().map(owned).collect(),
        content_type: media.map(str::to_owned),
        ..PublishProperties::default()
    }
}

fn read_default(properties: &PublishProperties, body: &Bytes) -> Result<Message, String> {
    read(&ReadOptions::default(), "orders", properties, body.clone(), RECEIVED_AT)
}

fn with_header(value: &str) -> Message {
    let mut parts = full().into_parts();
    parts.headers.insert("own", value).expect("legal");
    Message::new(parts)
}

#[test]
fn both_modes_read_back() {
    for structured in [false, true] {
        let message = full();
        let EncodedMessage { properties, body } = write(&message, structured);
        assert_eq!(properties.user_properties.is_empty(), structured);
        let back = read_default(&properties, &body).expect("readable");
        assert_eq!(back.into_parts(), message.into_parts());
    }
}

#[test]
fn what_no_user_property_can_carry_goes_in_structured_mode() {
    let long = "x".repeat(65_536);
    for value in ["\u{10ffff}", "\u{fdd0}", long.as_str()] {
        let Ok(()) = full().into_parts().headers.insert("own", value).map(drop) else {
            // The outbox itself has a shorter limit.
            continue;
        };
        let message = with_header(value);
        let EncodedMessage { properties, body } = write(&message, false);
        assert_eq!(properties.content_type.as_deref(), Some("application/cloudevents+json"));
        let back = read_default(&properties, &body).expect("readable");
        assert_eq!(back.into_parts(), message.into_parts());
    }
    assert!(!write(&with_header("ü"), false).properties.user_properties.is_empty());
}

#[test]
fn a_payload_that_is_a_cloud_event_goes_in_structured_mode() {
    let mut parts = full().into_parts();
    parts.content_type = "application/cloudevents+json".into();
    let encoded = write(&Message::new(parts), false);
    assert!(encoded.properties.user_properties.is_empty());
    assert!(encoded.body.starts_with(b"{\"specversion\""));
}

#[test]
fn an_event_of_another_tool_is_read_and_its_own_properties_are_left_out() {
    let list = [
        ("specversion", "1.0"),
        ("id", "A-1"),
        ("source", "/java"),
        ("type", "order.placed"),
        ("X-Their-Own", "left out"),
    ];
    let body = Bytes::from_static(b"hello");
    let message = read_default(&properties(&list, Some("text/plain")), &body).expect("readable");
    assert_eq!((message.topic.as_str(), message.content_type.as_str()), ("orders", "text/plain"));
    assert_eq!(message.created_at, RECEIVED_AT);
    assert_eq!(message.headers.get("originalid"), Some("A-1"));
}

#[test]
fn an_event_of_a_client_of_mqtt_3_is_read() {
    let body = cloudevents::to_json(&full());
    let message = read_default(&PublishProperties::default(), &body).expect("readable");
    assert_eq!(message.into_parts(), full_with(&body).into_parts());
}

/// Reads a structured message again, since each [`full`] has an id of its own.
fn full_with(body: &Bytes) -> Message {
    let fallback = Fallback { topic: None, received_at: RECEIVED_AT };
    cloudevents::from_json(body, &fallback).expect("readable")
}

#[test]
fn attributes_with_control_characters_are_refused() {
    refused(|list| {
        let media = list.iter().find(|(name, _)| *name == DATA_CONTENT_TYPE);
        let others: Vec<_> =
            list.iter().copied().filter(|(name, _)| *name != DATA_CONTENT_TYPE).collect();
        read_default(&properties(&others, media.map(|(_, value)| *value)), &Bytes::new())
    });
}

#[test]
fn the_cause_of_a_dead_letter_replaces_the_one_of_an_earlier_death() {
    let cause = |topic: &str| MqttDeadMessage {
        topic: topic.into(),
        client: "billing-1".into(),
        class: "Rejected".into(),
        message: "no such customer: ü".into(),
    };
    let EncodedMessage { properties, body } = write(&full(), false);
    let first = cause("orders").properties(&properties);
    let second = cause("orders/dead").properties(&first);
    assert_eq!(first.user_properties.len(), second.user_properties.len());
    let message = read_default(&second, &body).expect("readable");
    assert_eq!(MqttDeadMessage::of(&message), Some(cause("orders/dead")));
    assert_eq!(MqttDeadMessage::of(&full()), None);
}

#[test]
fn a_reason_is_one_bounded_line_that_mqtt_carries() {
    let kept = shortened(&format!("line\r\n\u{ffff}{}", "ü".repeat(2_000)));
    assert!(kept.len() <= MAX_REASON && kept.starts_with("line   ü"), "{} bytes", kept.len());
}

#[test]
fn the_error_of_a_message_that_is_no_cloud_event_names_the_setting_that_reads_it() {
    let error = |options: &ReadOptions, properties: &PublishProperties| {
        let body = Bytes::from_static(b"not ours");
        read(options, "orders", properties, body, RECEIVED_AT).expect_err("not readable")
    };
    let (default, bare) = (ReadOptions::default(), PublishProperties::default());
    assert!(error(&default, &bare).contains("MqttSubscriber::plain_json"));
    let plain = ReadOptions { plain_json: Some(PlainJson::new("type", "/plain")) };
    assert!(error(&plain, &bare).contains("nor the property for its type"));
    let batch = properties(&[], Some("application/cloudevents-batch+json"));
    assert!(error(&default, &batch).contains("only application/cloudevents+json"));
}

#[test]
fn plain_json_is_read_from_user_properties_and_payload() {
    let plain = ReadOptions { plain_json: Some(PlainJson::new("type", "/plain")) };
    let list = [("type", "order.placed"), ("message-id", "17"), ("tenant", "acme")];
    let body = Bytes::from_static(b"{\"total\":3}");
    let message = read(&plain, "orders", &properties(&list, None), body.clone(), RECEIVED_AT);
    let message = message.expect("readable");
    assert_eq!(message.event_type, "order.placed");
    assert_eq!(message.headers.get("tenant"), Some("acme"));
    assert_eq!(message.payload, body);
}

proptest! {
    /// No message of another client makes the reader panic.
    #[test]
    fn arbitrary_messages_are_messages_or_errors(
        list in vec(("id|source|type|specversion|time|topic|own1|dead_topic|.{0,8}", ".{0,20}"), 0..8),
        media in proptest::option::of("application/(cloudevents\\+)?json|.{0,20}"),
        body in vec(any::<u8>(), 0..60),
        micros in any::<i64>(),
    ) {
        let list: Vec<_> = list.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let options = ReadOptions { plain_json: Some(PlainJson::new("type", "/plain")) };
        let properties = properties(&list, media.as_deref());
        let _ = read(&options, "orders", &properties, body.into(), Timestamp::from_micros(micros));
    }

    /// Whatever a header holds that the outbox takes arrives.
    #[test]
    fn every_legal_header_reads_back(value in "\\PC{0,60}") {
        let mut parts = full().into_parts();
        prop_assume!(parts.headers.insert("own", value.as_str()).is_ok());
        let message = Message::new(parts);
        let EncodedMessage { properties, body } = write(&message, false);
        let back = read_default(&properties, &body).expect("readable");
        prop_assert_eq!(back.into_parts(), message.into_parts());
    }
}
