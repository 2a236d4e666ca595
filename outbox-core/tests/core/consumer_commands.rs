//! Commands of sagas: behind the barrier, with one answer.

use crate::support::{Cx, OrderPlaced, consumer, parts, stop, write};
use outbox_core::{
    consumer::{ConsumerBuilder, ConsumerError, ReplyError},
    event::{EncodeError, EventMeta, Message, MessageParts, NewEvent, OutboxEvent, SagaId},
    failure::{DeadReason, RetryPolicy},
    saga::{CommandId, REJECTED, UNDONE, reply_to},
    testing::MemoryStore,
    transport::Publisher,
};
use std::time::Duration;

/// What came of an order.
struct Placed(u64);

impl OutboxEvent for Placed {
    fn meta(&self) -> EventMeta<'_> {
        EventMeta::new("order.accepted")
            .topic("orders.told")
            .key(Some("own"))
            .header("tenant", Some("acme"))
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
    cx.tx.insert(format!(
        "{} {}",
        cx.command_id().map_or("event", |call| call.phase.as_str()),
        order.0
    ));
    match order.0 {
        0 => cx.reject_with_reason("no such order"),
        1 => cx.reply(Placed(1)),
        2 => cx.reject(Placed(2)),
        3 => cx.reply(Placed(3)).and_then(|()| cx.reply(Placed(3))),
        _ => Ok(()),
    }
}

/// Adds the handler that answers, to a saga of the shop.
fn answering(consumer: ConsumerBuilder<MemoryStore>) -> ConsumerBuilder<MemoryStore> {
    consumer.on_command("place", places).commands_from("/shop", "sagas")
}

fn said(events: &[NewEvent]) -> Vec<(&str, &[u8])> {
    events.iter().map(|event| (event.event_type.as_str(), &event.payload[..])).collect()
}

