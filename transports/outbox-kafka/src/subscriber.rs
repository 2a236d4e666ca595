//! The receiving half: a member of a consumer group that commits positions after ack decisions.

use crate::{
    config::{Cluster, ConfigError, ConfigFault, check_combination, topic_fault},
    dead_letters::{DeadLetterTopic, shortened},
    handoff::{Handoff, RawRecord, Received},
    headers::{DeadLetterCause, ReadOptions},
    member::{Member, MemberConfig},
    offsets::DeliveryTag,
    topics::{self, Topic},
};
use async_trait::async_trait;
use outbox_core::transport::{
    Acknowledge, Delivery, SubscribeError, Subscriber, cloudevents::PlainJson,
};
use rdkafka::ClientConfig;
use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::time::sleep;

/// Records that may wait for the consumer, unless set: enough to keep it busy.
const PREFETCH: usize = 1_000;
/// How long a revoked partition waits for ack decisions, unless set.
const DRAIN: Duration = Duration::from_secs(10);
/// Largest payload in bytes that the subscriber reads: far more than Kafka's default limit.
const MAX_MESSAGE: usize = 128 * 1024 * 1024;
/// First wait before joining again; it doubles.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// Longest such wait.
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Default settings of every member, which the user may change.
const DEFAULTS: [(&str, &str); 5] = [
    // A member that joins or leaves moves few partitions, and the others are consumed meanwhile.
    ("partition.assignment.strategy", "cooperative-sticky"),
    // A new group starts with the oldest record.
    ("auto.offset.reset", "earliest"),
    // How late the member notices a topic that is created later.
    ("topic.metadata.refresh.interval.ms", "10000"),
    ("allow.auto.create.topics", "false"),
    ("client.id", "outbox"),
];

/// Settings on which the guarantees depend.
const FIXED: [(&str, &str, &str); 4] = [
    // The library commits what the member stores, and the member stores what has its ack decision.
    ("enable.auto.commit", "true", "a record counts as handled after its ack decision"),
    ("auto.commit.interval.ms", "1000", "a commit that was refused is repeated within a second"),
    ("enable.auto.offset.store", "false", "a record counts as handled after its ack decision"),
    ("enable.partition.eof", "false", "the end of a partition is no record"),
];

/// Receives the records of topics as a member of a consumer group.
///
/// Of records with the same key one is in flight at a time, in the order of their partition;
/// records of other keys and partitions are in flight beside it. `ack` moves the group's position
/// past a record once all records before it are done; the member commits positions every 100 ms,
/// and before it releases a partition, and repeats within a second what the brokers refuse.
/// `nack(true)` and a delivery that is dropped requeue the record, to be delivered before any later
/// one of its key. `reject` and `nack(false)` publish it to the dead-letter topic, if there is one
/// ([`dead_letters`](Self::dead_letters)); else they move past it with a warning in the log.
///
/// In a rebalance the member delivers no more records of a revoked partition; in-flight records
/// have 10 s for their ack decisions, then the member commits the position and releases the
/// partition. A later ack fails, and another member receives the record again: the inbox suppresses
/// the duplicate.
///
/// ```
/// use outbox_kafka::KafkaSubscriber;
/// let subscriber = KafkaSubscriber::new("127.0.0.1:9092", "billing")?
///     .topic("orders")
///     .dead_letters("orders.dead")
///     .set("session.timeout.ms", "10000")
///     .build()?;
/// # let _ = subscriber;
/// # Ok::<(), outbox_kafka::ConfigError>(())
/// ```
pub struct KafkaSubscriber {
    config: Config,
    state: Phase,
    backoff: Duration,
}

/// How long the brokers wait for a member's heartbeat, unless set; librdkafka's default.
const SESSION_TIMEOUT: Duration = Duration::from_secs(45);

#[derive(Clone)]
struct Config {
    cluster: Cluster,
    group: String,
    topics: Vec<String>,
    declared: Vec<Topic>,
    dead_letter_topic: Option<String>,
    instance: Option<String>,
    member: MemberConfig,
}

enum Phase {
    Idle,
    /// Kept when a call of `next` is dropped.
    Joining(Pin<Box<dyn Future<Output = Result<Joined, String>> + Send>>),
    Joined(Joined),
    Closed,
}

