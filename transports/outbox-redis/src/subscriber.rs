//! The receiving half: a consumer of a consumer group that acknowledges entries after ack
//! decisions.

use crate::{
    config::{ConfigError, ConfigFault, name_fault},
    connection::{Connector, ServerUrl},
    group::{
        AckHandle, AckRules, DeliveryTag, Group, Member, MemberOptions, Membership, NOTICED_WITHIN,
        Received,
    },
    headers::{self, ReadOptions},
};
use async_trait::async_trait;
use outbox_core::{
    event::MessageId,
    transport::{Delivery, SubscribeError, Subscriber, cloudevents::PlainJson, printable},
};
use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

/// Entries that may wait for the consumer, unless set: enough to keep it busy, and few enough to
/// share a group's entries.
const PREFETCH: usize = 128;
/// How long an entry belongs to a consumer that died, unless set: three renewals of its claims.
const CLAIM_AFTER: Duration = Duration::from_secs(30);
/// The shortest such time that a member can keep.
const SHORTEST_CLAIM_AFTER: Duration = Duration::from_millis(500);
/// Largest payload in bytes that the subscriber reads: what the server takes unless configured
/// otherwise.
const MAX_MESSAGE: usize = 512 * 1024 * 1024;

/// Receives the entries of streams as a consumer of a consumer group.
///
/// Of entries with the same key one is in flight at a time, in the order of their stream; entries
/// of other keys are in flight beside it. `ack` acknowledges the entry (XACK). `nack(true)` and a
/// delivery that is dropped requeue it: it stays pending with this consumer, which delivers it
/// again from memory before any later one of its key. `reject` and `nack(false)` add it to the
/// dead-letter stream, if there is one ([`dead_letters`](Self::dead_letters)), and acknowledge it;
/// without one they acknowledge it with a warning in the log.
///
/// Entries of a consumer that died are claimed by the others of its group after
/// [`claim_after`](Self::claim_after). When the connection is lost, `next` fails once for each
/// attempt to connect and goes on by itself; entries that were delivered stay this consumer's, and
/// an ack decision in between fails and requeues its entry.
///
/// ```
/// use outbox_redis::RedisSubscriber;
/// let subscriber = RedisSubscriber::new("redis://127.0.0.1:6379", "billing")?
///     .stream("orders")
///     .dead_letters("orders:dead")
///     .build()?;
/// # let _ = subscriber;
/// # Ok::<(), outbox_redis::ConfigError>(())
/// ```
pub struct RedisSubscriber {
    config: Config,
    state: State,
}

#[derive(Clone)]
struct Config {
    server: ServerUrl,
    group: Group,
    ack_rules: AckRules,
    options: MemberOptions,
}

enum State {
    Idle,
    Open(Member),
    Closed,
}

impl fmt::Debug for RedisSubscriber {
    /// Shows what it receives; neither user nor password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSubscriber")
            .field("destination", &self.config.server.destination())
            .field("group", &self.config.group)
            .finish_non_exhaustive()
    }
}

impl RedisSubscriber {
    /// Makes a consumer of a group for the server at a URL:
    /// `redis://user:password@host:port/database`, or `rediss://` for TLS. It connects at the first
    /// call of `next`. Name the streams with [`stream`](Self::stream).
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such URL.
    pub fn new(url: impl AsRef<str>, group: impl Into<String>) -> Result<Self, ConfigError> {
        let config = Config {
            server: ServerUrl::parse(url.as_ref())?,
            group: Group {
                name: group.into(),
                consumer: format!("outbox-{}", MessageId::generate()),
                streams: Vec::new(),
                starts_at_end: false,
            },
            ack_rules: AckRules::default(),
            options: MemberOptions {
                prefetch: PREFETCH,
                lease: CLAIM_AFTER,
                max_payload: MAX_MESSAGE,
                read_options: ReadOptions::default(),
            },
        };
        Ok(Self { config, state: State::Idle })
    }

    /// Subscribes to one more stream.
    #[must_use]
    pub fn stream(mut self, name: impl Into<String>) -> Self {
        self.config.group.streams.push(name.into());
        self
    }

    /// Names the consumer within its group. Unless set, each subscriber has a name of its own, made
    /// when it is made, and its entries wait for [`claim_after`](Self::claim_after) when its
    /// process dies. A process that comes back under the same name, such as that of its pod, takes
    /// its entries at once.
    ///
    /// Two subscribers that run at the same time must not have the same name: each would take what
    /// the other one handles.
    #[must_use]
    pub fn consumer(mut self, name: impl Into<String>) -> Self {
        self.config.group.consumer = name.into();
        self
    }

    /// Makes a group that does not exist at the end of its stream: it receives the entries from
    /// then on. Unless set, it begins with the oldest entry.
    #[must_use]
    pub fn start_at_end(mut self) -> Self {
        self.config.group.starts_at_end = true;
        self
    }

    /// Adds rejected entries to a stream, as they came, with fields for the cause (`dead_stream`,
    /// `dead_entry`, `dead_group`, `dead_deliveries`, `dead_class`, `dead_message`;
    /// [`DeadEntry::of`](crate::DeadEntry::of) reads them). An entry is acknowledged when the server
    /// has replied to its dead letter.
    #[must_use]
    pub fn dead_letters(mut self, stream: impl Into<String>) -> Self {
        self.config.ack_rules.dead_letter_stream = Some(stream.into().into());
        self
    }

