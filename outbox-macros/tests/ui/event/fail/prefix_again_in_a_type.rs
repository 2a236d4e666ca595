use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(prefix = "order")]
enum OrderEvent {
    #[outbox(type = "order.placed")]
    Placed { order_id: i64 },
}

fn main() {}
