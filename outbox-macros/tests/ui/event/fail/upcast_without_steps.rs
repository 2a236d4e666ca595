use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed", version = 2, upcast)]
struct OrderPlaced {
    order_id: i64,
}

fn main() {}
