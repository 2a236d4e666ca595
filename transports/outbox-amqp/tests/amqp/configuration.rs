//! What is wrong is said at once, all of it.

use crate::support::{full, publisher, subscriber};
use outbox_amqp::{AmqpPublisher, AmqpSubscriber, ConfigFault, Exchange, Queue, Topology};
use outbox_core::{
    failure::FailureClass,
    transport::{Publisher, Subscriber},
};
use std::time::Duration;

#[test]
fn all_faults_are_reported_at_once() {
    let topology = Topology::new()
        .exchange(Exchange::topic(""))
        .exchange(Exchange::fanout("twice"))
        .exchange(Exchange::fanout("twice"))
        .queue(Queue::classic("c").delivery_limit(3))
        .queue(Queue::quorum("d").drop_head().dead_letter_through("", ""))
        .queue(Queue::quorum("t").ttl(Duration::ZERO));
    let error =
        publisher().exchange("x".repeat(256)).timeout(Duration::ZERO).declare(topology).build();
    let error = error.expect_err("wrong in many ways");
    assert_eq!(error.faults().len(), 8, "{error}");
    for part in [
        "exchange `` must have",
        "`twice` is declared twice",
        "only quorum",
        "drop_head needs",
        "dead letters must",
        "ttl",
    ] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    let error = subscriber("").prefetch(0).build().expect_err("wrong in two ways");
    assert_eq!(error.faults().len(), 2, "{error}");
}

#[test]
fn a_text_that_is_no_url_of_rabbitmq_is_refused() {
    for wrong in ["", "http://127.0.0.1", "127.0.0.1:5672", "amqp://"] {
        assert_eq!(
            AmqpPublisher::new(wrong).expect_err("wrong").faults(),
            [ConfigFault::Url],
            "{wrong}"
        );
        assert!(AmqpSubscriber::new(wrong, "q").is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn what_was_not_built_and_is_wrong_publishes_nothing_and_loses_nothing() {
    let wrong = publisher().exchange("x".repeat(256));
    let checked = wrong.check().expect_err("the relay finds it when it starts");
    assert_eq!(checked.class(), FailureClass::Permanent, "a relay does not start with it");
    let error = wrong.publish(&full()).await.expect_err("wrong");
    assert_eq!(error.class(), FailureClass::Unavailable);
    let mut wrong = subscriber("q").prefetch(0);
    assert!(wrong.check().is_err(), "the consumer finds it when it starts");
    assert!(wrong.next().await.is_err());
}

#[tokio::test]
async fn a_server_that_is_there_is_connected_to() {
    assert!(AmqpPublisher::connect(crate::support::url()).await.is_ok());
    let error = AmqpPublisher::connect("amqp://127.0.0.1:1").await.expect_err("no server listens");
    assert_eq!(error.class(), FailureClass::Unavailable);
}

#[test]
fn relays_compare_server_and_exchange_or_queue_and_no_secret() {
    let to = || AmqpPublisher::new("amqp://ann:canary@broker.example:5673/shop").expect("a URL");
    assert_eq!(
        to().exchange("orders").destination().as_deref(),
        Some("broker.example:5673/shop#orders")
    );
    assert_eq!(
        to().queue("billing").destination().as_deref(),
        Some("broker.example:5673/shop#billing")
    );
    assert_eq!(
        to().queue("billing").exchange("orders").destination(),
        to().exchange("orders").destination()
    );
    assert_ne!(to().destination(), to().exchange("orders").destination());
}
