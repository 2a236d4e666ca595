//! Arbitrary headers are a message or a clear error, and an encoded message reads back.

use super::*;
use outbox_core::{
    telemetry::{TraceBackend, install_traces},
    testing::transport::{attributes_with_control_characters_are_refused as refused, full},
};
use proptest::{collection::vec, option, prelude::*};

fn record<'r>(key: Option<&'r [u8]>) -> Record<'r> {
    Record {
        topic: "orders",
        key,
        timestamp: Some(1_700_000_000_123),
        received_at: Timestamp::from_micros(5),
    }
}

fn headers(list: &[(String, Option<Vec<u8>>)]) -> OwnedHeaders {
    list.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: value.as_ref() })
    })
}

fn named(list: &[(&str, &str)]) -> OwnedHeaders {
    let list: Vec<_> = list
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec())))
        .collect();
    headers(&list)
}

#[test]
fn both_modes_read_back() {
    for structured in [false, true] {
        let message = full();
        let (headers, body) = write(&message, structured);
        assert_eq!(headers.count() == 1, structured);
        let back =
            read(&ReadOptions::default(), record(None), Some(&headers), body).expect("readable");
        assert_eq!(back.into_parts(), message.into_parts());
    }
}

#[test]
fn a_payload_that_is_a_cloud_event_goes_in_structured_mode() {
    let mut parts = full().into_parts();
    parts.content_type = "application/cloudevents+json".into();
    let (headers, body) = write(&Message::new(parts), false);
    assert!(headers.count() == 1 && body.starts_with(b"{\"specversion\""));
}

#[test]
fn a_foreign_record_gets_its_key_topic_and_time_from_kafka() {
    let list =
        named(&[("ce_specversion", "1.0"), ("ce_id", "7"), ("ce_source", "/x"), ("ce_type", "t")]);
    let message =
        read(&ReadOptions::default(), record(Some(b"order-7")), Some(&list), Bytes::new())
            .expect("readable");
    assert_eq!((message.key.as_deref(), message.topic.as_str()), (Some("order-7"), "orders"));
    assert_eq!(message.created_at.as_micros(), 1_700_000_000_123_000);
    for key in [&[0xff][..], b"a\0b", b"a\nb", "a\u{85}b".as_bytes(), &[b'k'; 256], b""] {
        let message = read(&ReadOptions::default(), record(Some(key)), Some(&list), Bytes::new())
            .expect("readable");
        assert_eq!(
            message.key, None,
            "a record key that is no legal message key still orders: {key:?}"
        );
    }
}

#[test]
fn attributes_with_control_characters_are_refused() {
    refused(|list| {
        let names: Vec<_> = list.iter().map(|(name, value)| (name_of(name), *value)).collect();
        let headers =
            named(&names.iter().map(|(name, value)| (&**name, *value)).collect::<Vec<_>>());
        read(&ReadOptions::default(), record(None), Some(&headers), Bytes::new())
    });
}

fn name_of(attribute: &str) -> String {
    if attribute == DATA_CONTENT_TYPE {
        CONTENT_TYPE.to_owned()
    } else {
        [PREFIX, attribute].concat()
    }
}

#[test]
fn the_cause_of_a_dead_letter_is_read_from_the_last_of_its_headers() {
    let cause = DeadLetterCause {
        topic: "orders".into(),
        partition: 3,
        offset: 42,
        class: "Rejected".into(),
        message: "no such customer: ü".into(),
    };
    let (written, body) = write(&full(), false);
    let older = written.insert(Header { key: "__connect.errors.topic", value: Some("older") });
    let list = cause
        .headers()
        .iter()
        .fold(older, |l, (key, value)| l.insert(Header { key, value: Some(value) }));
    let message = read(&ReadOptions::default(), record(None), Some(&list), body).expect("readable");
    assert_eq!(DeadLetterCause::of(&message), Some(cause));
    assert_eq!(DeadLetterCause::of(&full()), None);
}

#[test]
fn the_error_of_a_record_that_is_no_cloud_event_names_the_setting_that_reads_it() {
    let error = |options: &ReadOptions, list: &OwnedHeaders| {
        read(options, record(None), Some(list), Bytes::new()).unwrap_err()
    };
    assert!(
        error(&ReadOptions::default(), &named(&[("type", "t")]))
            .contains("KafkaSubscriber::plain_json")
    );
    let plain = ReadOptions { plain_json: Some(PlainJson::new("type", "/plain")) };
    assert!(error(&plain, &named(&[("other", "t")])).contains("nor the header for its type"));
    let batch = named(&[("content-type", "application/cloudevents-batch+json")]);
    assert!(error(&ReadOptions::default(), &batch).contains("only application/cloudevents+json"));
    let broken = headers(&[("ce_id".to_owned(), Some(vec![0xff]))]);
    assert!(error(&ReadOptions::default(), &broken).contains("`ce_id` is no UTF-8"));
}

proptest! {
    /// No record of another producer makes the reader panic.
    #[test]
    fn arbitrary_records_are_messages_or_errors(
        list in vec(("(ce_)?(id|source|type|specversion|time|topic|own1)|content-type|__connect.errors.topic|.{0,8}", option::of(vec(any::<u8>(), 0..20))), 0..8),
        key in option::of(vec(any::<u8>(), 0..300)),
        timestamp in option::of(any::<i64>()),
        body in vec(any::<u8>(), 0..60),
    ) {
        let list: Vec<_> = list.into_iter().filter(|(name, _)| !name.contains('\0')).collect();
        let options = ReadOptions { plain_json: Some(PlainJson::new("type", "/plain")) };
        let record = Record { timestamp, ..record(key.as_deref()) };
        let _ = read(&options, record, Some(&headers(&list)), body.into());
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
        let (headers, body) =
            tracing::subscriber::with_default(tracing_subscriber::registry(), || {
                tracing::info_span!("send").in_scope(|| write(&message, structured))
            });
        let list = texts(Some(&headers)).expect("texts");
        let value = |name: &str| {
            list.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        assert_eq!((value("traceparent"), value("tracestate")), (Some(HOP), Some("vendor=1")));
        assert_eq!(value("ce_traceparent"), (!structured).then_some(&*created));
        let back = read(&ReadOptions::default(), record(None), Some(&headers), body);
        assert_eq!(back.expect("readable").headers.get("traceparent"), Some(&*created));
    }
}
