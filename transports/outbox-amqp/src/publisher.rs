//! The sending half: messages to an exchange, each confirmed by the server and taken by a queue.

use crate::{
    config::{ConfigError, ConfigFault, MAX_NAME},
    connection::Address,
    headers,
    line::{Line, Parcel},
    topology::Topology,
    verdict::Failure,
};
use async_trait::async_trait;
use lapin::types::ShortString;
use outbox_core::{
    event::Message,
    saga::is_answer,
    transport::{Batch, Encoding, Limits, PublishError, Publisher, Receipt},
};
use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Bytes of a message that RabbitMQ takes unless it is configured otherwise (since version 4: 16 MiB).
const MAX_MESSAGE: usize = 128 * 1024 * 1024;
/// Batches on their way at once, whatever the relay asks for: each has a channel.
const MAX_CHANNELS: usize = 32;

type RoutingKey = Arc<dyn Fn(&Message) -> String + Send + Sync>;

/// Gives the routing key of a message for which none was set: its type; the topic for an answer to a saga's command, since the
/// types of those that the framework writes are nothing that a user thinks of when a queue is bound.
fn usual_routing_key(message: &Message) -> String {
    if is_answer(&message.headers) { message.topic.clone() } else { message.event_type.clone() }
}

/// Publishes messages to an exchange of RabbitMQ.
///
/// A message is delivered when the server has confirmed it (for a quorum queue: when most of its members have it on disk) and
/// did not return it as unroutable. Made by [`new`](Self::new), which opens no connection, and refined by the methods that
/// follow; [`build`](Self::build) reports everything that is wrong with it at once. It connects when it first publishes, and
/// again whenever the connection was lost.
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
    line: OnceLock<Result<Line, ConfigError>>,
}

struct Config {
    address: Address,
    exchange: String,
    /// Where it publishes straight to a queue.
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
            .field("destination", &self.config.address.destination())
            .field("exchange", &self.config.exchange)
            .field("structured", &self.config.structured)
            .finish_non_exhaustive()
    }
}

impl AmqpPublisher {
    /// Makes a publisher for the server at a URL: `amqp://user:password@host:port/vhost`, or `amqps://` for TLS.
    ///
    /// It publishes to the default exchange, with the event's type as routing key, unless told otherwise. The answer to a saga's
    /// command has its topic as routing key, whatever its type is: see [`routing_key`](Self::routing_key).
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such URL.
    pub fn new(url: impl AsRef<str>) -> Result<Self, ConfigError> {
        let config = Config {
            address: Address::parse(url.as_ref())?,
            exchange: String::new(),
            queue: None,
            routing_key: Arc::new(usual_routing_key),
            structured: false,
            topology: Topology::new(),
            limits: Limits::default().max_message(MAX_MESSAGE).max_text(MAX_NAME),
        };
        Ok(Self { config, line: OnceLock::new() })
    }

