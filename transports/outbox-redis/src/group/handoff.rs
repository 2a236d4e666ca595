//! The state that the member's task shares with its callers: they take entries from it and pass ack
//! decisions back.

use super::pending::{DeliveryTag, PendingEntries, Weight};
use crate::{connection::RedisConnection, headers::Field};
use outbox_core::event::Message;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Keys that may be stuck before the member reads no entry of another key.
const MAX_STUCK_KEYS: usize = 4;
/// Most bytes of waiting and in-flight entries. How many entries the member reads at once follows
/// from the largest one that it has seen, since the server counts entries alone.
const MAX_BYTES: usize = 32 << 20;
/// Most entries of a stream that the member reads at once.
const MAX_READ: usize = 256;

/// A received entry.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) message: Result<Message, String>,
    /// The fields as they came: for the dead-letter stream, and for a message that cannot be read.
    pub(crate) fields: Arc<[Field]>,
    /// Bytes of the fields.
    pub(crate) size: usize,
}

impl Weight for Received {
    fn bytes(&self) -> usize {
        self.size
    }
}

/// The state that the member's task and its callers share.
pub(crate) struct Handoff {
    state: Mutex<State>,
    /// Wakes a caller that waits for an entry, an error or the end.
    caller_wake: Notify,
    /// Wakes the member's task.
    member_wake: Notify,
}

pub(crate) struct State {
    pub(crate) pending: PendingEntries<Received>,
    /// The connection for ack decisions; `None` while there is none, and nothing is delivered.
    pub(crate) connection: Option<Arc<RedisConnection>>,
    /// The subscriber takes no more entries.
    pub(crate) closing: bool,
    /// The last error, for the next caller.
    error: Option<String>,
    /// The member has released its entries.
    ended: bool,
    /// Entries that may wait for a caller.
    prefetch: usize,
    /// The member reads nothing until it is half empty.
    waits_for_room: bool,
    /// Bytes of the largest entry of late.
    largest: usize,
}

impl State {
    fn is_connected(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.is_usable())
    }

    fn is_full(&self) -> bool {
        let (waiting, excess) = (self.pending.waiting(), self.pending.excess());
        waiting - excess >= self.prefetch
            || waiting >= 2 * self.prefetch
            || self.pending.bytes() >= MAX_BYTES
    }

    fn is_half_empty(&self) -> bool {
        let (waiting, excess, half) =
            (self.pending.waiting(), self.pending.excess(), self.prefetch / 2);
        waiting - excess <= half
            && waiting <= self.prefetch + half
            && self.pending.bytes() <= MAX_BYTES / 2
    }

    /// Tells how many entries of each stream to read; `None` while there is no room. Where it was
    /// full, there is room again when it is half empty: many small reads cost more than a few.
    pub(crate) fn room(&mut self, streams: usize) -> Option<usize> {
        self.waits_for_room = self.is_full() || (self.waits_for_room && !self.is_half_empty());
        if self.waits_for_room {
            return None;
        }
        let counted = self.pending.waiting() - self.pending.excess();
        let by_number = (self.prefetch - counted).min(2 * self.prefetch - self.pending.waiting());
        let by_bytes = (MAX_BYTES - self.pending.bytes()) / self.largest.max(1);
        Some((by_number.min(by_bytes) / streams.max(1)).clamp(1, MAX_READ))
    }

    /// Notes the bytes of the largest entry of a read. A large one is forgotten slowly.
    pub(crate) fn note_largest(&mut self, bytes: usize) {
        self.largest = bytes.max(self.largest / 2);
    }
}

