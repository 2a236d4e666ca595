//! The faults of a configuration are reported before a message is sent, and without a secret.

use crate::support::{full, url};
use outbox_core::{
    failure::FailureClass,
    transport::{Publisher, Subscriber},
};
use outbox_kafka::{ConfigFault, KafkaPublisher, KafkaSubscriber, Topic};
use std::time::Duration;

#[test]
fn every_fault_of_a_publisher_is_reported_at_once() {
    let publisher = KafkaPublisher::new("127.0.0.1:9092").expect("brokers").topic("no spaces");
    let publisher =
        publisher.set("acks", "0").set("sasl.passwort", "canary").timeout(Duration::ZERO);
    let error =
        publisher.declare([Topic::new("a").partitions(0)]).build().expect_err("four faults");
    let error_text = error.to_string();
    for part in [
        "`no spaces` must have 1 to 249",
        "`acks` cannot be changed",
        "`sasl.passwort` is not one",
        "at least 100 ms",
        "at least 1",
    ] {
        assert!(error_text.contains(part), "{part}: {error_text}");
    }
    assert!(!error_text.contains("canary"), "{error_text}");
}

#[test]
fn every_fault_of_a_subscriber_is_reported_at_once() {
    let subscriber = KafkaSubscriber::new("127.0.0.1:9092", "").expect("brokers");
    let error = subscriber
        .prefetch(0)
        .set("enable.auto.commit", "true")
        .dead_letters("")
        .build()
        .expect_err("five faults");
    let error_text = error.to_string();
    for part in [
        "no topic is subscribed to",
        "the group `` must have a name",
        "the prefetch must",
        "`enable.auto.commit` cannot",
        "the topic `` must",
    ] {
        assert!(error_text.contains(part), "{part}: {error_text}");
    }
    assert_eq!(error.faults().len(), 5);
    assert!(
        matches!(KafkaSubscriber::new("amqp://x", "g"), Err(error) if error.faults() == [ConfigFault::Brokers])
    );
}

#[tokio::test]
async fn a_publisher_that_is_not_configured_right_publishes_nothing_and_says_why() {
    let publisher = KafkaPublisher::new(url()).expect("brokers").set("no.such.setting", "1");
    let checked = publisher.check().expect_err("a fault");
    assert!(checked.to_string().contains("`no.such.setting`"), "{checked}");
    assert_eq!(checked.class(), FailureClass::Permanent, "a relay does not start with it");
    let subscriber = KafkaSubscriber::new(url(), "").expect("brokers");
    assert!(subscriber.check().is_err(), "a consumer does not start with it");
    let error = publisher.publish(&full()).await.expect_err("not confirmed");
    assert_eq!(error.class(), FailureClass::Unavailable);
}

#[tokio::test]
async fn connect_fails_where_no_server_listens() {
    KafkaPublisher::connect(url()).await.expect("the broker replies");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let error = KafkaPublisher::connect(format!("{address}")).await.expect_err("no broker listens");
    assert_eq!(error.class(), FailureClass::Unavailable);
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn nothing_shows_the_value_of_a_setting() {
    let publisher =
        KafkaPublisher::new("127.0.0.1:9092").expect("brokers").set("sasl.password", "canary");
    let subscriber = KafkaSubscriber::new("127.0.0.1:9092", "g")
        .expect("brokers")
        .set("sasl.password", "canary");
    let shown = format!("{publisher:?} {subscriber:?}");
    assert!(!shown.contains("canary") && shown.contains("sasl.password"), "{shown}");
}

#[test]
fn relays_compare_brokers_in_any_order_and_the_topic_and_no_secret() {
    let to = |brokers: &str| {
        KafkaPublisher::new(brokers).expect("brokers").set("sasl.password", "canary")
    };
    let orders = to("a.example:9092,b.example:9092").topic("orders").destination();
    assert_eq!(orders.as_deref(), Some("a.example:9092,b.example:9092#orders"));
    assert_eq!(to("kafka://b.example:9092,a.example:9092").topic("orders").destination(), orders);
    assert_ne!(to("a.example:9092,b.example:9092").topic("order").destination(), orders);
    assert_ne!(to("a.example:9092,b.example:9092").destination(), orders);
    assert_ne!(to("c.example:9092").topic("orders").destination(), orders);
}
