//! The subscriber: order, back-pressure, dead letters, and what cannot be read.

use crate::support::{
    SOON, full, message_with, name, next, number, numbered, publisher, subscriber, url,
};
use outbox_core::transport::{Publisher, Subscriber, publish_all};
use outbox_kafka::{DeadLetterCause, Topic};
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{Consumer as _, StreamConsumer},
    message::{Header, Headers as _, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use std::time::Duration;
use tokio::time::timeout;

/// How long a test waits for a delivery that must not come.
const QUIET: Duration = Duration::from_millis(500);

#[tokio::test]
async fn one_record_of_a_key_is_in_flight_at_a_time_and_a_requeued_one_is_delivered_before_the_others()
 {
    let topic = name("keys");
    let publisher = publisher(&topic, 1);
    for (n, key) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
        publisher.publish(&numbered(n, key)).await.expect("confirmed");
    }
    let mut subscriber = subscriber(&topic, 1);
    let (first, other) = (next(&mut subscriber).await, next(&mut subscriber).await);
    assert_eq!((number(&first), number(&other)), (1, 3));
    assert!(timeout(QUIET, subscriber.next()).await.is_err(), "2 and 4 wait for 1");
    first.nack(true).await.expect("accepted");
    for expected in [1, 2, 4] {
        let delivery = next(&mut subscriber).await;
        assert_eq!(number(&delivery), expected);
        delivery.ack().await.expect("accepted");
    }
    other.ack().await.expect("accepted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_consumer_pauses_the_partitions_stays_in_the_group_and_gets_everything() {
    const MESSAGES: i64 = 2_000;
    let topic = name("slow");
    let publisher = publisher(&topic, 3);
    let all: Vec<_> = (1..=MESSAGES).map(|n| numbered(n, &format!("k{n}"))).collect();
    for batch in all.chunks(500) {
        publish_all(&publisher, batch)
            .await
            .into_iter()
            .for_each(|outcome| drop(outcome.expect("confirmed")));
    }
    let mut slow = subscriber(&topic, 3).prefetch(10).set("max.poll.interval.ms", "6000");
    let held = next(&mut slow).await;
    // Longer than a member may go without a poll.
    tokio::time::sleep(Duration::from_secs(8)).await;
    held.ack().await.expect("it is still ours");
    let mut seen = 1;
    while seen < MESSAGES {
        next(&mut slow).await.ack().await.expect("accepted");
        seen += 1;
    }
    assert!(timeout(QUIET, slow.next()).await.is_err(), "each came once");
}

/// Sends a record without the transport, and gives its offset.
async fn record(topic: &str, key: &[u8], value: Option<&[u8]>) -> i64 {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", url().trim_start_matches("kafka://"));
    let producer: FutureProducer = config.create().expect("a producer");
    let mut record = FutureRecord::to(topic).key(key);
    record.payload = value;
    producer.send(record, SOON).await.expect("confirmed").offset
}

#[tokio::test]
async fn a_record_without_a_value_is_a_tombstone_in_its_key_s_order_and_one_with_an_empty_value_is_none()
 {
    let topic = name("tombstones");
    let publisher = publisher(&topic, 1);
    let event = numbered(1, "a");
    publisher.publish(&event).await.expect("confirmed");
    let offset = record(&topic, b"a", None).await;
    record(&topic, &[0xff, 0], None).await;
    record(&topic, b"b", Some(b"")).await;

    let mut subscriber = subscriber(&topic, 1);
    let first = next(&mut subscriber).await;
    assert_eq!(number(&first), 1);
    // Another key goes beside it; the tombstone of its own key waits for it.
    let other = next(&mut subscriber).await;
    let message = other.message.as_ref().expect("it is no broken event");
    assert!(message.is_tombstone() && message.key.is_none());
    assert_eq!(message.headers.get("recordkey"), Some("ff00"));
    let empty = next(&mut subscriber).await;
    assert!(
        empty.message.as_ref().is_err_and(|why| why.contains("no attributes of CloudEvents")),
        "{empty:?}"
    );
    first.ack().await.expect("accepted");
    let gone = next(&mut subscriber).await;
    let message = gone.message.as_ref().expect("it is no broken event").clone();
    assert!(message.is_tombstone(), "{message:?}");
    assert_eq!((message.key.as_deref(), message.topic.as_str()), (Some("a"), topic.as_str()));
    assert_eq!(message.event_type, "tombstone");

    // It is delivered again under the same identity, so that the inbox recognises it.
    gone.nack(true).await.expect("accepted");
    let again = next(&mut subscriber).await;
    assert_eq!(again.message.as_ref().expect("readable").id, message.id);
    assert_eq!(offset, 1);
    for delivery in [again, other, empty] {
        delivery.ack().await.expect("accepted");
    }
}

#[tokio::test]
async fn a_tombstone_is_published_as_a_record_without_a_value_also_in_structured_mode() {
    let topic = name("gone");
    let gone = message_with(|m| {
        m.payload = bytes::Bytes::new();
        m.headers.insert(outbox_core::event::TOMBSTONE, "true").expect("a legal header");
    });
    publisher(&topic, 1).publish(&gone).await.expect("confirmed");
    publisher(&topic, 1).structured().publish(&gone).await.expect("confirmed");
    let keyless = publisher(&topic, 1)
        .record_key(|_| None)
        .publish(&gone)
        .await
        .expect_err("nothing to forget");
    assert!(keyless.to_string().contains("needs a record key"), "{keyless}");

    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", url().trim_start_matches("kafka://")).set("group.id", &topic);
    config.set("auto.offset.reset", "earliest");
    let consumer: StreamConsumer = config.create().expect("a consumer");
    consumer.subscribe(&[&topic]).expect("subscribed");
    for _ in 0..2 {
        let record = timeout(SOON, consumer.recv()).await.expect("it comes").expect("a record");
        assert_eq!(
            (record.payload(), record.key()),
            (None, gone.key.as_deref().map(str::as_bytes))
        );
        let named = |name: &str| {
            let headers = record.headers().expect("attributes");
            headers
                .iter()
                .find(|header| header.key == name)
                .and_then(|header| header.value.map(<[u8]>::to_vec))
        };
        assert_eq!(named("ce_id"), Some(gone.id.to_string().into_bytes()));
        assert_eq!(named("ce_tombstone"), Some(b"true".to_vec()));
    }
}

#[tokio::test]
async fn what_is_rejected_goes_to_the_dead_letters_as_it_came_with_the_reason() {
    let (topic, dead) = (name("rejecting"), name("dead"));
    let publisher = publisher(&topic, 1);
    let sent = message_with(|m| m.key = Some("order-9".into()));
    publisher.publish(&full()).await.expect("confirmed");
    publisher.publish(&sent).await.expect("confirmed");
    let topics = [Topic::new(&topic), Topic::new(&dead)];
    let mut receiving = subscriber(&topic, 1).declare(topics).dead_letters(&dead);
    next(&mut receiving).await.nack(false).await.expect("dead-lettered");
    next(&mut receiving).await.reject("no such\ncustomer").await.expect("dead-lettered");

    let mut letters = subscriber(&dead, 1);
    let first = next(&mut letters).await;
    let cause =
        DeadLetterCause::of(first.message.as_ref().expect("readable")).expect("a dead letter");
    assert_eq!((cause.offset, cause.class.as_str()), (0, "NotHandled"));
    let second = next(&mut letters).await;
    let letter = second.message.as_ref().expect("readable");
    assert_eq!(
        (letter.id, letter.key.as_deref(), &letter.payload),
        (sent.id, Some("order-9"), &sent.payload)
    );
    let cause = DeadLetterCause::of(letter).expect("a dead letter");
    assert_eq!((cause.topic.as_str(), cause.partition, cause.offset), (topic.as_str(), 0, 1));
    assert_eq!((cause.class.as_str(), cause.message.as_str()), ("Rejected", "no such customer"));
    first.ack().await.expect("accepted");
    second.ack().await.expect("accepted");
    drop(receiving);
    // The position of the group is past both.
    let mut after = subscriber(&topic, 1);
    assert!(timeout(QUIET * 4, after.next()).await.is_err());
}

#[tokio::test]
async fn a_record_whose_dead_letter_is_not_confirmed_is_delivered_again() {
    let topic = name("unconfirmed-letter");
    publisher(&topic, 1).publish(&full()).await.expect("confirmed");
    // Larger than the client for the letters takes, so that none is ever confirmed.
    let mut receiving =
        subscriber(&topic, 1).dead_letters(name("dead")).set("message.max.bytes", "1000");
    let sent = message_with(|m| m.payload = vec![b'x'; 5_000].into());
    publisher(&topic, 1).publish(&sent).await.expect("confirmed");
    next(&mut receiving).await.ack().await.expect("accepted");
    for _ in 0..2 {
        let delivery = next(&mut receiving).await;
        let error = delivery.reject("never").await.expect_err("the letter is too large");
        assert!(outbox_core::failure::full_text(&error).contains("the dead letter"), "{error:?}");
    }
    next(&mut receiving).await.ack().await.expect("it is still there");
}

#[tokio::test]
async fn what_cannot_be_read_is_delivered_with_the_reason_and_the_rest_goes_on() {
    let topic = name("strange");
    let ours = publisher(&topic, 1);
    let before = full();
    ours.publish(&before).await.expect("confirmed");
    let brokers = url().replace("kafka://", "");
    let stranger: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
    let json =
        |text: &'static str| (Some("application/cloudevents+json"), text.as_bytes().to_vec());
    let table = [
        ((None, b"{}".to_vec()), "no attributes of CloudEvents"),
        (json("{not json"), "no CloudEvent in JSON"),
        (json("{\"specversion\":\"1.0\"}"), "`id` is missing"),
        ((None, vec![b'x'; 1_001]), "1001 bytes, of at most 1000"),
    ];
    for ((media, body), _) in &table {
        let headers = media.map_or_else(OwnedHeaders::new, |value| {
            OwnedHeaders::new().insert(Header { key: "content-type", value: Some(value) })
        });
        let record: FutureRecord<'_, (), Vec<u8>> =
            FutureRecord::to(&topic).payload(body).headers(headers);
        stranger.send(record, SOON).await.expect("taken");
    }
    ours.publish(&numbered(7, "k")).await.expect("confirmed");
    let mut subscriber = subscriber(&topic, 1).max_payload(1_000);
    next(&mut subscriber).await.ack().await.expect("accepted");
    for ((_, body), reason) in &table {
        let delivery = next(&mut subscriber).await;
        let problem = delivery.message.as_ref().expect_err("it cannot be read");
        assert!(problem.contains(reason), "{problem}");
        assert_eq!(delivery.raw.as_deref(), Some(&body[..]));
        delivery.reject(reason).await.expect("accepted");
    }
    assert_eq!(number(&next(&mut subscriber).await), 7);
}

#[tokio::test]
async fn a_missing_topic_is_reported_and_received_from_once_it_exists() {
    let topic = name("later");
    let mut early = outbox_kafka::KafkaSubscriber::new(url(), &topic)
        .expect("brokers")
        .topic(&topic)
        .set("topic.metadata.refresh.interval.ms", "500");
    let error = timeout(SOON, early.next())
        .await
        .expect("the fault is reported")
        .expect_err("it is not there");
    assert!(outbox_core::failure::full_text(&error).contains("Unknown topic"), "{error:?}");
    publisher(&topic, 1).publish(&numbered(1, "k")).await.expect("confirmed");
    let delivery = async {
        loop {
            if let Ok(Some(delivery)) = early.next().await {
                return delivery;
            }
        }
    };
    assert_eq!(
        number(&timeout(SOON, delivery).await.expect("it comes when the topic is there")),
        1
    );
}
