//! Starts that the database has to know first: of an event that a crash may have been about, and of
//! an event on an at-most-once route, which is marked as done before it is published.

use crate::relay::board::{
    Board, RouteNo,
    entries::{EventEntry, LegEvent, LegState},
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
        let (key_hash, no, epoch) = (entry.key_hash, entry.partition, entry.epoch);
        let others_done =
            entry.legs.iter().all(|l| l.route == route || l.state() == LegState::Confirmed);
        let Some(leg) = entry.legs.iter_mut().find(|l| l.route == route) else { return };
        leg.apply(LegEvent::StartToRecord);
        leg.done_first = true;
        leg.written = false;
        if let Some(partition) = self.partitions.get_mut(&no) {
            partition.marked_done();
        }
        // The mark is the row of the route where the event has to stay for other routes; else its
        // DELETE is the mark, and costs no row.
        if entry.has_rows || !others_done {
            self.record(id, now);
        } else if let Some(partition) =
            self.partitions.get_mut(&no).filter(|p| p.epoch() == epoch)
        {
            partition.write_pending();
            self.writes.finish.push((no, epoch, id));
            // The event is deleted: no leg of it has to be recorded.
            entry.legs.iter_mut().for_each(|l| l.written = true);
        }
        self.block_key(id, route, key_hash, no);
    }

    /// Notes that the event is deleted; `true` if an at-most-once publish of it starts only now.
    pub(in crate::relay::board) fn done_first_finished(&mut self, id: EventId) -> bool {
        let Some(entry) = self.entries.get_mut(id) else { return false };
        let Some(route) = entry
            .legs
            .iter()
            .find(|l| l.done_first && l.state() == LegState::Starting)
            .map(|l| l.route)
        else {
            return false;
        };
        entry.row_finished = true;
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
        let Some(entry) = self.entries.get_mut(id) else { return false };
        let (key_hash, no) = (entry.key_hash, entry.partition);
        let Some(leg) = entry.legs.iter_mut().find(|l| l.route == route) else { return false };
        let started = leg.history().attempts_started;
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
            leg.apply(LegEvent::StartToRecord);
            leg.history().attempts_started += 1;
            leg.written = false;
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
        let in_flight =
            entry.legs.iter().any(|l| l.route == its_route && l.state() == LegState::InFlight);
        in_flight || its_route != route || key_hash.is_none() || entry.key_hash != key_hash
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
            entry.legs.iter().any(|l| l.route == route && l.state() == LegState::Starting)
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
        let key_hash = self.entries.get(id).and_then(|entry| entry.key_hash);
        self.queues[route].make_ready(id, key_hash);
        true
    }

    fn next_isolated(&self) -> Option<(EventId, RouteNo)> {
        self.crash_isolation.next(|id, route| {
            let leg = self.entries.leg(id, route);
            leg.and_then(|l| l.history.as_ref()).map_or(0, |history| history.attempts_started)
        })
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
        let key_hash = entry.key_hash;
        let Some(leg) = entry.legs.iter_mut().find(|l| l.route == route) else { return };
        leg.apply(LegEvent::StartRecorded);
        leg.history().start_recorded = true;
        let is_keyless = entry.message.key.is_none();
        self.queues[route].make_first(id, key_hash, is_keyless);
    }

    /// A publish of the event has ended, with whatever outcome: the event did not end the process.
    pub(in crate::relay::board) fn survived(&mut self, id: EventId, route: RouteNo) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let Some(leg) = entry.legs.iter_mut().find(|l| l.route == route) else { return };
        let Some(history) = leg.history.as_mut().filter(|h| h.start_recorded) else { return };
        history.start_recorded = false;
        if leg.done_first {
            return;
        }
        history.attempts_started = 0;
        leg.written = false;
        if let Some(partition) = self.partitions.get_mut(&entry.partition) {
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
