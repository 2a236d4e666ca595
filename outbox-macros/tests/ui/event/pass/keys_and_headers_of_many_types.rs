//! Fields with a text form, of the language and of the user.

use outbox_core::{
    OutboxEvent,
    event::{KeyPart, OutboxEvent as _},
};
use serde::Serialize;
use std::borrow::Cow;

#[derive(Serialize)]
struct OrderId(i64);

impl KeyPart for OrderId {
    fn key_part(&self) -> Option<Cow<'_, str>> {
        self.0.key_part()
    }
}

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed")]
struct OrderPlaced {
    #[outbox(key)]
    id: OrderId,
    #[outbox(header = "a")]
    text: Box<str>,
    #[outbox(header = "b")]
    yes: bool,
    #[outbox(header = "c")]
    sign: char,
    #[outbox(header = "d")]
    big: u128,
    #[outbox(header = "e")]
    small: Option<i8>,
    #[outbox(header = "f")]
    none: Option<Option<String>>,
    #[outbox(header = "g")]
    text_or_not: Cow<'static, str>,
}

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.seen")]
struct OrderSeen(#[outbox(key)] Option<Box<OrderSeenId>>);

#[derive(Serialize)]
struct OrderSeenId;

impl KeyPart for OrderSeenId {
    fn key_part(&self) -> Option<Cow<'_, str>> {
        Some("seen".into())
    }
}

fn main() {
    let event = OrderPlaced {
        id: OrderId(-7),
        text: "t".into(),
        yes: true,
        sign: 'ß',
        big: u128::MAX,
        small: Some(-1),
        none: Some(None),
        text_or_not: "g".into(),
    };
    let meta = event.meta();
    assert_eq!(meta.key.unwrap(), "-7");
    let headers: Vec<_> = meta.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(headers, ["a=t", "b=true", "c=ß", "d=340282366920938463463374607431768211455", "e=-1", "g=g"]);
    assert_eq!(OrderSeen(None).meta().key, None);
}
