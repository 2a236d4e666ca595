//! Deliveries that share a transaction, and when they run by themselves.

use crate::support::{
    AckResult, Cx, Log, OrderPlaced, Queue, QueueSubscriber, order, order_of, queue, stop, until,
    write,
};
use futures_util::future::{BoxFuture, join_all};
use outbox_core::{
    consumer::{AckMode, Consumer, ConsumerBuilder, ConsumerStats, HandlerError, KillSwitch},
    event::Message,
    outbox::{InstanceStore, NewInstance},
    testing::MemoryStore,
    transport::{AckDecision, AckHandle},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A consumer with one slot, so that what arrives while it is busy is ready together.
fn consumer(store: &MemoryStore) -> (Queue, ConsumerBuilder<MemoryStore>) {
    let (queue, subscriber): (Queue, QueueSubscriber) = queue();
    let consumer = Consumer::builder("receipts", store).subscribe(subscriber);
    (queue, consumer.concurrency(1).prefetch(64).batch_eagerly())
}

/// Handles messages; gives what the consumer counted.
async fn handled(
    queue: &Queue,
    consumer: ConsumerBuilder<MemoryStore>,
    messages: impl IntoIterator<Item = Message>,
    attempt: Option<u32>,
) -> ConsumerStats {
    let sent: Vec<_> =
        messages.into_iter().map(|message| queue.deliver(Ok(message), attempt).wait()).collect();
    let handle = consumer.start().await.expect("starts");
    let acked = join_all(sent).await;
    assert!(acked.iter().all(|ack| *ack == AckResult::Ack), "{acked:?}");
    stop(handle).await
}

/// Notes each run, takes a millisecond, writes a row, and fails where the number says so, at its first attempt.
fn noting(
    log: &Log,
) -> impl Fn(OrderPlaced, &Cx) -> BoxFuture<'_, Result<(), HandlerError>> + use<> {
    let log = log.clone();
    move |order, cx| {
        log.note(format!("{} attempt {}", order.0, cx.attempt()));
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            cx.tx.insert(order.0.to_string());
            match (order.0 % 10, cx.attempt()) {
                (3, 1) => Err(HandlerError::retry("at first")),
                _ => Ok(()),
            }
        })
    }
}

/// Takes a millisecond, in which others arrive, and writes the order's number.
async fn write_slowly(order: OrderPlaced, cx: &Cx) -> Result<(), std::io::Error> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    write(order, cx).await
}

