//! The queue of one route: a lane for each key, at most one event of a lane in flight.

mod loners;
mod parks;
mod suspicion;

pub(crate) use loners::{Company, Loners};
pub(crate) use suspicion::Suspicion;

use crate::relay::board::{
    FastMap,
    held::{Leg, LegState},
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

/// What may go next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// The head of a key's lane.
    Lane(u64),
    /// An event without a key.
    Single(EventId),
}

/// Events from here on are not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    /// The first of them.
    pub(crate) first: EventId,
    /// What the present pass over forgotten events is to it.
    pub(crate) pass: Pass,
}

/// What a pass over forgotten events is to something closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// It does not cover all that was forgotten: nothing may be taken from it.
    Apart,
    /// It began before the first forgotten event; all so far were taken.
    Takes,
    /// It came to one for which there was no room; nothing more may be taken.
    Refused,
}

impl Closed {
    /// Begins to be closed.
    pub(crate) fn at(first: EventId) -> Self {
        Self { first, pass: Pass::Apart }
    }
}

/// A key that waits for an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parked {
    /// The head that died here; `None` where the database told of it.
    pub(crate) head: Option<EventId>,
    /// The letter that is to be decided about; `None` while it is being written.
    pub(crate) letter: Option<LetterId>,
    /// Whether the key goes on as soon as the letter is written: before that, a crash would bring the head back, and
    /// those behind it must not have overtaken it.
    pub(crate) until_written: bool,
}

/// The events of one key on one route.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) partition: PartitionNo,
    /// Those that wait, by id.
    pub(crate) queue: VecDeque<EventId>,
    /// The one in flight.
    pub(crate) current: Option<EventId>,
    /// Whether it stands among the ready ones.
    pub(crate) in_ready: bool,
    /// The head that waits for its timer.
    pub(crate) blocked: Option<EventId>,
    pub(crate) parked: Option<Parked>,
    pub(crate) closed: Option<Closed>,
}

impl Lane {
    pub(crate) fn new(partition: PartitionNo) -> Self {
        Self {
            partition,
            queue: VecDeque::new(),
            current: None,
            in_ready: false,
            blocked: None,
            parked: None,
            closed: None,
        }
    }

    /// Puts an event in its place; later ones usually come last.
    pub(crate) fn insert(&mut self, id: EventId) {
        if self.queue.back().is_none_or(|last| *last < id) {
            self.queue.push_back(id);
        } else if let Err(at) = self.queue.binary_search(&id) {
            self.queue.insert(at, id);
        }
        if self.blocked.is_some_and(|head| id < head) {
            // The head that waits is no longer the head.
            self.blocked = None;
        }
    }

    /// Puts itself among the ready ones, if its head may go.
    pub(crate) fn make_ready(&mut self, hash: u64, ready: &mut VecDeque<Ready>) {
        if self.current.is_none() && !self.in_ready && !self.is_stuck() && !self.queue.is_empty() {
            self.in_ready = true;
            ready.push_back(Ready::Lane(hash));
        }
    }

    /// Tells whether it waits for its head, and nothing of it moves.
    pub(crate) fn is_stuck(&self) -> bool {
        self.blocked.is_some() || self.parked.is_some()
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.current.is_none()
            && !self.in_ready
            && self.parked.is_none()
            && self.closed.is_none()
    }
}

/// The queue of one route.
#[derive(Debug, Default)]
pub(crate) struct RouteQueue {
    pub(crate) breaker: Breaker,
    pub(crate) ready: VecDeque<Ready>,
    pub(crate) lanes: FastMap<u64, Lane>,
    /// Events held for it, those in flight included.
    pub(crate) held: usize,
    /// Their payload bytes.
    pub(crate) bytes: usize,
    pub(crate) batches: usize,
    /// By partition: events from here on are not held.
    pub(crate) closed: BTreeMap<PartitionNo, Closed>,
    /// Successes so far.
    pub(crate) successes: u64,
    /// When one was confirmed last.
    pub(crate) confirmed_at: Option<Instant>,
    /// The last two different events that failed, and when.
    pub(crate) failures: [Option<(EventId, Instant)>; 2],
    /// Rejected events, as long as it is not proven that the destination takes others.
    pub(crate) unproven_rejections: BTreeSet<EventId>,
    /// Events that go in no batch with others.
    pub(crate) loners: Loners,
    /// Events whose failures made the present run.
    pub(crate) run: BTreeSet<EventId>,
    /// Whether keys that do not move should give up the memory of all but their heads.
    pub(crate) shed: bool,
    /// When the breaker opened last.
    pub(crate) opened_at: Option<Instant>,
    /// What is logged of its failed attempts.
    pub(crate) failures_logged: FailureReports,
    /// What is logged of its destination being down.
    pub(crate) outages_logged: FailureReports,
    /// The last failure.
    pub(crate) last_failure: Option<(FailureClass, String)>,
}

impl RouteQueue {
    /// Counts an event in.
    pub(crate) fn hold(&mut self, bytes: usize) {
        self.held += 1;
        self.bytes += bytes;
    }

    /// Tells whether more events are wanted: no more than half of the events and of the bytes are held that may be.
    pub(crate) fn has_room(&self, events: usize, bytes: usize) -> bool {
        self.held <= events / 2 && self.bytes <= bytes / 2
    }

    /// Counts an event out.
    pub(crate) fn let_go(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Counts out what a lost partition held.
    pub(crate) fn forget_leg(&mut self, leg: &Leg, bytes: usize) {
        if leg.state != LegState::Forgotten {
            self.let_go(bytes);
        }
    }

    /// Gives the lane of a key.
    pub(crate) fn lane(&mut self, hash: u64, partition: PartitionNo) -> &mut Lane {
        self.lanes.entry(hash).or_insert_with(|| Lane::new(partition))
    }

    /// Lets the head of a lane go, if it may.
    pub(crate) fn make_ready(&mut self, hash: u64) {
        if let Some(lane) = self.lanes.get_mut(&hash) {
            lane.make_ready(hash, &mut self.ready);
        }
    }

    /// Ends the flight of a lane's event and lets the next go.
    pub(crate) fn landed(&mut self, hash: u64, id: EventId) {
        let Entry::Occupied(mut entry) = self.lanes.entry(hash) else { return };
        let lane = entry.get_mut();
        lane.current.take_if(|current| *current == id);
        lane.make_ready(hash, &mut self.ready);
        if lane.is_idle() {
            entry.remove();
        }
    }

    /// Removes a lane that holds nothing.
    pub(crate) fn drop_idle(&mut self, hash: u64) {
        if self.lanes.get(&hash).is_some_and(Lane::is_idle) {
            self.lanes.remove(&hash);
        }
    }

    /// Removes everything of a partition; the ready ones are skipped when their turn comes.
    pub(crate) fn drop_partition(&mut self, no: PartitionNo) {
        self.lanes.retain(|_, lane| lane.partition != no);
        self.closed.remove(&no);
        let lanes = &self.lanes;
        self.ready.retain(|r| !matches!(r, Ready::Lane(hash) if !lanes.contains_key(hash)));
    }
}
