//! Events over HTTP: signed CloudEvents to a URL, and an axum router that receives them.
//!
//! One message is one POST, a CloudEvent in binary mode (attributes in `ce-` headers, the payload untouched as body) or in
//! structured mode (one JSON object), under the headers of Standard Webhooks: `webhook-id`, `webhook-timestamp`,
//! `webhook-signature`. The destination has confirmed when it answers 2xx; every other answer has its class:
//!
//! | answer | class |
//! | --- | --- |
//! | 2xx | delivered |
//! | 3xx (never followed), 400, 404, 405, 409, 410, 413, 415, 422, other 4xx | permanent |
//! | 408, 425, 429, 500, 502, 503, 504, other 5xx; no answer in time | transient, `Retry-After` is heeded |
//! | 401, 403; refused, reset or silent connection, DNS, TLS | unavailable |
//!
//! Both halves are used like every other transport's:
//!
//! ```
//! use outbox_http::{HttpPublisher, HttpReceiver};
//! # const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
//! let publisher = HttpPublisher::new("https://billing.example/events")?.signed(SECRET);
//! let (router, subscriber) = HttpReceiver::builder().path("/events").verify(SECRET).build()?;
//! # let (_, _, _) = (publisher, router, subscriber);
//! # Ok::<(), outbox_http::ConfigError>(())
//! ```
//!
//! # What the signature covers
//! Standard Webhooks signs the identity, the instant and the body. In binary mode type, source and key are headers beside
//! the body and not signed: TLS protects them. Where the way to the receiver is not TLS from end to end, use
//! [`HttpPublisher::structured`] and [`ReceiverBuilder::structured_only`], which put every attribute under the signature.
//!
//! # Replays
//! A request that was recorded is accepted again for as long as its timestamp is fresh. The inbox suppresses it, as any other
//! repeat of its message id, which the signature covers; there is no second memory of ids here. A receiver without an inbox
//! must be idempotent.
//!
//! # Source
//! CloudEvents 1.0.2, HTTP protocol binding; Standard Webhooks specification 1.0; RFC 9110 for status codes.

mod config;
mod guard;
mod headers;
mod line;
mod publisher;
mod receiver;
mod signature;
mod subscriber;
mod verdict;

pub use config::{ConfigError, ConfigFault};
pub use guard::{Resolver, SystemResolver, forbidden};
pub use publisher::HttpPublisher;
pub use receiver::{HttpReceiver, ReceiverBuilder};
pub use signature::{Secret, SecretError};
pub use subscriber::HttpSubscriber;
pub use verdict::{Verdict, verdict};

/// Header in which a receiver says in words why it refused a message.
pub const REASON_HEADER: &str = "outbox-reason";
