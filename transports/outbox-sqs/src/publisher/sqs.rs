//! Publishing to queues of SQS.

use super::{Config, Outcome, PlaceChoice, Sending, Service, gather};
use crate::{config::ConfigError, topology::SqsQueue};
use async_trait::async_trait;
use aws_credential_types::provider::ProvideCredentials;
use outbox_core::{
    event::Message,
    transport::{Batch, Limits, PublishError, Publisher, Receipt},
};
use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Most bytes of a request and of a message, as the service documents it (1 MiB).
const MAX_REQUEST: usize = 1_048_576;

/// Publishes messages to queues of SQS, in batches.
///
/// A message is delivered when the service has confirmed its entry of a batch. [`new`](Self::new)
/// makes the publisher without a connection, and the methods that follow configure it;
/// [`build`](Self::build) reports every configuration fault at once.
///
/// A queue whose name ends in `.fifo` gets the key as `MessageGroupId` and the id as
/// `MessageDeduplicationId`; it keeps the order of each key, and takes a repeat within five minutes
/// without storing it. Any other queue promises no order.
///
/// ```
/// use outbox_sqs::{SqsPublisher, SqsQueue};
/// let publisher = SqsPublisher::new("sqs+http://127.0.0.1:4566")?
///     .queue("orders.fifo")
///     .declare([SqsQueue::new("orders.fifo")])
///     .build()?;
/// # let _ = publisher;
/// # Ok::<(), outbox_sqs::ConfigError>(())
/// ```
pub struct SqsPublisher {
    config: Config,
    sending: OnceLock<Result<Arc<Sending>, ConfigError>>,
}

impl fmt::Debug for SqsPublisher {
    /// Shows where it publishes; no key and no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqsPublisher")
            .field("destination", &self.config.destination())
            .field("binary", &self.config.binary)
            .finish_non_exhaustive()
    }
}

impl SqsPublisher {
    /// Makes a publisher for a region of AWS, `sqs://eu-central-1`, with the account behind it where
    /// the queues are another one's (`sqs://eu-central-1/123456789012`); or for another endpoint,
    /// `sqs+https://host:port` or `sqs+http://127.0.0.1:4566`. `KEY:SECRET@` may stand before the
    /// host, percent-encoded.
    ///
    /// Unless configured otherwise a message goes to the queue that has the name of its topic.
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such URL.
    pub fn new(url: impl AsRef<str>) -> Result<Self, ConfigError> {
        let config = Config::new(Service::Sqs, url.as_ref(), MAX_REQUEST)?;
        Ok(Self { config, sending: OnceLock::new() })
    }

    /// Publishes everything to one queue.
    #[must_use]
    pub fn queue(self, name: impl Into<String>) -> Self {
        self.with(|config| config.place = PlaceChoice::Fixed(name.into()))
    }

    /// Sets the queue of a message: the one with the name of its topic, unless set.
    #[must_use]
    pub fn queue_of(self, queue: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        self.with(|config| config.place = PlaceChoice::Chosen(Arc::new(queue)))
    }

    /// Publishes to FIFO queues: the queue of a message has the name of its topic with `.fifo`
    /// behind it.
    #[must_use]
    pub fn fifo(self) -> Self {
        self.with(|config| config.place = PlaceChoice::Topic { fifo: true })
    }

    /// Declares queues before the first message, and again when one is missing. A queue that exists
    /// with other settings stays as it is, and publishing fails as unavailable.
    #[must_use]
    pub fn declare(self, queues: impl IntoIterator<Item = SqsQueue>) -> Self {
        self.with(|config| config.topology.queues = queues.into_iter().collect())
    }

    /// Puts a text before the name of every queue, such as `shop-`.
    #[must_use]
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        self.with(|config| config.prefix = prefix.into())
    }

    /// Sends the payload as the message's body, and the attributes beside it: seven and the media
    /// type by themselves, the others as a JSON object in `ce_attributes`. Unless set, the body is
    /// the event's JSON object. A payload that no body can be, because it is empty or no text that
    /// XML allows, goes as the JSON object all the same.
    #[must_use]
    pub fn binary(self) -> Self {
        self.with(|config| config.binary = true)
    }

    /// Sets how long the service may take for one reply; 10 s unless set. Keep it below the route's
    /// deadline.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.url.timeout = timeout)
    }

    /// Takes the credentials from a provider, such as that of `aws-config`, which knows those of a
    /// container, an instance and a web identity, and renews them. Unless set they are those of the
    /// URL, else those of `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`.
    #[must_use]
    pub fn credentials(self, provider: impl ProvideCredentials + 'static) -> Self {
        self.with(|config| config.url.set_provider(provider))
    }

    /// Trusts one more certificate authority, in PEM, besides the system's.
    #[must_use]
    pub fn trust(self, pem: impl AsRef<[u8]>) -> Self {
        self.with(|config| config.url.roots.push(pem.as_ref().to_vec()))
    }

    /// Sets the limits that enqueue and relay apply. Unless set they are 1 MiB, the service's limit,
    /// for the event's JSON object with room for its attributes, and four batches of 100. The
    /// service's limit is checked at each publish in any case.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        self.with(|config| config.limits = Some(limits))
    }

    /// Checks the configuration. Opens no connection.
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    pub fn build(self) -> Result<Self, ConfigError> {
        self.sending()?;
        Ok(self)
    }

    /// Changes the configuration and drops what was made from the former one.
    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self.sending = OnceLock::new();
        self
    }

    fn sending(&self) -> Result<&Arc<Sending>, ConfigError> {
        self.sending.get_or_init(|| self.config.sending()).as_ref().map_err(Clone::clone)
    }
}

#[async_trait]
impl Publisher for SqsPublisher {
    /// Shares a request with other messages that are published at the same time.
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let sending =
            self.sending().map_err(|error| PublishError::unavailable(error.to_string()))?;
        Ok(gather::publish(sending, message).await?)
    }

    /// Requests of up to ten entries are in flight side by side, and each entry has its outcome as
    /// soon as its request has a reply. A failed entry says nothing of the others. Of several
    /// messages of one key to a FIFO queue, which the relay never sends at once, a later one goes
    /// when the earlier one is confirmed, and fails where that one has.
    async fn publish_batch(&self, batch: &mut Batch) {
        let sending = match self.sending() {
            Ok(sending) => sending,
            Err(error) => {
                return batch.rest(|| Err(PublishError::unavailable(error.to_string())));
            }
        };
        let messages = batch.messages();
        let report = |index, outcome: Outcome| batch.done(index, outcome.map_err(Into::into));
        sending.send(&messages, report).await;
    }

    fn limits(&self) -> Limits {
        self.config.limits()
    }

    fn timeout(&self) -> Option<Duration> {
        Some(self.config.url.timeout)
    }

    fn destination(&self) -> Option<String> {
        Some(self.config.destination())
    }

    fn system(&self) -> &'static str {
        "aws_sqs"
    }

    fn check(&self) -> Result<(), PublishError> {
        self.sending().map(|_| ()).map_err(|error| PublishError::permanent(error.to_string()))
    }
}
