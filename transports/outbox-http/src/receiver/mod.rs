//! A router to nest in an axum application, and the subscriber that it feeds.

mod bodies;
mod endpoint;
mod refusal;
mod reports;
mod webhook;

use crate::{
    config::{ConfigError, ConfigFault},
    signature::Secret,
    subscriber::HttpSubscriber,
};
use axum::{Router, routing::post};
use bodies::PendingBodies;
use endpoint::{AcceptRules, ReceiverState};
use outbox_core::transport::{cloudevents::PlainJson, printable};
use reports::RefusalReports;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Semaphore, mpsc};
use webhook::Webhook;

/// How far a timestamp may be from this host's clock: what most receivers of webhooks allow.
const TOLERANCE: Duration = Duration::from_secs(300);
/// Largest body: more than an event should have, and small enough to keep one in memory for every
/// request under way.
const MAX_BODY: usize = 3 * 512 * 1024;
/// Most headers of a request: all that hyper reads.
const MAX_HEADERS: usize = 100;
/// Most bytes of header names and values: what common servers take.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// How long a handler may take: less than this crate's publisher waits, so that it gets the
/// response.
const RESPOND_WITHIN: Duration = Duration::from_secs(8);
/// Requests handled at once; together with the largest body this bounds the memory they take.
const MAX_IN_FLIGHT: usize = 256;
/// When a sender should try again after a 503.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Receives signed CloudEvents by HTTP.
///
/// [`builder`](Self::builder) leads to a [`Router`] to serve or to nest, and the
/// [`Subscriber`](outbox_core::transport::Subscriber) that a consumer reads. The receiver responds
/// when the delivery has its ack decision, and never with 2xx before the `ack`.
///
/// | what happens | response |
/// | --- | --- |
/// | the delivery is acknowledged | 204 |
/// | the handler fails (`nack`, or the delivery is dropped) | 503 with `Retry-After` |
/// | the consumer cannot start a handler in time for the deadline | 503 with `Retry-After`, before the deadline, and no handler runs |
/// | the handler rejects | 422 with its reason |
/// | no ack decision within the deadline | 504 |
/// | too many requests are handled, or the subscriber is closed | 503 with `Retry-After` |
/// | the body is slow, and too many other bodies are pending | 503 with `Retry-After` |
/// | body or attributes unsigned or signed wrongly, or a timestamp too far away | 401 |
/// | body too large; headers too many or too large; body too slow | 413; 431; 408 |
/// | not binary or JSON, or compressed | 415 |
/// | attributes missing or unreadable, or `webhook-id` is not the event's `id` | 400 |
///
/// ```
/// # use outbox_http::{ConfigError, HttpReceiver, HttpSubscriber};
/// # use axum::Router;
/// # fn example(secret: &str, shop: Router) -> Result<(Router, HttpSubscriber), ConfigError> {
/// let (events, subscriber) = HttpReceiver::builder().path("/events").verify(secret).build()?;
/// let app = shop.merge(events); // beside the routes of the service
/// # Ok((app, subscriber)) }
/// ```
///
/// # Slow senders
/// The receiver refuses a request without signature headers before it reads the body. Where it has
/// to read the body to verify the sender, the pending body takes no permit of the verified
/// requests: the receiver waits for as many bodies as it may handle requests, up to 64 MiB together
/// and each until the deadline, and at the limit refuses the body whose sender has been idle the
/// longest. Only the server sees slow headers, silent connections and their number: give it a
/// timeout for headers (`header_read_timeout` of hyper; `axum::serve` has none) or put a proxy that
/// has one in front.
#[derive(Debug, Clone, Copy)]
pub struct HttpReceiver;

impl HttpReceiver {
    /// Begins a receiver. Either [`verify`](ReceiverBuilder::verify) or
    /// [`unsigned`](ReceiverBuilder::unsigned) must follow.
    pub fn builder() -> ReceiverBuilder {
        ReceiverBuilder {
            path: "/events".into(),
            unsigned: false,
            secrets_given: 0,
            faults: Vec::new(),
            max_in_flight: MAX_IN_FLIGHT,
            rules: AcceptRules {
                secrets: Vec::new(),
                tolerance: TOLERANCE,
                topic: None,
                plain_json: None,
                webhook: None,
                structured_only: false,
                max_body: MAX_BODY,
                max_headers: MAX_HEADERS,
                max_header_bytes: MAX_HEADER_BYTES,
                respond_within: RESPOND_WITHIN,
                retry_after: RETRY_AFTER,
            },
        }
    }
}

