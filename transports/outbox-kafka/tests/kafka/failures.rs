//! Which failure is which, and what a confirmation says.

use crate::support::{
    SOON, failure, full, message_with, name, next, numbered, publisher, publisher_at, subscriber,
    url,
};
use outbox_core::{
    failure::FailureClass::{Permanent, Transient, Unavailable},
    transport::{Limits, Publisher, publish_all},
};
use outbox_kafka::{KafkaPublisher, Topic};
use std::time::Duration;
use tests::servers::kafka;
use tokio::net::TcpListener;

#[tokio::test]
async fn a_confirmation_names_topic_partition_and_offset() {
    let topic = name("receipt");
    let publisher = publisher(&topic, 1);
    for offset in 0..3 {
        let receipt = publisher.publish(&full()).await.expect("confirmed");
        assert_eq!(
            (receipt.destination, receipt.position),
            (Some(format!("{topic}[0]")), Some(offset))
        );
    }
}

#[tokio::test]
async fn a_message_goes_to_the_topic_and_with_the_key_that_are_chosen_for_it() {
    let (other, chosen) = (name("other"), name("chosen"));
    let topic = chosen.clone();
    let publisher = publisher(&other, 4)
        .declare([&other, &chosen].map(|topic| Topic::new(topic).partitions(4)))
        .topic_of(move |_| topic.clone())
        .record_key(|_| Some(b"one".to_vec()));
    let mut partitions = Vec::new();
    for n in 1..=8 {
        partitions.push(
            publisher.publish(&numbered(n, &format!("k{n}"))).await.expect("confirmed").destination,
        );
    }
    partitions.dedup();
    let [Some(partition)] = &partitions[..] else {
        panic!("of one key, all are in one partition: {partitions:?}");
    };
    assert!(partition.starts_with(&format!("{chosen}[")), "not in the chosen topic: {partition}");
}

#[tokio::test]
async fn java_s_producers_would_put_a_key_into_the_same_partition() {
    let topic = name("murmur2");
    let publisher = publisher(&topic, 12);
    // Of org.apache.kafka.common.utils.Utils.murmur2, sign bit taken off, modulo 12.
    for (key, partition) in murmur2_table() {
        let receipt = publisher.publish(&numbered(1, key)).await.expect("confirmed");
        assert_eq!(receipt.destination, Some(format!("{topic}[{partition}]")), "{key}");
    }
}

/// Hashes of Kafka's own test of the function (`UtilsTest.testMurmur2`), modulo 12.
fn murmur2_table() -> Vec<(&'static str, i32)> {
    [("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)]
        .into_iter()
        .map(|(key, hash): (&str, i32)| (key, (hash & i32::MAX) % 12))
        .collect()
}

#[tokio::test]
async fn what_is_too_long_or_has_no_topic_that_kafka_takes_can_never_go() {
    let topic = name("long");
    let small = publisher(&topic, 1).with_limits(Limits::default().max_payload(100));
    let error = small
        .publish(&message_with(|m| m.payload = vec![b'x'; 101].into()))
        .await
        .expect_err("too long");
    assert_eq!(
        (error.class(), error.to_string().as_str()),
        (Permanent, "the payload has 101 bytes, of at most 100")
    );
    // Larger than the client takes, headers included.
    let large = publisher(&topic, 1).with_limits(Limits::default());
    let error = large
        .publish(&message_with(|m| m.payload = vec![b'x'; 2_000_000].into()))
        .await
        .expect_err("too long");
    assert_eq!(error.class(), Permanent, "{error}");
    let nowhere = KafkaPublisher::new(url()).expect("brokers").topic_of(|_| "no spaces".to_owned());
    let error = failure(&nowhere).await;
    assert_eq!(error.class(), Permanent);
    assert!(error.to_string().contains("`no spaces` must have 1 to 249"), "{error}");
}

#[tokio::test]
async fn a_batch_has_an_outcome_for_each_message() {
    let topic = name("batch");
    let publisher = publisher(&topic, 3).with_limits(Limits::default().max_payload(1_000));
    let messages: Vec<_> = (0..300)
        .map(|n| {
            if n % 7 == 0 {
                message_with(|m| m.payload = vec![b'x'; 2_000].into())
            } else {
                numbered(n, &format!("k{n}"))
            }
        })
        .collect();
    let outcomes = publish_all(&publisher, &messages).await;
    for (n, outcome) in outcomes.iter().enumerate() {
        assert_eq!(
            outcome.as_ref().err().map(|e| e.class()),
            (n % 7 == 0).then_some(Permanent),
            "{n}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn an_address_without_a_listener_makes_the_destination_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let publisher =
        KafkaPublisher::new(address.to_string()).expect("brokers").timeout(Duration::from_secs(1));
    let error = failure(&publisher).await;
    assert_eq!(error.class(), Unavailable, "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_silent_broker_is_reported_in_time() {
    let (mut server, topic) = (kafka::start().await, name("silent"));
    let publisher = publisher_at(&server.url(), &topic, 1).timeout(Duration::from_secs(1));
    publisher.publish(&full()).await.expect("confirmed");
    server.pause();
    let error = failure(&publisher).await;
    assert!(matches!(error.class(), Transient | Unavailable), "{error}");
    assert!(error.to_string().contains("not confirmed in time"), "{error}");
    server.resume();
    let again = async { while publisher.publish(&full()).await.is_err() {} };
    tokio::time::timeout(SOON, again).await.expect("it goes on by itself");
}

#[tokio::test]
async fn a_deleted_topic_is_declared_again() {
    let topic = name("deleted");
    let publisher = publisher(&topic, 1).timeout(Duration::from_secs(5));
    publisher.publish(&full()).await.expect("confirmed");
    crate::groups::delete(&topic).await;
    let again = async { while publisher.publish(&full()).await.is_err() {} };
    tokio::time::timeout(SOON, again).await.expect("it is there again");
    let mut subscriber = subscriber(&topic, 1);
    next(&mut subscriber).await.ack().await.expect("accepted");
}

#[tokio::test]
async fn a_publish_that_is_given_up_disturbs_no_other() {
    let topic = name("given-up");
    let publisher = publisher(&topic, 1);
    publisher.publish(&full()).await.expect("confirmed");
    for n in 1..=20 {
        drop(tokio::time::timeout(Duration::from_micros(n * 50), publisher.publish(&full())).await);
        publisher.publish(&full()).await.expect("the next is confirmed");
    }
}
