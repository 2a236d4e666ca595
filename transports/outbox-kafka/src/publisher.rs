//! The sending half: records to topics, each confirmed by all replicas that are in sync.

use crate::{
    config::{Cluster, ConfigError, TOPIC_RULE, is_topic, shown, topic_fault},
    headers,
    producer::{Outgoing, Producer},
    topics::Topic,
    verdict::Refused,
};
use async_trait::async_trait;
use outbox_core::{
    event::Message,
    transport::{Batch, Encoding, Limits, PublishError, Publisher, Receipt, TopicRule},
};
use rdkafka::producer::future_producer::Delivery;
use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Bytes of payload, key and headers that fit into a batch of one record as Kafka takes it unless it is configured otherwise
/// (1,048,588, the envelope of the batch included).
const MAX_MESSAGE: usize = 1_048_588 - 1_024;

type Text = Arc<dyn Fn(&Message) -> String + Send + Sync>;
type Key = Arc<dyn Fn(&Message) -> Option<Vec<u8>> + Send + Sync>;

/// Publishes messages to topics of Kafka.
///
/// A message is delivered when its delivery report says that all replicas which are in sync have it (`acks=all`); the producer
/// is idempotent, so that what librdkafka sends again is not doubled and overtakes nothing of its partition. Made by
/// [`new`](Self::new), which opens no connection, and refined by the methods that follow; [`build`](Self::build) reports
/// everything that is wrong with it at once.
///
/// The receipt names topic and partition (`orders[3]`) and the offset there.
///
/// ```
/// use outbox_kafka::{KafkaPublisher, Topic};
/// let publisher = KafkaPublisher::new("127.0.0.1:9092")?
///     .declare([Topic::new("orders").partitions(12).replication(3).set("min.insync.replicas", "2")])
///     .set("compression.type", "lz4")
///     .build()?;
/// # let _ = publisher;
/// # Ok::<(), outbox_kafka::ConfigError>(())
/// ```
pub struct KafkaPublisher {
    config: Config,
    producer: OnceLock<Result<Producer, ConfigError>>,
}

struct Config {
    cluster: Cluster,
    topic: Where,
    key: Key,
    structured: bool,
    topics: Vec<Topic>,
    limits: Limits,
}

/// Which topic a message goes to.
enum Where {
    Own,
    Fixed(String),
    Chosen(Text),
}

impl fmt::Debug for KafkaPublisher {
    /// Shows the brokers and the names of settings; no value, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaPublisher")
            .field("cluster", &self.config.cluster)
            .field("structured", &self.config.structured)
            .finish_non_exhaustive()
    }
}

impl KafkaPublisher {
    /// Makes a publisher for the brokers of a list: `host:port[,host:port]`, with or without `kafka://` before it; some of the
    /// cluster are enough.
    ///
    /// A message goes to the topic that it names, with its own key as record key, unless told otherwise.
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such list.
    pub fn new(brokers: impl AsRef<str>) -> Result<Self, ConfigError> {
        let config = Config {
            cluster: Cluster::parse(brokers.as_ref())?,
            topic: Where::Own,
            key: Arc::new(|message| message.key.as_ref().map(|key| key.as_bytes().to_vec())),
            structured: false,
            topics: Vec::new(),
            limits: Limits::default()
                .max_message(MAX_MESSAGE)
                .topics(TopicRule::new(TOPIC_RULE, is_topic)),
        };
        Ok(Self { config, producer: OnceLock::new() })
    }

    /// Makes a publisher as [`new`](Self::new) does, and asks the brokers who they are: for services that would rather not
    /// start than wait.
    ///
    /// # Errors
    /// [`PublishError`] when the list cannot be read or no broker answers.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves no connection.
    pub async fn connect(brokers: impl AsRef<str>) -> Result<Self, PublishError> {
        let unusable = |error: ConfigError| PublishError::unavailable(error.to_string());
        let publisher = Self::new(brokers).map_err(unusable)?;
        publisher.producer().map_err(unusable)?.reach().await?;
        Ok(publisher)
    }

    /// Publishes everything to one topic.
    #[must_use]
    pub fn topic(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.with(|config| {
            config.limits.topics = None;
            config.topic = Where::Fixed(name);
        })
    }

    /// Says the topic of a message: its own, unless set.
    #[must_use]
    pub fn topic_of(self, topic: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        self.with(|config| {
            config.limits.topics = None;
            config.topic = Where::Chosen(Arc::new(topic));
        })
    }

    /// Says the record key of a message, by which Kafka chooses the partition: its own key, unless set. Records without a key
    /// go to any partition.
    #[must_use]
    pub fn record_key(
        self,
        key: impl Fn(&Message) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        self.with(|config| config.key = Arc::new(key))
    }

    /// Declares topics before the first record, and again when the brokers say that one is missing.
    #[must_use]
    pub fn declare(self, topics: impl IntoIterator<Item = Topic>) -> Self {
        self.with(|config| config.topics = topics.into_iter().collect())
    }

