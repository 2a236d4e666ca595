//! Two versions of a consumer side by side: deliveries that one instance does not know are handed over to another.

use crate::support::{
    AckResult, Cx, Log, Queue, order_of, parts, queue, stop, until, until_seen, write,
};
use outbox_core::{
    consumer::{AckMode, Consumer, ConsumerBuilder, HandlerOptions, UnhandledPolicy},
    event::{DecodeError, DecodeEvent, EventContract, EventType, Message, MessageParts},
    failure::DeadReason,
    testing::MemoryStore,
};
use std::time::Duration;

const HOUR: Duration = Duration::from_hours(1);

/// An order as the next version reads it: of versions 1 and 2, and a type that only it knows.
struct Order(String);

impl EventContract for Order {
    const TYPES: &'static [EventType] = &[
        EventType { name: "order.placed", version: 2, topic: "orders" },
        EventType { name: "order.left", version: 1, topic: "orders" },
    ];
}

impl DecodeEvent for Order {
    fn decode(message: &Message) -> Result<Self, DecodeError> {
        Ok(Self(format!(
            "{} v{} {}",
            message.event_type,
            message.event_version,
            String::from_utf8_lossy(&message.payload)
        )))
    }
}

async fn write_order(order: Order, cx: &Cx) -> Result<(), std::io::Error> {
    cx.tx.insert(order.0);
    Ok(())
}

fn old(store: &MemoryStore) -> (Queue, ConsumerBuilder<MemoryStore>) {
    let (queue, subscriber) = queue();
    (queue, Consumer::builder("receipts", store).on("write", write).subscribe(subscriber))
}

fn next(store: &MemoryStore) -> (Queue, ConsumerBuilder<MemoryStore>) {
    let (queue, subscriber) = queue();
    (queue, Consumer::builder("receipts", store).on("write", write_order).subscribe(subscriber))
}

async fn start(consumer: ConsumerBuilder<MemoryStore>) -> Consumer {
    consumer.start().await.expect("starts")
}

fn of(event_type: &str, version: u16, number: u64, key: Option<&str>) -> Message {
    Message::new(MessageParts {
        event_version: version,
        ..parts(event_type, &number.to_string(), key)
    })
}

async fn acked(queue: &Queue, message: Message) {
    assert_eq!(queue.deliver(Ok(message), None).wait().await, AckResult::Ack);
}

