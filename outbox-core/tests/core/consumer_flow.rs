//! How a consumer's deliveries flow: order, bounds, the store's absence, shutdown.

use crate::support::{
    AckResult, Cx, Log, OrderPlaced, QueueSubscriber, consumer, order, order_of, queue, stop,
    until, write,
};
use futures_util::future::{BoxFuture, join_all};
use outbox_core::{
    consumer::{Consumer, ConsumerError},
    failure::RetryPolicy,
    runtime::SupervisorError,
    testing::MemoryStore,
    transport::{Delivery, Memory, Publisher, SubscribeError, Subscriber},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

#[tokio::test(start_paused = true)]
async fn deliveries_of_a_key_are_handled_in_order_and_other_keys_beside_them() {
    let (store, log) = (MemoryStore::default(), Log::default());
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let slow = {
        let (log, running, most) = (log.clone(), running.clone(), most.clone());
        move |order: OrderPlaced, cx: &Cx| {
            let (log, running, most) = (log.clone(), running.clone(), most.clone());
            let key = cx.message().key.clone().unwrap_or_default();
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                log.note(format!("{key} begins {}", order.0));
                // The later, the shorter: without order the last would end first.
                tokio::time::sleep(Duration::from_millis(100 - order.0)).await;
                log.note(format!("{key} ends {}", order.0));
                running.fetch_sub(1, Ordering::Relaxed);
                Ok::<_, std::io::Error>(())
            }
        }
    };
    let (queue, subscriber) = queue();
    let consumer =
        Consumer::builder("receipts", &store).on("slow", slow).subscribe(subscriber).concurrency(4);
    let handle = consumer.start().await.expect("starts");
    let keys = ["a", "b", "c", "d", "e", "f"];
    let answers: Vec<_> = (0..10)
        .flat_map(|n| keys.map(|key| queue.deliver(Ok(order_of(key, n)), None).wait()))
        .collect();
    assert!(join_all(answers).await.iter().all(|a| *a == AckResult::Ack));
    stop(handle).await;
    assert_eq!(most.load(Ordering::Relaxed), 4);
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in log.lines() {
        let (key, what) = line.split_once(' ').expect("a key");
        by_key.entry(key.to_owned()).or_default().push(what.to_owned());
    }
    let expected: Vec<String> =
        (0..10).flat_map(|n| [format!("begins {n}"), format!("ends {n}")]).collect();
    assert_eq!(by_key.len(), keys.len());
    for (key, lines) in by_key {
        assert_eq!(lines, expected, "key {key}");
    }
}

