use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed", version = 2, upcast(1 = v1_to_v2, 1 = v1_to_v2))]
struct OrderPlaced {
    order_id: i64,
}

fn v1_to_v2(old: serde_json::Value) -> Result<serde_json::Value, std::convert::Infallible> {
    Ok(old)
}

fn main() {}