#[tokio::test(start_paused = true)]
async fn a_newer_version_of_a_type_waits_for_an_instance_that_reads_it_and_its_key_behind_it() {
    let store = MemoryStore::default();
    let (queue, consumer) = old(&store);
    let handle = start(consumer).await;
    acked(&queue, of("order.placed", 2, 1, Some("a"))).await;
    acked(&queue, order_of("a", 2)).await;
    acked(&queue, order_of("b", 3)).await;
    assert_eq!(
        (store.rows(), store.letters().len()),
        (vec!["write:3".to_owned()], 0),
        "nothing is a dead letter"
    );
    // A rollout may take its time.
    tokio::time::sleep(HOUR / 2).await;
    let (_later, consumer) = next(&store);
    let begun = tokio::time::Instant::now();
    let other = start(consumer).await;
    until(&other, |s| s.handled > 0).await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "an instance that knows it need not wait: {:?}",
        begun.elapsed()
    );
    until_seen("nothing is stored any more", || store.stored_deliveries(), |stored| *stored == 0)
        .await;
    let rows = store.rows();
    // The second may be run by either of them, after the first.
    assert_eq!(rows[..2], ["write:3", "order.placed v2 1"]);
    assert!(
        rows.len() == 3 && (rows[2] == "write:2" || rows[2] == "order.placed v1 2"),
        "{rows:?}"
    );
    assert_eq!(
        (stop(handle).await.handed_over, stop(other).await.dead_lettered, store.letters().len()),
        (1, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn what_no_instance_knows_for_an_hour_is_a_letter_that_says_what_to_do_and_its_key_goes_on() {
    let store = MemoryStore::default();
    let (queue, consumer) = old(&store);
    let handle = start(consumer).await;
    acked(&queue, of("order.placed", 2, 1, Some("a"))).await;
    acked(&queue, order_of("a", 2)).await;
    tokio::time::sleep(HOUR - Duration::from_mins(1)).await;
    assert_eq!((store.letters().len(), store.rows().len()), (0, 0));
    until(&handle, |s| s.handled == 1).await;
    let letters = store.letters();
    assert_eq!((letters.len(), letters[0].reason), (1, DeadReason::UnknownType));
    let text = &letters[0].errors[0].text;
    assert!(
        text.contains("version 2 of the type `order.placed`") && text.contains("redrive"),
        "{text}"
    );
    assert_eq!((store.rows(), stop(handle).await.dead_lettered), (vec!["write:2".to_owned()], 1));
}

#[tokio::test(start_paused = true)]
async fn a_type_that_only_another_instance_takes_is_left_to_it_and_one_that_nobody_takes_passes() {
    let store = MemoryStore::default();
    let (queue, consumer) = old(&store);
    let handle = start(consumer).await;
    acked(&queue, of("order.left", 1, 1, None)).await;
    let (later, consumer) = next(&store);
    let other = start(consumer).await;
    until(&other, |s| s.handed_over == 0 && !s.isolating).await;
    // From the moment at which it has started: the first instance looks again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for n in 2..5 {
        acked(&queue, of("order.left", 1, n, Some("a"))).await;
    }
    acked(&later, of("order.lost", 1, 9, None)).await;
    until(&other, |s| s.handled == 3).await;
    assert_eq!(store.rows(), ["order.left v1 2", "order.left v1 3", "order.left v1 4"]);
    let (first, second) = (stop(handle).await, stop(other).await);
    assert_eq!(
        (first.unknown, first.handed_over, second.unknown, second.handed_over),
        (1, 3, 1, 0)
    );
    assert_eq!((store.letters().len(), store.stored_deliveries()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn at_most_once_and_by_hand_too_what_another_instance_takes_is_not_acknowledged_away() {
    for mode in [AckMode::Before, AckMode::Manual] {
        let store = MemoryStore::default();
        let (_later, consumer) = next(&store);
        let other = start(consumer).await;
        let (queue, consumer) = old(&store);
        let handle = start(consumer.acknowledge(mode)).await;
        // By hand both are returned: what is stored has no delivery to answer for.
        let expected = if mode == AckMode::Manual { AckResult::Nack } else { AckResult::Ack };
        for odd in [of("order.left", 1, 1, None), of("order.placed", 2, 2, None)] {
            assert_eq!(queue.deliver(Ok(odd), None).wait().await, expected, "{mode:?}");
        }
        if mode == AckMode::Before {
            until(&other, |s| s.handled == 2).await;
        }
        assert_eq!(
            (
                stop(handle).await.dead_lettered,
                stop(other).await.dead_lettered,
                store.letters().len()
            ),
            (0, 0, 0),
            "{mode:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_strict_queue_a_type_that_nobody_knows_yet_waits_for_an_instance_that_does() {
    let store = MemoryStore::default();
    let (queue, consumer) = old(&store);
    let handle = start(consumer.unhandled(UnhandledPolicy::Defer)).await;
    acked(&queue, of("order.left", 1, 1, None)).await;
    acked(&queue, of("order.lost", 1, 2, None)).await;
    assert_eq!((store.stored_deliveries(), store.letters().len()), (2, 0));
    let (_later, consumer) = next(&store);
    let other = start(consumer.unhandled(UnhandledPolicy::Defer)).await;
    until(&other, |s| s.handled == 1).await;
    assert_eq!(store.rows(), ["order.left v1 1"]);
    tokio::time::sleep(HOUR).await;
    until_seen("there is a letter", || store.letters(), |letters| !letters.is_empty()).await;
    let (letter, stats) = (store.letters().remove(0), stop(handle).await);
    assert!(letter.errors[0].text.contains("version 1 of the type `order.lost`"), "{letter:?}");
    assert_eq!((stats.unknown, stop(other).await.unknown, store.stored_deliveries()), (2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_newer_instance_was_to_try_again_waits_for_it_when_the_release_is_taken_back() {
    let (store, log) = (MemoryStore::default(), Log::default());
    let failing = {
        let log = log.clone();
        move |order: Order, _: &Cx| {
            log.note(order.0);
            std::future::ready(if log.lines().len() < 2 { Err("down") } else { Ok(()) })
        }
    };
    let again = || {
        let (queue, subscriber) = queue();
        let consumer = Consumer::builder("receipts", &store)
            .on("write", failing.clone())
            .subscribe(subscriber);
        (queue, consumer.max_unacked_time(Duration::ZERO))
    };
    let (queue, consumer) = again();
    let newer = start(consumer).await;
    acked(&queue, of("order.placed", 2, 1, None)).await;
    stop(newer).await;
    let (_queue, consumer) = old(&store);
    let handle = start(consumer).await;
    until(&handle, |s| s.handed_over == 1).await;
    let (_queue, consumer) = again();
    let newer = start(consumer).await;
    until(&newer, |s| s.handled == 1).await;
    assert_eq!(
        (log.lines().len(), store.letters().len(), stop(handle).await.dead_lettered),
        (2, 0, 0)
    );
    stop(newer).await;
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_another_instance_knows_is_not_given_up_however_long_it_takes() {
    let store = MemoryStore::default();
    let (queue, consumer) = old(&store);
    let handle = start(consumer).await;
    // It has the handler and takes nothing up: its kill switch is on, or its handler is busy.
    let (_later, subscriber) = crate::support::queue();
    let stuck = |_: Order, _: &Cx| std::future::pending::<Result<(), std::io::Error>>();
    let consumer = Consumer::builder("receipts", &store).on_with(
        "write",
        HandlerOptions::new().no_timeout(),
        stuck,
    );
    let other = start(consumer.subscribe(subscriber).concurrency(1)).await;
    acked(&queue, of("order.placed", 2, 1, None)).await;
    acked(&queue, of("order.placed", 2, 2, None)).await;
    tokio::time::sleep(3 * HOUR).await;
    assert_eq!((store.letters().len(), store.stored_deliveries()), (0, 2));
    stop(handle).await;
    let _ = other.shutdown(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_where_no_time_is_given() {
    let store = MemoryStore::default();
    let (queue, consumer) = old(&store);
    let handle = start(consumer.keep_unknown(Duration::ZERO)).await;
    acked(&queue, of("order.placed", 2, 1, None)).await;
    assert_eq!((store.letters().len(), store.stored_deliveries()), (1, 0));
    assert_eq!(
        (stop(handle).await.handed_over, store.letters()[0].reason),
        (0, DeadReason::UnknownType)
    );
}
