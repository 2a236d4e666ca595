//! The framework under another path.

mod framework {
    pub mod outbox {
        pub use outbox_core::__private;
    }
}

use outbox_core::event::OutboxEvent as _;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, outbox_core::OutboxEvent)]
#[outbox(type = "order.placed", crate = crate::framework::outbox)]
struct OrderPlaced(i64);

#[derive(Serialize, Deserialize, outbox_core::OutboxEvent)]
#[outbox(crate = framework::outbox)]
enum Payment {
    Charged(i64),
}

#[derive(Serialize, Deserialize, outbox_core::OutboxEvent)]
#[outbox(type = "order.lost", crate = ::outbox_core)]
struct OrderLost;

fn main() {
    assert_eq!(OrderPlaced(1).payload().unwrap(), "1");
    assert_eq!(Payment::Charged(2).payload().unwrap(), "2");
    assert_eq!(OrderLost.payload().unwrap(), "null");
}
