//! The receiving half: messages of a queue, with manual acknowledgement.

use crate::{
    classify::{Failure, LEADER_ELECTION_BACKOFF},
    config::{ConfigError, ConfigFault, name_fault},
    connection::{AmqpConnection, Connector, ServerUri, quiet},
    headers::{self, ReadOptions},
    topology::Topology,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use lapin::{
    Acker, Channel,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions,
        BasicQosOptions, BasicRejectOptions,
    },
    types::{FieldTable, ShortString},
};
use outbox_core::{
    event::Timestamp,
    runtime::{spawn, wall_clock},
    transport::{Acknowledge, Delivery, SubscribeError, Subscriber, cloudevents::PlainJson},
};
use std::{fmt, sync::Arc, time::Duration};
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};

/// Messages that the server sends before their ack decisions: more than a consumer queues for one
/// key, so that a stuck key does not take all of them, and few enough to share a queue.
const PREFETCH: u16 = 128;
/// Largest payload in bytes that the subscriber reads; what RabbitMQ takes itself.
const MAX_MESSAGE: usize = 128 * 1024 * 1024;
/// First wait before connecting again; it doubles.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// Longest such wait: how late the subscriber notices a recovery at worst.
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Receives the messages of a queue of RabbitMQ.
///
/// `ack` removes a message from the queue; `nack(true)` requeues it; `nack(false)` and `reject`
/// send it to the queue's dead-letter exchange, if there is one. A delivery that is dropped is
/// requeued. When the connection is lost or the server cancels the consumer, `next` fails once and
/// connects again at the next call; the server redelivers the unacknowledged messages, and a late
/// ack of one fails.
///
/// Quorum queues count deliveries ([`Delivery::attempt`]); classic queues do not.
///
/// ```
/// use outbox_amqp::AmqpSubscriber;
/// let subscriber = AmqpSubscriber::new("amqp://guest:guest@127.0.0.1:5672", "billing")?.prefetch(100).build()?;
/// # let _ = subscriber;
/// # Ok::<(), outbox_amqp::ConfigError>(())
/// ```
pub struct AmqpSubscriber {
    config: Config,
    state: State,
    backoff: Duration,
}

#[derive(Clone)]
struct Config {
    server: ServerUri,
    queue: String,
    prefetch: u16,
    topology: Topology,
    read_options: ReadOptions,
    max_payload: usize,
}

enum State {
    Idle,
    /// Kept when a call of `next` is dropped.
    Opening(BoxFuture<'static, Result<Subscription, Failure>>),
    Open(Subscription),
    Closed,
}

/// An open subscription. On drop it cancels the consumer and requeues the prefetched messages; the
/// channel stays open for acks that are still to come.
struct Subscription {
    consumer: lapin::Consumer,
    channel: Arc<ConsumerChannel>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // The first poll hands the request to the library.
        let cancel =
            self.channel.inner.basic_cancel(self.consumer.tag(), BasicCancelOptions::default());
        let _ = quiet(cancel).now_or_never();
        let (mut consumer, channel) = (self.consumer.clone(), self.channel.clone());
        let requeue = async move {
            // Until the server confirms the cancel. Else the prefetched messages would wait for the
            // end of the channel, which the slowest handler may keep open.
            let all = async {
                while let Some(Ok(prefetched)) = quiet(consumer.next()).await {
                    let _ = quiet(prefetched.acker.nack(REQUEUE)).await;
                }
            };
            let _ = timeout(channel.timeout, all).await;
        };
        if Handle::try_current().is_ok() {
            spawn(requeue).detach();
        }
    }
}

/// Requeues a message.
const REQUEUE: BasicNackOptions = BasicNackOptions { requeue: true, multiple: false };

/// The channel of a subscription, on which acks travel.
struct ConsumerChannel {
    inner: Channel,
    _connection: AmqpConnection,
    timeout: Duration,
}

impl fmt::Debug for AmqpSubscriber {
    /// Shows what it receives; neither user nor password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpSubscriber")
            .field("destination", &self.config.server.destination())
            .field("queue", &self.config.queue)
            .field("prefetch", &self.config.prefetch)
            .finish_non_exhaustive()
    }
}

