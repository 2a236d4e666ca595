//! An event that kills its process is told from an honest failure: after a crash, what may have been in flight is started
//! only when that start is written down, and what was started in a life that ended so goes alone.

use crate::relay::board::{
    Board, RouteNo,
    held::{Held, LegState},
};
use crate::{event::EventId, failure::DeadReason, outbox::PartitionNo};
use std::{collections::VecDeque, time::Instant};

/// Starts that ended their process (the first of them among others, the rest alone) after which an event is buried. Processes
/// that are killed from outside every few seconds hit an innocent one two or three times: of 80,000 in 330 deaths, two to ten.
const LIVES: u32 = 5;

/// The events that go alone.
#[derive(Debug, Default)]
pub(crate) struct Suspicion {
    /// The one on its way.
    alone: Option<(EventId, RouteNo)>,
    /// Those whose turn comes after it.
    queue: VecDeque<(EventId, RouteNo)>,
}

impl Board {
    /// Starts an event after a crash: writes the start down first.
    pub(crate) fn start_carefully(&mut self, id: EventId, route: RouteNo, now: Instant) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let (lane, no) = (held.lane, held.partition);
        let Some(leg) = held.legs.iter_mut().find(|l| l.route == route) else { return };
        let started = leg.past().attempts_started;
        if started >= LIVES {
            self.give_up(id, route, DeadReason::Crashed, None, now);
            return;
        }
        let last = started + 1 == LIVES && self.others_first(route);
        let leg_waits = last || (started > 0 && self.someone_else_alone(id, route, lane));
        let Some(leg) =
            self.held.get_mut(&id).and_then(|h| h.legs.iter_mut().find(|l| l.route == route))
        else {
            return;
        };
        if leg_waits {
            // Another one is on its way, or goes first; this one stands at the head of its lane meanwhile.
            if !self.suspicion.queue.contains(&(id, route)) {
                self.suspicion.queue.push_back((id, route));
            }
        } else {
            if started > 0 {
                self.suspicion.alone = Some((id, route));
            }
            leg.state = LegState::Starting;
            leg.past().attempts_started += 1;
            leg.written = false;
            self.record(id, now);
        }
        self.hold_back(id, route, lane, no);
    }

    /// Tells whether another event is on its way alone. One that stands behind this one in the same lane gives way.
    fn someone_else_alone(&self, id: EventId, route: RouteNo, lane: Option<u64>) -> bool {
        let Some((other, its_route)) = self.suspicion.alone.filter(|one| *one != (id, route))
        else {
            return false;
        };
        let Some(held) = self.held.get(&other) else { return false };
        let in_flight =
            held.legs.iter().any(|l| l.route == its_route && l.state == LegState::InFlight);
        in_flight || its_route != route || lane.is_none() || held.lane != lane
    }

    /// Tells whether others go before an event that has one life left: while nothing was confirmed in this life of the relay,
    /// a process that is killed from outside dies, as likely as not, with the first event that it tried, as long as its
    /// connection was being made; and the next life begins with the same one.
    fn others_first(&self, route: RouteNo) -> bool {
        self.queues[route].successes == 0 && !self.is_idle(route)
    }

    /// Tells whether nothing of a route is under way or may go.
    fn is_idle(&self, route: RouteNo) -> bool {
        let queue = &self.queues[route];
        let starting = |held: &Held| {
            held.legs.iter().any(|l| l.route == route && l.state == LegState::Starting)
        };
        queue.batches == 0 && queue.ready.is_empty() && !self.held.values().any(starting)
    }

    /// Lets one of those go that wait for others, where there are none.
    pub(crate) fn let_last_go(&mut self) -> bool {
        let waits = self.suspicion.alone.is_none() && !self.suspicion.queue.is_empty();
        waits
            && self.least_suspected().is_some_and(|(_, route)| self.is_idle(route))
            && self.let_one_go()
    }

    /// Lets the one go of those that wait which has most lives left, unless one is on its way.
    pub(crate) fn let_one_go(&mut self) -> bool {
        let Some(next) = self.least_suspected().filter(|_| self.suspicion.alone.is_none()) else {
            return false;
        };
        self.suspicion.queue.retain(|one| *one != next);
        let lane = self.held.get(&next.0).and_then(|h| h.lane);
        self.back_in_line(next.0, next.1, lane);
        true
    }

    fn least_suspected(&self) -> Option<(EventId, RouteNo)> {
        let strikes = |(id, route): &&(EventId, RouteNo)| {
            let leg = self.held.get(id).and_then(|h| h.legs.iter().find(|l| l.route == *route));
            leg.and_then(|l| l.past.as_ref()).map_or(0, |past| past.attempts_started)
        };
        self.suspicion.queue.iter().min_by_key(strikes).copied()
    }

    /// Lets an event stand at the head of its lane until it may go.
    pub(crate) fn hold_back(
        &mut self,
        id: EventId,
        route: RouteNo,
        lane: Option<u64>,
        no: PartitionNo,
    ) {
        if let Some(hash) = lane {
            let lane = self.queues[route].lane(hash, no);
            lane.insert(id);
            lane.blocked = Some(id);
            self.waits_from_now(route, hash);
        }
    }

    /// The start is written down: the event may go.
    pub(crate) fn start_written(&mut self, id: EventId, route: RouteNo) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let lane = held.lane;
        let Some(leg) = held.legs.iter_mut().find(|l| l.route == route) else { return };
        leg.state = LegState::Waiting;
        leg.past().cleared = true;
        self.back_in_line(id, route, lane);
    }

    /// An event was answered, whatever the answer: it did not end the process.
    pub(crate) fn answered(&mut self, id: EventId, route: RouteNo) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let Some(leg) = held.legs.iter_mut().find(|l| l.route == route) else { return };
        let Some(past) = leg.past.as_mut().filter(|p| p.cleared) else { return };
        past.cleared = false;
        if leg.claimed {
            return;
        }
        past.attempts_started = 0;
        leg.written = false;
        if let Some(partition) = self.partitions.get_mut(&held.partition) {
            partition.suspicious = partition.suspicious.saturating_sub(1);
        }
        self.next_alone(id, route);
    }

    pub(crate) fn next_alone(&mut self, id: EventId, route: RouteNo) {
        if self.suspicion.alone == Some((id, route)) {
            self.suspicion.alone = None;
            self.let_one_go();
        }
    }

    /// Forgets those of partitions that are somebody else's.
    pub(crate) fn suspects_lost(&mut self) {
        self.suspicion.queue.retain(|(id, _)| self.held.contains_key(id));
        if let Some((id, route)) = self.suspicion.alone
            && !self.held.contains_key(&id)
        {
            self.next_alone(id, route);
        }
    }
}
