//! Fields of variants are written and read with their own serde attributes, as if the variant were a struct.

use outbox_core::{
    OutboxEvent,
    event::{DecodeEvent, EventId, Message, MessageParts, NewEvent, OutboxEvent as _, Timestamp},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// Generic, so that it sees the field's own type and no reference to it.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

mod hex {
    use super::*;

    pub fn serialize<S: Serializer>(value: &u32, out: S) -> Result<S::Ok, S::Error> {
        format!("{value:x}").serialize(out)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<u32, D::Error> {
        u32::from_str_radix(&String::deserialize(input)?, 16).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize, OutboxEvent)]
#[serde(tag = "t", content = "c", rename_all = "UPPERCASE", rename_all_fields = "camelCase", deny_unknown_fields)]
enum Payment {
    Charged {
        order_id: i64,
        #[serde(rename = "sum", alias = "total")]
        amount: i64,
        #[serde(default, skip_serializing_if = "is_default")]
        retries: u8,
        #[serde(with = "hex")]
        color: u32,
        #[serde(skip)]
        cached: bool,
    },
    #[serde(rename = "r", rename_all = "SCREAMING_SNAKE_CASE")]
    Refunded { order_id: i64 },
    Painted(#[serde(with = "hex")] u32),
    #[serde(with = "hex")]
    Repainted(u32),
    #[serde(rename_all = "kebab-case")]
    Mixed {
        first_part: u8,
        r#type: BTreeMap<u8, u8>,
    },
    Empty {},
}

fn there_and_back(event: &Payment) -> Payment {
    let new = NewEvent::encode(event).unwrap();
    Payment::decode(&message(&new.event_type, &new.payload)).unwrap()
}

fn message(event_type: &str, payload: &[u8]) -> Message {
    let new = NewEvent::encode(&Payment::Empty {}).unwrap();
    Message::new(MessageParts {
        id: new.message_id,
        sequence: Some(EventId(1)),
        source: "/test".to_owned(),
        event_type: event_type.to_owned(),
        event_version: 1,
        topic: new.topic,
        aggregate_type: None,
        key: None,
        content_type: new.content_type,
        payload: payload.to_vec().into(),
        headers: new.headers,
        created_at: Timestamp::from_micros(1),
        expires_at: None,
        retry: None,
    })
}

fn main() {
    let charged = |retries| Payment::Charged { order_id: 1, amount: 2, retries, color: 255, cached: false };
    for (event, payload) in [
        (charged(0), r#"{"orderId":1,"sum":2,"color":"ff"}"#),
        (charged(3), r#"{"orderId":1,"sum":2,"retries":3,"color":"ff"}"#),
        (Payment::Refunded { order_id: 1 }, r#"{"ORDER_ID":1}"#),
        (Payment::Painted(16), r#""10""#),
        (Payment::Repainted(16), r#""10""#),
        (Payment::Mixed { first_part: 1, r#type: BTreeMap::from([(2, 3)]) }, r#"{"first-part":1,"type":{"2":3}}"#),
        (Payment::Empty {}, "{}"),
    ] {
        assert_eq!(event.payload().unwrap(), payload);
        assert_eq!(there_and_back(&event), event);
    }
    let older = Payment::decode(&message("payment.charged", br#"{"orderId":1,"total":2,"color":"ff"}"#));
    assert_eq!(older.unwrap(), charged(0));
    assert!(Payment::decode(&message("payment.refunded", br#"{"ORDER_ID":1,"more":2}"#)).is_err());
}
