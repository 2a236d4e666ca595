//! A consumer whose effect is a row.

use super::{handlers::consumer, world::World};
use outbox_sea_orm::{consumer::Consumer, transport::Memory};

/// Starts a consumer of the world with the handler of that name, and gives a publisher to it.
pub(crate) async fn consuming(world: &World, handler: &str) -> (Memory, Consumer) {
    let (publisher, subscriber) = Memory::channel();
    let consumer = consumer(&world.outbox, handler).subscribe(subscriber);
    (publisher, consumer.start().await.unwrap())
}
