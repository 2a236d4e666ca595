//! Arbitrary properties are a message or a clear error, and an encoded message reads back.

use super::*;
use outbox_core::testing::transport::{
    attributes_with_control_characters_are_refused as refused, full,
};
use proptest::{collection::vec, prelude::*};

fn plain_options() -> ReadOptions {
    ReadOptions { plain_source: Some("/plain".to_owned()), ..ReadOptions::default() }
}

fn read_back(encoded: &EncodedMessage) -> Result<Message, String> {
    read(
        &ReadOptions::default(),
        &encoded.properties,
        "",
        encoded.body.clone(),
        Timestamp::from_micros(0),
    )
}

#[test]
fn headers_that_do_not_fit_in_a_frame_go_in_the_body() {
    let message = full();
    let binary = write(&message, false, 131_072);
    assert!(binary.properties.headers().is_some());
    let structured = write(&message, false, 1_000);
    assert!(
        structured.properties.headers().is_none()
            && structured.body.starts_with(b"{\"specversion\"")
    );
    assert_eq!(
        read_back(&binary).map(|m| m.into_parts()).ok(),
        read_back(&structured).map(|m| m.into_parts()).ok()
    );
}

#[test]
fn attributes_with_control_characters_are_refused() {
    for prefix in [PREFIX, OTHER_PREFIX] {
        refused(|list| {
            let (mut table, mut properties) = (FieldTable::default(), BasicProperties::default());
            for (name, value) in list {
                if carries_content_type(name) {
                    properties = properties.with_content_type((*value).into());
                } else {
                    let value = AMQPValue::LongString(LongString::from(value.as_bytes()));
                    table.insert([prefix, name].concat().into(), value);
                }
            }
            let properties = properties.with_headers(table);
            read(&ReadOptions::default(), &properties, "", Bytes::new(), Timestamp::from_micros(0))
        });
    }
}

#[test]
fn only_a_count_is_an_attempt() {
    let with = |value| {
        let mut table = FieldTable::default();
        table.insert(X_DELIVERY_COUNT.into(), value);
        BasicProperties::default().with_headers(table)
    };
    assert_eq!(attempt(&with(AMQPValue::LongLongInt(2)), true, true), Some(3));
    assert_eq!(attempt(&with(AMQPValue::LongLongInt(-2)), true, true), None);
    assert_eq!(attempt(&with(AMQPValue::Void), true, true), None);
    let first = BasicProperties::default();
    assert_eq!(attempt(&first, false, true), Some(1));
    assert_eq!((attempt(&first, true, true), attempt(&first, false, false)), (None, None));
}

fn value() -> impl Strategy<Value = AMQPValue> {
    prop_oneof![
        vec(any::<u8>(), 0..20).prop_map(|bytes| AMQPValue::LongString(LongString::from(bytes))),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<f64>().prop_map(AMQPValue::Double),
        Just(AMQPValue::Void),
        Just(AMQPValue::FieldArray(
            vec![AMQPValue::Void, AMQPValue::FieldTable(FieldTable::default())].into()
        )),
    ]
}

proptest! {
    #[test]
    fn any_properties_are_an_event_or_a_clear_error(
        headers in vec(("((cloudEvents[_:](id|type|source|specversion|time|data|[a-z]{1,9}))|x-death|x-delivery-count|[a-z-]{1,9})", value()), 0..12),
        content_type in proptest::option::of("(application/cloudevents(-batch)?(\\+json)?|text/plain|[ -~]{0,20})"),
        body in vec(any::<u8>(), 0..60),
    ) {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert(name.as_str().into(), value);
        }
        let properties = BasicProperties::default().with_headers(table);
        let properties = match content_type {
            Some(content_type) => properties.with_content_type(content_type.as_str().into()),
            None => properties,
        };
        let _ = attempt(&properties, true, true);
        for options in [ReadOptions::default(), plain_options()] {
            if let Err(text) = read(&options, &properties, "x", Bytes::from(body.clone()), Timestamp::from_micros(0)) {
                prop_assert!(text.len() < 300, "{}", text);
            }
        }
    }
}
