//! The sending half: one PUBLISH of QoS 1 for each message, confirmed by the reason code of its
//! PUBACK.

use crate::{
    classify::{Failure, Loss},
    config::{ConfigError, TOPIC_RULE, client_fault, is_topic},
    connection::{Client, ConnectionSlot, ServerUrl},
    headers,
    session::{MAX_PACKET, Session, topic_of},
};
use async_trait::async_trait;
use futures_util::{StreamExt, stream::FuturesUnordered};
use outbox_core::{
    event::Message,
    runtime::now,
    transport::{Batch, Encoding, Limits, PublishError, Publisher, Receipt, TopicRule, printable},
};
use rumqttc::mqttbytes::{QoS, v5::Publish};
use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::RwLock;

type ChooseTopic = Arc<dyn Fn(&Message) -> String + Send + Sync>;

/// Publishes messages to an MQTT server.
///
/// A message is delivered when the server has confirmed it with a PUBACK whose reason code is a
/// success other than "no matching subscribers"; the [crate](crate) says what that is worth. The
/// publishes share one connection, and as many are without a confirmation as the server allows.
/// [`new`](Self::new) makes the publisher without a connection, and the methods that follow
/// configure it; [`build`](Self::build) reports every configuration fault at once. It connects at
/// the first publish, and again when the connection was lost.
///
/// ```
/// use outbox_mqtt::MqttPublisher;
/// let publisher = MqttPublisher::new("mqtt://127.0.0.1:1883")?
///     .topic(|message| format!("shop/{}", message.topic))
///     .build()?;
/// # let _ = publisher;
/// # Ok::<(), outbox_mqtt::ConfigError>(())
/// ```
pub struct MqttPublisher {
    config: Config,
    connection: OnceLock<Result<ConnectionSlot, ConfigError>>,
    /// Held by every publish, and by one that goes alone without any other.
    alone: RwLock<()>,
}

struct Config {
    server: ServerUrl,
    client: Client,
    /// `None` where a message's topic is the topic.
    topic: Option<ChooseTopic>,
    structured: bool,
    limits: Option<Limits>,
}

impl fmt::Debug for MqttPublisher {
    /// Shows where it publishes; neither user nor password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttPublisher")
            .field("destination", &self.config.server.destination())
            .field("structured", &self.config.structured)
            .finish_non_exhaustive()
    }
}

impl MqttPublisher {
    /// Makes a publisher for the server at a URL: `mqtt://user:password@host:port`, or `mqtts://`
    /// for TLS.
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such URL.
    pub fn new(url: impl AsRef<str>) -> Result<Self, ConfigError> {
        let config = Config {
            server: ServerUrl::parse(url.as_ref())?,
            client: Client::passing(),
            topic: None,
            structured: false,
            limits: None,
        };
        Ok(Self { config, connection: OnceLock::new(), alone: RwLock::default() })
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
        publisher.connection().map_err(unusable)?.acquire(now()).await?;
        Ok(publisher)
    }

    /// Sets the topic of a message at the server. Unless set it is the message's topic; the reply to
    /// a saga's command then has the topic that the saga has named (`reply_to`).
    ///
    /// A topic has 1 to 65,535 bytes without `+`, `#`, control characters and non-characters, and
    /// does not begin with `$`. Where the message's topic is used, an event with another topic is
    /// refused when it is emitted; otherwise a message with an illegal topic fails as permanent.
    #[must_use]
    pub fn topic(self, topic: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        self.with(|config| config.topic = Some(Arc::new(topic)))
    }

    /// Sets the client id, for servers that know their clients by it. Unless set, each publisher has
    /// one of its own, made when it is made: two that run at the same time must not have the same,
    /// since the server then ends the connection of the other.
    #[must_use]
    pub fn client_id(self, id: impl Into<String>) -> Self {
        self.with(|config| config.client.id = id.into())
    }

    /// Sends each message as one JSON object (`application/cloudevents+json`). Without this setting
    /// the publisher does so only for a message whose payload is itself a CloudEvent, and for one
    /// with an attribute that a user property cannot carry.
    #[must_use]
    pub fn structured(self) -> Self {
        self.with(|config| config.structured = true)
    }

    /// Sets how long the server may take for one reply: to accept the connection, to confirm a
    /// message that was sent; 10 s unless set. A message that is not sent yet because as many as
    /// the server allows are without a confirmation waits as long as the server confirms others.
    /// Keep it below the route's deadline.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.server.timeout = timeout)
    }

    /// Sets the keep alive in whole seconds, 1 to 65,535 s; 15 s unless set, and less where the
    /// server asks for less. The publisher pings a server that is silent for half of it, and gives
    /// the connection up after one and a half times as long.
    #[must_use]
    pub fn keep_alive(self, time: Duration) -> Self {
        self.with(|config| config.server.keep_alive = time)
    }

    /// Trusts one more certificate authority, in PEM, besides the system's.
    #[must_use]
    pub fn trust(self, pem: impl AsRef<[u8]>) -> Self {
        self.with(|config| config.server.roots.push(pem.as_ref().to_vec()))
    }

    /// Sets the limits that enqueue and relay apply. Unless set they are 268,435,455 bytes of
    /// payload and attributes, or what the server has announced once there is a connection, and
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

    fn connection(&self) -> Result<&ConnectionSlot, ConfigError> {
        self.connection.get_or_init(|| self.config.slot()).as_ref().map_err(Clone::clone)
    }

    /// Publishes one message. Where the connection is lost meanwhile, the message is published once
    /// more with no other beside it, unless it was sent and may not arrive twice: one message that
    /// ends its connection fails then, and those that were beside it are confirmed.
    async fn deliver(&self, message: &Message, once: bool) -> Result<Receipt, Failure> {
        let slot = self.connection().map_err(|error| Failure::unavailable(error.to_string()))?;
        let begun = now();
        let first = {
            let _beside_others = self.alone.read().await;
            self.send(slot.acquire(begun), message).await
        };
        let goes_again = |failure: &Failure| match failure.loss {
            Loss::Unsent => true,
            Loss::Abrupt | Loss::Refused | Loss::Unclear(_) => !once,
            Loss::None | Loss::Ended => false,
        };
        match first {
            Err(failure) if goes_again(&failure) => {
                let lost = now();
                let _alone = self.alone.write().await;
                let blameless = slot.acquire_blameless(lost);
                self.send(blameless, message).await.map_err(Failure::of_one_message)
            }
            outcome => outcome,
        }
    }

    async fn send(
        &self,
        session: impl Future<Output = Result<Arc<Session>, Failure>>,
        message: &Message,
    ) -> Result<Receipt, Failure> {
        let publish = self.config.encode(message)?;
        let session = session.await?;
        let topic = topic_of(&publish.topic);
        session.publish(publish).await?;
        Ok(Receipt::new().to(topic))
    }
}

