//! What stands in a stream.

use crate::support::{client, full, message_with, next, publisher, subscriber};
use outbox_core::transport::{Publisher, Subscriber};
use std::{collections::BTreeMap, time::Duration};
use tests::servers::redis as server;

type Entries = Vec<(String, BTreeMap<String, String>)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_are_fields_and_the_payload_is_untouched() {
    let server = server::start().await;
    let sent = full();
    let receipt = publisher(&server).publish(&sent).await.expect("confirmed");
    let entries: Entries = client(&server).await.ask("XRANGE orders - +").await;
    let [(id, fields)] = entries.as_slice() else { panic!("one entry: {entries:?}") };
    assert_eq!(receipt.destination.as_deref(), Some("orders"));
    assert_eq!(receipt.position.map(|n| n.to_string()).as_deref(), id.split('-').next());
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", sent.id.to_string().as_str()),
        ("ce_source", "/services/shop"),
        ("ce_type", "order.placed"),
        ("ce_partitionkey", "order-7"),
        ("ce_subject", "order-7"),
        ("ce_time", "2023-11-14T22:13:20.123456Z"),
        ("ce_topic", "orders"),
        ("ce_tenant", "t-1"),
        ("content-type", "application/json"),
        ("data", "{\"total\":100}"),
    ] {
        assert_eq!(fields.get(name).map(String::as_str), Some(value), "{name}: {fields:?}");
    }
    assert!(!fields.contains_key("ce_datacontenttype"), "{fields:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn structured_mode_is_one_json_object_and_its_media_type() {
    let server = server::start().await;
    publisher(&server).structured().publish(&full()).await.expect("confirmed");
    let entries: Entries = client(&server).await.ask("XRANGE orders - +").await;
    let fields = &entries[0].1;
    assert_eq!(fields.len(), 2, "{fields:?}");
    assert_eq!(fields["content-type"], "application/cloudevents+json");
    assert!(fields["data"].contains("\"partitionkey\":\"order-7\""), "{fields:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_topic_is_a_stream_and_one_subscriber_reads_several() {
    let server = server::start().await;
    let publisher = outbox_redis::RedisPublisher::new(server.url()).expect("a URL").prefix("shop:");
    for topic in ["orders", "payments", "orders"] {
        let message = message_with(|m| m.topic = topic.to_owned());
        publisher.publish(&message).await.expect("confirmed");
    }
    let client = client(&server).await;
    let lengths: (u64, u64) =
        (client.ask("XLEN shop:orders").await, client.ask("XLEN shop:payments").await);
    assert_eq!(lengths, (2, 1));
    let mut subscriber = outbox_redis::RedisSubscriber::new(server.url(), "billing")
        .expect("a URL")
        .stream("shop:orders")
        .stream("shop:payments");
    let mut topics = Vec::new();
    for _ in 0..3 {
        let delivery = next(&mut subscriber).await;
        topics.push(delivery.message.as_ref().expect("readable").topic.clone());
        delivery.ack().await.expect("acknowledged");
    }
    topics.sort_unstable();
    assert_eq!(topics, ["orders", "orders", "payments"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_trimmed_by_length_and_by_age_where_configured_and_not_otherwise() {
    const MESSAGES: u64 = 500;
    let server = server::start().await;
    let client = client(&server).await;
    // The server trims whole nodes of a stream: small ones here.
    client.ask::<()>("CONFIG SET stream-node-max-entries 10").await;
    let length = async |publisher: outbox_redis::RedisPublisher, stream: &str| {
        let publisher = publisher.stream(stream);
        for _ in 0..MESSAGES {
            publisher.publish(&full()).await.expect("confirmed");
        }
        client.ask::<u64>(&format!("XLEN {stream}")).await
    };
    assert_eq!(length(publisher(&server), "whole").await, MESSAGES);
    let short = length(publisher(&server).max_len(50), "short").await;
    assert!((50..100).contains(&short), "{short}");
    let age = Duration::from_millis(1);
    let young = length(publisher(&server).max_age(age), "young").await;
    assert!(young < MESSAGES / 2, "{young}");
    let old = length(publisher(&server).max_age(Duration::from_hours(1)), "old").await;
    assert_eq!(old, MESSAGES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_others_are_read_where_configured_and_else_delivered_as_unreadable() {
    let server = server::start().await;
    let client = client(&server).await;
    let entry = ["XADD", "orders", "*", "type", "order.placed", "message-id", "17", "data", "{}"];
    client.send::<String>(&entry).await;
    let plain = outbox_core::transport::cloudevents::PlainJson::new("type", "/legacy");
    let mut reading = subscriber(&server).plain_json(plain);
    let delivery = next(&mut reading).await;
    let message = delivery.message.as_ref().expect("readable");
    assert_eq!((message.event_type.as_str(), message.source.as_str()), ("order.placed", "/legacy"));
    drop(reading);
    drop(delivery);

    let mut other = subscriber(&server);
    let delivery = next(&mut other).await;
    let problem = delivery.message.as_ref().expect_err("no CloudEvent");
    assert!(problem.contains("plain_json"), "{problem}");
    assert_eq!(delivery.raw.as_deref(), Some(&b"{}"[..]));
    delivery.reject("unreadable").await.expect("acknowledged");
    other.close().await;

    client.send::<String>(&["XADD", "orders", "*", "data", &"x".repeat(2_000)]).await;
    let mut small = subscriber(&server).max_payload(1_000);
    let delivery = next(&mut small).await;
    let problem = delivery.message.as_ref().expect_err("too large");
    assert!(problem.contains("2000 bytes, of at most 1000"), "{problem}");
    delivery.ack().await.expect("acknowledged");
}
