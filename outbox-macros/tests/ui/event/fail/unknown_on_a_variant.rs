use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
enum OrderEvent {
    #[outbox(queue = "orders")]
    Placed { order_id: i64 },
}

fn main() {}
