//! Events over RabbitMQ (AMQP 0-9-1): confirmed publishing, manual acknowledgement, topology from
//! code.
//!
//! One message is one publish, a CloudEvent in binary mode (attributes in headers `cloudEvents_..`,
//! the payload untouched as body) or in structured mode (one JSON object), persistent and
//! mandatory. The server has confirmed a message when it acknowledged it and did not return it;
//! every other outcome has its class:
//!
//! | outcome | class |
//! | --- | --- |
//! | acknowledged, and not returned before | delivered |
//! | too large, a routing key of more than 255 bytes, not encodable | permanent |
//! | refused (`basic.nack`: a full queue), returned as unroutable (312 NO_ROUTE), not confirmed in time | transient |
//! | connection or channel lost, connection blocked by an alarm, access refused, exchange missing | unavailable |
//!
//! Both halves are used like every other transport's:
//!
//! ```
//! use outbox_amqp::{AmqpPublisher, AmqpSubscriber};
//! # const URL: &str = "amqp://guest:guest@127.0.0.1:5672";
//! let publisher = AmqpPublisher::new(URL)?.exchange("orders");
//! let subscriber = AmqpSubscriber::new(URL, "billing")?;
//! # let (_, _) = (publisher, subscriber);
//! # Ok::<(), outbox_amqp::ConfigError>(())
//! ```
//!
//! # Topology
//! Publishers and subscribers can declare from code what they need ([`Topology`]): exchanges,
//! bindings, and queues, which are quorum queues that dead-letter at least once unless configured
//! otherwise. They declare it at every new connection, and so restore it on a server that comes
//! back without it. A queue that an operator deletes on a running server stays deleted: the server
//! returns its events, which wait in the outbox with NO_ROUTE as their error and go when the queue
//! is back.
//!
//! # Dead letters of the server
//! `reject` and `nack(false)` send a message to the dead-letter exchange of its queue. A subscriber
//! of the dead letters reads the server's `x-death` header with [`Death::all_of`]: from which queue
//! the message comes, why, and how often.
//!
//! # Logs
//! The client library logs whole frames, among them payloads and passwords. This crate mutes it;
//! its errors say what matters.
//!
//! # Source
//! AMQP 0-9-1 with RabbitMQ's extensions (publisher confirms, `connection.blocked`, consumer
//! cancel, quorum queues); CloudEvents 1.0.2, AMQP protocol binding.

mod channels;
mod classify;
mod config;
mod connection;
mod headers;
mod publisher;
mod subscriber;
mod topology;

pub use config::{ConfigError, ConfigFault};
pub use headers::Death;
pub use publisher::AmqpPublisher;
pub use subscriber::AmqpSubscriber;
pub use topology::{Exchange, Queue, Topology};

/// The code of the README, which the doc tests compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
