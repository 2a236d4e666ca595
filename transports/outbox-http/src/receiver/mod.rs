//! A router to nest in an axum application, and the subscriber that it feeds.

mod bodies;
mod desk;
mod refusal;
mod reports;
mod webhook;

use crate::{
    config::{ConfigError, ConfigFault},
    signature::Secret,
    subscriber::HttpSubscriber,
};
use axum::{Router, routing::post};
use bodies::Bodies;
use desk::{Desk, Rules};
use outbox_core::transport::cloudevents::PlainJson;
use reports::RefusalReports;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Semaphore, mpsc};
use webhook::Webhook;

/// How far a timestamp may be from this host's clock, as most senders of webhooks have it.
const TOLERANCE: Duration = Duration::from_secs(300);
/// Largest body: more than events should have, little enough to hold one for every request under way.
const MAX_BODY: usize = 3 * 512 * 1024;
/// Most headers of a request: all that hyper reads.
const MAX_HEADERS: usize = 100;
/// Most bytes of header names and values: what common servers take.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// How long a handler may take: less than our publisher waits, so that it hears of it.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// Requests handled at once; with the largest body this bounds the memory they take.
const MAX_IN_FLIGHT: usize = 256;
/// When a sender should try again after a 503.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Receives signed CloudEvents by HTTP.
///
/// [`builder`](Self::builder) leads to a [`Router`] to serve or to nest, and the
/// [`Subscriber`](outbox_core::transport::Subscriber) that a consumer reads. A request is answered when the delivery is:
/// never with 2xx before the `ack`.
///
/// | what happens | answer |
/// | --- | --- |
/// | the delivery is acknowledged | 204 |
/// | the handler fails (`nack`, or the delivery is dropped) | 503 with `Retry-After` |
/// | its turn would come too late to be answered within the deadline | 503 with `Retry-After`, before the deadline, and no handler runs |
/// | the handler rejects | 422 with its reason |
/// | no answer within the deadline | 504 |
/// | too many requests are handled, or the subscriber is closed | 503 with `Retry-After` |
/// | the body is slow, and too many others are waited for | 503 with `Retry-After` |
/// | body or attributes unsigned or signed wrongly, or a timestamp too far away | 401 |
/// | body too large; headers too many or too large; body too slow | 413; 431; 408 |
/// | not binary or JSON, or compressed | 415 |
/// | attributes missing or unreadable, or `webhook-id` is not the event's `id` | 400 |
///
/// # Slow senders
/// A request without the headers of a signature is refused before its body is read. Where the body has to be read to know
/// its sender, that takes nothing of what signed requests are handled with: as many bodies as may be handled are waited for,
/// with 64 MiB together, each until the deadline, and where there are more, those are refused of which nothing has come for longest. Headers
/// that trickle, connections that say nothing, and their number are seen by the server only: give it a timeout for headers
/// (`header_read_timeout` of hyper; `axum::serve` has none) or put a proxy that has one in front.
#[derive(Debug, Clone, Copy)]
pub struct HttpReceiver;

impl HttpReceiver {
    /// Begins a receiver. Either [`verify`](ReceiverBuilder::verify) or [`unsigned`](ReceiverBuilder::unsigned) must follow.
    pub fn builder() -> ReceiverBuilder {
        ReceiverBuilder {
            path: "/events".into(),
            unsigned: false,
            verifications: 0,
            faults: Vec::new(),
            max_in_flight: MAX_IN_FLIGHT,
            rules: Rules {
                secrets: Vec::new(),
                tolerance: TOLERANCE,
                topic: None,
                plain_json: None,
                webhook: None,
                structured_only: false,
                max_body: MAX_BODY,
                max_headers: MAX_HEADERS,
                max_header_bytes: MAX_HEADER_BYTES,
                answer_within: ANSWER_WITHIN,
                retry_after: RETRY_AFTER,
            },
        }
    }
}

/// Says what a receiver takes and refuses.
#[derive(Debug)]
#[must_use = "nothing is received before `build`"]
pub struct ReceiverBuilder {
    path: String,
    unsigned: bool,
    verifications: usize,
    faults: Vec<ConfigFault>,
    max_in_flight: usize,
    rules: Rules,
}

impl ReceiverBuilder {
    /// Sets the path of the route; `/events` unless set.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Takes messages signed with the secret `whsec_...`. Called again, it takes those signed with any of them.
    pub fn verify(mut self, secret: impl AsRef<str>) -> Self {
        self.verifications += 1;
        match Secret::parse(secret.as_ref()) {
            Ok(secret) => self.rules.secrets.push(secret),
            Err(problem) => {
                self.faults.push(ConfigFault::Secret { number: self.verifications, problem })
            }
        }
        self
    }

