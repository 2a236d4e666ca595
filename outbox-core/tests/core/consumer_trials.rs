//! Handlers that an operator tries on a dead letter, in memory: what they returned, and that nothing
//! stays.

use crate::support::{Cx, OrderPlaced, Queue, order, parts, queue, stop, until, write};
use outbox_core::{
    consumer::{
        Consumer, ConsumerBuilder, HandlerContext, HandlerError, HandlerLayer, HandlerOptions,
        Next, Trial, TrialRefusal, TrialResult,
    },
    event::{EncodeError, EventId, EventMeta, LetterId, Message, OutboxEvent, SagaId, Timestamp},
    failure::{ConsumerOrigin, DeadLetter, DeadReason},
    saga::{DONE, REJECTED},
    testing::MemoryStore,
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// What came of an order.
struct Placed(u64);

impl OutboxEvent for Placed {
    fn meta(&self) -> EventMeta<'_> {
        EventMeta::new("order.accepted").topic("orders.told").key(Some("own"))
    }

    fn payload(&self) -> Result<bytes::Bytes, EncodeError> {
        Ok(self.0.to_string().into())
    }
}

fn letter(handler: &str, message: Message) -> DeadLetter {
    let origin = ConsumerOrigin { consumer: "receipts".to_owned(), handler: handler.to_owned() };
    let (id, event, at) = (LetterId(1), EventId(0), Timestamp::from_micros(1));
    let reason = DeadReason::Exhausted;
    DeadLetter::new(
        id,
        event,
        Some(message),
        String::new(),
        reason,
        3,
        Vec::new(),
        false,
        at,
        None,
        None,
    )
    .with_consumer_origin(Some(origin))
}

/// Ends in each way that a handler can, by the order's number.
async fn ends(order: OrderPlaced, cx: &Cx) -> Result<(), HandlerError> {
    cx.tx.insert(format!("order {}, attempt {}", order.0, cx.attempt()));
    match order.0 {
        0 => Ok(()),
        1 => Err(HandlerError::reject("an amount is positive")),
        2 => Err(HandlerError::snooze(60 * SECOND)),
        3 => Err(std::io::Error::other("the bank is down").into()),
        4 => panic!("on purpose"),
        _ => std::future::pending().await,
    }
}

/// Replies to a command by the order's number.
async fn replies(order: OrderPlaced, cx: &Cx) -> Result<(), HandlerError> {
    cx.tx.insert("a bill");
    match order.0 {
        0 => cx.reject_with_reason("no such order")?,
        1 => cx.reply(Placed(1))?,
        _ => {}
    }
    Ok(())
}

struct OnlyOrders;

impl<Tx: Send + Sync + 'static> HandlerLayer<Tx> for OnlyOrders {
    async fn handle(
        &self,
        cx: &HandlerContext<Tx>,
        next: Next<'_, Tx>,
    ) -> Result<(), HandlerError> {
        match cx.message().topic.as_str() {
            "orders" => next.run(cx).await,
            topic => Err(HandlerError::reject(format!("not of {topic}"))),
        }
    }
}

async fn started(
    store: &MemoryStore,
    with: impl FnOnce(ConsumerBuilder<MemoryStore>) -> ConsumerBuilder<MemoryStore>,
) -> (Queue, Consumer) {
    let (queue, subscriber) = queue();
    let consumer = with(Consumer::builder("receipts", store));
    (queue, consumer.subscribe(subscriber).start().await.expect("starts"))
}

async fn tried(consumer: &Consumer, handler: &str, message: Message) -> Trial {
    consumer.try_handle(&letter(handler, message)).await.expect("it is tried")
}