impl Handoff {
    pub(crate) fn new(streams: usize, prefetch: usize) -> Self {
        let state = State {
            pending: PendingEntries::new(streams, (prefetch / MAX_STUCK_KEYS).max(1)),
            connection: None,
            closing: false,
            error: None,
            ended: false,
            prefetch,
            waits_for_room: false,
            largest: 0,
        };
        Self { state: Mutex::new(state), caller_wake: Notify::new(), member_wake: Notify::new() }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next entry that may be handled; `None` when the subscriber is closed. Gives
    /// how often the entry was delivered.
    ///
    /// # Errors
    /// Why the member has lost its connection.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no entry.
    pub(crate) async fn next(&self) -> Result<Option<(DeliveryTag, u32, Received)>, String> {
        loop {
            {
                let mut state = self.state();
                if state.closing {
                    return Ok(None);
                }
                // Without a connection no ack decision of it could be taken.
                if state.is_connected()
                    && let Some(next) = state.pending.next()
                {
                    self.wake_member(&state);
                    return Ok(Some(next));
                }
                if state.connection.is_some() && !state.is_connected() {
                    self.member_wake.notify_one();
                }
                if let Some(error) = state.error.take() {
                    return Err(error);
                }
            }
            self.caller_wake.notified().await;
        }
    }

    /// Tells callers that there are entries, or a connection.
    pub(crate) fn wake_caller(&self) {
        self.caller_wake.notify_one();
    }

    /// Reports the loss of the connection to the next caller.
    pub(crate) fn report_loss(&self, error: String) {
        let mut state = self.state();
        state.connection = None;
        state.error = Some(error);
        drop(state);
        self.caller_wake.notify_one();
    }

    /// Removes an entry that is acknowledged.
    pub(crate) fn done(&self, tag: &DeliveryTag) {
        let mut state = self.state();
        state.pending.done(tag);
        self.wake_member(&state);
        drop(state);
        // The next entry of its key is ready now.
        self.caller_wake.notify_one();
    }

    /// Returns an entry, to be delivered again. Gives the connection over which to release it
    /// instead, where the subscriber is closed.
    pub(crate) fn requeue(&self, tag: &DeliveryTag) -> Option<Arc<RedisConnection>> {
        let mut state = self.state();
        let is_held =
            if state.closing { state.pending.done(tag) } else { state.pending.requeue(tag) };
        let release_over = state.connection.clone().filter(|_| state.closing && is_held);
        drop(state);
        self.caller_wake.notify_one();
        release_over
    }

    /// Asks the member to release its entries and end.
    pub(crate) fn close(&self) {
        self.state().closing = true;
        self.member_wake.notify_one();
        self.caller_wake.notify_one();
    }

    /// Waits on the member's task until something may have changed for it.
    pub(crate) async fn woken(&self) {
        self.member_wake.notified().await;
    }

    /// Waits on the member's task until the subscriber is closed.
    pub(crate) async fn closing(&self) {
        while !self.state().closing {
            self.member_wake.notified().await;
        }
    }

    /// Marks the member as ended.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.caller_wake.notify_one();
    }

    /// Waits until the member has ended.
    pub(crate) async fn ended(&self) {
        while !self.state().ended {
            self.caller_wake.notified().await;
        }
    }

    fn wake_member(&self, state: &State) {
        if state.waits_for_room && state.is_half_empty() {
            self.member_wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::replies::EntryId;
    use outbox_core::runtime::now;

    fn insert(state: &mut State, n: u64, size: usize) {
        let received = Received { message: Err(String::new()), fields: Arc::new([]), size };
        state.pending.insert(0, EntryId::new(n, 0), None, 1, now(), received);
    }

    #[test]
    fn room_ends_when_it_is_full_and_begins_when_it_is_half_empty() {
        let handoff = Handoff::new(1, 4);
        let mut state = handoff.state();
        assert_eq!(state.room(1), Some(4));
        (0..4).for_each(|n| insert(&mut state, n, 1));
        assert_eq!(state.room(1), None);
        state.pending.next().expect("one waits");
        assert_eq!(state.room(1), None, "three wait");
        state.pending.next().expect("one waits");
        assert_eq!(state.room(1), Some(2));
        assert_eq!(state.room(2), Some(1), "of each stream");
    }

    #[test]
    fn large_entries_are_read_one_by_one_and_fill_it_before_their_number_does() {
        let handoff = Handoff::new(1, 1_000);
        let mut state = handoff.state();
        assert_eq!(state.room(1), Some(MAX_READ));
        state.note_largest(MAX_BYTES / 4);
        assert_eq!(state.room(1), Some(4));
        (0..3).for_each(|n| insert(&mut state, n, MAX_BYTES / 4));
        assert_eq!(state.room(1), Some(1));
        insert(&mut state, 3, MAX_BYTES / 4);
        assert_eq!(state.room(1), None);
        let tags: Vec<DeliveryTag> =
            std::iter::from_fn(|| state.pending.next()).take(2).map(|(tag, ..)| tag).collect();
        assert_eq!(state.room(1), None, "entries in flight are in memory too");
        assert!(tags.iter().all(|tag| state.pending.done(tag)));
        assert_eq!(state.room(1), Some(2));
        for _ in 0..20 {
            state.note_largest(10);
        }
        assert_eq!(state.room(1), Some(MAX_READ), "a large one is forgotten");
    }
}