struct Joined {
    member: Member,
    dead_letters: Option<Arc<DeadLetterTopic>>,
}

impl fmt::Debug for KafkaSubscriber {
    /// Shows what it receives; no value of a setting, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSubscriber")
            .field("cluster", &self.config.cluster)
            .field("group", &self.config.group)
            .field("topics", &self.config.topics)
            .finish_non_exhaustive()
    }
}

impl KafkaSubscriber {
    /// Makes a member of a group for the brokers of a list: `host:port[,host:port]`, with or
    /// without `kafka://` before it. It joins at the first call of `next`. Name the topics with
    /// [`topic`](Self::topic).
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such list.
    pub fn new(brokers: impl AsRef<str>, group: impl Into<String>) -> Result<Self, ConfigError> {
        let member = MemberConfig {
            topics: Vec::new(),
            prefetch: PREFETCH,
            drain: DRAIN,
            max_payload: MAX_MESSAGE,
            read_options: ReadOptions::default(),
            keeps_raw: false,
        };
        let config = Config {
            cluster: Cluster::parse(brokers.as_ref())?,
            group: group.into(),
            topics: Vec::new(),
            declared: Vec::new(),
            dead_letter_topic: None,
            instance: None,
            member,
        };
        Ok(Self { config, state: Phase::Idle, backoff: Duration::ZERO })
    }

    /// Subscribes to one more topic.
    ///
    /// ```
    /// # use outbox_kafka::KafkaSubscriber;
    /// let subscriber = KafkaSubscriber::new("127.0.0.1:9092", "billing")?.topic("orders").topic("refunds");
    /// # subscriber.build()?;
    /// # Ok::<(), outbox_kafka::ConfigError>(())
    /// ```
    #[must_use]
    pub fn topic(mut self, name: impl Into<String>) -> Self {
        self.config.topics.push(name.into());
        self
    }

    /// Declares topics before the member joins the group.
    #[must_use]
    pub fn declare(mut self, topics: impl IntoIterator<Item = Topic>) -> Self {
        self.config.declared = topics.into_iter().collect();
        self
    }

    /// Publishes rejected records to a topic, as they came, with Kafka Connect's headers for the
    /// cause (`__connect.errors.topic`, `.partition`, `.offset`, `.exception.class.name`,
    /// `.exception.message`; [`DeadLetterCause::of`] reads them). The group's position moves past a
    /// record when the brokers have confirmed its dead letter.
    ///
    /// ```
    /// # use outbox_kafka::KafkaSubscriber;
    /// let subscriber = KafkaSubscriber::new("127.0.0.1:9092", "billing")?
    ///     .topic("orders")
    ///     .dead_letters("orders.billing.dead");
    /// # subscriber.build()?;
    /// # Ok::<(), outbox_kafka::ConfigError>(())
    /// ```
    #[must_use]
    pub fn dead_letters(mut self, topic: impl Into<String>) -> Self {
        self.config.dead_letter_topic = Some(topic.into());
        self
    }

