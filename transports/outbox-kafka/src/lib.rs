//! Events over Kafka: an idempotent producer with delivery reports, consumer groups with manual
//! commit, topics from code, dead-letter topics. The client is librdkafka.
//!
//! One message is one record, a CloudEvent in binary mode (attributes in headers `ce_..`, the
//! payload untouched as value) or in structured mode (one JSON object), with the message key as
//! record key. The partitioner is that of Java's producers, so that both put a key into the same
//! partition.
//!
//! | outcome | class |
//! | --- | --- |
//! | delivery report: all replicas that are in sync have it | delivered, with `topic[partition]` and offset |
//! | too large, an illegal topic name, an invalid record | permanent |
//! | not enough replicas, a leader that moves, not confirmed in time | transient |
//! | no broker replies, TLS or SASL or an ACL refuses, the topic is missing, the brokers no longer know the producer | unavailable |
//!
//! Both halves are used like every other transport's:
//!
//! ```
//! use outbox_kafka::{KafkaPublisher, KafkaSubscriber};
//! let publisher = KafkaPublisher::new("127.0.0.1:9092")?;
//! let subscriber = KafkaSubscriber::new("127.0.0.1:9092", "billing")?.topic("orders");
//! # let (_, _) = (publisher, subscriber);
//! # Ok::<(), outbox_kafka::ConfigError>(())
//! ```
//!
//! # No transactions of Kafka
//! They would span topics and positions, never the database where your data is; and librdkafka does
//! not speak the protocol that repairs their known faults. The inbox makes an effect happen once,
//! in the same transaction as the effect. The producer's idempotence removes its own duplicates; a
//! producer that the brokers no longer know (they have lost their data) fails for good, and the
//! publisher replaces it.
//!
//! # Records without a value
//! A record without a value (a tombstone) deletes its key from a compacted topic, and consumers of
//! the topic receive it. It is no broken event: the subscriber gives it as a message without
//! content, in the order of its key; a consumer acknowledges it, after its handler for tombstones
//! where it has one ([`ConsumerBuilder::on_tombstone`](outbox_core::consumer::ConsumerBuilder::on_tombstone)).
//! The publisher sends an event of a type marked `#[outbox(tombstone)]` as a tombstone, its
//! attributes in headers; over other transports it has an empty body.
//!
//! # The time of a record
//! It is the time of publishing, not that of the event, which `ce_time` has: a topic keeps records
//! by their time, and would delete at once an event that had waited in the outbox for longer than
//! the retention.
//!
//! # TLS and SASL
//! Settings of librdkafka are passed through ([`KafkaPublisher::set`], [`KafkaSubscriber::set`]):
//! `security.protocol`, `ssl.ca.location`, `sasl.mechanism`, `sasl.username`, `sasl.password`.
//! SASL/PLAIN needs nothing more. TLS and SCRAM need librdkafka with OpenSSL, which this crate does
//! not enable: add `rdkafka` with the feature `ssl` (the system's) or `ssl-vendored` to your
//! program, and cargo builds the one library with both. No error, log line or `Debug` output shows
//! the value of a setting.
//!
//! # Source
//! Apache Kafka's protocol as librdkafka 2.12 speaks it; CloudEvents 1.0.2, Kafka protocol binding;
//! Kafka Connect's names of dead-letter headers.

mod classify;
mod config;
mod headers;
mod tombstone;
mod offsets;
mod handoff;
mod commits;
mod member;
mod producer;
mod publisher;
mod dead_letters;
mod subscriber;
mod topics;

pub use config::{ConfigError, ConfigFault};
pub use headers::DeadLetterCause;
pub use publisher::KafkaPublisher;
pub use subscriber::KafkaSubscriber;
pub use topics::Topic;

/// The code of the README, which the doc tests compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
