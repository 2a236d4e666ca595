//! The names on the wire, seen by a client that never heard of this project.

use crate::support::{STREAM, client, full, next, publisher, subscriber};
use async_nats::HeaderMap;
use outbox_core::{event::Message, transport::Publisher};
use outbox_nats::NatsSubscriber;
use tests::servers::nats;

async fn sent(structured: bool) -> (Message, HeaderMap, Vec<u8>) {
    let server = nats::start().await;
    let publisher = publisher(&server);
    let publisher = if structured { publisher.structured() } else { publisher };
    let message = full();
    publisher.publish(&message).await.expect("confirmed");
    let stored = client(&server).await.get_stream(STREAM).await.expect("it is there");
    let stored = stored.get_raw_message(1).await.expect("it is stored");
    assert_eq!(&*stored.subject, "orders");
    (message, stored.headers, stored.payload.to_vec())
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.as_str())
}

#[tokio::test]
async fn binary_mode_has_attributes_in_headers_and_the_payload_untouched() {
    let (message, headers, payload) = sent(false).await;
    assert_eq!(payload, b"{\"total\":100}");
    let id = message.id.to_string();
    for (name, value) in [
        ("Nats-Msg-Id", id.as_str()),
        ("ce-id", id.as_str()),
        ("ce-specversion", "1.0"),
        ("ce-source", "/services/shop"),
        ("ce-type", "order.placed"),
        ("ce-subject", "order-7"),
        ("ce-partitionkey", "order-7"),
        ("ce-time", "2023-11-14T22:13:20.123456Z"),
        ("ce-datacontenttype", "application/json"),
        ("ce-eventversion", "3"),
        ("ce-tenant", "t-1"),
        ("ce-traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ] {
        assert_eq!(header(&headers, name), Some(value), "{name}");
    }
    assert_eq!(header(&headers, "Content-Type"), None, "it would say structured mode to some");
}

#[tokio::test]
async fn structured_mode_is_one_json_object() {
    let (message, headers, payload) = sent(true).await;
    assert_eq!(header(&headers, "Content-Type"), Some("application/cloudevents+json"));
    assert_eq!(header(&headers, "Nats-Msg-Id"), Some(message.id.to_string().as_str()));
    assert_eq!(headers.len(), 2);
    let body = String::from_utf8(payload).expect("text");
    assert!(
        body.starts_with("{\"specversion\":\"1.0\"") && body.ends_with("\"data\":{\"total\":100}}"),
        "{body}"
    );
}

/// Publishes by the test's own client and receives by the transport.
async fn received(
    headers: &[(&str, &str)],
    body: &'static str,
    configure: impl FnOnce(NatsSubscriber) -> NatsSubscriber,
) -> Result<Message, String> {
    let server = nats::start().await;
    publisher(&server).publish(&full()).await.expect("declared");
    let mut subscriber = configure(subscriber(&server));
    next(&mut subscriber).await.ack().await.expect("accepted");
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, *value);
    }
    let context = client(&server).await;
    let publish = context.publish_with_headers("orders.foreign", map, body.into()).await;
    publish.expect("sent").await.expect("stored");
    next(&mut subscriber).await.message.clone()
}

#[tokio::test]
async fn events_of_other_tools_are_read() {
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "A-1"),
        ("CE-Type", "order.placed"),
        ("ce-source", "/java"),
        ("ce-time", "2023-11-14T22:13:20Z"),
        ("ce-city", "\"K\u{f6}ln %41\""),
        ("content-type", "text/plain"),
        ("X-Their-Own", "left out"),
    ];
    let message = received(&headers, "hello", |subscriber| subscriber).await.expect("readable");
    assert_eq!(
        (message.source.as_str(), message.event_type.as_str(), &message.payload[..]),
        ("/java", "order.placed", &b"hello"[..])
    );
    assert_eq!(
        (message.topic.as_str(), message.content_type.as_str()),
        ("orders.foreign", "text/plain")
    );
    assert_eq!(message.created_at.as_micros(), 1_700_000_000_000_000);
    assert_eq!(message.headers.get("originalid"), Some("A-1"));
    assert_eq!(message.headers.get("city"), Some("K\u{f6}ln A"));
}

#[tokio::test]
async fn a_message_without_attributes_is_read_where_that_is_asked_for() {
    let headers = [("Nats-Msg-Id", "I-1"), ("type", "invoice.sent"), ("tenant", "t-9")];
    let message = received(&headers, "{}", |s| s.plain("/legacy")).await.expect("readable");
    assert_eq!((message.event_type.as_str(), message.source.as_str()), ("invoice.sent", "/legacy"));
    assert_eq!(message.headers.get("tenant"), Some("t-9"));
    let error = received(&headers, "{}", |s| s).await.expect_err("not asked for");
    assert!(error.contains("no attributes of CloudEvents"), "{error}");
}
