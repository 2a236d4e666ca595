use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed", retry(max_attempts = 3, delay = "1s"))]
struct OrderPlaced {
    order_id: i64,
}

fn main() {}
