//! Events over Kafka: an idempotent producer whose delivery reports confirm, consumer groups with manual commit, topics from
//! code, dead-letter topics. The client is librdkafka.
//!
//! One message is one record, a CloudEvent in binary mode (attributes in headers `ce_..`, the payload untouched as value) or in
//! structured mode (one JSON object), with the message key as record key. The partitioner is that of Java's producers, so that
//! both put a key into the same partition.
//!
//! | what happens | class |
//! | --- | --- |
//! | delivery report: all replicas that are in sync have it | delivered, with `topic[partition]` and offset |
//! | too large, a topic that no broker takes, a record that is refused as it is | permanent |
//! | not enough replicas, a leader that moves, not confirmed in time | transient |
//! | no broker answers, TLS or SASL or an ACL refuses, the topic is missing, the producer has lost its place | unavailable |
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
//! They would span topics and positions, never the database where your data is; and librdkafka does not speak the protocol that
//! repairs their known faults. What makes an effect happen once is the inbox, in the same transaction as the effect. What keeps
//! the producer's own repeats out is its idempotence; a producer that the brokers no longer know (they have lost their data)
//! fails for good, which is noticed, and a new one is made.
//!
//! # Records without a value
//! A compacted topic forgets a key when a record without a value comes under it, and tells those who read on. Such a record is no
//! broken event: it is received as a message without content, in the order of its key, acknowledged by a consumer that does not care,
//! and heard by one that does ([`Consumer::on_tombstone`](outbox_core::consumer::Consumer::on_tombstone)). An event of a type that is
//! marked `#[outbox(tombstone)]` is published as one, its attributes in headers; over other transports it has an empty body.
//!
//! # The time of a record
//! It is that of its publishing, not of the event, which stands in `ce_time`: a topic keeps records by their time, and an event
//! that had waited longer than that would be gone at once.
//!
//! # TLS and SASL
//! Settings of librdkafka are passed through ([`KafkaPublisher::set`], [`KafkaSubscriber::set`]): `security.protocol`,
//! `ssl.ca.location`, `sasl.mechanism`, `sasl.username`, `sasl.password`. SASL/PLAIN works as it is. TLS and SCRAM need librdkafka with
//! OpenSSL, which this crate does not ask for: add `rdkafka` with the feature `ssl` (the system's) or `ssl-vendored` beside it, and cargo
//! builds the one library with both. No value of a setting is ever shown.
//!
//! # Source
//! Apache Kafka's protocol as librdkafka 2.12 speaks it; CloudEvents 1.0.2, Kafka protocol binding; Kafka Connect's names of
//! dead-letter headers.

mod config;
mod headers;
mod tombstone;
mod ledger;
mod desk;
mod member;
mod producer;
mod publisher;
mod subscriber;
mod topics;
mod verdict;

pub use config::{ConfigError, ConfigFault};
pub use headers::Death;
pub use publisher::KafkaPublisher;
pub use subscriber::KafkaSubscriber;
pub use topics::Topic;
