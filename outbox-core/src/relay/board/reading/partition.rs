//! One owned partition: how far it is read, its publishes and writes under way, and the ids of its
//! events that are not in memory.

use super::evicted::Evicted;
use crate::relay::board::{FastMap, RouteNo, entries::EventState};
use crate::{event::EventId, outbox::Epoch};
use std::collections::HashSet;

/// One owned partition.
#[derive(Debug)]
pub(crate) struct Partition {
    epoch: Epoch,
    /// The last id that was read; events up to it that commit later are found by order window and
    /// sweep.
    cursor: EventId,
    /// Whether the limit cut the last read.
    full: bool,
    /// Whether the keeper wants to release it: the board starts none of its events any more.
    releasing: bool,
    /// Events handed to publishers.
    in_flight: usize,
    /// Writes that the settler has not confirmed yet.
    pending_writes: usize,
    /// Events that are marked as done on an at-most-once route and whose publish there has not
    /// ended.
    unpublished_done: usize,
    /// Keys with evicted events.
    evicted_keys: HashSet<(RouteNo, u64)>,
    /// Ids of evicted events.
    evicted: Evicted,
    /// Ids of events that wait for a route which this relay does not have.
    unrouted: FastMap<EventId, ()>,
    /// The id from which the next page of a rescan is read; `None` without a rescan.
    rescan_at: Option<EventId>,
    /// Whether the first page of the rescan was planned.
    rescan_began: bool,
    /// The last id that the sweep has come to.
    swept_to: EventId,
    /// How many more events are started only after their start is recorded: as many as the former
    /// owner may have had in flight when it crashed.
    recorded_starts_left: usize,
}

impl Partition {
    /// Takes a partition in, to be read from its beginning; so many events are started only after
    /// their start is recorded.
    pub(super) fn new(epoch: Epoch, recorded_starts: usize) -> Self {
        Self {
            epoch,
            cursor: EventId(0),
            full: true,
            releasing: false,
            in_flight: 0,
            pending_writes: 0,
            unpublished_done: 0,
            evicted_keys: HashSet::new(),
            evicted: Evicted::default(),
            unrouted: FastMap::default(),
            rescan_at: None,
            rescan_began: false,
            swept_to: EventId(0),
            recorded_starts_left: recorded_starts,
        }
    }

    /// Gives the epoch under which it is owned.
    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Gives the state of an event of which only its id is kept.
    pub(crate) fn state_of(&self, id: EventId) -> Option<EventState> {
        if self.unrouted.contains_key(&id) {
            return Some(EventState::Unrouted);
        }
        self.evicted.contains(id).then_some(EventState::Evicted)
    }

    /// Tells whether no publish and no write of it is under way.
    pub(crate) const fn is_quiet(&self) -> bool {
        self.in_flight == 0 && self.pending_writes == 0 && self.unpublished_done == 0
    }

    /// Starts no more of its events: the keeper wants to release it.
    pub(super) fn release(&mut self) {
        self.releasing = true;
    }

    /// Tells whether the keeper wants to release it.
    pub(crate) const fn is_releasing(&self) -> bool {
        self.releasing
    }

    /// Gives how many of its events are with publishers.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Notes that an event is handed to a publisher.
    pub(crate) fn publish_started(&mut self) {
        self.in_flight += 1;
    }

