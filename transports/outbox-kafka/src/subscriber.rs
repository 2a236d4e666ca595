//! The receiving half: a member of a consumer group whose positions move when records are answered for.

use crate::{
    config::{Cluster, ConfigError, ConfigFault, fits, topic_fault},
    desk::{Arrived, Desk, Raw},
    headers::{Death, Reading, is_of_a_death},
    ledger::Ticket,
    member::{Manners, Member},
    producer::{Outgoing, Producer},
    topics::{self, Topic},
};
use async_trait::async_trait;
use outbox_core::transport::{
    Acknowledge, Delivery, SubscribeError, Subscriber, cloudevents::PlainJson,
};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
};
use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::time::sleep;

/// Records that wait to be asked for, unless set: enough to keep a consumer busy.
const PREFETCH: usize = 1_000;
/// How long a partition that is to go waits for answers, unless set.
const DRAIN: Duration = Duration::from_secs(10);
/// Bytes of a message that are taken: far more than Kafka takes unless it is configured otherwise.
const MAX_MESSAGE: usize = 128 * 1024 * 1024;
/// Bytes of a reason that are kept in a dead letter.
const MAX_REASON: usize = 1_024;
/// Wait before joining again, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest such wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Settings of every member that the user may change.
const DEFAULTS: [(&str, &str); 5] = [
    // A member that comes or goes takes partitions from few of the others, which go on meanwhile.
    ("partition.assignment.strategy", "cooperative-sticky"),
    // A group that is new has missed nothing.
    ("auto.offset.reset", "earliest"),
    // How late a topic that is made later is noticed.
    ("topic.metadata.refresh.interval.ms", "10000"),
    ("allow.auto.create.topics", "false"),
    ("client.id", "outbox"),
];

/// Settings on which the promises rest.
const OURS: [(&str, &str, &str); 3] = [
    ("enable.auto.commit", "false", "a record counts as handled when it was answered for"),
    ("enable.auto.offset.store", "false", "a record counts as handled when it was answered for"),
    ("enable.partition.eof", "false", "the end of a partition is no record"),
];

/// Receives the records of topics as a member of a consumer group.
///
/// Of records with the same key one is out at a time, in the order of their partition; other keys and partitions go beside it.
/// `ack` lets the group's position pass a record, once all before it are done too; positions are committed every 100 ms, and
/// before a partition goes to another member. `nack(true)` and a delivery that is dropped bring the record again, before
/// anything later of its key. `reject` and `nack(false)` publish it to the dead-letter topic, if there is one
/// ([`dead_letters`](Self::dead_letters)), else pass it with a warning in the log.
///
/// When the group is rebalanced, partitions that go are given out of no more; what is out has 10 s to be answered for, then the
/// position is committed and the partition goes. An answer that comes later is an error, and the record was given to
/// somebody else: that is what the inbox is for.
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
    pause: Duration,
}

/// How long librdkafka's group waits for a member's sign of life, unless set.
const SESSION: Duration = Duration::from_secs(45);

#[derive(Clone)]
struct Config {
    cluster: Cluster,
    group: String,
    topics: Vec<String>,
    declared: Vec<Topic>,
    dead: Option<String>,
    instance: Option<String>,
    manners: Manners,
}

enum Phase {
    Idle,
    /// Kept over calls of `next` that are dropped.
    Joining(Pin<Box<dyn Future<Output = Result<Joined, String>> + Send>>),
    Joined(Joined),
    Closed,
}

struct Joined {
    member: Member,
    letters: Option<Arc<Letters>>,
}

/// Where dead letters go.
struct Letters {
    producer: Producer,
    topic: String,
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
    /// Makes a member of a group for the brokers of a list: `host:port[,host:port]`, with or without `kafka://` before it. It
    /// joins when it is first asked for a record. Name the topics with [`topic`](Self::topic).
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such list.
    pub fn new(brokers: impl AsRef<str>, group: impl Into<String>) -> Result<Self, ConfigError> {
        let manners = Manners {
            topics: Vec::new(),
            prefetch: PREFETCH,
            drain: DRAIN,
            max_payload: MAX_MESSAGE,
            reading: Reading::default(),
            keeps_raw: false,
        };
        let config = Config {
            cluster: Cluster::parse(brokers.as_ref())?,
            group: group.into(),
            topics: Vec::new(),
            declared: Vec::new(),
            dead: None,
            instance: None,
            manners,
        };
        Ok(Self { config, state: Phase::Idle, pause: Duration::ZERO })
    }

    /// Subscribes to one more topic.
    #[must_use]
    pub fn topic(mut self, name: impl Into<String>) -> Self {
        self.config.topics.push(name.into());
        self
    }

