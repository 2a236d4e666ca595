//! Instances of a consumer that end without deregistering, and what the others do then.

use crate::support::{
    AckResult, Log, OrderPlaced, Queue, order, order_of, queue, stop, until, write,
};
use outbox_core::{
    consumer::Consumer,
    event::Message,
    outbox::{DeclaredHandler, DeclaredType, InstanceStore, NewInstance},
    testing::MemoryStore,
};
use std::{sync::Arc, time::Duration};

const LEASE: Duration = Duration::from_secs(30);
/// The lease of a dead instance, the minute in which its broker notices, and until the next read.
const NOTICED: Duration = Duration::from_secs(30 + 60 + 10);

/// Leaves the row of an instance that has just been killed.
async fn killed(store: &MemoryStore, id: &str, max_in_flight: u32) {
    let id: Arc<str> = id.into();
    let row = NewInstance { id: &id, consumer: "receipts", max_in_flight, handlers: &[] };
    store.register_instance(&row, LEASE).await.expect("up");
}

async fn start(store: &MemoryStore) -> (Queue, Consumer) {
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", store).on("write", write).subscribe(subscriber);
    (queue, consumer.start().await.expect("starts"))
}

async fn send(queue: &Queue, message: &Message) {
    assert_eq!(queue.deliver(Ok(message.clone()), None).wait().await, AckResult::Ack);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_for_a_delivery_while_all_instances_are_well() {
    let store = MemoryStore::default();
    let (first, one) = start(&store).await;
    send(&first, &order(1)).await;
    // The second stores deliveries until it has seen that the first one lives.
    let (second, other) = start(&store).await;
    until(&other, |s| s.isolating).await;
    until(&other, |s| !s.isolating).await;
    for n in 2..6 {
        send(if n % 2 == 0 { &first } else { &second }, &order(n)).await;
    }
    assert_eq!((one.stats().borrow().stored, other.stats().borrow().stored), (0, 0));
    assert!(!one.stats().borrow().isolating, "the first one never was");
    let declared = DeclaredHandler {
        name: "write".into(),
        types: vec![DeclaredType { name: "order.placed".into(), version: 1 }],
        ..DeclaredHandler::default()
    };
    assert_eq!(store.declared(), [vec![declared.clone()], vec![declared]]);
    stop(one).await;
    stop(other).await;
    assert_eq!((store.declared().len(), store.rows().len()), (0, 5), "both have deregistered");
    // An instance that is started after them runs deliveries at once.
    let (third, handle) = start(&store).await;
    send(&third, &order(6)).await;
    assert_eq!(stop(handle).await.stored, 0);
}

#[tokio::test(start_paused = true)]
async fn after_a_death_deliveries_are_stored_before_they_are_run_until_as_many_as_were_in_flight_have_settled()
 {
    let store = MemoryStore::default();
    killed(&store, "dead", 3).await;
    let (queue, handle) = start(&store).await;
    let stored = || handle.stats().borrow().stored;
    send(&queue, &order(1)).await;
    assert_eq!(stored(), 1, "at once after a supervised restart");
    tokio::time::sleep(NOTICED).await;
    for n in 2..4 {
        send(&queue, &order_of("a", n)).await;
    }
    let known = order(4);
    send(&queue, &known).await;
    until(&handle, |s| s.handled == 4).await;
    // A repeat was not in flight without being done: it settles nothing, and nothing is stored of it.
    assert!(
        handle.stats().borrow().isolating,
        "what was settled before the lease ran out counts for nothing"
    );
    tokio::time::sleep(LEASE).await;
    send(&queue, &order(5)).await;
    assert_eq!((stored(), handle.stats().borrow().isolating), (4, false));
    send(&queue, &known).await;
    let stats = stop(handle).await;
    assert_eq!(
        (stats.handled, stats.duplicates, stats.dead_lettered, store.inbox_rows()),
        (5, 1, 0, 5)
    );
    assert_eq!(store.declared().len(), 0, "the dead one's row is gone");
}

#[tokio::test(start_paused = true)]
async fn a_healthy_instance_isolates_crashes_when_another_ends_and_a_repeat_settles_nothing() {
    let store = MemoryStore::default();
    let (queue, handle) = start(&store).await;
    let known = order(1);
    send(&queue, &known).await;
    killed(&store, "dead", 1).await;
    until(&handle, |s| s.isolating).await;
    tokio::time::sleep(NOTICED).await;
    send(&queue, &known).await;
    assert!(handle.stats().borrow().isolating);
    send(&queue, &order(2)).await;
    until(&handle, |s| s.handled == 2).await;
    assert!(
        handle.stats().borrow().isolating,
        "what was in flight need not be the first that comes"
    );
    tokio::time::sleep(2 * LEASE).await;
    let stats = stop(handle).await;
    assert_eq!((stats.stored, stats.duplicates, stats.isolating), (1, 1, false));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_stored_before_it_is_run_is_run_at_once_and_batches_are_stored_one_by_one() {
    let store = MemoryStore::default();
    killed(&store, "dead", 16).await;
    store.refuse_deliveries("/large");
    let (queue, subscriber) = queue();
    let log = Log::default();
    let noting = {
        let log = log.clone();
        move |order: OrderPlaced, _: &crate::support::Cx| {
            log.note(order.0.to_string());
            std::future::ready(Ok::<_, std::io::Error>(()))
        }
    };
    let consumer =
        Consumer::builder("receipts", &store).on("note", noting).subscribe(subscriber).batched(8);
    let handle = consumer.start().await.expect("starts");
    let mut large = order(1).into_parts();
    large.source = "/large".into();
    let sent = [Message::new(large), order(2), order(3)]
        .map(|message| queue.deliver(Ok(message), None).wait());
    assert_eq!(
        futures_util::future::join_all(sent).await,
        [AckResult::Ack, AckResult::Ack, AckResult::Ack]
    );
    until(&handle, |s| s.handled == 3).await;
    assert_eq!((stop(handle).await.stored, log.lines().len(), store.letters().len()), (2, 3, 0));
}
