//! Commands of sagas: behind the barrier, with one answer.

use crate::support::{Cx, OrderPlaced, consumer, parts, stop, write};
use outbox_core::{
    consumer::ReplyError,
    event::{EncodeError, EventMeta, Message, NewEvent, OutboxEvent, SagaId},
    failure::{DeadReason, RetryPolicy},
    saga::{Call, REJECTED, UNDONE, reply_to},
    testing::MemoryStore,
    transport::Publisher,
};
use std::time::Duration;

/// What came of an order.
struct Placed(u64);

impl OutboxEvent for Placed {
    fn meta(&self) -> EventMeta<'_> {
        EventMeta::new("order.accepted").topic("orders.told").key(Some("own")).header("tenant", Some("acme"))
    }

    fn payload(&self) -> Result<bytes::Bytes, EncodeError> {
        Ok(self.0.to_string().into())
    }
}

fn command(saga: SagaId, phase: &str, number: u64) -> Message {
    let mut parts = parts("order.placed", &number.to_string(), None);
    for (name, value) in [
        ("sagaid", saga.to_string().as_str()),
        ("sagastep", "place"),
        ("sagaround", "1"),
        ("sagaphase", phase),
        ("replyto", "sagas"),
    ] {
        parts.headers.insert(name, value).expect("legal");
    }
    Message::new(parts)
}

/// Writes a row, and answers by the order's number.
async fn places(order: OrderPlaced, cx: &Cx) -> Result<(), ReplyError> {
    cx.tx.insert(format!("{} {}", cx.call().map_or("event", |call| call.phase.as_str()), order.0));
    match order.0 {
        0 => cx.refuse("no such order"),
        1 => cx.reply(Placed(1)),
        2 => cx.reject(Placed(2)),
        3 => cx.reply(Placed(3)).and_then(|()| cx.reply(Placed(3))),
        _ => Ok(()),
    }
}

fn said(events: &[NewEvent]) -> Vec<(&str, &[u8])> {
    events.iter().map(|event| (event.event_type.as_str(), &event.payload[..])).collect()
}

#[tokio::test(start_paused = true)]
async fn each_command_is_answered_and_only_what_was_done_stays() {
    let store = MemoryStore::default();
    let (consumer, publisher) = consumer(&store);
    let handle = consumer.on("place", places).start().await.expect("starts");
    let saga = SagaId::generate();
    for (phase, number) in [("do", 1), ("do", 9), ("undo", 0), ("undo", 9), ("undo", 1), ("do", 1)] {
        publisher.publish(&command(saga, phase, number)).await.expect("acknowledged");
    }
    let events = store.events();
    let accepted = ("order.accepted", &b"1"[..]);
    let refused = (REJECTED, &br#"{"reason":"no such order"}"#[..]);
    let undone = (UNDONE, &b"null"[..]);
    assert_eq!(said(&events), [accepted, accepted, refused, undone, undone, accepted]);
    assert_eq!(store.rows(), ["do 1", "undo 9"]);
    for event in &events {
        let call = Call::read(&event.headers).expect("whole").expect("an answer");
        assert_eq!((call.saga, call.step.as_str(), reply_to(&event.headers)), (saga, "place", None));
        assert_eq!((event.topic.as_str(), event.key.as_deref()), ("sagas", Some(saga.to_string().as_str())));
        assert!(event.headers.get("correlationid").is_some(), "it follows from its command");
    }
    assert_eq!(events[1].headers.get("tenant"), Some("acme"));
    let stats = stop(handle).await;
    assert_eq!((stats.handled, stats.buried, store.open_transactions()), (6, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_comes_too_late_and_what_was_rejected_leave_nothing() {
    let store = MemoryStore::default();
    let (consumer, publisher) = consumer(&store);
    let handle = consumer.on("place", places).batched(4).start().await.expect("starts");
    let (late, rejected) = (SagaId::generate(), SagaId::generate());
    for (saga, phase, number) in
        [(late, "undo", 1), (late, "do", 1), (rejected, "do", 2), (rejected, "do", 1), (rejected, "undo", 1)]
    {
        publisher.publish(&command(saga, phase, number)).await.expect("acknowledged");
    }
    let events = store.events();
    let types: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(types, [UNDONE, REJECTED, "order.accepted", "order.accepted", UNDONE]);
    assert!(store.rows().is_empty());
    stop(handle).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_is_answered_by_an_event_and_one_answer_is_all() {
    let store = MemoryStore::default();
    let (consumer, publisher) = consumer(&store);
    let once = RetryPolicy::attempts(1, Duration::from_secs(1));
    let handle = consumer.on("place", places).retry(once).start().await.expect("starts");
    for number in [1, 0, 3, 9] {
        publisher.publish(&crate::support::order(number)).await.expect("acknowledged");
    }
    assert_eq!(said(&store.events()), [("order.accepted", &b"1"[..])]);
    assert_eq!((store.events()[0].topic.as_str(), store.events()[0].key.as_deref()), ("orders.told", Some("own")));
    assert_eq!(store.rows(), ["event 1", "event 9"]);
    let errors: Vec<String> = store.letters().iter().map(|letter| letter.errors[0].text.clone()).collect();
    assert!(errors[0].contains("no command") && errors[1].contains("answered already"), "{errors:?}");
    stop(handle).await;
}

#[tokio::test(start_paused = true)]
async fn commands_that_nobody_can_answer_for_are_dead_letters() {
    let store = MemoryStore::default();
    let (consumer, publisher) = consumer(&store);
    let handle = consumer.on("place", places).on("write", write).start().await.expect("starts");
    publisher.publish(&command(SagaId::generate(), "do", 9)).await.expect("acknowledged");
    let mut torn = command(SagaId::generate(), "do", 9).into_parts();
    torn.headers.remove("sagastep");
    publisher.publish(&Message::new(torn)).await.expect("acknowledged");
    let letters = store.letters();
    assert_eq!(letters.len(), 4, "one of each handler");
    assert!(letters.iter().all(|letter| letter.reason == DeadReason::Rejected && letter.attempts == 1));
    assert!(letters[0].errors[0].text.contains("one handler; `place`, `write` take `order.placed`"));
    assert!(letters[2].errors[0].text.contains("`sagastep`"), "{}", letters[2].errors[0].text);
    assert!(store.events().is_empty() && store.rows().is_empty());
    stop(handle).await;
}
