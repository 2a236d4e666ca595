//! Handlers that have another name than before, and names that no instance has any more.

use crate::support::{
    AckResult, Cx, Log, OrderPlaced, Queue, order, order_of, queue, stop, until, until_seen, write,
};
use outbox_core::{
    consumer::{
        Consumer, ConsumerBuilder, ConsumerError, ConsumerFault, HandlerError, HandlerOptions,
    },
    event::Message,
    failure::{DeadReason, RetryPolicy},
    outbox::HandlerNameStore,
    testing::MemoryStore,
};
use std::time::Duration;

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);
const RENAMED: HandlerOptions = HandlerOptions::new().renamed_from("before");

async fn fails(_: OrderPlaced, _: &Cx) -> Result<(), &'static str> {
    Err("down")
}

fn named(
    store: &MemoryStore,
    name: &str,
    options: HandlerOptions,
) -> (Queue, ConsumerBuilder<MemoryStore>) {
    let (queue, subscriber) = queue();
    (
        queue,
        Consumer::builder("receipts", store).on_with(name, options, write).subscribe(subscriber),
    )
}

async fn start(consumer: ConsumerBuilder<MemoryStore>) -> Consumer {
    consumer.start().await.expect("starts")
}

async fn acked(queue: &Queue, message: &Message) {
    assert_eq!(queue.deliver(Ok(message.clone()), None).wait().await, AckResult::Ack);
}

