//! The receiving half of a transport.

use crate::{event::Message, failure::BoxError, telemetry::SYSTEM};
use async_trait::async_trait;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// Receives messages of one destination.
///
/// ```
/// # use outbox_core::transport::{SubscribeError, Subscriber};
/// # async fn example(mut subscriber: impl Subscriber) -> Result<(), SubscribeError> {
/// while let Some(delivery) = subscriber.next().await? {
///     match &delivery.message {
///         Ok(message) if message.event_type == "order.placed" => delivery.ack().await?,
///         Ok(_) => delivery.nack(true).await?,
///         Err(_) => delivery.reject("it cannot be read").await?,
///     }
/// }
/// # Ok(()) }
/// ```
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

    /// Checks the configuration, without asking the broker, so that a mistake is found before the
    /// first message. A consumer asks every subscriber when it starts, and does not start where one
    /// is wrong.
    ///
    /// # Errors
    /// [`SubscribeError`] naming everything that is wrong.
    fn check(&self) -> Result<(), SubscribeError> {
        Ok(())
    }

    /// Closes the subscription. A consumer calls it last, after the ack decision of every delivery;
    /// `next` then gives `None`.
    ///
    /// A transport deregisters from its broker here and flushes pending acknowledgements; by
    /// default there is nothing to do. The consumer drops the call when its shutdown's time is up,
    /// though not before a second has passed.
    ///
    /// # Cancel safety
    /// A call that is dropped closes the subscription too, without waiting for the broker.
    async fn close(&mut self) {}

    /// Tells how long the broker may take to notice that a process has died and to redeliver its
    /// unacknowledged messages, counted from the process's last heartbeat; zero, the default, where
    /// the broker redelivers at once.
    fn redelivers_within(&self) -> Duration {
        Duration::ZERO
    }

    /// Names the messaging system for metrics, as OpenTelemetry does: `rabbitmq`, `kafka`; `outbox`
    /// by default.
    fn system(&self) -> &'static str {
        SYSTEM
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

    async fn close(&mut self) {
        (**self).close().await;
    }

    fn redelivers_within(&self) -> Duration {
        (**self).redelivers_within()
    }

    fn system(&self) -> &'static str {
        (**self).system()
    }
}

/// A receiving connection that failed.
#[derive(Debug, thiserror::Error)]
#[error("the subscription failed")]
pub struct SubscribeError(#[source] pub BoxError);

/// The ack decision of one delivery, as a value: for a transport that passes it from the delivery's
/// handle to the task that answers the sender or the broker.
///
/// Ordered: of several handlers' decisions the greatest counts, because a returned delivery gives
/// every handler another attempt, and the inbox recognises the handlers that are done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AckDecision {
    /// The message was handled.
    Ack,
    /// The message can never be handled, for this reason.
    Reject(String),
    /// The message was not handled; the sender or the broker delivers it again.
    Nack,
    /// The receiver has not begun with the message, since it is paused or has too much to do: as
    /// `Nack`, and no failure of the message. A sender that understands this counts no attempt.
    Busy,
}

/// Passes the ack decision of one delivery to its sender or broker. Implemented by transports,
/// called once.
#[async_trait]
pub trait Acknowledge: Send + Sync + 'static {
    /// The message was handled.
    async fn ack(self: Box<Self>) -> Result<(), SubscribeError>;

    /// The message was not handled; `requeue` asks for it again.
    async fn nack(self: Box<Self>, requeue: bool) -> Result<(), SubscribeError>;

    /// The message can never be handled.
    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError>;

    /// The receiver has not begun with the message. As `nack(true)`, unless the transport can tell
    /// its sender that this is no failure of the message.
    async fn busy(self: Box<Self>) -> Result<(), SubscribeError> {
        self.nack(true).await
    }

    /// Tells whether the sender has stopped waiting for the ack decision and will send the message
    /// again: a consumer then starts no handler. `false` by default, as where a broker keeps the
    /// message.
    fn is_given_up(&self) -> bool {
        false
    }
}

/// One message with the handle that takes its ack decision. A delivery that is dropped without one
/// counts as `nack(true)` where the transport notices the drop; else the broker redelivers the
/// message when the connection ends.
///
/// ```
/// # use outbox_core::{transport::Delivery, transport::SubscribeError};
/// # async fn example(delivery: Delivery) -> Result<(), SubscribeError> {
/// match delivery.attempt {
///     Some(attempt) if attempt > 5 => delivery.reject("delivered too often").await,
///     _ => delivery.ack().await,
/// }
/// # }
/// ```
pub struct Delivery {
    /// The message, or why it cannot be read.
    pub message: Result<Message, String>,
    /// Which delivery this is as the broker counts, from 1; `None` where it does not count.
    pub attempt: Option<u32>,
    /// The bytes that came, for a message that cannot be read; where the transport gives them.
    pub raw: Option<Bytes>,
    /// Whether its sender waits for the ack decision and, after a `nack`, sends the message again
    /// before any later one of its key. A consumer returns such a delivery when the queue of its
    /// key is full, and keeps any other in memory.
    pub comes_back_in_order: bool,
    /// From when on and until when its sender waits for the ack decision; `None` where no sender
    /// waits, or the transport does not know for how long.
    pub awaited: Option<(Instant, Instant)>,
    /// The messaging system that it came from, for metrics.
    pub(crate) system: &'static str,
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
        Self {
            message,
            attempt,
            raw: None,
            comes_back_in_order: false,
            awaited: None,
            system: SYSTEM,
            handle,
        }
    }

    /// Adds the bytes that came, to be kept where the message cannot be read.
    #[must_use]
    pub fn with_raw(mut self, bytes: Bytes) -> Self {
        self.raw = Some(bytes);
        self
    }

    /// Says that its sender waits for the ack decision and, after a `nack`, sends the message again
    /// before any later one of its key.
    #[must_use]
    pub fn that_comes_back_in_order(mut self) -> Self {
        self.comes_back_in_order = true;
        self
    }

    /// Says from when on and until when its sender waits for the ack decision. A consumer that
    /// cannot handle the message in that time returns it before the end, without starting a
    /// handler.
    #[must_use]
    pub fn awaited(mut self, since: Instant, until: Instant) -> Self {
        self.awaited = Some((since, until));
        self
    }

    /// Tells whether its sender has stopped waiting and will send the message again.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.handle.is_given_up()
    }

    /// Wraps the transport's handle in another one.
    pub(crate) fn acknowledged_by(
        self,
        wrap: impl FnOnce(Box<dyn Acknowledge>) -> Box<dyn Acknowledge>,
    ) -> Self {
        Self { handle: wrap(self.handle), ..self }
    }

    /// Says that the message was handled.
    ///
    /// # Errors
    /// [`SubscribeError`] when the transport could not pass the decision on; the message is then
    /// delivered again.
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

    /// Says that the receiver has not begun with the message, which comes again: no failure of the
    /// message.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub async fn busy(self) -> Result<(), SubscribeError> {
        self.handle.busy().await
    }

    /// Says that the message can never be handled, and why.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub async fn reject(self, reason: &str) -> Result<(), SubscribeError> {
        self.handle.reject(reason).await
    }
}