    /// Deletes each entry from its stream when it is acknowledged (XDEL). Only for a stream with
    /// one group: the other groups lose the entry too.
    #[must_use]
    pub fn delete_acknowledged(mut self) -> Self {
        self.config.ack_rules.deletes = true;
        self
    }

    /// Sets after which time other consumers claim the entries of one that no longer renews its
    /// claims, because it died or its connection is lost; 30 s unless set, and 500 ms at least. It
    /// renews them three times in that time, so that a slow handler keeps its entry. All consumers
    /// of a group should have the same time.
    #[must_use]
    pub fn claim_after(mut self, time: Duration) -> Self {
        self.config.options.lease = time;
        self
    }

    /// Sets how many entries may wait for the consumer, 128 unless set; while that many wait, none
    /// are read. Of the entries of one key at most a quarter of that number count, so that a stuck
    /// key leaves room to the others; at twice the number none are read in any case, nor while they
    /// have more than 32 MiB.
    #[must_use]
    pub fn prefetch(mut self, entries: usize) -> Self {
        self.config.options.prefetch = entries;
        self
    }

    /// Reads entries without attributes of CloudEvents as plain JSON in the field `data` whose type
    /// stands in another field.
    #[must_use]
    pub fn plain_json(mut self, plain: PlainJson) -> Self {
        self.config.options.read_options.plain_json = Some(plain);
        self
    }

    /// Sets the largest payload in bytes; a larger one is delivered as a message that cannot be
    /// read. 512 MiB unless set.
    #[must_use]
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.config.options.max_payload = bytes;
        self
    }

    /// Sets how long the server may take for one reply; 10 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.server.timeout = timeout;
        self
    }

    /// Trusts one more certificate authority, in PEM, besides the system's.
    #[must_use]
    pub fn trust(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.config.server.roots.push(pem.as_ref().to_vec());
        self
    }

    /// Checks the configuration. Opens no connection.
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    pub fn build(self) -> Result<Self, ConfigError> {
        self.config.connector()?;
        Ok(self)
    }

    /// Stops receiving: `next` gives `None`. Other consumers may claim the entries that wait at
    /// once; deliveries in flight may still be acknowledged.
    pub fn stop(&mut self) {
        self.state = State::Closed;
    }
}

impl Config {
    fn connector(&self) -> Result<Connector, ConfigError> {
        let Group { name, consumer, streams, .. } = &self.group;
        let mut faults: Vec<ConfigFault> = [("group", name), ("consumer", consumer)]
            .into_iter()
            .chain(streams.iter().map(|stream| ("stream", stream)))
            .filter_map(|(what, name)| name_fault(what, name))
            .collect();
        let dead_letters = self.ack_rules.dead_letter_stream.as_deref();
        faults.extend(dead_letters.and_then(|stream| name_fault("dead-letter stream", stream)));
        let mut seen = BTreeSet::new();
        let twice = streams.iter().filter(|stream| !seen.insert(stream.as_str()));
        faults.extend(twice.map(|stream| ConfigFault::Twice(printable(stream))));
        if streams.is_empty() {
            faults.push(ConfigFault::NoStream);
        }
        if self.options.prefetch == 0 {
            faults.push(ConfigFault::Range { what: "the prefetch", rule: "must be at least 1" });
        }
        if self.options.lease < SHORTEST_CLAIM_AFTER {
            let what = "the time after which entries are claimed";
            faults.push(ConfigFault::Range { what, rule: "must be at least 500 ms" });
        }
        match self.server.connector(&mut faults) {
            Some(connector) if faults.is_empty() => Ok(connector),
            _ => Err(ConfigError::new(faults)),
        }
    }

    fn delivery(
        &self,
        membership: &Arc<Membership>,
        (tag, deliveries, received): (DeliveryTag, u32, Received),
    ) -> Delivery {
        let Received { message, fields, .. } = received;
        let unread = message.is_err().then(|| headers::payload(&fields));
        let handle = AckHandle {
            tag: Some(tag),
            deliveries,
            fields,
            membership: membership.clone(),
            rules: self.ack_rules.clone(),
        };
        let delivery = Delivery::new(message, Some(deliveries), Box::new(handle));
        match unread {
            Some(bytes) => delivery.with_raw(bytes),
            None => delivery,
        }
    }
}

#[async_trait]
impl Subscriber for RedisSubscriber {
    fn check(&self) -> Result<(), SubscribeError> {
        self.config.connector().map(|_| ()).map_err(|error| SubscribeError(error.into()))
    }

    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        loop {
            match &mut self.state {
                State::Closed => return Ok(None),
                State::Idle => {
                    let connector =
                        self.config.connector().map_err(|error| SubscribeError(error.into()))?;
                    let (group, options) = (self.config.group.clone(), self.config.options.clone());
                    self.state = State::Open(Member::start(connector, group, options));
                }
                State::Open(member) => {
                    let membership = member.membership();
                    let next = membership.handoff.next().await;
                    let next = next.map_err(|error| SubscribeError(error.into()))?;
                    return Ok(next.map(|next| self.config.delivery(membership, next)));
                }
            }
        }
    }

    /// The time after which other consumers claim entries, with the time until they look.
    fn redelivers_within(&self) -> Duration {
        self.config.options.lease + NOTICED_WITHIN
    }

    async fn close(&mut self) {
        if let State::Open(member) = std::mem::replace(&mut self.state, State::Closed) {
            member.leave().await;
        }
    }
}
