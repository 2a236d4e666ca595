use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed")]
struct OrderPlaced {
    #[outbox(key)]
    total: Money,
}

#[derive(Serialize)]
struct Money(f64);

fn main() {}
