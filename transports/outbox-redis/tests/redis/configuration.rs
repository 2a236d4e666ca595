//! What is wrong is said at once, all of it.

use crate::support::full;
use outbox_core::{
    failure::FailureClass,
    transport::{Publisher, Subscriber},
};
use outbox_redis::{ConfigFault, RedisPublisher, RedisSubscriber};
use std::time::Duration;
use tests::servers::redis as server;

const URL: &str = "redis://127.0.0.1:6379";

fn publisher() -> RedisPublisher {
    RedisPublisher::new(URL).expect("a URL")
}

fn subscriber() -> RedisSubscriber {
    RedisSubscriber::new(URL, "billing").expect("a URL")
}

#[test]
fn all_faults_are_reported_at_once() {
    let error = publisher().stream("").max_len(0).timeout(Duration::ZERO).build();
    let error = error.expect_err("wrong in many ways");
    assert_eq!(error.faults().len(), 3, "{error}");
    for part in ["stream `` must have 1", "length or age", "timeout must be longer than zero"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    let error = RedisSubscriber::new(URL, "")
        .expect("a URL")
        .stream("twice")
        .stream("twice")
        .consumer("")
        .dead_letters("")
        .prefetch(0)
        .claim_after(Duration::from_millis(100))
        .build()
        .expect_err("wrong in many ways");
    assert_eq!(error.faults().len(), 6, "{error}");
    for part in ["group ``", "consumer ``", "`twice` is named twice", "prefetch", "at least 500 ms"]
    {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert_eq!(subscriber().build().expect_err("no stream").faults(), [ConfigFault::NoStream]);
}

#[test]
fn a_text_that_is_no_url_of_redis_is_refused() {
    for wrong in ["", "http://127.0.0.1", "127.0.0.1:6379", "redis://", "rediss://h/#insecure"] {
        let error = RedisPublisher::new(wrong).expect_err("wrong");
        assert_eq!(error.faults(), [ConfigFault::Url], "{wrong}");
        assert!(RedisSubscriber::new(wrong, "g").is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn what_was_not_built_and_is_wrong_publishes_nothing_and_loses_nothing() {
    let wrong = publisher().stream("");
    let checked = wrong.check().expect_err("the relay finds it when it starts");
    assert_eq!(checked.class(), FailureClass::Permanent, "a relay does not start with it");
    let mut wrong = subscriber();
    assert!(wrong.check().is_err(), "the consumer finds it when it starts");
    assert!(wrong.next().await.is_err());
    let wrong = publisher().timeout(Duration::ZERO);
    let error = wrong.publish(&full()).await.expect_err("wrong");
    assert_eq!(error.class(), FailureClass::Unavailable);
}

#[tokio::test]
async fn a_server_that_is_there_is_connected_to() {
    let server = server::start().await;
    assert!(RedisPublisher::connect(server.url()).await.is_ok());
    let error =
        RedisPublisher::connect("redis://127.0.0.1:1").await.expect_err("no server listens");
    assert_eq!(error.class(), FailureClass::Unavailable);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[test]
fn relays_compare_server_and_stream_and_no_secret() {
    let to = || RedisPublisher::new("redis://ann:canary@redis.example:7000/2").expect("a URL");
    let at = |publisher: RedisPublisher| publisher.destination().expect("it says where");
    assert_eq!(at(to().stream("orders")), "redis.example:7000/2#orders");
    assert_eq!(at(to().prefix("shop:")), "redis.example:7000/2#shop:the event's topic");
    assert_ne!(at(to()), at(to().stream("orders")));
}

#[test]
fn a_consumer_is_told_how_long_a_dead_one_keeps_its_entries() {
    let subscriber = subscriber().stream("orders").claim_after(Duration::from_secs(5));
    let within = subscriber.redelivers_within();
    assert!(within > Duration::from_secs(5) && within < Duration::from_secs(10), "{within:?}");
}
