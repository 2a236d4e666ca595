//! What derived code does: bytes out, values back, clear errors in between.

use outbox_core::OutboxEvent;
use outbox_core::event::{
    DecodeError, DecodeEvent, EventId, Message, MessageParts, NewEvent, OutboxEvent as Event,
    Timestamp,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, error::Error};

/// Gives the message that the relay would send for an event.
fn message(event: &dyn Event) -> Message {
    let new = NewEvent::encode(event).expect("the event is valid");
    Message::new(MessageParts {
        id: new.message_id,
        sequence: Some(EventId(1)),
        source: "/tests".to_owned(),
        event_type: new.event_type,
        event_version: new.event_version,
        topic: new.topic,
        aggregate_type: new.aggregate_type,
        key: new.key,
        content_type: new.content_type,
        payload: new.payload,
        headers: new.headers,
        created_at: Timestamp::from_micros(1),
        expires_at: None,
        retry: new.retry,
    })
}

/// The same message with another type, version and payload.
fn altered(like: &dyn Event, event_type: &str, version: u16, payload: &[u8]) -> Message {
    let mut parts = message(like).into_parts();
    parts.event_type = event_type.to_owned();
    parts.event_version = version;
    parts.payload = payload.to_vec().into();
    Message::new(parts)
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", version = 3, upcast(1 = v1_to_v2, 2 = v2_to_v3))]
struct OrderPlaced {
    order_id: i64,
    cents: i64,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    article: String,
    amount: u32,
}

#[derive(Deserialize)]
struct V1 {
    order_id: i64,
    euros: i64,
}

#[derive(Serialize, Deserialize)]
struct V2 {
    order_id: i64,
    cents: i64,
}

#[derive(Debug)]
struct TooMuch;

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the total does not fit")
    }
}

impl Error for TooMuch {}

/// A step between two types.
fn v1_to_v2(old: V1) -> Result<V2, TooMuch> {
    Ok(V2 { order_id: old.order_id, cents: old.euros.checked_mul(100).ok_or(TooMuch)? })
}

/// A step on the JSON itself; a map and not any value, since indexing one that is no object panics.
fn v2_to_v3(mut old: Map<String, Value>) -> Result<Map<String, Value>, std::convert::Infallible> {
    old.insert("lines".to_owned(), Value::Array(Vec::new()));
    Ok(old)
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, OutboxEvent)]
#[outbox(prefix = "payment")]
#[serde(tag = "never_seen", rename_all_fields = "camelCase")]
enum Payment {
    Charged {
        order_id: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        card_holder: Option<String>,
        #[serde(flatten)]
        more: BTreeMap<String, Value>,
    },
    Refunded(Line),
    #[outbox(version = 2, upcast(1 = refusal_v1_to_v2))]
    Refused {
        reason: String,
    },
    Paused,
}

fn refusal_v1_to_v2(
    reason: String,
) -> Result<BTreeMap<&'static str, String>, std::convert::Infallible> {
    Ok(BTreeMap::from([("reason", reason)]))
}

fn placed() -> OrderPlaced {
    let line = Line { article: "book".to_owned(), amount: 2 };
    OrderPlaced { order_id: 7, cents: 1200, lines: vec![line] }
}

#[test]
fn a_struct_reads_back_what_it_wrote() {
    let message = message(&placed());
    assert_eq!(message.payload, serde_json::to_vec(&placed()).expect("it has a JSON form"));
    assert_eq!(OrderPlaced::decode(&message).expect("it is valid"), placed());
}

