//! A router to nest in an axum application, and the subscriber that it feeds.

mod desk;
mod refusal;

use crate::{
    config::{ConfigError, ConfigFault},
    signature::Secret,
    subscriber::HttpSubscriber,
};
use axum::{Router, routing::post};
use desk::{Desk, Rules};
use outbox_core::transport::cloudevents::PlainJson;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Semaphore, mpsc};

/// How far a timestamp may be from this host's clock, as most senders of webhooks have it.
const TOLERANCE: Duration = Duration::from_secs(300);
/// Largest body: more than events should have, little enough to hold one for every request under way.
const MAX_BODY: usize = 1024 * 1024;
/// Most headers of a request: all that hyper reads.
const MAX_HEADERS: usize = 100;
/// Most bytes of header names and values: what common servers take.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// How long a handler may take: less than our publisher waits, so that it hears of it.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// Requests under way at once; with the largest body this bounds the memory they take.
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
/// | the handler rejects | 422 with its reason |
/// | no answer within the deadline | 504 |
/// | too many requests under way, or the subscriber is closed | 503 with `Retry-After` |
/// | unsigned, signed wrongly, or a timestamp too far away | 401 |
/// | body too large; headers too many or too large; body too slow | 413; 431; 408 |
/// | not binary or JSON, or compressed | 415 |
/// | attributes missing or unreadable, or `webhook-id` is not the event's `id` | 400 |
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
            Err(problem) => self.faults.push(ConfigFault::Secret { number: self.verifications, problem }),
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

    /// Takes also requests that are plain JSON with a header for their type. Of their headers only those that `plain` names
    /// are read: the others are HTTP's, among them credentials.
    ///
    /// With [`verify`](Self::verify) the id has to be what was signed: name `webhook-id` as its header. The other headers
    /// are not under the signature, as in binary mode.
    pub fn plain_json(mut self, plain: PlainJson) -> Self {
        self.rules.plain_json = Some(plain);
        self
    }

    /// Takes structured mode only, in which every attribute is under the signature.
    pub fn structured_only(mut self) -> Self {
        self.rules.structured_only = true;
        self
    }

    /// Sets the largest body in bytes; 1 MiB unless set.
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

    /// Sets how many requests may be under way at once; 256 unless set. More are refused with 503.
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
        let desk = Arc::new(Desk { rules: self.rules, permits: Semaphore::new(self.max_in_flight), sender });
        Ok((Router::new().route(&self.path, post(desk::receive)).with_state(desk), HttpSubscriber(receiver)))
    }

    fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = self.faults.clone();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
        if !self.path.starts_with('/') || !self.path.bytes().all(plain) {
            faults.push(ConfigFault::Path(self.path.chars().filter(|c| !c.is_control()).take(64).collect()));
        }
        match (self.verifications, self.unsigned) {
            (0, false) => faults.push(ConfigFault::Unverified),
            (1.., true) => faults.push(ConfigFault::Contradiction),
            _ => {}
        }
        let rules = &self.rules;
        for (what, wrong, rule) in [
            ("the largest body", rules.max_body == 0, "must be at least 1 byte"),
            ("the number of headers", rules.max_headers == 0, "must be at least 1"),
            ("the bytes of headers", rules.max_header_bytes == 0, "must be at least 1"),
            ("the time to answer", rules.answer_within.is_zero(), "must be longer than zero"),
            ("the number of requests", self.max_in_flight == 0, "must be at least 1"),
            ("the number of requests", self.max_in_flight > Semaphore::MAX_PERMITS, "is too large"),
            ("plain JSON", rules.structured_only && rules.plain_json.is_some(), "is not taken with structured_only"),
            ("the topic", rules.topic.as_ref().is_some_and(|t| t.is_empty() || t.len() > 255), "has 1 to 255 bytes"),
        ] {
            if wrong {
                faults.push(ConfigFault::Range { what, rule });
            }
        }
        faults
    }
}
