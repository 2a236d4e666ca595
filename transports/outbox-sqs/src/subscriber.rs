//! The receiving half: messages of one queue, deleted after ack decisions.

use crate::{
    config::{ConfigError, ConfigFault, queue_fault},
    connection::{Clients, ServiceUrl},
    headers::ReadOptions,
    receiver::{AckDecision, AckHandle, AckRules, Acks, Poll, Received, Stop, Store, Tag},
    topology::{Directory, SqsQueue, Topology},
};
use async_trait::async_trait;
use aws_credential_types::provider::ProvideCredentials;
use bytes::Bytes;
use outbox_core::{
    runtime::{Task, spawn},
    transport::{Delivery, SubscribeError, Subscriber, cloudevents::PlainJson},
};
use std::{fmt, mem, sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot, watch};

/// Messages that the subscriber has before their ack decisions, unless set: enough to keep a
/// consumer busy.
const PREFETCH: usize = 50;
/// How long the service waits for a message, unless set, and at most.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How long a received message is invisible to other subscribers, unless set.
const VISIBILITY: Duration = Duration::from_secs(30);
/// Longest such time that the service takes.
const LONGEST_VISIBILITY: Duration = Duration::from_hours(12);

/// Receives the messages of a queue by long polling.
///
/// `ack` deletes the message, together with others that are acknowledged at the same time.
/// `nack(true)` makes it visible again, at once or after [`nack_delay`](Self::nack_delay); a
/// delivery that is dropped is returned at once. `reject` and `nack(false)` send it to the
/// dead-letter queue, if one is set ([`dead_letters`](Self::dead_letters)), and delete it; without
/// one they delete it with a warning in the log. As long as a delivery has no decision, the
/// subscriber extends its visibility timeout, so that a handler may take up to the twelve hours that
/// the service allows.
///
/// Of a FIFO queue one message of a group is in flight at a time; a returned message comes again
/// before any later one of its group. Of another queue messages come in any order, and now and then
/// twice.
///
/// When the service is not reached, `next` fails once for each attempt and goes on by itself. An ack
/// decision that fails leaves the message to the service, which delivers it again.
///
/// [`Delivery::attempt`] is the service's count of receives (`ApproximateReceiveCount`).
///
/// ```
/// use outbox_sqs::{SqsQueue, SqsSubscriber};
/// let subscriber = SqsSubscriber::new("sqs+http://127.0.0.1:4566", "orders.fifo")?
///     .declare([SqsQueue::new("orders.fifo").dead_letters("orders-dead.fifo", 10)])
///     .dead_letters("orders-dead.fifo")
///     .build()?;
/// # let _ = subscriber;
/// # Ok::<(), outbox_sqs::ConfigError>(())
/// ```
pub struct SqsSubscriber {
    config: Config,
    state: State,
}

#[derive(Clone)]
struct Config {
    url: ServiceUrl,
    queue: String,
    topology: Topology,
    ack_rules: AckRules,
    prefetch: usize,
    wait: Duration,
    visibility: Duration,
    read_options: ReadOptions,
}

enum State {
    Idle,
    Open(Subscription),
    Closed,
}

/// An open subscription. On drop its task returns the messages that were not handed out; deliveries
/// in flight may still have their ack decisions.
struct Subscription {
    store: Arc<Store>,
    directory: Arc<Directory>,
    decisions: mpsc::UnboundedSender<AckDecision>,
    stop: watch::Sender<Stop>,
    polling: Task<()>,
}

impl fmt::Debug for SqsSubscriber {
    /// Shows what it receives; no key and no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqsSubscriber")
            .field("destination", &self.config.url.destination())
            .field("queue", &self.config.queue)
            .field("prefetch", &self.config.prefetch)
            .finish_non_exhaustive()
    }
}

