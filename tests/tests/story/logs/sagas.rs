//! Sagas that fail, are compensated, wait for a lock, are stuck, or get no reply.

use super::{assert_line, with_logs};
use crate::support::{Logs, SOON, World, relay};
use outbox_sea_orm::{
    OutboxEvent, OutboxTransaction,
    consumer::{Consumer, HandlerContext, HandlerError},
    failure::RetryPolicy,
    prelude::{Saga, Sagas, StepContext, StepError},
    transport::{Memory, everything},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tracing::Level;

const POLL: Duration = Duration::from_millis(50);

/// A saga whose data choose what its second step does.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Booking {
    ends: String,
    lock: Option<String>,
}

impl Booking {
    async fn reserve(&mut self, cx: &StepContext) -> Result<(), StepError> {
        match &self.lock {
            Some(entity) => cx.lock(entity.clone()).await,
            None => Ok(()),
        }
    }

    async fn release(&mut self, (): (), _: &StepContext) -> Result<(), StepError> {
        if self.ends == "stuck" { Err(StepError::abort("the bank is closed")) } else { Ok(()) }
    }

    async fn charge(&mut self, cx: &StepContext) -> Result<(), StepError> {
        match self.ends.as_str() {
            "fails" if cx.attempt() < 4 => Err(StepError::retry("not yet")),
            "turns back" | "stuck" => Err(StepError::abort("over the limit")),
            "waits" => Err(StepError::retry("it holds the lock")),
            _ => Ok(()),
        }
    }
}

fn booking() -> Saga<Booking> {
    let quick =
        RetryPolicy::attempts(5, Duration::from_millis(5)).max_backoff(Duration::from_millis(10));
    Saga::builder("booking", 1)
        .step("reserve", Booking::reserve)
        .compensate(Booking::release)
        .compensate_retry(quick)
        .step("charge", Booking::charge)
        .retry(quick.endless())
        .build()
}

async fn start(world: &World, sagas: &Sagas, correlation: &str, ends: &str, lock: Option<&str>) {
    let tx = world.outbox.begin().await.unwrap();
    let data = Booking { ends: ends.into(), lock: lock.map(str::to_owned) };
    sagas.start(&tx, data).correlation(correlation).await.unwrap();
    tx.commit().await.unwrap();
}

#[test]
fn a_saga_that_fails_turns_back_is_stuck_or_waits_for_a_lock_says_so_with_its_name_and_correlation()
{
    with_logs(async |world: &World, logs: &Logs| {
        let sagas =
            Sagas::builder(&world.outbox).register(booking()).poll(POLL).start().await.unwrap();
        start(world, &sagas, "order-2", "turns back", None).await;
        let back = logs.wait_for("a saga starts compensating").await;
        assert_line(&back, Level::INFO, &["saga", "name", "correlation", "reason"]);
        assert_eq!((back.field("name"), back.field("correlation")), ("booking", "order-2"));
        assert!(back.field("reason").contains("over the limit"), "{back:?}");

        // A step that aborts has not failed; the first of these lines is of this saga.
        start(world, &sagas, "order-1", "fails", None).await;
        let failed = logs.wait_for("a step has failed").await;
        assert_line(
            &failed,
            Level::WARN,
            &["saga", "name", "correlation", "step", "error", "next"],
        );
        assert_eq!((failed.field("correlation"), failed.field("error")), ("order-1", "not yet"));

        start(world, &sagas, "order-3", "stuck", None).await;
        let stuck = logs.wait_for("a saga is stuck").await;
        assert_line(
            &stuck,
            Level::ERROR,
            &["saga", "name", "version", "correlation", "step", "reason"],
        );
        assert_eq!(stuck.field("correlation"), "order-3");

        start(world, &sagas, "order-4", "waits", Some("account/secret")).await;
        logs_of_step(logs, "order-4").await;
        start(world, &sagas, "order-5", "completes", Some("account/secret")).await;
        let waits = logs.wait_for("a saga waits for an entity").await;
        assert_line(&waits, Level::INFO, &["saga", "name", "correlation", "step", "holder"]);
        assert_eq!(waits.field("correlation"), "order-5");
        sagas.shutdown(SOON).await.unwrap();
        let failed = logs.with("a step has failed");
        let forward: Vec<_> = failed.iter().filter(|line| line.field("undo") == "false").collect();
        assert_eq!(
            forward.len(),
            1,
            "further failures of a step are summed up once a minute: {failed:#?}"
        );
        logs.assert_never(&["account/secret"]);
    });
}

/// Waits until the second step of a saga was tried, so that its first one has its lock.
async fn logs_of_step(logs: &Logs, correlation: &str) {
    let tried = async || {
        let lines = logs.at_least(Level::DEBUG);
        lines
            .iter()
            .any(|line| line.field("correlation") == correlation && line.field("step") == "charge")
    };
    tests::wait_until(SOON, correlation, tried).await;
}

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "charge.asked", topic = "payments")]
struct Charge {
    #[outbox(key)]
    order: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "charge.done", topic = "answers")]
struct Charged {
    #[outbox(key)]
    order: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Checkout {
    order: i64,
}

impl Checkout {
    async fn charge(&mut self, _: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { order: self.order })
    }
}

async fn charged(
    command: Charge,
    cx: &HandlerContext<OutboxTransaction>,
) -> Result<(), HandlerError> {
    cx.reply(Charged { order: command.order })?;
    Ok(())
}

#[test]
fn answers_to_a_saga_that_nobody_takes_are_logged_once_with_the_line_that_is_missing() {
    with_logs(async |world: &World, logs: &Logs| {
        let saga =
            Saga::builder("checkout", 1).remote_step("charge", Checkout::charge).reply::<Charged>();
        let saga = saga.timeout(Duration::from_secs(60)).build();
        let sagas = Sagas::builder(&world.outbox)
            .register(saga)
            .reply_to("answers")
            .poll(POLL)
            .start()
            .await
            .unwrap();
        let (memory, subscriber) = Memory::channel();
        let source = world.source();
        let relay = relay(&source, Duration::from_secs(3))
            .route("all", everything(), memory)
            .start()
            .await
            .unwrap();
        let consumer = Consumer::builder("payments", &world.outbox)
            .on_command("charge", charged)
            .subscribe(subscriber);
        let consumer = consumer.commands_from("story", "answers").start().await.unwrap();
        for order in 1..=3 {
            let tx = world.outbox.begin().await.unwrap();
            sagas.start(&tx, Checkout { order }).correlation(order.to_string()).await.unwrap();
            tx.commit().await.unwrap();
        }
        let line = logs.wait_for("`.replies(&sagas)`").await;
        assert_line(&line, Level::WARN, &["consumer", "event_type"]);
        assert_eq!((line.field("consumer"), line.field("event_type")), ("payments", "charge.done"));
        let handled = async || tests::equals(consumer.stats().borrow().unknown, 3);
        tests::wait_until(SOON, "all answers have come", handled).await;
        assert_eq!(logs.with("`.replies(&sagas)`").len(), 1);
        sagas.shutdown(SOON).await.unwrap();
        consumer.shutdown(SOON).await.unwrap();
        relay.shutdown(SOON).await.unwrap();
    });
}
