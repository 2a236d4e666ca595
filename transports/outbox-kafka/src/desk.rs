//! Where a member's thread meets those who ask for records and answer for them.

use crate::ledger::{Ledger, Place, Ticket, Weight};
use bytes::Bytes;
use outbox_core::event::Message;
use rdkafka::{Message as _, message::BorrowedMessage};
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// Records that are known, of each that may wait: what is done behind one that is not.
const HELD_FOR_EACH: usize = 64;
/// Keys that may be stuck before no record of another one is fetched.
const KEYS_THAT_MAY_WAIT: usize = 4;

/// Bytes of records that wait or are out before no more are fetched, and one record beyond.
const MOST_BYTES: usize = 32 << 20;

/// A record as it came.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    /// `None` where there is no value.
    pub(crate) body: Option<Bytes>,
}

/// A record that was received.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) message: Result<Message, String>,
    /// Its value, where it cannot be read.
    pub(crate) unread: Option<Bytes>,
    pub(crate) raw: Option<Arc<Raw>>,
}

impl Weight for Arrived {
    fn bytes(&self) -> usize {
        let read = self.message.as_ref().map_or(0, |message| message.payload.len());
        // A body is shared with the message that was read of it.
        let raw = self.raw.as_ref().and_then(|raw| raw.body.as_ref()).map_or(0, Bytes::len);
        read.max(raw).max(self.unread.as_ref().map_or(0, Bytes::len))
    }
}

/// What the member's thread shares with those who ask and answer.
#[derive(Debug)]
pub(crate) struct Desk {
    state: Mutex<State>,
    /// Something is there to be asked for.
    news: Notify,
    /// What the thread waits for may have come.
    come: Condvar,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) ledger: Ledger<Arrived>,
    /// Nobody asks any more.
    pub(crate) closing: bool,
    trouble: Option<String>,
    /// The member has left its group.
    ended: bool,
    /// Records that may wait to be asked for.
    prefetch: usize,
    awaited: Option<Awaited>,
}

/// What the member's thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// An answer.
    Answers,
    /// Room for more records.
    Room,
}

impl State {
    /// Tells whether as much waits as may.
    pub(crate) fn is_full(&self) -> bool {
        let (waiting, beyond) = (self.ledger.waiting(), self.ledger.beyond());
        waiting - beyond >= self.prefetch
            || waiting >= 2 * self.prefetch
            || self.ledger.held() >= self.most()
            || self.ledger.bytes() >= MOST_BYTES
    }

    /// Tells whether half of it is gone.
    pub(crate) fn is_well(&self) -> bool {
        let (waiting, beyond, half) =
            (self.ledger.waiting(), self.ledger.beyond(), self.prefetch / 2);
        waiting - beyond <= half
            && waiting <= self.prefetch + half
            && self.ledger.held() <= self.most() / 2
            && self.ledger.bytes() <= MOST_BYTES / 2
    }

    fn most(&self) -> usize {
        self.prefetch.saturating_mul(HELD_FOR_EACH)
    }

    /// Tells whether the thread is to be woken: that costs more than all else that an answer does.
    fn is_awaited(&self) -> bool {
        match self.awaited {
            None => false,
            Some(Awaited::Answers) => true,
            Some(Awaited::Room) => self.is_well() || self.closing,
        }
    }
}

impl Desk {
    pub(crate) fn new(prefetch: usize) -> Self {
        let ledger = Ledger::new((prefetch / KEYS_THAT_MAY_WAIT).max(1));
        let state =
            State { ledger, closing: false, trouble: None, ended: false, prefetch, awaited: None };
        Self { state: Mutex::new(state), news: Notify::new(), come: Condvar::new() }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next record that may be handled.
    ///
    /// # Errors
    /// What the brokers said; whether the member has ended by it.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no record.
    pub(crate) async fn next(&self) -> Result<(Ticket, Arrived), (String, bool)> {
        loop {
            {
                let mut state = self.state();
                if let Some(next) = state.ledger.next() {
                    self.wake(state);
                    return Ok(next);
                }
                let ended = state.ended;
                if let Some(trouble) = state.trouble.take() {
                    return Err((trouble, ended));
                }
                if ended {
                    return Err(("the member has left its group".to_owned(), true));
                }
            }
            self.news.notified().await;
        }
    }

    /// Takes in a record.
    pub(crate) fn arrive(&self, place: &Place, offset: i64, key: Option<u64>, arrived: Arrived) {
        self.state().ledger.arrive(place, offset, key, arrived);
        self.news.notify_one();
    }

    /// Notes what the brokers said, for whoever asks next.
    pub(crate) fn trouble(&self, trouble: String) {
        self.state().trouble = Some(trouble);
        self.news.notify_one();
    }

    /// Notes that a record is done; `false` when its partition was taken away.
    pub(crate) fn done(&self, ticket: &Ticket) -> bool {
        self.answered(|ledger| ledger.done(ticket))
    }

    /// Notes that a record comes back.
    pub(crate) fn back(&self, ticket: &Ticket) -> bool {
        self.answered(|ledger| ledger.back(ticket))
    }

    fn answered(&self, note: impl FnOnce(&mut Ledger<Arrived>) -> bool) -> bool {
        let mut state = self.state();
        let ours = note(&mut state.ledger);
        self.wake(state);
        // The next of its key may go, or it again.
        self.news.notify_one();
        ours
    }

    /// Notes that positions could not be committed.
    pub(crate) fn not_committed<'p>(&self, places: impl Iterator<Item = &'p Place>) {
        let mut state = self.state();
        places.for_each(|place| state.ledger.not_committed(place));
    }