impl AmqpSubscriber {
    /// Makes a subscriber for a queue of the server at a URL:
    /// `amqp://user:password@host:port/vhost`, or `amqps://` for TLS. It connects at the first call
    /// of `next`.
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such URL.
    pub fn new(url: impl AsRef<str>, queue: impl Into<String>) -> Result<Self, ConfigError> {
        let config = Config {
            server: ServerUri::parse(url.as_ref())?,
            queue: queue.into(),
            prefetch: PREFETCH,
            topology: Topology::new(),
            read_options: ReadOptions::default(),
            max_payload: MAX_MESSAGE,
        };
        Ok(Self { config, state: State::Idle, backoff: Duration::ZERO })
    }

    /// Sets how many messages the server sends before their ack decisions, 128 unless set. Where
    /// all of them are of one stuck key, no other message comes: the queue delivers in its order.
    /// They are in memory until they have their ack decision, and RabbitMQ bounds them by number
    /// alone: with payloads of 960 KiB, the most that an outbox takes unless set, 128 are 120 MiB.
    /// Set fewer for queues with larger payloads.
    ///
    /// ```
    /// # use outbox_amqp::AmqpSubscriber;
    /// let large_payloads = AmqpSubscriber::new("amqp://guest:guest@127.0.0.1:5672", "scans")?.prefetch(8);
    /// # large_payloads.build()?;
    /// # Ok::<(), outbox_amqp::ConfigError>(())
    /// ```
    #[must_use]
    pub fn prefetch(mut self, messages: u16) -> Self {
        self.config.prefetch = messages;
        self
    }

    /// Declares exchanges, queues and bindings at each new connection.
    #[must_use]
    pub fn declare(mut self, topology: Topology) -> Self {
        self.config.topology = topology;
        self
    }

    /// Also reads messages that are no CloudEvents: id, type and time from their properties, the
    /// source as given here, and their headers as far as they have legal names.
    ///
    /// ```
    /// # use outbox_amqp::AmqpSubscriber;
    /// let legacy = AmqpSubscriber::new("amqp://guest:guest@127.0.0.1:5672", "legacy")?.plain("/legacy");
    /// # legacy.build()?;
    /// # Ok::<(), outbox_amqp::ConfigError>(())
    /// ```
    #[must_use]
    pub fn plain(mut self, source: impl Into<String>) -> Self {
        self.config.read_options.plain_source = Some(source.into());
        self
    }

    /// Also reads messages that are plain JSON with a header for their type. The properties
    /// `message_id` and `type` count as headers `message-id` and `type` where the message has no
    /// headers of these names.
    ///
    /// Together with [`plain`](Self::plain), that setting reads the messages without the header.
    #[must_use]
    pub fn plain_json(mut self, plain: PlainJson) -> Self {
        self.config.read_options.plain_json = Some(plain);
        self
    }

    /// Sets the largest payload in bytes; a larger one is delivered as a message that cannot be
    /// read. 128 MiB unless set.
    #[must_use]
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.config.max_payload = bytes;
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

    /// Stops receiving: `next` gives `None`. The prefetched messages are requeued; deliveries in
    /// flight may still be acknowledged.
    pub fn stop(&mut self) {
        self.state = State::Closed;
    }
}

impl Config {
    fn connector(&self) -> Result<Connector, ConfigError> {
        let mut faults = self.topology.faults();
        faults.extend(name_fault("queue", &self.queue));
        if self.prefetch == 0 {
            faults.push(ConfigFault::Range { what: "the prefetch", rule: "must be at least 1" });
        }
        match self.server.connector(&mut faults) {
            Some(connector) if faults.is_empty() => Ok(connector),
            _ => Err(ConfigError::new(faults)),
        }
    }

    /// Opens the subscription, with retries after an internal error of the server: a quorum queue
    /// that another client is just declaring exists but has no leader to consume from, and RabbitMQ
    /// closes the connection over it.
    async fn open(self) -> Result<Subscription, Failure> {
        for wait in LEADER_ELECTION_BACKOFF {
            match self.try_open().await {
                Err(failure) if failure.internal_error => sleep(wait).await,
                other => return other,
            }
        }
        self.try_open().await
    }

    async fn try_open(&self) -> Result<Subscription, Failure> {
        let connector =
            self.connector().map_err(|error| Failure::unavailable(error.to_string()))?;
        let connection = connector.connect().await?;
        self.topology.declare(&connection).await?;
        let channel = connection.channel().await?;
        let prefetch = channel.basic_qos(self.prefetch, BasicQosOptions::default());
        connection.request("set no prefetch", prefetch).await?;
        let queue = ShortString::try_new(self.queue.as_str())
            .map_err(|error| Failure::unavailable(error.to_string()))?;
        let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
        let consumer = channel.basic_consume(queue, tag, options, FieldTable::default());
        let consumer = connection.request("gives no messages", consumer).await?;
        let channel =
            ConsumerChannel { inner: channel, _connection: connection, timeout: connector.timeout };
        Ok(Subscription { consumer, channel: Arc::new(channel) })
    }

