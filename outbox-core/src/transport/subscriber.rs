//! The receiving half of a transport.

use crate::event::Message;
use async_trait::async_trait;
use bytes::Bytes;
use std::time::{Duration, Instant};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Receives messages of one destination.
#[async_trait]
pub trait Subscriber: Send + 'static {
    /// Gives the next delivery; `None` when closed.
    ///
    /// # Errors
    /// [`SubscribeError`] when the connection is lost; calling again reconnects.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no delivery.
    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError>;

    /// Checks the configuration, without asking the broker, so that a mistake is found before the first message. A consumer
    /// asks every subscriber when it starts, and does not start where one is wrong.
    ///
    /// # Errors
    /// [`SubscribeError`] naming everything that is wrong.
    fn check(&self) -> Result<(), SubscribeError> {
        Ok(())
    }

    /// Says goodbye: a consumer calls it last, when everything was answered for. A transport whose broker would otherwise miss
    /// it for a while, or has answers still to be told, waits here for a moment; by default there is nothing to do. The consumer
    /// drops the call when its shutdown's time is up, though not before a second has passed.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves all the same, and nobody waits for it.
    async fn leave(&mut self) {}

    /// Tells how long the broker may take to miss a process that has died, and to deliver again what that had not answered
    /// for, counted from the process's last sign of life; zero, the default, where it does so at once.
    fn redelivers_within(&self) -> Duration {
        Duration::ZERO
    }
}

#[async_trait]
impl<S: Subscriber + ?Sized> Subscriber for Box<S> {
    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        (**self).next().await
    }

    fn check(&self) -> Result<(), SubscribeError> {
        (**self).check()
    }

    async fn leave(&mut self) {
        (**self).leave().await;
    }

    fn redelivers_within(&self) -> Duration {
        (**self).redelivers_within()
    }
}

/// A receiving connection that failed.
#[derive(Debug, thiserror::Error)]
#[error("the subscription failed")]
pub struct SubscribeError(#[source] pub BoxError);

/// How a transport is told what became of a delivery. Implemented by transports, called once.
#[async_trait]
pub trait Acknowledge: Send + Sync + 'static {
    /// The message was handled.
    async fn ack(self: Box<Self>) -> Result<(), SubscribeError>;

    /// The message was not handled; `requeue` asks for it again.
    async fn nack(self: Box<Self>, requeue: bool) -> Result<(), SubscribeError>;

    /// The message can never be handled.
    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError>;

    /// Tells whether the sender has given up waiting for the answer, and will send the message again: what has not begun then
    /// is not begun. Not so by default, as where a broker keeps the message.
    fn is_given_up(&self) -> bool {
        false
    }
}

/// One message with the means to answer for it. Dropped without an answer, it counts as `nack(true)` where the transport
/// can tell, else it comes again when the connection ends.
pub struct Delivery {
    /// The message, or why it cannot be read.
    pub message: Result<Message, String>,
    /// Which delivery this is as the broker counts, from 1; `None` where it does not count.
    pub attempt: Option<u32>,
    /// The bytes that came, for a message that cannot be read; where the transport gives them.
    pub raw: Option<Bytes>,
    /// Whether its sender waits for the answer, and sends it again after a return, before anything later of its key: where a key
    /// has more waiting than its places, a consumer returns such a delivery, and keeps any other in memory.
    pub comes_back_in_order: bool,
    /// From when on and until when its sender waits for the answer; `None` where nobody does, or it is not known for how long.
    pub awaited: Option<(Instant, Instant)>,
    handle: Box<dyn Acknowledge>,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("message", &self.message)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl Delivery {
    /// Puts a delivery together; for transports.
    #[must_use]
    pub fn new(
        message: Result<Message, String>,
        attempt: Option<u32>,
        handle: Box<dyn Acknowledge>,
    ) -> Self {
        Self { message, attempt, raw: None, comes_back_in_order: false, awaited: None, handle }
    }

    /// Adds the bytes that came, to be kept where the message cannot be read.
    #[must_use]
    pub fn with_raw(mut self, bytes: Bytes) -> Self {
        self.raw = Some(bytes);
        self
    }

    /// Says that its sender waits for the answer, and after a return sends it again before anything later of its key.
    #[must_use]
    pub fn that_comes_back_in_order(mut self) -> Self {
        self.comes_back_in_order = true;
        self
    }

    /// Says from when on and until when its sender waits for the answer. What cannot be handled within that time is returned
    /// before it ends, without being begun.
    #[must_use]
    pub fn awaited(mut self, since: Instant, until: Instant) -> Self {
        self.awaited = Some((since, until));
        self
    }

    /// Tells whether its sender has given up waiting, and will send it again.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.handle.is_given_up()
    }

    /// Puts somebody between this and the transport.
    pub(crate) fn answered_by(
        self,
        between: impl FnOnce(Box<dyn Acknowledge>) -> Box<dyn Acknowledge>,
    ) -> Self {
        Self { handle: between(self.handle), ..self }
    }

    /// Says that the message was handled.
    ///
    /// # Errors
    /// [`SubscribeError`] when the transport could not be told; the message then comes again.
    pub async fn ack(self) -> Result<(), SubscribeError> {
        self.handle.ack().await
    }

    /// Says that the message was not handled; `requeue` asks for it again.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub async fn nack(self, requeue: bool) -> Result<(), SubscribeError> {
        self.handle.nack(requeue).await
    }

    /// Says that the message can never be handled, and why.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub async fn reject(self, reason: &str) -> Result<(), SubscribeError> {
        self.handle.reject(reason).await
    }
}
