//! Without further attributes: version 1, the type as topic, no key, no headers.

use outbox_core::{
    OutboxEvent,
    event::{EventContract, EventMeta, EventType, OutboxEvent as _},
};
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed")]
struct OrderPlaced {
    order_id: i64,
}

#[derive(Serialize, OutboxEvent)]
enum CardPayment {
    Charged { amount: i64 },
    CardDeclined(String),
    Paused,
}

fn main() {
    let event = OrderPlaced { order_id: 7 };
    assert_eq!(event.meta(), EventMeta::new("order.placed"));
    assert_eq!(event.payload().unwrap(), r#"{"order_id":7}"#);
    assert_eq!(OrderPlaced::TYPES, [EventType { name: "order.placed", version: 1, topic: "order.placed" }]);

    for (event, name, payload) in [
        (CardPayment::Charged { amount: 1 }, "card_payment.charged", r#"{"amount":1}"#),
        (CardPayment::CardDeclined("stolen".to_owned()), "card_payment.card_declined", r#""stolen""#),
        (CardPayment::Paused, "card_payment.paused", "{}"),
    ] {
        assert_eq!(event.meta(), EventMeta::new(name));
        assert_eq!(event.payload().unwrap(), payload);
        assert!(CardPayment::TYPES.contains(&EventType { name, version: 1, topic: name }));
    }
    assert_eq!(CardPayment::TYPES.len(), 3);
}