/// Configures what a receiver accepts and refuses.
///
/// ```
/// # use outbox_http::{ConfigError, HttpReceiver};
/// # use std::time::Duration;
/// # const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// let receiver = HttpReceiver::builder()
///     .path("/events")
///     .verify(SECRET)
///     .max_body(256 * 1024)
///     .respond_within(Duration::from_secs(5));
/// # receiver.build()?;
/// # Ok::<(), ConfigError>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing is received before `build`"]
pub struct ReceiverBuilder {
    path: String,
    unsigned: bool,
    secrets_given: usize,
    faults: Vec<ConfigFault>,
    max_in_flight: usize,
    rules: AcceptRules,
}

impl ReceiverBuilder {
    /// Sets the path of the route; `/events` unless set.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Accepts messages signed with the secret `whsec_...`. Called again, it accepts those signed
    /// with any of the secrets.
    ///
    /// ```
    /// # use outbox_http::{ConfigError, HttpReceiver};
    /// # const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    /// # const NEW: &str = "whsec_YW5vdGhlciBrZXkgb2YgMjQgYnl0ZXMu";
    /// let (router, subscriber) = HttpReceiver::builder().verify(OLD).verify(NEW).build()?;
    /// # let (_, _) = (router, subscriber);
    /// # Ok::<(), ConfigError>(())
    /// ```
    pub fn verify(mut self, secret: impl AsRef<str>) -> Self {
        self.secrets_given += 1;
        match Secret::parse(secret.as_ref()) {
            Ok(secret) => self.rules.secrets.push(secret),
            Err(problem) => {
                self.faults.push(ConfigFault::Secret { number: self.secrets_given, problem })
            }
        }
        self
    }

    /// Accepts every message from any sender. For tests, and for networks in which only trusted
    /// hosts reach this port.
    ///
    /// ```
    /// # use outbox_http::{ConfigError, HttpReceiver};
    /// let (router, subscriber) = HttpReceiver::builder().unsigned().build()?; // in a test
    /// # let (_, _) = (router, subscriber);
    /// # Ok::<(), ConfigError>(())
    /// ```
    pub fn unsigned(mut self) -> Self {
        self.unsigned = true;
        self
    }

    /// Sets how far a signed timestamp may be from this host's clock, both ways; 300 s unless set.
    pub fn tolerance(mut self, tolerance: Duration) -> Self {
        self.rules.tolerance = tolerance;
        self
    }

