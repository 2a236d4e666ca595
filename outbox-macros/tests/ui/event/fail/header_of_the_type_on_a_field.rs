use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed")]
struct OrderPlaced {
    #[outbox(header("tenant" = "a"))]
    tenant: String,
}

fn main() {}
