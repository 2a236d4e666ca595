//! The events of one key on one route, in the order of their ids, at most one of them in flight.
//!
//! The head blocks the key while it waits for its retry, for a record or for its turn alone. A
//! parked key waits for the dead letter of its former head.

use super::{
    eviction::{EvictedFrom, ReadSource, Refusal, check_capacity},
    route_queue::Ready,
};
use crate::{
    event::{EventId, LetterId},
    outbox::PartitionNo,
};
use std::collections::VecDeque;

/// The reason why a key is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parked {
    /// The event that this relay gave up; `None` if the key was parked before the partition was
    /// gained.
    head: Option<EventId>,
    /// Its dead letter, about which an operator has to decide; `None` while the settler writes it.
    pub(super) letter: Option<LetterId>,
    /// Whether the key goes on as soon as the letter is written, without an operator. Not before: a
    /// crash would bring the head back, and the later events of the key must not have overtaken it.
    until_written: bool,
}

/// The events of one key on one route.
#[derive(Debug)]
pub(super) struct KeyQueue {
    partition: PartitionNo,
    /// The waiting events, by id.
    waiting: VecDeque<EventId>,
    /// The event in flight.
    in_flight: Option<EventId>,
    /// Whether it is in the route's list of ready keys.
    in_ready: bool,
    /// The head, while it waits for its timer, for a record, or for its turn alone.
    blocked: Option<EventId>,
    parked: Option<Parked>,
    /// Whether an operator's pause holds its head.
    is_held: bool,
    evicted_from: Option<EvictedFrom>,
}

impl KeyQueue {
    pub(super) fn new(partition: PartitionNo) -> Self {
        Self {
            partition,
            waiting: VecDeque::new(),
            in_flight: None,
            in_ready: false,
            blocked: None,
            parked: None,
            is_held: false,
            evicted_from: None,
        }
    }

    pub(super) const fn partition(&self) -> PartitionNo {
        self.partition
    }

    /// Gives the first waiting event.
    pub(super) fn head(&self) -> Option<EventId> {
        self.waiting.front().copied()
    }

    /// Inserts an event in id order; usually it is the last.
    pub(super) fn insert(&mut self, id: EventId) {
        if self.waiting.back().is_none_or(|last| *last < id) {
            self.waiting.push_back(id);
        } else if let Err(at) = self.waiting.binary_search(&id) {
            self.waiting.insert(at, id);
        }
        if self.blocked.is_some_and(|head| id < head) {
            // The blocked event is no longer the head.
            self.blocked = None;
        }
        if self.waiting.front() == Some(&id) {
            // The held event is no longer the head.
            self.is_held = false;
        }
    }

    /// Takes an event out, wherever it waits.
    pub(super) fn take(&mut self, id: EventId) {
        if let Ok(at) = self.waiting.binary_search(&id) {
            self.waiting.remove(at);
        }
    }

    /// Adds itself to the route's ready keys, if its head may be published.
    pub(super) fn make_ready(&mut self, hash: u64, ready: &mut VecDeque<Ready>) {
        if self.in_flight.is_none()
            && !self.in_ready
            && !self.is_blocked()
            && !self.waiting.is_empty()
        {
            self.in_ready = true;
            ready.push_back(Ready::Key(hash));
        }
    }

    /// Leaves the route's ready keys; tells whether its head may be published.
    pub(super) fn turn_comes(&mut self) -> bool {
        self.in_ready = false;
        !self.is_blocked() && self.in_flight.is_none()
    }

    /// Takes the head out, to publish it or to put it back.
    pub(super) fn take_head(&mut self) -> Option<EventId> {
        self.waiting.pop_front()
    }

    /// Puts the head back that was taken.
    pub(super) fn return_head(&mut self, id: EventId) {
        self.waiting.push_front(id);
    }

    /// Notes that an event is in flight.
    pub(super) fn started(&mut self, id: EventId) {
        self.in_flight = Some(id);
    }

    /// Notes that the publish of an event has ended.
    pub(super) fn ended(&mut self, id: EventId) {
        self.in_flight.take_if(|in_flight| *in_flight == id);
    }

    /// Puts an event back whose publish is to be repeated.
    pub(super) fn requeue(&mut self, id: EventId) {
        self.in_flight = None;
        self.insert(id);
    }

