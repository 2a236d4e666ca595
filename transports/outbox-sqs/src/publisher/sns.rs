//! Publishing to topics of SNS.

use super::{Config, Outcome, PlaceChoice, Sending, Service, gather};
use crate::{
    config::ConfigError,
    topology::{SnsTopic, SqsQueue},
};
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

/// Most bytes of a request and of a message, unless the topic's `MaximumMessageSize` is larger.
const MAX_REQUEST: usize = 262_144;

/// Publishes messages to topics of SNS, in batches. SNS delivers a copy to each queue that is
/// subscribed, with raw delivery: [`SqsSubscriber`](crate::SqsSubscriber) receives it.
///
/// A message is delivered when the service has confirmed its entry of a batch; a topic without a
/// subscription confirms too, and keeps nothing. FIFO topics get key and id as FIFO queues do.
///
/// ```
/// use outbox_sqs::{SnsPublisher, SnsTopic};
/// let publisher = SnsPublisher::new("sns+http://127.0.0.1:4566")?
///     .topic("orders.fifo")
///     .declare([SnsTopic::new("orders.fifo").deliver_to("billing.fifo")])
///     .build()?;
/// # let _ = publisher;
/// # Ok::<(), outbox_sqs::ConfigError>(())
/// ```
pub struct SnsPublisher {
    config: Config,
    sending: OnceLock<Result<Arc<Sending>, ConfigError>>,
}

impl fmt::Debug for SnsPublisher {
    /// Shows where it publishes; no key and no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnsPublisher")
            .field("destination", &self.config.destination())
            .field("binary", &self.config.binary)
            .finish_non_exhaustive()
    }
}

impl SnsPublisher {
    /// Makes a publisher for topics of an account in a region of AWS,
    /// `sns://eu-central-1/123456789012`, or for another endpoint, `sns+https://host:port/ACCOUNT`
    /// or `sns+http://127.0.0.1:4566/000000000000`. Without the account, topics are named by their
    /// ARNs, or declared. `KEY:SECRET@` may stand before the host, percent-encoded.
    ///
    /// Unless configured otherwise a message goes to the topic of SNS that has the name of its
    /// topic.
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such URL.
    pub fn new(url: impl AsRef<str>) -> Result<Self, ConfigError> {
        let config = Config::new(Service::Sns, url.as_ref(), MAX_REQUEST)?;
        Ok(Self { config, sending: OnceLock::new() })
    }

    /// Publishes everything to one topic, by its name or its ARN.
    #[must_use]
    pub fn topic(self, name: impl Into<String>) -> Self {
        self.with(|config| config.place = PlaceChoice::Fixed(name.into()))
    }

    /// Sets the topic of a message, by its name or its ARN: the one with the name of the message's
    /// topic, unless set.
    #[must_use]
    pub fn topic_of(self, topic: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        self.with(|config| config.place = PlaceChoice::Chosen(Arc::new(topic)))
    }

    /// Publishes to FIFO topics: the topic of a message has the name of its own with `.fifo` behind
    /// it.
    #[must_use]
    pub fn fifo(self) -> Self {
        self.with(|config| config.place = PlaceChoice::Topic { fifo: true })
    }

    /// Declares topics, with the queues that receive their messages, before the first message, and
    /// again when one is missing.
    #[must_use]
    pub fn declare(self, topics: impl IntoIterator<Item = SnsTopic>) -> Self {
        self.with(|config| config.topology.topics = topics.into_iter().collect())
    }

    /// Declares queues with settings of their own, before the topics that deliver to them.
    #[must_use]
    pub fn declare_queues(self, queues: impl IntoIterator<Item = SqsQueue>) -> Self {
        self.with(|config| config.topology.queues = queues.into_iter().collect())
    }

    /// Sets the largest message in bytes, attributes counted: 262,144 unless set. A topic whose
    /// `MaximumMessageSize` is larger takes up to 1,048,576.
    #[must_use]
    pub fn max_message(self, bytes: usize) -> Self {
        self.with(|config| config.max_request = bytes)
    }

    /// Puts a text before the name of every topic, such as `shop-`, and before no ARN.
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

    /// Sets the limits that enqueue and relay apply. Unless set they are
    /// [`max_message`](Self::max_message) for the event's JSON object with room for its attributes,
    /// and four batches of 100. `max_message` is checked at each publish in any case.
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
impl Publisher for SnsPublisher {
    /// Shares a request with other messages that are published at the same time.
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let sending =
            self.sending().map_err(|error| PublishError::unavailable(error.to_string()))?;
        Ok(gather::publish(sending, message).await?)
    }

    /// Requests of up to ten entries are in flight side by side, and each entry has its outcome as
    /// soon as its request has a reply. A failed entry says nothing of the others. Of several
    /// messages of one key to a FIFO topic, which the relay never sends at once, a later one goes
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
        "aws.sns"
    }

    fn check(&self) -> Result<(), PublishError> {
        self.sending().map(|_| ()).map_err(|error| PublishError::permanent(error.to_string()))
    }
}
