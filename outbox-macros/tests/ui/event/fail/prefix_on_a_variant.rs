use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
enum OrderEvent {
    #[outbox(prefix = "order")]
    Placed { order_id: i64 },
}

fn main() {}
