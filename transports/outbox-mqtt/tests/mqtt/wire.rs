//! The names on the wire, seen by a client that never heard of this project.

use crate::support::{Client, TOPIC, connected, full, message_with, next, publisher, subscriber};
use outbox_core::{
    event::Message,
    transport::{Publisher, cloudevents::PlainJson},
};
use outbox_mqtt::MqttSubscriber;
use rumqttc::mqttbytes::v5::{Publish, PublishProperties};
use tests::servers::mosquitto;

async fn sent(structured: bool, message: &Message) -> Publish {
    let server = mosquitto::start().await;
    let mut client = Client::connect(&server, "stranger", Some(TOPIC)).await;
    let publisher = publisher(&server);
    let publisher = if structured { publisher.structured() } else { publisher };
    let (publish, confirmed) = tokio::join!(client.next(), publisher.publish(message));
    confirmed.expect("confirmed");
    publish
}

#[tokio::test]
async fn binary_mode_has_attributes_in_user_properties_and_the_payload_untouched() {
    let message = full();
    let publish = sent(false, &message).await;
    assert_eq!(&publish.payload[..], b"{\"total\":100}");
    let properties = publish.properties.expect("there are some");
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    let id = message.id.to_string();
    for (name, value) in [
        ("id", id.as_str()),
        ("specversion", "1.0"),
        ("source", "/services/shop"),
        ("type", "order.placed"),
        ("subject", "order-7"),
        ("partitionkey", "order-7"),
        ("time", "2023-11-14T22:13:20.123456Z"),
        ("eventversion", "3"),
        ("tenant", "t-1"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ] {
        let found: Vec<_> = properties
            .user_properties
            .iter()
            .filter(|(property, _)| property == name)
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(found, [value], "{name}");
    }
    assert!(!publish.retain, "an event is no state");
}

#[tokio::test]
async fn structured_mode_is_one_json_object_also_where_a_property_could_not_carry_a_header() {
    let odd = message_with(|m| {
        m.headers.insert("own", "\u{10ffff}").expect("legal");
    });
    for (structured, message) in [(true, full()), (false, odd)] {
        let publish = sent(structured, &message).await;
        let properties = publish.properties.expect("there are some");
        assert_eq!(properties.content_type.as_deref(), Some("application/cloudevents+json"));
        assert!(properties.user_properties.is_empty());
        let body = String::from_utf8(publish.payload.to_vec()).expect("text");
        assert!(body.starts_with("{\"specversion\":\"1.0\""), "{body}");
    }
}

/// Publishes by the test's own client and receives by the transport.
async fn received(
    list: &[(&str, &str)],
    media: Option<&str>,
    body: &'static str,
    configure: impl FnOnce(MqttSubscriber) -> MqttSubscriber,
) -> Result<Message, String> {
    let server = mosquitto::start().await;
    let mut subscriber = connected(configure(subscriber(&server))).await;
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let properties = PublishProperties {
        user_properties: list.iter().map(owned).collect(),
        content_type: media.map(str::to_owned),
        ..PublishProperties::default()
    };
    let mut client = Client::connect(&server, "stranger", None).await;
    client.publish(properties, body).await;
    next(&mut subscriber).await.message.clone()
}

#[tokio::test]
async fn events_of_other_tools_are_read() {
    let list = [
        ("specversion", "1.0"),
        ("id", "A-1"),
        ("type", "order.placed"),
        ("source", "/java"),
        ("time", "2023-11-14T22:13:20Z"),
        ("city", "K\u{f6}ln"),
        ("X-Their-Own", "left out"),
    ];
    let message =
        received(&list, Some("text/plain"), "hello", |subscriber| subscriber).await.expect("read");
    assert_eq!(
        (message.source.as_str(), message.event_type.as_str(), &message.payload[..]),
        ("/java", "order.placed", &b"hello"[..])
    );
    assert_eq!((message.topic.as_str(), message.content_type.as_str()), (TOPIC, "text/plain"));
    assert_eq!(message.created_at.as_micros(), 1_700_000_000_000_000);
    assert_eq!(message.headers.get("originalid"), Some("A-1"));
    assert_eq!(message.headers.get("city"), Some("K\u{f6}ln"));
}

#[tokio::test]
async fn an_event_of_a_client_of_mqtt_3_and_plain_json_are_read() {
    const EVENT: &str =
        "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/old\",\"type\":\"t\",\"data\":1}";
    let message = received(&[], None, EVENT, |subscriber| subscriber).await.expect("read");
    assert_eq!((message.source.as_str(), &message.payload[..]), ("/old", &b"1"[..]));
    let list = [("type", "invoice.sent"), ("message-id", "17"), ("tenant", "t-9")];
    let plain = |s: MqttSubscriber| s.plain_json(PlainJson::new("type", "/legacy"));
    let message = received(&list, None, "{}", plain).await.expect("read");
    assert_eq!((message.event_type.as_str(), message.source.as_str()), ("invoice.sent", "/legacy"));
    let error = received(&list, None, "{}", |s| s).await.expect_err("not asked for");
    assert!(error.contains("MqttSubscriber::plain_json"), "{error}");
}
