//! Messages without content, which say that the entity of their key is deleted.

use crate::support::{Cx, consumer, order_of, parts, stop, write};
use outbox_core::{
    consumer::{Tombstone, UnhandledPolicy},
    event::{Message, TOMBSTONE},
    testing::MemoryStore,
    transport::Publisher,
};

fn gone(event_type: &str, key: &str) -> Message {
    let mut parts = parts(event_type, "", Some(key));
    parts.headers.insert(TOMBSTONE, "true").expect("a legal header");
    Message::new(parts)
}

#[tokio::test(start_paused = true)]
async fn a_tombstone_that_nobody_takes_is_acknowledged_and_counted_and_is_no_dead_letter() {
    let store = MemoryStore::default();
    let (consumer, publisher) = consumer(&store);
    let handle = consumer
        .on("write", write)
        .unhandled(UnhandledPolicy::DeadLetter)
        .start()
        .await
        .expect("starts");
    publisher.publish(&order_of("a", 1)).await.expect("handled");
    // Of a type that a handler takes, and of one that nobody knows.
    publisher.publish(&gone("order.placed", "a")).await.expect("acknowledged");
    publisher.publish(&gone("tombstone", "b")).await.expect("acknowledged");
    assert_eq!(
        store.rows(),
        ["write:1"],
        "the handler of the type is not given a message without content"
    );
    assert!(store.letters().is_empty(), "{:?}", store.letters());
    let stats = stop(handle).await;
    assert_eq!((stats.tombstones, stats.unknown, stats.acked, stats.dead_lettered), (2, 0, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_handler_of_tombstones_hears_each_once_with_its_key() {
    let store = MemoryStore::default();
    let (consumer, publisher) = consumer(&store);
    let forget = |gone: Tombstone, cx: &Cx| {
        cx.tx.insert(format!(
            "{} {} {}",
            gone.topic,
            gone.event_type,
            gone.key.as_deref().unwrap_or("-")
        ));
        async { Ok::<(), std::io::Error>(()) }
    };
    let handle = consumer
        .on("write", write)
        .on_tombstone("forget", forget)
        .batched(4)
        .start()
        .await
        .expect("starts");
    let first = gone("customer.forgotten", "7");
    for message in [&first, &first, &gone("tombstone", "8"), &order_of("a", 1)] {
        publisher.publish(message).await.expect("handled");
    }
    assert_eq!(store.rows(), ["orders customer.forgotten 7", "orders tombstone 8", "write:1"]);
    let stats = stop(handle).await;
    assert_eq!((stats.tombstones, stats.duplicates, stats.handled), (3, 1, 3));
}