#[tokio::test(start_paused = true)]
async fn a_try_tells_how_the_handler_ended_and_nothing_of_it_stays() {
    let store = MemoryStore::default();
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", &store).on("ends", ends).layer(OnlyOrders);
    let handle = consumer.subscribe(subscriber).start().await.expect("starts");
    for (number, result, text, took) in [
        (0, TrialResult::Done, "", 0),
        (1, TrialResult::Rejected, "an amount is positive", 0),
        (2, TrialResult::Snoozed, "it asks to run again in 60s", 0),
        (3, TrialResult::Failed, "the bank is down", 0),
        (4, TrialResult::Failed, "a panic: on purpose", 0),
        (5, TrialResult::TimedOut, "it did not end within 5s", 5_000),
    ] {
        let trial = tried(&handle, "ends", order(number)).await;
        assert_eq!((trial.result, trial.text.as_str(), trial.took_ms), (result, text, took));
        assert_eq!(trial.tables.iter().filter_map(|change| change.rows).sum::<u64>(), 1);
    }
    let undecodable = Message::new(parts("order.placed", "no number", None));
    assert_eq!(tried(&handle, "ends", undecodable).await.result, TrialResult::Undecodable);
    let mut newer = parts("order.placed", "0", None);
    newer.event_version = 2;
    assert_eq!(tried(&handle, "ends", Message::new(newer)).await.result, TrialResult::Unknown);
    let mut other = parts("order.placed", "0", None);
    other.topic = "stock".into();
    let trial = tried(&handle, "ends", Message::new(other)).await;
    assert_eq!((trial.result, trial.text.as_str()), (TrialResult::Rejected, "not of stock"));
    store.refuse_commits(1);
    let trial = tried(&handle, "ends", order(0)).await;
    assert_eq!((trial.result, trial.text.as_str()), (TrialResult::Failed, "a deadlock's victim"));
    store.refuse_commits(0);

    assert_eq!((store.rows().len(), store.events().len(), store.open_transactions()), (0, 0, 0));
    assert_eq!(store.inbox_rows(), 0, "a redrive runs the handler");
    let stats = *handle.stats().borrow();
    assert_eq!((stats.received, stats.handled, stats.retried, stats.dead_lettered), (0, 0, 0, 0));
    // The consumer works beside it.
    let delivered = queue.deliver(Ok(order(0)), None).wait();
    until(&handle, |stats| stats.handled == 1).await;
    delivered.await;
    assert_eq!(store.rows(), ["order 0, attempt 1"]);
    stop(handle).await;
}

#[tokio::test(start_paused = true)]
async fn a_try_of_a_command_shows_the_reply_and_leaves_no_row_in_the_barrier() {
    let store = MemoryStore::default();
    let (_queue, handle) = started(&store, |consumer| {
        consumer.on_command("place", replies).commands_from("/shop", "sagas").on("told", replies)
    })
    .await;
    let saga = SagaId::generate().to_string();
    let command = |number: u64, source: &str| {
        let mut parts = parts("order.placed", &number.to_string(), None);
        parts.source = source.into();
        for (name, value) in [
            ("sagaid", saga.as_str()),
            ("sagastep", "place"),
            ("sagaround", "1"),
            ("sagaphase", "do"),
            ("replyto", "sagas"),
        ] {
            parts.headers.insert(name, value).expect("legal");
        }
        Message::new(parts)
    };
    for (number, result, event, rows) in [
        (0, TrialResult::Rejected, REJECTED, 0),
        (1, TrialResult::Done, "order.accepted", 1),
        (2, TrialResult::Done, DONE, 1),
    ] {
        // Twice: nothing is remembered of the first time.
        for _ in 0..2 {
            let trial = tried(&handle, "place", command(number, "/shop")).await;
            assert_eq!(trial.result, result, "{trial:?}");
            let [reply] = trial.events.as_slice() else { panic!("{trial:?}") };
            assert_eq!((reply.topic.as_str(), reply.event_type.as_str()), ("sagas", event));
            assert_eq!(reply.key.as_ref(), Some(&saga));
            let changed: u64 = trial.tables.iter().filter_map(|change| change.rows).sum();
            assert_eq!((changed, trial.notes.len()), (rows, 2), "{trial:?}");
        }
    }
    let stranger = tried(&handle, "place", command(1, "/stranger")).await;
    assert!(stranger.result == TrialResult::Rejected && stranger.text.contains("/stranger"));
    // To the other handler it is an event, and its reply one like others.
    let told = tried(&handle, "told", command(1, "/shop")).await;
    assert_eq!((told.events[0].topic.as_str(), told.notes.len()), ("orders.told", 1));
    assert_eq!((store.rows().len(), store.events().len(), store.open_transactions()), (0, 0, 0));
    stop(handle).await;
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_tried_is_refused_and_a_renamed_handler_is_found() {
    let store = MemoryStore::default();
    let (_queue, handle) = started(&store, |consumer| {
        let renamed = HandlerOptions::new().renamed_from("mail");
        let charges = HandlerOptions::new().no_try("it charges the card");
        consumer.on_with("send", renamed, write).on_with("charge", charges, write)
    })
    .await;
    assert_eq!(tried(&handle, "mail", order(1)).await.handler, "send");
    let refused = handle.try_handle(&letter("charge", order(1))).await;
    assert!(
        matches!(&refused, Err(TrialRefusal::NoTry { handler, reason }) if handler == "charge" && *reason == "it charges the card"),
        "{refused:?}"
    );
    store.set_down(true);
    let refused = handle.try_handle(&letter("send", order(1))).await;
    assert!(matches!(refused, Err(TrialRefusal::Store(_))), "{refused:?}");
    store.set_down(false);
    let trials = handle.trials();
    assert_eq!(trials.consumer(), "receipts");
    stop(handle).await;
    let refused = trials.try_handle(&letter("send", order(1))).await;
    assert!(matches!(refused, Err(TrialRefusal::Ended)), "{refused:?}");
}
