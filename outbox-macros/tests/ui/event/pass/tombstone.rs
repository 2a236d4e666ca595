//! Events without content, which say that the entity of their key is deleted.

use outbox_core::{
    OutboxEvent,
    event::{EncodeError, NewEvent, OutboxEvent as _, TOMBSTONE},
};
use serde::{Deserialize, Serialize};

/// No `Serialize`: there is nothing to write.
#[derive(OutboxEvent)]
#[outbox(type = "customer.forgotten", topic = "customers", tombstone)]
struct Forgotten {
    #[outbox(key)]
    customer: Option<i64>,
}

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(prefix = "product")]
enum Product {
    Listed {
        #[outbox(key)]
        sku: String,
        cents: i64,
    },
    #[outbox(tombstone)]
    Withdrawn(#[outbox(key)] String),
}

fn main() {
    for (event, event_type, key) in [
        (NewEvent::encode(&Forgotten { customer: Some(7) }).unwrap(), "customer.forgotten", "7"),
        (NewEvent::encode(&Product::Withdrawn("x".into())).unwrap(), "product.withdrawn", "x"),
    ] {
        assert_eq!((event.event_type.as_str(), event.key.as_deref()), (event_type, Some(key)));
        assert_eq!((event.payload.len(), event.headers.get(TOMBSTONE)), (0, Some("true")));
    }
    let listed = Product::Listed { sku: "x".into(), cents: 5 };
    assert_eq!(listed.payload().unwrap(), r#"{"sku":"x","cents":5}"#);
    assert_eq!(NewEvent::encode(&listed).unwrap().headers.get(TOMBSTONE), None);
    let keyless = NewEvent::encode(&Forgotten { customer: None }).unwrap_err();
    assert!(matches!(keyless, EncodeError::Envelope { field: "key", .. }), "{keyless}");
}
