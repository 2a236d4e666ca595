//! The payload of a struct is what serde makes of it, whatever its form.

use outbox_core::{OutboxEvent, event::OutboxEvent as _};
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "door.opened", no_key)]
struct DoorOpened;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "door.closed")]
struct DoorClosed(#[outbox(key)] u8);

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "door.moved")]
struct DoorMoved(f32, #[outbox(key, header = "door")] char);

fn main() {
    assert_eq!(DoorOpened.payload().unwrap(), "null");
    assert_eq!(DoorOpened.meta().key, None);
    assert_eq!(DoorClosed(3).payload().unwrap(), "3");
    assert_eq!(DoorClosed(3).meta().key.unwrap(), "3");
    assert_eq!(DoorMoved(0.5, 'x').payload().unwrap(), r#"[0.5,"x"]"#);
    assert_eq!(DoorMoved(0.5, 'x').meta().headers, [("door".into(), "x".into())]);
}
