//! Arbitrary headers are a message or a clear error, and an encoded message reads back.

use super::*;
use outbox_core::{
    telemetry::{TraceBackend, install_traces},
    testing::transport::{attributes_with_control_characters_are_refused as refused, full},
};
use proptest::{collection::vec, prelude::*};

fn read_back(encoded: &EncodedMessage) -> Result<Message, String> {
    let (headers, body) = (Some(&encoded.headers), encoded.body.clone());
    read(&ReadOptions::default(), "orders", headers, body, Timestamp::from_micros(0))
}

fn map(list: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        let name: HeaderName = name.parse().expect("a name");
        headers.append(name, value.parse::<HeaderValue>().expect("a value"));
    }
    headers
}

fn read_with(
    options: &ReadOptions,
    list: &[(&str, &str)],
    body: &'static str,
) -> Result<Message, String> {
    let headers = map(list);
    let headers = (!list.is_empty()).then_some(&headers);
    read(options, "shop.orders", headers, body.into(), Timestamp::from_micros(7))
}

#[test]
fn both_modes_read_back_and_have_the_message_id_and_their_size() {
    let message = full();
    let sent = |structured| write(&message, structured).expect("encoded");
    for (encoded, structured) in [(sent(false), false), (sent(true), true)] {
        let id = encoded.headers.get(MESSAGE_ID).map(|id| id.as_str().to_owned());
        assert_eq!(id, Some(message.id.to_string()));
        assert_eq!(encoded.headers.get("ce-id").is_some(), !structured);
        let headers: usize =
            texts(Some(&encoded.headers)).map(|(n, v)| n.len() + v.len() + 4).sum();
        assert_eq!(encoded.size, 12 + headers + encoded.body.len());
        assert_eq!(
            read_back(&encoded).map(Message::into_parts),
            Ok(message.clone().into_parts()),
            "structured: {structured}"
        );
    }
    assert_eq!(sent(false).body, message.payload);
}

