use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed", key = "order_id")]
struct OrderPlaced {
    order_id: i64,
}

fn main() {}
