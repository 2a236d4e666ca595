//! Messages without content, which say that what was told under their key is gone.

use super::{EventHandler, EventHandlers, HandlerSet, Route};
use crate::{
    consumer::Consumer,
    event::{DecodeError, DecodeEvent, EventContract, EventType, Message},
    outbox::{ConsumerStore, Store},
};

/// Says that what was told under a key is gone: a record of Kafka without a value, or an event of a type that is marked
/// `#[outbox(tombstone)]`, over any transport.
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
    /// None: it is told by having no content.
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

impl<S: ConsumerStore> Consumer<S> {
    /// Adds a handler for [tombstones](Tombstone): messages without content, which say that what was told under their key is gone.
    ///
    /// It runs like any other, in its own transaction, after what came before of the same key. The handlers of an event type are not
    /// given its tombstones, and what becomes of [others'](Self::others) types does not touch them: a tombstone that no handler
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
        self.handlers(One(Route::tombstones(name.as_ref(), handler)))
    }
}

/// One handler more.
struct One<S: Store>(Route<S>);

impl<S: Store> EventHandlers<S> for One<S> {
    fn add_to(self, set: &mut HandlerSet<S>) {
        set.0.push(self.0);
    }
}
