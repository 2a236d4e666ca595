use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(prefix = "order", queue = "orders")]
enum OrderEvent {
    Placed { order_id: i64 },
}

fn main() {}
