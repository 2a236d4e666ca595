use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "")]
struct OrderPlaced {
    order_id: i64,
}

fn main() {
    // The stand-in keeps this from being a second fault.
    let event = OrderPlaced { order_id: 1 };
    emit(&event);
}

fn emit(_: &dyn outbox_core::event::OutboxEvent) {}
