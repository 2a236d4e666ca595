//! The receiving half: messages of a queue, each answered for by hand.

use crate::{
    config::{ConfigError, ConfigFault, name_fault},
    connection::{Address, Dial, Link, quiet},
    headers::{self, Reading},
    topology::Topology,
    verdict::{Failure, UNTIL_A_LEADER},
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

/// Messages that the server sends ahead of their answers: more than a consumer has places for, so that a key that is stuck does not
/// stand for all of them, and few enough to share a queue.
const PREFETCH: u16 = 128;
/// Bytes of a message that are taken; what RabbitMQ takes itself.
const MAX_MESSAGE: usize = 128 * 1024 * 1024;
/// Wait before connecting again, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest such wait: how late a recovery is noticed at worst.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Receives the messages of a queue of RabbitMQ.
///
/// `ack` takes a message from the queue; `nack(true)` puts it back; `nack(false)` and `reject` hand it to the queue's dead
/// letters, if it has a place for them. A delivery that is dropped is put back. When the connection is lost or the server
/// cancels the consumer, `next` says so once, and connects again when it is called again; what was not answered for comes
/// again, and its answer then is an error.
///
/// Quorum queues count deliveries, which [`Delivery::attempt`] tells; classic queues do not.
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
    pause: Duration,
}

#[derive(Clone)]
struct Config {
    address: Address,
    queue: String,
    prefetch: u16,
    topology: Topology,
    reading: Reading,
    max_payload: usize,
}

enum State {
    Idle,
    /// Kept over calls of `next` that are dropped.
    Opening(BoxFuture<'static, Result<Open, Failure>>),
    Open(Open),
    Closed,
}

/// An open subscription. Dropped, it ends the consumer and returns what was sent ahead; the channel stays for answers that are
/// still to come.
struct Open {
    consumer: lapin::Consumer,
    line: Arc<Wire>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // The first poll hands it over.
        let end =
            self.line.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default());
        let _ = quiet(end).now_or_never();
        let (mut rest, line) = (self.consumer.clone(), self.line.clone());
        let answer = async move {
            // Up to the server's word that it ended: unanswered they would wait for the end of the channel, which may be
            // that of the slowest handler.
            let all = async {
                while let Some(Ok(ahead)) = quiet(rest.next()).await {
                    let _ = quiet(ahead.acker.nack(BACK)).await;
                }
            };
            let _ = timeout(line.timeout, all).await;
        };
        if Handle::try_current().is_ok() {
            spawn(answer).detach();
        }
    }
}

/// Puts a message back.
const BACK: BasicNackOptions = BasicNackOptions { requeue: true, multiple: false };

/// What answers travel on.
struct Wire {
    channel: Channel,
    _link: Link,
    timeout: Duration,
}

impl fmt::Debug for AmqpSubscriber {
    /// Shows what it receives; neither user nor password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpSubscriber")
            .field("destination", &self.config.address.destination())
            .field("queue", &self.config.queue)
            .field("prefetch", &self.config.prefetch)
            .finish_non_exhaustive()
    }
}

impl AmqpSubscriber {
    /// Makes a subscriber for a queue of the server at a URL: `amqp://user:password@host:port/vhost`, or `amqps://` for TLS.
    /// It connects at the first call of `next`.
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such URL.
    pub fn new(url: impl AsRef<str>, queue: impl Into<String>) -> Result<Self, ConfigError> {
        let config = Config {
            address: Address::parse(url.as_ref())?,
            queue: queue.into(),
            prefetch: PREFETCH,
            topology: Topology::new(),
            reading: Reading::default(),
            max_payload: MAX_MESSAGE,
        };
        Ok(Self { config, state: State::Idle, pause: Duration::ZERO })
    }

    /// Sets how many messages the server sends ahead of their answers, 128 unless set. Where all of
    /// them are of one key that is stuck, nothing else comes: the queue gives them out in its order. They are in memory until they
    /// are answered, and RabbitMQ bounds them by number alone: with payloads of 960 KiB, the most that an outbox takes unless set,
    /// 128 are 120 MiB. Where queues have larger ones, set fewer.
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

    /// Reads also messages that are no CloudEvents: id, type and time from their properties, the source as given here, and
    /// as headers those that have legal names.
    #[must_use]
    pub fn plain(mut self, source: impl Into<String>) -> Self {
        self.config.reading.plain_source = Some(source.into());
        self
    }

    /// Reads also messages that are plain JSON with a header for their type. The properties `message_id` and `type` count as
    /// headers `message-id` and `type` where there are none of these names.
    ///
    /// With [`plain`](Self::plain) too, messages without that header are read as there.
    #[must_use]
    pub fn plain_json(mut self, plain: PlainJson) -> Self {
        self.config.reading.plain_json = Some(plain);
        self
    }

    /// Sets how long a payload may be; a longer one is delivered as a message that cannot be read. 128 MiB unless set.
    #[must_use]
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.config.max_payload = bytes;
        self
    }

    /// Sets how long the server may take for one answer; 10 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.address.timeout = timeout;
        self
    }

    /// Trusts one more certificate authority, in PEM, besides the system's.
    #[must_use]
    pub fn trust(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.config.address.roots.push(pem.as_ref().to_vec());
        self
    }

    /// Checks everything that was configured. Opens no connection.
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    pub fn build(self) -> Result<Self, ConfigError> {
        self.config.dial()?;
        Ok(self)
    }

    /// Takes no further message: `next` gives `None`. What was sent ahead goes back to the queue; what was given out may
    /// still be answered for.
    pub fn close(&mut self) {
        self.state = State::Closed;
    }
}

