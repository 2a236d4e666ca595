//! The monitor that the member's thread shares with its callers: they take records from it and pass
//! ack decisions back.

use crate::offsets::{DeliveryTag, OffsetTracker, TopicPartition, Weight};
use bytes::Bytes;
use outbox_core::event::Message;
use rdkafka::{Message as _, message::BorrowedMessage};
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// Most tracked records for each that may wait: records that are done stay tracked behind one that
/// is not.
const TRACKED_PER_WAITING: usize = 64;
/// Keys that may be stuck before the member fetches no record of another key.
const MAX_STUCK_KEYS: usize = 4;

/// Most bytes of waiting and in-flight records; the member fetches one record beyond.
const MAX_BYTES: usize = 32 << 20;

/// A record as it came, for the dead-letter topic.
#[derive(Debug)]
pub(crate) struct RawRecord {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    /// `None` for a record without a value.
    pub(crate) body: Option<Bytes>,
}

/// A received record.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) message: Result<Message, String>,
    /// Its value, where it cannot be read.
    pub(crate) unread: Option<Bytes>,
    pub(crate) raw: Option<Arc<RawRecord>>,
}

impl Weight for Received {
    fn bytes(&self) -> usize {
        let read = self.message.as_ref().map_or(0, |message| message.payload.len());
        // A message shares the body from which it was read.
        let raw = self.raw.as_ref().and_then(|raw| raw.body.as_ref()).map_or(0, Bytes::len);
        read.max(raw).max(self.unread.as_ref().map_or(0, Bytes::len))
    }
}

/// The state that the member's thread and its callers share.
#[derive(Debug)]
pub(crate) struct Handoff {
    state: Mutex<State>,
    /// Wakes a caller that waits for a record, an error or the end.
    caller_wake: Notify,
    /// Wakes the member's thread.
    thread_wake: Condvar,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) offsets: OffsetTracker<Received>,
    /// The subscriber takes no more records.
    pub(crate) closing: bool,
    /// The last error, for the next caller.
    error: Option<String>,
    /// The member has left its group.
    ended: bool,
    /// Records that may wait for a caller.
    prefetch: usize,
    waiting_for: Option<WaitingFor>,
}

/// What the member's thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitingFor {
    /// An ack decision.
    Decision,
    /// Room for more records.
    Room,
    /// Nothing but the end of its wait.
    Nothing,
}

impl State {
    /// Tells whether a limit of waiting or tracked records or bytes is reached.
    pub(crate) fn is_full(&self) -> bool {
        let (waiting, excess) = (self.offsets.waiting(), self.offsets.excess());
        waiting - excess >= self.prefetch
            || waiting >= 2 * self.prefetch
            || self.offsets.tracked() >= self.max_tracked()
            || self.offsets.bytes() >= MAX_BYTES
    }

    /// Tells whether it is at most half full.
    pub(crate) fn is_half_empty(&self) -> bool {
        let (waiting, excess, half) =
            (self.offsets.waiting(), self.offsets.excess(), self.prefetch / 2);
        waiting - excess <= half
            && waiting <= self.prefetch + half
            && self.offsets.tracked() <= self.max_tracked() / 2
            && self.offsets.bytes() <= MAX_BYTES / 2
    }

    fn max_tracked(&self) -> usize {
        self.prefetch.saturating_mul(TRACKED_PER_WAITING)
    }

    /// Tells whether to wake the thread: a wake costs more than the rest of an ack.
    fn wakes_thread(&self) -> bool {
        match self.waiting_for {
            None | Some(WaitingFor::Nothing) => false,
            Some(WaitingFor::Decision) => true,
            Some(WaitingFor::Room) => self.is_half_empty() || self.closing,
        }
    }
}

impl Handoff {
    pub(crate) fn new(prefetch: usize) -> Self {
        let state = State {
            offsets: OffsetTracker::new((prefetch / MAX_STUCK_KEYS).max(1)),
            closing: false,
            error: None,
            ended: false,
            prefetch,
            waiting_for: None,
        };
        Self { state: Mutex::new(state), caller_wake: Notify::new(), thread_wake: Condvar::new() }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next record that may be handled.
    ///
    /// # Errors
    /// The error of the brokers, and whether it has ended the member.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no record.
    pub(crate) async fn next(&self) -> Result<(DeliveryTag, Received), (String, bool)> {
        loop {
            {
                let mut state = self.state();
                if let Some(next) = state.offsets.next() {
                    self.wake_thread(state);
                    return Ok(next);
                }
                let ended = state.ended;
                if let Some(error) = state.error.take() {
                    return Err((error, ended));
                }
                if ended {
                    return Err(("the member has left its group".to_owned(), true));
                }
            }
            self.caller_wake.notified().await;
        }
    }

    /// Adds a record.
    pub(crate) fn push(
        &self,
        partition: &TopicPartition,
        offset: i64,
        key: Option<u64>,
        received: Received,
    ) {
        self.state().offsets.push(partition, offset, key, received);
        self.caller_wake.notify_one();
    }

    /// Reports an error of the brokers to the next caller.
    pub(crate) fn report_error(&self, error: String) {
        self.state().error = Some(error);
        self.caller_wake.notify_one();
    }

    /// Marks a record as done; `false` when its partition was revoked.
    pub(crate) fn done(&self, tag: &DeliveryTag) -> bool {
        self.update(|offsets| offsets.done(tag))
    }

    /// Requeues a record, to be delivered again; `false` when its partition was revoked.
    pub(crate) fn requeue(&self, tag: &DeliveryTag) -> bool {
        self.update(|offsets| offsets.requeue(tag))
    }

    fn update(&self, change: impl FnOnce(&mut OffsetTracker<Received>) -> bool) -> bool {
        let mut state = self.state();
        let is_owned = change(&mut state.offsets);
        self.wake_thread(state);
        // The next record of its key is ready now, or this one again.
        self.caller_wake.notify_one();
        is_owned
    }

    /// Marks positions as uncommitted after a failed commit.
    pub(crate) fn commit_failed<'p>(&self, partitions: impl Iterator<Item = &'p TopicPartition>) {
        let mut state = self.state();
        partitions.for_each(|partition| state.offsets.commit_failed(partition));
    }

