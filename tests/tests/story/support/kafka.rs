//! Members of the group that reads a topic of a Kafka broker; in the test and in its victims alike.

use outbox_kafka::{KafkaSubscriber, Topic};

/// Partitions of a topic: enough for a few members.
const PARTITIONS: u16 = 6;

/// The topic as it is declared.
pub(crate) fn declared(topic: &str) -> Topic {
    Topic::new(topic).partitions(PARTITIONS)
}

/// A member of the topic's group; the broker removes a dead one after six seconds.
pub(crate) fn member(url: &str, topic: &str) -> KafkaSubscriber {
    let member = KafkaSubscriber::new(url, topic).unwrap().topic(topic);
    let member = member.declare([declared(topic)]);
    member.set("session.timeout.ms", "6000").set("heartbeat.interval.ms", "500")
}
