//! The queue of one route: a key queue for each key, at most one event of a key in flight.

mod answers;
mod parks;
mod solo;

pub(crate) use answers::RouteAnswers;
pub(crate) use parks::Parks;
pub(crate) use solo::{BatchFit, SoloEvents};

use crate::relay::board::{
    FastMap,
    entries::{LegState, RouteLeg},
};
use crate::{
    event::{EventId, LetterId},
    failure::{Breaker, FailureClass, FailureReports},
    outbox::PartitionNo,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, hash_map::Entry},
    time::Instant,
};

/// An entry of a route's list of publishable events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// The head of a key queue, by the key's hash.
    Key(u64),
    /// An event without a key.
    Single(EventId),
}

/// The point of a key or route from which on its events were evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EvictedFrom {
    /// The first evicted event.
    pub(crate) first: EventId,
    /// How far the present rescan loads the evicted events.
    pub(crate) rescan: RescanState,
}

/// How a rescan of a partition relates to the evicted events of one key or route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RescanState {
    /// It begins behind the first evicted event: loading from it would break the order of the key.
    Partial,
    /// It covers the first evicted event; all that it came to so far were loaded.
    Loading,
    /// The rescan came to an event that no queue has room for; it loads no later one.
    Full,
}

impl EvictedFrom {
    /// Begins an eviction.
    pub(crate) fn at(first: EventId) -> Self {
        Self { first, rescan: RescanState::Partial }
    }
}

/// The reason why a key is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parked {
    /// The event that this relay gave up; `None` if the key was parked before the partition was
    /// gained.
    pub(crate) head: Option<EventId>,
    /// Its dead letter, about which an operator has to decide; `None` while the settler writes it.
    pub(crate) letter: Option<LetterId>,
    /// Whether the key goes on as soon as the letter is written, without an operator. Not before: a
    /// crash would bring the head back, and the later events of the key must not have overtaken it.
    pub(crate) until_written: bool,
}

/// The events of one key on one route.
#[derive(Debug)]
pub(crate) struct KeyQueue {
    pub(crate) partition: PartitionNo,
    /// The waiting events, by id.
    pub(crate) waiting: VecDeque<EventId>,
    /// The event in flight.
    pub(crate) in_flight: Option<EventId>,
    /// Whether it is in the route's list of ready keys.
    pub(crate) in_ready: bool,
    /// The head, while it waits for its timer, for a record, or for its turn alone.
    pub(crate) blocked: Option<EventId>,
    pub(crate) parked: Option<Parked>,
    /// Whether an operator's pause holds its head.
    pub(crate) is_held: bool,
    pub(crate) evicted_from: Option<EvictedFrom>,
}

