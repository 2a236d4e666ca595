//! What a consumer does with a delivery: once each, retried, rejected, returned.

use crate::support::{
    AckResult, Cx, Log, OrderPlaced, consumer, order, order_of, parts, queue, stop, until, write,
};
use futures_util::future::join_all;
use outbox_core::{
    consumer::{
        Consumer, ConsumerError, ConsumerFault, DeadLetters, EventHandler, HandlerError,
        UnhandledPolicy,
    },
    event::{EventMeta, Message, MessageParts, NewEvent, OutboxEvent},
    failure::{DeadReason, FailureClass, RetryPolicy},
    outbox::{Store, StoreError},
    runtime::fault::{FaultPoint, install_hook},
    testing::MemoryStore,
    transport::Publisher,
};
use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_message_delivered_a_hundred_times_at_once_has_its_effect_once() {
    let store = MemoryStore::default();
    let (consumer, publisher) = consumer(&store);
    let handle = consumer.on("write", write).concurrency(32).start().await.expect("starts");
    let message = order(7);
    let answers = join_all((0..100).map(|_| publisher.publish(&message))).await;
    assert!(answers.iter().all(Result::is_ok));
    let stats = stop(handle).await;
    assert_eq!((store.rows(), store.inbox_rows()), (vec!["write:7".to_owned()], 1));
    assert_eq!((stats.handled, stats.duplicates, stats.acked), (1, 99, 100));
    assert_eq!(store.open_transactions(), 0);
}

