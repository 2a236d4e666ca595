//! The sending half of a transport.

use super::{Batch, Limits};
use crate::{
    event::Message,
    failure::{BoxError, FailureClass},
    runtime::catch_unwind,
    telemetry::SYSTEM,
};
use async_trait::async_trait;
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::time::Duration;

/// Publishes messages to one destination.
///
/// ```
/// # use outbox_core::{event::Message, transport::{PublishError, Publisher, Receipt}};
/// struct Spool(std::path::PathBuf);
///
/// #[async_trait::async_trait]
/// impl Publisher for Spool {
///     async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
///         let file = self.0.join(message.id.to_string()); // a repeat writes the same file
///         let written = std::fs::write(&file, &message.payload);
///         written.map_err(|e| PublishError::unavailable("the spool takes no files").caused_by(e))?;
///         Ok(Receipt::new().to(file.display().to_string()))
///     }
/// }
/// ```
///
/// # Cancel safety
/// The relay may drop a call at its deadline; the message then counts as not confirmed and is published again.
#[async_trait]
pub trait Publisher: Send + Sync + 'static {
    /// Publishes one message and returns when the destination has confirmed it.
    ///
    /// # Errors
    /// [`PublishError`] with the class of the failure.
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError>;

    /// Publishes many at once, in no order, and reports each outcome by [`Batch::done`] at once: an outcome that is
    /// reported when the route's deadline ends the call counts, whatever the other outcomes are.
    ///
    /// By default a [`publish`](Self::publish) for each, all of them concurrently; one that panics fails alone.
    async fn publish_batch(&self, batch: &mut Batch) {
        publish_each(self, batch).await;
    }

    /// Checks the configuration, without asking the destination, so that a mistake is found before the first event. The
    /// relay asks every route when it starts.
    ///
    /// # Errors
    /// [`PublishError`] naming everything that is wrong. A [permanent](PublishError::permanent) one, of a secret, a URL or a
    /// name, refuses the start. Any other says that the destination is down: the relay starts with a warning, and probes it.
    fn check(&self) -> Result<(), PublishError> {
        Ok(())
    }

    /// Names where it publishes, such as host and path, exchange, or topic, without secrets; `None`, the default, where the
    /// publisher does not say. Relays on one outbox must agree on the destinations of their routes, and compare them by a hash.
    fn destination(&self) -> Option<String> {
        None
    }

    /// Names the messaging system for spans and metrics, as OpenTelemetry does: `rabbitmq`, `kafka`; `outbox` by default.
    fn system(&self) -> &'static str {
        SYSTEM
    }

    /// Tells how long the publisher itself waits for the confirmation of one message; `None`, the default, where it leaves
    /// that to the deadline of its route. A relay warns at its start where that is the longer of both.
    fn timeout(&self) -> Option<Duration> {
        None
    }

    /// Gives the limits of the destination; checked at enqueue where the route is known there.
    fn limits(&self) -> Limits {
        Limits::default()
    }
}

/// Publishes each message of a batch by itself, all of them concurrently.
pub(super) async fn publish_each<P: Publisher + ?Sized>(publisher: &P, batch: &mut Batch) {
    let messages = batch.messages();
    let publish =
        |(index, message)| async move { (index, catch_unwind(publisher.publish(message)).await) };
    let mut publishing: FuturesUnordered<_> = messages.iter().enumerate().map(publish).collect();
    while let Some((index, outcome)) = publishing.next().await {
        let panicked =
            |text| Err(PublishError::transient(format!("the publisher panicked: {text}")));
        batch.done(index, outcome.unwrap_or_else(panicked));
    }
}

/// A confirmation of the destination.
///
/// ```
/// # use outbox_core::transport::Receipt;
/// let receipt = Receipt::new().to("orders[3]").at(41_208);
/// assert_eq!((receipt.destination.as_deref(), receipt.position), (Some("orders[3]"), Some(41_208)));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// Where the message was stored, such as a partition, a stream or a URL's host.
    pub destination: Option<String>,
    /// Its place there, such as an offset, a sequence or a delivery tag.
    pub position: Option<u64>,
    /// Whether the destination had the message already.
    pub duplicate: bool,
}

impl Receipt {
    /// Makes a confirmation without details.
    #[must_use]
    pub const fn new() -> Self {
        Self { destination: None, position: None, duplicate: false }
    }

    /// Adds where the message was stored.
    #[must_use]
    pub fn to(mut self, destination: impl Into<String>) -> Self {
        self.destination = Some(destination.into());
        self
    }

    /// Adds its place there.
    #[must_use]
    pub const fn at(mut self, position: u64) -> Self {
        self.position = Some(position);
        self
    }

    /// Adds that the destination had the message already.
    #[must_use]
    pub const fn duplicate(mut self, duplicate: bool) -> Self {
        self.duplicate = duplicate;
        self
    }
}

/// A publish that was not confirmed.
///
/// ```
/// # use outbox_core::transport::PublishError;
/// # use std::time::Duration;
/// fn classify(status: u16) -> PublishError {
///     match status {
///         422 => PublishError::permanent("the receiver rejects the order"),
///         429 => PublishError::transient("too many requests").retry_after(Duration::from_secs(5)),
///         _ => PublishError::unavailable(format!("status {status}")),
///     }
/// }
/// assert_eq!(classify(429).asked_to_wait(), Some(Duration::from_secs(5)));
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct PublishError {
    class: FailureClass,
    responded: bool,
    busy: bool,
    text: String,
    retry_after: Option<Duration>,
    source: Option<BoxError>,
}

impl PublishError {
    /// Makes the error of a message that can never be delivered.
    pub fn permanent(text: impl Into<String>) -> Self {
        Self {
            class: FailureClass::Permanent,
            responded: true,
            busy: false,
            text: text.into(),
            retry_after: None,
            source: None,
        }
    }

    /// Makes the error of a message that may be delivered later.
    pub fn transient(text: impl Into<String>) -> Self {
        Self { class: FailureClass::Transient, responded: false, ..Self::permanent(text) }
    }

    /// Makes the error of a destination that is down.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self { class: FailureClass::Unavailable, responded: false, ..Self::permanent(text) }
    }

    /// Makes the error of a destination that has not begun with the message and asks to wait, as one
    /// does that is paused: the relay counts no attempt, and its breaker stays closed. Only for a
    /// destination that is trusted to say so, since it may do so without end. The relay waits for
    /// about this time, 200 ms at least and 24 h at most.
    pub fn busy(text: impl Into<String>, wait: Duration) -> Self {
        Self { busy: true, ..Self::transient(text).retry_after(wait) }
    }

    /// Adds that the destination has responded, as one does that refuses the sender: the next key is probed at once
    /// then, and one message that alone is refused does not keep its route paused. A permanent failure always is a
    /// response.
    #[must_use]
    pub const fn responded(mut self) -> Self {
        self.responded = true;
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds how long the destination asks to wait. The relay waits for 24 h at most.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Gives the class of the failure.
    #[must_use]
    pub const fn class(&self) -> FailureClass {
        self.class
    }

    /// Tells whether the destination has responded.
    #[must_use]
    pub const fn has_responded(&self) -> bool {
        self.responded
    }

    /// Tells whether the destination has not begun with the message.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.busy
    }

    /// Gives how long the destination asked to wait.
    #[must_use]
    pub const fn asked_to_wait(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Writes the text with all its causes, for storing.
    #[must_use]
    pub fn full_text(&self) -> String {
        let mut text = self.text.clone();
        let mut cause = self.source.as_deref().map(|s| s as &dyn std::error::Error);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
