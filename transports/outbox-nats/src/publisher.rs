//! The sending half: messages to the streams of JetStream, each confirmed by the server.

use crate::{
    classify::Failure,
    config::{ConfigError, SUBJECT_RULE, is_subject},
    connection::{NatsConnection, Servers, SharedConnection},
    headers,
    topology::{self, Stream},
};
use async_nats::jetstream::message::PublishMessage;
use async_trait::async_trait;
use futures_util::{StreamExt, stream::FuturesUnordered};
use outbox_core::{
    event::Message,
    transport::{Batch, Encoding, Limits, PublishError, Publisher, Receipt, TopicRule},
};
use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::time::timeout;

type Subject = Arc<dyn Fn(&Message) -> String + Send + Sync>;

/// Publishes messages to JetStream.
///
/// A message is delivered when the server has confirmed it (PubAck): the stream that has its
/// subject has stored it, or has had it already. [`new`](Self::new) makes the publisher without a
/// connection, and the methods that follow configure it; [`build`](Self::build) reports every
/// configuration fault at once. It connects at the first publish, and again when the connection was
/// lost.
///
/// ```
/// use outbox_nats::{NatsPublisher, Stream};
/// let publisher = NatsPublisher::new("nats://127.0.0.1:4222")?
///     .declare([Stream::new("ORDERS").subject("orders").subject("orders.>")])
///     .build()?;
/// # let _ = publisher;
/// # Ok::<(), outbox_nats::ConfigError>(())
/// ```
pub struct NatsPublisher {
    config: Config,
    connection: OnceLock<Result<SharedConnection, ConfigError>>,
}

struct Config {
    servers: Servers,
    /// `None` where a message's topic is its subject.
    subject: Option<Subject>,
    structured: bool,
    streams: Vec<Stream>,
    limits: Option<Limits>,
}

impl fmt::Debug for NatsPublisher {
    /// Shows where it publishes; neither user nor password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsPublisher")
            .field("destination", &self.config.servers.destination())
            .field("structured", &self.config.structured)
            .finish_non_exhaustive()
    }
}

impl NatsPublisher {
    /// Makes a publisher for the server at a URL: `nats://user:password@host:port`,
    /// `nats://token@host:port`, or `tls://` for TLS. Several servers of a cluster stand behind one
    /// another with commas. A server that asks for TLS gets it under `nats://` too.
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such URL.
    pub fn new(url: impl AsRef<str>) -> Result<Self, ConfigError> {
        let config = Config {
            servers: Servers::parse(url.as_ref())?,
            subject: None,
            structured: false,
            streams: Vec::new(),
            limits: None,
        };
        Ok(Self { config, connection: OnceLock::new() })
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
        publisher.connection().map_err(unusable)?.get().await?;
        Ok(publisher)
    }

    /// Sets the subject of a message. Unless set it is the message's topic; the reply to a saga's
    /// command then has the topic that the saga has named (`reply_to`).
    ///
    /// A subject has words with `.` between them, none of them empty, without spaces, `*` and `>`,
    /// and does not begin with `$`. Where the topic is the subject, an event with another topic is
    /// refused when it is emitted; otherwise a message with an illegal subject fails as permanent.
    #[must_use]
    pub fn subject(self, subject: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        self.with(|config| config.subject = Some(Arc::new(subject)))
    }

    /// Declares streams at each new connection. One that exists with other settings stays as it
    /// is, and publishing fails as unavailable with an error that names the difference.
    #[must_use]
    pub fn declare(self, streams: impl IntoIterator<Item = Stream>) -> Self {
        self.with(|config| config.streams = streams.into_iter().collect())
    }

    /// Sends each message as one JSON object (`application/cloudevents+json`). Without this setting
    /// the publisher does so only for a message whose payload is itself a CloudEvent.
    #[must_use]
    pub fn structured(self) -> Self {
        self.with(|config| config.structured = true)
    }

