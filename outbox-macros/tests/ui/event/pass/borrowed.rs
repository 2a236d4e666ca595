//! Events that borrow are written without a copy; they are never read.

use outbox_core::{
    OutboxEvent,
    event::{EventContract, OutboxEvent as _},
};
use serde::Serialize;
use std::borrow::Cow;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.noted")]
struct OrderNoted<'a> {
    #[outbox(key)]
    order_id: &'a str,
    #[outbox(header = "author")]
    author: Option<&'a str>,
    note: Cow<'a, str>,
}

#[derive(Serialize, OutboxEvent)]
enum Note<'a, 'b: 'a> {
    Taken {
        #[outbox(key)]
        by: &'a str,
        text: &'b [&'a str],
    },
    Torn(#[outbox(key)] &'b str),
}

fn main() {
    let id = String::from("7");
    let event = OrderNoted { order_id: &id, author: Some("ann"), note: "late".into() };
    assert_eq!(event.meta().key.unwrap(), "7");
    assert_eq!(event.meta().headers, [("author".into(), "ann".into())]);
    assert_eq!(event.payload().unwrap(), r#"{"order_id":"7","author":"ann","note":"late"}"#);
    assert_eq!(Note::Taken { by: &id, text: &["a", "b"] }.payload().unwrap(), r#"{"by":"7","text":["a","b"]}"#);
    assert_eq!(Note::Torn(&id).payload().unwrap(), r#""7""#);
    assert_eq!(Note::TYPES.len(), 2);
}
