//! The sending half: records to topics, each confirmed by all in-sync replicas.

use crate::{
    classify::Failure,
    config::{Cluster, ConfigError, TOPIC_RULE, is_topic, topic_fault},
    headers,
    producer::{Outgoing, Producer},
    topics::Topic,
};
use async_trait::async_trait;
use outbox_core::{
    event::Message,
    transport::{Batch, Encoding, Limits, PublishError, Publisher, Receipt, TopicRule, printable},
};
use rdkafka::producer::future_producer::Delivery;
use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Bytes of payload, key and headers that fit into a batch of one record under Kafka's default
/// limit (1,048,588, the envelope of the batch included).
const MAX_MESSAGE: usize = 1_048_588 - 1_024;

type ChooseTopic = Arc<dyn Fn(&Message) -> String + Send + Sync>;
type ChooseKey = Arc<dyn Fn(&Message) -> Option<Vec<u8>> + Send + Sync>;

/// Publishes messages to topics of Kafka.
///
/// A message is delivered when its delivery report says that all in-sync replicas have it
/// (`acks=all`). The producer is idempotent, so that a retry of librdkafka neither duplicates a
/// record nor changes the order of its partition. [`new`](Self::new) makes the publisher without a
/// connection, and the methods that follow configure it; [`build`](Self::build) reports every
/// configuration fault at once.
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
    topic: TopicChoice,
    key: ChooseKey,
    structured: bool,
    topics: Vec<Topic>,
    limits: Limits,
}

/// Which topic a message goes to.
enum TopicChoice {
    Own,
    Fixed(String),
    Chosen(ChooseTopic),
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
    /// Makes a publisher for the brokers of a list: `host:port[,host:port]`, with or without
    /// `kafka://` before it; some of the cluster are enough.
    ///
    /// Unless configured otherwise a message goes to the topic that it names, with its own key as
    /// record key.
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such list.
    pub fn new(brokers: impl AsRef<str>) -> Result<Self, ConfigError> {
        let config = Config {
            cluster: Cluster::parse(brokers.as_ref())?,
            topic: TopicChoice::Own,
            key: Arc::new(|message| message.key.as_ref().map(|key| key.as_bytes().to_vec())),
            structured: false,
            topics: Vec::new(),
            limits: Limits::default()
                .max_message(MAX_MESSAGE)
                .topics(TopicRule::new(TOPIC_RULE, is_topic)),
        };
        Ok(Self { config, producer: OnceLock::new() })
    }

    /// Makes a publisher as [`new`](Self::new) does, and connects: for services that should not
    /// start without a broker.
    ///
    /// # Errors
    /// [`PublishError`] when the list cannot be read or no broker replies.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves no connection.
    pub async fn connect(brokers: impl AsRef<str>) -> Result<Self, PublishError> {
        let unusable = |error: ConfigError| PublishError::unavailable(error.to_string());
        let publisher = Self::new(brokers).map_err(unusable)?;
        publisher.producer().map_err(unusable)?.connect().await?;
        Ok(publisher)
    }

    /// Publishes everything to one topic.
    ///
    /// ```
    /// # use outbox_kafka::KafkaPublisher;
    /// let publisher = KafkaPublisher::new("127.0.0.1:9092")?.topic("shop.events");
    /// # publisher.build()?;
    /// # Ok::<(), outbox_kafka::ConfigError>(())
    /// ```
    #[must_use]
    pub fn topic(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.with(|config| {
            config.limits.topics = None;
            config.topic = TopicChoice::Fixed(name);
        })
    }

    /// Sets the topic of a message: its own, unless set.
    ///
    /// ```
    /// # use outbox_kafka::KafkaPublisher;
    /// let publisher = KafkaPublisher::new("127.0.0.1:9092")?
    ///     .topic_of(|message| format!("shop.{}", message.topic));
    /// # publisher.build()?;
    /// # Ok::<(), outbox_kafka::ConfigError>(())
    /// ```
    #[must_use]
    pub fn topic_of(self, topic: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        self.with(|config| {
            config.limits.topics = None;
            config.topic = TopicChoice::Chosen(Arc::new(topic));
        })
    }

    /// Sets the record key of a message, by which Kafka chooses the partition: its own key, unless
    /// set. Records without a key go to any partition.
    ///
    /// ```
    /// # use outbox_kafka::KafkaPublisher;
    /// let by_tenant = KafkaPublisher::new("127.0.0.1:9092")?
    ///     .record_key(|message| message.headers.get("tenant").map(|tenant| tenant.as_bytes().to_vec()));
    /// # by_tenant.build()?;
    /// # Ok::<(), outbox_kafka::ConfigError>(())
    /// ```
    #[must_use]
    pub fn record_key(
        self,
        key: impl Fn(&Message) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        self.with(|config| config.key = Arc::new(key))
    }

    /// Declares topics before the first record, and again when the brokers report one missing.
    #[must_use]
    pub fn declare(self, topics: impl IntoIterator<Item = Topic>) -> Self {
        self.with(|config| config.topics = topics.into_iter().collect())
    }

