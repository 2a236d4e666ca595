//! Every attribute of a struct and its fields, in one `#[outbox(..)]` or in several.

use outbox_core::{
    OutboxEvent,
    event::{EventContract, EventMeta, EventType, OutboxEvent as _},
    failure::RetryPolicy,
};
use serde::Serialize;
use std::time::Duration;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed", version = 2, topic = "orders", aggregate = "order", ttl = "7d")]
#[outbox(header("origin" = "shop", "zone" = "eu"), header("team" = "sales"))]
#[outbox(retry(max_attempts = 3, backoff = "1s", factor = 2, max_backoff = "2s",),)]
struct OrderPlaced {
    #[outbox(key)]
    #[outbox(header = "order")]
    order_id: i64,
    #[outbox(header = "tenant")]
    tenant: Option<String>,
}

fn main() {
    let meta = EventMeta::new("order.placed")
        .version(2)
        .topic("orders")
        .aggregate("order")
        .key(Some("7"))
        .header("origin", Some("shop"))
        .header("zone", Some("eu"))
        .header("team", Some("sales"))
        .header("order", Some("7"))
        .ttl(Duration::from_secs(7 * 24 * 60 * 60))
        .retry(
            RetryPolicy::default()
                .max_attempts(3)
                .backoff(Duration::from_secs(1))
                .factor(2.0)
                .max_backoff(Duration::from_secs(2)),
        );
    // A header without a value is left out.
    assert_eq!(OrderPlaced { order_id: 7, tenant: None }.meta(), meta);
    let tenant = Some("acme".to_owned());
    assert_eq!(OrderPlaced { order_id: 7, tenant }.meta(), meta.header("tenant", Some("acme")));
    assert_eq!(OrderPlaced::TYPES, [EventType { name: "order.placed", version: 2, topic: "orders" }]);
}