/// Bytes of a packet beside the JSON object of structured mode: topic, properties and header.
const ENVELOPE: usize = 512;

#[async_trait]
impl Publisher for MqttPublisher {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        Ok(self.deliver(message, false).await?)
    }

    /// All messages are in flight at once, as far as the server allows, and each has its outcome as
    /// soon as it is confirmed.
    async fn publish_batch(&self, batch: &mut Batch) {
        let (messages, once) = (batch.messages(), batch.is_at_most_once());
        let deliver = |(index, message)| async move { (index, self.deliver(message, once).await) };
        let mut in_flight: FuturesUnordered<_> = messages.iter().enumerate().map(deliver).collect();
        while let Some((index, outcome)) = in_flight.next().await {
            batch.done(index, outcome.map_err(PublishError::from));
        }
    }

    fn limits(&self) -> Limits {
        let encoding = if self.config.structured { Encoding::Structured } else { Encoding::Record };
        let limits = self.config.limits.unwrap_or_else(|| {
            let known = self.connection().map(ConnectionSlot::max_packet);
            let envelope = if self.config.structured { ENVELOPE } else { 0 };
            Limits::default().max_message(known.unwrap_or(MAX_PACKET).saturating_sub(envelope))
        });
        let limits = limits.encoding(encoding);
        match self.config.topic {
            None => limits.topics(TopicRule::new(TOPIC_RULE, is_topic)),
            Some(_) => limits,
        }
    }

    fn timeout(&self) -> Option<Duration> {
        Some(self.config.server.timeout)
    }

    fn destination(&self) -> Option<String> {
        Some(self.config.server.destination())
    }

    fn system(&self) -> &'static str {
        "mqtt"
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
    fn slot(&self) -> Result<ConnectionSlot, ConfigError> {
        let mut faults: Vec<_> = client_fault(&self.client.id).into_iter().collect();
        match self.server.connector(&mut faults) {
            Some(connector) if faults.is_empty() => {
                Ok(ConnectionSlot::new(connector, self.client.clone()))
            }
            _ => Err(ConfigError::new(faults)),
        }
    }

    /// Encodes one message.
    fn encode(&self, message: &Message) -> Result<Publish, Failure> {
        let topic = match &self.topic {
            Some(topic) => topic(message),
            None => message.topic.clone(),
        };
        if !is_topic(&topic) {
            let topic = printable(&topic);
            return Err(Failure::permanent(format!("the topic `{topic}` {TOPIC_RULE}")));
        }
        let encoded = headers::write(message, self.structured);
        let publish = Publish::new(topic, QoS::AtLeastOnce, encoded.body, Some(encoded.properties));
        let limits = self.limits.unwrap_or_default();
        for (what, size, limit) in [
            ("payload", message.payload.len(), limits.max_payload),
            ("message", publish.size(), limits.max_message),
        ] {
            if let Some(limit) = limit.filter(|limit| size > *limit) {
                return Err(Failure::permanent(format!(
                    "the {what} has {size} bytes, of at most {limit}"
                )));
            }
        }
        Ok(publish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_core::testing::transport::full;

    fn publisher() -> MqttPublisher {
        MqttPublisher::new("mqtt://127.0.0.1").expect("a URL")
    }

    #[test]
    fn the_topic_is_the_messages_or_as_configured_and_a_wildcard_is_refused() {
        let topic = |publisher: MqttPublisher| {
            publisher.config.encode(&full()).map(|publish| publish.topic)
        };
        assert_eq!(topic(publisher()).expect("legal"), "orders");
        let prefixed = publisher().topic(|message| format!("shop/{}", message.topic));
        assert_eq!(topic(prefixed).expect("legal"), "shop/orders");
        let failure = topic(publisher().topic(|_| "a/+".into())).expect_err("a wildcard");
        assert!(failure.text.contains("the topic `a/+` must be a topic of MQTT"), "{failure:?}");
    }

    #[test]
    fn a_message_beyond_the_limits_is_refused_before_it_is_sent() {
        let refused = |limits: Limits| {
            publisher().with_limits(limits).config.encode(&full()).expect_err("too large").text
        };
        assert_eq!(
            refused(Limits::default().max_payload(5)),
            "the payload has 13 bytes, of at most 5"
        );
        assert!(refused(Limits::default().max_message(100)).ends_with("of at most 100"));
    }
}
