//! What can be set: acknowledgement, layers, batches, the kill switch.

use crate::support::{
    AckResult, Cx, Log, OrderPlaced, consumer, order, order_of, parts, queue, stop, until, write,
};
use futures_util::future::join_all;
use outbox_core::{
    consumer::{
        AckMode, ConcurrencyLimit, Consumer, DeadLetters, HandlerContext, HandlerError,
        HandlerLayer, KillSwitch, Next, Timeout,
    },
    event::Message,
    failure::DeadReason,
    testing::{MemoryStore, MemoryTx},
    transport::{Delivery, Publisher},
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

#[tokio::test(start_paused = true)]
async fn acknowledged_before_a_message_is_handled_at_most_once() {
    let (store, log) = (MemoryStore::default(), Log::default());
    let failing = {
        let log = log.clone();
        move |order: OrderPlaced, _: &Cx| {
            log.note(order.0.to_string());
            async move { if order.0 == 1 { Err("down") } else { Ok(()) } }
        }
    };
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store).on("fail", failing).subscribe(subscriber);
    let handle = consumer.acknowledge(AckMode::Before).start().await.expect("starts");
    for n in 1..3 {
        assert_eq!(queue.deliver(Ok(order(n)), None).wait().await, AckResult::Ack);
    }
    until(&handle, |s| s.handled == 1 && s.dead_lettered == 1).await;
    assert_eq!(store.letters()[0].reason, DeadReason::NotRetried);
    let stats = stop(handle).await;
    assert_eq!((log.lines().len(), stats.acked, stats.retried), (2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn by_hand_the_handler_answers_when_it_likes() {
    let store = MemoryStore::default();
    let kept: Arc<Mutex<Vec<Delivery>>> = Arc::default();
    let keeping = {
        let kept = kept.clone();
        move |order: OrderPlaced, cx: &Cx| {
            let fails = order.0 == 2;
            if order.0 == 1 {
                kept.lock().expect("sound").extend(cx.take_delivery());
                assert!(cx.take_delivery().is_none(), "it is taken");
            }
            async move { if fails { Err("down") } else { Ok(()) } }
        }
    };
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store).on("keep", keeping).subscribe(subscriber);
    let handle = consumer.acknowledge(AckMode::Manual).start().await.expect("starts");
    let (taken, failed) = (queue.deliver(Ok(order(1)), None), queue.deliver(Ok(order(2)), None));
    assert_eq!(failed.wait().await, AckResult::Nack, "an error returns what the handler left");
    until(&handle, |s| s.handled == 1 && s.in_flight == 0).await;
    let delivery = kept.lock().expect("sound").pop().expect("it is kept");
    delivery.reject("too late").await.expect("the queue is there");
    assert_eq!(taken.wait().await, AckResult::Reject("too late".into()));
    // A delivery that is done and was not acknowledged comes again, and is acknowledged then.
    let forgotten = order(3);
    assert_eq!(queue.deliver(Ok(forgotten.clone()), None).wait().await, AckResult::Nack);
    assert_eq!(queue.deliver(Ok(forgotten), None).wait().await, AckResult::Ack);
    let stats = stop(handle).await;
    assert_eq!((stats.handled, stats.duplicates, stats.retried, stats.dead_lettered), (2, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn by_hand_a_handler_may_ask_for_its_acknowledgement_behind_the_commit() {
    let (store, log) = (MemoryStore::default(), Log::default());
    let asking = {
        let log = log.clone();
        move |order: OrderPlaced, cx: &Cx| {
            cx.tx.insert(format!("asked:{}", order.0));
            log.note(cx.ack_after_commit().to_string());
            async move { if order.0 == 2 { Err("down") } else { Ok(()) } }
        }
    };
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store).on("ask", asking).subscribe(subscriber);
    let handle = consumer.acknowledge(AckMode::Manual).start().await.expect("starts");
    assert_eq!(queue.deliver(Ok(order(1)), None).wait().await, AckResult::Ack);
    assert_eq!(store.rows(), ["asked:1"], "it is committed by then");
    assert_eq!(
        queue.deliver(Ok(order(2)), None).wait().await,
        AckResult::Nack,
        "nothing was committed"
    );
    assert_eq!(log.lines(), ["true", "true"]);
    assert!(store.letters().is_empty());
    stop(handle).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_acknowledged_and_then_rolled_back_is_a_dead_letter_and_not_lost() {
    let store = MemoryStore::default();
    let hasty = |order: OrderPlaced, cx: &Cx| {
        let delivery = cx.take_delivery().expect("it is here");
        assert!(!cx.ack_after_commit(), "the consumer has it no more");
        async move {
            delivery.ack().await?;
            if order.0 == 1 { Err(HandlerError::retry("down")) } else { Ok(()) }
        }
    };
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store).on("hasty", hasty).subscribe(subscriber);
    let consumer = consumer.dead_letters(DeadLetters::Transport);
    let handle = consumer.acknowledge(AckMode::Manual).start().await.expect("starts");
    for n in 1..3 {
        assert_eq!(queue.deliver(Ok(order(n)), None).wait().await, AckResult::Ack);
    }
    until(&handle, |s| s.handled == 1 && s.dead_lettered == 1).await;
    let letters = store.letters();
    assert_eq!(letters.len(), 1, "the second one went well");
    let message = letters[0].message.as_ref().expect("it is kept");
    assert_eq!(
        (letters[0].reason, message.payload.as_ref()),
        (DeadReason::NotRetried, b"1".as_slice())
    );
    stop(handle).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_without_a_delivery_is_a_letter_here_though_letters_go_to_the_transport() {
    let store = MemoryStore::default();
    let failing = |_: OrderPlaced, _: &Cx| async { Err::<(), _>("down") };
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store).on("fail", failing).subscribe(subscriber);
    let consumer = consumer.dead_letters(DeadLetters::Transport);
    let handle = consumer.acknowledge(AckMode::Before).start().await.expect("starts");
    assert_eq!(queue.deliver(Ok(order(1)), None).wait().await, AckResult::Ack);
    until(&handle, |s| s.dead_lettered == 1).await;
    assert_eq!(store.letters()[0].reason, DeadReason::NotRetried);
    stop(handle).await;
}

struct Noting(Log, &'static str);

impl HandlerLayer<MemoryTx> for Noting {
    async fn handle(
        &self,
        cx: &HandlerContext<MemoryTx>,
        next: Next<'_, MemoryTx>,
    ) -> Result<(), HandlerError> {
        self.0.note(format!("{} before {}", self.1, cx.handler()));
        if cx.message().headers.get("forbidden").is_some() {
            return Err(HandlerError::reject("forbidden"));
        }
        let answer = next.run(cx).await;
        self.0.note(format!("{} after {}", self.1, cx.handler()));
        answer
    }
}

#[tokio::test(start_paused = true)]
async fn layers_stand_around_every_handler_the_first_outermost() {
    let (store, log) = (MemoryStore::default(), Log::default());
    let (consumer, publisher) = consumer(&store);
    let consumer = consumer
        .on("write", write)
        .layer(Noting(log.clone(), "outer"))
        .layer(Noting(log.clone(), "inner"));
    let handle = consumer.start().await.expect("starts");
    publisher.publish(&order(1)).await.expect("handled");
    let expected =
        ["outer before write", "inner before write", "inner after write", "outer after write"];
    assert_eq!(log.lines(), expected);
    let mut forbidden = parts("order.placed", "2", None);
    forbidden.headers.insert("forbidden", "yes").expect("a legal name");
    publisher.publish(&Message::new(forbidden)).await.expect("given up");
    assert_eq!((log.lines().len(), store.letters()[0].reason), (5, DeadReason::Rejected));
    assert_eq!(store.rows(), ["write:1"]);
    stop(handle).await;
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_a_failure_that_leaves_nothing() {
    let store = MemoryStore::default();
    let slow = |_: OrderPlaced, cx: &Cx| {
        cx.tx.insert(format!("attempt {}", cx.attempt()));
        let hangs = cx.attempt() == 1;
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok::<_, std::io::Error>(())
        }
    };
    let (consumer, publisher) = consumer(&store);
    let handle = consumer
        .on("slow", slow)
        .layer(Timeout(Duration::from_secs(5)))
        .start()
        .await
        .expect("starts");
    publisher.publish(&order(1)).await.expect("the second attempt succeeds");
    assert_eq!((store.rows(), store.open_transactions()), (vec!["attempt 2".to_owned()], 0));
    assert_eq!(stop(handle).await.retried, 1);
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_is_shared_between_consumers() {
    let store = MemoryStore::default();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let limit = ConcurrencyLimit::new(2);
    let mut parts = Vec::new();
    for name in ["receipts", "mails"] {
        let (running, most) = (running.clone(), most.clone());
        let counting = move |_: OrderPlaced, _: &Cx| {
            let (running, most) = (running.clone(), most.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, std::io::Error>(())
            }
        };
        let (queue, subscriber) = queue();
        let consumer = Consumer::builder(name, &store)
            .on("count", counting)
            .layer(limit.clone())
            .subscribe(subscriber);
        parts.push((queue, consumer.start().await.expect("starts")));
    }
    let answers: Vec<_> = parts
        .iter()
        .flat_map(|(queue, _)| (0..8).map(|n| queue.deliver(Ok(order(n)), None).wait()))
        .collect();
    assert!(join_all(answers).await.iter().all(|answer| *answer == AckResult::Ack));
    assert_eq!(most.load(Ordering::SeqCst), 2);
    for (_, handle) in parts {
        stop(handle).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_one_transaction_with_verdicts_for_each_and_the_order_of_keys() {
    let (store, log) = (MemoryStore::default(), Log::default());
    let picky = {
        let log = log.clone();
        move |order: OrderPlaced, cx: &Cx| {
            log.note(format!("{} attempt {}", order.0, cx.attempt()));
            cx.tx.insert(order.0.to_string());
            let attempt = cx.attempt();
            async move {
                match (order.0, attempt) {
                    (3, _) => Err(HandlerError::reject("three")),
                    (4, 1) => Err(HandlerError::retry("at first")),
                    _ => Ok(()),
                }
            }
        }
    };
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store)
        .on("picky", picky)
        .subscribe(subscriber)
        .batched(10)
        .concurrency(1);
    let twice = order_of("c", 2);
    let mut sent: Vec<Message> = (0..6).map(|n| order_of(&format!("k{n}"), n)).collect();
    sent.extend([order_of("a", 10), order_of("a", 11), twice.clone(), twice, order_of("a", 12)]);
    let answers: Vec<_> =
        sent.iter().map(|message| queue.deliver(Ok(message.clone()), None).wait()).collect();
    let handle = consumer.start().await.expect("starts");
    assert!(join_all(answers).await.iter().all(|answer| *answer == AckResult::Ack));
    let mut rows = store.rows();
    let of_a: Vec<_> =
        rows.iter().filter(|row| row.starts_with('1') && row.len() == 2).cloned().collect();
    assert_eq!(of_a, ["10", "11", "12"]);
    rows.sort();
    assert_eq!(rows, ["0", "1", "10", "11", "12", "2", "2", "4", "5"]);
    let attempts: Vec<_> = log.lines().into_iter().filter(|line| line.starts_with("4 ")).collect();
    assert_eq!(attempts, ["4 attempt 1", "4 attempt 2"], "the failure in the batch was counted");
    assert_eq!((store.letters().len(), store.letters()[0].attempts), (1, 1));
    let stats = stop(handle).await;
    assert_eq!((stats.handled, stats.duplicates, stats.acked, stats.dead_lettered), (9, 1, 11, 1));
    assert_eq!((store.inbox_rows(), store.open_transactions()), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_commit_is_refused_is_handled_one_by_one() {
    let store = MemoryStore::default();
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store)
        .on("write", write)
        .subscribe(subscriber)
        .batched(10)
        .concurrency(1);
    let answers: Vec<_> = (0..8).map(|n| queue.deliver(Ok(order(n)), None).wait()).collect();
    store.refuse_commits(1);
    let handle = consumer.start().await.expect("starts");
    assert!(join_all(answers).await.iter().all(|answer| *answer == AckResult::Ack));
    let stats = stop(handle).await;
    assert_eq!((store.rows().len(), stats.handled, stats.returned), (8, 8, 0));
}

#[tokio::test(start_paused = true)]
async fn while_most_runs_fail_the_consumer_pauses_probes_and_resumes() {
    let (store, runs) = (MemoryStore::default(), Arc::new(AtomicUsize::new(0)));
    let failing = {
        let runs = runs.clone();
        move |_: OrderPlaced, _: &Cx| {
            let fails = runs.fetch_add(1, Ordering::SeqCst) < 6;
            async move { if fails { Err("down") } else { Ok(()) } }
        }
    };
    let switch =
        KillSwitch::default().window(5).pause(Duration::from_secs(10), Duration::from_secs(60));
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store)
        .on("fail", failing)
        .subscribe(subscriber)
        .concurrency(1);
    let once = outbox_core::failure::RetryPolicy::attempts(1, Duration::ZERO);
    let handle = consumer.retry(once).kill_switch(switch).start().await.expect("starts");
    let begun = tokio::time::Instant::now();
    let answers: Vec<_> = (0..50).map(|n| queue.deliver(Ok(order(n)), None).wait()).collect();
    until(&handle, |s| s.paused).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 5, "nothing runs meanwhile");
    assert!(handle.stats().borrow().received < 50, "nor is everything taken");
    // The first probe fails after 10 s, the second succeeds after 20 more.
    assert!(join_all(answers).await.iter().all(|answer| *answer == AckResult::Ack));
    assert_eq!(begun.elapsed().as_secs(), 30);
    let stats = stop(handle).await;
    assert_eq!((stats.handled, stats.dead_lettered, stats.paused), (44, 6, false));
}
