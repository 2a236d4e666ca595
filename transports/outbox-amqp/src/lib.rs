//! Events over RabbitMQ (AMQP 0-9-1): confirmed publishing, manual acknowledgement, topology from code.
//!
//! One message is one publish, a CloudEvent in binary mode (attributes in headers `cloudEvents_..`, the payload untouched as
//! body) or in structured mode (one JSON object), persistent and mandatory. The server has confirmed when it acknowledged
//! the message and did not return it; everything else has its class:
//!
//! | what happens | class |
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
//! What a publisher or subscriber needs can be declared from code ([`Topology`]): exchanges, bindings, and queues, which are
//! quorum queues that dead-letter at least once unless told otherwise. It is declared at every new connection, and so is there
//! again when a server comes back without it. A queue that somebody deletes on a running server stays deleted: its events are
//! returned, wait in the outbox with NO_ROUTE as their error, and go when the queue is back.
//!
//! # Dead letters of the server
//! `reject` and `nack(false)` hand a message to its queue's dead letters. Whoever receives it there finds in [`Death::all_of`]
//! what the server wrote in `x-death`: from which queue it comes, why, and how often.
//!
//! # Logs
//! The client library logs whole frames, among them payloads and passwords. It is kept quiet; what matters is said by errors.
//!
//! # Source
//! AMQP 0-9-1 with RabbitMQ's extensions (publisher confirms, `connection.blocked`, consumer cancel, quorum queues);
//! CloudEvents 1.0.2, AMQP protocol binding.

mod config;
mod connection;
mod headers;
mod line;
mod publisher;
mod subscriber;
mod topology;
mod verdict;

pub use config::{ConfigError, ConfigFault};
pub use headers::Death;
pub use publisher::AmqpPublisher;
pub use subscriber::AmqpSubscriber;
pub use topology::{Exchange, Queue, Topology};
