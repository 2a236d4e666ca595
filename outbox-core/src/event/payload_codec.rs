//! The codec with which an application encodes payloads where it saves them, and decodes them before its handlers: what
//! stands between, a database, a broker, a relay or an operator, carries bytes that it cannot read.
//!
//! # Source
//! The payload codec of Temporal (<https://docs.temporal.io/payload-codec>).

mod codecs;

pub use codecs::{PayloadCodecs, PayloadFault};

use super::{Headers, Message, MessageId, NewEvent, TextRule};
use crate::runtime::full_text::BoxError;
use bytes::Bytes;
use std::{fmt, sync::Arc};

/// Header with the name of the codec that has encoded the payload.
pub const PAYLOAD_CODEC: &str = "payloadcodec";

/// Header with the id of the key that a codec has encoded the payload with; missing where the id is empty.
pub const PAYLOAD_KEY: &str = "payloadkey";

/// Longest name of a codec in bytes, and longest id of a key: both and a slash fit one column of every database.
const LONGEST_NAME: usize = 64;
const LONGEST_KEY: usize = 128;
/// What the associated data begins with: another layout of it begins otherwise.
const LAYOUT: &[u8] = b"outbox-payload-1";

/// Encodes payloads before they are stored, and decodes them before a handler or a saga sees them: encryption at rest.
///
/// Both calls are made on an asynchronous task, so they must not block: keys are fetched beforehand, and kept in memory.
/// No error may quote the content, since errors are logged and stored.
///
/// ```
/// # use outbox_core::{event::{CodecContext, CodecFault, EncodedPayload, PayloadCodec}, failure::BoxError};
/// # use bytes::Bytes;
/// /// A sketch: `seal` and `open` are those of a crate for AEAD, with the associated data of the context.
/// struct Aead { current: String, keys: std::collections::BTreeMap<String, [u8; 32]> }
/// # fn seal(_: &[u8; 32], _: &[u8], clear: &[u8]) -> Result<Vec<u8>, std::io::Error> { Ok(clear.to_vec()) }
/// # fn open(_: &[u8; 32], _: &[u8], sealed: &[u8]) -> Result<Vec<u8>, std::io::Error> { Ok(sealed.to_vec()) }
///
/// impl PayloadCodec for Aead {
///     fn name(&self) -> &str { "aead" }
///     fn has_key(&self, key_id: &str) -> bool { self.keys.contains_key(key_id) }
///     fn encode(&self, context: CodecContext<'_>, payload: Bytes) -> Result<EncodedPayload, BoxError> {
///         let key = self.keys.get(&self.current).ok_or("the current key is not loaded")?;
///         let payload = seal(key, &context.associated_data(), &payload)?.into();
///         Ok(EncodedPayload { payload, key_id: self.current.clone() })
///     }
///     fn decode(&self, context: CodecContext<'_>, key_id: &str, payload: Bytes) -> Result<Bytes, CodecFault> {
///         let key = self.keys.get(key_id).ok_or(CodecFault::UnknownKey)?;
///         let clear = open(key, &context.associated_data(), &payload);
///         clear.map(Bytes::from).map_err(|_| CodecFault::Broken("the tag does not fit"))
///     }
/// }
/// ```
pub trait PayloadCodec: Send + Sync + 'static {
    /// Names the codec in the header [`PAYLOAD_CODEC`], 1 to 64 of `a-z`, `0-9`, `.`, `_` and `-`; the same as long as messages
    /// of it may be somewhere.
    fn name(&self) -> &str;

    /// Tells whether this instance can decode with a key now: what [`decode`](Self::decode) would say, and cheap. Deliveries
    /// that wait for a key are handled within about a second after this gives `true`.
    fn has_key(&self, key_id: &str) -> bool;

    /// Encodes the content of an event; called once an event, where it is saved.
    ///
    /// # Errors
    /// Any, which saves nothing; its text must not quote the content.
    fn encode(&self, context: CodecContext<'_>, payload: Bytes)
    -> Result<EncodedPayload, BoxError>;

    /// Decodes the content of a message that came under this codec's name; called once a run of a handler.
    ///
    /// # Errors
    /// [`CodecFault::UnknownKey`] where this instance does not have the key yet, so that the delivery waits;
    /// [`CodecFault::Broken`] where no instance could decode it, so that it becomes a dead letter.
    fn decode(
        &self,
        context: CodecContext<'_>,
        key_id: &str,
        payload: Bytes,
    ) -> Result<Bytes, CodecFault>;
}

impl<C: PayloadCodec + ?Sized> PayloadCodec for Arc<C> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn has_key(&self, key_id: &str) -> bool {
        (**self).has_key(key_id)
    }

    fn encode(
        &self,
        context: CodecContext<'_>,
        payload: Bytes,
    ) -> Result<EncodedPayload, BoxError> {
        (**self).encode(context, payload)
    }

    fn decode(
        &self,
        context: CodecContext<'_>,
        key_id: &str,
        payload: Bytes,
    ) -> Result<Bytes, CodecFault> {
        (**self).decode(context, key_id, payload)
    }
}