impl Config {
    fn dial(&self) -> Result<Dial, ConfigError> {
        let mut faults = self.topology.faults();
        faults.extend(name_fault("queue", &self.queue));
        if self.prefetch == 0 {
            faults.push(ConfigFault::Range { what: "the prefetch", rule: "must be at least 1" });
        }
        match self.address.dial(&mut faults) {
            Some(dial) if faults.is_empty() => Ok(dial),
            _ => Err(ConfigError::new(faults)),
        }
    }

    /// Opens the subscription, more than once where the server stumbles: a quorum queue that somebody else is just declaring
    /// is there, but cannot be consumed from yet, and RabbitMQ closes the connection over it.
    async fn open(self) -> Result<Open, Failure> {
        for pause in UNTIL_A_LEADER {
            match self.try_open().await {
                Err(failure) if failure.stumbled => sleep(pause).await,
                other => return other,
            }
        }
        self.try_open().await
    }

    async fn try_open(&self) -> Result<Open, Failure> {
        let dial = self.dial().map_err(|error| Failure::unavailable(error.to_string()))?;
        let link = dial.connect().await?;
        self.topology.declare(&link).await?;
        let channel = link.channel().await?;
        let prefetch = channel.basic_qos(self.prefetch, BasicQosOptions::default());
        link.ask("set no prefetch", prefetch).await?;
        let queue = ShortString::try_new(self.queue.as_str())
            .map_err(|error| Failure::unavailable(error.to_string()))?;
        let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
        let consumer = channel.basic_consume(queue, tag, options, FieldTable::default());
        let consumer = link.ask("gives no messages", consumer).await?;
        Ok(Open { consumer, line: Arc::new(Wire { channel, _link: link, timeout: dial.timeout }) })
    }

    fn delivery(&self, received: lapin::message::Delivery, line: &Arc<Wire>) -> Delivery {
        let lapin::message::Delivery { exchange, redelivered, properties, data, acker, .. } =
            received;
        let body = Bytes::from(data);
        let message = if body.len() > self.max_payload {
            Err(format!("the message has {} bytes, of at most {}", body.len(), self.max_payload))
        } else {
            let now = Timestamp::from(wall_clock());
            headers::read(&self.reading, &properties, exchange.as_str(), body.clone(), now)
        };
        let handle = Unanswered { acker, line: line.clone() };
        let attempt = headers::attempt(&properties, redelivered, self.topology.counts(&self.queue));
        let is_read = message.is_ok();
        let delivery = Delivery::new(message, attempt, Box::new(handle));
        if is_read { delivery } else { delivery.with_raw(body) }
    }
}

#[async_trait]
impl Subscriber for AmqpSubscriber {
    fn check(&self) -> Result<(), SubscribeError> {
        self.config.dial().map(|_| ()).map_err(|error| SubscribeError(error.into()))
    }

    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        loop {
            match &mut self.state {
                State::Closed => return Ok(None),
                State::Idle => {
                    let (pause, config) = (self.pause, self.config.clone());
                    self.state = State::Opening(Box::pin(async move {
                        sleep(pause).await;
                        config.open().await
                    }));
                }
                State::Opening(opening) => match opening.await {
                    Ok(open) => self.state = State::Open(open),
                    Err(failure) => {
                        self.state = State::Idle;
                        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                        return Err(SubscribeError(failure.text.into()));
                    }
                },
                State::Open(open) => {
                    let lost = match quiet(open.consumer.next()).await {
                        Some(Ok(received)) => {
                            self.pause = Duration::ZERO;
                            return Ok(Some(self.config.delivery(received, &open.line)));
                        }
                        Some(Err(error)) => Failure::of(&error).text,
                        None => "the server cancelled the consumer: its queue was deleted or moved"
                            .to_owned(),
                    };
                    self.state = State::Idle;
                    self.pause = self.pause.max(FIRST_PAUSE);
                    return Err(SubscribeError(lost.into()));
                }
            }
        }
    }
}

struct Unanswered {
    acker: Acker,
    line: Arc<Wire>,
}

impl Unanswered {
    async fn answer(
        &self,
        answer: impl Future<Output = lapin::Result<bool>>,
    ) -> Result<(), SubscribeError> {
        match timeout(self.line.timeout, quiet(answer)).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(SubscribeError(
                "the channel was lost; the server delivers the message again".into(),
            )),
            Ok(Err(error)) => Err(SubscribeError(Failure::of(&error).text.into())),
            Err(_) => Err(SubscribeError(
                format!("the server took no answer within {:?}", self.line.timeout).into(),
            )),
        }
    }
}

#[async_trait]
impl Acknowledge for Unanswered {
    async fn ack(self: Box<Self>) -> Result<(), SubscribeError> {
        self.answer(self.acker.ack(BasicAckOptions::default())).await
    }

    async fn nack(self: Box<Self>, requeue: bool) -> Result<(), SubscribeError> {
        self.answer(self.acker.nack(BasicNackOptions { requeue, ..Default::default() })).await
    }

    /// The protocol has no place for a reason; it stands in the log.
    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError> {
        tracing::info!(reason, "a message was rejected");
        self.answer(self.acker.reject(BasicRejectOptions { requeue: false })).await
    }
}

impl Drop for Unanswered {
    /// Puts the message back, unless it was answered for.
    fn drop(&mut self) {
        if self.acker.usable() {
            let back = self.acker.nack(BACK);
            // The first poll hands it over; whether it was written is not waited for.
            let _ = quiet(back).now_or_never();
        }
    }
}
