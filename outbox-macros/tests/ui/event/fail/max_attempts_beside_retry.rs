use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed", retry(max_attempts = 3), max_attempts = 5)]
struct OrderPlaced {
    order_id: i64,
}

fn main() {}
