//! The receiving half: a session that the server keeps, acknowledged after ack decisions.

use crate::{
    classify::{Failure, Loss},
    config::{ConfigError, ConfigFault, client_fault, filter_fault, group_fault, topic_fault},
    connection::{Client, Connector, ServerUrl},
    headers::ReadOptions,
    session::{
        AckHandle, AckRules, Carried, Inbound, InboundOptions, MAX_PACKET, Received, Session,
    },
};
use async_trait::async_trait;
use futures_util::{FutureExt, future::BoxFuture};
use outbox_core::{
    runtime::now,
    transport::{Delivery, SubscribeError, Subscriber, cloudevents::PlainJson, printable},
};
use rumqttc::mqttbytes::{
    QoS,
    v5::{RetainForwardRule, SubscribeFilter},
};
use std::{
    collections::BTreeSet,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// Messages that the server may send before it waits for acknowledgements, unless set: enough to
/// keep a consumer busy, and few enough to come again after a crash.
const RECEIVE_MAXIMUM: u16 = 128;
/// A session that the server keeps for ever, as the protocol says it.
const NEVER_EXPIRES: u32 = u32::MAX;
/// First wait before connecting again; it doubles.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// Longest such wait: how late the subscriber notices a recovery at worst.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// A connection that held for so long was no quarrel of two clients about one id, in which each
/// ends the connection of the other.
const HELD: Duration = Duration::from_secs(10);

/// Receives the messages of topics over a session that the server keeps under a client id.
///
/// Of messages with the same key one is in flight at a time, in the order of their arrival; messages
/// of other keys are in flight beside it. `ack` acknowledges a message (PUBACK). `nack(true)` and a
/// delivery that is dropped return it: it stays unacknowledged at the server, and this subscriber
/// delivers it again from memory before any later one of its key. `reject` and `nack(false)` publish
/// it to the topic of dead letters, if there is one ([`dead_letters`](Self::dead_letters)), and
/// acknowledge it; without one they acknowledge it with a warning in the log.
///
/// When the connection is lost, `next` fails once for each attempt to connect; the server sends all
/// unacknowledged messages again to the next connection.
///
/// ```
/// use outbox_mqtt::MqttSubscriber;
/// let subscriber = MqttSubscriber::new("mqtt://127.0.0.1:1883", "billing-1")?
///     .topic("orders/#")
///     .dead_letters("billing/dead")
///     .build()?;
/// # let _ = subscriber;
/// # Ok::<(), outbox_mqtt::ConfigError>(())
/// ```
pub struct MqttSubscriber {
    config: Config,
    state: State,
    backoff: Duration,
    /// Whether there was a connection: the server should know the session then.
    was_connected: bool,
    carried: Carried,
}

#[derive(Clone)]
struct Config {
    server: ServerUrl,
    client: Client,
    filters: Vec<String>,
    /// The group of a shared subscription.
    group: Option<String>,
    inbound: InboundOptions,
    dead_letter_topic: Option<Arc<str>>,
    nack_delay: Duration,
}

/// A connection with the messages that came over it.
struct Open {
    session: Arc<Session>,
    inbound: Arc<Inbound>,
    since: Instant,
}

enum State {
    Idle,
    Opening(BoxFuture<'static, Result<Open, Failure>>),
    Open(Open),
    Closed,
}

impl fmt::Debug for MqttSubscriber {
    /// Shows what it receives; neither user nor password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttSubscriber")
            .field("destination", &self.config.server.destination())
            .field("client_id", &self.config.client.id)
            .field("topics", &self.config.filters)
            .field("group", &self.config.group)
            .finish_non_exhaustive()
    }
}

impl MqttSubscriber {
    /// Makes a subscriber for the server at a URL: `mqtt://user:password@host:port`, or `mqtts://`
    /// for TLS. It connects at the first call of `next`. Name the topics with
    /// [`topic`](Self::topic).
    ///
    /// The server keeps its messages under the client id: a process that comes back has to have the
    /// id that it had, and no two that run at the same time may have the same.
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such URL.
    pub fn new(url: impl AsRef<str>, client_id: impl Into<String>) -> Result<Self, ConfigError> {
        let config = Config {
            server: ServerUrl::parse(url.as_ref())?,
            client: Client {
                id: client_id.into(),
                session_expiry: Some(NEVER_EXPIRES),
                receive_maximum: Some(RECEIVE_MAXIMUM),
            },
            filters: Vec::new(),
            group: None,
            inbound: InboundOptions {
                read: ReadOptions::default(),
                max_payload: MAX_PACKET,
                in_order: true,
            },
            dead_letter_topic: None,
            nack_delay: Duration::ZERO,
        };
        Ok(Self {
            config,
            state: State::Idle,
            backoff: Duration::ZERO,
            was_connected: false,
            carried: Carried::new(),
        })
    }

    /// Subscribes to one more topic, or to several: `+` stands for one level, `#` for all levels at
    /// the end.
    #[must_use]
    pub fn topic(mut self, filter: impl Into<String>) -> Self {
        self.config.filters.push(filter.into());
        self
    }

    /// Shares the subscription with all subscribers of a group (`$share/group/topic`): each message
    /// goes to one of them. The order of a key then holds within one member only, and what the
    /// server has given to a member waits for that member: the [crate](crate) says more.
    #[must_use]
    pub fn share(mut self, group: impl Into<String>) -> Self {
        self.config.group = Some(group.into());
        self
    }

    /// Sets how long the server keeps the session, and with it the messages, while there is no
    /// connection, in whole seconds from 1 s; for ever unless set. Afterwards the messages are lost.
    #[must_use]
    pub fn session_expiry(mut self, time: Duration) -> Self {
        let seconds = u32::try_from(time.as_secs()).unwrap_or(NEVER_EXPIRES);
        self.config.client.session_expiry = Some(seconds);
        self
    }

    /// Sets how many messages the server may send before it waits for acknowledgements, from 1; 128
    /// unless set. While 32 MiB of them are not handled, 1 KiB beside each counted, nothing more is
    /// read: of QoS 0 the server sends any number.
    #[must_use]
    pub fn receive_maximum(mut self, messages: u16) -> Self {
        self.config.client.receive_maximum = Some(messages);
        self
    }

    /// Acknowledges each message as soon as it is handled. Unless set, acknowledgements keep the
    /// order of arrival, as the standard says: a message that takes long then holds back the
    /// acknowledgements of later ones, and when [`receive_maximum`](Self::receive_maximum) of them
    /// wait, the server sends nothing more. Mosquitto takes acknowledgements in any order.
    #[must_use]
    pub fn acknowledge_out_of_order(mut self) -> Self {
        self.config.inbound.in_order = false;
        self
    }

    /// Sets after which time a returned message is delivered again; at once unless set. Later
    /// messages of its key wait behind it.
    #[must_use]
    pub fn nack_delay(mut self, delay: Duration) -> Self {
        self.config.nack_delay = delay;
        self
    }

    /// Publishes rejected messages to a topic, as they came, with user properties for the cause
    /// (`dead_topic`, `dead_client`, `dead_class`, `dead_message`;
    /// [`MqttDeadMessage::of`](crate::MqttDeadMessage::of) reads them). The original is acknowledged when
    /// the server has confirmed the letter; where nothing subscribes to the topic, it is returned.
    #[must_use]
    pub fn dead_letters(mut self, topic: impl Into<String>) -> Self {
        self.config.dead_letter_topic = Some(topic.into().into());
        self
    }

    /// Reads messages without attributes of CloudEvents as plain JSON whose type stands in a user
    /// property.
    #[must_use]
    pub fn plain_json(mut self, plain: PlainJson) -> Self {
        self.config.inbound.read.plain_json = Some(plain);
        self
    }

    /// Sets the largest payload in bytes; a larger one is delivered as a message that cannot be
    /// read. 268,435,455 bytes unless set.
    #[must_use]
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.config.inbound.max_payload = bytes;
        self
    }

    /// Sets how long the server may take for one reply; 10 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.server.timeout = timeout;
        self
    }

    /// Sets the keep alive in whole seconds, 1 to 65,535 s; 15 s unless set, and less where the
    /// server asks for less. The subscriber pings a server that is silent for half of it, and gives
    /// the connection up after one and a half times as long.
    #[must_use]
    pub fn keep_alive(mut self, time: Duration) -> Self {
        self.config.server.keep_alive = time;
        self
    }

    /// Trusts one more certificate authority, in PEM, besides the system's.
    #[must_use]
    pub fn trust(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.config.server.roots.push(pem.as_ref().to_vec());
        self
    }

    /// Connects and subscribes, where that is not done: the server keeps what is published from then
    /// on. For a start that has to come before the first message; `next` does it too.
    ///
    /// # Errors
    /// [`SubscribeError`] when the server does not accept the connection or refuses a subscription.
    ///
    /// # Cancel safety
    /// The next call goes on where a dropped one stopped.
    pub async fn connect(&mut self) -> Result<(), SubscribeError> {
        loop {
            match &mut self.state {
                State::Closed | State::Open(_) => return Ok(()),
                State::Idle => {
                    let connector =
                        self.config.connector().map_err(|error| SubscribeError(error.into()))?;
                    self.state = State::Opening(self.open(connector));
                }
                State::Opening(opening) => match opening.await {
                    Ok(open) => {
                        self.was_connected = true;
                        self.carried.clear();
                        self.state = State::Open(open);
                    }
                    Err(failure) => {
                        self.state = State::Idle;
                        return Err(self.lost(failure));
                    }
                },
            }
        }
    }

    /// Checks the configuration. Opens no connection.
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    pub fn build(self) -> Result<Self, ConfigError> {
        self.config.connector()?;
        Ok(self)
    }

    /// Stops receiving: `next` gives `None`. The server keeps what was not acknowledged; deliveries
    /// in flight may still be.
    pub fn stop(&mut self) {
        self.state = State::Closed;
    }

    /// Begins to open a connection, after a wait where the last one was lost.
    fn open(&self, connector: Connector) -> BoxFuture<'static, Result<Open, Failure>> {
        let (config, wait) = (self.config.clone(), self.backoff);
        let carried = self.carried.clone();
        let was_connected = self.was_connected;
        async move {
            sleep(wait).await;
            config.open(&connector, carried, was_connected).await
        }
        .boxed()
    }

    /// Notes a failure, and how long to wait before the next attempt.
    fn lost(&mut self, failure: Failure) -> SubscribeError {
        self.backoff = (self.backoff * 2).clamp(MIN_BACKOFF, MAX_BACKOFF);
        // A server need not say why it ends a connection, and Mosquitto does not.
        let text = match failure.loss {
            Loss::Abrupt => format!(
                "{}; where this happens again and again, another client has the client id `{}`: give each one its own",
                failure.text,
                printable(&self.config.client.id)
            ),
            _ => failure.text,
        };
        SubscribeError(text.into())
    }
}

