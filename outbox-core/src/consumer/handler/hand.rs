//! A delivery in the hands of its handlers: who answers for it, and whether it was answered before anything was committed.

use crate::transport::{Acknowledge, Delivery, SubscribeError};
use async_trait::async_trait;
use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Where a delivery waits for whoever answers for it.
pub(in crate::consumer) type Slot = Arc<Hand>;

/// A delivery that its handlers answer for.
pub(in crate::consumer) struct Hand {
    delivery: Mutex<Option<Delivery>>,
    /// Whether a handler's transaction is open.
    open: AtomicBool,
    /// Whether that handler asked for an acknowledgement behind its commit.
    ack: AtomicBool,
    /// Whether the broker was told, while it was open, that the message is handled.
    told: AtomicBool,
}

/// What a handler has said of its delivery by the time its transaction has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::consumer) struct Said {
    pub(in crate::consumer) ack_after_commit: bool,
    /// The broker does not deliver the message again, whatever became of the transaction.
    pub(in crate::consumer) acknowledged: bool,
}

impl Hand {
    pub(in crate::consumer) fn of(delivery: Delivery) -> Slot {
        let flag = || AtomicBool::new(false);
        Arc::new(Self {
            delivery: Mutex::new(Some(delivery)),
            open: flag(),
            ack: flag(),
            told: flag(),
        })
    }

    /// Says that a handler's transaction is being opened.
    pub(in crate::consumer) fn open(&self) {
        self.ack.store(false, Ordering::Relaxed);
        self.told.store(false, Ordering::Relaxed);
        self.open.store(true, Ordering::Relaxed);
    }

    /// Says that it has ended.
    pub(in crate::consumer) fn close(&self) -> Said {
        self.open.store(false, Ordering::Relaxed);
        Said {
            ack_after_commit: self.ack.load(Ordering::Relaxed),
            acknowledged: self.told.load(Ordering::Relaxed),
        }
    }

    /// Takes the delivery for the consumer itself.
    pub(in crate::consumer) fn take(&self) -> Option<Delivery> {
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes it for a handler.
    pub(super) fn give(self: &Arc<Self>) -> Option<Delivery> {
        let hand = Arc::clone(self);
        self.take()
            .map(|delivery| delivery.answered_by(|inner| Box::new(ByHandler { inner, hand })))
    }

    /// Asks for an acknowledgement behind the commit. Tells whether the delivery is there for it.
    pub(super) fn ack_after_commit(&self) -> bool {
        self.ack.store(true, Ordering::Relaxed);
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl fmt::Debug for Hand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hand").finish_non_exhaustive()
    }
}

/// Answers as a handler says, and notes an acknowledgement that comes before the commit.
struct ByHandler {
    inner: Box<dyn Acknowledge>,
    hand: Slot,
}

#[async_trait]
impl Acknowledge for ByHandler {
    async fn ack(self: Box<Self>) -> Result<(), SubscribeError> {
        let Self { inner, hand } = *self;
        let early = hand.open.load(Ordering::Relaxed);
        if early {
            // Before the call: one that is dropped half way may have reached the broker.
            hand.told.store(true, Ordering::Relaxed);
        }
        let told = inner.ack().await;
        if early && told.is_err() {
            hand.told.store(false, Ordering::Relaxed);
        }
        told
    }

    async fn nack(self: Box<Self>, requeue: bool) -> Result<(), SubscribeError> {
        self.inner.nack(requeue).await
    }

    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError> {
        self.inner.reject(reason).await
    }

    fn is_given_up(&self) -> bool {
        self.inner.is_given_up()
    }
}