impl SqsSubscriber {
    /// Makes a subscriber of a queue in a region of AWS, `sqs://eu-central-1`, with the account
    /// behind it where the queue is another one's (`sqs://eu-central-1/123456789012`); or at another
    /// endpoint, `sqs+https://host:port` or `sqs+http://127.0.0.1:4566`. `KEY:SECRET@` may stand
    /// before the host, percent-encoded. It connects at the first call of `next`.
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such URL.
    pub fn new(url: impl AsRef<str>, queue: impl Into<String>) -> Result<Self, ConfigError> {
        let config = Config {
            url: ServiceUrl::parse(url.as_ref())?,
            queue: queue.into(),
            topology: Topology::default(),
            ack_rules: AckRules::default(),
            prefetch: PREFETCH,
            wait: LONGEST_WAIT,
            visibility: VISIBILITY,
            read_options: ReadOptions::default(),
        };
        Ok(Self { config, state: State::Idle })
    }

    /// Declares queues before the first message, and again when one is missing. A queue that exists
    /// with other settings stays as it is, and `next` fails with an error that says so.
    #[must_use]
    pub fn declare(mut self, queues: impl IntoIterator<Item = SqsQueue>) -> Self {
        self.config.topology.queues = queues.into_iter().collect();
        self
    }

    /// Sends rejected messages to a queue, as they came, with one attribute more for the cause
    /// (`dead_letter`; [`DeadMessage::of`](crate::DeadMessage::of) reads it). A message is deleted
    /// when its dead letter is confirmed. It may be the queue to which the redrive policy moves
    /// messages; a message that has ten attributes already goes without its cause.
    #[must_use]
    pub fn dead_letters(mut self, queue: impl Into<String>) -> Self {
        self.config.ack_rules.dead_letters = Some(queue.into().into());
        self
    }

    /// Sets how long a message that was returned by `nack(true)` stays invisible, in whole seconds;
    /// at once visible unless set. Later messages of a FIFO group wait with it.
    #[must_use]
    pub fn nack_delay(mut self, delay: Duration) -> Self {
        self.config.ack_rules.nack_delay = delay;
        self
    }

    /// Sets after which time others receive a message whose subscriber has died, in whole seconds;
    /// 30 s unless set, from a second to twelve hours. The subscriber extends it three times in that
    /// time.
    #[must_use]
    pub fn visibility_timeout(mut self, time: Duration) -> Self {
        self.config.visibility = time;
        self
    }

    /// Sets how long the service waits for a message before it replies that there is none, in whole
    /// seconds; 20 s unless set, which is the most, and a second at least.
    #[must_use]
    pub fn wait_time(mut self, time: Duration) -> Self {
        self.config.wait = time;
        self
    }

    /// Sets how many messages the subscriber has before their ack decisions, 50 unless set; while it
    /// has that many, or 32 MiB, none are received. It receives when `next` is called and it has none
    /// to give, at most ten at once: what is not asked for stays visible to others.
    #[must_use]
    pub fn prefetch(mut self, messages: usize) -> Self {
        self.config.prefetch = messages;
        self
    }

    /// Also reads messages that are plain JSON with an attribute for their type.
    #[must_use]
    pub fn plain_json(mut self, plain: PlainJson) -> Self {
        self.config.read_options.plain_json = Some(plain);
        self
    }

    /// Sets how long the service may take for one reply, beyond the wait for messages; 10 s unless
    /// set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.url.timeout = timeout;
        self
    }

    /// Takes the credentials from a provider, as
    /// [`SqsPublisher::credentials`](crate::SqsPublisher::credentials) does.
    #[must_use]
    pub fn credentials(mut self, provider: impl ProvideCredentials + 'static) -> Self {
        self.config.url.set_provider(provider);
        self
    }

    /// Trusts one more certificate authority, in PEM, besides the system's.
    #[must_use]
    pub fn trust(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.config.url.roots.push(pem.as_ref().to_vec());
        self
    }

    /// Checks the configuration. Opens no connection.
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    pub fn build(self) -> Result<Self, ConfigError> {
        self.config.clients()?;
        Ok(self)
    }

    /// Stops receiving: `next` gives `None`. Messages that were not handed out are returned;
    /// deliveries in flight may still be acknowledged.
    pub fn stop(&mut self) {
        self.state = State::Closed;
    }
}