#[tokio::test(start_paused = true)]
async fn of_two_handlers_the_one_that_succeeded_is_not_run_again() {
    let store = MemoryStore::default();
    let runs = Arc::new(AtomicU32::new(0));
    let flaky = {
        let runs = runs.clone();
        move |order: OrderPlaced, cx: &Cx| {
            let fails = runs.fetch_add(1, Ordering::Relaxed) < 2;
            cx.tx.insert(format!("flaky:{}", order.0));
            async move { if fails { Err("not yet") } else { Ok(()) } }
        }
    };
    let (consumer, publisher) = consumer(&store);
    let handle = consumer.on("write", write).on("flaky", flaky).start().await.expect("starts");
    let message = order(1);
    publisher.publish(&message).await.expect("the third attempt succeeds");
    publisher.publish(&message).await.expect("a repeat");
    assert_eq!(store.rows(), ["write:1", "flaky:1"], "failed runs left nothing");
    let stats = stop(handle).await;
    assert_eq!((stats.handled, stats.duplicates, stats.retried, stats.dead_lettered), (2, 2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn after_the_last_attempt_there_is_a_letter_and_a_repeat_is_acknowledged() {
    let (store, told) = (MemoryStore::default(), Log::default());
    let failing = |_: OrderPlaced, cx: &Cx| {
        cx.tx.insert("half done");
        let attempt = cx.attempt();
        async move { Err::<(), _>(format!("no {attempt}")) }
    };
    let (consumer, publisher) = consumer(&store);
    let noted = told.clone();
    let consumer = consumer.on("fail", failing).on("write", write).on_dead_letter(move |letter| {
        noted.note(format!("{} {}", letter.id, letter.reason));
        async { panic!("a listener's own trouble") }
    });
    let handle = consumer.start().await.expect("starts");
    let message = order(1);
    publisher.publish(&message).await.expect("given up, and acknowledged");
    publisher.publish(&message).await.expect("a repeat");
    let letters = store.letters();
    let [letter] = letters.as_slice() else { panic!("one letter, not {letters:?}") };
    let received =
        letter.consumer_origin.as_ref().map(|by| (by.consumer.as_str(), by.handler.as_str()));
    assert_eq!(
        (letter.reason, letter.attempts, received),
        (DeadReason::Exhausted, 3, Some(("receipts", "fail")))
    );
    assert_eq!(letter.message.as_ref(), Some(&message));
    assert_eq!(
        letter.errors.iter().map(|e| e.text.as_str()).collect::<Vec<_>>(),
        ["no 1", "no 2", "no 3"]
    );
    assert_eq!(told.lines(), [format!("{} exhausted", letter.id)]);
    assert_eq!(store.rows(), ["write:1"], "the other handler did its work");
    let stats = stop(handle).await;
    assert_eq!(
        (stats.handled, stats.retried, stats.dead_lettered, stats.acked, stats.duplicates),
        (1, 2, 1, 2, 2)
    );
}

/// Fails until its third run, and emits an event each time.
struct ThirdTime {
    store: MemoryStore,
    log: Log,
}

struct Shipped;

impl OutboxEvent for Shipped {
    fn meta(&self) -> EventMeta<'_> {
        EventMeta::new("order.shipped")
    }
    fn payload(&self) -> Result<bytes::Bytes, outbox_core::event::EncodeError> {
        Ok(bytes::Bytes::from_static(b"{}"))
    }
}

impl EventHandler<OrderPlaced, MemoryStore> for ThirdTime {
    async fn handle(&self, order: OrderPlaced, cx: &Cx) -> Result<(), HandlerError> {
        self.log.note(format!("attempt {}", cx.attempt()));
        cx.tx.insert(format!("shipped {} at {}", order.0, cx.attempt()));
        self.store.append(&cx.tx, &[NewEvent::encode(&Shipped)?]).await?;
        if cx.attempt() < 3 { Err("too early".into()) } else { Ok(()) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_handler_is_run_again_while_the_delivery_is_held() {
    let (store, log) = (MemoryStore::default(), Log::default());
    let (consumer, publisher) = consumer(&store);
    let third = ThirdTime { store: store.clone(), log: log.clone() };
    let handle = consumer.on("ship", third).start().await.expect("starts");
    let begun = tokio::time::Instant::now();
    publisher.publish(&order(5)).await.expect("the third attempt succeeds");
    assert!(begun.elapsed() <= Duration::from_secs(3), "1 s and 2 s at most");
    assert_eq!(log.lines(), ["attempt 1", "attempt 2", "attempt 3"]);
    assert_eq!((store.rows(), store.events().len()), (vec!["shipped 5 at 3".to_owned()], 1));
    let stats = stop(handle).await;
    assert_eq!((stats.handled, stats.retried, stats.acked, stats.returned), (1, 2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_rejecting_handler_is_not_run_again_and_the_reason_is_kept() {
    let (store, log) = (MemoryStore::default(), Log::default());
    let rejecting = {
        let log = log.clone();
        move |_: OrderPlaced, cx: &Cx| {
            log.note("run");
            cx.tx.insert("half done");
            async { Err::<(), _>(HandlerError::reject("the order is negative")) }
        }
    };
    let (consumer, publisher) = consumer(&store);
    let handle = consumer.on("reject", rejecting).on("write", write).start().await.expect("starts");
    publisher.publish(&order(1)).await.expect("given up, and acknowledged");
    let letters = store.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].reason, letters[0].errors[0].text.as_str()),
        (DeadReason::Rejected, "the order is negative")
    );
    assert_eq!(log.lines(), ["run"]);
    assert_eq!(store.rows(), ["write:1"], "the other handler did its work");
    let stats = stop(handle).await;
    assert_eq!((stats.handled, stats.dead_lettered, stats.rejected, stats.retried), (1, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn dead_letters_may_be_the_brokers_own() {
    let store = MemoryStore::default();
    let rejecting = |order: OrderPlaced, _: &Cx| async move {
        if order.0 == 1 {
            Err(HandlerError::reject("the order is negative"))
        } else {
            Err(HandlerError::retry("down"))
        }
    };
    let (consumer, publisher) = consumer(&store);
    let consumer = consumer.on("reject", rejecting).dead_letters(DeadLetters::Transport);
    let handle = consumer.start().await.expect("starts");
    for (number, reason) in [(1, "the order is negative"), (2, "down")] {
        let error = publisher.publish(&order(number)).await.expect_err("rejected");
        assert_eq!(error.class(), FailureClass::Permanent);
        assert!(error.to_string().contains(reason), "{error}");
    }
    let stats = stop(handle).await;
    assert_eq!(
        (stats.rejected, stats.dead_lettered, store.letters().len(), store.inbox_rows()),
        (2, 0, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_handler_rolls_back_and_counts_as_a_failure() {
    let (store, log) = (MemoryStore::default(), Log::default());
    let panicking = {
        let log = log.clone();
        move |_: OrderPlaced, cx: &Cx| {
            log.note(format!("attempt {}", cx.attempt()));
            cx.tx.insert("half done");
            let last = cx.attempt() == 2;
            async move {
                assert!(last, "an invariant");
                Ok::<_, std::io::Error>(())
            }
        }
    };
    let (consumer, publisher) = consumer(&store);
    let handle = consumer.on("panic", panicking).start().await.expect("starts");
    publisher.publish(&order(1)).await.expect("the second attempt succeeds");
    assert_eq!(log.lines(), ["attempt 1", "attempt 2"]);
    assert_eq!((store.rows().len(), store.open_transactions()), (1, 0));
    assert_eq!(stop(handle).await.retried, 1);
}

#[tokio::test(start_paused = true)]
async fn a_short_snooze_is_waited_for_and_a_long_one_is_stored() {
    let store = MemoryStore::default();
    let snoozing = |order: OrderPlaced, cx: &Cx| {
        let first = cx.attempt() == 1;
        cx.tx.insert(format!("order {}", order.0));
        async move {
            if first { Err(HandlerError::snooze(Duration::from_secs(order.0))) } else { Ok(()) }
        }
    };
    let (consumer, publisher) = consumer(&store);
    let handle = consumer.on("snooze", snoozing).start().await.expect("starts");
    let begun = tokio::time::Instant::now();
    publisher.publish(&order(2)).await.expect("done after the snooze");
    assert_eq!(begun.elapsed().as_secs(), 2);
    publisher.publish(&order(60)).await.expect("stored");
    assert_eq!((begun.elapsed().as_secs(), store.stored_deliveries()), (2, 1));
    until(&handle, |s| s.handled == 2).await;
    assert!((61..64).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(
        (store.rows(), store.stored_deliveries()),
        (vec!["order 2".to_owned(), "order 60".to_owned()], 0)
    );
    assert_eq!(stop(handle).await.dead_lettered, 0);
}

#[tokio::test]
async fn a_message_that_nobody_takes_is_answered_by_the_policy() {
    let unknown = Message::new(parts("order.lost", "1", None));
    for (policy, expected, letters) in [
        (UnhandledPolicy::default(), None, 0),
        (UnhandledPolicy::DeadLetter, None, 1),
        (UnhandledPolicy::Reject, Some(FailureClass::Permanent), 0),
        (UnhandledPolicy::Nack, Some(FailureClass::Transient), 0),
    ] {
        let store = MemoryStore::default();
        let (consumer, publisher) = consumer(&store);
        let handle = consumer.on("write", write).unhandled(policy).start().await.expect("starts");
        let class = publisher.publish(&unknown).await.err().map(|e| e.class());
        assert_eq!((class, store.letters().len()), (expected, letters), "{policy:?}");
        assert!(store.letters().iter().all(|letter| letter.reason == DeadReason::UnknownType));
        assert_eq!((stop(handle).await.unknown, store.rows().len()), (1, 0));
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_a_letter_with_the_reason() {
    let store = MemoryStore::default();
    let (queue, subscriber) = queue();
    let handle = Consumer::builder("receipts", &store)
        .on("write", write)
        .subscribe(subscriber)
        .start()
        .await
        .expect("starts");
    let never = Message::new(MessageParts { event_version: 0, ..parts("order.placed", "1", None) });
    let misshapen = Message::new(parts("order.placed", "{}", None));
    let from = |source: &str| {
        Message::new(MessageParts { source: source.into(), ..parts("order.placed", "1", None) })
    };
    let (nobody, long, strange) = (from(""), from(&"x".repeat(256)), from("/shop\0"));
    let unreadable = Err("no CloudEvents attributes".to_owned());
    for delivered in [unreadable, Ok(misshapen), Ok(never), Ok(nobody), Ok(long), Ok(strange)] {
        assert_eq!(queue.deliver(delivered, Some(1)).wait().await, AckResult::Ack);
    }
    let letters = store.letters();
    assert!(letters.iter().all(|letter| letter.reason == DeadReason::Undecodable));
    let texts: Vec<&str> = letters.iter().map(|letter| letter.errors[0].text.as_str()).collect();
    let expected =
        ["no CloudEvents attributes", "a number was expected", "version 0 of `order.placed`"];
    for (text, part) in
        texts.iter().zip(expected.into_iter().chain(["`source` has 1 to 255 bytes"; 3]))
    {
        assert!(text.contains(part), "{text}");
    }
    let stats = stop(handle).await;
    assert_eq!(
        (stats.received, stats.dead_lettered, stats.acked, store.rows().len()),
        (6, 6, 6, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_letter_whose_commit_has_no_response_in_time_is_written_once() {
    let store = MemoryStore::default();
    let (queue, subscriber) = queue();
    let handle = Consumer::builder("receipts", &store)
        .on("write", write)
        .subscribe(subscriber)
        .start()
        .await
        .expect("starts");
    let unreadable = || Err("no CloudEvents attributes".to_owned());
    let misshapen = Ok(Message::new(parts("order.placed", "{}", None)));
    for (delivered, late, letters) in [
        (unreadable(), 1, 1),
        (unreadable(), 5, 2),
        (misshapen, 1, 3),
        // Another delivery has a letter of its own.
        (unreadable(), 0, 4),
    ] {
        store.delay_commit_results(late);
        assert_eq!(queue.deliver(delivered, Some(1)).wait().await, AckResult::Ack);
        assert_eq!(store.letters().len(), letters, "{late} late responses");
    }
    assert_eq!(store.inbox_rows(), 4, "one for each letter, by which a repeat knows it");
    stop(handle).await;
}

/// Sets an attribute.
type Set = fn(&mut MessageParts, String);

#[tokio::test(start_paused = true)]
async fn texts_that_a_database_refuses_are_refused_whichever_transport_delivers_them() {
    let store = MemoryStore::default();
    let (queue, subscriber) = queue();
    let handle = Consumer::builder("receipts", &store)
        .on("write", write)
        .subscribe(subscriber)
        .start()
        .await
        .expect("starts");
    let base = || parts("order.placed", "1", Some("k"));
    let attributes: [(&str, Set); 6] = [
        ("source", |parts, text| parts.source = text),
        ("type", |parts, text| parts.event_type = text),
        ("topic", |parts, text| parts.topic = text),
        ("datacontenttype", |parts, text| parts.content_type = text),
        ("partitionkey", |parts, text| parts.key = Some(text)),
        ("aggregatetype", |parts, text| parts.aggregate_type = Some(text)),
    ];
    let texts = ["a\0b".to_owned(), "a\nb".to_owned(), "\u{85}".to_owned(), "x".repeat(256)];
    for (name, set) in attributes {
        for text in &texts {
            let mut parts = base();
            set(&mut parts, text.clone());
            assert_eq!(queue.deliver(Ok(Message::new(parts)), None).wait().await, AckResult::Ack);
            let letter = store.letters().pop().expect("a letter is written");
            assert_eq!(letter.reason, DeadReason::Undecodable, "{name} {text:?}");
            assert!(
                letter.errors[0].text.contains(&format!("`{name}`")),
                "{name}: {}",
                letter.errors[0].text
            );
        }
    }
    assert_eq!(queue.deliver(Ok(Message::new(base())), None).wait().await, AckResult::Ack);
    let stats = stop(handle).await;
    assert_eq!(
        (stats.handled, stats.dead_lettered, stats.returned, stats.store_down),
        (1, 24, 0, false)
    );
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_the_database_refuses_to_store_is_a_letter_and_the_others_are_handled() {
    let store = MemoryStore::default();
    let (queue, subscriber) = queue();
    let failing =
        |order: OrderPlaced, _: &Cx| async move { if order.0 == 1 { Err("down") } else { Ok(()) } };
    let consumer = Consumer::builder("receipts", &store).on("fail", failing).subscribe(subscriber);
    let handle = consumer.max_unacked_time(Duration::ZERO).start().await.expect("starts");
    store.refuse_deliveries("/large");
    let large = |n: u64| {
        Message::new(MessageParts { source: "/large".into(), ..order_of("k", n).into_parts() })
    };
    let sent = [large(1), order_of("k", 2), large(3)];
    let answers = sent.map(|message| queue.deliver(Ok(message), None).wait());
    assert_eq!(
        futures_util::future::join_all(answers).await,
        [AckResult::Ack, AckResult::Ack, AckResult::Ack]
    );
    let [letter] = &store.letters()[..] else { panic!("one letter, not {:?}", store.letters()) };
    assert_eq!((letter.reason, letter.attempts), (DeadReason::NotRetried, 1));
    let texts: Vec<&str> = letter.errors.iter().map(|error| error.text.as_str()).collect();
    assert!(texts[0] == "down" && texts[1].contains("refused to store it for later"), "{texts:?}");
    let stats = stop(handle).await;
    assert_eq!((stats.handled, stats.dead_lettered, stats.returned, stats.stored), (2, 1, 0, 0));
    assert_eq!(store.stored_deliveries(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_the_commit_makes_no_second_effect() {
    let store = MemoryStore::default();
    let (consumer, publisher) = consumer(&store);
    let handle = consumer.on("write", write).start().await.expect("starts");
    let message = order(3);
    store.lose_commit_results(1);
    publisher.publish(&message).await.expect("whether it was done is unknown, and the inbox knows");
    let stats = stop(handle).await;
    assert_eq!((store.rows(), stats.handled, stats.duplicates), (vec!["write:3".to_owned()], 0, 1));
    assert_eq!(
        (stats.disturbed, stats.returned, stats.store_down),
        (1, 0, false),
        "one lost answer is no outage"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deadlock_repeats_the_transaction_and_burns_no_attempt() {
    let (store, log) = (MemoryStore::default(), Log::default());
    let noting = {
        let log = log.clone();
        move |_: OrderPlaced, cx: &Cx| {
            log.note(format!("attempt {}", cx.attempt()));
            async { Ok::<_, StoreError>(()) }
        }
    };
    let (consumer, publisher) = consumer(&store);
    let once = RetryPolicy::attempts(1, Duration::ZERO);
    let handle = consumer.on("note", noting).retry(once).start().await.expect("starts");
    store.refuse_commits(3);
    publisher.publish(&order(1)).await.expect("the fourth transaction is committed");
    assert_eq!(log.lines(), ["attempt 1"; 4]);
    assert_eq!(stop(handle).await.returned, 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_inbox_refuses_is_kept_as_it_came_and_does_not_hold_the_others_up() {
    let store = MemoryStore::default();
    let (consumer, publisher) = consumer(&store);
    let handle = consumer.on("write", write).start().await.expect("starts");
    store.refuse_source("/poison");
    let poison =
        Message::new(MessageParts { source: "/poison".into(), ..parts("order.placed", "1", None) });
    let other = order(2);
    let (refused, handled) = tokio::join!(publisher.publish(&poison), publisher.publish(&other));
    assert!(refused.is_ok() && handled.is_ok());
    let [letter] = &store.letters()[..] else { panic!("one letter, not {:?}", store.letters()) };
    assert_eq!(
        (letter.reason, letter.attempts, letter.message.is_none()),
        (DeadReason::Exhausted, 3, true)
    );
    assert!(letter.errors[0].text.contains("does not hold"), "{:?}", letter.errors);
    let stats = stop(handle).await;
    assert_eq!(
        (stats.retried, stats.rejected, stats.dead_lettered, stats.store_down),
        (2, 0, 1, false)
    );
    assert_eq!(store.rows().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_takes_no_writes_costs_no_message() {
    let store = MemoryStore::default();
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store).on("write", write).subscribe(subscriber);
    let handle =
        consumer.retry(RetryPolicy::attempts(1, Duration::ZERO)).start().await.expect("starts");
    store.set_read_only(true);
    let before = tokio::time::Instant::now();
    let first = queue.deliver(Ok(order(1)), Some(1)).wait().await;
    assert_eq!(first, AckResult::Nack, "neither acknowledged nor rejected");
    let again = queue.deliver(Ok(order(1)), Some(2));
    until(&handle, |stats| stats.store_down).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(
        handle.stats().borrow().store_down,
        "transactions can be opened, and that is not enough"
    );
    assert_eq!(handle.stats().borrow().returned, 1, "what came meanwhile waits");
    store.set_read_only(false);
    assert_eq!(again.wait().await, AckResult::Ack);
    assert!(before.elapsed() < Duration::from_mins(11));
    let stats = stop(handle).await;
    assert_eq!(
        (stats.handled, stats.rejected, stats.dead_lettered, store.rows().len()),
        (1, 0, 0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_broker_delivers_again_at_once_is_no_hot_loop() {
    let store = MemoryStore::default();
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store).on("write", write).subscribe(subscriber);
    let handle = consumer.unhandled(UnhandledPolicy::Nack).start().await.expect("starts");
    let begun = tokio::time::Instant::now();
    for times in 1..=10 {
        let unknown = Message::new(parts("order.lost", "1", None));
        assert_eq!(queue.deliver(Ok(unknown), Some(times)).wait().await, AckResult::Nack);
    }
    assert!(begun.elapsed() >= Duration::from_secs(10), "{:?}", begun.elapsed());
    stop(handle).await;
}

#[tokio::test]
async fn all_faults_of_a_configuration_are_told_at_once() {
    let store = MemoryStore::default();
    let Err(ConsumerError::Invalid(faults)) = Consumer::builder("", &store).start().await else {
        panic!("it started")
    };
    assert_eq!(
        faults,
        [ConsumerFault::Name(String::new()), ConsumerFault::NoHandler, ConsumerFault::NoSubscriber]
    );
    let long = "x".repeat(101);
    store.set_inbox_retention(Duration::from_hours(24));
    let error = Consumer::builder("receipts/mail", &store)
        .on("a", write)
        .on("a", write)
        .on(&long, write)
        .on("a", write);
    let Err(error) = error.start().await else { panic!("it started") };
    let expected = format!(
        "the consumer cannot start: the name `{long}` does not have 1 to 100 bytes without control characters; \
         the consumer's name `receipts/mail` has a slash; two handlers are called `a`; \
         there is no subscriber; add one with `subscribe`; \
         a message may be delivered again for 86400s (by its sender) + 3s (retries of this consumer) = 86403s, \
         longer than the inbox retention of 86400s"
    );
    assert_eq!(error.to_string(), expected);
}

thread_local! {
    static REACHED: RefCell<Vec<FaultPoint>> = const { RefCell::new(Vec::new()) };
}

#[tokio::test]
async fn fault_points_stand_between_the_steps_of_a_delivery() {
    use FaultPoint::{AfterAck, AfterHandler, BeforeAck, BeforeInbox};
    // Tests of one thread each: what this thread reaches is this test's.
    install_hook(|point| REACHED.with_borrow_mut(|points| points.push(point)));
    let store = MemoryStore::default();
    let (consumer, publisher) = consumer(&store);
    let handle = consumer.on("write", write).start().await.expect("starts");
    let message = order(1);
    publisher.publish(&message).await.expect("handled");
    publisher.publish(&message).await.expect("a duplicate");
    stop(handle).await;
    let expected =
        [BeforeInbox, AfterHandler, BeforeAck, AfterAck, BeforeInbox, BeforeAck, AfterAck];
    assert_eq!(REACHED.take(), expected);
}
