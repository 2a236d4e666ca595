//! A publisher whose messages leave with their clear payloads.

use super::{Batch, Limits, PublishError, Publisher, Receipt, publisher::publish_each};
use crate::event::{Message, PayloadCodec, PayloadCodecs, PayloadFault};
use async_trait::async_trait;
use std::time::Duration;

/// Decodes payloads before a publisher gets them, for a destination that does not have the codec, such as a webhook of a
/// partner. What it publishes is clear, and has no header of the codec; so the relay has to have the keys.
///
/// A message whose key is missing is retried as the policy of its route says; one that does not decode is never published.
///
/// ```
/// # use outbox_core::{event::PayloadCodec, transport::{Decoded, Publisher, Route, topic}};
/// # fn example(webhook: impl Publisher, aead: impl PayloadCodec) {
/// let partner = Route::new("partner", topic("orders"), Decoded::new(webhook, aead));
/// # }
/// ```
#[derive(Debug)]
pub struct Decoded<P> {
    publisher: P,
    codecs: PayloadCodecs,
}

impl<P: Publisher> Decoded<P> {
    /// Decodes with a codec.
    pub fn new(publisher: P, codec: impl PayloadCodec) -> Self {
        Self { publisher, codecs: PayloadCodecs::NONE.decode_with(codec) }
    }

    /// Decodes with one more codec, under its own name.
    #[must_use]
    pub fn and(mut self, codec: impl PayloadCodec) -> Self {
        self.codecs = self.codecs.decode_with(codec);
        self
    }

    fn decode(&self, message: &Message) -> Result<Message, PublishError> {
        self.codecs.decode(message).map_err(|fault| match fault {
            PayloadFault::Unknown { codec, key_id } => PublishError::transient(format!(
                "this relay does not have the key `{key_id}` of the payload codec `{codec}`"
            )),
            PayloadFault::Broken(reason) => PublishError::permanent(reason),
        })
    }
}

#[async_trait]
impl<P: Publisher> Publisher for Decoded<P> {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        self.publisher.publish(&self.decode(message)?).await
    }

    async fn publish_batch(&self, batch: &mut Batch) {
        let decoded: Result<Vec<Message>, _> =
            batch.messages().iter().map(|message| self.decode(message)).collect();
        match decoded {
            Ok(messages) => {
                self.publisher.publish_batch(&mut batch.in_another_form(messages)).await;
            }
            // The others of the batch are published all the same.
            Err(_) => publish_each(self, batch).await,
        }
    }

    fn check(&self) -> Result<(), PublishError> {
        match self.codecs.faults().as_slice() {
            [] => self.publisher.check(),
            faults => Err(PublishError::permanent(faults.join("; "))),
        }
    }

    fn destination(&self) -> Option<String> {
        self.publisher.destination()
    }

    fn system(&self) -> &'static str {
        self.publisher.system()
    }

    fn timeout(&self) -> Option<Duration> {
        self.publisher.timeout()
    }

    fn limits(&self) -> Limits {
        self.publisher.limits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{EventMeta, MessageParts, NewEvent, OutboxEvent},
        failure::FailureClass,
        testing::{FlippingCodec, transport::full},
        transport::publish_all,
    };
    use std::sync::{Arc, Mutex};

    /// A publisher that keeps what it gets.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Message>>>);

    #[async_trait]
    impl Publisher for Kept {
        async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
            self.0.lock().unwrap().push(message.clone());
            Ok(Receipt::new())
        }
    }

    struct Paid;

    impl OutboxEvent for Paid {
        fn meta(&self) -> EventMeta<'_> {
            EventMeta::new("order.paid").topic("orders").key(Some("7"))
        }

        fn payload(&self) -> Result<bytes::Bytes, crate::event::EncodeError> {
            Ok("clear".into())
        }
    }

    fn encoded(codec: &Arc<FlippingCodec>) -> Message {
        let mut event = NewEvent::encode(&Paid).unwrap();
        let codecs = PayloadCodecs::NONE.encode_with(codec.clone());
        codecs.encode("shop", &mut event).unwrap();
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

    fn broken(message: &Message) -> Message {
        let mut parts = message.clone().into_parts();
        parts.payload.truncate(9);
        Message::new(parts)
    }

    #[tokio::test]
    async fn what_leaves_is_clear_and_one_that_does_not_decode_keeps_no_other_back() {
        let (codec, kept) = (Arc::new(FlippingCodec::new("flip", ["k1"])), Kept::default());
        let decoded = Decoded::new(kept.clone(), codec.clone());
        let (plain, [first, second]) = (full(), [encoded(&codec), encoded(&codec)]);
        let all = [first.clone(), plain.clone(), broken(&first), second.clone()];
        for (messages, classes) in [
            (&all[..2], &[None, None][..]),
            (&all[..], &[None, None, Some(FailureClass::Permanent), None]),
        ] {
            kept.0.lock().unwrap().clear();
            let outcomes = publish_all(&decoded, messages).await;
            let failed: Vec<_> =
                outcomes.iter().map(|it| it.as_ref().err().map(PublishError::class)).collect();
            assert_eq!(failed, classes);
            let published = kept.0.lock().unwrap().clone();
            assert_eq!(published.len(), classes.iter().filter(|class| class.is_none()).count());
            assert!(published.iter().all(|message| message.encoding().is_none()));
            assert!(published.iter().any(|message| message.payload == "clear"));
            assert!(published.contains(&plain), "a clear one goes as it is");
        }
        codec.destroy("k1");
        let error = decoded.publish(&first).await.expect_err("its key is gone");
        assert_eq!(error.class(), FailureClass::Transient);
    }
}