impl Config {
    fn connector(&self) -> Result<Connector, ConfigError> {
        let mut faults: Vec<ConfigFault> = client_fault(&self.client.id).into_iter().collect();
        faults.extend(self.filters.iter().filter_map(|filter| filter_fault(filter)));
        faults.extend(self.group.as_deref().and_then(group_fault));
        let dead = self.dead_letter_topic.as_deref();
        faults.extend(dead.and_then(|topic| topic_fault("topic of dead letters", topic)));
        let mut seen = BTreeSet::new();
        let twice = self.filters.iter().filter(|filter| !seen.insert(filter.as_str()));
        faults.extend(twice.map(|filter| ConfigFault::Twice(printable(filter))));
        if self.filters.is_empty() {
            faults.push(ConfigFault::NoTopic);
        }
        if self.client.receive_maximum == Some(0) {
            let (what, rule) = ("the receive maximum", "must be at least 1");
            faults.push(ConfigFault::Range { what, rule });
        }
        if self.client.session_expiry == Some(0) {
            let (what, rule) = ("the session expiry", "must be at least 1 s");
            faults.push(ConfigFault::Range { what, rule });
        }
        match self.server.connector(&mut faults) {
            Some(connector) if faults.is_empty() => Ok(connector),
            _ => Err(ConfigError::new(faults)),
        }
    }

