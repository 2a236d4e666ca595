//! Handlers that fail or write past their transaction, and messages without a handler.

use super::{assert_line, with_logs};
use crate::support::{
    AckDecision, Cx, Logs, Queue, SOON, Sample, World, command, consumer, message,
};
use futures_util::future::join_all;
use outbox_core::event::MessageParts;
use outbox_sea_orm::{
    consumer::{HandlerError, HandlerOptions},
    event::Message,
};
use tracing::Level;

#[test]
fn a_handler_that_fails_is_logged_at_once_and_its_further_failures_once_a_minute() {
    with_logs(async |world: &World, logs: &Logs| {
        let failing = |sample: Sample, _: &Cx| async move {
            Err::<(), _>(HandlerError::reject(format!("not {}", sample.n)))
        };
        let (queue, subscriber) = Queue::open();
        let consumer =
            consumer(&world.outbox, "effect").on("failing", failing).subscribe(subscriber);
        let handle = consumer.start().await.unwrap();
        join_all((1..=30).map(|n| queue.deliver(Ok(message("a-secret-key", n))))).await;
        handle.shutdown(SOON).await.unwrap();
        let lines = logs.with("a handler has rejected a message");
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert_line(
            &lines[0],
            Level::WARN,
            &["consumer", "handler", "message_id", "event_type", "key_hash", "error"],
        );
        assert_eq!((lines[0].field("consumer"), lines[0].field("handler")), ("story", "failing"));
        let letters = logs.with("an event is a dead letter");
        assert_eq!(letters.len(), 30, "each letter has a line");
        assert!(
            letters.iter().all(|letter| letter.field("key_hash") == lines[0].field("key_hash")),
            "one key, one hash"
        );
        logs.assert_never(&["a-secret-key"]);
    });
}

#[test]
fn a_handler_whose_first_hundred_runs_write_past_its_transaction_is_warned_of_once() {
    with_logs(async |world: &World, logs: &Logs| {
        let past = |_: Sample, _: &Cx| async { Ok::<_, HandlerError>(()) };
        let (queue, subscriber) = Queue::open();
        let consumer = consumer(&world.outbox, "effect").on("past", past);
        let consumer = consumer
            .on_with("declared", HandlerOptions::new().no_writes(), past)
            .subscribe(subscriber);
        let handle = consumer.start().await.unwrap();
        let deliver = |n: u64| queue.deliver(Ok(message(&format!("k{n}"), n)));
        join_all((1..=99).map(deliver)).await;
        assert!(logs.with("wrote nothing through `cx.tx`").is_empty());
        join_all((100..=250).map(deliver)).await;
        handle.shutdown(SOON).await.unwrap();
        let lines = logs.with("wrote nothing through `cx.tx`");
        let handlers: Vec<_> = lines.iter().map(|line| line.field("handler")).collect();
        assert_eq!(handlers, ["past"], "not one that writes, nor one that says so: {lines:#?}");
        assert_line(&lines[0], Level::WARN, &["consumer"]);
    });
}

#[test]
fn a_type_that_no_handler_takes_is_logged_once() {
    with_logs(async |world: &World, logs: &Logs| {
        let (queue, subscriber) = Queue::open();
        let handle = consumer(&world.outbox, "effect").subscribe(subscriber).start().await.unwrap();
        let typed = |event_type: &str| -> Message {
            let mut parts: MessageParts = message("k", 1).into_parts();
            parts.event_type = event_type.into();
            Message::new(parts)
        };
        for _ in 0..3 {
            assert_eq!(queue.deliver(Ok(typed("nobody.takes"))).await, AckDecision::Ack);
            assert_eq!(
                queue.deliver(Ok(command(&typed("nobody.does"), "charge", "answers"))).await,
                AckDecision::Ack
            );
        }
        handle.shutdown(SOON).await.unwrap();
        let commands = logs.with("takes this command of a saga");
        assert_eq!(commands.len(), 1, "{commands:#?}");
        assert_eq!(commands[0].field("event_type"), "nobody.does");
        let lines = logs.with("no handler of this consumer takes messages");
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert_line(&lines[0], Level::WARN, &["consumer", "event_type"]);
        assert_eq!(lines[0].field("event_type"), "nobody.takes");
    });
}
