use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed", ttl = "40000d")]
struct OrderPlaced {
    order_id: i64,
}

fn main() {}