    /// Asks the member to leave.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closing = true;
        self.wake(state);
    }

    /// Notes that the member has left.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.news.notify_one();
    }

    /// Waits until the member has left.
    pub(crate) async fn ended(&self) {
        while !self.state().ended {
            self.news.notified().await;
        }
    }

    /// Waits, on the member's thread, for something that others do.
    pub(crate) fn wait<'d>(
        &'d self,
        mut state: MutexGuard<'d, State>,
        awaited: Awaited,
        longest: Duration,
    ) -> MutexGuard<'d, State> {
        state.awaited = Some(awaited);
        let waited = self.come.wait_timeout(state, longest);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.awaited = None;
        state
    }

    /// Wakes the thread once where what it waits for has come.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let has_come = state.is_awaited();
        if has_come {
            state.awaited = None;
        }
        drop(state);
        if has_come {
            self.come.notify_one();
        }
    }
}

impl Raw {
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

    /// A desk at which four of at most four records wait.
    fn full() -> Desk {
        let (desk, place): (_, Place) = (Desk::new(4), ("orders".into(), 0));
        desk.state().ledger.assign(place.clone());
        for offset in 0..4 {
            desk.arrive(
                &place,
                offset,
                None,
                Arrived { message: Err(String::new()), unread: None, raw: None },
            );
        }
        desk
    }

    #[test]
    fn large_records_fill_it_before_their_number_does() {
        let (desk, place): (_, Place) = (Desk::new(1_000), ("orders".into(), 0));
        desk.state().ledger.assign(place.clone());
        let large = |offset| {
            let unread = Some(Bytes::from(vec![0; MOST_BYTES / 4]));
            desk.arrive(
                &place,
                offset,
                None,
                Arrived { message: Err(String::new()), unread, raw: None },
            );
        };
        (0..3).for_each(large);
        assert!(!desk.state().is_full());
        large(3);
        assert!(desk.state().is_full(), "four quarters");
        let out = [take(&desk), take(&desk)];
        assert!(desk.state().is_full(), "what is out is in memory too");
        for ticket in &out {
            assert!(desk.state().ledger.done(ticket));
        }
        assert!(!desk.state().is_full() && desk.state().is_well());
    }

    fn take(desk: &Desk) -> Ticket {
        desk.next().now_or_never().expect("one waits").expect("it is well").0
    }

    #[test]
    fn the_thread_is_woken_for_what_it_waits_for() {
        let desk = full();
        let is_woken = |awaited| {
            let mut state = desk.state();
            state.awaited = awaited;
            let is_woken = state.is_awaited();
            state.awaited = None;
            is_woken
        };
        let all = [None, Some(Awaited::Answers), Some(Awaited::Room)];
        assert_eq!(all.map(is_woken), [false, true, false]);
        take(&desk);
        assert_eq!(all.map(is_woken), [false, true, false], "three wait");
        take(&desk);
        assert_eq!(all.map(is_woken), [false, true, true], "half of it is gone");
        let desk = full();
        desk.close();
        desk.state().awaited = Some(Awaited::Room);
        assert!(desk.state().is_awaited(), "nobody asks any more");
    }

    #[test]
    fn a_thread_that_waits_goes_on_at_once() {
        type Act = fn(&Desk);
        let room: Act = |desk| _ = [take(desk), take(desk)];
        let answer: Act = |desk| {
            let ticket = take(desk);
            assert!(desk.done(&ticket));
        };
        for (awaited, act) in
            [(Awaited::Room, room), (Awaited::Room, Desk::close), (Awaited::Answers, answer)]
        {
            let (desk, (say, heard)) = (Arc::new(full()), mpsc::channel());
            let waiting = desk.clone();
            thread("waits", move || {
                drop(waiting.wait(waiting.state(), awaited, LONG));
                let _ = say.send(());
            })
            .expect("a thread");
            while desk.state().awaited.is_none() {
                std::thread::yield_now();
            }
            act(&desk);
            heard.recv_timeout(SOON).expect("it was woken");
        }
    }
}