#[tokio::test(start_paused = true)]
async fn each_command_is_answered_and_only_what_was_done_stays() {
    let store = MemoryStore::default();
    let (consumer, publisher) = consumer(&store);
    let handle = answering(consumer).start().await.expect("starts");
    let saga = SagaId::generate();
    for (phase, number) in [("do", 1), ("do", 1), ("undo", 0), ("undo", 9), ("undo", 1), ("do", 1)]
    {
        publisher.publish(&command(saga, phase, number)).await.expect("acknowledged");
    }
    let events = store.events();
    let accepted = ("order.accepted", &b"1"[..]);
    let refused = (REJECTED, &br#"{"reason":"no such order"}"#[..]);
    let undone = (UNDONE, &b"null"[..]);
    assert_eq!(said(&events), [accepted, accepted, refused, undone, undone, accepted]);
    assert_eq!(store.rows(), ["do 1", "undo 9"]);
    for event in &events {
        let call = CommandId::read(&event.headers).expect("whole").expect("an answer");
        assert_eq!(
            (call.saga, call.step.as_str(), reply_to(&event.headers)),
            (saga, "place", None)
        );
        assert_eq!(
            (event.topic.as_str(), event.key.as_deref()),
            ("sagas", Some(saga.to_string().as_str()))
        );
        assert!(event.headers.get("correlationid").is_some(), "it follows from its command");
    }
    assert_eq!(events[1].headers.get("tenant"), Some("acme"));
    let stats = stop(handle).await;
    assert_eq!((stats.handled, stats.dead_lettered, store.open_transactions()), (6, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_comes_too_late_and_what_was_rejected_leave_nothing() {
    let store = MemoryStore::default();
    let (consumer, publisher) = consumer(&store);
    let handle = answering(consumer).batched(4).start().await.expect("starts");
    let (late, rejected) = (SagaId::generate(), SagaId::generate());
    for (saga, phase, number) in [
        (late, "undo", 1),
        (late, "do", 1),
        (rejected, "do", 2),
        (rejected, "do", 2),
        (rejected, "undo", 1),
    ] {
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
    let handle = answering(consumer).retry(once).start().await.expect("starts");
    for number in [1, 0, 3, 9] {
        publisher.publish(&crate::support::order(number)).await.expect("acknowledged");
    }
    assert_eq!(said(&store.events()), [("order.accepted", &b"1"[..])]);
    assert_eq!(
        (store.events()[0].topic.as_str(), store.events()[0].key.as_deref()),
        ("orders.told", Some("own"))
    );
    assert_eq!(store.rows(), ["event 1", "event 9"]);
    let errors: Vec<String> =
        store.letters().iter().map(|letter| letter.errors[0].text.clone()).collect();
    assert!(
        errors[0].contains("no command") && errors[1].contains("replied already"),
        "{errors:?}"
    );
    stop(handle).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_is_an_event_to_every_other_handler_and_its_headers_make_none_of_it() {
    let store = MemoryStore::default();
    let (consumer, publisher) = consumer(&store);
    let consumer = answering(consumer).on("write", write).on("audit", places);
    let handle = consumer.start().await.expect("starts");
    let saga = SagaId::generate();
    for (phase, number) in [("do", 1), ("undo", 1), ("do", 1)] {
        publisher.publish(&command(saga, phase, number)).await.expect("acknowledged");
    }
    let audited = |event: &&NewEvent| event.topic == "orders.told";
    let events = store.events();
    assert_eq!(events.iter().filter(audited).count(), 3, "what it replies is an event: {events:?}");
    let answers: Vec<NewEvent> = events.into_iter().filter(|event| !audited(&event)).collect();
    assert_eq!(
        said(&answers),
        [("order.accepted", &b"1"[..]); 3],
        "the handler for commands answers, alone"
    );
    let rows = store.rows();
    let count = |row: &str| rows.iter().filter(|other| *other == row).count();
    assert_eq!(
        (count("do 1"), count("undo 1"), count("event 1"), count("write:1")),
        (1, 1, 3, 3),
        "{rows:?}"
    );
    stop(handle).await;
}

#[tokio::test(start_paused = true)]
async fn commands_that_are_not_taken_are_dead_letters_and_do_nothing() {
    let store = MemoryStore::default();
    let (consumer, publisher) = consumer(&store);
    let handle = answering(consumer).start().await.expect("starts");
    let change = |change: fn(&mut MessageParts)| {
        let mut parts = command(SagaId::generate(), "do", 9).into_parts();
        change(&mut parts);
        Message::new(parts)
    };
    let cases = [
        (change(|m| drop(m.headers.remove("sagastep"))), "`sagastep`"),
        (change(|m| m.source = "/stranger".into()), "takes no commands of sagas from `/stranger`"),
        (
            change(|m| m.headers.insert("replyto", "elsewhere").expect("legal")),
            "get their replies on `sagas`, not on `elsewhere`",
        ),
        (change(|m| drop(m.headers.remove("replyto"))), "no topic for the reply"),
    ];
    for (message, _) in &cases {
        publisher.publish(message).await.expect("acknowledged");
    }
    let letters = store.letters();
    assert_eq!(letters.len(), cases.len());
    for (letter, (_, why)) in letters.iter().zip(&cases) {
        assert_eq!((letter.reason, letter.attempts), (DeadReason::Rejected, 1), "{why}");
        assert!(letter.errors[0].text.contains(why), "{why}: {}", letter.errors[0].text);
    }
    assert!(store.events().is_empty() && store.rows().is_empty());
    stop(handle).await;
}

#[tokio::test]
async fn who_answers_and_to_whom_is_said_once_and_whole() {
    let store = MemoryStore::default();
    let faults =
        async |with: fn(ConsumerBuilder<MemoryStore>) -> ConsumerBuilder<MemoryStore>| match with(
            consumer(&store).0,
        )
        .start()
        .await
        {
            Err(ConsumerError::Invalid(faults)) => {
                faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
            }
            other => panic!("{other:?}"),
        };
    for (with, expected) in [
        (
            (|c| c.on_command("place", places)) as fn(ConsumerBuilder<MemoryStore>) -> _,
            "the handler `place` handles commands",
        ),
        (|c| c.on("place", places).commands_from("/shop", "sagas"), "no handler handles them"),
        (
            |c| answering(c).on_command("too", places),
            "`place` and `too` both handle commands of the type `order.placed`",
        ),
        (|c| answering(c).commands_from("", "sagas"), "1 to 255 bytes"),
        (|c| answering(c).commands_from("/shop", "a\nb"), "1 to 255 bytes"),
    ] {
        let said = faults(with).await;
        assert!(said.contains(expected) && !said.contains("; "), "{expected}: {said}");
    }
}
