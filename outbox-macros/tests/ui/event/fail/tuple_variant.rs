use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
enum OrderEvent {
    Placed(i64, String),
    Paid(),
}

fn main() {}
