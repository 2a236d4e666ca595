use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed")]
enum OrderEvent {
    Placed { order_id: i64 },
}

fn main() {}