    /// Makes it a static member: when it restarts under the same name within the session timeout,
    /// it has its partitions again without a rebalance. The name must be unique within the group.
    ///
    /// ```
    /// # use outbox_kafka::KafkaSubscriber;
    /// # fn example(pod: &str) -> Result<KafkaSubscriber, outbox_kafka::ConfigError> {
    /// KafkaSubscriber::new("127.0.0.1:9092", "billing")?.topic("orders").instance(pod).build()
    /// # }
    /// ```
    #[must_use]
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.config.instance = Some(name.into());
        self
    }

    /// Sets a setting of librdkafka, such as `session.timeout.ms`, `security.protocol` or
    /// `partition.assignment.strategy` (`cooperative-sticky` unless set; all members of a group
    /// have to agree). [`build`](Self::build) refuses those on which the guarantees depend.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.cluster.set(name.into(), value.into());
        self
    }

    /// Sets how many records may wait for the consumer, 1,000 unless set; while that many wait, the
    /// partitions are paused. Of the records of one key at most a quarter of that number count, so
    /// that a stuck key leaves room to the others; at twice the number the partitions are paused in
    /// any case.
    ///
    /// ```
    /// # use outbox_kafka::KafkaSubscriber;
    /// let large = KafkaSubscriber::new("127.0.0.1:9092", "scans")?.topic("scans").prefetch(50);
    /// # large.build()?;
    /// # Ok::<(), outbox_kafka::ConfigError>(())
    /// ```
    #[must_use]
    pub fn prefetch(mut self, records: usize) -> Self {
        self.config.member.prefetch = records;
        self
    }

    /// Sets how long a revoked partition waits for ack decisions, 10 s unless set.
    ///
    /// ```
    /// # use outbox_kafka::KafkaSubscriber;
    /// # use std::time::Duration;
    /// let slow_handlers = KafkaSubscriber::new("127.0.0.1:9092", "reports")?
    ///     .topic("requests")
    ///     .drain(Duration::from_secs(60));
    /// # slow_handlers.build()?;
    /// # Ok::<(), outbox_kafka::ConfigError>(())
    /// ```
    #[must_use]
    pub fn drain(mut self, longest: Duration) -> Self {
        self.config.member.drain = longest;
        self
    }

    /// Reads records without attributes of CloudEvents as plain JSON whose type stands in a header.
    #[must_use]
    pub fn plain_json(mut self, plain: PlainJson) -> Self {
        self.config.member.read_options.plain_json = Some(plain);
        self
    }

    /// Sets the largest payload in bytes; a larger one is delivered as a message that cannot be
    /// read. 128 MiB unless set.
    #[must_use]
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.config.member.max_payload = bytes;
        self
    }

    /// Sets how long the brokers may take for one reply, from 100 ms; 10 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.cluster.timeout = timeout;
        self
    }

    /// Checks the configuration. Opens no connection.
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    pub fn build(self) -> Result<Self, ConfigError> {
        self.config.client()?;
        Ok(self)
    }

    /// Stops receiving: `next` gives `None`. The member leaves the group after the ack decisions of
    /// its in-flight records.
    pub fn stop(&mut self) {
        self.state = Phase::Closed;
    }
}

impl Config {
    fn client(&self) -> Result<(ClientConfig, Option<Arc<DeadLetterTopic>>), ConfigError> {
        let mut faults = self.cluster.faults(&FIXED);
        faults.extend(topics::faults(&self.declared));
        let topics = self.topics.iter().chain(&self.dead_letter_topic);
        faults.extend(topics.filter_map(|topic| topic_fault(topic)));
        if self.topics.is_empty() {
            faults.push(ConfigFault::NoTopic);
        }
        if self.group.is_empty() {
            faults.push(ConfigFault::Name {
                what: "group",
                name: String::new(),
                rule: "must have a name",
            });
        }
        if self.member.prefetch == 0 {
            faults.push(ConfigFault::Range { what: "the prefetch", rule: "must be at least 1" });
        }
        ConfigError::check(faults)?;
        let mut client = self.cluster.client(&DEFAULTS, &FIXED);
        client.set("group.id", &self.group);
        if let Some(instance) = &self.instance {
            client.set("group.instance.id", instance);
        }
        check_combination(&client)?;
        let dead_letters = match &self.dead_letter_topic {
            Some(topic) => Some(Arc::new(DeadLetterTopic::new(&self.cluster, topic.clone())?)),
            None => None,
        };
        Ok((client, dead_letters))
    }

    async fn join(self) -> Result<Joined, String> {
        let (client, dead_letters) = self.client().map_err(|error| error.to_string())?;
        topics::declare(&client, &self.declared, self.cluster.timeout)
            .await
            .map_err(|failure| failure.text)?;
        let (topics, keeps_raw) = (self.topics.clone(), dead_letters.is_some());
        let member = Member::join(&client, MemberConfig { topics, keeps_raw, ..self.member })?;
        Ok(Joined { member, dead_letters })
    }
}

