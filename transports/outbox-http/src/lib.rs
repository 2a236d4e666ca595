//! Events over HTTP: signed CloudEvents to a URL, and an axum router that receives them.
//!
//! One message is one POST, a CloudEvent in binary mode (attributes in `ce-` headers, the payload
//! untouched as body) or in structured mode (one JSON object), under the headers of Standard
//! Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`. A 2xx response confirms the
//! message; every other outcome has its class:
//!
//! | outcome | class |
//! | --- | --- |
//! | 2xx | delivered |
//! | 3xx (never followed), 400, 404, 405, 409, 410, 413, 415, 422, other 4xx | permanent |
//! | 408, 425, 429, 500, 502, 503, 504, other 5xx; no response in time | transient, `Retry-After` is honoured |
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
//! # What the signatures cover
//! `webhook-signature` is that of Standard Webhooks and covers identity, instant and body. In
//! structured mode that is everything: all attributes are in the body. In binary mode they are
//! headers beside it, so a second header, `outbox-signature`, covers all of them: id, source, type,
//! version, key, topic, the headers of a saga, every other extension, and the content type. It has
//! the same notation (`v1,` and base64, several for several keys) and is the HMAC-SHA256 with the
//! same key over
//!
//! ```text
//! outbox-signature LF  id  timestamp  body  name value  name value  ..
//! ```
//!
//! where each part after the line feed is a netstring (its length in bytes in decimal, `:`, the
//! bytes, `,`), so that no two requests have the same form. `id` and `timestamp` are the values of
//! `webhook-id` and `webhook-timestamp`. Names are those of attributes, without `ce-`, and
//! `datacontenttype` for `Content-Type`; values are decoded; pairs are in ascending order of their
//! bytes. In Python:
//!
//! ```python
//! def netstring(part): return b"%d:%b," % (len(part), part)
//! parts = [id, timestamp, body, *(part for pair in sorted(attributes.items()) for part in pair)]   # bytes
//! code = hmac.digest(key, b"outbox-signature\n" + b"".join(map(netstring, parts)), "sha256")
//! ```
//!
//! A receiver that verifies takes attributes from headers only under this signature. A request that
//! has only the standard's signature needs a receiver with [`ReceiverBuilder::webhook`]: its
//! configuration gives type and source, and the receiver reads nothing else from headers.
//!
//! # Replays
//! A receiver accepts a recorded request again for as long as its timestamp is fresh. The inbox
//! suppresses it like any other duplicate of its message id, which the signature covers; the
//! receiver itself remembers no ids. A consumer without an inbox must be idempotent.
//!
//! # Source
//! CloudEvents 1.0.2, HTTP protocol binding; Standard Webhooks specification 1.0; RFC 9110 for
//! status codes.

mod classify;
mod client;
mod config;
mod guard;
mod headers;
mod publisher;
mod receiver;
mod signature;
mod subscriber;

pub use classify::{Classification, classify};
pub use config::{ConfigError, ConfigFault};
pub use guard::{Resolver, SystemResolver, forbidden};
pub use publisher::HttpPublisher;
pub use receiver::{HttpReceiver, ReceiverBuilder};
pub use signature::{Secret, SecretError};
pub use subscriber::HttpSubscriber;

/// Header in which a receiver gives the reason why it refused a message.
pub const REASON_HEADER: &str = "outbox-reason";

/// The code of the README, which the doc tests compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
