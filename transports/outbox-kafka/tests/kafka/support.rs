//! Topics and groups of each test's own, and messages to send.

use outbox_core::{
    event::{Message, MessageId, MessageParts},
    transport::{Delivery, PublishError, Publisher, Subscriber},
};
use outbox_kafka::{KafkaPublisher, KafkaSubscriber, Topic};
use std::time::Duration;

pub(crate) use outbox_core::testing::transport::{full, numbered};

/// How long anything may take before it is called hung.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The URL of the shared broker.
pub(crate) fn url() -> String {
    tests::servers::kafka::shared_url()
}

/// A unique name.
pub(crate) fn name(what: &str) -> String {
    format!("outbox-test.{what}.{}", MessageId::generate())
}

/// A publisher to a topic of a broker, which it declares.
pub(crate) fn publisher_at(url: &str, topic: &str, partitions: u16) -> KafkaPublisher {
    let topics = [Topic::new(topic).partitions(partitions)];
    KafkaPublisher::new(url).expect("brokers").topic(topic).declare(topics)
}

/// A publisher to a topic of the shared broker, which it declares.
pub(crate) fn publisher(topic: &str, partitions: u16) -> KafkaPublisher {
    publisher_at(&url(), topic, partitions)
}

/// A member of a group that has the topic's own name, at a broker. Sessions are short, so that a
/// member that dies is missed soon.
pub(crate) fn subscriber_at(url: &str, topic: &str, partitions: u16) -> KafkaSubscriber {
    KafkaSubscriber::new(url, topic)
        .expect("brokers")
        .topic(topic)
        .declare([Topic::new(topic).partitions(partitions)])
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "500")
}

/// A member of a group that has the topic's own name, at the shared broker.
pub(crate) fn subscriber(topic: &str, partitions: u16) -> KafkaSubscriber {
    subscriber_at(&url(), topic, partitions)
}

/// A message with every attribute set and something changed.
pub(crate) fn message_with(change: impl FnOnce(&mut MessageParts)) -> Message {
    let mut parts = full().into_parts();
    change(&mut parts);
    Message::new(parts)
}

/// Publishes something that is not confirmed.
pub(crate) async fn failure(publisher: &KafkaPublisher) -> PublishError {
    let result = tokio::time::timeout(SOON, publisher.publish(&full())).await;
    let result = result
        .unwrap_or_else(|_| panic!("no outcome on a publish within {SOON:?} by {publisher:?}"));
    result.expect_err("the message was not confirmed")
}

/// Waits for the next delivery.
pub(crate) async fn next(subscriber: &mut KafkaSubscriber) -> Delivery {
    let delivery = tokio::time::timeout(SOON, subscriber.next()).await;
    let delivery =
        delivery.unwrap_or_else(|_| panic!("nothing came within {SOON:?} to {subscriber:?}"));
    delivery.expect("the subscription holds").expect("the subscription is open")
}

/// The number of a message that [`numbered`] made.
pub(crate) fn number(delivery: &Delivery) -> i64 {
    delivery.message.as_ref().expect("readable").sequence.expect("numbered").0
}