#[test]
fn the_bindings_own_example_is_encoded_as_it_says_and_quoted_values_are_read() {
    assert_eq!(encode("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
    for (value, expected) in [
        ("Euro%20%e2%82%ac", Some("Euro €")),
        ("\"a \\\"b\\\" %41\"", Some("a \"b\" A")),
        ("%C0%A0", None),
        ("\"", Some("\"")),
        ("", Some("")),
    ] {
        assert_eq!(decode(value).as_deref(), expected, "{value}");
    }
}

#[test]
fn attributes_with_control_characters_are_refused() {
    refused(|list| {
        let list: Vec<_> = list
            .iter()
            .map(|(name, value)| ([PREFIX, name].concat(), encode(value).into_owned()))
            .collect();
        let list: Vec<_> =
            list.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        read_with(&ReadOptions::default(), &list, "")
    });
}

#[test]
fn names_are_read_without_case_and_a_doubled_one_is_refused() {
    let base = [("CE-SpecVersion", "1.0"), ("Ce-Id", "1"), ("ce-Source", "/s"), ("cE-type", "t")];
    let options = ReadOptions::default();
    let message = read_with(&options, &base, "{}").expect("a message");
    assert_eq!((message.event_type.as_str(), message.topic.as_str()), ("t", "shop.orders"));
    assert_eq!(message.created_at.as_micros(), 7);
    let media = [base.as_slice(), &[("content-type", "text/plain")]].concat();
    assert_eq!(read_with(&options, &media, "").expect("a message").content_type, "text/plain");
    let twice = [base.as_slice(), &[("ce-id", "2")]].concat();
    let error = read_with(&options, &twice, "{}").expect_err("two identities");
    assert!(error.contains("`id` is there twice"), "{error}");
}

#[test]
fn structured_mode_is_recognised_by_its_media_type_or_where_there_are_no_headers() {
    let body = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{}}"#;
    let options = ReadOptions::default();
    for headers in [&[][..], &[("Content-Type", "Application/CloudEvents+JSON; charset=utf-8")]] {
        assert_eq!(read_with(&options, headers, body).expect("a message").event_type, "t");
    }
    for media in ["application/cloudevents-batch+json", "application/cloudevents+avro"] {
        let error = read_with(&options, &[("content-type", media)], body).expect_err(media);
        assert!(error.contains("only application/cloudevents+json"), "{error}");
    }
}

#[test]
fn other_messages_are_read_where_that_is_asked_for() {
    let headers = [("Nats-Msg-Id", "I-1"), ("tenant", "t-9"), ("X-Other", "left out")];
    let refusing = ReadOptions::default();
    let error = read_with(&refusing, &headers, "{}").expect_err("no CloudEvent");
    assert!(error.contains("NatsSubscriber::plain"), "{error}");

    let plain = ReadOptions { plain_source: Some("/old".into()), ..ReadOptions::default() };
    let message = read_with(&plain, &headers, "x").expect("a message");
    assert_eq!((message.event_type.as_str(), message.source.as_str()), ("shop.orders", "/old"));
    assert_eq!(message.headers.get("originalid"), Some("I-1"));
    assert_eq!((message.headers.get("tenant"), message.headers.len()), (Some("t-9"), 2));

    let json = PlainJson::new("x-type", "/legacy").key_header("x-key");
    let asked = ReadOptions { plain_json: Some(json), ..ReadOptions::default() };
    let typed = [headers.as_slice(), &[("X-Type", "invoice.sent"), ("x-key", "7")]].concat();
    let message = read_with(&asked, &typed, "{\"n\":1}").expect("a message");
    assert_eq!((message.event_type.as_str(), message.key.as_deref()), ("invoice.sent", Some("7")));
    assert_eq!(message.headers.get("originalid"), Some("I-1"));
    let error = read_with(&asked, &headers, "{}").expect_err("it has no type");
    assert!(error.contains("nor the header for its type"), "{error}");
}

proptest! {
    #[test]
    fn every_text_reads_back_and_is_plain_ascii_on_the_wire(text in any::<String>()) {
        let encoded = encode(&text);
        prop_assert!(encoded.bytes().all(|b| (0x21..0x7f).contains(&b)), "{}", encoded);
        prop_assert_eq!(decode(&encoded), Some(text));
    }

    #[test]
    fn any_headers_are_an_event_or_a_clear_error(
        list in vec(("((ce|CE)-(id|type|source|specversion|time|data|[a-z]{1,9})|content-type|[a-z-]{1,9})", "[ -~é]{0,20}"), 0..12),
        body in vec(any::<u8>(), 0..60),
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
                headers.append(name, value);
            }
        }
        let plain = ReadOptions { plain_source: Some("/plain".to_owned()), ..ReadOptions::default() };
        for options in [ReadOptions::default(), plain] {
            let read = read(&options, "x", Some(&headers), Bytes::from(body.clone()), Timestamp::from_micros(0));
            if let Err(text) = read {
                prop_assert!(text.len() < 300, "{}", text);
            }
        }
    }
}

/// A tracing system in which every span has one context.
#[derive(Debug)]
struct OneContext;

const HOP: &str = "00-11111111111111111111111111111111-2222222222222222-01";

impl TraceBackend for OneContext {
    fn context(&self, _: &tracing::Span) -> Option<TraceContext> {
        Some(TraceContext { traceparent: HOP.to_owned(), tracestate: Some("vendor=1".to_owned()) })
    }

    fn place(&self, _: &tracing::Span, _: Option<&TraceContext>, _: &[TraceContext]) {}
}

#[test]
fn the_hop_is_in_headers_of_its_own_and_the_start_stays_in_its_attribute() {
    install_traces(OneContext);
    let message = full();
    let created = message.headers.get("traceparent").expect("the message has a context").to_owned();
    for structured in [false, true] {
        let encoded = tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            tracing::info_span!("send").in_scope(|| write(&message, structured))
        });
        let encoded = encoded.expect("encoded");
        let value = |name: &str| encoded.headers.get(name).map(|value| value.as_str().to_owned());
        assert_eq!(value("traceparent").as_deref(), Some(HOP));
        assert_eq!(value("tracestate").as_deref(), Some("vendor=1"));
        assert_eq!(value("ce-traceparent"), (!structured).then(|| created.clone()));
        let back = read_back(&encoded).expect("readable");
        assert_eq!(back.headers.get("traceparent"), Some(&*created));
    }
}
