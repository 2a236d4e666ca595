//! The receiving half: messages of a durable pull consumer, acknowledged one by one.

use crate::{
    classify::Failure,
    config::{ConfigError, ConfigFault, name_fault},
    connection::{Connector, NatsConnection, Servers},
    headers::{self, ReadOptions},
    pull::{Intake, Pull, Received, Unacked, return_all},
    topology::{self, ACK_WAIT, DurableConsumer, Stream},
};
use async_nats::Subject;
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use outbox_core::{
    event::Timestamp,
    runtime::{Task, spawn, wall_clock},
    transport::{Delivery, SubscribeError, Subscriber, cloudevents::PlainJson, one_line},
};
use std::{fmt, mem, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

/// Messages that the subscriber has before their ack decisions: more than a consumer queues for one
/// key, so that a stuck key does not take all of them, and few enough to share a stream.
const PREFETCH: usize = 128;
/// Largest payload in bytes that the subscriber reads: the most that a server can be set to take.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;
/// First wait before connecting again; it doubles.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// Longest such wait: how late the subscriber notices a recovery at worst.
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Receives the messages of a durable pull consumer of JetStream.
///
/// `ack` says that the message was handled, and returns when the server has recorded it (a double
/// ack); `nack(true)` returns the message, at once or after [`nack_delay`](Self::nack_delay);
/// `nack(false)` and `reject` end its delivery (term). A delivery that is dropped is returned. As
/// long as a delivery has no decision, the subscriber tells the server that it is at work, so that a
/// handler may take longer than the consumer's ack wait.
///
/// When the connection is lost, or the consumer is deleted or silent, `next` fails once and opens
/// the subscription again at the next call, declares streams and consumer anew, and returns first
/// the messages that had no ack decision, in the order of the stream. A late ack of one fails.
///
/// JetStream counts deliveries ([`Delivery::attempt`]).
///
/// ```
/// use outbox_nats::{DurableConsumer, NatsSubscriber};
/// let subscriber = NatsSubscriber::new("nats://127.0.0.1:4222", "ORDERS", "billing")?
///     .declare_consumer(DurableConsumer::new())
///     .prefetch(100)
///     .build()?;
/// # let _ = subscriber;
/// # Ok::<(), outbox_nats::ConfigError>(())
/// ```
pub struct NatsSubscriber {
    config: Config,
    state: State,
    backoff: Duration,
    /// Messages of a subscription that has ended, to be returned by the next one.
    unreturned: Vec<Subject>,
}

#[derive(Clone)]
struct Config {
    servers: Servers,
    stream: String,
    consumer: String,
    declared: Option<DurableConsumer>,
    streams: Vec<Stream>,
    prefetch: usize,
    nack_delay: Option<Duration>,
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

/// An open subscription. On drop its task returns the messages that were not given out; the
/// connection stays open for ack decisions that are still to come.
struct Subscription {
    deliveries: mpsc::UnboundedReceiver<Result<Received, Failure>>,
    connection: Arc<NatsConnection>,
    unacked: Arc<Unacked>,
    /// Tells the task that the subscription is over, and gives it what was not given out.
    stop: Option<oneshot::Sender<Vec<Received>>>,
    task: Option<Task<()>>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.deliveries.close();
        let mut rest = Vec::new();
        while let Ok(received) = self.deliveries.try_recv() {
            rest.extend(received);
        }
        if let Some(stop) = self.stop.take() {
            // Where the task has ended, the handles return what is left.
            let _ = stop.send(rest);
        }
    }
}

impl Subscription {
    /// Waits for the next delivery.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no delivery.
    async fn next(&mut self) -> Result<Received, Failure> {
        tokio::select! {
            biased;
            // What the task had received before could not be acknowledged.
            failure = self.connection.lost() => Err(failure),
            received = self.deliveries.recv() => received.unwrap_or_else(|| Err(Failure::lost(None))),
        }
    }
}

impl fmt::Debug for NatsSubscriber {
    /// Shows what it receives; neither user nor password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsSubscriber")
            .field("destination", &self.config.servers.destination())
            .field("stream", &self.config.stream)
            .field("consumer", &self.config.consumer)
            .field("prefetch", &self.config.prefetch)
            .finish_non_exhaustive()
    }
}

