//! The sending half: messages to an exchange, each confirmed by the server and routed to a queue.

use crate::{
    channels::{ChannelPool, Outgoing},
    classify::Failure,
    config::{ConfigError, ConfigFault, MAX_NAME},
    connection::ServerUri,
    headers,
    topology::Topology,
};
use async_trait::async_trait;
use lapin::types::ShortString;
use outbox_core::{
    event::Message,
    saga::is_reply,
    transport::{Batch, Encoding, Limits, PublishError, Publisher, Receipt},
};
use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Largest message in bytes that RabbitMQ takes unless it is configured otherwise (since version 4:
/// 16 MiB).
const MAX_MESSAGE: usize = 128 * 1024 * 1024;
/// Most batches under way at once, however many the relay publishes: each has a channel.
const MAX_CHANNELS: usize = 32;

type RoutingKey = Arc<dyn Fn(&Message) -> String + Send + Sync>;

/// Gives the default routing key of a message: its type, or the topic for the reply to a saga's
/// command, since a user who binds a queue does not think of the types of the framework's own
/// replies.
fn default_routing_key(message: &Message) -> String {
    if is_reply(&message.headers) { message.topic.clone() } else { message.event_type.clone() }
}

/// Publishes messages to an exchange of RabbitMQ.
///
/// A message is delivered when the server has confirmed it (for a quorum queue: when most of its
/// members have it on disk) and did not return it as unroutable. [`new`](Self::new) makes the
/// publisher without a connection, and the methods that follow configure it; [`build`](Self::build)
/// reports every configuration fault at once. It connects at the first publish, and again when the
/// connection was lost.
///
/// ```
/// use outbox_amqp::{AmqpPublisher, Exchange, Queue, Topology};
/// let publisher = AmqpPublisher::new("amqp://guest:guest@127.0.0.1:5672")?
///     .exchange("orders")
///     .declare(
///         Topology::new()
///             .exchange(Exchange::topic("orders"))
///             .queue(Queue::quorum("billing").bind("orders", "order.*")),
///     )
///     .build()?;
/// # let _ = publisher;
/// # Ok::<(), outbox_amqp::ConfigError>(())
/// ```
pub struct AmqpPublisher {
    config: Config,
    pool: OnceLock<Result<ChannelPool, ConfigError>>,
}

struct Config {
    server: ServerUri,
    exchange: String,
    /// Set where it publishes straight to a queue.
    queue: Option<String>,
    routing_key: RoutingKey,
    structured: bool,
    topology: Topology,
    limits: Limits,
}

impl fmt::Debug for AmqpPublisher {
    /// Shows where it publishes; neither user nor password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpPublisher")
            .field("destination", &self.config.server.destination())
            .field("exchange", &self.config.exchange)
            .field("structured", &self.config.structured)
            .finish_non_exhaustive()
    }
}

impl AmqpPublisher {
    /// Makes a publisher for the server at a URL: `amqp://user:password@host:port/vhost`, or
    /// `amqps://` for TLS.
    ///
    /// Unless configured otherwise it publishes to the default exchange, with the event's type as
    /// routing key. The reply to a saga's command has its topic as routing key, whatever its type
    /// is: see [`routing_key`](Self::routing_key).
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such URL.
    pub fn new(url: impl AsRef<str>) -> Result<Self, ConfigError> {
        let config = Config {
            server: ServerUri::parse(url.as_ref())?,
            exchange: String::new(),
            queue: None,
            routing_key: Arc::new(default_routing_key),
            structured: false,
            topology: Topology::new(),
            limits: Limits::default().max_message(MAX_MESSAGE).max_text(MAX_NAME),
        };
        Ok(Self { config, pool: OnceLock::new() })
    }

