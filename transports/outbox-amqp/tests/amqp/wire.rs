//! The names on the wire, seen by a client that never heard of this project.

use crate::support::{client, full, name, next, publisher, queue, subscriber, url};
use lapin::{
    BasicProperties,
    message::BasicGetMessage,
    types::{AMQPValue, FieldTable},
};
use outbox_amqp::{AmqpSubscriber, Topology};
use outbox_core::transport::{Publisher, cloudevents::PlainJson};

async fn sent(structured: bool) -> BasicGetMessage {
    let name = name("wire");
    let publisher = publisher().queue(&name).declare(Topology::new().queue(queue(&name)));
    let publisher = if structured { publisher.structured() } else { publisher };
    publisher.publish(&full()).await.expect("confirmed");
    let got =
        client(&url()).await.channel.basic_get(name.as_str().into(), Default::default()).await;
    got.expect("a reply").expect("a message")
}

fn header<'a>(message: &'a BasicGetMessage, name: &str) -> Option<&'a [u8]> {
    match message.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.as_bytes()),
        other => panic!("{name} is {other:?}"),
    }
}

#[tokio::test]
async fn binary_mode_has_attributes_in_headers_and_the_rest_in_properties() {
    let message = sent(false).await;
    assert_eq!(message.data, b"{\"total\":100}");
    let properties = &message.properties;
    assert_eq!(properties.content_type().as_ref().map(|t| t.as_str()), Some("application/json"));
    assert_eq!(properties.kind().as_ref().map(|t| t.as_str()), Some("order.placed"));
    assert_eq!(
        (properties.delivery_mode(), properties.timestamp()),
        (&Some(2), &Some(1_700_000_000))
    );
    let id = properties.message_id().as_ref().map(|id| id.as_str().as_bytes());
    assert_eq!(header(&message, "cloudEvents_id"), id);
    for (name, value) in [
        ("cloudEvents_specversion", "1.0"),
        ("cloudEvents_source", "/services/shop"),
        ("cloudEvents_type", "order.placed"),
        ("cloudEvents_subject", "order-7"),
        ("cloudEvents_partitionkey", "order-7"),
        ("cloudEvents_time", "2023-11-14T22:13:20.123456Z"),
        ("cloudEvents_eventversion", "3"),
        ("cloudEvents_tenant", "t-1"),
        ("cloudEvents_traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ] {
        assert_eq!(header(&message, name), Some(value.as_bytes()), "{name}");
    }
    assert_eq!(header(&message, "cloudEvents_datacontenttype"), None);
}

#[tokio::test]
async fn structured_mode_is_one_json_object() {
    let message = sent(true).await;
    let properties = &message.properties;
    assert_eq!(
        properties.content_type().as_ref().map(|t| t.as_str()),
        Some("application/cloudevents+json")
    );
    assert!(properties.message_id().is_some());
    assert_eq!(header(&message, "cloudEvents_id"), None);
    let body = String::from_utf8(message.data.clone()).expect("text");
    assert!(
        body.starts_with("{\"specversion\":\"1.0\"") && body.ends_with("\"data\":{\"total\":100}}"),
        "{body}"
    );
}

/// Publishes by the test's own client and receives by the transport.
async fn received(
    properties: BasicProperties,
    body: &[u8],
    configure: impl FnOnce(AmqpSubscriber) -> AmqpSubscriber,
) -> Result<outbox_core::event::Message, String> {
    let (name, client) = (name("stranger"), client(&url()).await);
    let topology = Topology::new().queue(queue(&name));
    publisher().queue(&name).declare(topology).publish(&full()).await.expect("declared");
    let mut subscriber = configure(subscriber(&name));
    next(&mut subscriber).await.ack().await.expect("accepted");
    let publish = client.channel.basic_publish(
        "".into(),
        name.as_str().into(),
        Default::default(),
        body,
        properties,
    );
    publish.await.expect("sent").await.expect("taken");
    next(&mut subscriber).await.message.clone()
}

fn as_it_is(subscriber: AmqpSubscriber) -> AmqpSubscriber {
    subscriber
}

fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

#[tokio::test]
async fn the_bindings_other_prefix_and_typed_values_are_read() {
    let headers = table([
        ("cloudEvents:specversion", text("1.0")),
        ("cloudEvents:id", text("A-1")),
        ("cloudEvents:type", text("order.placed")),
        ("cloudEvents_source", text("/java")),
        ("cloudEvents:time", AMQPValue::Timestamp(1_700_000_000)),
        ("cloudEvents:weight", AMQPValue::LongInt(-3)),
        ("cloudEvents:urgent", AMQPValue::Boolean(true)),
        ("x-their-own", AMQPValue::Void),
    ]);
    let properties =
        BasicProperties::default().with_content_type("text/plain".into()).with_headers(headers);
    let message = received(properties, b"hello", as_it_is).await.expect("readable");
    assert_eq!(
        (message.source.as_str(), message.event_type.as_str(), &message.payload[..]),
        ("/java", "order.placed", &b"hello"[..])
    );
    assert_eq!(message.created_at.as_micros(), 1_700_000_000_000_000);
    assert_eq!(
        (message.headers.get("weight"), message.headers.get("urgent")),
        (Some("-3"), Some("true"))
    );
    assert_eq!(
        (message.headers.get("originalid"), message.content_type.as_str()),
        (Some("A-1"), "text/plain")
    );
}

#[tokio::test]
async fn an_attribute_under_both_prefixes_is_refused_because_two_readers_could_see_two_events() {
    let headers = table([
        ("cloudEvents:specversion", text("1.0")),
        ("cloudEvents:id", text("1")),
        ("cloudEvents_id", text("2")),
        ("cloudEvents:type", text("t")),
        ("cloudEvents:source", text("/s")),
    ]);
    let error = received(BasicProperties::default().with_headers(headers), b"", as_it_is)
        .await
        .expect_err("refused");
    assert!(error.contains("`id` is there twice"), "{error}");
}

#[tokio::test]
async fn a_message_without_attributes_is_read_from_its_properties_where_that_is_asked_for() {
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_message_id("0190f1f0-0000-7000-8000-000000000001".into())
        .with_type("invoice.sent".into())
        .with_timestamp(1_700_000_000)
        .with_headers(table([("tenant", text("t-9")), ("X-Other", text("left out"))]));
    let message =
        received(properties, b"{\"n\":1}", |s| s.plain("/legacy")).await.expect("readable");
    assert_eq!((message.event_type.as_str(), message.source.as_str()), ("invoice.sent", "/legacy"));
    assert_eq!(message.id.to_string(), "0190f1f0-0000-7000-8000-000000000001");
    assert_eq!((message.headers.get("tenant"), message.headers.len()), (Some("t-9"), 1));
    assert_eq!(message.created_at.as_micros(), 1_700_000_000_000_000);
}

#[tokio::test]
async fn plain_json_with_a_header_for_its_type_is_read_where_that_is_asked_for() {
    let plain = || {
        PlainJson::new("x-event-type", "/legacy").key_header("x-order").version_header("x-version")
    };
    let asked = |subscriber: AmqpSubscriber| subscriber.plain_json(plain());
    let headers = || {
        vec![
            ("x-event-type", text("invoice.sent")),
            ("X-Order", AMQPValue::LongInt(7)),
            ("x-version", AMQPValue::ShortUInt(2)),
            ("tenant", text("t-9")),
            ("X-Other", text("left out")),
        ]
    };
    let properties = |headers: Vec<(&'static str, AMQPValue)>| {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert(name.into(), value);
        }
        BasicProperties::default()
            .with_message_id("I-1".into())
            .with_timestamp(1_700_000_000)
            .with_headers(table)
    };
    let message = received(properties(headers()), b"{\"n\":1}", asked).await.expect("readable");
    assert_eq!((message.event_type.as_str(), message.event_version), ("invoice.sent", 2));
    assert_eq!((message.source.as_str(), message.key.as_deref()), ("/legacy", Some("7")));
    assert_eq!(
        (message.headers.get("tenant"), message.headers.get("originalid")),
        (Some("t-9"), Some("I-1"))
    );
    assert_eq!((message.headers.len(), message.created_at.as_micros()), (2, 1_700_000_000_000_000));
    assert_eq!(
        (message.content_type.as_str(), &message.payload[..]),
        ("application/json", &b"{\"n\":1}"[..])
    );

    // An identity among the headers counts before the property.
    let mut own = headers();
    own.push(("Message-Id", text("I-2")));
    let message = received(properties(own), b"{}", asked).await.expect("readable");
    assert_eq!(message.headers.get("originalid"), Some("I-2"));
    // Without the header for the type it is read as before.
    let untyped = || properties(vec![("tenant", text("t-9"))]).with_type("invoice.paid".into());
    let error = received(untyped(), b"{}", asked).await.expect_err("refused");
    assert!(error.contains("nor the header for its type"), "{error}");
    let message = received(untyped(), b"{}", |s| asked(s).plain("/older")).await.expect("readable");
    assert_eq!((message.event_type.as_str(), message.source.as_str()), ("invoice.paid", "/older"));
    // And the property may be the type.
    let by_property =
        |subscriber: AmqpSubscriber| subscriber.plain_json(PlainJson::new("type", "/legacy"));
    assert_eq!(
        received(untyped(), b"{}", by_property).await.expect("readable").event_type,
        "invoice.paid"
    );

    let error = received(properties(headers()), b"{", asked).await.expect_err("refused");
    assert!(error.contains("not JSON"), "{error}");
    let nameless = properties(headers()).with_message_id("".into());
    let error = received(nameless, b"{}", asked).await.expect_err("refused");
    assert!(error.contains("`id`"), "{error}");
}
