//! The in-process transport: both halves over one bounded channel. For tests, examples and modular
//! monoliths.

use super::{
    AckDecision, AckHandle, Delivery, PublishError, Publisher, Receipt, SubscribeError, Subscriber,
};
use crate::{event::Message, runtime::now};
use async_trait::async_trait;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// Deliveries that may wait for the subscriber: enough to keep it busy, few enough to push back.
const CAPACITY: usize = 256;

/// How long the publisher waits for the ack decision; a consumer returns a delivery that it cannot
/// start in time. Far less than the deadline of a relay's route, so that an event that only waits
/// for its turn does not look like one whose publish hangs.
const ACK_DEADLINE: Duration = Duration::from_secs(8);

/// How long a message that the subscriber has not begun with waits before it comes again: shorter
/// than what a consumer that returns it has still in hand, so that it does not fall idle.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// The publishing half. A publish is confirmed when the subscriber has acknowledged it.
#[derive(Debug, Clone)]
pub struct Memory {
    sender: mpsc::Sender<Delivery>,
    delivered: Arc<AtomicU64>,
}

/// The subscribing half.
#[derive(Debug)]
pub struct MemorySubscriber(mpsc::Receiver<Delivery>);

impl Memory {
    /// Makes both halves.
    ///
    /// ```
    /// # use outbox_core::transport::{Memory, Publisher, Subscriber};
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
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (publisher, mut subscriber) = Memory::channel();
    /// let message = Message::for_test(&OrderPlaced { order_id: 7 })?;
    /// let handled = async { subscriber.next().await?.expect("one message").ack().await };
    /// let (confirmed, handled) = tokio::join!(publisher.publish(&message), handled);
    /// assert_eq!(confirmed?.position, Some(1));
    /// # Ok(handled?) }
    /// ```
    #[must_use]
    pub fn channel() -> (Self, MemorySubscriber) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (Self { sender, delivered: Arc::default() }, MemorySubscriber(receiver))
    }
}

#[async_trait]
impl Publisher for Memory {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let (ack, decision) = AckHandle::new("the publisher no longer waits for the ack decision");
        let delivery = Delivery::new(Ok(message.clone()), None, Box::new(ack));
        let delivery = delivery.awaited(now(), now() + ACK_DEADLINE);
        if self.sender.send(delivery).await.is_err() {
            return Err(PublishError::unavailable("the subscriber is closed"));
        }
        match decision.await {
            Ok(AckDecision::Ack) => {
                Ok(Receipt::new().at(self.delivered.fetch_add(1, Ordering::Relaxed) + 1))
            }
            Ok(AckDecision::Nack) => {
                Err(PublishError::transient("the subscriber could not handle the message"))
            }
            Ok(AckDecision::Busy) => {
                Err(PublishError::busy("the subscriber has not begun with the message", BUSY_WAIT))
            }
            Ok(AckDecision::Reject(reason)) => {
                Err(PublishError::permanent(format!("the subscriber rejected it: {reason}")))
            }
            Err(_) => {
                Err(PublishError::transient("the subscriber dropped the message without an answer"))
            }
        }
    }
}

#[async_trait]
impl Subscriber for MemorySubscriber {
    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        Ok(self.0.recv().await)
    }
}