    /// Makes a publisher as [`new`](Self::new) does, and connects: for services that should not
    /// start without the server.
    ///
    /// # Errors
    /// [`PublishError`] when the URL cannot be read or the server does not accept the connection.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves no connection.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, PublishError> {
        let unusable = |error: ConfigError| PublishError::unavailable(error.to_string());
        let publisher = Self::new(url).map_err(unusable)?;
        publisher.pool().map_err(unusable)?.connect().await?;
        Ok(publisher)
    }

    /// Publishes to an exchange.
    #[must_use]
    pub fn exchange(self, name: impl Into<String>) -> Self {
        self.with(|config| (config.exchange, config.queue) = (name.into(), None))
    }

    /// Publishes straight to a queue, by the default exchange.
    ///
    /// ```
    /// # use outbox_amqp::AmqpPublisher;
    /// let publisher = AmqpPublisher::new("amqp://guest:guest@127.0.0.1:5672")?.queue("billing");
    /// # publisher.build()?;
    /// # Ok::<(), outbox_amqp::ConfigError>(())
    /// ```
    #[must_use]
    pub fn queue(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.with(|config| (config.exchange, config.queue) = (String::new(), Some(name.clone())))
            .routing_key(move |_| name.clone())
    }

    /// Sets the routing key of a message. Unless set it is the message's type, such as
    /// `order.placed`; for the reply to a saga's command it is the topic that the saga has named
    /// (`reply_to`), so that one binding by that topic routes all replies to a queue, those of the
    /// framework (`outbox.saga.done`) among them.
    ///
    /// ```
    /// # use outbox_amqp::AmqpPublisher;
    /// let by_tenant = AmqpPublisher::new("amqp://guest:guest@127.0.0.1:5672")?
    ///     .exchange("orders")
    ///     .routing_key(|message| {
    ///         let tenant = message.headers.get("tenant").unwrap_or("none");
    ///         format!("{tenant}.{}", message.event_type)
    ///     });
    /// # by_tenant.build()?;
    /// # Ok::<(), outbox_amqp::ConfigError>(())
    /// ```
    #[must_use]
    pub fn routing_key(self, key: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        self.with(|config| config.routing_key = Arc::new(key))
    }

    /// Declares exchanges, queues and bindings at each new connection, and again when the server
    /// reports one of them missing.
    ///
    /// ```
    /// # use outbox_amqp::{AmqpPublisher, Exchange, Queue, Topology};
    /// let shop = Topology::new()
    ///     .exchange(Exchange::topic("shop"))
    ///     .queue(Queue::quorum("payments").bind("shop", "payment.*"));
    /// let publisher = AmqpPublisher::new("amqps://shop@rabbit.example")?.exchange("shop").declare(shop);
    /// # publisher.build()?;
    /// # Ok::<(), outbox_amqp::ConfigError>(())
    /// ```
    #[must_use]
    pub fn declare(self, topology: Topology) -> Self {
        self.with(|config| config.topology = topology)
    }

    /// Sends each message as one JSON object (`application/cloudevents+json`). Without this setting
    /// the publisher does so only for a message that binary mode cannot carry: one whose headers do
    /// not fit in a frame (128 KiB usually), or whose payload is itself a CloudEvent.
    #[must_use]
    pub fn structured(self) -> Self {
        self.with(|config| config.structured = true)
    }

    /// Sets how long the server may take for one reply: to accept the connection, to open a
    /// channel, to confirm a batch that was written; 10 s unless set. While the server takes one
    /// message after the other, a batch is waited for.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.server.timeout = timeout)
    }

    /// Trusts one more certificate authority, in PEM, besides the system's.
    #[must_use]
    pub fn trust(self, pem: impl AsRef<[u8]>) -> Self {
        self.with(|config| config.server.roots.push(pem.as_ref().to_vec()))
    }

    /// Sets the limits that enqueue and relay apply: 128 MiB of body, 255 bytes of topic, type and
    /// key, and four batches of 256, unless set.
    ///
    /// ```
    /// # use outbox_amqp::AmqpPublisher;
    /// # use outbox_core::transport::Limits;
    /// let publisher = AmqpPublisher::new("amqp://guest:guest@127.0.0.1:5672")?
    ///     .exchange("orders")
    ///     .with_limits(Limits::default().max_payload(1 << 20).max_batch(64));
    /// # publisher.build()?;
    /// # Ok::<(), outbox_amqp::ConfigError>(())
    /// ```
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        self.with(|config| config.limits = limits)
    }

    /// Checks the configuration. Opens no connection.
    ///
    /// ```
    /// # use outbox_amqp::AmqpPublisher;
    /// let url = "amqp://guest:guest@127.0.0.1:5672";
    /// let built = AmqpPublisher::new(url)?.exchange("e".repeat(256)).build();
    /// assert!(built.is_err(), "a name has at most 255 bytes");
    /// # Ok::<(), outbox_amqp::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    pub fn build(self) -> Result<Self, ConfigError> {
        self.pool()?;
        Ok(self)
    }

    /// Changes the configuration and drops the pool that was made from the former one.
    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self.pool = OnceLock::new();
        self
    }

    fn pool(&self) -> Result<&ChannelPool, ConfigError> {
        self.pool.get_or_init(|| self.config.pool()).as_ref().map_err(Clone::clone)
    }

    /// Encodes one message.
    fn outgoing(&self, message: &Message, frame_max: usize) -> Result<Outgoing, Failure> {
        let short = |what: &str, text: String| {
            let length = text.len();
            ShortString::try_new(text).map_err(|_| {
                Failure::permanent(format!("the {what} has {length} bytes, of at most {MAX_NAME}"))
            })
        };
        let exchange = short("exchange", self.config.exchange.clone())?;
        let routing_key = short("routing key", (self.config.routing_key)(message))?;
        let encoded = headers::write(message, self.config.structured, frame_max);
        let limits = [self.config.limits.max_payload, self.config.limits.max_message];
        let (size, limit) =
            (encoded.body.len(), limits.into_iter().flatten().min().unwrap_or(usize::MAX));
        if size > limit {
            return Err(Failure::permanent(format!(
                "the message has {size} bytes, of at most {limit}"
            )));
        }
        Ok(Outgoing { id: message.id, exchange, routing_key, encoded })
    }

    async fn send(
        &self,
        messages: &[Message],
        once: bool,
    ) -> Result<Vec<Result<Receipt, PublishError>>, Failure> {
        let pool = self.pool().map_err(|error| Failure::unavailable(error.to_string()))?;
        let channel = pool.acquire().await?;
        let frame_max = channel.frame_max();
        let (mut batch, mut known) =
            (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
        let mut encoded = Vec::with_capacity(messages.len());
        for message in messages {
            known.push(match self.outgoing(message, frame_max) {
                Ok(outgoing) => {
                    batch.push(outgoing);
                    encoded.push(message);
                    None
                }
                Err(failure) => Some(Err(failure)),
            });
        }
        let encode = |index: usize| self.outgoing(encoded[index], frame_max);
        let mut published = pool.publish_batch(channel, batch, once, encode).await.into_iter();
        let outcome = |known: Option<Result<u64, Failure>>| {
            let outcome = known
                .or_else(|| published.next())
                .unwrap_or_else(|| Err(Failure::transient("no outcome")));
            let receipt = |tag| Receipt::new().to(self.config.exchange.as_str()).at(tag);
            outcome.map(receipt).map_err(PublishError::from)
        };
        Ok(known.into_iter().map(outcome).collect())
    }
}

