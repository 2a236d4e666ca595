//! A broker with one queue: the test sends the deliveries, and gets their answers.

use super::event::Sample;
use async_trait::async_trait;
use outbox_core::{
    event::MessageParts,
    transport::{Acknowledge, SubscribeError},
};
use outbox_sea_orm::{
    event::{Headers, Message, MessageId, SagaId, Timestamp},
    transport::{Delivery, Subscriber},
};
use tokio::sync::{mpsc, oneshot};

/// A consumer's answer to a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AckDecision {
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

    /// Delivers at once; the future gives the answer. One that is dropped unanswered counts as returned.
    pub(crate) fn deliver(
        &self,
        message: Result<Message, String>,
    ) -> impl Future<Output = AckDecision> + use<> {
        let (sender, receiver) = oneshot::channel();
        // A consumer that has ended drops the delivery, which is the answer.
        let _ = self.0.send(Delivery::new(message, None, Box::new(Handle(sender))));
        async { receiver.await.unwrap_or(AckDecision::Nack) }
    }
}

#[async_trait]
impl Subscriber for Receiving {
    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        Ok(self.0.recv().await)
    }
}

struct Handle(oneshot::Sender<AckDecision>);

impl Handle {
    fn reply(self, answer: AckDecision) -> Result<(), SubscribeError> {
        self.0.send(answer).map_err(|_| SubscribeError("nobody waits".into()))
    }
}

#[async_trait]
impl Acknowledge for Handle {
    async fn ack(self: Box<Self>) -> Result<(), SubscribeError> {
        self.reply(AckDecision::Ack)
    }
    async fn nack(self: Box<Self>, _requeue: bool) -> Result<(), SubscribeError> {
        self.reply(AckDecision::Nack)
    }
    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError> {
        self.reply(AckDecision::Reject(reason.to_owned()))
    }
}

/// Makes a message the command of a saga's step, with a reply topic.
pub(crate) fn command(message: &Message, step: &str, answers: &str) -> Message {
    let mut parts = message.clone().into_parts();
    let saga = SagaId::generate().to_string();
    let call = [
        ("sagaid", &*saga),
        ("sagastep", step),
        ("sagaround", "1"),
        ("sagaphase", "do"),
        ("replyto", answers),
    ];
    for (name, value) in call {
        parts.headers.insert(name, value).unwrap();
    }
    Message::new(parts)
}

/// A message with one sample event.
pub(crate) fn message(key: &str, n: u64) -> Message {
    Message::new(MessageParts {
        id: MessageId::generate(),
        sequence: None,
        source: "/elsewhere".into(),
        event_type: "story.sample".into(),
        event_version: 1,
        topic: "story".into(),
        aggregate_type: None,
        key: Some(key.into()),
        content_type: "application/json".into(),
        payload: serde_json::to_vec(&Sample::new(key, n)).unwrap().into(),
        headers: Headers::new(),
        created_at: Timestamp::from_micros(1),
        expires_at: None,
        retry: None,
    })
}
