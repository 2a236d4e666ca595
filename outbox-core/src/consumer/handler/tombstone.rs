//! Tombstones: messages without content, which say that the entity of their key is deleted.

use super::{EventHandler, EventHandlers, HandlerEntry, HandlerSet};
use crate::{
    consumer::ConsumerBuilder,
    event::{DecodeError, DecodeEvent, EventContract, EventType, Message},
    outbox::{ConsumerStore, Store},
};

/// Says that the entity of a key is deleted: a record of Kafka without a value, or an event of a type that is marked
/// `#[outbox(tombstone)]`, over any transport.
///
/// ```
/// # use outbox_core::consumer::{HandlerContext, HandlerError, Tombstone};
/// # struct Sql;
/// async fn forget_customer(gone: Tombstone, cx: &HandlerContext<Sql>) -> Result<(), HandlerError> {
///     let customer = gone.key.ok_or_else(|| HandlerError::reject("a customer has a key"))?;
///     println!("deletes customer {customer} of {}", gone.topic);
/// #   let _ = &cx.tx;
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tombstone {
    /// The topic.
    pub topic: String,
    /// The key. `None` for a record of Kafka whose key is no text of 1 to 255 bytes: its bytes are in the header `recordkey` of
    /// the message then, in hexadecimal, up to 255 of them.
    pub key: Option<String>,
    /// Type name of the event; `tombstone` where its sender did not say one.
    pub event_type: String,
}

impl EventContract for Tombstone {
    /// None: a tombstone has no content, whatever its type.
    const TYPES: &'static [EventType] = &[];
}

impl DecodeEvent for Tombstone {
    fn decode(message: &Message) -> Result<Self, DecodeError> {
        Ok(Self {
            topic: message.topic.clone(),
            key: message.key.clone(),
            event_type: message.event_type.clone(),
        })
    }
}

impl<S: ConsumerStore> ConsumerBuilder<S> {
    /// Adds a handler for [tombstones](Tombstone): messages without content, which say that
    /// the entity of their key is deleted.
    ///
    /// It runs like any other, in its own transaction, after earlier messages of the same key. The handlers of an event type are not
    /// given its tombstones, and the policy for [unhandled](Self::unhandled) types does not apply to them: a tombstone that no handler
    /// takes is acknowledged. All are counted in [`ConsumerStats::tombstones`](super::super::ConsumerStats::tombstones).
    ///
    /// ```
    /// # use outbox_core::{consumer::{Consumer, HandlerContext, HandlerError, Tombstone}, outbox::ConsumerStore};
    /// async fn forget<Tx>(gone: Tombstone, cx: &HandlerContext<Tx>) -> Result<(), HandlerError> {
    ///     if let Some(customer) = &gone.key {
    ///         // .. delete the customer through `cx.tx` ..
    /// #       let _ = (customer, &cx.tx);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn on_tombstone(
        self,
        name: impl AsRef<str>,
        handler: impl EventHandler<Tombstone, S>,
    ) -> Self {
        self.handlers(One(HandlerEntry::tombstones(name.as_ref(), handler)))
    }
}

/// A set of one handler.
struct One<S: Store>(HandlerEntry<S>);

impl<S: Store> EventHandlers<S> for One<S> {
    fn add_to(self, set: &mut HandlerSet<S>) {
        set.0.push(self.0);
    }
}
