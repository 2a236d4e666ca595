//! The content of a message as its handler sees it: decoded where a payload codec has encoded it. What is
//! stored of the message keeps the encoded form.

use super::{HandlerOutcome, Worker};
use crate::{
    event::{Message, PayloadCodecs, PayloadEncoding, PayloadFault},
    outbox::{Awaited, ConsumerStore},
    runtime::catch_unwind,
};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// Keys that the consumer warns of at most: a sender that invents ids fills no memory.
const MOST_KEYS: usize = 1_000;
/// Runs of a delivery after which a key that this instance says it has, and does not decode with, counts as
/// one that no instance has. Fewer may be a key that came between the run and the question.
const RUNS_WITHOUT_KEY: u32 = 10;

/// The codecs of the consumer's store, and the keys that were warned of.
pub(in crate::consumer) struct Decoding {
    codecs: PayloadCodecs,
    warned: Mutex<BTreeSet<Awaited>>,
}

impl Decoding {
    pub(in crate::consumer) fn new(codecs: PayloadCodecs) -> Self {
        Self { codecs, warned: Mutex::default() }
    }

    pub(in crate::consumer) const fn codecs(&self) -> &PayloadCodecs {
        &self.codecs
    }

    /// Tells whether a message is clear, or this instance has the key of its payload.
    pub(super) fn can_read(&self, message: &Message) -> bool {
        let has_key =
            |encoding: PayloadEncoding<'_>| self.codecs.has_key(encoding.codec, encoding.key_id);
        message.encoding().is_none_or(has_key)
    }

    /// Tells whether a key is warned of for the first time.
    fn is_new(&self, key: &Awaited) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        warned.len() < MOST_KEYS && warned.insert(key.clone())
    }
}

/// Tells whether runs of a delivery that waits for this show that no instance with the same declarations can
/// run it.
pub(super) const fn proves_unknown(awaited: &Awaited, runs: u32) -> bool {
    match awaited {
        Awaited::Key { .. } => runs >= RUNS_WITHOUT_KEY,
        Awaited::Type { .. } | Awaited::Saga { .. } => true,
    }
}

impl<S: ConsumerStore> Worker<S> {
    /// Gives a message as its handler sees it, or the outcome of a run that does not begin.
    pub(in crate::consumer) async fn decoded(
        &self,
        message: &Message,
    ) -> Result<Message, HandlerOutcome> {
        if message.encoding().is_none() {
            return Ok(message.clone());
        }
        let decoding = async { self.decoding.codecs.decode(message) };
        match catch_unwind(decoding).await {
            Ok(Ok(clear)) => Ok(clear),
            Ok(Err(PayloadFault::Unknown { codec, key_id })) => {
                let awaited = Awaited::key(&codec, &key_id);
                self.warn_of_key(&awaited, &codec, &key_id);
                Err(HandlerOutcome::Unknown(awaited))
            }
            Ok(Err(PayloadFault::Broken(reason))) => Err(HandlerOutcome::Undecodable(reason)),
            Err(panic) => {
                Err(HandlerOutcome::Failed(format!("a panic of the payload codec: {panic}")))
            }
        }
    }

    /// Warns of a key that this instance does not have, once.
    fn warn_of_key(&self, awaited: &Awaited, codec: &str, key_id: &str) {
        if self.decoding.is_new(awaited) {
            tracing::warn!(
                consumer = &*self.consumer,
                codec,
                key_id,
                "this instance cannot decode the payloads of this codec and key: their messages wait for an instance that can, and \
                 become dead letters when the time of `keep_unknown` is over; add the codec to the outbox with `payload_codec` or \
                 `payload_decoder`, or the key to the codec; not logged again for this key"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_is_declared_and_not_read_is_given_up_at_once_and_a_key_after_ten_runs() {
        let of_type = Awaited::Type { name: "order.placed".into(), version: 2 };
        let of_saga = Awaited::Saga { name: "checkout".into(), version: 2 };
        let key = Awaited::key("flip", "k1");
        for (awaited, runs, expected) in [
            (&of_type, 0, true),
            (&of_saga, 1, true),
            (&key, 0, false),
            (&key, 9, false),
            (&key, 10, true),
        ] {
            assert_eq!(proves_unknown(awaited, runs), expected, "{awaited} {runs}");
        }
    }
}