/// The envelope that a payload belongs to: what stays the same on its whole way, over every transport.
///
/// For the reply that a consumer keeps of a saga's command it is the consumer, the saga's id, the reply's type, the step and the
/// phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodecContext<'a> {
    /// The service that the event comes from.
    pub source: &'a str,
    /// Identity of the message.
    pub message_id: MessageId,
    /// Type name.
    pub event_type: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// Ordering key; `None` for an empty one, too, which does not travel.
    pub key: Option<&'a str>,
}

impl<'a> CodecContext<'a> {
    fn of_event(source: &'a str, event: &'a NewEvent) -> Self {
        Self {
            source,
            message_id: event.message_id,
            event_type: &event.event_type,
            topic: &event.topic,
            key: event.key.as_deref().filter(|key| !key.is_empty()),
        }
    }

    fn of_message(message: &'a Message) -> Self {
        Self {
            source: &message.source,
            message_id: message.id,
            event_type: &message.event_type,
            topic: &message.topic,
            key: message.key.as_deref().filter(|key| !key.is_empty()),
        }
    }

    /// Gives all of it as bytes, for an AEAD to bind: content that was moved to another envelope does not decode then.
    ///
    /// The layout never changes for content that is stored: each part behind its length as 4 bytes, the highest first.
    ///
    /// ```
    /// # use outbox_core::event::{CodecContext, MessageId};
    /// let message_id = MessageId::generate();
    /// let context =
    ///     CodecContext { source: "shop", message_id, event_type: "order.placed", topic: "orders", key: Some("7") };
    /// let moved = CodecContext { key: Some("8"), ..context };
    /// assert_ne!(context.associated_data(), moved.associated_data());
    /// ```
    #[must_use]
    pub fn associated_data(&self) -> Vec<u8> {
        let id = self.message_id.as_uuid().as_bytes();
        let texts = [self.source, self.event_type, self.topic, self.key.unwrap_or_default()];
        let parts = [LAYOUT, id.as_slice()].into_iter().chain(texts.iter().map(|t| t.as_bytes()));
        let mut all = Vec::with_capacity(128);
        for part in parts {
            // An attribute has 255 bytes at most.
            all.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            all.extend_from_slice(part);
        }
        all
    }
}

/// A payload as it is stored and sent.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedPayload {
    /// The bytes.
    pub payload: Bytes,
    /// The id of the key, for the header [`PAYLOAD_KEY`]: up to 128 bytes without control characters; no secret. Empty where the
    /// codec has no keys.
    pub key_id: String,
}

impl fmt::Debug for EncodedPayload {
    /// Shows everything but the payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedPayload")
            .field("payload_bytes", &self.payload.len())
            .field("key_id", &self.key_id)
            .finish()
    }
}

/// Why a codec does not decode a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecFault {
    /// This instance does not have the key yet; another one may, and this one may get it.
    #[error("this instance does not have the key")]
    UnknownKey,
    /// It does not decode, here or elsewhere: another envelope, a wrong tag, bytes cut off. The reason is a text of the program,
    /// which cannot quote content.
    #[error("{0}")]
    Broken(&'static str),
}

/// How a message's payload is encoded, as its headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PayloadEncoding<'a> {
    /// Name of the codec.
    pub codec: &'a str,
    /// Id of the key; empty where the codec has none.
    pub key_id: &'a str,
}

impl<'a> PayloadEncoding<'a> {
    fn of(headers: &'a Headers) -> Option<Self> {
        let codec = headers.get(PAYLOAD_CODEC)?;
        Some(Self { codec, key_id: headers.get(PAYLOAD_KEY).unwrap_or_default() })
    }

    /// Tells whether a codec could have written this.
    fn is_legal(self) -> bool {
        is_name(self.codec) && is_key(self.key_id)
    }
}

impl fmt::Display for PayloadEncoding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the payload codec `{}`", self.codec)?;
        match self.key_id {
            "" => Ok(()),
            key_id => write!(f, " with the key `{key_id}`"),
        }
    }
}

impl Message {
    /// Tells how its payload is encoded; `None` for a clear one. A handler sees the clear one, without these headers.
    ///
    /// ```
    /// # use outbox_core::event::Message;
    /// # fn example(message: &Message) {
    /// if let Some(encoding) = message.encoding() {
    ///     println!("{} bytes of {encoding}", message.payload.len());
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn encoding(&self) -> Option<PayloadEncoding<'_>> {
        PayloadEncoding::of(&self.headers)
    }
}

fn is_name(name: &str) -> bool {
    let is_legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_legal)
}

fn is_key(key_id: &str) -> bool {
    key_id.is_empty() || TextRule::up_to(LONGEST_KEY).allows(key_id)
}

#[cfg(test)]
mod tests;
