use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed", header("tenant" = "a"))]
struct OrderPlaced {
    #[outbox(header = "tenant")]
    tenant: String,
}

fn main() {}
