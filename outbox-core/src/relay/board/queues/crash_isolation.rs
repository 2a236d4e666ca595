//! Finds the event that ends its process. After a crash the relay records the start of every event
//! that may have been in flight before it publishes the event. An event that has a recorded start
//! without an end is published alone.
//!
//! A start is recorded first because a crash leaves no other trace; nothing is recorded while no
//! process has crashed.

use crate::relay::board::{
    Board, RouteNo,
    entry::{EventEntry, LegState},
};
use crate::{
    event::EventId,
    failure::{DeadReason, MAX_CRASHES},
    outbox::PartitionNo,
};
use std::{collections::VecDeque, time::Instant};

/// The events that are published alone because an earlier process may have died of them.
#[derive(Debug, Default)]
pub(crate) struct CrashIsolation {
    /// The event whose start is being recorded, or that is in flight.
    isolated: Option<(EventId, RouteNo)>,
    /// The events that wait for their turn.
    waiting: VecDeque<(EventId, RouteNo)>,
}

impl Board {
    /// Records the start of an event after a crash; the event is published when the settler has
    /// confirmed the record.
    pub(crate) fn record_start(&mut self, id: EventId, route: RouteNo, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let (key_hash, no) = (entry.key_hash, entry.partition);
        let Some(leg) = entry.legs.iter_mut().find(|l| l.route == route) else { return };
        let started = leg.history().attempts_started;
        if started >= MAX_CRASHES {
            self.give_up(id, route, DeadReason::Crashed, None, now);
            return;
        }
        let is_last_start = started + 1 == MAX_CRASHES && self.others_go_first(route);
        let must_wait =
            is_last_start || (started > 0 && self.is_other_isolated(id, route, key_hash));
        let Some(leg) =
            self.entries.get_mut(&id).and_then(|h| h.legs.iter_mut().find(|l| l.route == route))
        else {
            return;
        };
        if must_wait {
            // Another event is isolated, or is published first; this one blocks its key meanwhile.
            if !self.crash_isolation.waiting.contains(&(id, route)) {
                self.crash_isolation.waiting.push_back((id, route));
            }
        } else {
            if started > 0 {
                self.crash_isolation.isolated = Some((id, route));
            }
            leg.state = LegState::Starting;
            leg.history().attempts_started += 1;
            leg.written = false;
            self.record(id, now);
        }
        self.block_key(id, route, key_hash, no);
    }

    /// Tells whether another event is isolated. It does not count if it is behind this one in the
    /// same key and not in flight: it could not be published before this one, and both would wait
    /// for ever.
    fn is_other_isolated(&self, id: EventId, route: RouteNo, key_hash: Option<u64>) -> bool {
        let Some((other, its_route)) =
            self.crash_isolation.isolated.filter(|one| *one != (id, route))
        else {
            return false;
        };
        let Some(entry) = self.entries.get(&other) else { return false };
        let in_flight =
            entry.legs.iter().any(|l| l.route == its_route && l.state == LegState::InFlight);
        in_flight || its_route != route || key_hash.is_none() || entry.key_hash != key_hash
    }

    /// Tells whether other events are published before one that has a single start left: as long as
    /// the relay has confirmed nothing since its start. A process that is killed from outside dies
    /// most likely while it connects, with the first event that it tries, and the next process
    /// would begin with the same event.
    fn others_go_first(&self, route: RouteNo) -> bool {
        self.queues[route].successes == 0 && !self.is_route_idle(route)
    }

    /// Tells whether no event of a route is in flight, starting or ready.
    fn is_route_idle(&self, route: RouteNo) -> bool {
        let queue = &self.queues[route];
        let starting = |entry: &EventEntry| {
            entry.legs.iter().any(|l| l.route == route && l.state == LegState::Starting)
        };
        queue.batches == 0 && queue.ready.is_empty() && !self.entries.values().any(starting)
    }

    /// Makes a waiting event ready if its route has no other event to publish.
    pub(crate) fn release_last(&mut self) -> bool {
        let waits =
            self.crash_isolation.isolated.is_none() && !self.crash_isolation.waiting.is_empty();
        waits
            && self.fewest_crashes().is_some_and(|(_, route)| self.is_route_idle(route))
            && self.release_next()
    }

    /// Makes the waiting event with the fewest crashes ready, unless an event is isolated.
    pub(crate) fn release_next(&mut self) -> bool {
        let Some(next) = self.fewest_crashes().filter(|_| self.crash_isolation.isolated.is_none())
        else {
            return false;
        };
        self.crash_isolation.waiting.retain(|one| *one != next);
        let key_hash = self.entries.get(&next.0).and_then(|h| h.key_hash);
        self.make_ready(next.0, next.1, key_hash);
        true
    }

    fn fewest_crashes(&self) -> Option<(EventId, RouteNo)> {
        let crashes = |(id, route): &&(EventId, RouteNo)| {
            let leg = self.entries.get(id).and_then(|h| h.legs.iter().find(|l| l.route == *route));
            leg.and_then(|l| l.history.as_ref()).map_or(0, |history| history.attempts_started)
        };
        self.crash_isolation.waiting.iter().min_by_key(crashes).copied()
    }

    /// Keeps an event at the head of its key until it may be published.
    pub(crate) fn block_key(
        &mut self,
        id: EventId,
        route: RouteNo,
        key_hash: Option<u64>,
        no: PartitionNo,
    ) {
        if let Some(hash) = key_hash {
            let key_queue = self.queues[route].key_queue(hash, no);
            key_queue.insert(id);
            key_queue.blocked = Some(id);
            self.key_blocked(route, hash);
        }
    }

    /// The start is recorded: the event may be published.
    pub(crate) fn on_start_recorded(&mut self, id: EventId, route: RouteNo) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let key_hash = entry.key_hash;
        let Some(leg) = entry.legs.iter_mut().find(|l| l.route == route) else { return };
        leg.state = LegState::Waiting;
        leg.history().start_recorded = true;
        self.make_ready(id, route, key_hash);
    }

    /// A publish of the event has ended, with whatever outcome: the event did not end the process.
    pub(crate) fn survived(&mut self, id: EventId, route: RouteNo) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(leg) = entry.legs.iter_mut().find(|l| l.route == route) else { return };
        let Some(history) = leg.history.as_mut().filter(|h| h.start_recorded) else { return };
        history.start_recorded = false;
        if leg.done_first {
            return;
        }
        history.attempts_started = 0;
        leg.written = false;
        if let Some(partition) = self.partitions.get_mut(&entry.partition) {
            partition.recorded_starts_left = partition.recorded_starts_left.saturating_sub(1);
        }
        self.end_isolation(id, route);
    }

    pub(crate) fn end_isolation(&mut self, id: EventId, route: RouteNo) {
        if self.crash_isolation.isolated == Some((id, route)) {
            self.crash_isolation.isolated = None;
            self.release_next();
        }
    }

    /// Drops the events of partitions that the relay has lost.
    pub(crate) fn drop_lost_isolated(&mut self) {
        self.crash_isolation.waiting.retain(|(id, _)| self.entries.contains_key(id));
        if let Some((id, route)) = self.crash_isolation.isolated
            && !self.entries.contains_key(&id)
        {
            self.end_isolation(id, route);
        }
    }
}
