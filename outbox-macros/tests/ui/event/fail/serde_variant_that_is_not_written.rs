use outbox_core::OutboxEvent;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, OutboxEvent)]
enum Payment {
    Charged {
        order_id: i64,
    },
    #[serde(skip)]
    Internal {
        card: String,
    },
    #[serde(skip_serializing)]
    Unwritten,
    #[serde(skip_deserializing)]
    Unread,
    #[serde(other)]
    Unknown,
}

fn main() {}
