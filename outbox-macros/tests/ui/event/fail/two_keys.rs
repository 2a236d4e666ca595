use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed")]
struct OrderPlaced {
    #[outbox(key)]
    id: i64,
    #[outbox(key)]
    customer: String,
}

fn main() {}