impl NatsSubscriber {
    /// Makes a subscriber for a durable consumer of a stream, at the server of a URL:
    /// `nats://user:password@host:port`, `nats://token@host:port`, or `tls://` for TLS. Several
    /// servers of a cluster stand behind one another with commas. It connects at the first call of
    /// `next`.
    ///
    /// Subscribers of one name share the messages of the stream. The consumer has to exist, unless
    /// [`declare_consumer`](Self::declare_consumer) creates it.
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such URL.
    pub fn new(
        url: impl AsRef<str>,
        stream: impl Into<String>,
        consumer: impl Into<String>,
    ) -> Result<Self, ConfigError> {
        let config = Config {
            servers: Servers::parse(url.as_ref())?,
            stream: stream.into(),
            consumer: consumer.into(),
            declared: None,
            streams: Vec::new(),
            prefetch: PREFETCH,
            nack_delay: None,
            read_options: ReadOptions::default(),
            max_payload: MAX_MESSAGE,
        };
        let (state, backoff) = (State::Idle, Duration::ZERO);
        Ok(Self { config, state, backoff, unreturned: Vec::new() })
    }

    /// Declares streams at each new connection. One that exists with other settings stays as it is,
    /// and `next` fails with an error that names the difference.
    #[must_use]
    pub fn declare(mut self, streams: impl IntoIterator<Item = Stream>) -> Self {
        self.config.streams = streams.into_iter().collect();
        self
    }

    /// Declares the durable consumer at each new connection. One that exists with other settings
    /// stays as it is, and `next` fails with an error that names the difference.
    #[must_use]
    pub fn declare_consumer(mut self, consumer: DurableConsumer) -> Self {
        self.config.declared = Some(consumer);
        self
    }

    /// Sets how many messages the subscriber has before their ack decisions, 128 unless set. Where
    /// all of them are of one stuck key, no other message comes. They are in memory until they have
    /// their ack decision: with payloads of 960 KiB, the most that an outbox takes unless set, 128
    /// are 120 MiB. Set fewer for streams with larger payloads.
    #[must_use]
    pub fn prefetch(mut self, messages: usize) -> Self {
        self.config.prefetch = messages;
        self
    }

    /// Sets how long the server waits before it delivers a message again that was returned by
    /// `nack(true)`; at once unless set. Later messages of its key may come before it then.
    #[must_use]
    pub fn nack_delay(mut self, delay: Duration) -> Self {
        self.config.nack_delay = Some(delay);
        self
    }

    /// Also reads messages that are no CloudEvents: their identity from the header `Nats-Msg-Id`,
    /// their type from the header `type` or the subject, the source as given here, and their headers
    /// as far as they have legal names.
    #[must_use]
    pub fn plain(mut self, source: impl Into<String>) -> Self {
        self.config.read_options.plain_source = Some(source.into());
        self
    }

    /// Also reads messages that are plain JSON with a header for their type. The header
    /// `Nats-Msg-Id` counts as `message-id` where the message has no header of that name.
    ///
    /// Together with [`plain`](Self::plain), that setting reads the messages without the header.
    #[must_use]
    pub fn plain_json(mut self, plain: PlainJson) -> Self {
        self.config.read_options.plain_json = Some(plain);
        self
    }

    /// Sets the largest payload in bytes; a larger one is delivered as a message that cannot be
    /// read. 64 MiB unless set.
    #[must_use]
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.config.max_payload = bytes;
        self
    }

    /// Sets how long the server may take for one reply; 10 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.servers.timeout = timeout;
        self
    }

    /// Trusts one more certificate authority, in PEM, besides the system's.
    #[must_use]
    pub fn trust(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.config.servers.roots.push(pem.as_ref().to_vec());
        self
    }

    /// Logs in with the text of a `.creds` file: a user's JWT with its key.
    #[must_use]
    pub fn credentials(mut self, text: impl Into<String>) -> Self {
        self.config.servers.credentials = Some(text.into());
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

    /// Stops receiving: `next` gives `None`. Messages that were not given out are returned;
    /// deliveries in flight may still be acknowledged, within the consumer's ack wait.
    pub fn stop(&mut self) {
        self.state = State::Closed;
    }
}

impl Config {
    fn connector(&self) -> Result<Connector, ConfigError> {
        let mut faults = topology::faults(&self.streams);
        faults.extend(name_fault("stream", &self.stream));
        faults.extend(name_fault("consumer", &self.consumer));
        if let Some(declared) = &self.declared {
            declared.faults(&mut faults);
        }
        if self.prefetch == 0 {
            faults.push(ConfigFault::Range { what: "the prefetch", rule: "must be at least 1" });
        }
        match self.servers.connector(&mut faults) {
            Some(connector) if faults.is_empty() => Ok(connector),
            _ => Err(ConfigError::new(faults)),
        }
    }