    fn delivery(
        &self,
        received: lapin::message::Delivery,
        channel: &Arc<ConsumerChannel>,
    ) -> Delivery {
        let lapin::message::Delivery { exchange, redelivered, properties, data, acker, .. } =
            received;
        let body = Bytes::from(data);
        let message = if body.len() > self.max_payload {
            Err(format!("the message has {} bytes, of at most {}", body.len(), self.max_payload))
        } else {
            let now = Timestamp::from(wall_clock());
            headers::read(&self.read_options, &properties, exchange.as_str(), body.clone(), now)
        };
        let handle = AckHandle { acker, channel: channel.clone() };
        let counts = self.topology.counts_deliveries(&self.queue);
        let attempt = headers::attempt(&properties, redelivered, counts);
        let is_read = message.is_ok();
        let delivery = Delivery::new(message, attempt, Box::new(handle));
        if is_read { delivery } else { delivery.with_raw(body) }
    }
}

#[async_trait]
impl Subscriber for AmqpSubscriber {
    fn check(&self) -> Result<(), SubscribeError> {
        self.config.connector().map(|_| ()).map_err(|error| SubscribeError(error.into()))
    }

    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        loop {
            match &mut self.state {
                State::Closed => return Ok(None),
                State::Idle => {
                    let (backoff, config) = (self.backoff, self.config.clone());
                    self.state = State::Opening(Box::pin(async move {
                        sleep(backoff).await;
                        config.open().await
                    }));
                }
                State::Opening(opening) => match opening.await {
                    Ok(subscription) => self.state = State::Open(subscription),
                    Err(failure) => {
                        self.state = State::Idle;
                        self.backoff = (self.backoff * 2).clamp(MIN_BACKOFF, MAX_BACKOFF);
                        return Err(SubscribeError(failure.text.into()));
                    }
                },
                State::Open(subscription) => {
                    let lost = match quiet(subscription.consumer.next()).await {
                        Some(Ok(received)) => {
                            self.backoff = Duration::ZERO;
                            let channel = &subscription.channel;
                            return Ok(Some(self.config.delivery(received, channel)));
                        }
                        Some(Err(error)) => Failure::from_lapin(&error).text,
                        None => "the server cancelled the consumer: its queue was deleted or moved"
                            .to_owned(),
                    };
                    self.state = State::Idle;
                    self.backoff = self.backoff.max(MIN_BACKOFF);
                    return Err(SubscribeError(lost.into()));
                }
            }
        }
    }

    fn system(&self) -> &'static str {
        "rabbitmq"
    }
}

struct AckHandle {
    acker: Acker,
    channel: Arc<ConsumerChannel>,
}

impl AckHandle {
    /// Waits until the library has written an ack decision.
    async fn written(
        &self,
        decision: impl Future<Output = lapin::Result<bool>>,
    ) -> Result<(), SubscribeError> {
        match timeout(self.channel.timeout, quiet(decision)).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(SubscribeError(
                "the channel was lost; the server delivers the message again".into(),
            )),
            Ok(Err(error)) => Err(SubscribeError(Failure::from_lapin(&error).text.into())),
            Err(_) => Err(SubscribeError(
                format!("the server took no acknowledgement within {:?}", self.channel.timeout)
                    .into(),
            )),
        }
    }
}

#[async_trait]
impl Acknowledge for AckHandle {
    async fn ack(self: Box<Self>) -> Result<(), SubscribeError> {
        self.written(self.acker.ack(BasicAckOptions::default())).await
    }

    async fn nack(self: Box<Self>, requeue: bool) -> Result<(), SubscribeError> {
        self.written(self.acker.nack(BasicNackOptions { requeue, ..Default::default() })).await
    }

    /// The protocol has no field for a reason; the log line has it.
    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError> {
        tracing::info!(reason, "a message was rejected");
        self.written(self.acker.reject(BasicRejectOptions { requeue: false })).await
    }
}

impl Drop for AckHandle {
    /// Requeues the message, unless it has its ack decision.
    fn drop(&mut self) {
        if self.acker.usable() {
            let requeue = self.acker.nack(REQUEUE);
            // The first poll hands it to the library; the drop does not wait until it is written.
            let _ = quiet(requeue).now_or_never();
        }
    }
}