    /// Makes a setting of librdkafka, such as `compression.type`, `security.protocol` or `sasl.username`. Those on which the
    /// promises rest (`acks`, `enable.idempotence`) are refused.
    #[must_use]
    pub fn set(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|config| config.cluster.set(name.into(), value.into()))
    }

    /// Sends each message as one JSON object (`application/cloudevents+json`). A message whose payload is itself a CloudEvent
    /// goes so anyway.
    #[must_use]
    pub fn structured(self) -> Self {
        self.with(|config| config.structured = true)
    }

    /// Sets how long the brokers may take to confirm a record, from 100 ms; 10 s unless set. Keep it below the route's
    /// deadline.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.cluster.timeout = timeout)
    }

    /// Sets the limits that enqueue and relay heed: 1,047,564 bytes of payload, key and headers, topics that Kafka takes, and four batches of
    /// 256, unless set.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        self.with(|config| config.limits = limits)
    }

    /// Checks everything that was configured. Opens no connection.
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    pub fn build(self) -> Result<Self, ConfigError> {
        self.producer()?;
        Ok(self)
    }

    /// Changes the configuration; what was made from the former one is made again.
    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self.producer = OnceLock::new();
        self
    }

    fn producer(&self) -> Result<&Producer, ConfigError> {
        self.producer.get_or_init(|| self.config.producer()).as_ref().map_err(Clone::clone)
    }

    async fn send(
        &self,
        messages: &[Message],
        mut done: impl FnMut(usize, Result<Receipt, PublishError>),
    ) -> Result<(), ConfigError> {
        let producer = self.producer()?;
        let (mut records, mut places) =
            (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
        for (place, message) in messages.iter().enumerate() {
            match self.config.record(message) {
                Ok(record) => {
                    records.push(record);
                    places.push(place);
                }
                Err(refused) => done(place, Err(refused.into())),
            }
        }
        let topics = &records;
        let report = |sent: usize, verdict: Result<Delivery, Refused>| {
            let receipt = verdict.map(|delivery| receipt(&topics[sent].topic, &delivery));
            done(places[sent], receipt.map_err(PublishError::from));
        };
        producer.send(&records, report).await;
        Ok(())
    }
}

/// Says where a record went.
fn receipt(topic: &str, delivery: &Delivery) -> Receipt {
    let receipt = Receipt::new().to(format!("{topic}[{}]", delivery.partition));
    match u64::try_from(delivery.offset) {
        Ok(offset) => receipt.at(offset),
        Err(_) => receipt,
    }
}

impl Config {
    fn producer(&self) -> Result<Producer, ConfigError> {
        let fixed = if let Where::Fixed(name) = &self.topic { topic_fault(name) } else { None };
        Producer::new(&self.cluster, &self.topics, fixed.into_iter().collect())
    }

    /// Writes one message for the wire.
    fn record(&self, message: &Message) -> Result<Outgoing, Refused> {
        let topic = match &self.topic {
            Where::Own => message.topic.clone(),
            Where::Fixed(name) => name.clone(),
            Where::Chosen(choose) => choose(message),
        };
        if !is_topic(&topic) {
            return Err(Refused::permanent(format!("the topic `{}` {TOPIC_RULE}", shown(&topic))));
        }
        let (tombstone, key) = (message.is_tombstone(), (self.key)(message));
        if tombstone && key.is_none() {
            return Err(Refused::permanent(
                "a tombstone needs a record key: it says that what was told under it is gone",
            ));
        }
        // Without a value the attributes have to be headers.
        let (headers, body) = headers::write(message, self.structured && !tombstone);
        let limit = self.limits.max_payload.unwrap_or(usize::MAX);
        if message.payload.len() > limit {
            let size = message.payload.len();
            return Err(Refused::permanent(format!(
                "the payload has {size} bytes, of at most {limit}"
            )));
        }
        Ok(Outgoing { topic, key, headers, body: (!tombstone).then_some(body) })
    }
}

#[async_trait]
impl Publisher for KafkaPublisher {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let mut outcome = None;
        let sent =
            self.send(std::slice::from_ref(message), |_, verdict| outcome = Some(verdict)).await;
        sent.map_err(|error| PublishError::unavailable(error.to_string()))?;
        outcome.unwrap_or_else(|| Err(PublishError::transient("no verdict")))
    }

    async fn publish_batch(&self, batch: &mut Batch) {
        let messages = batch.messages();
        if let Err(error) = self.send(&messages, |place, verdict| batch.done(place, verdict)).await
        {
            batch.rest(|| Err(PublishError::unavailable(error.to_string())));
        }
    }

    fn limits(&self) -> Limits {
        let encoding =
            if self.config.structured { Encoding::StructuredRecord } else { Encoding::Record };
        self.config.limits.encoding(encoding)
    }

    fn timeout(&self) -> Option<Duration> {
        Some(self.config.cluster.timeout)
    }

    fn destination(&self) -> Option<String> {
        let topic = match &self.config.topic {
            Where::Own => "the event's own topic",
            Where::Fixed(name) => name.as_str(),
            Where::Chosen(_) => "a chosen topic",
        };
        let mut brokers: Vec<&str> = self.config.cluster.brokers.split(',').collect();
        brokers.sort_unstable();
        Some(format!("{}#{topic}", brokers.join(",")))
    }

    fn check(&self) -> Result<(), PublishError> {
        self.producer().map(|_| ()).map_err(|error| PublishError::permanent(error.to_string()))
    }
}
