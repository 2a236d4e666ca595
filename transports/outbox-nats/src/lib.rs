//! Events over NATS JetStream: acknowledged publishing, durable pull consumers, streams from code.
//!
//! One message is one publish, a CloudEvent in binary mode (attributes in headers `ce-..`,
//! percent-encoded, the payload untouched) or in structured mode (one JSON object), to the subject
//! that its topic names. The server has confirmed a message when a stream has stored it (PubAck) or
//! had it already; every other outcome has its class:
//!
//! | outcome | class |
//! | --- | --- |
//! | PubAck, of a message that the stream had already (`duplicate`) too | delivered, with the stream's name and the sequence |
//! | larger than the server's `max_payload` with its headers, larger than the stream takes, an illegal subject | permanent |
//! | no stream takes the subject (503 no responders), a full stream, not confirmed in time | transient |
//! | disconnected, login or publishing refused, limits of the account or the server's storage, JetStream off, a stream that exists with other settings | unavailable |
//!
//! Both halves are used like every other transport's:
//!
//! ```
//! use outbox_nats::{DurableConsumer, NatsPublisher, NatsSubscriber, Stream};
//! # const URL: &str = "nats://127.0.0.1:4222";
//! let orders = || [Stream::new("ORDERS").subject("orders")];
//! let publisher = NatsPublisher::new(URL)?.declare(orders());
//! let subscriber = NatsSubscriber::new(URL, "ORDERS", "billing")?
//!     .declare(orders())
//!     .declare_consumer(DurableConsumer::new());
//! # let (_, _) = (publisher, subscriber);
//! # Ok::<(), outbox_nats::ConfigError>(())
//! ```
//!
//! # What a PubAck means
//! The stream's server has written the message to its file, or most of its replicas have. It does
//! not mean that the file is on the disk: as it is shipped, nats-server asks the system to write a
//! stream's files every two minutes (`sync_interval`). A server process that is killed loses
//! nothing; a machine that loses its power may lose up to two minutes of confirmed messages of a
//! stream on one server. Streams that may not lose them have three replicas on separate machines
//! ([`Stream::replicas`]), or a server with `sync_interval: always` (nats-server 2.10 and later). A
//! stream [in memory](Stream::in_memory) loses all of its messages when its server ends.
//!
//! # Repeats
//! Each message has its id in the header `Nats-Msg-Id`. A stream that receives it again within its
//! duplicate window ([`Stream::duplicate_window`], two minutes unless set) confirms it and does not
//! store it. A repeat after that, as after a longer outage of the relay, is stored twice; the inbox
//! of the consumer recognises it.
//!
//! # Order
//! A relay has one message of a key in flight, so a stream has the messages of a key in their
//! order. A consumer receives them in that order, and so again what a subscriber has returned:
//! after a lost connection the subscriber returns what it had before it receives anything else.
//! There are two exceptions. Messages of a process that has died, and messages that were on their
//! way when a connection was lost, come again when their ack wait is over
//! ([`DurableConsumer::ack_wait`], 30 s unless set); later ones of their keys may be received
//! before. A consumer that must not see this sets [`DurableConsumer::max_ack_pending`] to 1, at the
//! price of one message at a time.
//!
//! # Redelivery
//! A message without an ack decision is delivered again after its ack wait. The subscriber sends a
//! sign of life (in progress) for every delivery that it has, so a handler may take as long as its
//! consumer allows. JetStream counts deliveries. A durable consumer that others have created with a
//! limit (`max_deliver`) stops delivering a message silently when it is reached; one that is
//! declared here has none, since the consumer of the framework writes dead letters itself.
//!
//! # Streams and consumers
//! Publishers and subscribers can declare from code what they need ([`Stream`],
//! [`DurableConsumer`]). They declare it at every new connection, and so restore it on a server
//! that comes back without it. What exists with other settings is never changed: the error says
//! what differs and what to do.
//!
//! # Limits
//! The server announces how many bytes it takes as one message, headers included (`max_payload`, 1
//! MiB as shipped). An event that is larger, or whose topic is no legal subject, is refused when it
//! is emitted, where its route is known.
//!
//! # Logs
//! The client library logs logins and whole messages at TRACE. This crate mutes it: it connects,
//! reads and writes on a thread of its own for each connection. Its errors say what matters.
//!
//! # Source
//! NATS client protocol, JetStream's interface of streams, consumers and acknowledgements
//! (architecture decision records 4, 13 and 15); CloudEvents 1.0.3, NATS protocol binding.

mod classify;
mod config;
mod quiet;
mod connection;
mod headers;
mod publisher;
mod pull;
mod subscriber;
mod topology;

pub use config::{ConfigError, ConfigFault};
pub use publisher::NatsPublisher;
pub use subscriber::NatsSubscriber;
pub use topology::{DurableConsumer, Stream};

/// The code of the README, which the doc tests compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