    /// Takes every message, from whomever. For tests, and for networks in which nobody else can reach this port.
    pub fn unsigned(mut self) -> Self {
        self.unsigned = true;
        self
    }

    /// Sets how far a signed timestamp may be from this host's clock, both ways; 300 s unless set.
    pub fn tolerance(mut self, tolerance: Duration) -> Self {
        self.rules.tolerance = tolerance;
        self
    }

    /// Sets the topic of messages that do not name one; their event type unless set.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.rules.topic = Some(topic.into());
        self
    }

    /// Takes the signed webhooks of one sender that is no outbox: every request whose body is signed as Standard Webhooks says is
    /// an event of this type, from this source (a URI reference), with `webhook-id` for its identity. Of the headers nothing else
    /// is read, neither key nor version nor those of a saga, nor the content type: the body counts as JSON. Events of an outbox
    /// are refused with 415.
    ///
    /// Give each such sender a receiver and a secret of its own: under a shared one, a recorded request to another receiver would
    /// be a webhook here.
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

    /// Takes also unsigned requests that are plain JSON with a header for their type. Of their headers only those that `plain`
    /// names are read: the others are HTTP's, among them credentials.
    ///
    /// Together with [`verify`](Self::verify) it is a fault: headers of such a request are under no signature, so that whoever
    /// has recorded one could change its type. [`webhook`](Self::webhook) takes signed bodies.
    pub fn plain_json(mut self, plain: PlainJson) -> Self {
        self.rules.plain_json = Some(plain);
        self
    }

    /// Takes structured mode only, in which every attribute is under the signature.
    pub fn structured_only(mut self) -> Self {
        self.rules.structured_only = true;
        self
    }

    /// Sets the largest body in bytes; 1.5 MiB unless set, which takes what an outbox saves (960 KiB of payload) in
    /// structured mode too.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.rules.max_body = bytes;
        self
    }

    /// Sets how many headers a request may have, and how many bytes their names and values may have together; 100 and 16 KiB
    /// unless set. The server's own limits, for hyper 100 headers, hold besides.
    pub fn max_headers(mut self, count: usize, bytes: usize) -> Self {
        self.rules.max_headers = count;
        self.rules.max_header_bytes = bytes;
        self
    }

    /// Sets how long a request may take until its delivery is answered; 8 s unless set. Keep it below the sender's timeout.
    pub fn answer_within(mut self, deadline: Duration) -> Self {
        self.rules.answer_within = deadline;
        self
    }

    /// Sets how many requests may be handled at once, and of how many the bodies may be waited for besides; 256 unless set.
    /// More are refused with 503: of the bodies those that were waited for longest.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = requests;
        self
    }

    /// Sets what a 503 asks the sender to wait, in whole seconds; 1 s unless set.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.rules.retry_after = wait;
        self
    }

    /// Makes the router and the subscriber.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong: a path or secret that cannot be read, neither or both of `verify` and
    /// `unsigned`, a limit of zero.
    pub fn build(self) -> Result<(Router, HttpSubscriber), ConfigError> {
        ConfigError::check(self.faults())?;
        // Every request that holds a permit has its place in the channel.
        let (sender, receiver) = mpsc::channel(self.max_in_flight);
        let bodies = Bodies::new(self.max_in_flight, self.rules.max_body);
        let (permits, reports) =
            (Semaphore::new(self.max_in_flight), RefusalReports::new(&self.path, self.unsigned));
        let desk = Arc::new(Desk { rules: self.rules, bodies, permits, sender, reports });
        Ok((
            Router::new().route(&self.path, post(desk::receive)).with_state(desk),
            HttpSubscriber(receiver),
        ))
    }

    fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = self.faults.clone();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
        if !self.path.starts_with('/') || !self.path.bytes().all(plain) {
            faults.push(ConfigFault::Path(
                self.path.chars().filter(|c| !c.is_control()).take(64).collect(),
            ));
        }
        match (self.verifications, self.unsigned) {
            (0, false) => faults.push(ConfigFault::Unverified),
            (1.., true) => faults.push(ConfigFault::Contradiction),
            _ => {}
        }
        let (rules, verifies) = (&self.rules, self.verifications > 0);
        for (what, wrong, rule) in [
            ("the largest body", rules.max_body == 0, "must be at least 1 byte"),
            ("the number of headers", rules.max_headers == 0, "must be at least 1"),
            ("the bytes of headers", rules.max_header_bytes == 0, "must be at least 1"),
            ("the time to answer", rules.answer_within.is_zero(), "must be longer than zero"),
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
                rules.webhook.as_ref().is_some_and(Webhook::is_wrong),
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