impl KeyQueue {
    pub(crate) fn new(partition: PartitionNo) -> Self {
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

    /// Inserts an event in id order; usually it is the last.
    pub(crate) fn insert(&mut self, id: EventId) {
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

    /// Tells whether an event would be the next of the key, were it not for a pause.
    pub(crate) fn would_be_next(&self, id: EventId) -> bool {
        self.parked.is_none()
            && self.in_flight.is_none()
            && self.waiting.front().is_none_or(|first| id < *first)
    }

    /// Adds itself to the route's ready keys, if its head may be published.
    pub(crate) fn make_ready(&mut self, hash: u64, ready: &mut VecDeque<Ready>) {
        if self.in_flight.is_none()
            && !self.in_ready
            && !self.is_blocked()
            && !self.waiting.is_empty()
        {
            self.in_ready = true;
            ready.push_back(Ready::Key(hash));
        }
    }

    /// Tells whether the key waits for its head or for an operator.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.is_some() || self.parked.is_some() || self.is_held
    }

    /// Gives how many events may wait. In a crowded route a blocked key keeps its head only, and a
    /// parked key, whose head is a dead letter, nothing: the room is for keys that move. Without
    /// room for held events a held key keeps nothing either.
    pub(crate) fn capacity(&self, crowded: bool, held_out: bool, per_key: usize) -> usize {
        match crowded {
            true if self.parked.is_some() => 0,
            _ if held_out => 0,
            true if self.blocked.is_some() => 1,
            _ => per_key,
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.in_flight.is_none()
            && !self.in_ready
            && self.parked.is_none()
            && self.evicted_from.is_none()
    }
}

/// The queue of one route.
#[derive(Debug, Default)]
pub(crate) struct RouteQueue {
    pub(crate) breaker: Breaker,
    pub(crate) ready: VecDeque<Ready>,
    pub(crate) key_queues: FastMap<u64, KeyQueue>,
    /// Events in memory for this route, those in flight included.
    pub(crate) events: usize,
    /// Their payload bytes.
    pub(crate) bytes: usize,
    pub(crate) batches: usize,
    /// By partition: the point from which on events were evicted.
    pub(crate) evicted_from: BTreeMap<PartitionNo, EvictedFrom>,
    /// What its destination has answered lately.
    pub(crate) answers: RouteAnswers,
    /// Rejected events, until a confirmation of another event proves that the destination accepts
    /// events.
    pub(crate) unproven_rejections: BTreeSet<EventId>,
    /// Events that are published in batches of their own.
    pub(crate) solo: SoloEvents,
    /// The events of the present streak of failures.
    pub(crate) failure_streak: BTreeSet<EventId>,
    /// Whether blocked keys have to evict all but their heads.
    pub(crate) evict_blocked: bool,
    /// The instant at which the breaker opened last.
    pub(crate) opened_at: Option<Instant>,
    /// What to log about its failed attempts.
    pub(crate) failures_logged: FailureReports,
    /// What to log about outages of its destination.
    pub(crate) outages_logged: FailureReports,
    /// The last failure.
    pub(crate) last_failure: Option<(FailureClass, String, Instant)>,
    /// Counted failures.
    pub(crate) retried: u64,
    /// Events that became dead letters.
    pub(crate) dead: u64,
    /// Keys that may be held by a pause.
    pub(crate) held_keys: FastMap<u64, ()>,
}

impl RouteQueue {
    /// Counts an event in.
    pub(crate) fn take_capacity(&mut self, bytes: usize) {
        self.events += 1;
        self.bytes += bytes;
    }

    /// Tells whether the route wants more events: at most half of its events and of its bytes are
    /// in memory.
    pub(crate) fn has_room(&self, events: usize, bytes: usize) -> bool {
        self.events <= events / 2 && self.bytes <= bytes / 2
    }

    /// Tells whether the route takes events that a pause holds: a quarter of its memory is for them,
    /// and with half of it free the route is read on.
    pub(crate) fn has_room_for_held(&self, events: usize, bytes: usize) -> bool {
        self.events <= events / 4 && self.bytes <= bytes / 4
    }

    /// Counts an event out.
    pub(crate) fn release_capacity(&mut self, bytes: usize) {
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Counts an event of a lost partition out.
    pub(crate) fn release_leg(&mut self, leg: &RouteLeg, bytes: usize) {
        if leg.state() != LegState::Evicted {
            self.release_capacity(bytes);
        }
    }

    /// Gives the queue of a key.
    pub(crate) fn key_queue(&mut self, hash: u64, partition: PartitionNo) -> &mut KeyQueue {
        self.key_queues.entry(hash).or_insert_with(|| KeyQueue::new(partition))
    }

    /// Makes a key ready, if its head may be published.
    pub(crate) fn make_ready(&mut self, hash: u64) {
        if let Some(key_queue) = self.key_queues.get_mut(&hash) {
            key_queue.make_ready(hash, &mut self.ready);
        }
    }

    /// Notes that the publish of a key's event has ended, and makes the next event ready.
    pub(crate) fn clear_in_flight(&mut self, hash: u64, id: EventId) {
        let Entry::Occupied(mut entry) = self.key_queues.entry(hash) else { return };
        let key_queue = entry.get_mut();
        key_queue.in_flight.take_if(|in_flight| *in_flight == id);
        key_queue.make_ready(hash, &mut self.ready);
        if key_queue.is_idle() {
            entry.remove();
        }
    }

    /// Removes a key queue without events or state.
    pub(crate) fn drop_idle(&mut self, hash: u64) {
        if self.key_queues.get(&hash).is_some_and(KeyQueue::is_idle) {
            self.key_queues.remove(&hash);
        }
    }

    /// Removes the keys of a partition; ready events without a key are skipped when their turn
    /// comes.
    pub(crate) fn drop_partition(&mut self, no: PartitionNo) {
        self.key_queues.retain(|_, key_queue| key_queue.partition != no);
        self.evicted_from.remove(&no);
        let key_queues = &self.key_queues;
        self.ready.retain(|r| !matches!(r, Ready::Key(hash) if !key_queues.contains_key(hash)));
    }
}
