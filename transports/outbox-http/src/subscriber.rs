//! The receiving half: requests that wait for an ack decision, as deliveries.

use async_trait::async_trait;
use outbox_core::{
    event::Message,
    transport::{AckDecision, Acknowledge, Delivery, SubscribeError, Subscriber},
};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// A message whose sender waits for the response.
pub(crate) struct PendingRequest {
    pub(crate) message: Message,
    pub(crate) decision: oneshot::Sender<AckDecision>,
    pub(crate) received_at: Instant,
    pub(crate) deadline: Instant,
}

/// Gives the messages that a [`HttpReceiver`](crate::HttpReceiver)'s router accepted.
///
/// The sender of each waits for the response: `ack` becomes 204, `nack` 503, `reject` 422, a
/// delivery that is dropped 503. When the subscriber is dropped, the receiver responds with 503 to
/// every pending and every later request.
#[derive(Debug)]
pub struct HttpSubscriber(pub(crate) mpsc::Receiver<PendingRequest>);

impl HttpSubscriber {
    /// Stops receiving: the receiver responds with 503 to every later request. `next` still gives
    /// the pending ones and then `None`.
    pub fn stop(&mut self) {
        self.0.close();
    }
}

#[async_trait]
impl Subscriber for HttpSubscriber {
    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        while let Some(request) = self.0.recv().await {
            let PendingRequest { message, decision, received_at, deadline } = request;
            // A sender that stopped waiting sends the message again; handling it now would handle
            // it twice.
            if !decision.is_closed() {
                let delivery = Delivery::new(Ok(message), None, Box::new(AckHandle(decision)));
                return Ok(Some(
                    delivery.that_comes_back_in_order().awaited(received_at, deadline),
                ));
            }
        }
        Ok(None)
    }
}

struct AckHandle(oneshot::Sender<AckDecision>);

impl AckHandle {
    fn decide(self, decision: AckDecision) -> Result<(), SubscribeError> {
        self.0.send(decision).map_err(|_| {
            SubscribeError("the sender no longer waits and will send the message again".into())
        })
    }
}

#[async_trait]
impl Acknowledge for AckHandle {
    async fn ack(self: Box<Self>) -> Result<(), SubscribeError> {
        self.decide(AckDecision::Ack)
    }

    /// The sender sends the message again on its own schedule, whatever `requeue` says.
    async fn nack(self: Box<Self>, _requeue: bool) -> Result<(), SubscribeError> {
        self.decide(AckDecision::Nack)
    }

    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError> {
        self.decide(AckDecision::Reject(reason.to_owned()))
    }

    fn is_given_up(&self) -> bool {
        self.0.is_closed()
    }
}
