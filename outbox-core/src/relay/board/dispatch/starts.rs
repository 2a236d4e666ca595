//! Starts that the database has to know first: of an event that a crash may have been about, and of
//! an event on an at-most-once route, which is marked as done before it is published.

use crate::relay::board::{
    Board, RouteNo,
    entries::{EventEntry, LegState, RouteLeg},
};
use crate::{
    event::EventId,
    failure::{DeadReason, MAX_CRASHES},
    outbox::PartitionNo,
};
use std::time::Instant;

impl Board {
    /// Marks an event as done on the route; it is published when the settler has confirmed the
    /// mark. Not before: a crash would publish it again.
    pub(in crate::relay::board) fn mark_done_first(
        &mut self,
        id: EventId,
        route: RouteNo,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let (key_hash, no, epoch) = (entry.key_hash(), entry.partition(), entry.epoch());
        let is_done = |leg: &RouteLeg| leg.route() == route || leg.state() == LegState::Confirmed;
        let others_done = entry.legs().iter().all(is_done);
        let Some(leg) = entry.leg_mut(route) else { return };
        leg.mark_done_first();
        if let Some(partition) = self.partitions.get_mut(&no) {
            partition.marked_done();
        }
        // The mark is the row of the route where the event has to stay for other routes; else its
        // DELETE is the mark, and costs no row.
        if entry.has_rows() || !others_done {
            self.record(id, now);
        } else if let Some(partition) = self.partitions.get_mut(&no).filter(|p| p.epoch() == epoch)
        {
            partition.write_pending();
            self.writes.finish.push((no, epoch, id));
            entry.delete_first();
        }
        self.block_key(id, route, key_hash, no);
    }

    /// Notes that the event is deleted; `true` if an at-most-once publish of it starts only now.
    pub(in crate::relay::board) fn done_first_finished(&mut self, id: EventId) -> bool {
        let Some(entry) = self.entries.get_mut(id) else { return false };
        let starts = |leg: &&RouteLeg| leg.is_done_first() && leg.state() == LegState::Starting;
        let Some(route) = entry.legs().iter().find(starts).map(RouteLeg::route) else {
            return false;
        };
        entry.deleted_first();
        self.on_start_recorded(id, route);
        true
    }

    /// Records the start of an event after a crash; the event is published when the settler has
    /// confirmed the record. `false` if the event has to wait for others, or is given up.
    pub(in crate::relay::board) fn record_start(
        &mut self,
        id: EventId,
        route: RouteNo,
        now: Instant,
    ) -> bool {
        let Some(entry) = self.entries.get(id) else { return false };
        let (key_hash, no) = (entry.key_hash(), entry.partition());
        let Some(started) = entry.leg(route).map(RouteLeg::attempts_started) else {
            return false;
        };
        // The limit was three, until a test killed processes from outside 330 times: two to ten
        // innocent events of 80,000 became dead letters.
        if started >= MAX_CRASHES {
            self.give_up(id, route, DeadReason::Crashed, None, now);
            return false;
        }
        let is_last_start = started + 1 == MAX_CRASHES && self.others_go_first(route);
        let must_wait =
            is_last_start || (started > 0 && self.is_other_isolated(id, route, key_hash));
        let Some(leg) = self.entries.leg_mut(id, route) else { return false };
        if must_wait {
            // Another event is isolated, or is published first; this one blocks its key meanwhile.
            self.crash_isolation.wait(id, route);
        } else {
            if started > 0 {
                self.crash_isolation.isolate(id, route);
            }
            leg.record_start();
            self.record(id, now);
        }
        self.block_key(id, route, key_hash, no);
        !must_wait
    }

    /// Tells whether another event is isolated. It does not count if it is behind this one in the
    /// same key and not in flight: it could not be published before this one, and both would wait
    /// for ever.
    fn is_other_isolated(&self, id: EventId, route: RouteNo, key_hash: Option<u64>) -> bool {
        let Some((other, its_route)) = self.crash_isolation.other(id, route) else { return false };
        let Some(entry) = self.entries.get(other) else { return false };
        let in_flight = entry.leg(its_route).is_some_and(|leg| leg.state() == LegState::InFlight);
        in_flight || its_route != route || key_hash.is_none() || entry.key_hash() != key_hash
    }

    /// Tells whether other events are published before one that has a single start left: as long as
    /// the relay has confirmed nothing since its start. A process that is killed from outside dies
    /// most likely while it connects, with the first event that it tries, and the next process
    /// would begin with the same event.
    fn others_go_first(&self, route: RouteNo) -> bool {
        self.destinations[route].answers().successes() == 0 && !self.is_route_idle(route)
    }

    /// Tells whether no event of a route is in flight, starting or ready.
    fn is_route_idle(&self, route: RouteNo) -> bool {
        let queue = &self.queues[route];
        let starting = |entry: &EventEntry| {
            entry.leg(route).is_some_and(|leg| leg.state() == LegState::Starting)
        };
        queue.batches() == 0
            && !queue.has_ready()
            && !self.entries.iter().any(|(_, entry)| starting(entry))
    }

    /// Makes a suspected event ready if its route has no other event to publish.
    pub(in crate::relay::board) fn release_last(&mut self) -> bool {
        self.next_isolated().is_some_and(|(_, route)| self.is_route_idle(route))
            && self.release_next()
    }

    /// Makes the suspected event with the fewest crashes ready, unless an event is isolated.
    pub(in crate::relay::board) fn release_next(&mut self) -> bool {
        let Some((id, route)) = self.next_isolated() else { return false };
        self.crash_isolation.remove_waiting(id, route);
        let key_hash = self.entries.get(id).and_then(EventEntry::key_hash);
        self.queues[route].make_ready(id, key_hash);
        true
    }

    fn next_isolated(&self) -> Option<(EventId, RouteNo)> {
        self.crash_isolation
            .next(|id, route| self.entries.leg(id, route).map_or(0, RouteLeg::attempts_started))
    }

    /// Keeps an event at the head of its key until it may be published.
    pub(in crate::relay::board) fn block_key(
        &mut self,
        id: EventId,
        route: RouteNo,
        key_hash: Option<u64>,
        no: PartitionNo,
    ) {
        if let Some(hash) = key_hash {
            self.queues[route].block(hash, no, id);
        }
    }

    /// The start is recorded: the event may be published.
    pub(in crate::relay::board) fn on_start_recorded(&mut self, id: EventId, route: RouteNo) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let (key_hash, is_keyless) = (entry.key_hash(), entry.message().key.is_none());
        let Some(leg) = entry.leg_mut(route) else { return };
        leg.start_recorded();
        self.queues[route].make_first(id, key_hash, is_keyless);
    }

    /// A publish of the event has ended, with whatever outcome: the event did not end the process.
    pub(in crate::relay::board) fn survived(&mut self, id: EventId, route: RouteNo) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if !entry.leg_mut(route).is_some_and(RouteLeg::survived) {
            return;
        }
        if let Some(partition) = self.partitions.get_mut(&entry.partition()) {
            partition.start_survived();
        }
        self.end_isolation(id, route);
    }

    /// Ends the isolation of an event: the next suspected event has its turn.
    pub(in crate::relay::board) fn end_isolation(&mut self, id: EventId, route: RouteNo) {
        if self.crash_isolation.end(id, route) {
            self.release_next();
        }
    }

    /// Drops the events of partitions that the relay has lost.
    pub(in crate::relay::board) fn drop_lost_isolated(&mut self) {
        let entries = &self.entries;
        if self.crash_isolation.retain(|id| entries.contains(id)) {
            self.release_next();
        }
    }
}