    /// Sets the topic of messages that name none; their event type unless set.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.rules.topic = Some(topic.into());
        self
    }

    /// Accepts the signed webhooks of one sender that is no outbox: every request whose body is
    /// signed after Standard Webhooks becomes an event of this type, from this source (a URI
    /// reference), with `webhook-id` for its identity. The receiver reads no other header, neither
    /// key nor version nor those of a saga, nor the content type: the body counts as JSON. It
    /// refuses events of an outbox with 415.
    ///
    /// Give each such sender a receiver and a secret of its own: under a shared secret, a request
    /// recorded at another receiver would pass as a webhook here.
    ///
    /// ```
    /// # use outbox_http::HttpReceiver;
    /// # const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    /// let receiver = HttpReceiver::builder().path("/billing").verify(SECRET).webhook("billing.webhook", "https://billing.example");
    /// # receiver.build()?;
    /// # Ok::<(), outbox_http::ConfigError>(())
    /// ```
    pub fn webhook(mut self, event_type: impl Into<String>, source: impl Into<String>) -> Self {
        self.rules.webhook = Some(Webhook { event_type: event_type.into(), source: source.into() });
        self
    }

    /// Also accepts unsigned requests that are plain JSON with a header for their type. The
    /// receiver reads only the headers that `plain` names: the others are HTTP's own, among them
    /// credentials.
    ///
    /// Together with [`verify`](Self::verify) it is a fault: no signature covers the headers of
    /// such a request, so that an attacker with a recorded request could change its type.
    /// [`webhook`](Self::webhook) accepts signed bodies.
    ///
    /// ```
    /// # use outbox_core::transport::cloudevents::PlainJson;
    /// # use outbox_http::{ConfigError, HttpReceiver};
    /// let legacy = PlainJson::new("x-event-type", "/legacy");
    /// let (router, subscriber) = HttpReceiver::builder().unsigned().plain_json(legacy).build()?;
    /// # let (_, _) = (router, subscriber);
    /// # Ok::<(), ConfigError>(())
    /// ```
    pub fn plain_json(mut self, plain: PlainJson) -> Self {
        self.rules.plain_json = Some(plain);
        self
    }

    /// Accepts structured mode only, in which every attribute is under the signature.
    pub fn structured_only(mut self) -> Self {
        self.rules.structured_only = true;
        self
    }

    /// Sets the largest body in bytes; 1.5 MiB unless set, which is enough for the largest payload
    /// of an outbox (960 KiB) in structured mode too.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.rules.max_body = bytes;
        self
    }

    /// Sets how many headers a request may have, and how many bytes their names and values may have
    /// together; 100 and 16 KiB unless set. The server's own limits (hyper: 100 headers) apply too.
    pub fn max_headers(mut self, count: usize, bytes: usize) -> Self {
        self.rules.max_headers = count;
        self.rules.max_header_bytes = bytes;
        self
    }

    /// Sets how long a request may take until its delivery has an ack decision; 8 s unless set.
    /// Keep it below the sender's timeout.
    pub fn respond_within(mut self, deadline: Duration) -> Self {
        self.rules.respond_within = deadline;
        self
    }

    /// Sets how many requests may be handled at once, and how many bodies may be pending besides;
    /// 256 unless set. The receiver responds with 503 to more: of the pending bodies, to the one
    /// whose sender has been idle the longest.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = requests;
        self
    }

    /// Sets the `Retry-After` of a 503, in whole seconds; 1 s unless set.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.rules.retry_after = wait;
        self
    }

    /// Builds the router and the subscriber.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong: a path or secret that cannot be read, neither
    /// or both of `verify` and `unsigned`, a limit of zero.
    pub fn build(self) -> Result<(Router, HttpSubscriber), ConfigError> {
        ConfigError::check(self.faults())?;
        // The channel has room for every request that has a permit.
        let (sender, receiver) = mpsc::channel(self.max_in_flight);
        let bodies = PendingBodies::new(self.max_in_flight, self.rules.max_body);
        let (permits, reports) =
            (Semaphore::new(self.max_in_flight), RefusalReports::new(&self.path, self.unsigned));
        let state = Arc::new(ReceiverState { rules: self.rules, bodies, permits, sender, reports });
        Ok((
            Router::new().route(&self.path, post(endpoint::receive)).with_state(state),
            HttpSubscriber(receiver),
        ))
    }

    fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = self.faults.clone();
        let is_legal = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
        if !self.path.starts_with('/') || !self.path.bytes().all(is_legal) {
            faults.push(ConfigFault::Path(printable(&self.path)));
        }
        match (self.secrets_given, self.unsigned) {
            (0, false) => faults.push(ConfigFault::Unverified),
            (1.., true) => faults.push(ConfigFault::Contradiction),
            _ => {}
        }
        let (rules, verifies) = (&self.rules, self.secrets_given > 0);
        for (what, wrong, rule) in [
            ("the largest body", rules.max_body == 0, "must be at least 1 byte"),
            ("the number of headers", rules.max_headers == 0, "must be at least 1"),
            ("the bytes of headers", rules.max_header_bytes == 0, "must be at least 1"),
            ("the time to respond", rules.respond_within.is_zero(), "must be longer than zero"),
            ("the number of requests", self.max_in_flight == 0, "must be at least 1"),
            ("the number of requests", self.max_in_flight > Semaphore::MAX_PERMITS, "is too large"),
            (
                "plain JSON",
                rules.structured_only && rules.plain_json.is_some(),
                "is not taken with structured_only",
            ),
            (
                "plain JSON",
                verifies && rules.plain_json.is_some(),
                "is not taken with verify; say what it is with webhook",
            ),
            ("the webhook", rules.webhook.is_some() && !verifies, "needs verify"),
            (
                "the webhook",
                rules.webhook.is_some() && rules.structured_only,
                "is not taken with structured_only",
            ),
            (
                "the webhook",
                rules.webhook.as_ref().is_some_and(Webhook::is_invalid),
                "has a type and a source of 1 to 255 bytes without control characters",
            ),
            (
                "the topic",
                rules.topic.as_ref().is_some_and(|t| t.is_empty() || t.len() > 255),
                "has 1 to 255 bytes",
            ),
        ] {
            if wrong {
                faults.push(ConfigFault::Range { what, rule });
            }
        }
        faults
    }
}