    /// Asks the member to leave its group.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closing = true;
        self.wake_thread(state);
    }

    /// Marks the member as having left its group.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.caller_wake.notify_one();
    }

    /// Waits until the member has left its group.
    pub(crate) async fn ended(&self) {
        while !self.state().ended {
            self.caller_wake.notified().await;
        }
    }

    /// Waits on the member's thread, until a caller provides what it waits for or the time is up.
    pub(crate) fn wait<'h>(
        &'h self,
        mut state: MutexGuard<'h, State>,
        waiting_for: WaitingFor,
        longest: Duration,
    ) -> MutexGuard<'h, State> {
        state.waiting_for = Some(waiting_for);
        let waited = self.thread_wake.wait_timeout(state, longest);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.waiting_for = None;
        state
    }

    /// Wakes the thread, once, where it has what it waits for.
    fn wake_thread(&self, mut state: MutexGuard<'_, State>) {
        let wakes_thread = state.wakes_thread();
        if wakes_thread {
            state.waiting_for = None;
        }
        drop(state);
        if wakes_thread {
            self.thread_wake.notify_one();
        }
    }
}

impl RawRecord {
    pub(crate) fn of(record: &BorrowedMessage<'_>, body: Option<Bytes>) -> Self {
        let headers = record.headers().into_iter().flat_map(rdkafka::message::Headers::iter);
        let headers = headers
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect();
        Self { key: record.key().map(<[u8]>::to_vec), headers, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use outbox_core::runtime::thread;
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(60);
    const SOON: Duration = Duration::from_secs(20);

    /// A handoff with four waiting records of at most four.
    fn full() -> Handoff {
        let (handoff, partition): (_, TopicPartition) = (Handoff::new(4), ("orders".into(), 0));
        handoff.state().offsets.assign(partition.clone());
        for offset in 0..4 {
            handoff.push(
                &partition,
                offset,
                None,
                Received { message: Err(String::new()), unread: None, raw: None },
            );
        }
        handoff
    }

    #[test]
    fn large_records_fill_it_before_their_number_does() {
        let (handoff, partition): (_, TopicPartition) = (Handoff::new(1_000), ("orders".into(), 0));
        handoff.state().offsets.assign(partition.clone());
        let large = |offset| {
            let unread = Some(Bytes::from(vec![0; MAX_BYTES / 4]));
            handoff.push(
                &partition,
                offset,
                None,
                Received { message: Err(String::new()), unread, raw: None },
            );
        };
        (0..3).for_each(large);
        assert!(!handoff.state().is_full());
        large(3);
        assert!(handoff.state().is_full(), "four quarters");
        let out = [take(&handoff), take(&handoff)];
        assert!(handoff.state().is_full(), "records in flight are in memory too");
        for tag in &out {
            assert!(handoff.state().offsets.done(tag));
        }
        assert!(!handoff.state().is_full() && handoff.state().is_half_empty());
    }

    fn take(handoff: &Handoff) -> DeliveryTag {
        handoff.next().now_or_never().expect("one waits").expect("no error").0
    }

    #[test]
    fn the_thread_is_woken_for_what_it_waits_for() {
        let handoff = full();
        let is_woken = |waiting_for| {
            let mut state = handoff.state();
            state.waiting_for = waiting_for;
            let is_woken = state.wakes_thread();
            state.waiting_for = None;
            is_woken
        };
        let all = [None, Some(WaitingFor::Decision), Some(WaitingFor::Room)];
        assert_eq!(all.map(is_woken), [false, true, false]);
        take(&handoff);
        assert_eq!(all.map(is_woken), [false, true, false], "three wait");
        take(&handoff);
        assert_eq!(all.map(is_woken), [false, true, true], "it is half empty");
        let handoff = full();
        handoff.close();
        handoff.state().waiting_for = Some(WaitingFor::Room);
        assert!(handoff.state().wakes_thread(), "the subscriber takes no more");
    }

    #[test]
    fn a_thread_that_waits_goes_on_at_once() {
        type Act = fn(&Handoff);
        let room: Act = |handoff| _ = [take(handoff), take(handoff)];
        let decide: Act = |handoff| {
            let tag = take(handoff);
            assert!(handoff.done(&tag));
        };
        for (waiting_for, act) in [
            (WaitingFor::Room, room),
            (WaitingFor::Room, Handoff::close),
            (WaitingFor::Decision, decide),
        ] {
            let (handoff, (sender, woken)) = (Arc::new(full()), mpsc::channel());
            let waiting = handoff.clone();
            thread("waits", move || {
                drop(waiting.wait(waiting.state(), waiting_for, LONG));
                let _ = sender.send(());
            })
            .expect("a thread");
            while handoff.state().waiting_for.is_none() {
                std::thread::yield_now();
            }
            act(&handoff);
            woken.recv_timeout(SOON).expect("it was woken");
        }
    }
}
