//! Steps from older versions: between types, on JSON objects, generic ones, with any error.

use outbox_core::{
    OutboxEvent,
    event::{DecodeEvent, EventId, Message, MessageParts, NewEvent, OutboxEvent as Event, Timestamp},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::convert::Infallible;

#[derive(Debug, PartialEq, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", version = 4)]
#[outbox(upcast(3 = steps::into_today, 1 = order_placed_v1_to_v2, 2 = keep::<Map<String, Value>>))]
struct OrderPlaced {
    order_id: i64,
    cents: i64,
}

#[derive(Deserialize)]
struct OrderPlacedV1 {
    id: i64,
    euros: i64,
}

#[derive(Serialize)]
struct OrderPlacedV2 {
    order_id: i64,
    euros: i64,
}

fn order_placed_v1_to_v2(old: OrderPlacedV1) -> Result<OrderPlacedV2, Infallible> {
    Ok(OrderPlacedV2 { order_id: old.id, euros: old.euros })
}

fn keep<T>(old: T) -> Result<T, String> {
    Ok(old)
}

mod steps {
    use super::*;

    pub fn into_today(old: Value) -> Result<OrderPlaced, Box<dyn std::error::Error + Send + Sync>> {
        let field = |name: &str| old.get(name).and_then(Value::as_i64).ok_or(format!("no `{name}`"));
        Ok(OrderPlaced { order_id: field("order_id")?, cents: field("euros")? * 100 })
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize, OutboxEvent)]
#[outbox(version = 2)]
enum Payment {
    #[outbox(upcast(1 = |old: i64| Ok::<_, Infallible>(old * 100)))]
    Charged(i64),
    #[outbox(version = 1)]
    Paused,
}

fn message(like: &dyn Event, version: u16, payload: &str) -> Message {
    let new = NewEvent::encode(like).unwrap();
    Message::new(MessageParts {
        id: new.message_id,
        sequence: Some(EventId(1)),
        source: "/test".to_owned(),
        event_type: new.event_type,
        event_version: version,
        topic: new.topic,
        aggregate_type: None,
        key: None,
        content_type: new.content_type,
        payload: payload.as_bytes().to_vec().into(),
        headers: new.headers,
        created_at: Timestamp::from_micros(1),
        expires_at: None,
        retry: None,
    })
}

fn main() {
    let today = OrderPlaced { order_id: 7, cents: 1200 };
    for (version, payload) in [
        (1, r#"{"id":7,"euros":12}"#),
        (2, r#"{"order_id":7,"euros":12}"#),
        (3, r#"{"euros":12,"order_id":7}"#),
        (4, r#"{"order_id":7,"cents":1200}"#),
    ] {
        assert_eq!(OrderPlaced::decode(&message(&today, version, payload)).unwrap(), today);
    }
    assert!(OrderPlaced::decode(&message(&today, 5, "{}")).is_err());
    assert_eq!(Payment::decode(&message(&Payment::Charged(1), 1, "12")).unwrap(), Payment::Charged(1200));
    assert_eq!(Payment::decode(&message(&Payment::Paused, 1, "{}")).unwrap(), Payment::Paused);
}