impl Config {
    fn clients(&self) -> Result<Clients, ConfigError> {
        let mut faults: Vec<ConfigFault> = queue_fault(&self.queue).into_iter().collect();
        faults.extend(self.ack_rules.dead_letters.as_deref().and_then(queue_fault));
        self.topology.faults(&mut faults);
        let second = Duration::from_secs(1);
        for (is_wrong, what, rule) in [
            (self.prefetch == 0, "the prefetch", "must be at least 1"),
            (
                !(second..=LONGEST_WAIT).contains(&self.wait),
                "the wait time",
                "must be a second to 20 s",
            ),
            (
                !(second..=LONGEST_VISIBILITY).contains(&self.visibility),
                "the visibility timeout",
                "must be a second to 12 hours",
            ),
            (
                self.ack_rules.nack_delay > LONGEST_VISIBILITY,
                "the delay of returned messages",
                "must be at most 12 hours",
            ),
        ] {
            faults.extend(is_wrong.then_some(ConfigFault::Range { what, rule }));
        }
        match self.url.clients(&mut faults) {
            Some(clients) if faults.is_empty() => Ok(clients),
            _ => Err(ConfigError::new(faults)),
        }
    }

    fn open(&self) -> Result<Subscription, ConfigError> {
        let clients = self.clients()?;
        let directory = Arc::new(Directory::new(clients, &self.url, self.topology.clone()));
        let store = Arc::new(Store::default());
        let (decisions, taken) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(Stop::No);
        let acks = Acks {
            store: store.clone(),
            directory: directory.clone(),
            queue: self.queue.clone(),
            visibility: self.visibility,
            decisions: taken,
        };
        // It ends with the last delivery.
        spawn(acks.run()).detach();
        let poll = Poll {
            store: store.clone(),
            directory: directory.clone(),
            queue: self.queue.clone(),
            prefetch: self.prefetch,
            wait: self.wait,
            visibility: self.visibility,
            read_options: self.read_options.clone(),
            decisions: decisions.clone(),
            stop: stopped,
        };
        Ok(Subscription { store, directory, decisions, stop, polling: spawn(poll.run()) })
    }

    fn delivery(&self, open: &Subscription, (tag, mut received): (Tag, Received)) -> Delivery {
        let taken = Err("it is in the delivery".to_owned());
        let message = mem::replace(&mut received.message, taken);
        let deliveries = received.deliveries;
        let raw = message.is_err().then(|| Bytes::copy_from_slice(received.body.as_bytes()));
        let handle = AckHandle::new(
            tag,
            received,
            &self.queue,
            &open.directory,
            &open.decisions,
            &self.ack_rules,
        );
        let delivery = Delivery::new(message, Some(deliveries), Box::new(handle));
        match raw {
            Some(bytes) => delivery.with_raw(bytes),
            None => delivery,
        }
    }
}

#[async_trait]
impl Subscriber for SqsSubscriber {
    fn check(&self) -> Result<(), SubscribeError> {
        self.config.clients().map(|_| ()).map_err(|error| SubscribeError(error.into()))
    }

    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        loop {
            match &mut self.state {
                State::Closed => return Ok(None),
                State::Idle => {
                    let open = self.config.open().map_err(|error| SubscribeError(error.into()))?;
                    self.state = State::Open(open);
                }
                State::Open(open) => {
                    let next = open.store.next().await?;
                    return Ok(Some(self.config.delivery(open, next)));
                }
            }
        }
    }

    /// The visibility timeout.
    fn redelivers_within(&self) -> Duration {
        self.config.visibility
    }

    fn system(&self) -> &'static str {
        "aws_sqs"
    }

    async fn close(&mut self) {
        let State::Open(open) = mem::replace(&mut self.state, State::Closed) else { return };
        open.stop.send_replace(Stop::Closing);
        open.polling.await;
        let (reply, flushed) = oneshot::channel();
        if open.decisions.send(AckDecision::Flush(reply)).is_ok() {
            // It fails where the task has ended.
            let _ = flushed.await;
        }
    }
}
