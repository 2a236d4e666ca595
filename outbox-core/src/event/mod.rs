//! Events as domain code writes them, and messages as they are stored and sent.

pub mod cloudevents;
mod codec;
pub(crate) mod command;
mod convert;
mod headers;
mod id;
mod instant;
mod json;
mod key;
mod message;
mod payload_codec;
mod quoted;
mod text;
mod timestamp;
mod correlation;
mod upcast;
mod variant;

pub use codec::{DecodeError, DecodeEvent, EncodeError, encode_json};
pub use correlation::{CorrelationContext, CorrelationError};
pub use headers::{HeaderError, Headers};
pub use id::{EventId, LetterId, MessageId, RelayId, SagaId, jitter, random_u64};
pub use instant::NoInstant;
pub use json::JsonError;
pub(crate) use json::write as write_json;
pub use key::KeyPart;
pub use message::{Message, MessageParts, NewEvent, SENSITIVE, TOMBSTONE};
pub use payload_codec::{
    CodecContext, CodecFault, EncodedPayload, PAYLOAD_CODEC, PAYLOAD_KEY, PayloadCodec,
    PayloadCodecs, PayloadEncoding, PayloadFault,
};
#[doc(hidden)]
pub use quoted::{one_line, printable};
#[doc(hidden)]
pub use text::TextRule;
pub use timestamp::Timestamp;
pub use upcast::{Upcast, UpcastError};

/// Items beside the public ones that emitted code calls.
pub(crate) mod emitted {
    pub use super::codec::{empty_json, encode_with};
    pub use super::json::JsonWriter;
    pub use super::variant::VariantContent;
}

use crate::runtime::retry::RetryPolicy;
use bytes::Bytes;
use std::{any::Any, borrow::Cow, time::Duration};

/// A fact that happened, ready to be saved in the transaction of the data it speaks of.
///
/// Usually derived; see the `OutboxEvent` derive. The trait is object-safe, so that `&dyn OutboxEvent` can be emitted.
///
/// ```
/// # use outbox_core::event::{EncodeError, EventMeta, OutboxEvent, encode_json};
/// #[derive(serde::Serialize)]
/// struct OrderPlaced { order_id: i64, total: i64 }
///
/// impl OutboxEvent for OrderPlaced {
///     fn meta(&self) -> EventMeta<'_> {
///         EventMeta::new("order.placed").topic("orders").key(Some(self.order_id.to_string()))
///     }
///     fn payload(&self) -> Result<bytes::Bytes, EncodeError> {
///         encode_json("order.placed", self)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an outbox event",
    note = "add `#[derive(serde::Serialize, OutboxEvent)]` and `#[outbox(type = \"..\")]` to it"
)]
pub trait OutboxEvent: Send + Sync {
    /// Describes the event: its type, topic, ordering key and headers.
    fn meta(&self) -> EventMeta<'_>;

    /// Encodes the content alone (the type is in the envelope), by default as JSON.
    ///
    /// # Errors
    /// [`EncodeError`] when the content has no encoding that reads back as the same value, such as NaN in JSON.
    fn payload(&self) -> Result<Bytes, EncodeError>;

    /// Gives the event itself where its type has no lifetimes, for listeners in this process that take it by type.
    ///
    /// Derived events give it; `None`, the default, means that no listener is called for the event.
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }
}

impl<E: OutboxEvent + ?Sized> OutboxEvent for &E {
    fn meta(&self) -> EventMeta<'_> {
        (**self).meta()
    }

    fn payload(&self) -> Result<Bytes, EncodeError> {
        (**self).payload()
    }

    fn as_any(&self) -> Option<&dyn Any> {
        (**self).as_any()
    }
}

/// The event types that a Rust type stands for: one for a struct, one for each variant of an enum.
///
/// Registries and handlers select by it.
pub trait EventContract {
    /// Every type name with its version and topic, without repeats.
    const TYPES: &'static [EventType];
}

/// One wire type of an [`EventContract`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventType {
    /// Type name on the wire, such as `order.placed`.
    pub name: &'static str,
    /// Version of the payload's shape, from 1.
    pub version: u16,
    /// Topic that routes select by.
    pub topic: &'static str,
}