    /// Puts an event back whose publish has failed: if it is the head, it blocks the key until its
    /// retry. An earlier event that committed late may have come meanwhile, and it is published
    /// first.
    pub(super) fn wait_for_retry(&mut self, id: EventId) {
        self.requeue(id);
        self.blocked = self.head().filter(|head| *head == id);
    }

    /// Keeps the key waiting for its head.
    pub(super) fn block(&mut self, head: EventId) {
        self.blocked = Some(head);
    }

    /// Lets the key go on, if it waits for this event.
    pub(super) fn unblock(&mut self, head: EventId) {
        self.blocked.take_if(|blocked| *blocked == head);
    }

    /// Tells whether the key waits for its head or for an operator.
    pub(super) const fn is_blocked(&self) -> bool {
        self.blocked.is_some() || self.parked.is_some() || self.is_held
    }

    /// Parks the key behind an event that is given up, until its letter is written or, if not
    /// `until_written`, until an operator has decided about it.
    pub(super) fn park(&mut self, head: EventId, until_written: bool) {
        self.take(head);
        self.unblock(head);
        self.parked = Some(Parked { head: Some(head), letter: None, until_written });
    }

    /// Parks the key behind a letter that was there before the partition was gained, unless it is
    /// parked already; tells whether it was not.
    pub(super) fn park_behind(&mut self, letter: LetterId) -> bool {
        if self.parked.is_some() {
            return false;
        }
        self.parked = Some(Parked { head: None, letter: Some(letter), until_written: false });
        true
    }

    pub(super) const fn parked(&self) -> Option<Parked> {
        self.parked
    }

    /// Keeps a parked key waiting for a further letter.
    pub(super) fn park_on(&mut self, letter: LetterId) {
        if let Some(parked) = &mut self.parked {
            parked.letter = Some(letter);
        }
    }

    /// Takes the id of the letter of the event that parks the key.
    pub(super) fn letter_written(&mut self, head: EventId, letter: LetterId) {
        if let Some(parked) = self.parked.as_mut().filter(|parked| parked.head == Some(head)) {
            parked.letter = Some(letter);
        }
    }

    /// Opens the key when the letter of its former head is recorded, unless an operator has to
    /// decide about it; tells whether it has opened.
    pub(super) fn letter_recorded(&mut self, head: EventId) -> bool {
        // No letter came back: an operator had resolved it before the settler repeated the record,
        // and the record was void.
        self.parked
            .take_if(|parked| {
                parked.head == Some(head) && (parked.until_written || parked.letter.is_none())
            })
            .is_some()
    }

    pub(super) fn unpark(&mut self) {
        self.parked = None;
    }

    pub(super) const fn is_held(&self) -> bool {
        self.is_held
    }

    /// Holds the key: a pause holds its head.
    pub(super) fn hold(&mut self) {
        self.is_held = true;
    }

    /// Ends the hold; the key is held again when its head's turn comes under another pause.
    pub(super) fn end_hold(&mut self) {
        self.is_held = false;
    }

    /// Tells whether an event would be the next of its key, were it not for a pause: neither
    /// another one in memory nor an evicted one is before it.
    pub(super) fn is_next(&self, id: EventId, source: ReadSource) -> bool {
        self.parked.is_none()
            && self.in_flight.is_none()
            && self.waiting.front().is_none_or(|first| id < *first)
            && self.evicted_from.is_none_or(|evicted_from| evicted_from.is_first(id, source))
    }

    /// Tells whether later events of the key wait in memory: an event has to be published before
    /// them, with or without room.
    pub(super) fn is_overdue(&self, id: EventId) -> bool {
        self.waiting.back().is_some_and(|last| id < *last)
    }

    /// Tells whether the key keeps an event out of memory, even if there is room.
    pub(super) fn evicts(&self, id: EventId, source: ReadSource) -> bool {
        self.evicted_from.is_some_and(|evicted_from| evicted_from.evicts(id, source))
    }

    /// Gives how many events may wait. In a crowded route a blocked key keeps its head only, and a
    /// parked key, whose head is a dead letter, nothing: the room is for keys that move. Without
    /// room for held events a held key keeps nothing either.
    pub(super) const fn capacity(&self, crowded: bool, held_out: bool, per_key: usize) -> usize {
        match crowded {
            true if self.parked.is_some() => 0,
            _ if held_out => 0,
            true if self.blocked.is_some() => 1,
            _ => per_key,
        }
    }

