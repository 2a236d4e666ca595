//! A subscriber's two tasks, which know the messages that it has: one receives, the other carries
//! ack decisions out and keeps messages invisible to other subscribers until they have theirs.

mod ack_handle;
mod acks;
mod held;
mod poll;

pub(crate) use ack_handle::{AckHandle, AckRules};
pub(crate) use acks::{AckDecision, Acks};
pub(crate) use held::{Held, Received, Tag};
pub(crate) use poll::{Poll, Stop};

use crate::classify::Failure;
use outbox_core::runtime::now;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::sync::Notify;

/// Most entries of a request.
const MAX_ENTRIES: usize = 10;

/// What both tasks, the subscriber and its deliveries share.
#[derive(Debug, Default)]
pub(crate) struct Store {
    inner: Mutex<Inner>,
    /// Signalled when a message may be handed out, and when a poll has ended.
    arrived: Notify,
    /// Signalled when a message is wanted, and when one has left.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    held: Held,
    /// Whether somebody waits for a message. Nothing is received before: a FIFO queue gives no other
    /// subscriber the messages of a group while one of them waits here.
    is_wanted: bool,
    /// The last failure to receive that was not reported.
    failure: Option<Failure>,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is held, and tells who waits for it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        let changed = change(&mut self.lock().held);
        self.arrived.notify_one();
        self.wanted.notify_one();
        changed
    }

    /// Adds messages that were received. Whoever waits has one now, and asks again for the next: the
    /// task may look for that before the waiting caller has run.
    fn add(&self, messages: Vec<(String, Received)>, until: Instant) {
        let mut inner = self.lock();
        inner.is_wanted &= messages.is_empty();
        for (receipt, received) in messages {
            inner.held.add(receipt, until, received);
        }
        drop(inner);
        self.arrived.notify_one();
    }

    /// Notes a failure to receive.
    pub(crate) fn fail(&self, failure: Failure) {
        self.lock().failure = Some(failure);
        self.arrived.notify_one();
    }

    /// Waits for the next message, or for a failure.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no message.
    pub(crate) async fn next(&self) -> Result<(Tag, Received), Failure> {
        loop {
            {
                let mut inner = self.lock();
                let next = inner.held.next(now());
                let ended = next.map(Ok).or_else(|| inner.failure.take().map(Err));
                inner.is_wanted = ended.is_none();
                if let Some(ended) = ended {
                    return ended;
                }
            }
            self.wanted.notify_one();
            self.arrived.notified().await;
        }
    }

    /// Waits until a message is wanted and there is room, and gives for how many.
    async fn room(&self, prefetch: usize) -> usize {
        loop {
            {
                let mut inner = self.lock();
                let room = inner.held.room(prefetch);
                if inner.is_wanted && room > 0 {
                    inner.is_wanted = false;
                    return room.min(MAX_ENTRIES);
                }
            }
            self.wanted.notified().await;
        }
    }
}
