use super::*;
use crate::{
    event::{EncodeError, EventMeta, MessageParts, OutboxEvent},
    testing::{FlippingCodec, transport::full},
};

const CANARY: &str = "{\"card\":\"4111 1111 1111 1111\"}";

/// An event with a content that nobody may see.
struct Paid(EventMeta<'static>, &'static str);

impl OutboxEvent for Paid {
    fn meta(&self) -> EventMeta<'_> {
        self.0.clone()
    }

    fn payload(&self) -> Result<Bytes, EncodeError> {
        Ok(self.1.into())
    }
}

fn paid() -> NewEvent {
    let meta = EventMeta::new("order.paid").topic("orders").key(Some("7"));
    NewEvent::encode(&Paid(meta, CANARY)).expect("it is valid")
}

/// The message that an event arrives as.
fn received(event: NewEvent) -> Message {
    Message::new(MessageParts {
        id: event.message_id,
        source: "shop".into(),
        event_type: event.event_type,
        topic: event.topic,
        key: event.key,
        payload: event.payload,
        headers: event.headers,
        ..full().into_parts()
    })
}

fn encoded(codecs: &PayloadCodecs) -> Message {
    let mut event = paid();
    codecs.encode("shop", &mut event).expect("it has a key");
    received(event)
}

fn changed(message: &Message, change: impl FnOnce(&mut MessageParts)) -> Message {
    let mut parts = message.clone().into_parts();
    change(&mut parts);
    Message::new(parts)
}

fn unknown(codec: &str, key_id: &str) -> Result<Bytes, PayloadFault> {
    Err(PayloadFault::Unknown { codec: codec.into(), key_id: key_id.into() })
}

#[test]
fn each_message_is_decoded_waits_or_is_broken_by_its_headers_its_envelope_and_the_keys_that_are_here()
 {
    let codec = Arc::new(FlippingCodec::new("flip", ["k1"]));
    let codecs = PayloadCodecs::NONE.encode_with(codec.clone());
    let first = encoded(&codecs);
    codec.rotate("k2");
    let second = encoded(&codecs);
    for (message, key) in [(&first, "k1"), (&second, "k2")] {
        let encoding = message.encoding().expect("it is encoded");
        assert_eq!((encoding.codec, encoding.key_id), ("flip", key));
        assert!(!String::from_utf8_lossy(&message.payload).contains("4111"));
    }
    let content = |codecs: &PayloadCodecs, message: &Message| {
        codecs.decode(message).map(|clear| clear.payload.clone())
    };
    let clear = || Ok(Bytes::from(CANARY));
    let old = PayloadCodecs::NONE.decode_with(FlippingCodec::new("flip", ["k1"]));
    let other = PayloadCodecs::NONE.encode_with(FlippingCodec::new("other", ["k1"]));
    for (here, message, expected) in [
        (&codecs, &first, clear()),
        (&codecs, &second, clear()),
        (&old, &first, clear()),
        (&old, &second, unknown("flip", "k2")),
        (&other, &first, unknown("flip", "k1")),
        (&PayloadCodecs::NONE, &first, unknown("flip", "k1")),
    ] {
        assert_eq!(content(here, message), expected, "{here:?} {:?}", message.encoding());
    }
    let plain = changed(&first, |parts| parts.headers = Headers::new());
    assert_eq!(codecs.decode(&plain), Ok(plain.clone()), "without the header it is clear");

    type Change = fn(&mut MessageParts);
    let broken: [(&str, Change); 8] = [
        ("another id", |parts| parts.id = MessageId::generate()),
        ("another key", |parts| parts.key = Some("8".into())),
        ("another source", |parts| parts.source = "other".into()),
        ("another type", |parts| parts.event_type = "order.left".into()),
        ("another topic", |parts| parts.topic = "other".into()),
        ("cut off", |parts| parts.payload.truncate(15)),
        ("no content", |parts| parts.payload = Bytes::new()),
        ("no codec's name", |parts| parts.headers.keep(PAYLOAD_CODEC, "FLIP".into())),
    ];
    for (what, change) in broken {
        let Err(PayloadFault::Broken(reason)) = codecs.decode(&changed(&first, change)) else {
            panic!("{what} is decoded, or waited for");
        };
        assert!(!reason.contains("4111"), "{what}: {reason}");
    }
}

#[test]
fn a_handler_sees_the_message_as_it_was_emitted() {
    let codecs = PayloadCodecs::NONE.encode_with(FlippingCodec::new("flip", ["k1"]));
    let mut event = paid();
    event.headers.insert("tenant", "acme").expect("legal");
    let emitted = received(event.clone());
    codecs.encode("shop", &mut event).expect("it has a key");
    assert_eq!((event.headers.len(), event.payload == CANARY), (3, false));
    assert_eq!(codecs.decode(&received(event)), Ok(emitted));
}

#[test]
fn an_empty_key_is_none_on_the_other_side() {
    let codecs = PayloadCodecs::NONE.encode_with(FlippingCodec::new("flip", ["k1"]));
    let mut event = NewEvent { key: Some(String::new()), ..paid() };
    codecs.encode("shop", &mut event).expect("it has a key");
    let arrived = changed(&received(event), |parts| parts.key = None);
    assert_eq!(codecs.decode(&arrived).map(|clear| clear.payload.clone()), Ok(CANARY.into()));
}