    /// Connects and subscribes. The subscription is made at every connection, also where the server
    /// has kept the session: it may be one with other topics.
    async fn open(
        &self,
        connector: &Connector,
        carried: Carried,
        was_connected: bool,
    ) -> Result<Open, Failure> {
        let inbound = Arc::new(Inbound::new(self.inbound.clone(), carried));
        let session = connector.connect(&self.client, Some(inbound.clone())).await?;
        if was_connected && !session.announced.session_present {
            tracing::warn!(
                client = self.client.id,
                "the server has forgotten the session: messages since the connection was lost may be gone"
            );
        }
        let asked = self.client.session_expiry.unwrap_or_default();
        if let Some(granted) = session.announced.session_expiry.filter(|granted| *granted < asked) {
            tracing::warn!(
                client = self.client.id,
                seconds = granted,
                "the server keeps sessions for less time than was asked for"
            );
        }
        session
            .subscribe(self.filters.iter().map(|filter| self.subscription(filter)).collect())
            .await?;
        Ok(Open { session: Arc::new(session), inbound, since: now() })
    }

    fn subscription(&self, filter: &str) -> SubscribeFilter {
        let path = match &self.group {
            Some(group) => format!("$share/{group}/{filter}"),
            None => filter.to_owned(),
        };
        let mut subscription = SubscribeFilter::new(path, QoS::AtLeastOnce);
        // Else each connection would bring the retained messages again.
        subscription.retain_forward_rule = RetainForwardRule::OnNewSubscribe;
        subscription
    }

