//! Type parameters need what the fields need, and nothing where serde asks for nothing.

use outbox_core::{
    OutboxEvent,
    event::{DecodeEvent, KeyPart, OutboxEvent as _},
};
use serde::{Deserialize, Serialize};
use std::{fmt::Debug, marker::PhantomData};

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "thing.changed")]
struct Changed<K, T = String>
where
    T: Clone,
{
    #[outbox(key)]
    id: K,
    thing: Vec<T>,
}

#[derive(Serialize, Deserialize, OutboxEvent)]
enum Thing<K: Debug, T, const N: usize> {
    Made {
        #[outbox(key)]
        id: Option<K>,
        #[serde(default)]
        thing: Box<T>,
        #[serde(skip)]
        kind: PhantomData<fn() -> [u8; N]>,
    },
    Lost(#[outbox(key)] K),
}

trait Shop {
    type Id: KeyPart + Serialize + for<'de> Deserialize<'de> + Send + Sync;
}

#[derive(Serialize, Deserialize)]
struct Web;

impl Shop for Web {
    type Id = u32;
}

/// Bounds on an associated type, which only the field's type says.
#[derive(OutboxEvent)]
enum Sold<S: Shop> {
    Once(#[outbox(key)] S::Id),
}

fn is_event<E: outbox_core::event::OutboxEvent + DecodeEvent>(_: &E) {}

fn main() {
    let changed: Changed<i64> = Changed { id: 7, thing: vec!["a".to_owned()] };
    assert_eq!(changed.meta().key.unwrap(), "7");
    assert_eq!(changed.payload().unwrap(), r#"{"id":7,"thing":["a"]}"#);
    is_event(&changed);

    let made: Thing<u8, u16, 3> = Thing::Made { id: None, thing: Box::new(5), kind: PhantomData };
    assert_eq!(made.meta().key, None);
    assert_eq!(made.payload().unwrap(), r#"{"id":null,"thing":5}"#);
    is_event(&made);

    let lost: Thing<u8, u16, 3> = Thing::Lost(4);
    assert_eq!(lost.payload().unwrap(), "4");

    let sold = Sold::<Web>::Once(9);
    assert_eq!(sold.payload().unwrap(), "9");
    is_event(&sold);
}
