//! A service of which each document has something to tell.

use crate::{
    program::on,
    world::{OrderPlaced, SOON, World},
};
use outbox_core::{
    admin::{HistoryKind, InspectStore, Subject, sagas_named},
    testing::Recorder,
    transport::{PublishError, Publisher},
};
use outbox_sea_orm::{prelude::*, saga::SagaAdmin};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::wait_until;

/// Short, since a part writes what it does when it renews its lease.
const LEASE: Duration = Duration::from_secs(3);
/// What fails is tried again after the test.
const LATER: Duration = Duration::from_hours(1);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Errand {
    order: String,
}

impl Errand {
    async fn load(&mut self, cx: &StepContext) -> Result<(), StepError> {
        cx.lock("van-1").await
    }

    async fn drive(&mut self, _: &StepContext) -> Result<(), StepError> {
        Err(StepError::retry("the road is closed"))
    }
}

async fn fails(_: OrderPlaced, _: &HandlerContext) -> Result<(), HandlerError> {
    Err(HandlerError::retry("the scanner is offline"))
}

async fn works(_: OrderPlaced, _: &HandlerContext) -> Result<(), HandlerError> {
    Ok(())
}

fn message(order: &str) -> Message {
    let event = OrderPlaced { order: order.to_owned(), note: "two chairs".to_owned() };
    Message::for_test(&event).unwrap()
}

/// Leaves dead letters of a route, the last of which was redriven from 1, and of a consumer, a
/// scheduled event, stuck sagas, and the message that a consumer has received, which it gives.
pub(super) async fn tell(world: &World) -> MessageId {
    for order in ["order-1", "order-2", "order-2"] {
        world.place(order, "two chairs").await;
    }
    world.bury(3, "503 from billing, request 4711").await;
    on(&world.url, &["--yes", "dead-letters", "redrive", "1", "--why", "repaired"]).exits(0);
    world.bury(3, "503 from billing, request 4712").await;
    world.schedule("order-8").await;
    for order in ["order-7", "order-17", "order-27", "order-37"] {
        world.get_stuck(order).await;
    }
    receive(world).await
}

/// Hands a message to a consumer of which one handler fails for good.
async fn receive(world: &World) -> MessageId {
    let (publisher, subscriber) = Memory::channel();
    let consumer = Consumer::builder("warehouse", &world.outbox)
        .on("pack", fails)
        .on("count", works)
        .retry(RetryPolicy::attempts(1, Duration::from_millis(1)))
        .subscribe(subscriber);
    let consumer = consumer.start().await.unwrap();
    let message = message("order-30");
    Publisher::publish(&publisher, &message).await.unwrap();
    let subject = Subject::Message(message.id);
    wait_until(SOON, "one handler is done, and one has given up", async || {
        let history = world.outbox.history(&subject, 100).await.unwrap();
        let has = |kind| history.entries.iter().any(|entry| entry.kind == kind);
        has(HistoryKind::Received) && has(HistoryKind::DeadLetter)
    })
    .await;
    consumer.shutdown(SOON).await.unwrap();
    message.id
}

/// Runs a relay, a consumer and a coordinator, and looks at them when each has written what it does:
/// the route has confirmed one event and failed at `order-9`, the consumer has deferred a delivery,
/// and the saga `order-41` waits for its next attempt with a lock.
pub(super) async fn while_all_runs(world: &World, look: impl FnOnce()) {
    let billing = Recorder::scripted(|message, _| match message.key.as_deref() {
        Some("order-9") => Err(PublishError::transient("503 from billing")),
        _ => Ok(()),
    });
    let route =
        Route::new("billing", topic("orders"), billing).retry(RetryPolicy::attempts(5, LATER));
    let relay = Relay::builder(&world.outbox).lease(LEASE).add_route(route).start().await.unwrap();
    world.place("order-10", "a chair").await;
    wait_until(SOON, "an event is confirmed", async || relay.stats().borrow().delivered > 0).await;
    world.place("order-9", "a table").await;

    let (publisher, subscriber) = Memory::channel();
    let consumer = Consumer::builder("mail", &world.outbox)
        .on("send", fails)
        .retry(RetryPolicy::attempts(8, LATER))
        .max_unacked_time(Duration::ZERO)
        .lease(LEASE)
        .subscribe(subscriber);
    let consumer = consumer.start().await.unwrap();
    Publisher::publish(&publisher, &message("order-31")).await.unwrap();

    let errand = Saga::builder("errand", 1).step("load", Errand::load).step("drive", Errand::drive);
    let errand = errand.retry(RetryPolicy::attempts(5, LATER)).build();
    let sagas = Sagas::builder(&world.outbox).register(errand).lease(LEASE).start().await.unwrap();
    let tx = world.outbox.begin().await.unwrap();
    let order = Errand { order: "order-41".to_owned() };
    sagas.start(&tx, order).correlation("order-41").await.unwrap();
    tx.commit().await.unwrap();

    wait_until(SOON, "each part has written what it does", async || {
        have_written(world).await && has_failed(world, "order-41").await
    })
    .await;
    look();
    sagas.shutdown(SOON).await.unwrap();
    consumer.shutdown(SOON).await.unwrap();
    relay.shutdown(SOON).await.unwrap();
}

/// Tells whether relay, consumer and coordinator have written what they do: the relay with its
/// failure, and the consumer has deferred its delivery.
async fn have_written(world: &World) -> bool {
    let overview = world.outbox.overview().await.unwrap();
    let mut routes = overview
        .relays
        .iter()
        .filter_map(|relay| relay.state.as_ref())
        .flat_map(|relay| &relay.routes);
    routes.any(|route| route.delivered > 0 && route.last_failure.is_some())
        && (overview.deferred.count, overview.consumers.len()) == (1, 1)
        && !overview.coordinators.is_empty()
}

/// Tells whether a step of the saga of an order has failed.
async fn has_failed(world: &World, order: &str) -> bool {
    let sagas = sagas_named(&world.outbox, order).await.unwrap();
    let log = world.outbox.saga_log(sagas[0].id).await.unwrap();
    log.iter().any(|entry| entry.record.kind() == "failed")
}