    /// Declares topics before the group is joined.
    #[must_use]
    pub fn declare(mut self, topics: impl IntoIterator<Item = Topic>) -> Self {
        self.config.declared = topics.into_iter().collect();
        self
    }

    /// Publishes what is rejected to a topic, as it came, with Kafka Connect's headers for why (`__connect.errors.topic`,
    /// `.partition`, `.offset`, `.exception.class.name`, `.exception.message`; [`Death::of`] reads them). The group passes
    /// a record when the brokers have confirmed its letter.
    #[must_use]
    pub fn dead_letters(mut self, topic: impl Into<String>) -> Self {
        self.config.dead = Some(topic.into());
        self
    }

    /// Makes it a static member: one that leaves and comes back under the same name within the session's time finds its
    /// partitions again, without a rebalance. The name is its own within the group.
    #[must_use]
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.config.instance = Some(name.into());
        self
    }

    /// Makes a setting of librdkafka, such as `session.timeout.ms`, `security.protocol` or
    /// `partition.assignment.strategy` (`cooperative-sticky` unless set; all members of a group have to agree). Those on
    /// which the promises rest are refused.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.cluster.set(name.into(), value.into());
        self
    }

    /// Sets how many records may wait to be asked for, 1,000 unless set; while that many wait, the partitions are paused. Of one
    /// key, of which one record is out at a time, a quarter of them count at most, so that a key that is stuck leaves room to the
    /// others; twice as many are kept in any case before the partitions are paused.
    #[must_use]
    pub fn prefetch(mut self, records: usize) -> Self {
        self.config.manners.prefetch = records;
        self
    }

    /// Sets how long a partition that goes to another member waits for answers, 10 s unless set.
    #[must_use]
    pub fn drain(mut self, longest: Duration) -> Self {
        self.config.manners.drain = longest;
        self
    }

    /// Reads records without attributes of CloudEvents as plain JSON whose type stands in a header.
    #[must_use]
    pub fn plain_json(mut self, plain: PlainJson) -> Self {
        self.config.manners.reading.plain_json = Some(plain);
        self
    }

    /// Sets how long a payload may be; a longer one is delivered as a message that cannot be read. 128 MiB unless set.
    #[must_use]
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.config.manners.max_payload = bytes;
        self
    }

    /// Sets how long the brokers may take for one answer, from 100 ms; 10 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.cluster.timeout = timeout;
        self
    }

    /// Checks everything that was configured. Opens no connection.
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    pub fn build(self) -> Result<Self, ConfigError> {
        self.config.client()?;
        Ok(self)
    }

    /// Takes no further record: `next` gives `None`. The group is left when what is out was answered for.
    pub fn close(&mut self) {
        self.state = Phase::Closed;
    }
}

impl Config {
    fn client(&self) -> Result<(ClientConfig, Option<Arc<Letters>>), ConfigError> {
        let mut faults = self.cluster.faults(&OURS);
        faults.extend(topics::faults(&self.declared));
        faults.extend(self.topics.iter().chain(&self.dead).filter_map(|topic| topic_fault(topic)));
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
        if self.manners.prefetch == 0 {
            faults.push(ConfigFault::Range { what: "the prefetch", rule: "must be at least 1" });
        }
        ConfigError::check(faults)?;
        let mut client = self.cluster.client(&DEFAULTS, &OURS);
        client.set("group.id", &self.group);
        if let Some(instance) = &self.instance {
            client.set("group.instance.id", instance);
        }
        fits(&client)?;
        let letters = match &self.dead {
            Some(topic) => {
                let producer = Producer::new(&self.cluster, &[], Vec::new())?;
                Some(Arc::new(Letters { producer, topic: topic.clone() }))
            }
            None => None,
        };
        Ok((client, letters))
    }

    async fn join(self) -> Result<Joined, String> {
        let (client, letters) = self.client().map_err(|error| error.to_string())?;
        topics::declare(&client, &self.declared, self.cluster.timeout)
            .await
            .map_err(|refused| refused.text)?;
        let (topics, keeps_raw) = (self.topics.clone(), letters.is_some());
        let member = Member::join(&client, Manners { topics, keeps_raw, ..self.manners })?;
        Ok(Joined { member, letters })
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
                    let (pause, config) = (self.pause, self.config.clone());
                    self.state = Phase::Joining(Box::pin(async move {
                        sleep(pause).await;
                        config.join().await
                    }));
                }
                Phase::Joining(joining) => match joining.await {
                    Ok(joined) => self.state = Phase::Joined(joined),
                    Err(text) => return Err(self.begin_anew(text)),
                },
                Phase::Joined(joined) => match joined.member.next().await {
                    Ok((ticket, arrived)) => {
                        self.pause = Duration::ZERO;
                        return Ok(Some(joined.delivery(ticket, arrived)));
                    }
                    Err((text, true)) => return Err(self.begin_anew(text)),
                    Err((text, false)) => return Err(SubscribeError(text.into())),
                },
            }
        }
    }

    /// As long as the group's session lasts: then its partitions go to other members.
    fn redelivers_within(&self) -> Duration {
        self.config.cluster.milliseconds("session.timeout.ms").unwrap_or(SESSION)
    }

    async fn leave(&mut self) {
        if let Phase::Joined(joined) = std::mem::replace(&mut self.state, Phase::Closed) {
            joined.member.leave().await;
        }
    }
}

