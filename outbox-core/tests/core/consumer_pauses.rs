//! A consumer that an operator pauses, and what it tells the operator of itself.

use crate::support::{AckResult, Cx, OrderPlaced, order, queue, stop, until, until_seen, write};
use outbox_core::{
    admin::{ConsumerLive, ControlAction, ControlScope, ControlStore, Live, OperatorNote},
    consumer::Consumer,
    failure::RetryPolicy,
    runtime::now,
    testing::MemoryStore,
};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::timeout};

const SECOND: Duration = Duration::from_secs(1);

fn ann() -> OperatorNote {
    OperatorNote::new("ann", "the bank is down")
}

async fn pause(store: &MemoryStore, consumer: &str, lasts: Option<Duration>) {
    let (scope, pause) = (ControlScope::Consumer, ControlAction::Pause);
    store.set_control(scope, consumer, pause, lasts, &ann()).await.expect("up");
}

async fn resume(store: &MemoryStore) {
    let ended = store.end_controls(ControlScope::Consumer, "receipts", &ann()).await;
    assert_eq!(ended.expect("up"), 1);
}

/// Gives the live row of the one consumer.
fn live(store: &MemoryStore) -> Option<ConsumerLive> {
    match store.live_rows().as_slice() {
        [] => None,
        [Live::Consumer(row)] => Some(row.clone()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_in_hand_ends_and_what_waits_stays_or_is_returned_before_its_sender_gives_up() {
    let (store, gate) = (MemoryStore::default(), Arc::new(Semaphore::new(0)));
    let permits = gate.clone();
    let gated = move |order: OrderPlaced, cx: &Cx| {
        cx.tx.insert(format!("order {}", order.0));
        let permits = permits.clone();
        async move { permits.acquire().await.map(tokio::sync::SemaphorePermit::forget) }
    };
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store).on("gated", gated).subscribe(subscriber);
    let handle = consumer.concurrency(1).start().await.expect("starts");
    let in_hand = queue.deliver(Ok(order(0)), None).wait();
    let mut waits = pin!(queue.deliver(Ok(order(1)), None).wait());
    let awaited = queue.deliver_awaited(order(2), 8 * SECOND).wait();
    until(&handle, |s| s.received == 3 && s.in_flight == 1).await;
    pause(&store, "another", None).await;
    pause(&store, "receipts", None).await;
    until(&handle, |s| s.paused).await;
    let mut later = pin!(queue.deliver(Ok(order(3)), None).wait());
    gate.add_permits(1);
    assert_eq!(in_hand.await, AckResult::Ack);
    let begun = now();
    assert_eq!(awaited.await, AckResult::Nack);
    assert!(now().duration_since(begun) <= 8 * SECOND, "while its sender waits");
    assert!(timeout(3_600 * SECOND, &mut waits).await.is_err(), "it stays");
    assert!(timeout(3_600 * SECOND, &mut later).await.is_err());
    let stats = *handle.stats().borrow();
    assert_eq!((stats.received, stats.late, stats.retried, stats.in_flight), (3, 1, 0, 0));
    assert_eq!(store.rows(), ["order 0"]);

    resume(&store).await;
    gate.add_permits(2);
    assert_eq!((waits.await, later.await), (AckResult::Ack, AckResult::Ack));
    assert_eq!(store.rows(), ["order 0", "order 1", "order 3"]);
    let stats = stop(handle).await;
    assert!(!stats.paused && stats.retried == 0 && stats.dead_lettered == 0, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_starts_under_a_pause_starts_nothing_until_it_ends_by_itself() {
    let store = MemoryStore::default();
    pause(&store, "receipts", Some(60 * SECOND)).await;
    let begun = now();
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store).on("write", write).subscribe(subscriber);
    let handle = consumer.start().await.expect("starts");
    assert_eq!(queue.deliver(Ok(order(1)), None).wait().await, AckResult::Ack);
    assert_eq!(now().duration_since(begun).as_secs(), 60);
    stop(handle).await;
}

#[tokio::test(start_paused = true)]
async fn a_stored_delivery_is_not_claimed_while_its_consumer_is_paused() {
    let store = MemoryStore::default();
    let fails_once = {
        let failed = Arc::new(Semaphore::new(1));
        move |order: OrderPlaced, cx: &Cx| {
            cx.tx.insert(format!("order {}", order.0));
            let fails = failed.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_ok();
            async move { if fails { Err(std::io::Error::other("the bank is down")) } else { Ok(()) } }
        }
    };
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store).on("fails", fails_once);
    let consumer = consumer.subscribe(subscriber).max_unacked_time(Duration::ZERO);
    let consumer = consumer.retry(RetryPolicy::attempts(5, 30 * SECOND));
    let handle = consumer.start().await.expect("starts");
    assert_eq!(queue.deliver(Ok(order(1)), None).wait().await, AckResult::Ack, "it is stored");
    pause(&store, "receipts", None).await;
    until(&handle, |s| s.paused).await;
    let failed = |row: &Option<ConsumerLive>| {
        row.as_ref().is_some_and(|row| row.paused && row.failed == 1 && row.handled == 0)
    };
    until_seen("its live row says so", || live(&store), failed).await;
    let failure = live(&store).and_then(|row| row.last_failure).expect("it has failed");
    assert!(failure.text.contains("the bank is down"), "{failure:?}");
    tokio::time::sleep(3_600 * SECOND).await;
    assert_eq!((store.stored_deliveries(), store.rows().len()), (1, 0), "it is due, and waits");

    resume(&store).await;
    until(&handle, |s| s.handled == 1).await;
    let handled = |row: &Option<ConsumerLive>| {
        row.as_ref().is_some_and(|row| row.handled == 1 && row.last_failure.is_none())
    };
    until_seen("its live row says so", || live(&store), handled).await;
    assert_eq!(live(&store).map(|row| row.handlers), Some(vec!["fails".to_owned()]));
    stop(handle).await;
    assert_eq!(live(&store), None, "a consumer that ends deletes its row");
}
