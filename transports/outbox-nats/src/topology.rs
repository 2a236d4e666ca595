//! Streams and durable consumers from code, declared at every new connection. What exists with other
//! settings is never changed: the declaration fails and says what differs.

use crate::{
    classify::Failure,
    config::{ConfigFault, name_fault, pattern_fault},
    connection::NatsConnection,
};
use async_nats::jetstream::{
    self, ErrorCode,
    consumer::{AckPolicy, DeliverPolicy, pull},
    context::{
        ConsumerInfoError, ConsumerInfoErrorKind, CreateStreamErrorKind, GetStreamErrorKind,
    },
    stream::{self, DiscardPolicy, RetentionPolicy, StorageType},
};
use outbox_core::transport::{one_line, printable};
use std::{
    collections::BTreeSet,
    fmt::{Debug, Display},
    time::Duration,
};

/// How long a stream recognises repeats, unless set: the server's own default.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(2);
/// How long the server waits for an ack decision, unless set: its own default.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(30);
/// Messages of a consumer that may wait for their ack decisions, unless set: the server's own
/// default.
const MAX_ACK_PENDING: u32 = 1_000;
/// Most replicas of a stream.
const MAX_REPLICAS: u8 = 5;

/// A stream: it stores the messages of its subjects until its retention or its limits remove them.
///
/// Unless configured otherwise it is on disk, on one server, keeps all messages, and recognises a
/// message that it has received within two minutes.
///
/// ```
/// use outbox_nats::Stream;
/// use std::time::Duration;
/// let stream = Stream::new("ORDERS")
///     .subject("orders.>")
///     .max_age(Duration::from_hours(24 * 7))
///     .duplicate_window(Duration::from_mins(10))
///     .replicas(3);
/// # let _ = stream;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    name: String,
    subjects: Vec<String>,
    storage: StorageType,
    retention: RetentionPolicy,
    max_age: Option<Duration>,
    duplicate_window: Option<Duration>,
    max_messages: Option<u32>,
    max_bytes: Option<u32>,
    drop_oldest: bool,
    replicas: u8,
}

