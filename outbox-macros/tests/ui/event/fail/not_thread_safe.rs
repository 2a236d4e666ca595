use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed")]
struct OrderPlaced {
    order_id: std::cell::Cell<i64>,
}

fn main() {}