    /// Notes that the publish of an event has ended.
    pub(crate) fn publish_ended(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Notes that an event is being marked as done before its publish on an at-most-once route.
    pub(crate) fn marked_done(&mut self) {
        self.unpublished_done += 1;
    }

    /// Notes that the publish of an event that was marked as done has ended.
    pub(crate) fn done_published(&mut self) {
        self.unpublished_done = self.unpublished_done.saturating_sub(1);
    }

    /// Tells whether a start is recorded before the publish, because the former owner has crashed.
    pub(crate) const fn records_starts(&self) -> bool {
        self.recorded_starts_left > 0
    }

    /// Notes that an event whose start was recorded did not end the process.
    pub(crate) fn start_survived(&mut self) {
        self.recorded_starts_left = self.recorded_starts_left.saturating_sub(1);
    }

    /// Gives how many of its writes the settler has not confirmed yet.
    pub(super) const fn pending_writes(&self) -> usize {
        self.pending_writes
    }

    /// Notes a write for the settler.
    pub(crate) fn write_pending(&mut self) {
        self.pending_writes += 1;
    }

    /// Notes that the settler has made a write.
    pub(crate) fn write_done(&mut self) {
        self.pending_writes = self.pending_writes.saturating_sub(1);
    }

    /// Gives the last id that was read.
    pub(crate) const fn cursor(&self) -> EventId {
        self.cursor
    }

    /// Tells whether the limit cut the last read.
    pub(crate) const fn is_full(&self) -> bool {
        self.full
    }

    /// Notes a read past the cursor, with its last id, and whether its limit cut it.
    pub(super) fn read(&mut self, last: Option<EventId>, full: bool, window: i64) {
        self.full = full;
        if let Some(last) = last {
            self.cursor = self.cursor.max(last);
            self.evicted.keep_from(EventId(self.cursor.0.saturating_sub(window)));
        }
    }

    /// Reads it from its beginning again.
    pub(super) fn restart_reading(&mut self) {
        self.cursor = EventId(0);
        self.full = true;
        self.swept_to = EventId(0);
        self.end_rescan();
    }

    /// Gives the ids from and up to which the sweep has to go on, below the order window; `None` at
    /// its end.
    pub(super) fn left_to_sweep(&self, window: i64) -> Option<(EventId, EventId)> {
        let to = EventId(self.cursor.0.saturating_sub(window));
        (!self.releasing && self.swept_to < to).then(|| (EventId(self.swept_to.0 + 1), to))
    }

    /// Notes how far the sweep has come.
    pub(super) fn swept(&mut self, to: EventId) {
        self.swept_to = to;
    }

    /// Begins the next sweep.
    pub(super) fn restart_sweep(&mut self) {
        self.swept_to = EventId(0);
    }

    /// Asks for a rescan from an id on. If the present one is beyond that id already, a new one
    /// begins.
    pub(crate) fn rescan_from(&mut self, id: EventId) {
        if self.rescan_at.is_none_or(|next| id < next) {
            self.rescan_at = Some(id);
            self.rescan_began = false;
        }
    }

    /// Gives the id from which the next page of a rescan is to be read now.
    pub(super) fn next_page(&self) -> Option<EventId> {
        self.rescan_at.filter(|from| !self.releasing && *from <= self.cursor)
    }

    /// Notes that a page of a rescan is read; tells whether it is the first.
    pub(super) fn page_planned(&mut self) -> bool {
        !std::mem::replace(&mut self.rescan_began, true)
    }

    /// Tells whether a rescan has begun, and was neither ended nor replaced by one from further
    /// ahead.
    pub(super) const fn is_rescanning(&self) -> bool {
        self.rescan_began
    }

    /// Goes on with the rescan behind an id.
    pub(super) fn rescan_on(&mut self, last: EventId) {
        self.rescan_at = Some(EventId(last.0 + 1));
    }

    /// Ends the rescan.
    pub(super) fn end_rescan(&mut self) {
        (self.rescan_at, self.rescan_began) = (None, false);
    }

    /// Keeps the id of an event that is evicted.
    pub(crate) fn evict(&mut self, id: EventId) {
        self.evicted.insert(id);
    }

    /// Keeps a key of which events are evicted.
    pub(crate) fn evict_key(&mut self, route: RouteNo, hash: u64) {
        self.evicted_keys.insert((route, hash));
    }

    /// Forgets the id of an event that is taken into memory.
    pub(super) fn load(&mut self, id: EventId) {
        self.evicted.remove(id);
    }

    /// Gives the keys of which events are evicted.
    pub(super) fn evicted_keys(&self) -> impl Iterator<Item = (RouteNo, u64)> {
        self.evicted_keys.iter().copied()
    }

    /// Tells whether keys evict events.
    pub(super) fn has_evicted_keys(&self) -> bool {
        !self.evicted_keys.is_empty()
    }

    /// Forgets the keys that evict no event any more.
    pub(super) fn retain_evicted_keys(&mut self, mut evicts: impl FnMut(RouteNo, u64) -> bool) {
        self.evicted_keys.retain(|(route, hash)| evicts(*route, *hash));
    }

    /// Forgets the ids of evicted events: none is evicted any more.
    pub(super) fn nothing_evicted(&mut self) {
        self.evicted.clear();
    }

    /// Gives how many events wait for a route which this relay does not have.
    pub(crate) fn unrouted(&self) -> usize {
        self.unrouted.len()
    }

    /// Keeps the id of an event that waits for a route which this relay does not have.
    pub(super) fn wait_for_route(&mut self, id: EventId) {
        self.unrouted.insert(id, ());
    }

    /// Forgets the id of an event whose wait for a route is over.
    pub(super) fn end_wait_for_route(&mut self, id: EventId) {
        self.unrouted.remove(&id);
    }
}
