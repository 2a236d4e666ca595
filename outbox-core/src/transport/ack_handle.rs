//! The acknowledgement of a delivery whose sender waits in this process for the ack decision.

use super::{AckDecision, Acknowledge, SubscribeError};
use async_trait::async_trait;
use tokio::sync::oneshot;

/// Passes the ack decision to a sender that waits for it.
#[derive(Debug)]
pub struct AckHandle {
    decision: oneshot::Sender<AckDecision>,
    gone: &'static str,
}

impl AckHandle {
    /// Makes a handle and what its sender waits for. Where the sender no longer waits, an ack
    /// decision fails with the text `gone`.
    #[must_use]
    pub fn new(gone: &'static str) -> (Self, oneshot::Receiver<AckDecision>) {
        let (sender, receiver) = oneshot::channel();
        (Self { decision: sender, gone }, receiver)
    }

    fn decide(self, decision: AckDecision) -> Result<(), SubscribeError> {
        self.decision.send(decision).map_err(|_| SubscribeError(self.gone.into()))
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

    async fn busy(self: Box<Self>) -> Result<(), SubscribeError> {
        self.decide(AckDecision::Busy)
    }

    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError> {
        self.decide(AckDecision::Reject(reason.to_owned()))
    }

    fn is_given_up(&self) -> bool {
        self.decision.is_closed()
    }
}