#[test]
fn older_payloads_are_raised_step_by_step() {
    let read = |version, payload: &str| {
        OrderPlaced::decode(&altered(&placed(), "order.placed", version, payload.as_bytes()))
    };
    let expected = OrderPlaced { order_id: 7, cents: 1200, lines: Vec::new() };
    assert_eq!(read(1, r#"{"order_id":7,"euros":12}"#).expect("two steps"), expected);
    assert_eq!(read(2, r#"{"order_id":7,"cents":1200}"#).expect("one step"), expected);
    let refused = Payment::decode(&altered(&Payment::Paused, "payment.refused", 1, br#""stolen""#));
    assert_eq!(refused.expect("one step"), Payment::Refused { reason: "stolen".to_owned() });
}

#[test]
fn a_failed_step_is_told_with_its_version_and_its_reason() {
    let payload = br#"{"order_id":7,"euros":9223372036854775807}"#;
    let error = OrderPlaced::decode(&altered(&placed(), "order.placed", 1, payload))
        .expect_err("it overflows");
    assert_eq!(
        chain(&error),
        "the payload of `order.placed` does not have the expected shape: the step from version 1 to the next failed: \
         the total does not fit"
    );
    let error = OrderPlaced::decode(&altered(&placed(), "order.placed", 1, b"{}"))
        .expect_err("it has another shape");
    assert!(chain(&error).contains("missing field `order_id`"), "{}", chain(&error));
}

#[test]
fn unknown_types_and_versions_are_told_with_the_known_ones() {
    let error =
        OrderPlaced::decode(&altered(&placed(), "order.lost", 3, b"{}")).expect_err("another type");
    assert_eq!(error.to_string(), "no event type `order.lost` here; known: order.placed");
    let error =
        Payment::decode(&altered(&Payment::Paused, "payment", 1, b"{}")).expect_err("another type");
    assert_eq!(
        error.to_string(),
        "no event type `payment` here; known: payment.charged, payment.refunded, payment.refused, payment.paused"
    );
    for version in [0, 4, u16::MAX] {
        let error = OrderPlaced::decode(&altered(&placed(), "order.placed", version, b"{}"))
            .expect_err("no such version");
        assert!(
            matches!(&error, DecodeError::UnknownVersion { version: v, supported: 3, .. } if *v == version),
            "{error:?}"
        );
    }
    let error = Payment::decode(&altered(&Payment::Paused, "payment.refused", 3, b"{}"))
        .expect_err("too new");
    assert!(matches!(error, DecodeError::UnknownVersion { version: 3, supported: 2, .. }));
}

#[test]
fn the_payload_of_a_variant_is_its_content_alone() {
    let charged = Payment::Charged {
        order_id: 7,
        card_holder: None,
        more: BTreeMap::from([
            ("zone".to_owned(), Value::from(3)),
            ("area".to_owned(), Value::Null),
        ]),
    };
    let line = Line { article: "book".to_owned(), amount: 2 };
    for (event, payload) in [
        (charged, r#"{"orderId":7,"area":null,"zone":3}"#),
        (Payment::Refunded(line), r#"{"article":"book","amount":2}"#),
        (Payment::Refused { reason: "stolen".to_owned() }, r#"{"reason":"stolen"}"#),
        (Payment::Paused, "{}"),
    ] {
        let message = message(&event);
        assert_eq!(message.payload, payload.as_bytes());
        assert_eq!(Payment::decode(&message).expect("it is valid"), event);
    }
    // Later versions may give it content.
    assert_eq!(
        Payment::decode(&altered(&Payment::Paused, "payment.paused", 1, br#"{"by":1}"#))
            .expect("it is valid"),
        Payment::Paused
    );
}

#[test]
fn a_payload_with_something_behind_it_is_refused() {
    for (event_type, payload) in [
        ("payment.paused", "{} {}"),
        ("payment.refused", r#"{"reason":"a"}x"#),
        ("payment.paused", ""),
    ] {
        let version = if event_type == "payment.refused" { 2 } else { 1 };
        let error =
            Payment::decode(&altered(&Payment::Paused, event_type, version, payload.as_bytes()))
                .expect_err(payload);
        assert!(matches!(error, DecodeError::Payload { .. }), "{error:?}");
    }
}

#[test]
fn nesting_without_end_is_an_error_and_no_stack_overflow() {
    let deep = "[".repeat(200_000);
    for (event_type, version) in
        [("payment.charged", 1), ("payment.paused", 1), ("payment.refused", 2)]
    {
        let content = format!(r#"{{"orderId":1,"reason":{deep}"#);
        let error =
            Payment::decode(&altered(&Payment::Paused, event_type, version, content.as_bytes()))
                .expect_err("too deep");
        assert!(matches!(error, DecodeError::Payload { .. }), "{error:?}");
    }
}

#[test]
fn errors_say_what_was_expected_and_never_what_was_there() {
    let secret = "4111-1111, expected 4222";
    for (event_type, version, payload, expected) in [
        (
            "order.placed",
            3,
            format!(r#"{{"order_id":"{secret}"}}"#),
            "invalid type: string, expected i64",
        ),
        (
            "order.placed",
            3,
            format!(r#""{secret}""#),
            "invalid type: string, expected struct OrderPlaced",
        ),
        (
            "order.placed",
            3,
            r#"{"order_id":4111.5}"#.to_owned(),
            "invalid type: floating point, expected i64",
        ),
        (
            "order.placed",
            3,
            r#"{"order_id":1,"order_id":2}"#.to_owned(),
            "duplicate field `order_id`",
        ),
        (
            "order.placed",
            1,
            format!(r#"{{"order_id":"{secret}"}}"#),
            "invalid type: string, expected i64",
        ),
        ("order.placed", 3, format!(r#"{{"order_id":"{secret}"#), "EOF while parsing a string"),
    ] {
        let error =
            OrderPlaced::decode(&altered(&placed(), event_type, version, payload.as_bytes()))
                .expect_err("a wrong shape");
        let text = chain(&error);
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("4111") && !text.contains("4222"), "{text}");
        assert!(!format!("{error:?}").contains("4111"), "{error:?}");
    }
}

/// JSON with a secret in every string and key.
fn secrets() -> impl Strategy<Value = Value> {
    let text = "[a-z\"`, ]{0,6}canary[a-z\"`, ]{0,6}|canary, expected [a-z]{3}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    let name = prop_oneof![
        Just("orderId".to_owned()),
        Just("order_id".to_owned()),
        Just("lines".to_owned()),
        Just("reason".to_owned())
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

const TYPES: &[&str] = &[
    "order.placed",
    "payment.charged",
    "payment.refunded",
    "payment.refused",
    "payment.paused",
    "payment",
];

proptest! {
    #[test]
    fn any_bytes_are_a_value_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        kind in prop::sample::select(TYPES),
        version in 0u16..5,
    ) {
        let message = altered(&placed(), kind, version, &bytes);
        if let Ok(order) = OrderPlaced::decode(&message) {
            prop_assert!(kind == "order.placed", "{:?}", order);
        }
        if let Ok(payment) = Payment::decode(&message) {
            prop_assert!(kind.starts_with("payment."), "{:?}", payment);
        }
    }

    #[test]
    fn any_json_is_a_value_or_an_error_without_its_strings(
        json in secrets(),
        kind in prop::sample::select(TYPES),
        version in 0u16..5,
    ) {
        let message = altered(&placed(), kind, version, json.to_string().as_bytes());
        for error in [OrderPlaced::decode(&message).err(), Payment::decode(&message).err()].into_iter().flatten() {
            prop_assert!(!chain(&error).contains("canary"), "{}", chain(&error));
            prop_assert!(!format!("{error:?}").contains("canary"), "{:?}", error);
        }
    }

    #[test]
    fn what_was_written_reads_back(id in any::<i64>(), holder in prop::option::of("\\PC{0,20}"), article in "\\PC{0,20}", amount in any::<u32>()) {
        let line = Line { article, amount };
        let order = OrderPlaced { order_id: id, cents: id, lines: vec![line.clone(); 2] };
        prop_assert_eq!(OrderPlaced::decode(&message(&order)).expect("it is valid"), order);
        for payment in [
            Payment::Charged { order_id: id, card_holder: holder.clone(), more: BTreeMap::new() },
            Payment::Refunded(line),
            Payment::Refused { reason: holder.unwrap_or_default() },
        ] {
            prop_assert_eq!(Payment::decode(&message(&payment)).expect("it is valid"), payment);
        }
    }
}
