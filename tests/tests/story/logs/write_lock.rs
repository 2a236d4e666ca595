//! Handlers and steps that hold a lock for long.

use super::{assert_line, with_logs};
use crate::support::{AckDecision, Cx, Logs, Queue, SOON, Sample, World, effect, message};
use outbox_sea_orm::{
    consumer::{Consumer, HandlerOptions},
    prelude::{Saga, Sagas, StepContext, StepError},
};
use sea_orm::DbErr;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tracing::Level;

const POLL: Duration = Duration::from_millis(50);
/// The response time of another service: a little longer than a lock may be held without a warning.
const ANSWER: Duration = Duration::from_millis(1_100);

/// Waits for another service, and writes its response.
async fn asks(sample: Sample, cx: &Cx) -> Result<(), DbErr> {
    tokio::time::sleep(ANSWER).await;
    effect(sample, cx).await
}

#[test]
fn a_handler_that_holds_the_only_write_lock_for_over_a_second_is_named_and_a_deferred_one_is_not() {
    with_logs(async |world: &World, logs: &Logs| {
        let (queue, subscriber) = Queue::open();
        let consumer = Consumer::builder("story", &world.outbox).on("holds", asks);
        let consumer = consumer
            .on_with("waits", HandlerOptions::new().deferred_lock(), asks)
            .subscribe(subscriber);
        let handle = consumer.start().await.unwrap();
        assert_eq!(queue.deliver(Ok(message("k", 1))).await, AckDecision::Ack);
        handle.shutdown(SOON).await.unwrap();
        assert_eq!(world.count("story_effects").await, 2);
        let lines = logs.with("held the database's only write lock");
        let handlers: Vec<_> = lines.iter().map(|line| line.field("handler")).collect();
        assert_eq!(handlers, ["holds"], "{lines:#?}");
        assert_line(&lines[0], Level::WARN, &["consumer", "message_id", "held_for"]);
    });
}

/// A saga whose one step waits for another service inside its transaction.
#[derive(Serialize, Deserialize)]
struct Asking;

impl Asking {
    async fn ask(&mut self, _: &StepContext) -> Result<(), StepError> {
        tokio::time::sleep(ANSWER).await;
        Ok(())
    }
}

#[test]
fn a_step_that_holds_the_only_write_lock_for_over_a_second_is_named() {
    with_logs(async |world: &World, logs: &Logs| {
        let saga = Saga::builder("asking", 1).step("ask", Asking::ask).build();
        let sagas = Sagas::builder(&world.outbox).register(saga).poll(POLL).start().await.unwrap();
        let tx = world.outbox.begin().await.unwrap();
        sagas.start(&tx, Asking).correlation("order-1").await.unwrap();
        tx.commit().await.unwrap();
        let held = logs.wait_for("a step held the database's only write lock").await;
        assert_line(&held, Level::WARN, &["saga", "name", "step", "held_for"]);
        assert_eq!((held.field("name"), held.field("step")), ("asking", "ask"));
        sagas.shutdown(SOON).await.unwrap();
    });
}
