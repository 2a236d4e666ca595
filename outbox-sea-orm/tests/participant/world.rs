//! A database with an outbox, a broker with one queue, and sagas elsewhere that send commands
//! through it.

use crate::payments::{Charge, Payments, Refund};
use async_trait::async_trait;
use outbox_core::consumer::{Consumer, ConsumerBuilder};
use outbox_core::event::{Headers, MessageParts, NewEvent, SagaId, Timestamp};
use outbox_core::transport::{Acknowledge, Delivery, SubscribeError, Subscriber};
use outbox_sea_orm::{
    OutboxBuilder,
    entity::{dead_letter, event},
    prelude::*,
};
use sea_orm::{ConnectionTrait, DatabaseConnection, EntityTrait, QueryOrder, Statement};
use serde_json::Value;
use std::time::Duration;
use tests::databases::TempDatabase;
use tokio::sync::{mpsc, oneshot};

/// Long enough for a busy machine; nothing waits that long when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) db: DatabaseConnection,
    pub(crate) outbox: Outbox,
}

/// What was sent on a topic.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sent {
    pub(crate) id: String,
    pub(crate) event_type: String,
    pub(crate) version: i32,
    pub(crate) topic: String,
    pub(crate) key: Option<String>,
    pub(crate) payload: Vec<u8>,
    pub(crate) headers: Headers,
    pub(crate) expires: bool,
}

impl World {
    pub(crate) async fn open(temp: &TempDatabase) -> Self {
        Self::open_with(temp, |outbox| outbox).await
    }

    /// Opens one with other options of the outbox.
    pub(crate) async fn open_with(
        temp: &TempDatabase,
        build: impl FnOnce(OutboxBuilder) -> OutboxBuilder,
    ) -> Self {
        let db = temp.connect().await;
        let outbox = build(Outbox::builder(db.clone()).source("payments")).install().await.unwrap();
        db.execute_unprepared(
            "CREATE TABLE effects (saga VARCHAR(64) NOT NULL, what VARCHAR(64) NOT NULL)",
        )
        .await
        .unwrap();
        Self { db, outbox }
    }

    pub(crate) fn consumer(&self) -> ConsumerBuilder<Outbox> {
        Consumer::builder("payments", &self.outbox)
            .handlers(Payments)
            .commands_from("/orders", REPLIES)
    }

    /// Starts the service, with a queue of commands.
    pub(crate) async fn serve(
        &self,
        with: impl FnOnce(ConsumerBuilder<Outbox>) -> ConsumerBuilder<Outbox>,
    ) -> (Queue, Consumer) {
        let (queue, receiving) = Queue::open();
        (queue, with(self.consumer()).subscribe(receiving).start().await.unwrap())
    }

    /// Everything that was sent, in its order.
    pub(crate) async fn sent(&self) -> Vec<Sent> {
        let rows =
            event::Entity::find().order_by_asc(event::Column::EventId).all(&self.db).await.unwrap();
        rows.into_iter().map(sent).collect()
    }

    /// The replies to a saga, in their order.
    pub(crate) async fn replies(&self, saga: SagaId) -> Vec<Sent> {
        let key = Some(saga.to_string());
        self.sent()
            .await
            .into_iter()
            .filter(|sent| sent.topic == REPLIES && sent.key == key)
            .collect()
    }

    /// The types of the replies to a saga.
    pub(crate) async fn reply_types(&self, saga: SagaId) -> Vec<String> {
        self.replies(saga).await.into_iter().map(|sent| sent.event_type).collect()
    }

    /// What was done for a saga, in no order.
    pub(crate) async fn effects(&self, saga: impl ToString) -> Vec<String> {
        let sql =
            format!("SELECT what FROM effects WHERE saga = '{}' ORDER BY what", saga.to_string());
        let rows = self
            .db
            .query_all_raw(Statement::from_string(self.db.get_database_backend(), sql))
            .await
            .unwrap();
        rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
    }

