use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed")]
struct OrderPlaced {
    #[outbox(key = "id")]
    order_id: i64,
}

fn main() {}
