//! What an operator asks of a store, against rows that services have written.

mod answers;
mod doctor;
mod harm;
mod lists;
mod sensitive;

use async_trait::async_trait;
use outbox_core::{
    admin::{InspectStore, Subject, explain},
    event::{MessageId, SagaId, Timestamp},
    failure::AttemptError,
    outbox::{ConsumerStore, DeferredDelivery, History, Store},
    saga::{SagaAdmin, SagaFilter},
    testing::store::PARTITIONS,
};
use outbox_sea_orm::{
    event::{Headers, MessageParts},
    prelude::*,
    transport::{PublishError, Publisher, Receipt},
};
use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database, wait_until};

const SOON: Duration = Duration::from_secs(60);
/// What a hostile destination answers.
const EVIL: &str = "503 \u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}";

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", topic = "orders")]
struct OrderPlaced {
    #[outbox(key)]
    order_id: i64,
}

/// A destination that refuses everything.
struct Refusing;

#[async_trait]
impl Publisher for Refusing {
    async fn publish(&self, _: &Message) -> Result<Receipt, PublishError> {
        Err(PublishError::transient(EVIL).responded())
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    number: i64,
}

impl Order {
    async fn charge(&mut self, _: &StepContext) -> Result<i64, StepError> {
        Ok(self.number)
    }

    async fn refund(&mut self, _: i64, _: &StepContext) -> Result<(), StepError> {
        Err(StepError::abort("the bank is closed"))
    }

    async fn ship(&mut self, _: &StepContext) -> Result<(), StepError> {
        Err(StepError::abort("no stock"))
    }
}

async fn installed(temp: &TempDatabase) -> Outbox {
    let builder = Outbox::builder(temp.connect().await).source("/shop").partitions(PARTITIONS);
    builder.install().await.unwrap()
}

async fn emit(outbox: &Outbox, order_id: i64, options: EnqueueOptions) -> MessageId {
    let tx = outbox.begin().await.unwrap();
    let id = tx.emit_with(OrderPlaced { order_id }, options).unwrap();
    tx.commit().await.unwrap();
    id
}

/// Starts a relay whose destination refuses everything, so many times.
async fn refusing_relay(outbox: &Outbox, attempts: u32) -> Relay {
    let policy = RetryPolicy::attempts(attempts, Duration::from_hours(2));
    let route = Route::new("billing", topic("orders"), Refusing).retry(policy).park_when_dead();
    Relay::builder(outbox).add_route(route).poll(Duration::from_millis(50)).start().await.unwrap()
}

fn message(id: MessageId, key: &str) -> Message {
    Message::new(MessageParts {
        id,
        sequence: None,
        source: "/orders".into(),
        event_type: "order.placed".into(),
        event_version: 1,
        topic: "orders".into(),
        aggregate_type: None,
        key: Some(key.into()),
        content_type: "application/json".into(),
        payload: "{}".into(),
        headers: Headers::new(),
        created_at: Timestamp::from_micros(1),
        expires_at: None,
        retry: None,
    })
}

/// Defers a delivery, as the consumer `mail` does after a failure.
async fn defer(outbox: &Outbox, key: &str, due_in: Option<Duration>) -> MessageId {
    let id = MessageId::generate();
    let tx = Store::begin(outbox).await.unwrap();
    let error = AttemptError::new(1, outbox_core::failure::FailureClass::Transient, EVIL);
    let history = History { attempts: 1, failures: 1, errors: vec![error], ..History::default() };
    let delivery = DeferredDelivery {
        consumer: "mail",
        handler: "send",
        message: &message(id, key),
        due_in,
        history,
    };
    assert!(outbox.defer(&tx, &delivery).await.unwrap());
    outbox.commit(tx).await.unwrap();
    id
}

/// A saga that is stuck at the compensation of its step `charge`.
async fn stuck_saga(outbox: &Outbox) -> SagaId {
    let definition = Saga::builder("place-order", 2)
        .step("charge", Order::charge)
        .compensate(Order::refund)
        .step("ship", Order::ship)
        .build();
    let sagas = Sagas::builder(outbox).register(definition).poll(Duration::from_millis(50));
    let sagas = sagas.start().await.unwrap();
    let tx = outbox.begin().await.unwrap();
    let saga = sagas.start(&tx, Order { number: 7 }).correlation("order-7").await.unwrap().id();
    tx.commit().await.unwrap();
    let filter =
        SagaFilter { state: Some(outbox_core::saga::SagaState::Stuck), ..SagaFilter::default() };
    wait_until(SOON, "the saga is stuck", async || {
        outbox.sagas(&filter, None, 10).await.unwrap().len() == 1
    })
    .await;
    sagas.shutdown(SOON).await.unwrap();
    saga
}

/// Runs a statement that damages or ages what is stored.
async fn run(outbox: &Outbox, sql: &str, values: Vec<Value>) {
    let backend = outbox.connection().get_database_backend();
    let mut n = 0;
    let numbered = sql.split_inclusive('?').map(|part| match part.strip_suffix('?') {
        Some(before) if backend == DbBackend::Postgres => {
            n += 1;
            format!("{before}${n}")
        }
        _ => part.to_owned(),
    });
    let sql = numbered.collect::<String>();
    let statement = Statement::from_sql_and_values(backend, sql, values);
    assert!(outbox.connection().execute_raw(statement).await.unwrap().rows_affected() > 0);
}

async fn sentence(outbox: &Outbox, subject: &Subject) -> String {
    let facts = outbox.facts(subject).await.unwrap().expect("something is known of it");
    explain(&facts).sentence
}

/// Waits until an answer begins with some words, and gives it.
async fn answers(outbox: &Outbox, subject: &Subject, beginning: &str) -> String {
    let mut last = String::new();
    let begins = tests::holds_within(SOON, async || {
        last = match outbox.facts(subject).await.unwrap() {
            Some(facts) => explain(&facts).sentence,
            None => "nothing".to_owned(),
        };
        last.starts_with(beginning)
    });
    assert!(begins.await, "{last}\nin place of\n{beginning}");
    last
}
