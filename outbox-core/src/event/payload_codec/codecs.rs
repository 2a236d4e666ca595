//! The payload codecs of a service: the decision what each message's content is to it.

use super::{
    CodecContext, CodecFault, EncodedPayload, LONGEST_KEY, LONGEST_NAME, PAYLOAD_CODEC,
    PAYLOAD_KEY, PayloadCodec, PayloadEncoding, is_key, is_name,
};
use crate::{
    event::{EncodeError, Headers, Message, NewEvent, TOMBSTONE},
    runtime::full_text::BoxError,
};
use bytes::Bytes;
use std::{fmt, sync::Arc};

/// Content that was not decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadFault {
    /// This instance does not have the codec, or the key.
    Unknown {
        /// Name of the codec.
        codec: String,
        /// Id of the key.
        key_id: String,
    },
    /// No instance could decode it, for this reason, which quotes no content.
    Broken(String),
}

/// The payload codecs of a service: the one that encodes, and all that decode.
#[derive(Clone, Default)]
pub struct PayloadCodecs {
    encoder: Option<Arc<dyn PayloadCodec>>,
    decoders: Vec<Arc<dyn PayloadCodec>>,
}

impl fmt::Debug for PayloadCodecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.decoders.iter().map(|codec| codec.name())).finish()
    }
}

impl PayloadCodecs {
    /// No codec.
    pub const NONE: Self = Self { encoder: None, decoders: Vec::new() };

    /// Encodes and decodes with a codec, in place of the one that encoded before.
    #[must_use]
    pub fn encode_with(mut self, codec: impl PayloadCodec) -> Self {
        let codec: Arc<dyn PayloadCodec> = Arc::new(codec);
        self.encoder = Some(codec.clone());
        self.decoders.push(codec);
        self
    }

    /// Decodes with one more codec.
    #[must_use]
    pub fn decode_with(mut self, codec: impl PayloadCodec) -> Self {
        self.decoders.push(Arc::new(codec));
        self
    }

    /// Tells whether there is no codec.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.decoders.is_empty()
    }

    /// Gives the faults of the codecs: names that do not travel, or that two of them have.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (at, codec) in self.decoders.iter().enumerate() {
            let name = codec.name();
            if !is_name(name) {
                faults.push(format!(
                    "the name of a payload codec has 1 to {LONGEST_NAME} of a-z, 0-9, `.`, `_` and `-`, not `{name}`"
                ));
            } else if self.decoders[..at].iter().any(|other| other.name() == name) {
                faults.push(format!("two payload codecs are called `{name}`"));
            }
        }
        faults
    }

    /// Tells whether this instance can decode with a codec's key now.
    #[must_use]
    pub fn has_key(&self, codec: &str, key_id: &str) -> bool {
        self.decoder(codec).is_some_and(|codec| codec.has_key(key_id))
    }

    /// Encodes the payload of an event that is saved under a source, and sets its headers. A tombstone has none, and stays as
    /// it is.
    ///
    /// # Errors
    /// [`EncodeError::Codec`] of the codec, or for a key id that cannot travel; [`EncodeError::Envelope`] for an event that has
    /// one of the headers already.
    pub fn encode(&self, source: &str, event: &mut NewEvent) -> Result<(), EncodeError> {
        if event.payload.is_empty() && event.headers.get(TOMBSTONE) == Some("true") {
            return Ok(());
        }
        let Some(codec) = &self.encoder else { return Ok(()) };
        let context = CodecContext::of_event(source, event);
        let encoded = encoded(&**codec, context, &event.payload, &event.headers)?;
        (event.payload, event.headers) = encoded;
        Ok(())
    }

    /// Encodes the content of a context; `None` where there is no codec that encodes.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_content(
        &self,
        context: CodecContext<'_>,
        payload: &Bytes,
        headers: &Headers,
    ) -> Result<Option<(Bytes, Headers)>, EncodeError> {
        let codec = self.encoder.as_deref();
        codec.map(|codec| encoded(codec, context, payload, headers)).transpose()
    }

    /// Gives a message with its clear payload, without the headers of the codec; one that is not encoded as it is.
    ///
    /// # Errors
    /// [`PayloadFault`] where it does not decode here.
    pub fn decode(&self, message: &Message) -> Result<Message, PayloadFault> {
        let context = CodecContext::of_message(message);
        let decoded = self.decode_content(context, &message.payload, &message.headers)?;
        let Some((payload, headers)) = decoded else { return Ok(message.clone()) };
        let mut parts = message.clone().into_parts();
        (parts.payload, parts.headers) = (payload, headers);
        Ok(Message::new(parts))
    }

    /// Gives the clear payload of a context and its headers without those of the codec; `None` where it is not encoded.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_content(
        &self,
        context: CodecContext<'_>,
        payload: &Bytes,
        headers: &Headers,
    ) -> Result<Option<(Bytes, Headers)>, PayloadFault> {
        let Some(encoding) = PayloadEncoding::of(headers) else { return Ok(None) };
        if !encoding.is_legal() {
            let reason =
                format!("the headers `{PAYLOAD_CODEC}` and `{PAYLOAD_KEY}` name no codec and key");
            return Err(PayloadFault::Broken(reason));
        }
        let PayloadEncoding { codec, key_id } = encoding;
        let decoded = match self.decoder(codec) {
            Some(codec) => codec.decode(context, key_id, payload.clone()),
            None => Err(CodecFault::UnknownKey),
        };
        match decoded {
            Ok(payload) => {
                let mut headers = headers.clone();
                headers.remove(PAYLOAD_CODEC);
                headers.remove(PAYLOAD_KEY);
                Ok(Some((payload, headers)))
            }
            Err(CodecFault::UnknownKey) => {
                Err(PayloadFault::Unknown { codec: codec.to_owned(), key_id: key_id.to_owned() })
            }
            Err(CodecFault::Broken(reason)) => Err(PayloadFault::Broken(format!(
                "{encoding} does not decode the content: {reason}"
            ))),
        }
    }

    fn decoder(&self, name: &str) -> Option<&dyn PayloadCodec> {
        self.decoders.iter().find(|codec| codec.name() == name).map(|codec| &**codec)
    }
}

/// Encodes a content; gives it with its headers.
fn encoded(
    codec: &dyn PayloadCodec,
    context: CodecContext<'_>,
    payload: &Bytes,
    headers: &Headers,
) -> Result<(Bytes, Headers), EncodeError> {
    let event_type = || context.event_type.to_owned();
    if let Some(name) = [PAYLOAD_CODEC, PAYLOAD_KEY].into_iter().find(|n| headers.get(n).is_some())
    {
        let reason = format!("`{name}` is set by the payload codec of the outbox alone");
        return Err(EncodeError::Envelope { event_type: event_type(), field: "header", reason });
    }
    let fail = |source: BoxError| EncodeError::Codec {
        event_type: event_type(),
        codec: codec.name().to_owned(),
        source,
    };
    let EncodedPayload { payload, key_id } =
        codec.encode(context, payload.clone()).map_err(fail)?;
    if !is_key(&key_id) {
        let rule =
            format!("the id of a key has up to {LONGEST_KEY} bytes without control characters");
        return Err(fail(rule.into()));
    }
    let mut headers = headers.clone();
    headers.keep(PAYLOAD_CODEC, codec.name().to_owned());
    if !key_id.is_empty() {
        headers.keep(PAYLOAD_KEY, key_id);
    }
    Ok((payload, headers))
}