/// A handler that begins, waits for a permit, and writes.
fn gated(
    gate: Arc<Semaphore>,
) -> impl Fn(OrderPlaced, &Cx) -> futures_util::future::BoxFuture<'_, Result<(), String>> {
    move |order, cx| {
        let gate = gate.clone();
        Box::pin(async move {
            cx.tx.insert(format!("first half of {}", order.0));
            gate.acquire().await.map_err(|e| e.to_string())?.forget();
            cx.tx.insert(format!("second half of {}", order.0));
            Ok(())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_returned_delivery_of_its_key_is_returned_with_it() {
    let (store, gate) = (MemoryStore::default(), Arc::new(Semaphore::new(0)));
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store)
        .on("gated", gated(gate.clone()))
        .subscribe(subscriber);
    let handle = consumer.start().await.expect("starts");
    let answers: Vec<_> =
        (0..3).map(|n| queue.deliver(Ok(order_of("a", n)), None).wait()).collect();
    until(&handle, |s| s.received == 3).await;
    store.lose_commit_results(1);
    gate.add_permits(3);
    until(&handle, |s| s.disturbed == 1).await;
    store.set_down(true);
    assert_eq!(join_all(answers).await, [AckResult::Nack, AckResult::Nack, AckResult::Nack]);
    store.set_down(false);
    assert_eq!(store.rows().len(), 2, "the others would have overtaken, had it not been done");
    assert_eq!(stop(handle).await.returned, 3);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_stuck_leaves_places_to_the_others_and_keeps_its_order() {
    let (store, log, gate) = (MemoryStore::default(), Log::default(), Arc::new(Semaphore::new(0)));
    let sticking = {
        let (log, gate) = (log.clone(), gate.clone());
        move |order: OrderPlaced, cx: &Cx| {
            let key = cx.message().key.clone().unwrap_or_default();
            let (log, gate, sticks) = (log.clone(), gate.clone(), key == "stuck" && order.0 == 0);
            async move {
                if sticks {
                    gate.acquire().await.map_err(|e| e.to_string())?.forget();
                }
                log.note(format!("{key} {}", order.0));
                Ok::<_, String>(())
            }
        }
    };
    let (queue, subscriber) = queue();
    let consumer =
        Consumer::builder("receipts", &store).on("stick", sticking).subscribe(subscriber);
    let handle = consumer.concurrency(2).prefetch(8).start().await.expect("starts");
    // More than there are places, among others.
    let mut sent = Vec::new();
    for n in 0..20 {
        sent.push(("stuck", queue.deliver(Ok(order_of("stuck", n)), None)));
        sent.push(("free", queue.deliver(Ok(order_of("free", n)), None)));
    }
    let (stuck, free): (Vec<_>, Vec<_>) = sent.into_iter().partition(|(key, _)| *key == "stuck");
    for (_, answer) in free {
        assert_eq!(
            tokio::time::timeout(Duration::from_secs(5), answer.wait()).await,
            Ok(AckResult::Ack)
        );
    }
    assert_eq!(handle.stats().borrow().overdue, 0);
    until(&handle, |s| s.overdue == 1).await;
    gate.add_permits(1);
    for (_, answer) in stuck {
        assert_eq!(answer.wait().await, AckResult::Ack);
    }
    let of_stuck: Vec<String> =
        log.lines().into_iter().filter(|line| line.starts_with("stuck")).collect();
    assert_eq!(of_stuck, (0..20).map(|n| format!("stuck {n}")).collect::<Vec<_>>());
    let stats = stop(handle).await;
    assert_eq!((stats.handled, stats.returned, stats.overdue), (40, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn of_a_key_that_is_stuck_a_sender_that_waits_for_answers_gets_the_rest_back() {
    let (store, gate) = (MemoryStore::default(), Arc::new(Semaphore::new(0)));
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store)
        .on("gated", gated(gate.clone()))
        .subscribe(subscriber);
    let handle =
        consumer.concurrency(2).prefetch(8).prefetch_per_key(3).start().await.expect("starts");
    let answers: Vec<_> =
        (0..6).map(|n| queue.deliver_from_a_sender(order_of("a", n)).wait()).collect();
    until(&handle, |s| s.received == 6 && s.returned == 2).await;
    gate.add_permits(4);
    let answers = join_all(answers).await;
    assert_eq!(
        answers[..4],
        [AckResult::Ack, AckResult::Ack, AckResult::Ack, AckResult::Ack],
        "one in hand, three behind it"
    );
    assert_eq!(answers[4..], [AckResult::Nack, AckResult::Nack]);
    stop(handle).await;
}

/// A handler that takes so long, and notes when it began.
fn slow(
    log: &Log,
    takes: Duration,
) -> impl Fn(OrderPlaced, &Cx) -> BoxFuture<'_, Result<(), String>> + use<> {
    let log = log.clone();
    let begun = tokio::time::Instant::now();
    move |order, _| {
        log.note(format!("{} at {} s", order.0, begun.elapsed().as_secs()));
        Box::pin(async move {
            tokio::time::sleep(takes).await;
            Ok(())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_answered_while_its_sender_waits_is_returned_in_time_and_not_begun() {
    let (store, log) = (MemoryStore::default(), Log::default());
    let (queue, subscriber) = queue();
    let handler = slow(&log, Duration::from_secs(3));
    let consumer = Consumer::builder("receipts", &store)
        .on("slow", handler)
        .subscribe(subscriber)
        .concurrency(1);
    let handle = consumer.prefetch(20).start().await.expect("starts");
    let begun = tokio::time::Instant::now();
    let answers = (0..6).map(|n| {
        let answer = queue.deliver_awaited(order(n), Duration::from_secs(8));
        async move { (answer.wait().await, begun.elapsed().as_secs()) }
    });
    let answers = join_all(answers).await;
    // Of the third on it is known at the end of the first, 3 s after the beginning, that they would be answered too late.
    let late = (AckResult::Nack, 5);
    let expected =
        [(AckResult::Ack, 3), (AckResult::Ack, 6), late.clone(), late.clone(), late.clone(), late];
    assert_eq!(answers, expected, "what is begun by 5 s is answered by 8 s");
    assert_eq!(log.lines(), ["0 at 0 s", "1 at 3 s"]);
    let stats = stop(handle).await;
    assert_eq!((stats.received, stats.handled, stats.late, stats.returned), (6, 2, 4, 4));
}

#[tokio::test(start_paused = true)]
async fn what_its_sender_has_given_up_is_not_begun_and_what_takes_longer_than_senders_wait_is() {
    let (store, log) = (MemoryStore::default(), Log::default());
    let (queue, subscriber) = queue();
    let handler = slow(&log, Duration::from_secs(60));
    let consumer = Consumer::builder("receipts", &store)
        .on("slow", handler)
        .subscribe(subscriber)
        .concurrency(1);
    let handle = consumer.prefetch(20).start().await.expect("starts");
    let first = queue.deliver_awaited(order(0), Duration::from_secs(8));
    let given_up = queue.deliver_from_a_sender(order(1));
    until(&handle, |s| s.received == 2).await;
    drop(given_up);
    assert_eq!(first.wait().await, AckResult::Ack, "it is started, though its sender may not wait");
    assert_eq!(
        queue.deliver_awaited(order(2), Duration::from_secs(8)).wait().await,
        AckResult::Ack
    );
    assert_eq!(log.lines(), ["0 at 0 s", "2 at 60 s"]);
    assert_eq!(stop(handle).await.late, 1);
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_running_handlers_and_returns_what_has_not_begun() {
    let (store, gate) = (MemoryStore::default(), Arc::new(Semaphore::new(0)));
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store)
        .on("gated", gated(gate.clone()))
        .subscribe(subscriber);
    let handle = consumer.concurrency(2).start().await.expect("starts");
    let answers: Vec<_> = (0..6).map(|n| queue.deliver(Ok(order(n)), None).wait()).collect();
    until(&handle, |s| s.in_flight == 2 && s.received == 6).await;
    let stats = handle.stats();
    let opener = async {
        stats.clone().wait_for(|s| s.returned == 4).await.expect("runs");
        gate.add_permits(2);
    };
    let (stopped, ()) = tokio::join!(handle.shutdown(Duration::from_secs(30)), opener);
    stopped.expect("in time");
    let answers = join_all(answers).await;
    assert_eq!(answers.iter().filter(|a| **a == AckResult::Ack).count(), 2);
    assert_eq!(answers.iter().filter(|a| **a == AckResult::Nack).count(), 4);
    assert_eq!((store.rows().len(), store.inbox_rows(), store.open_transactions()), (4, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_running_handlers_are_dropped_with_nothing_half_done() {
    let (store, gate) = (MemoryStore::default(), Arc::new(Semaphore::new(0)));
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store)
        .on("gated", gated(gate.clone()))
        .subscribe(subscriber);
    let handle = consumer.start().await.expect("starts");
    let answer = queue.deliver(Ok(order(1)), None).wait();
    until(&handle, |s| s.in_flight == 1).await;
    let begun = tokio::time::Instant::now();
    let outcome = handle.shutdown(Duration::from_secs(5)).await;
    assert!(
        matches!(outcome, Err(ConsumerError::Stopped(SupervisorError::Deadline { .. }))),
        "{outcome:?}"
    );
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!(answer.await, AckResult::Dropped);
    assert_eq!((store.rows().len(), store.inbox_rows(), store.open_transactions()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_retries() {
    let store = MemoryStore::default();
    let failing = |_: OrderPlaced, _: &Cx| async { Err::<(), _>("down") };
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store).on("fail", failing).subscribe(subscriber);
    let endless = RetryPolicy::default()
        .endless()
        .backoff(Duration::from_hours(1))
        .max_backoff(Duration::from_hours(1));
    let handle = consumer
        .retry(endless)
        .max_unacked_time(Duration::from_hours(2))
        .start()
        .await
        .expect("starts");
    let answer = queue.deliver(Ok(order(1)), None).wait();
    until(&handle, |s| s.in_flight == 1).await;
    handle.shutdown(Duration::from_secs(1)).await.expect("in time");
    assert_eq!(answer.await, AckResult::Nack);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_burns_no_attempt_and_is_waited_for() {
    let (store, log, gate) = (MemoryStore::default(), Log::default(), Arc::new(Semaphore::new(0)));
    let noting = {
        let (log, gate) = (log.clone(), gate.clone());
        move |order: OrderPlaced, cx: &Cx| {
            log.note(format!("order {} attempt {}", order.0, cx.attempt()));
            cx.tx.insert("done");
            let gate = gate.clone();
            async move { gate.acquire().await.map(drop).map_err(|e| e.to_string()) }
        }
    };
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store)
        .on("note", noting)
        .subscribe(subscriber)
        .concurrency(1);
    let handle = consumer.start().await.expect("starts");
    let answers: Vec<_> = (0..3).map(|n| queue.deliver(Ok(order(n)), None).wait()).collect();
    until(&handle, |s| s.in_flight == 1 && s.received == 3).await;
    store.set_down(true);
    gate.add_permits(1);
    assert_eq!(
        join_all(answers).await,
        [AckResult::Nack, AckResult::Nack, AckResult::Nack],
        "others may do better"
    );
    until(&handle, |s| s.store_down).await;
    let waiting = queue.deliver(Ok(order(9)), Some(2)).wait();
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(handle.stats().borrow().store_down);
    assert_eq!(handle.stats().borrow().received, 3, "nothing is taken while the store is down");
    store.set_down(false);
    assert_eq!(waiting.await, AckResult::Ack);
    assert_eq!(log.lines(), ["order 0 attempt 1", "order 9 attempt 1"]);
    assert_eq!(store.rows(), ["done"]);
    let stats = stop(handle).await;
    assert_eq!((stats.retried, stats.returned, stats.handled, stats.store_down), (0, 3, 1, false));
}

#[tokio::test(start_paused = true)]
async fn a_broken_subscription_is_tried_again() {
    let store = MemoryStore::default();
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store).on("write", write).subscribe(subscriber);
    let handle = consumer.start().await.expect("starts");
    for _ in 0..20 {
        queue.break_connection();
    }
    assert_eq!(queue.deliver(Ok(order(1)), None).wait().await, AckResult::Ack);
    drop(queue);
    let exits = handle.exits();
    handle.finished().await.expect("it ends by itself when the subscriber is closed");
    assert_eq!(exits.borrow().failed + exits.borrow().panicked, 0);
}

#[tokio::test]
async fn several_subscribers_feed_one_consumer_which_ends_with_the_last() {
    let store = MemoryStore::default();
    let (first, publisher) = consumer(&store);
    let (other_publisher, other) = Memory::channel();
    let handle = first.on("write", write).subscribe(other).start().await.expect("starts");
    publisher.publish(&order(1)).await.expect("handled");
    drop(publisher);
    other_publisher.publish(&order(2)).await.expect("handled");
    drop(other_publisher);
    handle.finished().await.expect("ends well");
    assert_eq!(store.rows(), ["write:1", "write:2"]);
}

/// Panics at its first call.
struct Stumbling(QueueSubscriber, bool);

#[async_trait::async_trait]
impl Subscriber for Stumbling {
    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        assert!(std::mem::replace(&mut self.1, true), "a broken parser");
        self.0.next().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_is_called_again() {
    let store = MemoryStore::default();
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store)
        .on("write", write)
        .subscribe(Stumbling(subscriber, false));
    let handle = consumer.start().await.expect("starts");
    assert_eq!(queue.deliver(Ok(order(1)), None).wait().await, AckResult::Ack);
    assert_eq!((handle.exits().borrow().panicked, handle.exits().borrow().restarted), (1, 1));
    stop(handle).await;
}

/// Has no queue.
struct Unnamed;

#[async_trait::async_trait]
impl Subscriber for Unnamed {
    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        Err(SubscribeError("the queue must have a name".into()))
    }

    fn check(&self) -> Result<(), SubscribeError> {
        Err(SubscribeError("the queue must have a name".into()))
    }
}

#[tokio::test]
async fn a_consumer_does_not_start_with_a_subscriber_that_is_configured_wrongly() {
    let store = MemoryStore::default();
    let started =
        Consumer::builder("receipts", &store).on("write", write).subscribe(Unnamed).start().await;
    let Err(error) = started else { panic!("it started") };
    assert!(error.to_string().contains("the queue must have a name"), "{error}");
}

/// A subscriber whose `close` never returns.
struct Unanswered {
    closes: bool,
    asked: Arc<AtomicUsize>,
    said: Arc<AtomicUsize>,
}

#[async_trait::async_trait]
impl Subscriber for Unanswered {
    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.closes { Ok(None) } else { std::future::pending().await }
    }

    async fn close(&mut self) {
        self.said.fetch_add(1, Ordering::Relaxed);
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_closes_run_at_once_and_end_with_the_shutdown() {
    for (closes, within, took) in [(false, 5, 5), (false, 0, 1), (true, 5, 5), (true, 0, 0)] {
        let (store, [asked, said]) =
            (MemoryStore::default(), [0, 0].map(|none| Arc::new(AtomicUsize::new(none))));
        let unanswered = || Unanswered { closes, asked: asked.clone(), said: said.clone() };
        let consumer = Consumer::builder("receipts", &store).on("write", write);
        let handle =
            consumer.subscribe(unanswered()).subscribe(unanswered()).start().await.expect("starts");
        // By then the consumer reads both, or both are closed and `close` has hung for a while.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(
            (asked.load(Ordering::Relaxed), said.load(Ordering::Relaxed)),
            (2, if closes { 2 } else { 0 })
        );
        let begun = tokio::time::Instant::now();
        let ended = handle.shutdown(Duration::from_secs(within)).await;
        assert!(ended.is_ok() || within == 0, "{ended:?}");
        assert_eq!(
            (begun.elapsed().as_secs(), said.load(Ordering::Relaxed)),
            (took, 2),
            "{closes} {within}"
        );
    }
}
