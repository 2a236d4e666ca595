//! The envelope with its payload: what is stored, sent and received.

use super::{EncodeError, EventId, Headers, MessageId, OutboxEvent, TextRule, Timestamp};
use crate::runtime::{retry::RetryPolicy, wall_clock};
use bytes::Bytes;
use std::{ops::Deref, sync::Arc, time::Duration};
use xxhash_rust::xxh3::xxh3_64;

/// Header of a tombstone, a message without content because the entity of its key is deleted: `true`.
pub const TOMBSTONE: &str = "tombstone";

/// Header of a message whose content operators are not shown: `true`.
pub const SENSITIVE: &str = "sensitive";

/// An event as it travels: attributes, headers and payload. Cloning is cheap; the content is shared.
///
/// ```
/// # use outbox_core::event::Message;
/// # struct OrderPlaced { order_id: i64 }
/// # impl outbox_core::event::OutboxEvent for OrderPlaced {
/// #     fn meta(&self) -> outbox_core::event::EventMeta<'_> {
/// #         outbox_core::event::EventMeta::new("order.placed").topic("orders").key(Some(self.order_id.to_string()))
/// #     }
/// #     fn payload(&self) -> Result<bytes::Bytes, outbox_core::event::EncodeError> {
/// #         Ok(format!(r#"{{"order_id":{}}}"#, self.order_id).into())
/// #     }
/// # }
/// # fn example(message: &Message) {
/// let tenant = message.headers.get("tenant");
/// println!("{} {} with key {:?} for {tenant:?}", message.event_type, message.id, message.key);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Message(Arc<MessageParts>);

/// The content of a [`Message`]. A `Message` derefs to it.
#[derive(Clone, PartialEq)]
pub struct MessageParts {
    /// Public identity, the same on every repeat.
    pub id: MessageId,
    /// Place in the order of its outbox; `None` for a message without one.
    pub sequence: Option<EventId>,
    /// The service that it comes from, a URI reference.
    pub source: String,
    /// Type name, such as `order.placed`.
    pub event_type: String,
    /// Version of the payload's shape, from 1.
    pub event_version: u16,
    /// Topic that routes select by.
    pub topic: String,
    /// Kind of aggregate, such as `order`.
    pub aggregate_type: Option<String>,
    /// Ordering key; order is kept among messages of one key.
    pub key: Option<String>,
    /// Media type of the payload.
    pub content_type: String,
    /// The content, byte for byte as it was saved.
    pub payload: Bytes,
    /// Extra attributes.
    pub headers: Headers,
    /// When it was saved, by the database's clock.
    pub created_at: Timestamp,
    /// When it expires: it is not delivered after that.
    pub expires_at: Option<Timestamp>,
    /// Retry policy that its type asked for, in place of the route's. Does not travel.
    pub retry: Option<RetryPolicy>,
}

impl std::fmt::Debug for MessageParts {
    /// Shows everything but payload and header values, which may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id.to_string())
            .field("type", &self.event_type)
            .field("version", &self.event_version)
            .field("topic", &self.topic)
            .field("source", &self.source)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

impl Message {
    /// Makes a message.
    #[must_use]
    pub fn new(parts: MessageParts) -> Self {
        Self(Arc::new(parts))
    }

    /// Gives the hash of its key as log lines show it, the one by which a relay keeps its order.
    pub(crate) fn key_hash(&self) -> Option<String> {
        self.key.as_deref().map(|key| format!("{:016x}", xxh3_64(key.as_bytes())))
    }

    /// Makes a message of an event for a unit test, from the source `test`, as a consumer would receive it.
    ///
    /// ```
    /// # use outbox_core::event::Message;
    /// # struct OrderPlaced { order_id: i64 }
    /// # impl outbox_core::event::OutboxEvent for OrderPlaced {
    /// #     fn meta(&self) -> outbox_core::event::EventMeta<'_> {
    /// #         outbox_core::event::EventMeta::new("order.placed").topic("orders").key(Some(self.order_id.to_string()))
    /// #     }
    /// #     fn payload(&self) -> Result<bytes::Bytes, outbox_core::event::EncodeError> {
    /// #         Ok(format!(r#"{{"order_id":{}}}"#, self.order_id).into())
    /// #     }
    /// # }
    /// let message = Message::for_test(&OrderPlaced { order_id: 7 })?;
    /// assert_eq!((message.source.as_str(), message.key.as_deref()), ("test", Some("7")));
    /// assert_eq!(message.payload, r#"{"order_id":7}"#);
    /// # Ok::<(), outbox_core::event::EncodeError>(())
    /// ```
    ///
    /// # Errors
    /// [`EncodeError`] when the event could not be saved.
    pub fn for_test(event: &dyn OutboxEvent) -> Result<Self, EncodeError> {
        let NewEvent {
            message_id: id,
            event_type,
            event_version,
            topic,
            aggregate_type,
            key,
            content_type,
            payload,
            headers,
            ttl: _,
            retry,
        } = NewEvent::encode(event)?;
        let (sequence, source, expires_at) = (None, "test".to_owned(), None);
        let created_at = Timestamp::from(wall_clock());
        Ok(Self::new(MessageParts {
            id,
            sequence,
            source,
            event_type,
            event_version,
            topic,
            aggregate_type,
            key,
            content_type,
            payload,
            headers,
            created_at,
            expires_at,
            retry,
        }))
    }