    fn delivery(&self, open: &Open, (tag, received): (u64, Received)) -> Delivery {
        let Received { message, unread } = received;
        let raw = message.is_err().then(|| unread.payload.clone());
        let handle = AckHandle {
            tag: Some(tag),
            unread,
            inbound: open.inbound.clone(),
            session: open.session.clone(),
            rules: AckRules {
                dead_letter_topic: self.dead_letter_topic.clone(),
                nack_delay: self.nack_delay,
                client: self.client.id.as_str().into(),
            },
        };
        // The server marks a repeat and does not count.
        let delivery = Delivery::new(message, None, Box::new(handle));
        match raw {
            Some(bytes) => delivery.with_raw(bytes),
            None => delivery,
        }
    }
}

#[async_trait]
impl Subscriber for MqttSubscriber {
    fn check(&self) -> Result<(), SubscribeError> {
        self.config.connector().map(|_| ()).map_err(|error| SubscribeError(error.into()))
    }

    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        self.connect().await?;
        let State::Open(open) = &self.state else { return Ok(None) };
        match open.inbound.next().await {
            Ok(next) => Ok(Some(self.config.delivery(open, next))),
            Err(failure) => {
                if now().saturating_duration_since(open.since) >= HELD {
                    self.backoff = Duration::ZERO;
                }
                self.carried = open.inbound.take_handled();
                self.state = State::Idle;
                Err(self.lost(failure))
            }
        }
    }

    fn system(&self) -> &'static str {
        "mqtt"
    }

    async fn close(&mut self) {
        if let State::Open(open) = std::mem::replace(&mut self.state, State::Closed) {
            open.session.close().await;
        }
    }
}