/// Leaves deliveries that are to be run again in a minute, under the name that the handler has before.
async fn stored_before(store: &MemoryStore, messages: &[Message]) {
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", store).on("before", fails).subscribe(subscriber);
    let handle = start(
        consumer
            .max_unacked_time(Duration::ZERO)
            .retry(RetryPolicy::attempts(9, MINUTE).factor(1.0)),
    )
    .await;
    for message in messages {
        acked(&queue, message).await;
    }
    assert_eq!(stop(handle).await.stored, messages.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_under_the_name_before_is_the_renamed_handlers_in_order() {
    let store = MemoryStore::default();
    stored_before(&store, &[order_of("a", 1), order_of("a", 2), order_of("b", 3)]).await;
    let (queue, consumer) = named(&store, "after", RENAMED);
    let handle = start(consumer).await;
    acked(&queue, &order_of("a", 4)).await;
    until(&handle, |s| s.handled == 4).await;
    let rows = store.rows();
    let of_a: Vec<&str> = rows.iter().map(String::as_str).filter(|row| *row != "after:3").collect();
    assert_eq!(of_a, ["after:1", "after:2", "after:4"], "{rows:?}");
    assert_eq!(
        (stop(handle).await.orphaned, store.stored_deliveries(), store.letters().len()),
        (0, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_received_under_one_name_is_not_handled_again_under_the_other_in_either_direction()
{
    let store = MemoryStore::default();
    let (first, consumer) = named(&store, "before", HandlerOptions::new());
    let old = start(consumer).await;
    let (second, consumer) = named(&store, "after", RENAMED);
    let renamed = start(consumer).await;
    let (third, consumer) = named(&store, "after", HandlerOptions::new());
    let last = start(consumer).await;
    let messages: Vec<Message> = (1..4).map(order).collect();
    // Each comes again at the neighbour, as after a connection that was lost: at the next release, and at the one before.
    for (message, [once, again]) in
        messages.iter().zip([[&first, &second], [&second, &first], [&second, &third]])
    {
        acked(once, message).await;
        acked(again, message).await;
    }
    let stats = [stop(old).await, stop(renamed).await, stop(last).await];
    assert_eq!(stats.map(|s| s.handled).iter().sum::<u64>(), 3, "{:?}", store.rows());
    assert_eq!(stats.map(|s| s.duplicates).iter().sum::<u64>(), 3);
}

#[tokio::test(start_paused = true)]
async fn while_an_instance_has_the_name_before_both_keep_the_order_of_a_key() {
    let (store, log) = (MemoryStore::default(), Log::default());
    let (first, subscriber) = queue();
    let failing = {
        let log = log.clone();
        move |order: OrderPlaced, cx: &Cx| {
            let fails = order.0 == 1 && log.lines().is_empty();
            log.note(format!("{}:{}", cx.handler(), order.0));
            cx.tx.insert(order.0.to_string());
            std::future::ready(if fails { Err("down") } else { Ok(()) })
        }
    };
    let again = RetryPolicy::attempts(9, MINUTE).factor(1.0);
    let consumer =
        Consumer::builder("receipts", &store).on("before", failing.clone()).subscribe(subscriber);
    let old = start(consumer.max_unacked_time(Duration::ZERO).retry(again)).await;
    let (second, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store)
        .on_with("after", RENAMED, failing)
        .subscribe(subscriber);
    let renamed = start(consumer.max_unacked_time(Duration::ZERO).retry(again)).await;
    // Whoever it is stored by: what comes later at the other one goes behind it.
    for (n, queue) in (1..5).zip([&second, &first, &second, &first]) {
        acked(queue, &order_of("a", n)).await;
    }
    until_seen("all four are handled", || store.rows(), |rows| rows.len() == 4).await;
    assert_eq!(store.rows(), ["1", "2", "3", "4"], "{:?}", log.lines());
    assert_eq!(
        (stop(old).await.orphaned, stop(renamed).await.orphaned, store.letters().len()),
        (0, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_moves_to_the_new_name_when_the_release_is_not_taken_back_any_more() {
    let store = MemoryStore::default();
    let (queue, subscriber) = queue();
    let later = |_: OrderPlaced, _: &Cx| async { Err::<(), _>(HandlerError::snooze(DAY)) };
    let consumer = Consumer::builder("receipts", &store)
        .on_with("after", RENAMED, later)
        .subscribe(subscriber);
    let handle = start(consumer).await;
    let stored_under = async || {
        let nobody: [std::sync::Arc<str>; 0] = [];
        let counted = store.under_other_names("receipts", &nobody).await.expect("up");
        counted.into_iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>()
    };
    acked(&queue, &order(1)).await;
    assert_eq!(
        stored_under().await,
        ["before 1"],
        "an instance of the release before can go on with it"
    );
    tokio::time::sleep(62 * MINUTE).await;
    acked(&queue, &order(2)).await;
    assert_eq!(stored_under().await, ["after 2"]);
    stop(handle).await;
}

#[tokio::test(start_paused = true)]
async fn deliveries_under_a_name_that_no_instance_has_are_counted_and_become_letters_after_a_day() {
    let store = MemoryStore::default();
    stored_before(&store, &[order_of("a", 1), order_of("a", 2)]).await;
    let (_queue, consumer) = named(&store, "after", HandlerOptions::new());
    let handle = start(consumer).await;
    until(&handle, |s| s.orphaned == 2).await;
    tokio::time::sleep(DAY - MINUTE).await;
    assert_eq!((store.letters().len(), store.stored_deliveries()), (0, 2));
    until(&handle, |s| s.orphaned == 0).await;
    let letters = store.letters();
    assert_eq!((letters.len(), letters[0].reason), (2, DeadReason::UnknownType));
    let last = letters[0].errors.last().expect("it has a reason");
    assert!(last.text.contains("`renamed_from`"), "{last:?}");
    assert_eq!(letters[0].consumer_origin.as_ref().map(|by| by.handler.as_str()), Some("before"));
    assert_eq!((stop(handle).await.dead_lettered, store.stored_deliveries()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_comes_back_has_its_deliveries_and_one_that_another_instance_has_is_not_orphaned()
 {
    let store = MemoryStore::default();
    stored_before(&store, &[order(1)]).await;
    let (_queue, consumer) = named(&store, "after", HandlerOptions::new());
    let handle = start(consumer).await;
    until(&handle, |s| s.orphaned == 1).await;
    let (_queue, consumer) = named(&store, "before", HandlerOptions::new());
    let back = start(consumer).await;
    until(&back, |s| s.handled == 1).await;
    until(&handle, |s| s.orphaned == 0).await;
    assert_eq!((store.rows(), store.letters().len()), (vec!["before:1".to_owned()], 0));
    stop(handle).await;
    stop(back).await;
}

#[tokio::test]
async fn a_name_before_that_is_a_handlers_now_is_refused_with_what_to_do() {
    let store = MemoryStore::default();
    let (_queue, subscriber) = queue();
    let consumer =
        Consumer::builder("receipts", &store).on("before", write).on_with("after", RENAMED, write);
    let Err(error) = consumer.on_with("other", RENAMED, write).subscribe(subscriber).start().await
    else {
        panic!("it started")
    };
    let ConsumerError::Invalid(faults) = &error else { panic!("{error}") };
    let fault = |handler: &str| ConsumerFault::RenamedFrom {
        handler: handler.into(),
        before: "before".into(),
    };
    assert_eq!(*faults, [fault("after"), fault("other")]);
    assert!(error.to_string().contains("leave it out"), "{error}");
}