    /// Tells whether it is a tombstone, which says that the entity of its key is deleted: it has no content, and the
    /// header [`TOMBSTONE`]. Kafka carries
    /// it as a record without a value, by which a compacted topic drops the key.
    ///
    /// ```
    /// # use outbox_core::event::{EncodeError, EventMeta, Message, OutboxEvent};
    /// struct CustomerDeleted(i64);
    /// impl OutboxEvent for CustomerDeleted {
    ///     fn meta(&self) -> EventMeta<'_> {
    ///         EventMeta::new("customer.deleted").key(Some(self.0.to_string())).tombstone()
    ///     }
    ///     fn payload(&self) -> Result<bytes::Bytes, EncodeError> { Ok(bytes::Bytes::new()) }
    /// }
    /// assert!(Message::for_test(&CustomerDeleted(7))?.is_tombstone());
    /// # Ok::<(), EncodeError>(())
    /// ```
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.payload.is_empty() && self.headers.get(TOMBSTONE) == Some("true")
    }

    /// Tells whether its content is not for operators' eyes: it has the header [`SENSITIVE`]. Command line and web page
    /// show neither the payload nor other headers of its dead letters, and no text of an error of it. Log lines, live
    /// rows and rejections have the class of its failures in place of their texts, which may quote it; of a destination
    /// that is not reached they have the text.
    ///
    /// ```
    /// # use outbox_core::event::{EncodeError, EventMeta, Message, OutboxEvent};
    /// struct CardAdded { number: String }
    /// impl OutboxEvent for CardAdded {
    ///     fn meta(&self) -> EventMeta<'_> {
    ///         EventMeta::new("payment.card_added").sensitive()
    ///     }
    ///     fn payload(&self) -> Result<bytes::Bytes, EncodeError> { Ok(self.number.clone().into()) }
    /// }
    /// let added = CardAdded { number: "4111 1111 1111 1111".to_owned() };
    /// assert!(Message::for_test(&added)?.is_sensitive());
    /// # Ok::<(), EncodeError>(())
    /// ```
    #[must_use]
    pub fn is_sensitive(&self) -> bool {
        self.headers.get(SENSITIVE) == Some("true")
    }

    /// Takes the content out, copying it only where it is shared.
    #[must_use]
    pub fn into_parts(self) -> MessageParts {
        Arc::unwrap_or_clone(self.0)
    }
}

impl Deref for Message {
    type Target = MessageParts;
    fn deref(&self) -> &MessageParts {
        &self.0
    }
}

/// An encoded event on its way into the outbox: checked, but without place and time, which the database gives.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Public identity.
    pub message_id: MessageId,
    /// Type name, 1 to 255 bytes.
    pub event_type: String,
    /// Version of the payload's shape, from 1.
    pub event_version: u16,
    /// Topic, 1 to 255 bytes.
    pub topic: String,
    /// Kind of aggregate, up to 255 bytes.
    pub aggregate_type: Option<String>,
    /// Ordering key, up to 255 bytes.
    pub key: Option<String>,
    /// Media type, 1 to 255 bytes.
    pub content_type: String,
    /// The content.
    pub payload: Bytes,
    /// Extra attributes.
    pub headers: Headers,
    /// Time to live, from when it is saved.
    pub ttl: Option<Duration>,
    /// Retry policy of its type.
    pub retry: Option<RetryPolicy>,
}

