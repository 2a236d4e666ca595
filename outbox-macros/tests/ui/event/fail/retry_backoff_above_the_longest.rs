use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed", retry(backoff = "10s", max_backoff = "2s"))]
struct OrderPlaced {
    order_id: i64,
}

fn main() {}