    /// Handlers, reasons and errors of the letters.
    pub(crate) async fn letters(&self) -> Vec<(String, String, String)> {
        let rows = dead_letter::Entity::find()
            .order_by_asc(dead_letter::Column::LetterId)
            .all(&self.db)
            .await
            .unwrap();
        rows.into_iter().map(|row| (row.route, row.reason, row.errors)).collect()
    }
}

fn sent(row: event::Model) -> Sent {
    Sent {
        id: row.message_id.to_string(),
        event_type: row.event_type,
        version: row.event_version,
        topic: row.topic,
        key: row.message_key,
        payload: row.payload,
        headers: Headers::from_json(&row.headers).unwrap(),
        expires: row.expires_at.is_some(),
    }
}

impl Sent {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap()
    }
}

/// Where sagas expect their replies.
pub(crate) const REPLIES: &str = "orders.replies";

/// The headers of a command to do a step of a saga.
pub(crate) fn headers(saga: SagaId, phase: &str) -> Headers {
    let (saga, mut headers) = (saga.to_string(), Headers::new());
    for (name, value) in [
        ("sagaid", saga.as_str()),
        ("sagastep", "charge"),
        ("sagaround", "1"),
        ("sagaphase", phase),
        ("replyto", REPLIES),
    ] {
        headers.insert(name, value).unwrap();
    }
    headers
}

/// A message with an event, from elsewhere.
pub(crate) fn message(event: &dyn OutboxEvent, headers: Headers) -> Message {
    let new = NewEvent::encode(event).unwrap();
    Message::new(MessageParts {
        id: new.message_id,
        sequence: None,
        source: "/orders".into(),
        event_type: new.event_type,
        event_version: new.event_version,
        topic: new.topic,
        aggregate_type: None,
        key: None,
        content_type: new.content_type,
        payload: new.payload,
        headers,
        created_at: Timestamp::from_micros(1),
        expires_at: None,
        retry: None,
    })
}

/// A command to do the step, under an id of its own each time.
pub(crate) fn charge(saga: SagaId, how: &str) -> Message {
    message(&Charge { how: how.to_owned() }, headers(saga, "do"))
}

/// A command to undo it, under an id of its own each time.
pub(crate) fn refund(saga: SagaId, how: &str) -> Message {
    message(&Refund { how: how.to_owned() }, headers(saga, "undo"))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Acknowledged {
    Ack,
    Nack,
    Reject(String),
}

pub(crate) struct Queue(mpsc::UnboundedSender<Delivery>);

pub(crate) struct Receiving(mpsc::UnboundedReceiver<Delivery>);

impl Queue {
    pub(crate) fn open() -> (Self, Receiving) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), Receiving(receiver))
    }

    /// Delivers at once; the future gives the ack decision.
    pub(crate) fn deliver(&self, message: Message) -> impl Future<Output = Acknowledged> + use<> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(Delivery::new(Ok(message), None, Box::new(Handle(sender)))).unwrap();
        async { receiver.await.unwrap() }
    }

    /// Delivers until it is acknowledged, as a broker does.
    pub(crate) async fn send(&self, message: Message) {
        while self.deliver(message.clone()).await != Acknowledged::Ack {}
    }
}

#[async_trait]
impl Subscriber for Receiving {
    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        Ok(self.0.recv().await)
    }
}

struct Handle(oneshot::Sender<Acknowledged>);

impl Handle {
    fn settle(self, acknowledged: Acknowledged) -> Result<(), SubscribeError> {
        self.0.send(acknowledged).map_err(|_| SubscribeError("nobody waits".into()))
    }
}

#[async_trait]
impl Acknowledge for Handle {
    async fn ack(self: Box<Self>) -> Result<(), SubscribeError> {
        self.settle(Acknowledged::Ack)
    }
    async fn nack(self: Box<Self>, _requeue: bool) -> Result<(), SubscribeError> {
        self.settle(Acknowledged::Nack)
    }
    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError> {
        self.settle(Acknowledged::Reject(reason.to_owned()))
    }
}