impl NewEvent {
    /// Encodes an event and checks its envelope.
    ///
    /// ```
    /// # use outbox_core::event::NewEvent;
    /// # struct OrderPlaced { order_id: i64 }
    /// # impl outbox_core::event::OutboxEvent for OrderPlaced {
    /// #     fn meta(&self) -> outbox_core::event::EventMeta<'_> {
    /// #         outbox_core::event::EventMeta::new("order.placed").topic("orders").key(Some(self.order_id.to_string()))
    /// #     }
    /// #     fn payload(&self) -> Result<bytes::Bytes, outbox_core::event::EncodeError> {
    /// #         Ok(format!(r#"{{"order_id":{}}}"#, self.order_id).into())
    /// #     }
    /// # }
    /// let event = NewEvent::encode(&OrderPlaced { order_id: 7 })?;
    /// assert_eq!((event.topic.as_str(), event.key.as_deref()), ("orders", Some("7")));
    /// # Ok::<(), outbox_core::event::EncodeError>(())
    /// ```
    ///
    /// # Errors
    /// [`EncodeError`] when the content has no encoding or an attribute breaks its rule; nothing has been saved then.
    pub fn encode(event: &dyn OutboxEvent) -> Result<Self, EncodeError> {
        let meta = event.meta();
        let fail = |field: &'static str, reason: String| EncodeError::Envelope {
            event_type: meta.event_type.to_owned(),
            field,
            reason,
        };
        for (field, value) in
            [("type", meta.event_type), ("topic", meta.topic), ("content type", meta.content_type)]
        {
            if !TextRule::ATTRIBUTE.allows(value) {
                return Err(fail(field, format!("it must have {}", TextRule::ATTRIBUTE)));
            }
        }
        for (field, value) in [("aggregate", meta.aggregate), ("key", meta.key.as_deref())] {
            if value.is_some_and(|value| !value.is_empty() && !TextRule::ATTRIBUTE.allows(value)) {
                let reason = format!("it may be empty or have {}", TextRule::ATTRIBUTE);
                return Err(fail(field, reason));
            }
        }
        if meta.version == 0 {
            return Err(fail("version", "versions start at 1".into()));
        }
        let mut headers = Headers::new();
        for (name, value) in &meta.headers {
            headers
                .insert(name.as_ref(), value.as_ref())
                .map_err(|e| fail("header", e.to_string()))?;
        }
        let payload = event.payload()?;
        if headers.get(TOMBSTONE) == Some("true") {
            if meta.key.as_deref().is_none_or(str::is_empty) {
                return Err(fail(
                    "key",
                    "a tombstone says that the entity of its key is deleted, so it has one".into(),
                ));
            }
            if !payload.is_empty() {
                return Err(fail("content", "a tombstone has none".into()));
            }
        }
        Ok(Self {
            message_id: MessageId::generate(),
            event_type: meta.event_type.to_owned(),
            event_version: meta.version,
            topic: meta.topic.to_owned(),
            aggregate_type: meta.aggregate.map(str::to_owned),
            key: meta.key.as_deref().map(str::to_owned),
            content_type: meta.content_type.to_owned(),
            payload,
            headers,
            ttl: meta.ttl,
            retry: meta.retry,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventMeta;

    /// An event that says whatever a test wants.
    struct Says(EventMeta<'static>, Result<&'static [u8], &'static str>);

    impl OutboxEvent for Says {
        fn meta(&self) -> EventMeta<'_> {
            self.0.clone()
        }

        fn payload(&self) -> Result<Bytes, EncodeError> {
            self.1
                .map(Bytes::from_static)
                .map_err(|reason| EncodeError::payload(self.0.event_type, reason))
        }
    }

    fn encode(meta: EventMeta<'static>) -> Result<NewEvent, EncodeError> {
        NewEvent::encode(&Says(meta, Ok(b"{}")))
    }

    /// Gives the attribute that was refused.
    fn refused(meta: EventMeta<'static>) -> &'static str {
        match encode(meta.clone()) {
            Err(EncodeError::Envelope { field, .. }) => field,
            other => panic!("{meta:?} gave {other:?}"),
        }
    }

    fn text(bytes: usize) -> &'static str {
        Box::leak("x".repeat(bytes).into_boxed_str())
    }

    #[test]
    fn an_event_keeps_what_its_type_says() {
        let retry = RetryPolicy::attempts(3, Duration::from_secs(1));
        let meta = EventMeta::new("order.placed")
            .version(2)
            .topic("orders")
            .aggregate("order")
            .key(Some("7"))
            .header("tenant", Some("acme"))
            .header("zone", None::<String>)
            .content_type("text/plain")
            .ttl(Duration::from_secs(5))
            .retry(retry);
        let new = NewEvent::encode(&Says(meta, Ok(b"\xff"))).expect("it is valid");
        assert_eq!(
            (new.event_type.as_str(), new.event_version, new.topic.as_str()),
            ("order.placed", 2, "orders")
        );
        assert_eq!((new.aggregate_type.as_deref(), new.key.as_deref()), (Some("order"), Some("7")));
        assert_eq!(new.headers.iter().collect::<Vec<_>>(), [("tenant", "acme")]);
        assert_eq!((new.content_type.as_str(), &new.payload[..]), ("text/plain", &b"\xff"[..]));
        assert_eq!((new.ttl, new.retry), (Some(Duration::from_secs(5)), Some(retry)));
    }

    #[test]
    fn every_encoding_is_a_new_message() {
        let meta = EventMeta::new("order.placed");
        let [one, other] =
            [encode(meta.clone()), encode(meta)].map(|new| new.expect("it is valid").message_id);
        assert_ne!(one, other);
        assert_eq!(one.as_uuid().get_version_num(), 7);
    }

    #[test]
    fn texts_of_255_bytes_fit_and_longer_ones_are_refused() {
        let meta = |n| EventMeta::new(text(n));
        assert!(encode(meta(255)).is_ok());
        assert_eq!(refused(meta(256)), "type");
        let named = || EventMeta::new("order.placed");
        assert!(encode(named().topic(text(255)).aggregate(text(255)).key(Some(text(255)))).is_ok());
        assert_eq!(refused(named().topic(text(256))), "topic");
        assert_eq!(refused(named().aggregate(text(256))), "aggregate");
        assert_eq!(refused(named().key(Some(text(256)))), "key");
        assert_eq!(refused(named().content_type(text(256))), "content type");
        // Bytes, not characters.
        assert_eq!(refused(named().key(Some("ü".repeat(128)))), "key");
    }

    #[test]
    fn empty_names_and_control_characters_are_refused() {
        let named = || EventMeta::new("order.placed");
        assert_eq!(refused(EventMeta::new("")), "type");
        assert_eq!(refused(named().topic("")), "topic");
        assert_eq!(refused(named().content_type("")), "content type");
        assert_eq!(refused(EventMeta::new("order\n")), "type");
        assert_eq!(refused(named().topic("or\0ders")), "topic");
        assert_eq!(refused(named().aggregate("\u{85}")), "aggregate");
        assert_eq!(refused(named().key(Some("a\rb"))), "key");
        assert_eq!(refused(named().version(0)), "version");
    }

    #[test]
    fn headers_that_could_not_travel_are_refused() {
        let with =
            |name: &'static str, value| EventMeta::new("order.placed").header(name, Some(value));
        for (name, value) in [("Tenant", "a"), ("", "a"), ("source", "a"), ("tenant", "a\r\nx: y")]
        {
            assert_eq!(refused(with(name, value)), "header");
        }
        let error = encode(with("id", "a")).expect_err("it belongs to the envelope");
        assert_eq!(
            error.to_string(),
            "the event `order.placed` has an invalid header: the header name `id` belongs to the envelope"
        );
    }

    #[test]
    fn content_without_encoding_is_told_with_its_reason() {
        let error = NewEvent::encode(&Says(EventMeta::new("order.placed"), Err("keys are text")))
            .expect_err("refused");
        assert_eq!(error.to_string(), "the event `order.placed` cannot be encoded");
        assert_eq!(
            std::error::Error::source(&error).expect("a reason").to_string(),
            "keys are text"
        );
    }

    fn parts() -> MessageParts {
        let new = encode(EventMeta::new("order.placed").header("token", Some("hunter2")))
            .expect("it is valid");
        MessageParts {
            id: new.message_id,
            sequence: Some(EventId(1)),
            source: "/shop".to_owned(),
            event_type: new.event_type,
            event_version: new.event_version,
            topic: new.topic,
            aggregate_type: new.aggregate_type,
            key: new.key,
            content_type: new.content_type,
            payload: Bytes::from_static(b"4111-1111"),
            headers: new.headers,
            created_at: Timestamp::from_micros(1),
            expires_at: None,
            retry: new.retry,
        }
    }

    #[test]
    fn clones_share_the_content_and_parts_can_be_taken_from_each() {
        let message = Message::new(parts());
        let clone = message.clone();
        assert!(std::ptr::eq::<MessageParts>(&*message, &*clone));
        let mut taken = clone.into_parts();
        taken.event_type = "order.lost".to_owned();
        assert_eq!(message.event_type, "order.placed");
        assert_eq!(Message::new(taken).id, message.id);
    }

    #[test]
    fn debug_output_shows_neither_payload_nor_header_values() {
        let shown = format!("{:?}", Message::new(parts()));
        assert!(shown.contains("order.placed") && shown.contains("payload_bytes: 9"), "{shown}");
        assert!(!shown.contains("4111") && !shown.contains("hunter2"), "{shown}");
    }
}
