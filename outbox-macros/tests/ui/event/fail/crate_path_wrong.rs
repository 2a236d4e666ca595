use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed", crate = crate::nowhere)]
struct OrderPlaced {
    #[outbox(key)]
    order_id: i64,
}

fn main() {}