#[async_trait]
impl Publisher for AmqpPublisher {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let mut outcomes = self.send(std::slice::from_ref(message), false).await?;
        outcomes.pop().unwrap_or_else(|| Err(PublishError::transient("no outcome")))
    }

    async fn publish_batch(&self, batch: &mut Batch) {
        let messages = batch.messages();
        if messages.is_empty() {
            return;
        }
        // A batch knows its returned messages only after all confirms, or after the publisher's
        // timeout.
        match self.send(&messages, batch.is_at_most_once()).await {
            Ok(outcomes) => outcomes
                .into_iter()
                .enumerate()
                .for_each(|(index, outcome)| batch.done(index, outcome)),
            Err(failure) => batch.rest(|| Err(failure.clone().into())),
        }
    }

    fn system(&self) -> &'static str {
        "rabbitmq"
    }

    fn limits(&self) -> Limits {
        let encoding = if self.config.structured { Encoding::Structured } else { Encoding::Body };
        self.config.limits.encoding(encoding)
    }

    fn timeout(&self) -> Option<Duration> {
        Some(self.config.server.timeout)
    }

    fn destination(&self) -> Option<String> {
        let to = self.config.queue.as_ref().unwrap_or(&self.config.exchange);
        Some(format!("{}#{to}", self.config.server.destination()))
    }

    fn check(&self) -> Result<(), PublishError> {
        self.pool().map(|_| ()).map_err(|error| PublishError::permanent(error.to_string()))
    }
}

impl Config {
    /// Checks the configuration and makes the pool. Opens no connection.
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    fn pool(&self) -> Result<ChannelPool, ConfigError> {
        let mut faults = self.topology.faults();
        if self.exchange.len() > MAX_NAME {
            faults.push(ConfigFault::Name {
                what: "exchange",
                name: self.exchange.chars().take(64).collect(),
                rule: "must have at most 255 bytes",
            });
        }
        match self.server.connector(&mut faults) {
            Some(connector) if faults.is_empty() => {
                Ok(ChannelPool::new(connector, self.topology.clone(), MAX_CHANNELS))
            }
            _ => Err(ConfigError::new(faults)),
        }
    }
}
