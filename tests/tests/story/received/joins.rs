//! Services that handlers and steps call: their methods join the transaction of the call.

use crate::support::{AckDecision, Cx, Queue, SOON, Sample, World, message};
use outbox_sea_orm::{
    Outbox,
    consumer::{Consumer, EventHandler, HandlerError},
    failure::RetryPolicy,
    prelude::*,
    saga::{SagaAdmin, SagaFilter, SagaState},
};
use sea_orm::ConnectionTrait;
use serde::{Deserialize, Serialize};
use std::{sync::OnceLock, time::Duration};
use tests::{databases::TempDatabase, on_every_database, wait_until};

/// A service without a dependency on handlers and steps.
#[derive(Debug, Clone)]
struct Books {
    outbox: Outbox,
}

impl Books {
    #[transactional_outbox(tx = self.outbox)]
    async fn book(&self, key: &str) -> Result<(), OutboxError> {
        tx.execute_unprepared(&format!(
            "INSERT INTO story_effects (message, sample) VALUES ('{key}', '{key}')"
        ))
        .await?;
        tx.emit(Sample::new(key, 1))?;
        Ok(())
    }
}

impl EventHandler<Sample, Outbox> for Books {
    async fn handle(&self, sample: Sample, cx: &Cx) -> Result<(), HandlerError> {
        self.book(&sample.key).await?;
        if cx.attempt() == 1 { Err("not yet".into()) } else { Ok(()) }
    }
}

/// Where the step of the saga finds the service.
static SERVICE: OnceLock<std::sync::Mutex<Vec<(String, Books)>>> = OnceLock::new();

#[derive(Debug, Serialize, Deserialize)]
struct Booking {
    database: String,
    fails: u32,
}

impl Booking {
    async fn book(&mut self, cx: &StepContext) -> Result<(), StepError> {
        let known = SERVICE.get_or_init(Default::default);
        let books = known
            .lock()
            .unwrap()
            .iter()
            .find(|(name, _)| *name == self.database)
            .unwrap()
            .1
            .clone();
        books.book("step").await?;
        if cx.attempt() <= self.fails { Err(StepError::retry("not yet")) } else { Ok(()) }
    }
}

on_every_database! {
    async fn a_service_that_a_handler_calls_is_part_of_its_transaction(db: &TempDatabase) {
        let world = World::open(db).await;
        let (queue, subscriber) = Queue::open();
        let retry = RetryPolicy::attempts(3, Duration::from_millis(10));
        let consumer = Consumer::builder("story", &world.outbox).on("books", Books { outbox: world.outbox.clone() });
        let handle = consumer.subscribe(subscriber).retry(retry).start().await.unwrap();
        assert_eq!(queue.deliver(Ok(message("k", 1))).await, AckDecision::Ack);
        handle.shutdown(SOON).await.unwrap();
        let saved = (world.count("story_effects").await, world.count("outbox_events").await);
        assert_eq!(saved, (1, 1), "the attempt that failed has left nothing");
    }

    async fn a_service_that_a_step_calls_is_part_of_its_transaction(db: &TempDatabase) {
        let world = World::open(db).await;
        let known = SERVICE.get_or_init(Default::default);
        known.lock().unwrap().push((db.name().to_owned(), Books { outbox: world.outbox.clone() }));
        let retry = RetryPolicy::attempts(3, Duration::from_millis(10));
        let booking = Saga::builder("booking", 1).step("book", Booking::book).retry(retry).build();
        let sagas = Sagas::builder(&world.outbox).register(booking).poll(Duration::from_millis(50)).start().await.unwrap();
        let tx = world.outbox.begin().await.unwrap();
        let data = Booking { database: db.name().to_owned(), fails: 2 };
        let saga = sagas.start(&tx, data).correlation("one").await.unwrap().id();
        tx.commit().await.unwrap();
        wait_until(SOON, "the saga completes", async || {
            let found = world.outbox.sagas(&SagaFilter::default(), None, 10).await.unwrap();
            found.iter().any(|view| view.id == saga && view.instance.state == SagaState::Completed)
        }).await;
        sagas.shutdown(SOON).await.unwrap();
        let saved = (world.count("story_effects").await, world.count("outbox_events").await);
        assert_eq!(saved, (1, 1), "the attempts that failed have left nothing");
    }
}
