//! The receiving half: requests that wait for an answer, as deliveries.

use async_trait::async_trait;
use outbox_core::{
    event::Message,
    transport::{Acknowledge, Delivery, SubscribeError, Subscriber},
};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// What the handler's answer was.
#[derive(Debug)]
pub(crate) enum Answer {
    Ack,
    Nack,
    Reject(String),
}

/// A message whose sender waits.
pub(crate) struct Waiting {
    pub(crate) message: Message,
    pub(crate) answer: oneshot::Sender<Answer>,
    pub(crate) since: Instant,
    pub(crate) until: Instant,
}

/// Gives the messages that a [`HttpReceiver`](crate::HttpReceiver)'s router took in.
///
/// The sender of each waits for its answer: `ack` becomes 204, `nack` 503, `reject` 422, a delivery that is dropped 503.
/// Dropping the subscriber refuses every request that comes or waits with 503.
#[derive(Debug)]
pub struct HttpSubscriber(pub(crate) mpsc::Receiver<Waiting>);

impl HttpSubscriber {
    /// Takes no further request. Those that wait already are still given by `next`, which then ends with `None`.
    pub fn close(&mut self) {
        self.0.close();
    }
}

#[async_trait]
impl Subscriber for HttpSubscriber {
    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        while let Some(Waiting { message, answer, since, until }) = self.0.recv().await {
            // Whoever gave up waiting sends it again; handling it now would only be done twice.
            if !answer.is_closed() {
                let delivery = Delivery::new(Ok(message), None, Box::new(Handle(answer)));
                return Ok(Some(delivery.that_comes_back_in_order().awaited(since, until)));
            }
        }
        Ok(None)
    }
}

struct Handle(oneshot::Sender<Answer>);

impl Handle {
    fn answer(self, answer: Answer) -> Result<(), SubscribeError> {
        self.0.send(answer).map_err(|_| {
            SubscribeError("the sender no longer waits, and will send it again".into())
        })
    }
}

#[async_trait]
impl Acknowledge for Handle {
    async fn ack(self: Box<Self>) -> Result<(), SubscribeError> {
        self.answer(Answer::Ack)
    }

    /// The sender decides when it comes again, whether asked to or not.
    async fn nack(self: Box<Self>, _requeue: bool) -> Result<(), SubscribeError> {
        self.answer(Answer::Nack)
    }

    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError> {
        self.answer(Answer::Reject(reason.to_owned()))
    }

    fn is_given_up(&self) -> bool {
        self.0.is_closed()
    }
}
