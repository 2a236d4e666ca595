//! Arbitrary fields are a message or a clear error, and an encoded message reads back.

use super::*;
use outbox_core::testing::transport::{
    attributes_with_control_characters_are_refused as refused, full,
};
use proptest::{collection::vec, prelude::*};

const ADDED_AT: Timestamp = Timestamp::from_micros(1_700_000_000_123_000);

fn fields(list: &[(&str, &[u8])]) -> Vec<Field> {
    let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    list.iter().map(|(name, value)| (bytes(name.as_bytes()), bytes(value))).collect()
}

fn written(message: &Message, structured: bool) -> Vec<Field> {
    let bytes = |name: Cow<'static, str>| Bytes::from(name.into_owned());
    write(message, structured).into_iter().map(|(name, value)| (bytes(name), value)).collect()
}

fn read_default(fields: &[Field]) -> Result<Message, String> {
    read(&ReadOptions::default(), "orders", fields, ADDED_AT)
}

#[test]
fn both_modes_read_back() {
    for structured in [false, true] {
        let message = full();
        let fields = written(&message, structured);
        assert_eq!(fields.len() == 2, structured);
        let back = read_default(&fields).expect("readable");
        assert_eq!(back.into_parts(), message.into_parts());
    }
}

#[test]
fn a_payload_that_is_a_cloud_event_goes_in_structured_mode() {
    let mut parts = full().into_parts();
    parts.content_type = "application/cloudevents+json".into();
    let fields = written(&Message::new(parts), false);
    assert!(fields.len() == 2 && fields[1].1.starts_with(b"{\"specversion\""));
}

#[test]
fn a_foreign_entry_gets_its_topic_and_time_from_redis_and_may_have_no_payload() {
    let list = fields(&[
        ("ce_specversion", b"1.0"),
        ("ce_id", b"7"),
        ("ce_source", b"/x"),
        ("ce_type", b"t"),
    ]);
    let message = read_default(&list).expect("readable");
    assert_eq!((message.topic.as_str(), message.payload.len()), ("orders", 0));
    assert_eq!(message.created_at, ADDED_AT);
}

#[test]
fn attributes_with_control_characters_are_refused() {
    refused(|list| {
        let name_of = |attribute: &str| match attribute {
            DATA_CONTENT_TYPE => CONTENT_TYPE.to_owned(),
            attribute => [PREFIX, attribute].concat(),
        };
        let names: Vec<_> =
            list.iter().map(|(name, value)| (name_of(name), value.as_bytes())).collect();
        let list: Vec<_> = names.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        read_default(&fields(&list))
    });
}

#[test]
fn the_cause_of_a_dead_letter_replaces_the_one_of_an_earlier_death() {
    let cause = |stream: &str| DeadEntry {
        stream: stream.into(),
        entry: "1700000000000-3".into(),
        group: "billing".into(),
        deliveries: 2,
        class: "Rejected".into(),
        message: "no such customer: ü".into(),
    };
    let first = cause("orders").fields(&written(&full(), false));
    let second = cause("orders:dead").fields(&first);
    assert_eq!(first.len(), second.len());
    let message = read_default(&second).expect("readable");
    assert_eq!(DeadEntry::of(&message), Some(cause("orders:dead")));
    assert_eq!(DeadEntry::of(&full()), None);
}

#[test]
fn a_long_reason_is_one_bounded_line() {
    let reason = format!("line\r\n{}", "ü".repeat(2_000));
    let kept = shortened(&reason);
    assert!(kept.len() <= MAX_REASON && kept.starts_with("line  ü"), "{} bytes", kept.len());
}

#[test]
fn the_error_of_an_entry_that_is_no_cloud_event_names_the_setting_that_reads_it() {
    let error = |options: &ReadOptions, list: &[(&str, &[u8])]| {
        read(options, "orders", &fields(list), ADDED_AT).expect_err("not readable")
    };
    let default = ReadOptions::default();
    assert!(error(&default, &[("type", b"t")]).contains("RedisSubscriber::plain_json"));
    let plain = ReadOptions { plain_json: Some(PlainJson::new("type", "/plain")) };
    assert!(error(&plain, &[("other", b"t")]).contains("nor the field for its type"));
    let batch: (&str, &[u8]) = ("content-type", b"application/cloudevents-batch+json");
    assert!(error(&default, &[batch]).contains("only application/cloudevents+json"));
    assert!(error(&default, &[("ce_id", &[0xff])]).contains("`ce_id` is no UTF-8"));
    assert!(error(&default, &[("data", b"1"), ("data", b"2")]).contains("`data` is there twice"));
}

#[test]
fn plain_json_is_read_from_the_field_of_the_payload_and_the_others() {
    let plain = ReadOptions { plain_json: Some(PlainJson::new("type", "/plain")) };
    let list = fields(&[
        ("type", b"order.placed"),
        ("message-id", b"17"),
        ("tenant", b"acme"),
        ("data", b"{\"total\":3}"),
    ]);
    let message = read(&plain, "orders", &list, ADDED_AT).expect("readable");
    assert_eq!(message.event_type, "order.placed");
    assert_eq!(message.headers.get("tenant"), Some("acme"));
    assert_eq!(message.payload, Bytes::from_static(b"{\"total\":3}"));
}

proptest! {
    /// No entry of another producer makes the reader panic.
    #[test]
    fn arbitrary_entries_are_messages_or_errors(
        list in vec(("(ce_)?(id|source|type|specversion|time|topic|own1)|content-type|data|dead_stream|.{0,8}", vec(any::<u8>(), 0..20)), 0..8),
        micros in any::<i64>(),
    ) {
        let list: Vec<_> = list.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let options = ReadOptions { plain_json: Some(PlainJson::new("type", "/plain")) };
        let _ = read(&options, "orders", &fields(&list), Timestamp::from_micros(micros));
    }
}