    /// Decides whether an event is taken into memory, where so many may wait; `refused` says that
    /// its route refuses it anyway.
    pub(super) fn check_capacity(
        &mut self,
        id: EventId,
        source: ReadSource,
        most: usize,
        refused: bool,
    ) -> Result<(), Refusal> {
        let full = self.waiting.len() >= most || refused;
        check_capacity(self.evicted_from.as_mut(), id, source, full)
    }

    /// Begins an eviction with an event.
    pub(super) fn begin_eviction(&mut self, first: EventId) {
        self.evicted_from = Some(EvictedFrom::at(first));
    }

    /// Evicts the events behind a blocked head, but for those that have begun: the database counts
    /// their starts. Gives the evicted ones, in order.
    pub(super) fn evict_behind_head(
        &mut self,
        mut has_begun: impl FnMut(EventId) -> bool,
    ) -> Vec<EventId> {
        let keep = usize::from(self.blocked.is_some());
        let (begun, tail): (Vec<EventId>, Vec<EventId>) =
            self.waiting.drain(keep..).partition(|id| has_begun(*id));
        self.waiting.extend(begun);
        if let Some(first) = tail.first().copied() {
            let before = self.evicted_from.map_or(first, EvictedFrom::first);
            self.begin_eviction(before.min(first));
        }
        tail
    }

    /// Tells whether a key is blocked and has waiting events behind its head.
    pub(super) fn can_evict(&self) -> bool {
        self.is_blocked() && self.waiting.len() > usize::from(self.blocked.is_some())
    }

    /// Gives its eviction, with whether there is room to load from it. A blocked key is read again
    /// when it moves: before that its events would only be evicted again.
    pub(super) fn eviction(&mut self, per_key: usize) -> Option<(&mut EvictedFrom, bool)> {
        let room = !self.is_blocked() && self.is_half_empty(per_key);
        self.evicted_from.as_mut().map(|evicted_from| (evicted_from, room))
    }

    /// Gives the first evicted event, if at most half of the events that may wait do. Not at each
    /// event that leaves the queue: one rescan then refills half of it.
    pub(super) fn rescan_from(&self, per_key: usize) -> Option<EventId> {
        self.evicted_from.filter(|_| self.is_half_empty(per_key)).map(EvictedFrom::first)
    }

    /// Ends the eviction, if a rescan that has read everything up to `to` has loaded all of it;
    /// tells whether none is left.
    pub(super) fn end_eviction(&mut self, to: EventId) -> bool {
        self.evicted_from.take_if(|evicted_from| evicted_from.is_loaded(to));
        self.evicted_from.is_none()
    }

    fn is_half_empty(&self, per_key: usize) -> bool {
        self.waiting.len() <= per_key / 2
    }

    /// Tells whether it has neither events nor a state.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.in_flight.is_none()
            && !self.in_ready
            && self.parked.is_none()
            && self.evicted_from.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_waits_is_not_ready_and_one_that_goes_on_is_listed_once() {
        type Change = fn(&mut KeyQueue);
        let changes: [(Change, Change); 4] = [
            (|keys| keys.block(EventId(2)), |keys| keys.unblock(EventId(2))),
            (|keys| assert!(keys.park_behind(LetterId(1))), |keys| keys.unpark()),
            (|keys| keys.hold(), |keys| keys.end_hold()),
            (|keys| keys.started(EventId(1)), |keys| keys.ended(EventId(1))),
        ];
        for (case, (stop, go_on)) in changes.into_iter().enumerate() {
            let (mut keys, mut ready) = (KeyQueue::new(PartitionNo(0)), VecDeque::new());
            keys.insert(EventId(3));
            keys.insert(EventId(2));
            stop(&mut keys);
            keys.make_ready(7, &mut ready);
            assert!(ready.is_empty() && !keys.turn_comes(), "{case}: {keys:?}");
            go_on(&mut keys);
            keys.make_ready(7, &mut ready);
            keys.make_ready(7, &mut ready);
            assert_eq!(ready, [Ready::Key(7)], "{case}: {keys:?}");
            assert!(keys.turn_comes());
            assert_eq!(keys.take_head(), Some(EventId(2)), "{case}: in the order of the ids");
        }
    }
}
