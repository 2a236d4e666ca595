//! Events inside functions and macros, recursive ones, raw names, names that the expansion might use itself.

use outbox_core::event::{DecodeEvent, OutboxEvent};
use serde::{Deserialize, Serialize};

macro_rules! event {
    ($name:ident, $wire:literal, $key:ty) => {
        #[derive(Serialize, Deserialize, outbox_core::OutboxEvent)]
        #[outbox(type = $wire)]
        pub struct $name {
            #[outbox(key)]
            pub id: $key,
        }
    };
}
event!(FromMacro, "from.macro", Option<String>);

macro_rules! events {
    ($name:ident { $($variant:ident($content:ty)),* }) => {
        #[derive(Serialize, Deserialize, outbox_core::OutboxEvent)]
        pub enum $name { $($variant($content)),* }
    };
}
events!(Many { One(Vec<u8>), Two(Option<Box<Many>>) });

#[derive(Debug, PartialEq, Serialize, Deserialize, outbox_core::OutboxEvent)]
enum Tree {
    Node { children: Vec<Self>, r#type: Option<Box<Tree>> },
    Leaf(Box<Self>),
    r#End,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, outbox_core::OutboxEvent)]
#[expect(non_camel_case_types, reason = "raw names")]
enum r#struct {
    r#fn { r#match: u8 },
}

struct Result;
struct Option_;
type Value = u8;

#[derive(Serialize, Deserialize, outbox_core::OutboxEvent)]
#[outbox(type = "shadows")]
struct Shadows {
    message: Value,
    out: Value,
    content: Value,
}

fn is_event(event: &dyn OutboxEvent, payload: &str) {
    assert_eq!(event.payload().unwrap(), payload);
}

fn is_read<E: DecodeEvent>() {}

fn main() {
    #[derive(Serialize, Deserialize)]
    struct Inner(u8);

    #[derive(Serialize, Deserialize, outbox_core::OutboxEvent)]
    #[serde(tag = "kind")]
    enum Local {
        A { inner: Inner },
    }

    let _ = (Result, Option_);
    is_event(&FromMacro { id: None }, r#"{"id":null}"#);
    is_event(&Many::Two(Some(Box::new(Many::One(vec![1])))), r#"{"One":[1]}"#);
    is_event(&Tree::Leaf(Box::new(Tree::End)), r#""End""#);
    is_event(&Tree::Node { children: vec![], r#type: None }, r#"{"children":[],"type":null}"#);
    is_event(&r#struct::r#fn { r#match: 1 }, r#"{"match":1}"#);
    assert_eq!(r#struct::r#fn { r#match: 1 }.meta().event_type, "struct.fn");
    is_event(&Shadows { message: 1, out: 2, content: 3 }, r#"{"message":1,"out":2,"content":3}"#);
    is_event(&Local::A { inner: Inner(1) }, r#"{"inner":1}"#);
    is_read::<FromMacro>();
    is_read::<Many>();
    is_read::<Tree>();
    is_read::<r#struct>();
    is_read::<Local>();
}
