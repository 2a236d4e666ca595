//! A topic of a Kafka broker, and members of the group that reads it; in the test and in its victims alike.

use outbox_kafka::{KafkaPublisher, KafkaSubscriber, Topic};
use std::time::Duration;

/// Partitions of a topic: enough for a few members.
const PARTITIONS: u16 = 6;

/// A publisher to the topic, which it declares.
#[allow(dead_code, reason = "victims only receive")]
pub(crate) fn publisher(url: &str, topic: &str) -> KafkaPublisher {
    let topics = [Topic::new(topic).partitions(PARTITIONS)];
    KafkaPublisher::new(url).unwrap().topic(topic).declare(topics).timeout(Duration::from_secs(5))
}

/// A member of the topic's group; one that dies is missed after six seconds.
pub(crate) fn member(url: &str, topic: &str) -> KafkaSubscriber {
    let member = KafkaSubscriber::new(url, topic).unwrap().topic(topic);
    let member = member.declare([Topic::new(topic).partitions(PARTITIONS)]);
    member.set("session.timeout.ms", "6000").set("heartbeat.interval.ms", "500")
}
