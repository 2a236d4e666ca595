use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
enum OrderEvent {
    Placed {
        #[outbox(key)]
        order_id: i64,
    },
    Paused,
    Resumed { by: String },
}

fn main() {}