#[test]
fn the_same_content_is_encoded_otherwise_each_time_and_without_a_codec_nothing_changes() {
    let codecs = PayloadCodecs::NONE.encode_with(FlippingCodec::new("flip", ["k1"]));
    assert_ne!(encoded(&codecs).payload, encoded(&codecs).payload);
    let decodes = PayloadCodecs::NONE.decode_with(FlippingCodec::new("flip", ["k1"]));
    for codecs in [PayloadCodecs::NONE, decodes] {
        let mut event = paid();
        let before = event.clone();
        codecs.encode("shop", &mut event).expect("nothing is done");
        assert_eq!(event, before, "{codecs:?}");
    }
}

#[test]
fn a_tombstone_has_nothing_to_encode_and_an_empty_content_has() {
    let codecs = PayloadCodecs::NONE.encode_with(FlippingCodec::new("flip", ["k1"]));
    let meta = EventMeta::new("customer.deleted").key(Some("7"));
    for (meta, is_encoded) in [(meta.clone(), true), (meta.tombstone(), false)] {
        let mut event = NewEvent::encode(&Paid(meta, "")).expect("it is valid");
        codecs.encode("shop", &mut event).expect("it has a key");
        let message = received(event);
        assert_eq!(message.encoding().is_some(), is_encoded);
        assert_eq!(message.is_tombstone(), !is_encoded);
    }
}

/// A codec that answers whatever a test wants.
struct Says(&'static str, Result<&'static str, &'static str>);

impl PayloadCodec for Says {
    fn name(&self) -> &str {
        self.0
    }

    fn has_key(&self, _: &str) -> bool {
        true
    }

    fn encode(&self, _: CodecContext<'_>, payload: Bytes) -> Result<EncodedPayload, BoxError> {
        Ok(EncodedPayload { payload, key_id: self.1?.to_owned() })
    }

    fn decode(&self, _: CodecContext<'_>, _: &str, payload: Bytes) -> Result<Bytes, CodecFault> {
        Ok(payload)
    }
}

#[test]
fn an_event_that_is_not_encoded_is_not_saved() {
    let long: &'static str = "k".repeat(LONGEST_KEY + 1).leak();
    for (key_id, expected) in [
        (Err("the vault is away"), "the payload codec `says` cannot encode the event `order.paid`"),
        (Ok(long), "the payload codec `says` cannot encode the event `order.paid`"),
        (Ok("a\nb"), "the payload codec `says` cannot encode the event `order.paid`"),
    ] {
        let codecs = PayloadCodecs::NONE.encode_with(Says("says", key_id));
        let error = codecs.encode("shop", &mut paid()).expect_err(expected);
        assert_eq!(error.to_string(), expected, "{key_id:?}");
    }
    let codecs = PayloadCodecs::NONE.encode_with(Says("says", Ok("k1")));
    for name in [PAYLOAD_CODEC, PAYLOAD_KEY] {
        let mut event = paid();
        event.headers.insert(name, "x").expect("legal");
        let error = codecs.encode("shop", &mut event).expect_err("the header is the codec's");
        assert!(error.to_string().contains(name), "{error}");
    }
    let keyless = encoded(&PayloadCodecs::NONE.encode_with(Says("says", Ok(""))));
    assert_eq!(keyless.headers.get(PAYLOAD_KEY), None);
    assert_eq!(
        keyless.encoding().map(|it| it.to_string()).as_deref(),
        Some("the payload codec `says`")
    );
}

#[test]
fn names_that_do_not_travel_and_names_of_two_codecs_are_faults() {
    let long: &'static str = "x".repeat(LONGEST_NAME + 1).leak();
    for (name, is_right) in
        [("aes-256.gcm_v2", true), ("", false), ("AES", false), ("a/b", false), (long, false)]
    {
        let codecs = PayloadCodecs::NONE.encode_with(Says(name, Ok("k1")));
        assert_eq!(codecs.faults().is_empty(), is_right, "{name}");
    }
    let twice = PayloadCodecs::NONE
        .encode_with(Says("a", Ok("k1")))
        .decode_with(Says("b", Ok("k1")))
        .decode_with(Says("a", Ok("k2")));
    assert_eq!(twice.faults(), ["two payload codecs are called `a`"]);
}

#[test]
fn the_associated_data_of_an_envelope_never_changes() {
    let message_id = MessageId::from_uuid(uuid::Uuid::from_u128(7));
    let (source, event_type, topic) = ("shop", "order.paid", "orders");
    let context = CodecContext { source, message_id, event_type, topic, key: Some("7") };
    let expected: Vec<u8> = [
        &b"\0\0\0\x10outbox-payload-1\0\0\0\x10"[..],
        &[0; 15],
        b"\x07\0\0\0\x04shop\0\0\0\x0aorder.paid\0\0\0\x06orders\0\0\0\x017",
    ]
    .concat();
    assert_eq!(context.associated_data(), expected);
    let shifted = CodecContext { topic: "orders7", key: None, ..context };
    assert_ne!(shifted.associated_data(), expected, "no two envelopes have the same");
}