    /// Makes a publisher as [`new`](Self::new) does, and asks the server whether it lets it in: for services that would rather
    /// not start than wait.
    ///
    /// # Errors
    /// [`PublishError`] when the URL cannot be read or the server does not answer.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves no connection.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, PublishError> {
        let unusable = |error: ConfigError| PublishError::unavailable(error.to_string());
        let publisher = Self::new(url).map_err(unusable)?;
        publisher.line().map_err(unusable)?.reach().await?;
        Ok(publisher)
    }

    /// Publishes to an exchange.
    #[must_use]
    pub fn exchange(self, name: impl Into<String>) -> Self {
        self.with(|config| (config.exchange, config.queue) = (name.into(), None))
    }

    /// Publishes straight to a queue, by the default exchange.
    #[must_use]
    pub fn queue(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.with(|config| (config.exchange, config.queue) = (String::new(), Some(name.clone())))
            .routing_key(move |_| name.clone())
    }

    /// Says the routing key of a message. Unless set it is the message's type, such as `order.placed`; of the answer to a saga's
    /// command it is the topic that the saga has named (`reply_to`), so that one binding by that topic brings a queue all answers,
    /// those of the framework (`outbox.saga.done`) among them.
    #[must_use]
    pub fn routing_key(self, key: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        self.with(|config| config.routing_key = Arc::new(key))
    }

    /// Declares exchanges, queues and bindings at each new connection, and again when the server says that something is
    /// missing.
    #[must_use]
    pub fn declare(self, topology: Topology) -> Self {
        self.with(|config| config.topology = topology)
    }

    /// Sends each message as one JSON object (`application/cloudevents+json`). A message that binary mode cannot carry goes so
    /// anyway: one whose headers do not fit in a frame (128 KiB usually), or whose payload is itself a CloudEvent.
    #[must_use]
    pub fn structured(self) -> Self {
        self.with(|config| config.structured = true)
    }

    /// Sets how long the server may take for one answer: to let us in, to open a channel, to confirm a batch; 10 s unless set.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.address.timeout = timeout)
    }

    /// Trusts one more certificate authority, in PEM, besides the system's.
    #[must_use]
    pub fn trust(self, pem: impl AsRef<[u8]>) -> Self {
        self.with(|config| config.address.roots.push(pem.as_ref().to_vec()))
    }

    /// Sets the limits that enqueue and relay heed: 128 MiB of body, 255 bytes of topic, type and key, and four batches of
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
        self.line()?;
        Ok(self)
    }

    /// Changes the configuration; what was made from the former one is made again.
    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self.line = OnceLock::new();
        self
    }

    fn line(&self) -> Result<&Line, ConfigError> {
        self.line.get_or_init(|| self.config.line()).as_ref().map_err(Clone::clone)
    }

    /// Writes one message for the wire.
    fn parcel(&self, message: &Message, frame_max: usize) -> Result<Parcel, Failure> {
        let short = |what: &str, text: String| {
            let length = text.len();
            ShortString::try_new(text).map_err(|_| {
                Failure::permanent(format!("the {what} has {length} bytes, of at most {MAX_NAME}"))
            })
        };
        let exchange = short("exchange", self.config.exchange.clone())?;
        let routing_key = short("routing key", (self.config.routing_key)(message))?;
        let packet = headers::write(message, self.config.structured, frame_max);
        let limits = [self.config.limits.max_payload, self.config.limits.max_message];
        let (size, limit) =
            (packet.body.len(), limits.into_iter().flatten().min().unwrap_or(usize::MAX));
        if size > limit {
            return Err(Failure::permanent(format!(
                "the message has {size} bytes, of at most {limit}"
            )));
        }
        Ok(Parcel { id: message.id, exchange, routing_key, packet })
    }

    async fn send(
        &self,
        messages: &[Message],
        once: bool,
    ) -> Result<Vec<Result<Receipt, PublishError>>, Failure> {
        let line = self.line().map_err(|error| Failure::unavailable(error.to_string()))?;
        let lane = line.lane().await?;
        let frame_max = lane.frame_max();
        let (mut parcels, mut verdicts) =
            (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
        let mut written = Vec::with_capacity(messages.len());
        for message in messages {
            verdicts.push(match self.parcel(message, frame_max) {
                Ok(parcel) => {
                    parcels.push(parcel);
                    written.push(message);
                    None
                }
                Err(failure) => Some(Err(failure)),
            });
        }
        let mut sent = line
            .send(lane, parcels, once, |place| self.parcel(written[place], frame_max))
            .await
            .into_iter();
        let verdict = |known: Option<Result<u64, Failure>>| {
            let verdict = known
                .or_else(|| sent.next())
                .unwrap_or_else(|| Err(Failure::transient("no verdict")));
            let receipt = |tag| Receipt::new().to(self.config.exchange.as_str()).at(tag);
            verdict.map(receipt).map_err(PublishError::from)
        };
        Ok(verdicts.into_iter().map(verdict).collect())
    }
}

#[async_trait]
impl Publisher for AmqpPublisher {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let mut verdicts = self.send(std::slice::from_ref(message), false).await?;
        verdicts.pop().unwrap_or_else(|| Err(PublishError::transient("no verdict")))
    }

    async fn publish_batch(&self, batch: &mut Batch) {
        let messages = batch.messages();
        if messages.is_empty() {
            return;
        }
        // What was returned is known only when all confirms have come, or the publisher's own timeout has.
        match self.send(&messages, batch.is_at_most_once()).await {
            Ok(verdicts) => verdicts
                .into_iter()
                .enumerate()
                .for_each(|(place, verdict)| batch.done(place, verdict)),
            Err(failure) => batch.rest(|| Err(failure.clone().into())),
        }
    }

    fn limits(&self) -> Limits {
        let encoding = if self.config.structured { Encoding::Structured } else { Encoding::Body };
        self.config.limits.encoding(encoding)
    }

    fn timeout(&self) -> Option<Duration> {
        Some(self.config.address.timeout)
    }

    fn destination(&self) -> Option<String> {
        let to = self.config.queue.as_ref().unwrap_or(&self.config.exchange);
        Some(format!("{}#{to}", self.config.address.destination()))
    }

    fn check(&self) -> Result<(), PublishError> {
        self.line().map(|_| ()).map_err(|error| PublishError::permanent(error.to_string()))
    }
}

impl Config {
    /// Checks the configuration and makes ready for connecting, or says everything that is wrong.
    fn line(&self) -> Result<Line, ConfigError> {
        let mut faults = self.topology.faults();
        if self.exchange.len() > MAX_NAME {
            faults.push(ConfigFault::Name {
                what: "exchange",
                name: self.exchange.chars().take(64).collect(),
                rule: "must have at most 255 bytes",
            });
        }
        match self.address.dial(&mut faults) {
            Some(dial) if faults.is_empty() => {
                Ok(Line::new(dial, self.topology.clone(), MAX_CHANNELS))
            }
            _ => Err(ConfigError::new(faults)),
        }
    }
}