    /// Sets how long the server may take for one reply: to accept the connection, to confirm a
    /// message; 10 s unless set.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.servers.timeout = timeout)
    }

    /// Trusts one more certificate authority, in PEM, besides the system's.
    #[must_use]
    pub fn trust(self, pem: impl AsRef<[u8]>) -> Self {
        self.with(|config| config.servers.roots.push(pem.as_ref().to_vec()))
    }

    /// Logs in with the text of a `.creds` file: a user's JWT with its key.
    #[must_use]
    pub fn credentials(self, text: impl Into<String>) -> Self {
        self.with(|config| config.servers.credentials = Some(text.into()))
    }

    /// Sets the limits that enqueue and relay apply. Unless set they are 1 MiB of payload and
    /// headers, or what the server has announced (`max_payload`) once there is a connection, and
    /// four batches of 256. What the server has announced is checked at each publish in any case.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        self.with(|config| config.limits = Some(limits))
    }

    /// Checks the configuration. Opens no connection.
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    pub fn build(self) -> Result<Self, ConfigError> {
        self.connection()?;
        Ok(self)
    }

    /// Changes the configuration and drops the connection that was made from the former one.
    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self.connection = OnceLock::new();
        self
    }

    fn connection(&self) -> Result<&SharedConnection, ConfigError> {
        self.connection.get_or_init(|| self.config.connection()).as_ref().map_err(Clone::clone)
    }

    async fn connected(&self) -> Result<Arc<NatsConnection>, Failure> {
        let shared = self.connection().map_err(|error| Failure::unavailable(error.to_string()))?;
        shared.get().await
    }

    /// Publishes one message and waits for its confirmation.
    async fn send(
        &self,
        connection: &NatsConnection,
        message: &Message,
    ) -> Result<Receipt, Failure> {
        let subject = self.config.subject_of(message)?;
        let encoded = headers::write(message, self.config.structured).map_err(|attribute| {
            Failure::permanent(format!("no header can carry the attribute `{attribute}`"))
        })?;
        self.config.check_size(message, encoded.size, connection.max_payload())?;
        let (denials, within) = (connection.denials(), connection.timeout);
        let publish = PublishMessage::build().headers(encoded.headers).payload(encoded.body);
        let confirmed = async {
            // The first await sends the message, the second one waits for its PubAck.
            connection.context.send_publish(subject.clone(), publish).await?.await
        };
        tokio::select! {
            biased;
            confirmed = timeout(within, confirmed) => match confirmed {
                Ok(Ok(ack)) => {
                    Ok(Receipt::new().to(ack.stream).at(ack.sequence).duplicate(ack.duplicate))
                }
                Ok(Err(error)) => Err(Failure::from_publish(&error, &subject, within)),
                Err(_) => Err(Failure::not_confirmed(within)),
            },
            failure = connection.denied(&subject, denials) => Err(failure),
            failure = connection.lost() => Err(failure),
        }
    }
}

#[async_trait]
impl Publisher for NatsPublisher {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let connection = self.connected().await?;
        Ok(self.send(&connection, message).await?)
    }

    /// All messages are in flight at once, and each has its outcome as soon as the server has
    /// replied.
    async fn publish_batch(&self, batch: &mut Batch) {
        let messages = batch.messages();
        if messages.is_empty() {
            return;
        }
        let connection = match self.connected().await {
            Ok(connection) => connection,
            Err(failure) => return batch.rest(|| Err(failure.clone().into())),
        };
        let send = async |index: usize| (index, self.send(&connection, &messages[index]).await);
        let mut in_flight: FuturesUnordered<_> = (0..messages.len()).map(send).collect();
        while let Some((index, outcome)) = in_flight.next().await {
            batch.done(index, outcome.map_err(PublishError::from));
        }
    }

    fn limits(&self) -> Limits {
        let encoding = if self.config.structured { Encoding::Structured } else { Encoding::Record };
        let limits = self.config.limits.unwrap_or_else(|| {
            let known = self.connection().map(SharedConnection::max_payload);
            known.map_or_else(|_| Limits::default(), |bytes| Limits::default().max_message(bytes))
        });
        let limits = limits.encoding(encoding);
        match self.config.subject {
            None => limits.topics(TopicRule::new(SUBJECT_RULE, is_subject)),
            Some(_) => limits,
        }
    }

    fn timeout(&self) -> Option<Duration> {
        Some(self.config.servers.timeout)
    }

    fn destination(&self) -> Option<String> {
        Some(self.config.servers.destination())
    }

    fn check(&self) -> Result<(), PublishError> {
        self.connection().map(|_| ()).map_err(|error| PublishError::permanent(error.to_string()))
    }
}

impl Config {
    /// Checks the configuration and makes the connection, which opens at its first use.
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    fn connection(&self) -> Result<SharedConnection, ConfigError> {
        let mut faults = topology::faults(&self.streams);
        match self.servers.connector(&mut faults) {
            Some(connector) if faults.is_empty() => {
                Ok(SharedConnection::new(connector, self.streams.clone()))
            }
            _ => Err(ConfigError::new(faults)),
        }
    }

    fn subject_of(&self, message: &Message) -> Result<String, Failure> {
        let subject = match &self.subject {
            Some(subject) => subject(message),
            None => message.topic.clone(),
        };
        if is_subject(&subject) { Ok(subject) } else { Err(Failure::not_a_subject(&subject)) }
    }

    /// Checks a message against the limits that are configured and the one that the server has
    /// announced. `size` counts headers too.
    fn check_size(&self, message: &Message, size: usize, announced: usize) -> Result<(), Failure> {
        let limits = self.limits.unwrap_or_default();
        let (payload, most) = (message.payload.len(), limits.max_payload.unwrap_or(usize::MAX));
        if payload > most {
            return Err(Failure::permanent(format!(
                "the payload has {payload} bytes, of at most {most}"
            )));
        }
        let limit = limits.max_message.unwrap_or(usize::MAX).min(announced);
        if size > limit { Err(Failure::too_large(size, limit)) } else { Ok(()) }
    }
}
