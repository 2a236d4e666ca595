//! A made-up payload codec for tests, which hides nothing from an attacker.

use crate::{
    event::{CodecContext, CodecFault, EncodedPayload, PayloadCodec, random_u64},
    failure::BoxError,
};
use bytes::Bytes;
use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of the salt before the content, by which it is encoded otherwise each time, and of the tag after it.
const WORD: usize = 8;

/// A reversible codec for tests: it flips each byte, and appends a tag over envelope, key and content. It is **no cipher**.
///
/// ```
/// # use outbox_core::{event::{CodecContext, CodecFault, MessageId, PayloadCodec}, testing::FlippingCodec};
/// let codec = FlippingCodec::new("flip", ["k1"]);
/// let message_id = MessageId::generate();
/// let context = CodecContext { source: "shop", message_id, event_type: "a", topic: "a", key: None };
/// let encoded = codec.encode(context, "clear".into()).expect("it has a key");
/// assert_eq!(codec.decode(context, &encoded.key_id, encoded.payload.clone()), Ok("clear".into()));
/// assert_eq!(codec.decode(context, "k2", encoded.payload), Err(CodecFault::UnknownKey));
/// ```
#[derive(Debug)]
pub struct FlippingCodec {
    name: String,
    keys: Mutex<Keys>,
}

#[derive(Debug)]
struct Keys {
    known: BTreeSet<String>,
    current: Option<String>,
}

impl FlippingCodec {
    /// Makes a codec with some keys, of which the last one encodes.
    #[must_use]
    pub fn new(name: &str, keys: impl IntoIterator<Item = &'static str>) -> Self {
        let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
        let current = keys.last().cloned();
        let keys = Mutex::new(Keys { known: keys.into_iter().collect(), current });
        Self { name: name.to_owned(), keys }
    }

    /// Adds a key, which encodes from now on.
    pub fn rotate(&self, key_id: &str) {
        let mut keys = self.keys();
        keys.known.insert(key_id.to_owned());
        keys.current = Some(key_id.to_owned());
    }

    /// Destroys a key.
    pub fn destroy(&self, key_id: &str) {
        self.keys().known.remove(key_id);
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PayloadCodec for FlippingCodec {
    fn name(&self) -> &str {
        &self.name
    }

    fn has_key(&self, key_id: &str) -> bool {
        self.keys().known.contains(key_id)
    }

    fn encode(
        &self,
        context: CodecContext<'_>,
        payload: Bytes,
    ) -> Result<EncodedPayload, BoxError> {
        let key_id = self.keys().current.clone().ok_or("there is no key")?;
        let salt = random_u64().to_be_bytes();
        let (mask, mut encoded) = (mask(&key_id, &salt), salt.to_vec());
        encoded.extend(payload.iter().map(|byte| byte ^ mask));
        encoded.extend(tag(context, &key_id, &payload));
        Ok(EncodedPayload { payload: encoded.into(), key_id })
    }

    fn decode(
        &self,
        context: CodecContext<'_>,
        key_id: &str,
        payload: Bytes,
    ) -> Result<Bytes, CodecFault> {
        if !self.has_key(key_id) {
            return Err(CodecFault::UnknownKey);
        }
        let Some((salt, rest)) = payload.split_first_chunk::<WORD>() else {
            return Err(CodecFault::Broken("it is cut off"));
        };
        let Some((flipped, given)) = rest.split_last_chunk::<WORD>() else {
            return Err(CodecFault::Broken("it is cut off"));
        };
        let mask = mask(key_id, salt);
        let clear: Bytes = flipped.iter().map(|byte| byte ^ mask).collect();
        if tag(context, key_id, &clear) != *given {
            return Err(CodecFault::Broken("its tag does not fit"));
        }
        Ok(clear)
    }
}

/// Gives what each byte is flipped with; the highest bit, so that no text stays one.
fn mask(key_id: &str, salt: &[u8; WORD]) -> u8 {
    xxh3_64(&[key_id.as_bytes(), salt].concat()).to_be_bytes()[0] | 0x80
}

fn tag(context: CodecContext<'_>, key_id: &str, clear: &[u8]) -> [u8; WORD] {
    let envelope = context.associated_data();
    xxh3_64(&[envelope.as_slice(), key_id.as_bytes(), clear].concat()).to_be_bytes()
}
