//! Events of which this program is the writer alone need not be readable.

use outbox_core::{OutboxEvent, event::OutboxEvent as _};
use serde::Serialize;

/// No `Deserialize`: an event, but not one for handlers.
#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed")]
struct OrderPlaced {
    order_id: Id,
}

#[derive(Serialize, OutboxEvent)]
enum Payment {
    Charged { order_id: Id, by: &'static str },
}

#[derive(Serialize, OutboxEvent)]
#[outbox(encode_only)]
enum Refund {
    Made { order_id: Id },
    Refused(Id),
}

#[derive(Serialize)]
struct Id(i64);

fn main() {
    assert_eq!(OrderPlaced { order_id: Id(7) }.payload().unwrap(), r#"{"order_id":7}"#);
    assert_eq!(Payment::Charged { order_id: Id(7), by: "card" }.payload().unwrap(), r#"{"order_id":7,"by":"card"}"#);
    assert_eq!(Refund::Made { order_id: Id(7) }.payload().unwrap(), r#"{"order_id":7}"#);
    assert_eq!(Refund::Refused(Id(7)).payload().unwrap(), "7");
}
