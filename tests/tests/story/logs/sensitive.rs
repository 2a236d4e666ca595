//! Failures that quote a sensitive event: its letter has their text, and nothing else.

use super::with_logs;
use crate::support::{AckDecision, Cx, Logs, Queue, SOON, Sample, World, message, relay};
use async_trait::async_trait;
use outbox_core::event::SENSITIVE;
use outbox_sea_orm::{
    OutboxEvent,
    consumer::{Consumer, HandlerError},
    event::Message,
    failure::RetryPolicy,
    transport::{PublishError, Publisher, Receipt, Route, everything},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::wait_until;

/// What nobody may see.
const CANARY: &str = "canary-4111";
const LEASE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "card.added", topic = "cards", sensitive)]
struct CardAdded {
    #[outbox(key)]
    customer: i64,
    number: String,
}

/// A destination that refuses everything and quotes it.
struct Quoting;

#[async_trait]
impl Publisher for Quoting {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let content = String::from_utf8_lossy(&message.payload);
        Err(PublishError::transient(format!("bad request: {content}")))
    }
}

/// A destination that nobody reaches.
struct Unreachable;

#[async_trait]
impl Publisher for Unreachable {
    async fn publish(&self, _: &Message) -> Result<Receipt, PublishError> {
        Err(PublishError::unavailable("connection refused"))
    }
}

/// Waits until a running part tells operators of a failure, without the content.
async fn wait_for_live_row(world: &World) {
    wait_until(SOON, "a live row tells of the failure", async || {
        let rows = world.rows("SELECT body FROM outbox_live").await;
        let bodies: Vec<String> = rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
        assert!(!bodies.iter().any(|body| body.contains(CANARY)), "{bodies:?}");
        bodies.iter().any(|body| body.contains("(hidden: the event is sensitive)"))
    })
    .await;
}

/// Fails where a letter lacks the text that quotes its event: an application reads it there.
async fn assert_in_letters(world: &World, letters: usize) {
    let written = world.letters().await;
    assert_eq!(written.len(), letters);
    assert!(written.iter().all(|letter| letter.errors.contains(CANARY)), "{written:?}");
}

#[test]
fn what_a_destination_says_of_a_sensitive_event_is_in_its_letter_alone() {
    with_logs(async |world: &World, logs: &Logs| {
        let policy = RetryPolicy::attempts(2, Duration::from_millis(20));
        let source = world.source();
        let route = Route::new("billing", everything(), Quoting).retry(policy);
        let relay = relay(&source, LEASE).add_route(route).start().await.unwrap();
        let tx = world.outbox.begin().await.unwrap();
        tx.emit(CardAdded { customer: 7, number: CANARY.to_owned() }).unwrap();
        tx.commit().await.unwrap();
        for text in ["a publish has failed", "an event is a dead letter"] {
            let line = logs.wait_for(text).await;
            let told = "transient (hidden: the event is sensitive)";
            assert_eq!(line.field("error"), told, "{line:?}");
        }
        wait_for_live_row(world).await;
        relay.shutdown(SOON).await.unwrap();
        assert_in_letters(world, 1).await;
        logs.assert_never(&[CANARY]);
    });
}

#[test]
fn why_the_destination_of_a_sensitive_event_is_not_reached_is_told() {
    with_logs(async |world: &World, logs: &Logs| {
        let source = world.source();
        let route = Route::new("billing", everything(), Unreachable);
        let relay = relay(&source, LEASE).add_route(route).start().await.unwrap();
        let tx = world.outbox.begin().await.unwrap();
        tx.emit(CardAdded { customer: 7, number: CANARY.to_owned() }).unwrap();
        tx.commit().await.unwrap();
        let line = logs.wait_for("the destination of a route is down").await;
        assert_eq!(line.field("error"), "connection refused", "{line:?}");
        relay.shutdown(SOON).await.unwrap();
        logs.assert_never(&[CANARY]);
    });
}

#[test]
fn what_a_handler_says_of_a_sensitive_event_is_in_its_letters_alone() {
    with_logs(async |world: &World, logs: &Logs| {
        let rejecting = |sample: Sample, _: &Cx| async move {
            Err::<(), _>(HandlerError::reject(format!("no {}", sample.key)))
        };
        let failing = |sample: Sample, _: &Cx| async move {
            Err::<(), _>(HandlerError::retry(format!("not yet {}", sample.key)))
        };
        let (queue, subscriber) = Queue::open();
        let consumer = Consumer::builder("story", &world.outbox)
            .on("rejecting", rejecting)
            .on("failing", failing)
            .retry(RetryPolicy::attempts(2, Duration::from_millis(20)))
            .max_unacked_time(Duration::ZERO)
            .lease(Duration::from_secs(1))
            .subscribe(subscriber);
        let handle = consumer.start().await.unwrap();
        let mut parts = message(CANARY, 1).into_parts();
        parts.headers.insert(SENSITIVE, "true").unwrap();
        assert_eq!(queue.deliver(Ok(Message::new(parts))).await, AckDecision::Ack);
        for (text, class) in [
            ("a handler has rejected a message", "permanent"),
            ("a handler has failed", "transient"),
        ] {
            let line = logs.wait_for(text).await;
            let told = format!("{class} (hidden: the event is sensitive)");
            assert_eq!(line.field("error"), told, "{line:?}");
        }
        world.wait_for_letters(2, SOON).await;
        wait_for_live_row(world).await;
        handle.shutdown(SOON).await.unwrap();
        assert_in_letters(world, 2).await;
        logs.assert_never(&[CANARY]);
    });
}