/// The envelope of one event as its type describes it.
///
/// Built as `EventMeta::new("order.placed").topic("orders").key(Some("7"))`.
///
/// ```
/// # use outbox_core::event::EventMeta;
/// # use std::time::Duration;
/// let meta = EventMeta::new("price.changed")
///     .topic("prices")
///     .key(Some("sku-7"))
///     .header("currency", Some("EUR"))
///     .ttl(Duration::from_secs(30)); // an older price is worth nothing
/// assert_eq!((meta.version, meta.content_type), (1, "application/json"));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EventMeta<'a> {
    /// Type name on the wire, 1 to 255 bytes.
    pub event_type: &'a str,
    /// Version of the payload's shape, from 1.
    pub version: u16,
    /// Topic that routes select by; the type name unless set.
    pub topic: &'a str,
    /// Kind of aggregate, such as `order`.
    pub aggregate: Option<&'a str>,
    /// Ordering key; events without one have no order among them.
    pub key: Option<Cow<'a, str>>,
    /// Extra attributes, name and value.
    pub headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Media type of the payload.
    pub content_type: &'a str,
    /// How long after it was saved the event is still worth delivering.
    pub ttl: Option<Duration>,
    /// Retry policy of this type, in place of the route's.
    pub retry: Option<RetryPolicy>,
}

impl<'a> EventMeta<'a> {
    /// Describes an event of a type, version 1, JSON, on the topic of the same name, without key.
    #[must_use]
    pub const fn new(event_type: &'a str) -> Self {
        Self {
            event_type,
            version: 1,
            topic: event_type,
            aggregate: None,
            key: None,
            headers: Vec::new(),
            content_type: "application/json",
            ttl: None,
            retry: None,
        }
    }

    /// Sets the version of the payload's shape, from 1.
    #[must_use]
    pub fn version(mut self, version: u16) -> Self {
        self.version = version;
        self
    }

    /// Sets the topic.
    #[must_use]
    pub fn topic(mut self, topic: &'a str) -> Self {
        self.topic = topic;
        self
    }

    /// Sets the kind of aggregate.
    #[must_use]
    pub fn aggregate(mut self, aggregate: &'a str) -> Self {
        self.aggregate = Some(aggregate);
        self
    }

    /// Sets the ordering key; `None` leaves the event without one.
    #[must_use]
    pub fn key(mut self, key: Option<impl Into<Cow<'a, str>>>) -> Self {
        self.key = key.map(Into::into);
        self
    }

    /// Adds an attribute; `None` leaves it out.
    #[must_use]
    pub fn header(
        mut self,
        name: impl Into<Cow<'a, str>>,
        value: Option<impl Into<Cow<'a, str>>>,
    ) -> Self {
        if let Some(value) = value {
            self.headers.push((name.into(), value.into()));
        }
        self
    }

    /// Makes the event a tombstone, without content, since the entity of its key is deleted; see [`Message::is_tombstone`]. It needs a key.
    ///
    /// ```
    /// # use outbox_core::event::EventMeta;
    /// let gone = EventMeta::new("customer.deleted").topic("customers").key(Some("7")).tombstone();
    /// ```
    #[must_use]
    pub fn tombstone(self) -> Self {
        self.header(TOMBSTONE, Some("true"))
    }

    /// Says that the content is not for operators' eyes; see [`Message::is_sensitive`]. It travels and is stored as it
    /// is.
    ///
    /// ```
    /// # use outbox_core::event::EventMeta;
    /// let added = EventMeta::new("payment.card_added").topic("payments").sensitive();
    /// ```
    #[must_use]
    pub fn sensitive(self) -> Self {
        self.header(SENSITIVE, Some("true"))
    }

    /// Sets the media type of the payload.
    #[must_use]
    pub fn content_type(mut self, content_type: &'a str) -> Self {
        self.content_type = content_type;
        self
    }

    /// Sets how long after it was saved the event is still worth delivering.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets a retry policy of this type, in place of the route's.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = Some(retry);
        self
    }
}