#[async_trait]
impl Subscriber for KafkaSubscriber {
    fn check(&self) -> Result<(), SubscribeError> {
        self.config.client().map(|_| ()).map_err(|error| SubscribeError(error.into()))
    }

    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        loop {
            match &mut self.state {
                Phase::Closed => return Ok(None),
                Phase::Idle => {
                    let (backoff, config) = (self.backoff, self.config.clone());
                    self.state = Phase::Joining(Box::pin(async move {
                        sleep(backoff).await;
                        config.join().await
                    }));
                }
                Phase::Joining(joining) => match joining.await {
                    Ok(joined) => self.state = Phase::Joined(joined),
                    Err(text) => return Err(self.rejoin(text)),
                },
                Phase::Joined(joined) => match joined.member.next().await {
                    Ok((tag, received)) => {
                        self.backoff = Duration::ZERO;
                        return Ok(Some(joined.delivery(tag, received)));
                    }
                    Err((text, true)) => return Err(self.rejoin(text)),
                    Err((text, false)) => return Err(SubscribeError(text.into())),
                },
            }
        }
    }

    /// The session timeout: after it the brokers assign the partitions to other members.
    fn redelivers_within(&self) -> Duration {
        self.config.cluster.milliseconds("session.timeout.ms").unwrap_or(SESSION_TIMEOUT)
    }

    async fn close(&mut self) {
        if let Phase::Joined(joined) = std::mem::replace(&mut self.state, Phase::Closed) {
            joined.member.leave_group().await;
        }
    }

    fn system(&self) -> &'static str {
        "kafka"
    }
}

impl KafkaSubscriber {
    /// Has the next call of `next` join the group again, after a backoff.
    fn rejoin(&mut self, text: String) -> SubscribeError {
        self.state = Phase::Idle;
        self.backoff = (self.backoff * 2).clamp(MIN_BACKOFF, MAX_BACKOFF);
        SubscribeError(text.into())
    }
}

impl Joined {
    fn delivery(&self, tag: DeliveryTag, received: Received) -> Delivery {
        let Received { message, unread, raw } = received;
        let (handoff, dead_letters) = (self.member.handoff(), self.dead_letters.clone());
        let handle = AckHandle { tag: Some(tag), handoff, raw, dead_letters };
        let delivery = Delivery::new(message, None, Box::new(handle));
        match unread {
            Some(bytes) => delivery.with_raw(bytes),
            None => delivery,
        }
    }
}

struct AckHandle {
    /// Taken by the ack decision.
    tag: Option<DeliveryTag>,
    handoff: Arc<Handoff>,
    raw: Option<Arc<RawRecord>>,
    dead_letters: Option<Arc<DeadLetterTopic>>,
}

impl AckHandle {
    fn done(&mut self) -> Result<(), SubscribeError> {
        acked(self.tag.take().is_some_and(|tag| self.handoff.done(&tag)))
    }

    fn requeue(&mut self) -> Result<(), SubscribeError> {
        acked(self.tag.take().is_some_and(|tag| self.handoff.requeue(&tag)))
    }

    /// Publishes the record to the dead-letter topic and marks it as done; a record whose dead
    /// letter is not confirmed is requeued.
    async fn dead_letter(
        mut self: Box<Self>,
        class: &str,
        reason: &str,
    ) -> Result<(), SubscribeError> {
        if let (Some(topic), Some(raw), Some(tag)) = (&self.dead_letters, &self.raw, &self.tag) {
            let cause = DeadLetterCause {
                topic: tag.partition.0.to_string(),
                partition: tag.partition.1,
                offset: tag.offset,
                class: class.to_owned(),
                message: shortened(reason),
            };
            topic.publish(raw, &cause).await?;
        } else {
            let position = self.tag.as_ref().map(|tag| (&tag.partition, tag.offset));
            tracing::warn!(
                ?position,
                reason,
                "a record was rejected and there is no dead-letter topic; the group moves past it"
            );
        }
        self.done()
    }
}

/// Fails where the member no longer owned the partition at the ack decision.
fn acked(is_owned: bool) -> Result<(), SubscribeError> {
    let late = "the partition was revoked before the ack decision; another member of the group has its record";
    if is_owned { Ok(()) } else { Err(SubscribeError(late.into())) }
}

#[async_trait]
impl Acknowledge for AckHandle {
    async fn ack(mut self: Box<Self>) -> Result<(), SubscribeError> {
        self.done()
    }

    async fn nack(mut self: Box<Self>, requeue: bool) -> Result<(), SubscribeError> {
        if requeue {
            self.requeue()
        } else {
            self.dead_letter("NotHandled", "it was not handled and not requeued").await
        }
    }

    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError> {
        self.dead_letter("Rejected", reason).await
    }
}

impl Drop for AckHandle {
    /// Requeues the record, unless it has its ack decision.
    fn drop(&mut self) {
        let _ = self.requeue();
    }
}