    /// Sets a setting of librdkafka, such as `compression.type`, `security.protocol` or
    /// `sasl.username`. [`build`](Self::build) refuses those on which the guarantees depend
    /// (`acks`, `enable.idempotence`).
    ///
    /// ```
    /// # use outbox_kafka::KafkaPublisher;
    /// # const PASSWORD: &str = "secret";
    /// let publisher = KafkaPublisher::new("kafka.example:9092")?
    ///     .set("security.protocol", "SASL_PLAINTEXT")
    ///     .set("sasl.mechanism", "PLAIN")
    ///     .set("sasl.username", "shop")
    ///     .set("sasl.password", PASSWORD)
    ///     .build()?;
    /// # let _ = publisher;
    /// # Ok::<(), outbox_kafka::ConfigError>(())
    /// ```
    #[must_use]
    pub fn set(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|config| config.cluster.set(name.into(), value.into()))
    }

    /// Sends each message as one JSON object (`application/cloudevents+json`). Without this setting
    /// the publisher does so only for a message whose payload is itself a CloudEvent.
    #[must_use]
    pub fn structured(self) -> Self {
        self.with(|config| config.structured = true)
    }

    /// Sets how long the brokers may take to confirm a record, from 100 ms; 10 s unless set. Keep
    /// it below the route's deadline.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.cluster.timeout = timeout)
    }

    /// Sets the limits that enqueue and relay apply: 1,047,564 bytes of payload, key and headers,
    /// legal names of topics, and four batches of 256, unless set.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        self.with(|config| config.limits = limits)
    }

    /// Checks the configuration. Opens no connection.
    ///
    /// ```
    /// # use outbox_kafka::KafkaPublisher;
    /// let error = KafkaPublisher::new("127.0.0.1:9092")?.set("acks", "1").build().unwrap_err();
    /// assert_eq!(error.faults().len(), 1, "the guarantees depend on it: {error}");
    /// # Ok::<(), outbox_kafka::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    pub fn build(self) -> Result<Self, ConfigError> {
        self.producer()?;
        Ok(self)
    }

    /// Changes the configuration and drops the producer that was made from the former one.
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
        let (mut records, mut indexes) =
            (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
        for (index, message) in messages.iter().enumerate() {
            match self.config.record(message) {
                Ok(record) => {
                    records.push(record);
                    indexes.push(index);
                }
                Err(failure) => done(index, Err(failure.into())),
            }
        }
        let sent_records = &records;
        let report = |sent: usize, outcome: Result<Delivery, Failure>| {
            let receipt = outcome.map(|delivery| receipt(&sent_records[sent].topic, &delivery));
            done(indexes[sent], receipt.map_err(PublishError::from));
        };
        producer.send(&records, report).await;
        Ok(())
    }
}

/// Makes the receipt of a record: its topic, partition and offset.
fn receipt(topic: &str, delivery: &Delivery) -> Receipt {
    let receipt = Receipt::new().to(format!("{topic}[{}]", delivery.partition));
    match u64::try_from(delivery.offset) {
        Ok(offset) => receipt.at(offset),
        Err(_) => receipt,
    }
}

impl Config {
    fn producer(&self) -> Result<Producer, ConfigError> {
        let fixed =
            if let TopicChoice::Fixed(name) = &self.topic { topic_fault(name) } else { None };
        Producer::new(&self.cluster, &self.topics, fixed.into_iter().collect())
    }

    /// Encodes one message.
    fn record(&self, message: &Message) -> Result<Outgoing, Failure> {
        let topic = match &self.topic {
            TopicChoice::Own => message.topic.clone(),
            TopicChoice::Fixed(name) => name.clone(),
            TopicChoice::Chosen(choose) => choose(message),
        };
        if !is_topic(&topic) {
            return Err(Failure::permanent(format!(
                "the topic `{}` {TOPIC_RULE}",
                printable(&topic)
            )));
        }
        let (tombstone, key) = (message.is_tombstone(), (self.key)(message));
        if tombstone && key.is_none() {
            return Err(Failure::permanent(
                "a tombstone needs a record key: it deletes the earlier records of that key",
            ));
        }
        // Without a value the attributes have to be headers.
        let (headers, body) = headers::write(message, self.structured && !tombstone);
        let limit = self.limits.max_payload.unwrap_or(usize::MAX);
        if message.payload.len() > limit {
            let size = message.payload.len();
            return Err(Failure::permanent(format!(
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
            self.send(std::slice::from_ref(message), |_, reported| outcome = Some(reported)).await;
        sent.map_err(|error| PublishError::unavailable(error.to_string()))?;
        outcome.unwrap_or_else(|| Err(PublishError::transient("no outcome")))
    }

    async fn publish_batch(&self, batch: &mut Batch) {
        let messages = batch.messages();
        if let Err(error) = self.send(&messages, |index, outcome| batch.done(index, outcome)).await
        {
            batch.rest(|| Err(PublishError::unavailable(error.to_string())));
        }
    }

    fn system(&self) -> &'static str {
        "kafka"
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
            TopicChoice::Own => "the event's own topic",
            TopicChoice::Fixed(name) => name.as_str(),
            TopicChoice::Chosen(_) => "a chosen topic",
        };
        let mut brokers: Vec<&str> = self.config.cluster.brokers.split(',').collect();
        brokers.sort_unstable();
        Some(format!("{}#{topic}", brokers.join(",")))
    }

    fn check(&self) -> Result<(), PublishError> {
        self.producer().map(|_| ()).map_err(|error| PublishError::permanent(error.to_string()))
    }
}
