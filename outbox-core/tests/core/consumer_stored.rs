//! What a consumer keeps for later: retries with long waits, what goes behind them, and deliveries that may kill.

use crate::support::{AckResult, Cx, Log, OrderPlaced, order, order_of, queue, stop, until, write};
use futures_util::future::join_all;
use outbox_core::{
    consumer::{Consumer, HandlerError},
    event::{Message, MessageParts, Timestamp},
    failure::{DeadReason, RetryPolicy},
    outbox::{ClaimQuery, ConsumerStore, DeferredDelivery, History, RetrierStore, Store},
    testing::MemoryStore,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const MINUTE: Duration = Duration::from_mins(1);

/// A handler that fails for orders of the number 0 until it is told otherwise, and notes what it does.
fn first_fails(
    log: &Log,
    heals: &Arc<AtomicBool>,
) -> impl Fn(OrderPlaced, &Cx) -> std::future::Ready<Result<(), &'static str>> + Send + Sync + 'static
{
    let (log, heals) = (log.clone(), heals.clone());
    move |order, cx| {
        log.note(format!("{} {}", cx.message().key.as_deref().unwrap_or_default(), order.0));
        cx.tx.insert(format!("{}", order.0));
        let fails = order.0 == 0 && !heals.load(Ordering::SeqCst);
        std::future::ready(if fails { Err("down") } else { Ok(()) })
    }
}

#[tokio::test(start_paused = true)]
async fn later_deliveries_of_a_key_wait_behind_a_stored_one_in_order_and_other_keys_do_not() {
    let (store, log, heals) = (MemoryStore::default(), Log::default(), Arc::default());
    let minutely = RetryPolicy::attempts(5, MINUTE).factor(1.0);
    let start = async || {
        let (queue, subscriber) = queue();
        let consumer = Consumer::builder("receipts", &store)
            .on("fragile", first_fails(&log, &heals))
            .on("write", write);
        (queue, consumer.retry(minutely).subscribe(subscriber).start().await.expect("starts"))
    };
    let (first, handle) = start().await;
    let sent = [("a", 0), ("a", 1), ("b", 5), ("a", 2)];
    let answers: Vec<_> =
        sent.map(|(key, n)| first.deliver(Ok(order_of(key, n)), None).wait()).into();
    assert!(
        join_all(answers).await.iter().all(|answer| *answer == AckResult::Ack),
        "all are kept or done"
    );
    assert_eq!(log.lines(), ["a 0", "b 5"]);
    assert_eq!(store.stored_deliveries(), 3);
    // The other handler is not held up.
    assert_eq!(store.rows().iter().filter(|row| row.starts_with("write:")).count(), 4);
    let stats = stop(handle).await;
    assert_eq!((stats.stored, stats.dead_lettered), (3, 0));

    // Over a restart.
    let (second, handle) = start().await;
    assert_eq!(second.deliver(Ok(order_of("a", 3)), None).wait().await, AckResult::Ack);
    assert_eq!(store.stored_deliveries(), 4);
    heals.store(true, Ordering::SeqCst);
    until(&handle, |s| s.handled == 1 + 4).await;
    assert_eq!(log.lines()[2..], ["a 0", "a 1", "a 2", "a 3"]);
    assert_eq!(second.deliver(Ok(order_of("a", 4)), None).wait().await, AckResult::Ack);
    assert_eq!(
        (log.lines().len(), store.stored_deliveries()),
        (7, 0),
        "nothing stored, nothing in the way"
    );
    stop(handle).await;
}

#[tokio::test(start_paused = true)]
async fn a_stored_retry_ends_in_a_letter_with_its_whole_history_and_the_next_goes_on() {
    let (store, log, heals) = (MemoryStore::default(), Log::default(), Arc::default());
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store)
        .on("fragile", first_fails(&log, &heals))
        .subscribe(subscriber);
    let handle = consumer.retry(RetryPolicy::attempts(3, MINUTE)).start().await.expect("starts");
    for n in 0..2 {
        assert_eq!(queue.deliver(Ok(order_of("a", n)), None).wait().await, AckResult::Ack);
    }
    until(&handle, |s| s.handled == 1).await;
    assert_eq!(log.lines(), ["a 0", "a 0", "a 0", "a 1"]);
    let letters = store.letters();
    assert_eq!(
        (letters.len(), letters[0].reason, letters[0].attempts),
        (1, DeadReason::Exhausted, 3)
    );
    assert_eq!(letters[0].errors.iter().map(|e| e.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    let stats = stop(handle).await;
    assert_eq!(
        (stats.stored, stats.dead_lettered, stats.retried, store.inbox_rows()),
        (2, 1, 1, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn what_expires_while_it_is_stored_is_not_run_again_and_the_next_goes_on() {
    let (store, log, heals) = (MemoryStore::default(), Log::default(), Arc::default());
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store)
        .on("fragile", first_fails(&log, &heals))
        .subscribe(subscriber);
    let handle = consumer.retry(RetryPolicy::attempts(3, MINUTE)).start().await.expect("starts");
    let brief = MessageParts {
        expires_at: Some(Timestamp::from_micros(1)),
        ..order_of("a", 0).into_parts()
    };
    for message in [Message::new(brief), order_of("a", 1)] {
        assert_eq!(queue.deliver(Ok(message), None).wait().await, AckResult::Ack);
    }
    until(&handle, |s| s.handled == 1).await;
    assert_eq!(log.lines(), ["a 0", "a 1"]);
    let letters = store.letters();
    assert_eq!(
        (letters.len(), letters[0].reason, letters[0].attempts),
        (1, DeadReason::Expired, 1)
    );
    assert_eq!(letters[0].errors.iter().map(|e| e.text.as_str()).collect::<Vec<_>>(), ["down"]);
    let stats = stop(handle).await;
    assert_eq!(
        (stats.stored, stats.dead_lettered, stats.retried, store.inbox_rows()),
        (2, 1, 0, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_snooze_is_no_failure_however_often_it_is_asked_for() {
    let store = MemoryStore::default();
    let patient = |_: OrderPlaced, cx: &Cx| {
        let waits = cx.attempt() < 8;
        async move { if waits { Err(HandlerError::snooze(MINUTE)) } else { Ok(()) } }
    };
    let (queue, subscriber) = queue();
    let handle = Consumer::builder("receipts", &store)
        .on("patient", patient)
        .subscribe(subscriber)
        .start()
        .await
        .expect("starts");
    assert_eq!(queue.deliver(Ok(order(1)), None).wait().await, AckResult::Ack);
    until(&handle, |s| s.handled == 1).await;
    assert_eq!((stop(handle).await.dead_lettered, store.stored_deliveries()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_was_never_answered_is_stored_before_it_is_handled() {
    let store = MemoryStore::default();
    let (queue, subscriber) = queue();
    let handle = Consumer::builder("receipts", &store)
        .on("write", write)
        .subscribe(subscriber)
        .start()
        .await
        .expect("starts");
    assert_eq!(queue.deliver(Ok(order(1)), Some(2)).wait().await, AckResult::Ack);
    assert_eq!(handle.stats().borrow().stored, 0, "once may be an accident");
    assert_eq!(queue.deliver(Ok(order(2)), Some(3)).wait().await, AckResult::Ack);
    until(&handle, |s| s.handled == 2).await;
    assert_eq!(stop(handle).await.stored, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stored_delivery_that_the_database_keeps_no_longer_is_a_letter_and_the_others_go_on() {
    let store = MemoryStore::default();
    let (_queue, subscriber) = queue();
    let large =
        |n: u64| Message::new(MessageParts { source: "/large".into(), ..order(n).into_parts() });
    // One that fails once more, one that no handler took and that is to be stored for those that do, and a neighbour.
    for (handler, message) in [("fragile", large(0)), ("", large(1)), ("fragile", order(2))] {
        let tx = store.begin().await.expect("up");
        let due_in = Some(Duration::ZERO);
        let put = DeferredDelivery {
            consumer: "receipts",
            handler,
            message: &message,
            due_in,
            history: History::default(),
        };
        assert!(store.defer(&tx, &put).await.expect("up"));
        store.commit(tx).await.expect("up");
    }
    store.refuse_deliveries("/large");
    let (log, never) = (Log::default(), Arc::default());
    let consumer = Consumer::builder("receipts", &store)
        .on("fragile", first_fails(&log, &never))
        .subscribe(subscriber);
    let handle = consumer.start().await.expect("starts");
    until(&handle, |s| s.dead_lettered == 2 && s.handled == 1).await;
    let letters = store.letters();
    assert!(letters.iter().all(|letter| letter.reason == DeadReason::NotRetried), "{letters:?}");
    assert_eq!(
        (stop(handle).await.retried, store.stored_deliveries(), log.lines().len()),
        (0, 0, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_was_begun_and_never_ended_five_times_is_buried_and_its_neighbours_are_handled() {
    let store = MemoryStore::default();
    let snoozing = |_: OrderPlaced, _: &Cx| async { Err::<(), _>(HandlerError::snooze(MINUTE)) };
    let (queue, subscriber) = queue();
    let handle = Consumer::builder("receipts", &store)
        .on("write", snoozing)
        .subscribe(subscriber)
        .start()
        .await
        .expect("starts");
    for n in 0..4 {
        assert_eq!(queue.deliver(Ok(order(n)), None).wait().await, AckResult::Ack);
    }
    stop(handle).await;
    tokio::time::sleep(MINUTE).await;
    // Processes that begin and die: the first takes all of them along, the next four only the one that kills.
    let lease = Duration::from_secs(5);
    for life in 0..5 {
        let by: Arc<str> = format!("life {life}").into();
        let handlers: [Arc<str>; 1] = ["write".into()];
        let query =
            ClaimQuery { consumer: "receipts", handlers: &handlers, by: &by, lease, limit: 10 };
        let claimed = store.claim(&query).await.expect("up");
        assert_eq!(claimed.len(), 4);
        for stored in claimed.iter().take(if life == 0 { 4 } else { 1 }) {
            assert!(store.extend_claim(&stored.claim, lease, true).await.expect("up"));
        }
        tokio::time::sleep(lease).await;
    }
    let (_queue, subscriber) = crate::support::queue();
    let handle = Consumer::builder("receipts", &store)
        .on("write", write)
        .subscribe(subscriber)
        .start()
        .await
        .expect("starts");
    until(&handle, |s| s.handled == 3 && s.dead_lettered == 1).await;
    let letters = store.letters();
    assert_eq!((letters.len(), letters[0].reason), (1, DeadReason::Crashed));
    assert_eq!(store.rows(), ["write:1", "write:2", "write:3"]);
    stop(handle).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_costs_a_stored_delivery_neither_attempt_nor_life() {
    let (store, log) = (MemoryStore::default(), Log::default());
    let noting = {
        let (log, store) = (log.clone(), store.clone());
        move |_: OrderPlaced, cx: &Cx| {
            log.note(format!("attempt {}", cx.attempt()));
            let (attempt, runs) = (cx.attempt(), log.lines().len());
            // The store goes away under the second attempt, again and again.
            store.set_down((2..7).contains(&runs));
            async move { if attempt == 1 { Err(HandlerError::snooze(MINUTE)) } else { Ok(()) } }
        }
    };
    let (queue, subscriber) = queue();
    let handle = Consumer::builder("receipts", &store)
        .on("note", noting)
        .subscribe(subscriber)
        .start()
        .await
        .expect("starts");
    assert_eq!(queue.deliver(Ok(order(1)), None).wait().await, AckResult::Ack);
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        store.set_down(false);
        if handle.stats().borrow().handled == 1 {
            break;
        }
    }
    let lines = log.lines();
    assert_eq!(
        (lines.len(), &lines[0], &lines[6]),
        (7, &"attempt 1".to_owned(), &"attempt 2".to_owned())
    );
    let stats = stop(handle).await;
    assert_eq!((stats.handled, stats.dead_lettered, store.letters().len()), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_runs_out_while_the_store_is_away_costs_no_life() {
    let (store, log) = (MemoryStore::default(), Log::default());
    let cut_off = {
        let (log, store) = (log.clone(), store.clone());
        move |_: OrderPlaced, cx: &Cx| {
            log.note(format!("attempt {}", cx.attempt()));
            let (attempt, runs, store) = (cx.attempt(), log.lines().len(), store.clone());
            async move {
                match (attempt, runs) {
                    (1, _) => Err(HandlerError::snooze(MINUTE)),
                    (_, ..7) => {
                        // Longer than the lease.
                        store.set_down(true);
                        std::future::pending().await
                    }
                    _ => Ok(()),
                }
            }
        }
    };
    let (queue, subscriber) = queue();
    let handle = Consumer::builder("receipts", &store)
        .on("slow", cut_off)
        .subscribe(subscriber)
        .start()
        .await
        .expect("starts");
    assert_eq!(queue.deliver(Ok(order(1)), None).wait().await, AckResult::Ack);
    for _ in 0..30 {
        tokio::time::sleep(2 * MINUTE).await;
        store.set_down(false);
        if handle.stats().borrow().handled == 1 {
            break;
        }
    }
    assert_eq!(log.lines().len(), 7);
    let stats = stop(handle).await;
    assert_eq!((stats.handled, stats.dead_lettered, store.letters().len()), (1, 0, 0));
}