impl Stream {
    /// Names a stream.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            subjects: Vec::new(),
            storage: StorageType::File,
            retention: RetentionPolicy::Limits,
            max_age: None,
            duplicate_window: None,
            max_messages: None,
            max_bytes: None,
            drop_oldest: false,
            replicas: 1,
        }
    }

    /// Adds a subject whose messages it stores, or a pattern of subjects such as `orders.>`. It
    /// needs at least one, and no two streams may have the same subject.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subjects.push(subject.into());
        self
    }

    /// Keeps the messages in memory: a server that ends forgets them though they were confirmed.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.storage = StorageType::Memory;
        self
    }

    /// Removes a message when its consumer has acknowledged it. Consumers of such a stream may have
    /// no subject in common.
    #[must_use]
    pub fn work_queue(mut self) -> Self {
        self.retention = RetentionPolicy::WorkQueue;
        self
    }

    /// Removes a message when all consumers have acknowledged it. A message without a consumer is
    /// confirmed and removed at once.
    #[must_use]
    pub fn interest(mut self) -> Self {
        self.retention = RetentionPolicy::Interest;
        self
    }

    /// Removes messages that are older, whether they were consumed or not.
    #[must_use]
    pub const fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Sets how long the stream recognises a message that it has already; 2 min unless set, or
    /// [`max_age`](Self::max_age) where that is shorter. A repeat within it is confirmed and not
    /// stored again; a later one is stored twice, and the consumer's inbox recognises it.
    #[must_use]
    pub const fn duplicate_window(mut self, window: Duration) -> Self {
        self.duplicate_window = Some(window);
        self
    }

    /// Limits how many messages it stores. At the limit the server refuses new ones, and their
    /// publishes fail as transient.
    #[must_use]
    pub const fn max_messages(mut self, messages: u32) -> Self {
        self.max_messages = Some(messages);
        self
    }

    /// Limits how many bytes it stores, up to 4 GiB.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: u32) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Drops the oldest messages at a limit instead of refusing new ones: consumed or not, and
    /// though they were confirmed.
    #[must_use]
    pub const fn drop_oldest(mut self) -> Self {
        self.drop_oldest = true;
        self
    }

    /// Sets on how many servers of a cluster each message is stored, from 1 to 5; 1 unless set. A
    /// message is confirmed when most of them have it.
    #[must_use]
    pub const fn replicas(mut self, replicas: u8) -> Self {
        self.replicas = replicas;
        self
    }

    /// Gives the time for which it recognises repeats.
    fn window(&self) -> Duration {
        let usual = self.max_age.map_or(DUPLICATE_WINDOW, |age| age.min(DUPLICATE_WINDOW));
        self.duplicate_window.unwrap_or(usual)
    }

    fn faults(&self, faults: &mut Vec<ConfigFault>) {
        faults.extend(name_fault("stream", &self.name));
        faults.extend(self.subjects.iter().filter_map(|s| pattern_fault("subject", s)));
        let shorter_than_window = self.max_age.is_some_and(|age| age < self.window());
        let wrong = [
            (self.subjects.is_empty(), "it has no subject; name at least one with `subject`"),
            (shorter_than_window, "its duplicate_window is longer than its max_age"),
            (self.max_age.is_some_and(|age| age.is_zero()), "its max_age is zero"),
            (!(1..=MAX_REPLICAS).contains(&self.replicas), "it has 1 to 5 replicas"),
            (self.max_messages == Some(0) || self.max_bytes == Some(0), "a limit of it is zero"),
            (
                self.drop_oldest && self.max_messages.is_none() && self.max_bytes.is_none(),
                "drop_oldest needs max_messages or max_bytes",
            ),
        ];
        let problems = wrong.into_iter().filter(|(is_wrong, _)| *is_wrong);
        faults.extend(
            problems
                .map(|(_, problem)| ConfigFault::Stream { stream: printable(&self.name), problem }),
        );
    }

    fn config(&self) -> stream::Config {
        let unlimited = |limit: Option<u32>| limit.map_or(-1, i64::from);
        stream::Config {
            name: self.name.clone(),
            subjects: self.subjects.clone(),
            storage: self.storage,
            retention: self.retention,
            max_age: self.max_age.unwrap_or_default(),
            duplicate_window: self.window(),
            max_messages: unlimited(self.max_messages),
            max_bytes: unlimited(self.max_bytes),
            discard: if self.drop_oldest { DiscardPolicy::Old } else { DiscardPolicy::New },
            num_replicas: self.replicas.into(),
            ..stream::Config::default()
        }
    }

    /// Lists in which of the declared settings an existing stream differs.
    fn differences(&self, found: &stream::Config) -> Vec<String> {
        let declared = self.config();
        let limit = |limit: i64| u64::try_from(limit).ok().filter(|limit| *limit > 0);
        let sorted = |subjects: &[String]| subjects.iter().cloned().collect::<BTreeSet<_>>();
        [
            difference("subjects", &sorted(&declared.subjects), &sorted(&found.subjects)),
            difference("storage", &declared.storage, &found.storage),
            difference("retention", &declared.retention, &found.retention),
            difference("max_age", &declared.max_age, &found.max_age),
            difference("duplicate_window", &declared.duplicate_window, &found.duplicate_window),
            difference("max_messages", &limit(declared.max_messages), &limit(found.max_messages)),
            difference("max_bytes", &limit(declared.max_bytes), &limit(found.max_bytes)),
            difference("discard", &declared.discard, &found.discard),
            difference("replicas", &declared.num_replicas, &found.num_replicas),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The settings of a durable pull consumer: a place in a stream that all subscribers of its name
/// share, each message going to one of them.
///
/// ```
/// use outbox_nats::{DurableConsumer, NatsSubscriber};
/// let subscriber = NatsSubscriber::new("nats://127.0.0.1:4222", "ORDERS", "billing")?
///     .declare_consumer(DurableConsumer::new().filter("orders.placed"))
///     .build()?;
/// # let _ = subscriber;
/// # Ok::<(), outbox_nats::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableConsumer {
    filter: String,
    ack_wait: Duration,
    max_ack_pending: u32,
    only_new: bool,
}

impl Default for DurableConsumer {
    fn default() -> Self {
        Self {
            filter: String::new(),
            ack_wait: ACK_WAIT,
            max_ack_pending: MAX_ACK_PENDING,
            only_new: false,
        }
    }
}

impl DurableConsumer {
    /// Makes one that receives all messages of its stream, from the first one on.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Receives the messages of one subject, or of a pattern of subjects, alone.
    #[must_use]
    pub fn filter(mut self, subject: impl Into<String>) -> Self {
        self.filter = subject.into();
        self
    }

    /// Sets after which time without a sign of life the server delivers an unacknowledged message
    /// again; 30 s unless set, at least 1 s. The subscriber sends that sign for every delivery that
    /// it has, three times in this time, so that a slow handler keeps its message and the messages
    /// of a process that has died come again after this time.
    #[must_use]
    pub const fn ack_wait(mut self, wait: Duration) -> Self {
        self.ack_wait = wait;
        self
    }

    /// Limits how many messages may wait for their ack decisions, at all subscribers together; 1,000
    /// unless set. With 1, messages are handled one at a time, in the order of the stream, whatever
    /// dies in between.
    #[must_use]
    pub const fn max_ack_pending(mut self, messages: u32) -> Self {
        self.max_ack_pending = messages;
        self
    }

    /// Receives only messages that are stored after the consumer was created.
    #[must_use]
    pub const fn only_new(mut self) -> Self {
        self.only_new = true;
        self
    }

    pub(crate) const fn wait(&self) -> Duration {
        self.ack_wait
    }

    pub(crate) fn faults(&self, faults: &mut Vec<ConfigFault>) {
        if !self.filter.is_empty() {
            faults.extend(pattern_fault("filter", &self.filter));
        }
        if self.ack_wait < Duration::from_secs(1) {
            faults.push(ConfigFault::Range { what: "the ack_wait", rule: "must be at least 1 s" });
        }
        if self.max_ack_pending == 0 {
            let (what, rule) = ("the max_ack_pending", "must be at least 1");
            faults.push(ConfigFault::Range { what, rule });
        }
    }

    fn config(&self, name: &str) -> pull::Config {
        pull::Config {
            durable_name: Some(name.to_owned()),
            deliver_policy: if self.only_new { DeliverPolicy::New } else { DeliverPolicy::All },
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait,
            filter_subject: self.filter.clone(),
            max_ack_pending: self.max_ack_pending.into(),
            ..pull::Config::default()
        }
    }

    /// Lists in which of the declared settings an existing consumer differs.
    fn differences(&self, name: &str, found: &jetstream::consumer::Config) -> Vec<String> {
        let declared = self.config(name);
        [
            difference("filter", &declared.filter_subject, &found.filter_subject),
            difference("ack_wait", &declared.ack_wait, &found.ack_wait),
            difference("max_ack_pending", &declared.max_ack_pending, &found.max_ack_pending),
            difference("only_new", &declared.deliver_policy, &found.deliver_policy),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Says that a setting differs, if it does.
fn difference<T: PartialEq + Debug>(what: &str, declared: &T, found: &T) -> Option<String> {
    (declared != found).then(|| format!("{what} is {found:?}, declared is {declared:?}"))
}

/// Lists the faults of declared streams.
pub(crate) fn faults(streams: &[Stream]) -> Vec<ConfigFault> {
    let (mut faults, mut names) = (Vec::new(), BTreeSet::new());
    for stream in streams {
        stream.faults(&mut faults);
        if !names.insert(&stream.name) {
            faults.push(ConfigFault::Twice(printable(&stream.name)));
        }
    }
    faults
}

/// Declares streams.
pub(crate) async fn declare(
    connection: &NatsConnection,
    streams: &[Stream],
) -> Result<(), Failure> {
    for stream in streams {
        // Another client may create it between the two requests.
        if !is_there(connection, stream).await? && !create(connection, stream).await? {
            is_there(connection, stream).await?;
        }
    }
    Ok(())
}

/// Tells whether a stream exists; fails where it has other settings.
async fn is_there(connection: &NatsConnection, stream: &Stream) -> Result<bool, Failure> {
    let name = &stream.name;
    let found = connection.context.get_stream(name);
    match connection.request("described no stream", found).await? {
        Ok(found) => {
            let differences = stream.differences(&found.cached_info().config);
            if differences.is_empty() {
                return Ok(true);
            }
            Err(Failure::unavailable(format!(
                "the stream `{name}` exists with other settings: {}; change the declaration, or the stream: \
                 `nats stream edit {name}`",
                differences.join("; ")
            )))
        }
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(cause)
                if cause.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(false)
            }
            _ => Err(unusable("stream", name, &error)),
        },
    }
}

/// Creates a stream; tells whether there was none of its name.
async fn create(connection: &NatsConnection, stream: &Stream) -> Result<bool, Failure> {
    let created = connection.context.create_stream(stream.config());
    match connection.request("created no stream", created).await? {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            CreateStreamErrorKind::JetStream(cause)
                if cause.error_code() == ErrorCode::STREAM_NAME_EXIST =>
            {
                Ok(false)
            }
            _ => Err(unusable("stream", &stream.name, &error)),
        },
    }
}

/// Declares a durable consumer, or finds one that is not declared. Gives its ack wait.
pub(crate) async fn consumer(
    connection: &NatsConnection,
    stream: &str,
    name: &str,
    declared: Option<&DurableConsumer>,
) -> Result<Duration, Failure> {
    let found = connection.request("described no stream", connection.context.get_stream(stream));
    let in_stream = found.await?.map_err(|error| unusable("stream", stream, &error))?;
    let found = connection.request("described no consumer", in_stream.consumer_info(name)).await?;
    let found = match (found, declared) {
        (Ok(found), _) => found,
        (Err(error), _) if !is_missing(&error) => return Err(unusable("consumer", name, &error)),
        (Err(_), None) => {
            return Err(Failure::unavailable(format!(
                "the stream `{stream}` has no durable consumer `{name}`; declare it: \
                 `.declare_consumer(DurableConsumer::new())`, or create it: `nats consumer add`"
            )));
        }
        (Err(_), Some(declared)) => {
            let created = in_stream.create_consumer(declared.config(name));
            let created = connection.request("created no consumer", created).await?;
            let created = created.map_err(|error| unusable("consumer", name, &error))?;
            return Ok(created.cached_info().config.ack_wait);
        }
    };
    let mut differences =
        declared.map(|declared| declared.differences(name, &found.config)).unwrap_or_default();
    if found.config.deliver_subject.is_some() {
        differences.push("it is a push consumer".to_owned());
    }
    if found.config.ack_policy != AckPolicy::Explicit {
        differences.push("its messages are not acknowledged one by one (ack policy)".to_owned());
    }
    if differences.is_empty() {
        return Ok(found.config.ack_wait);
    }
    Err(Failure::unavailable(format!(
        "the consumer `{name}` of the stream `{stream}` exists with other settings: {}; change the \
         declaration, or the consumer: `nats consumer edit {stream} {name}`, or take another name",
        differences.join("; ")
    )))
}

/// Tells whether there is no such consumer.
fn is_missing(error: &ConsumerInfoError) -> bool {
    match error.kind() {
        ConsumerInfoErrorKind::NotFound => true,
        ConsumerInfoErrorKind::JetStream(cause) => {
            cause.error_code() == ErrorCode::CONSUMER_NOT_FOUND
        }
        _ => false,
    }
}

fn unusable(what: &str, name: &str, error: &dyn Display) -> Failure {
    let text = one_line(&error.to_string());
    Failure::unavailable(format!("the {what} `{name}` cannot be used: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_declaration_is_reported() {
        let streams = [
            Stream::new("A").subject("a").max_age(Duration::ZERO).replicas(6),
            Stream::new("A").subject("a b").drop_oldest(),
            Stream::new("no spaces").max_messages(0),
            Stream::new("W")
                .subject("w")
                .max_age(Duration::from_secs(60))
                .duplicate_window(Duration::from_secs(61)),
        ];
        let faults: Vec<String> = faults(&streams).iter().map(ToString::to_string).collect();
        for part in [
            "max_age is zero",
            "1 to 5 replicas",
            "`A` is declared twice",
            "the subject `a b` must",
            "drop_oldest needs",
            "the stream `no spaces` must",
            "no subject",
            "a limit of it is zero",
            "`W`: its duplicate_window is longer",
        ] {
            assert!(faults.iter().any(|fault| fault.contains(part)), "{part}: {faults:?}");
        }
        assert_eq!(faults.len(), 9, "{faults:?}");
        let short = Stream::new("S").subject("s").max_age(Duration::from_secs(60));
        assert_eq!(super::faults(&[short]), [], "its window is no longer than its max_age");
    }

    #[test]
    fn an_existing_stream_differs_in_declared_settings_alone() {
        let stream = || Stream::new("S").subject("a").subject("b").max_messages(5);
        let mut found = stream().config();
        found.subjects.reverse();
        found.description = Some("an operator's".to_owned());
        found.max_bytes = 0;
        assert!(stream().differences(&found).is_empty());
        for (stream, setting) in [
            (stream().subject("c"), "subjects is "),
            (stream().in_memory(), "storage is File, declared is Memory"),
            (stream().work_queue(), "retention is "),
            (stream().max_age(Duration::from_secs(3_600)), "max_age is "),
            (
                stream().duplicate_window(Duration::from_secs(9)),
                "duplicate_window is 120s, declared is 9s",
            ),
            (stream().max_messages(6), "max_messages is "),
            (stream().max_bytes(6), "max_bytes is None"),
            (stream().drop_oldest(), "discard is "),
            (stream().replicas(3), "replicas is 1, declared is 3"),
        ] {
            let differences = stream.differences(&found);
            assert_eq!(differences.len(), 1, "{differences:?}");
            assert!(differences[0].starts_with(setting), "{setting}: {differences:?}");
        }
    }

    #[test]
    fn a_consumer_that_cannot_work_is_told() {
        let mut faults = Vec::new();
        let wrong =
            DurableConsumer::new().filter("a..b").ack_wait(Duration::ZERO).max_ack_pending(0);
        wrong.faults(&mut faults);
        assert_eq!(faults.len(), 3, "{faults:?}");
        faults.clear();
        DurableConsumer::new().filter("orders.*").only_new().faults(&mut faults);
        assert_eq!(faults, []);
    }
}
