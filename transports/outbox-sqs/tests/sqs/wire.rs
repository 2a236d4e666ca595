//! What stands in a queue.

use crate::support::{
    FIFO, STANDARD, client, full, message_with, next, publisher, publisher_at, start, subscriber,
};
use aws_sdk_sqs::types::Message as Raw;
use outbox_core::transport::{Publisher, Subscriber, cloudevents::PlainJson};
use std::collections::BTreeMap;

fn attributes(message: &Raw) -> BTreeMap<&str, &str> {
    let all = message.message_attributes.iter().flatten();
    all.filter_map(|(name, value)| Some((name.as_str(), value.string_value()?))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_body_is_the_events_json_and_attributes_are_copies_for_filters() {
    let (server, sent) = (start().await, full());
    let receipt = publisher(&server).publish(&sent).await.expect("confirmed");
    assert_eq!(receipt.destination.as_deref(), Some(STANDARD));
    let messages = client(&server).peek(STANDARD).await;
    let [message] = messages.as_slice() else { panic!("one message: {messages:?}") };
    let body = message.body().expect("a body");
    for part in ["\"partitionkey\":\"order-7\"", "\"data\":{\"total\":100}", "\"tenant\":\"t-1\""] {
        assert!(body.contains(part), "{part}: {body}");
    }
    let found = attributes(message);
    let id = sent.id.to_string();
    for (name, value) in [
        ("content-type", "application/cloudevents+json"),
        ("ce_specversion", "1.0"),
        ("ce_id", id.as_str()),
        ("ce_source", "/services/shop"),
        ("ce_type", "order.placed"),
        ("ce_time", "2023-11-14T22:13:20.123456Z"),
        ("ce_partitionkey", "order-7"),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_binary_mode_the_body_is_the_payload_and_the_attributes_are_never_more_than_nine() {
    let server = start().await;
    let sent = message_with(|m| {
        for n in 0..50 {
            m.headers.insert(format!("own{n}"), "value").expect("legal");
        }
    });
    publisher(&server).binary().publish(&sent).await.expect("confirmed");
    let messages = client(&server).peek(STANDARD).await;
    assert_eq!(messages[0].body(), Some("{\"total\":100}"));
    let found = attributes(&messages[0]);
    assert_eq!(found.len(), 9, "{found:?}");
    assert_eq!(found["content-type"], "application/json");
    assert!(found["ce_attributes"].contains("\"own49\":\"value\""), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_topic_is_a_queue_with_a_prefix_and_fifo_where_configured() {
    let server = start().await;
    for queue in ["shop-orders.fifo", "shop-payments.fifo"] {
        publisher_at(&server.url(), queue).publish(&full()).await.expect("declared");
    }
    let publisher = outbox_sqs::SqsPublisher::new(server.url()).expect("a URL").prefix("shop-");
    let publisher = publisher.fifo();
    for topic in ["orders", "payments", "orders"] {
        let message = message_with(|m| m.topic = topic.to_owned());
        publisher.publish(&message).await.expect("confirmed");
    }
    let client = client(&server);
    assert_eq!(client.depth("shop-orders.fifo").await.0, 1 + 2);
    assert_eq!(client.depth("shop-payments.fifo").await.0, 1 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_others_are_read_where_configured_and_else_delivered_as_unreadable() {
    let server = start().await;
    publisher(&server).publish(&full()).await.expect("declared");
    let client = client(&server);
    let attributes = [("type", "order.placed"), ("message-id", "17")];
    client.send(STANDARD, "{\"n\":1}", &attributes).await;
    let mut reading = subscriber(&server).plain_json(PlainJson::new("type", "/legacy"));
    let mut sources = Vec::new();
    for _ in 0..2 {
        let delivery = next(&mut reading).await;
        sources.push(delivery.message.as_ref().expect("readable").source.clone());
        delivery.ack().await.expect("acknowledged");
    }
    sources.sort_unstable();
    assert_eq!(sources, ["/legacy", "/services/shop"]);
    reading.close().await;

    client.send(STANDARD, "no event", &[]).await;
    let mut other = subscriber(&server);
    let delivery = next(&mut other).await;
    let problem = delivery.message.as_ref().expect_err("no CloudEvent");
    assert!(problem.contains("plain_json"), "{problem}");
    assert_eq!(delivery.raw.as_deref(), Some(&b"no event"[..]));
    delivery.reject("unreadable").await.expect("acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fifo_queue_has_the_key_as_group_and_the_id_against_repeats() {
    use aws_sdk_sqs::types::MessageSystemAttributeName as System;
    let (server, sent) = (start().await, full());
    publisher_at(&server.url(), FIFO).publish(&sent).await.expect("confirmed");
    let client = client(&server);
    let request = client.sqs.receive_message().queue_url(client.url(FIFO).await);
    let reply = request.message_system_attribute_names(System::All).send().await;
    let messages = reply.expect("received").messages.expect("one came");
    let system = messages[0].attributes.as_ref().expect("it has some");
    assert_eq!(system.get(&System::MessageGroupId).map(String::as_str), Some("order-7"));
    let id = sent.id.to_string();
    assert_eq!(system.get(&System::MessageDeduplicationId), Some(&id));
}
