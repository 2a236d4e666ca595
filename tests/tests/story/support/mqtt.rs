//! The session of a consumer at an MQTT server; in the test and in its victims alike.

use outbox_mqtt::MqttSubscriber;

/// The subscriber of a topic, under the one client id that the victim and its successor have.
pub(crate) fn session(url: &str, topic: &str) -> MqttSubscriber {
    MqttSubscriber::new(url, "story").unwrap().topic(topic)
}