impl KafkaSubscriber {
    fn begin_anew(&mut self, text: String) -> SubscribeError {
        self.state = Phase::Idle;
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        SubscribeError(text.into())
    }
}

impl Joined {
    fn delivery(&self, ticket: Ticket, arrived: Arrived) -> Delivery {
        let Arrived { message, unread, raw } = arrived;
        let (desk, letters) = (self.member.desk(), self.letters.clone());
        let delivery = Delivery::new(
            message,
            None,
            Box::new(Unanswered { ticket: Some(ticket), desk, raw, letters }),
        );
        match unread {
            Some(bytes) => delivery.with_raw(bytes),
            None => delivery,
        }
    }
}

struct Unanswered {
    /// Taken by the answer.
    ticket: Option<Ticket>,
    desk: Arc<Desk>,
    raw: Option<Arc<Raw>>,
    letters: Option<Arc<Letters>>,
}

impl Unanswered {
    fn done(&mut self) -> Result<(), SubscribeError> {
        heard(self.ticket.take().is_some_and(|ticket| self.desk.done(&ticket)))
    }

    fn back(&mut self) -> Result<(), SubscribeError> {
        heard(self.ticket.take().is_some_and(|ticket| self.desk.back(&ticket)))
    }

    /// Publishes the record to the dead letters, then passes it; one whose letter is not confirmed comes again.
    async fn bury(mut self: Box<Self>, class: &str, reason: &str) -> Result<(), SubscribeError> {
        if let (Some(letters), Some(raw), Some(ticket)) = (&self.letters, &self.raw, &self.ticket) {
            let death = Death {
                topic: ticket.place.0.to_string(),
                partition: ticket.place.1,
                offset: ticket.offset,
                class: class.to_owned(),
                message: shortened(reason),
            };
            letters.send(raw, &death).await?;
        } else {
            let place = self.ticket.as_ref().map(|ticket| (&ticket.place, ticket.offset));
            tracing::warn!(
                ?place,
                reason,
                "a record was rejected, and there is no dead-letter topic: it is passed"
            );
        }
        self.done()
    }
}

fn heard(ours: bool) -> Result<(), SubscribeError> {
    let late = "the partition was taken away before the answer; its record went to another member of the group";
    if ours { Ok(()) } else { Err(SubscribeError(late.into())) }
}

fn shortened(reason: &str) -> String {
    let end = (0..=MAX_REASON.min(reason.len()))
        .rev()
        .find(|end| reason.is_char_boundary(*end))
        .unwrap_or(0);
    reason[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl Letters {
    async fn send(&self, raw: &Raw, death: &Death) -> Result<(), SubscribeError> {
        let headers = raw.headers.iter().filter(|(name, _)| !is_of_a_death(name));
        let headers = headers.fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: value.as_ref() })
        });
        let headers = death.headers().iter().fold(headers, |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let letter = Outgoing {
            topic: self.topic.clone(),
            key: raw.key.clone(),
            headers,
            body: raw.body.clone(),
        };
        let mut verdict = None;
        self.producer.send(&[letter], |_, sent| verdict = Some(sent)).await;
        match verdict {
            Some(Ok(_)) => Ok(()),
            Some(Err(refused)) => {
                Err(SubscribeError(format!("the dead letter: {}", refused.text).into()))
            }
            None => Err(SubscribeError("the dead letter has no verdict".into())),
        }
    }
}

#[async_trait]
impl Acknowledge for Unanswered {
    async fn ack(mut self: Box<Self>) -> Result<(), SubscribeError> {
        self.done()
    }

    async fn nack(mut self: Box<Self>, requeue: bool) -> Result<(), SubscribeError> {
        if requeue {
            self.back()
        } else {
            self.bury("NotHandled", "it was not handled, and not asked for again").await
        }
    }

    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError> {
        self.bury("Rejected", reason).await
    }
}

impl Drop for Unanswered {
    /// Brings the record back, unless it was answered for.
    fn drop(&mut self) {
        let _ = self.back();
    }
}