    /// Opens the subscription, and returns the messages of an earlier one before the first request.
    async fn open(self, unreturned: Vec<Subject>) -> Result<Subscription, Failure> {
        let connector =
            self.connector().map_err(|error| Failure::unavailable(error.to_string()))?;
        let connection = Arc::new(connector.connect().await?);
        topology::declare(&connection, &self.streams).await?;
        let (stream, consumer) = (&self.stream, &self.consumer);
        let ack_wait =
            topology::consumer(&connection, stream, consumer, self.declared.as_ref()).await?;
        return_all(&connection, &unreturned).await?;
        let inbox = connection.client.new_inbox();
        let subscribed = connection.client.subscribe(inbox.clone());
        let subscription = connection.request("gives no messages", subscribed).await?;
        let subscription =
            subscription.map_err(|error| Failure::unavailable(one_line(&error.to_string())))?;
        let (sender, deliveries) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let unacked = Arc::new(Unacked::default());
        let pull = Pull {
            intake: Intake {
                connection: connection.clone(),
                unacked: unacked.clone(),
                nack_delay: self.nack_delay,
            },
            requests: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
            inbox,
            subscription,
            deliveries: sender,
            stopped,
            prefetch: self.prefetch,
            ack_wait,
            requested: 0,
        };
        let (stop, task) = (Some(stop), Some(spawn(pull.run())));
        Ok(Subscription { deliveries, connection, unacked, stop, task })
    }

    fn delivery(&self, received: Received) -> Delivery {
        let Received { message, attempt, handle } = received;
        let (body, headers) = (message.payload, message.headers);
        let message = if body.len() > self.max_payload {
            Err(format!("the message has {} bytes, of at most {}", body.len(), self.max_payload))
        } else {
            let (options, now) = (&self.read_options, Timestamp::from(wall_clock()));
            headers::read(options, &message.subject, headers.as_ref(), body.clone(), now)
        };
        let is_read = message.is_ok();
        let delivery = Delivery::new(message, Some(attempt), Box::new(handle));
        if is_read { delivery } else { delivery.with_raw(body) }
    }
}

#[async_trait]
impl Subscriber for NatsSubscriber {
    fn check(&self) -> Result<(), SubscribeError> {
        self.config.connector().map(|_| ()).map_err(|error| SubscribeError(error.into()))
    }

    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        loop {
            match &mut self.state {
                State::Closed => return Ok(None),
                State::Idle => {
                    let (backoff, config) = (self.backoff, self.config.clone());
                    let unreturned = self.unreturned.clone();
                    self.state = State::Opening(Box::pin(async move {
                        sleep(backoff).await;
                        config.open(unreturned).await
                    }));
                }
                State::Opening(opening) => match opening.await {
                    Ok(subscription) => {
                        self.unreturned.clear();
                        self.state = State::Open(subscription);
                    }
                    Err(failure) => {
                        self.state = State::Idle;
                        self.backoff = (self.backoff * 2).clamp(MIN_BACKOFF, MAX_BACKOFF);
                        return Err(SubscribeError(failure.text.into()));
                    }
                },
                State::Open(subscription) => {
                    let failure = match subscription.next().await {
                        Ok(received) => {
                            self.backoff = Duration::ZERO;
                            return Ok(Some(self.config.delivery(received)));
                        }
                        Err(failure) => failure,
                    };
                    let unacked = subscription.unacked.clone();
                    // What was not given out is returned by its drop, unless the connection is lost.
                    self.state = State::Idle;
                    self.unreturned = unacked.take();
                    self.backoff = self.backoff.max(MIN_BACKOFF);
                    return Err(SubscribeError(failure.text.into()));
                }
            }
        }
    }

    async fn close(&mut self) {
        if let State::Open(mut subscription) = mem::replace(&mut self.state, State::Closed) {
            let (connection, task) = (subscription.connection.clone(), subscription.task.take());
            drop(subscription);
            if let Some(task) = task {
                task.await;
            }
            // It fails where the connection is lost; the server then delivers again what is left.
            let _ = connection.request("flushed nothing", connection.client.flush()).await;
        }
    }

    /// The declared consumer's ack wait, or 30 s. Declare the consumer where it is longer.
    fn redelivers_within(&self) -> Duration {
        self.config.declared.as_ref().map_or(ACK_WAIT, DurableConsumer::wait)
    }
}
