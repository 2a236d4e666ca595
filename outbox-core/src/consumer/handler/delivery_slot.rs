//! A delivery that its handlers acknowledge, and whether one did before its transaction was committed.

use crate::transport::{Acknowledge, Delivery, SubscribeError};
use async_trait::async_trait;
use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// The slot that the consumer and its handlers share.
pub(in crate::consumer) type SharedSlot = Arc<DeliverySlot>;

/// Holds a delivery until a handler or the consumer takes it.
pub(in crate::consumer) struct DeliverySlot {
    delivery: Mutex<Option<Delivery>>,
    /// Whether a handler's transaction is open.
    open: AtomicBool,
    /// Whether that handler asked for an acknowledgement after its commit.
    ack_requested: AtomicBool,
    /// Whether the handler acknowledged the delivery while the transaction was open.
    acked_early: AtomicBool,
}

/// How a handler has acknowledged its delivery by the time its transaction has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::consumer) struct AckRequest {
    pub(in crate::consumer) ack_after_commit: bool,
    /// The broker does not deliver the message again, also where the transaction is rolled back.
    pub(in crate::consumer) acknowledged: bool,
}

impl DeliverySlot {
    pub(in crate::consumer) fn of(delivery: Delivery) -> SharedSlot {
        let flag = || AtomicBool::new(false);
        Arc::new(Self {
            delivery: Mutex::new(Some(delivery)),
            open: flag(),
            ack_requested: flag(),
            acked_early: flag(),
        })
    }

    /// Notes that the consumer opens a handler's transaction.
    pub(in crate::consumer) fn open(&self) {
        self.ack_requested.store(false, Ordering::Relaxed);
        self.acked_early.store(false, Ordering::Relaxed);
        self.open.store(true, Ordering::Relaxed);
    }

    /// Notes that the transaction has ended.
    pub(in crate::consumer) fn close(&self) -> AckRequest {
        self.open.store(false, Ordering::Relaxed);
        AckRequest {
            ack_after_commit: self.ack_requested.load(Ordering::Relaxed),
            acknowledged: self.acked_early.load(Ordering::Relaxed),
        }
    }

    /// Takes the delivery for the consumer itself.
    pub(in crate::consumer) fn take(&self) -> Option<Delivery> {
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes the delivery for a handler.
    pub(super) fn give(self: &Arc<Self>) -> Option<Delivery> {
        let slot = Arc::clone(self);
        self.take()
            .map(|delivery| delivery.acknowledged_by(|inner| Box::new(ByHandler { inner, slot })))
    }

    /// Asks for an acknowledgement after the commit. Tells whether the consumer still has the delivery.
    pub(super) fn ack_after_commit(&self) -> bool {
        self.ack_requested.store(true, Ordering::Relaxed);
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl fmt::Debug for DeliverySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliverySlot").finish_non_exhaustive()
    }
}

/// Passes a handler's ack decision on, and notes an acknowledgement that comes before the commit.
struct ByHandler {
    inner: Box<dyn Acknowledge>,
    slot: SharedSlot,
}

#[async_trait]
impl Acknowledge for ByHandler {
    async fn ack(self: Box<Self>) -> Result<(), SubscribeError> {
        let Self { inner, slot } = *self;
        let early = slot.open.load(Ordering::Relaxed);
        if early {
            // Before the call: a call that is dropped half way may have reached the broker.
            slot.acked_early.store(true, Ordering::Relaxed);
        }
        let acked = inner.ack().await;
        if early && acked.is_err() {
            slot.acked_early.store(false, Ordering::Relaxed);
        }
        acked
    }

    async fn nack(self: Box<Self>, requeue: bool) -> Result<(), SubscribeError> {
        self.inner.nack(requeue).await
    }

    async fn busy(self: Box<Self>) -> Result<(), SubscribeError> {
        self.inner.busy().await
    }

    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError> {
        self.inner.reject(reason).await
    }

    fn is_given_up(&self) -> bool {
        self.inner.is_given_up()
    }
}
