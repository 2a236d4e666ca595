use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
enum OrderEvent {
    Placed { order_id: i64 },
    #[outbox(type = "placed")]
    PlacedAgain { order_id: i64 },
}

fn main() {}