#[tokio::test(start_paused = true)]
async fn ready_deliveries_share_a_transaction_and_a_key_keeps_its_order() {
    let store = MemoryStore::default();
    let (queue, consumer) = consumer(&store);
    let keys = ["a", "b", "c", "d"];
    let sent = (0..40).map(|n| order_of(keys[n % 4], n as u64));
    let stats = handled(&queue, consumer.on("write", write_slowly), sent, None).await;
    assert_eq!((stats.handled, stats.acked, stats.batches_rolled_back), (40, 40, 0));
    assert!(stats.batches >= 9, "at most one of each key is in a batch: {stats:?}");
    for key in 0..4 {
        let numbers: Vec<u64> = store
            .rows()
            .iter()
            .filter_map(|row| row.strip_prefix("write:")?.parse().ok())
            .filter(|n| n % 4 == key)
            .collect();
        assert!(numbers.is_sorted() && numbers.len() == 10, "{numbers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_that_fails_nothing_is_left_or_counted_and_each_runs_by_itself() {
    let (store, log) = (MemoryStore::default(), Log::default());
    let (queue, consumer) = consumer(&store);
    let sent =
        (0..10).map(|n| order_of(if n < 6 { "a" } else { "b" }, n)).chain((20..30).map(order));
    let consumer = consumer.on("note", noting(&log)).kill_switch(KillSwitch::default().window(2));
    let stats = handled(&queue, consumer, sent, None).await;
    assert_eq!(
        (stats.handled, stats.retried, stats.dead_lettered, stats.paused),
        (20, 2, 0, false)
    );
    assert!(stats.batches_rolled_back > 0, "{stats:?}");
    let mut rows = store.rows();
    let of_a: Vec<String> =
        rows.iter().filter(|row| row.len() == 1 && row.as_str() < "6").cloned().collect();
    assert_eq!(of_a, ["0", "1", "2", "3", "4", "5"], "the failed one is not overtaken");
    rows.sort();
    rows.dedup();
    assert_eq!((rows.len(), store.rows().len(), store.open_transactions()), (20, 20, 0));
    let lines = log.lines();
    let second = lines.iter().filter(|line| line.ends_with("attempt 2")).count();
    assert_eq!(second, 2, "only the failed ones have a second attempt: {lines:?}");
    assert!(lines.iter().all(|line| !line.ends_with("attempt 3")), "{lines:?}");
}

/// Lets the commit of the order 5 fail, or its answer get lost, once: that order is in a batch, since the first one is alone.
fn with_a_failing_commit(
    store: &MemoryStore,
    lost: bool,
) -> impl Fn(OrderPlaced, &Cx) -> BoxFuture<'_, Result<(), std::io::Error>> + use<> {
    let (store, once) = (store.clone(), AtomicBool::new(true));
    move |order, cx| {
        if order.0 == 5 && once.swap(false, Ordering::Relaxed) {
            if lost { store.lose_commit_results(1) } else { store.refuse_commits(1) }
        }
        Box::pin(write_slowly(order, cx))
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_commit_fails_or_whose_answer_is_lost_is_done_once() {
    for lost in [false, true] {
        let store = MemoryStore::default();
        let (queue, consumer) = consumer(&store);
        let handler = with_a_failing_commit(&store, lost);
        let stats = handled(&queue, consumer.on("write", handler), (0..30).map(order), None).await;
        assert_eq!((store.rows().len(), store.inbox_rows(), stats.returned), (30, 30, 0), "{lost}");
        assert!(stats.batches_rolled_back > 0 && stats.dead_lettered == 0, "{lost} {stats:?}");
        // What was committed without an answer is known when it runs again.
        assert_eq!(stats.handled + stats.duplicates, 30, "{lost} {stats:?}");
        assert_eq!(stats.duplicates > 0, lost, "{stats:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_have_ended_a_process_shares_no_transaction() {
    for (attempt, shares) in [(None, true), (Some(1), true), (Some(2), false)] {
        let store = MemoryStore::default();
        let (queue, consumer) = consumer(&store);
        let stats =
            handled(&queue, consumer.on("write", write_slowly), (0..30).map(order), attempt).await;
        assert_eq!((stats.handled, stats.batches > 0), (30, shares), "{attempt:?}");
    }
    // While another instance of the consumer has ended without signing off.
    let store = MemoryStore::default();
    let id: Arc<str> = "dead".into();
    let row = NewInstance { id: &id, consumer: "receipts", max_in_flight: 100, handlers: &[] };
    store.register_instance(&row, Duration::from_secs(30)).await.expect("up");
    let (queue, consumer) = consumer(&store);
    let handle = consumer.on("write", write_slowly).start().await.expect("starts");
    let sent: Vec<_> = (0..30).map(|n| queue.deliver(Ok(order(n)), None).wait()).collect();
    join_all(sent).await;
    until(&handle, |stats| stats.handled == 30).await;
    assert_eq!(stop(handle).await.batches, 0);
}

/// Lets another instance end while the order 5 is handled, for long enough that this one notices it.
fn beside_a_death(
    store: &MemoryStore,
) -> impl Fn(OrderPlaced, &Cx) -> BoxFuture<'_, Result<(), std::io::Error>> + use<> {
    let store = store.clone();
    move |order, cx| {
        let store = store.clone();
        Box::pin(async move {
            if order.0 == 5 {
                let id: Arc<str> = "dead".into();
                let row =
                    NewInstance { id: &id, consumer: "receipts", max_in_flight: 10, handlers: &[] };
                store.register_instance(&row, Duration::from_millis(1)).await.expect("up");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            write_slowly(order, cx).await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_under_way_when_an_instance_ended_settles_what_the_broker_counts() {
    for (attempt, settles) in [(Some(1), true), (None, false)] {
        let store = MemoryStore::default();
        let (queue, consumer) = consumer(&store);
        let consumer = consumer.on("write", beside_a_death(&store));
        let sent: Vec<_> = (0..30).map(|n| queue.deliver(Ok(order(n)), attempt).wait()).collect();
        let handle = consumer.lease(Duration::from_millis(300)).start().await.expect("starts");
        join_all(sent).await;
        let stats = *handle.stats().borrow();
        assert!(stats.isolating, "the end of the other one was noticed: {stats:?}");
        assert_eq!((stats.handled, stats.stored, stats.batches_rolled_back), (30, 0, 0));
        // The reads for which isolation lingers, three to a lease.
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(handle.stats().borrow().isolating, !settles, "{attempt:?}");
        assert!(stop(handle).await.batches > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_in_another_way_shares_no_transaction() {
    async fn acking(order: OrderPlaced, cx: &Cx) -> Result<(), std::io::Error> {
        cx.ack_after_commit();
        write_slowly(order, cx).await
    }
    for (mode, shares) in
        [(AckMode::AfterHandlers, true), (AckMode::Before, false), (AckMode::Manual, false)]
    {
        let store = MemoryStore::default();
        let (queue, consumer) = consumer(&store);
        let consumer = consumer.on("ack", acking).acknowledge(mode);
        let stats = handled(&queue, consumer, (0..30).map(order), None).await;
        assert_eq!((stats.handled, stats.batches > 0), (30, shares), "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn deliveries_of_a_batch_that_the_store_fails_are_returned_and_wait_for_it() {
    let store = MemoryStore::default();
    let (queue, consumer) = consumer(&store);
    let down = store.clone();
    let failing = move |order: OrderPlaced, cx: &Cx| {
        cx.tx.insert(order.0.to_string());
        if order.0 == 5 {
            down.set_down(true);
        }
        std::future::ready(Ok::<_, HandlerError>(()))
    };
    let sent: Vec<_> = (0..10).map(|n| queue.deliver(Ok(order(n)), None).wait()).collect();
    let handle = consumer.on("fail", failing).start().await.expect("starts");
    until(&handle, |stats| stats.store_down).await;
    let results = join_all(sent).await;
    let acked = results.iter().filter(|result| **result == AckResult::Ack).count();
    assert_eq!(results.iter().filter(|result| **result == AckResult::Nack).count(), 10 - acked);
    assert_eq!((store.rows().len(), store.inbox_rows()), (acked, acked), "nothing half done");
    store.set_down(false);
    assert_eq!(queue.deliver(Ok(order(20)), None).wait().await, AckResult::Ack);
    assert_eq!(stop(handle).await.dead_lettered, 0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_not_begun_since_the_store_is_down_returns_all_its_deliveries_at_once() {
    let store = MemoryStore::default();
    let (queue, consumer) = consumer(&store);
    let (first, down) = (queue.deliver(Ok(order(0)), None).wait(), store.clone());
    // A task of its own, so that the store is down before the batch of the others begins.
    let first = tokio::spawn(async move {
        let acked = first.await;
        down.set_down(true);
        acked
    });
    let others: Vec<_> = (1..10)
        .map(|n| {
            let (handle, decision) = AckHandle::new("the test does not wait");
            queue.deliver_with(order(n), handle);
            decision
        })
        .collect();
    let handle = consumer.on("write", write_slowly).start().await.expect("starts");
    assert_eq!(first.await.expect("no panic"), AckResult::Ack);
    let decisions: Vec<_> = join_all(others).await.into_iter().flatten().collect();
    // Those that had to wait for the run of another one would be returned as not begun.
    let returned = decisions.iter().filter(|decision| matches!(decision, AckDecision::Nack));
    assert_eq!(returned.count(), 9, "{decisions:?}");
    until(&handle, |stats| stats.store_down).await;
    store.set_down(false);
    let stats = stop(handle).await;
    assert_eq!((stats.handled, stats.returned, stats.batches_rolled_back), (1, 9, 0));
}
