//! What may go now: batches of distinct keys, as many as the route takes and its breaker allows.

use crate::relay::board::{
    Board, RouteNo, Timer,
    held::LegState,
    lanes::{Company, Ready},
};
use crate::{
    event::{EventId, Message},
    failure::DeadReason,
    transport::Guarantee,
};
use std::time::Instant;

/// Payload bytes of one batch, at least one message: what a publisher encodes at once.
const BATCH_BYTES: usize = 4 << 20;

/// Events of distinct keys on their way to one publisher.
#[derive(Debug)]
pub(crate) struct RouteBatch {
    pub(crate) route: RouteNo,
    /// Each with which attempt it is, from 1.
    pub(crate) events: Vec<(EventId, u32)>,
    /// The messages of the events, in their order.
    pub(crate) messages: Vec<Message>,
}

/// What became of the candidate at the front.
enum Next {
    Go(EventId, Message, u32),
    Skip,
}

impl Board {
    /// Gives the batches that may start now; their events are in flight from here on.
    pub(crate) fn next_batches(&mut self, now: Instant) -> Vec<RouteBatch> {
        let mut batches = Vec::new();
        loop {
            for route in 0..self.routes.len() {
                while let Some(batch) = self.next_batch(route, now) {
                    batches.push(batch);
                }
            }
            if !self.let_last_go() {
                return batches;
            }
        }
    }

    fn next_batch(&mut self, route: RouteNo, now: Instant) -> Option<RouteBatch> {
        let limits = self.routes[route].limits;
        let queue = &self.queues[route];
        if queue.batches >= limits.max_in_flight || queue.ready.is_empty() {
            return None;
        }
        let room = queue.breaker.allows(now).unwrap_or(limits.max_batch).min(limits.max_batch);
        let mut batch = RouteBatch { route, events: Vec::new(), messages: Vec::new() };
        let (mut bytes, mut later) = (0, Vec::new());
        while batch.events.len() < room && bytes < BATCH_BYTES {
            let Some(ready) = self.queues[route].ready.pop_front() else { break };
            let company = self.company(ready, route);
            if company == Company::Later {
                later.push(ready);
                continue;
            }
            if company == Company::Alone && !batch.events.is_empty() {
                self.queues[route].ready.push_front(ready);
                break;
            }
            let next = match ready {
                Ready::Single(id) => self.start(id, route, now),
                Ready::Lane(hash) => self.start_lane(hash, route, now),
            };
            if let Next::Go(id, message, attempt) = next {
                bytes += message.payload.len();
                batch.events.push((id, attempt));
                batch.messages.push(message);
                if company == Company::Alone {
                    self.queues[route].loners.started(id);
                    break;
                }
            }
        }
        self.queues[route].ready.extend(later);
        if batch.events.is_empty() {
            return None;
        }
        let queue = &mut self.queues[route];
        queue.breaker.probe_started();
        queue.batches += 1;
        Some(batch)
    }

    /// Says with whom what is ready may be published.
    fn company(&self, ready: Ready, route: RouteNo) -> Company {
        let queue = &self.queues[route];
        if queue.loners.is_empty() {
            return Company::Others;
        }
        match ready {
            Ready::Single(id) => queue.loners.company(id),
            Ready::Lane(hash) => {
                let head = queue.lanes.get(&hash).and_then(|lane| lane.queue.front());
                head.map_or(Company::Others, |id| queue.loners.company(*id))
            }
        }
    }

    /// Starts the head of a lane.
    fn start_lane(&mut self, hash: u64, route: RouteNo, now: Instant) -> Next {
        loop {
            let Some(lane) = self.queues[route].lanes.get_mut(&hash) else { return Next::Skip };
            lane.in_ready = false;
            if lane.parked.is_some() || lane.current.is_some() || lane.blocked.is_some() {
                return Next::Skip;
            }
            let Some(id) = lane.queue.pop_front() else {
                self.queues[route].drop_idle(hash);
                return Next::Skip;
            };
            let partition = lane.partition;
            let wants_more = lane.closed.filter(|_| lane.queue.len() <= self.config.per_key / 2);
            if let Some(closed) = wants_more
                && self.queues[route]
                    .has_room(self.config.per_route, self.routes[route].max_in_memory)
                && let Some(p) = self.partitions.get_mut(&partition)
            {
                p.reread_from(closed.first);
            }
            let leg = self.held.get(&id).and_then(|h| h.legs.iter().find(|l| l.route == route));
            let claimed = leg.is_some_and(|l| l.claimed);
            if leg.is_some_and(|l| {
                matches!(l.state, LegState::Retrying | LegState::Unproven | LegState::Starting)
            }) {
                let lane = self.queues[route].lane(hash, partition);
                lane.queue.push_front(id);
                lane.blocked = Some(id);
                return Next::Skip;
            }
            if self.partitions.get(&partition).is_none_or(|p| p.releasing && !claimed) {
                self.queues[route].lane(hash, partition).queue.push_front(id);
                return Next::Skip;
            }
            let next = self.start(id, route, now);
            if let Next::Go(..) = next {
                self.queues[route].lane(hash, partition).current = Some(id);
                return next;
            }
        }
    }

    fn start(&mut self, id: EventId, route: RouteNo, now: Instant) -> Next {
        let Some(held) = self.held.get_mut(&id) else { return Next::Skip };
        let Some(leg) =
            held.legs.iter_mut().find(|l| l.route == route && l.state == LegState::Waiting)
        else {
            return Next::Skip;
        };
        // What is claimed already is published even while its partition is handed back: nobody else would.
        let Some(partition) =
            self.partitions.get_mut(&held.partition).filter(|p| !p.releasing || leg.claimed)
        else {
            return Next::Skip;
        };
        if !leg.claimed && held.expires_at.is_some_and(|at| at <= now) {
            self.expire(id, route, now);
            return Next::Skip;
        }
        let cleared = leg.past.as_ref().is_some_and(|p| p.cleared);
        if self.routes[route].guarantee == Guarantee::AtMostOnce {
            if !cleared {
                self.claim(id, route, now);
                return Next::Skip;
            }
            leg.state = LegState::InFlight;
            partition.in_flight += 1;
            return Next::Go(id, held.message.clone(), 1);
        }
        let feared =
            partition.suspicious > 0 || leg.past.as_ref().is_some_and(|p| p.attempts_started > 0);
        if feared && !cleared {
            self.start_carefully(id, route, now);
            return Next::Skip;
        }
        leg.state = LegState::InFlight;
        partition.in_flight += 1;
        let attempt = leg.past.as_ref().map_or(0, |p| p.attempts_finished) + 1;
        let redriven = leg.past.as_ref().is_some_and(|p| p.redriven);
        let message = if redriven { marked(&held.message) } else { held.message.clone() };
        Next::Go(id, message, attempt)
    }

    fn expire(&mut self, id: EventId, route: RouteNo, now: Instant) {
        self.give_up(id, route, DeadReason::Expired, None, now);
    }

    /// Lets events go whose timer rang.
    pub(crate) fn ring(&mut self, timers: &[Timer], now: Instant) {
        for timer in timers {
            let Some(held) = self.held.get_mut(&timer.id) else { continue };
            let lane = held.lane;
            let Some(leg) = held.legs.iter_mut().find(|l| l.route == timer.route) else { continue };
            let due = leg.past.as_ref().and_then(|p| p.due_at).is_none_or(|at| at <= now);
            if !due || !matches!(leg.state, LegState::Retrying | LegState::Unproven) {
                continue;
            }
            leg.state = LegState::Waiting;
            self.back_in_line(timer.id, timer.route, lane);
        }
    }

    /// Puts an event that waits (and stands in its lane) among the ready ones.
    pub(crate) fn back_in_line(&mut self, id: EventId, route: RouteNo, lane: Option<u64>) {
        let queue = &mut self.queues[route];
        match lane {
            None => queue.ready.push_back(Ready::Single(id)),
            Some(hash) => {
                if let Some(lane) = queue.lanes.get_mut(&hash)
                    && lane.blocked == Some(id)
                {
                    lane.blocked = None;
                }
                queue.make_ready(hash);
            }
        }
    }

    /// Gives the next instant at which something may go that may not go now: a breaker's probe, a halfway event.
    pub(crate) fn next_instant(&self) -> Option<Instant> {
        let may_go = |route: &RouteNo| {
            let queue = &self.queues[*route];
            // An answer to what is in flight comes before anything can.
            let has_room = queue.batches < self.routes[*route].limits.max_in_flight;
            has_room
                && queue.ready.iter().any(|ready| self.company(*ready, *route) != Company::Later)
        };
        let probes = (0..self.queues.len())
            .filter(may_go)
            .filter_map(|route| self.queues[route].breaker.probe_at());
        probes.chain(self.next_halfway()).min()
    }

    /// Gives the next instant at which an event that is halfway is to be written down.
    pub(crate) fn next_halfway(&self) -> Option<Instant> {
        self.halfway.front().map(|(at, _)| *at)
    }
}

/// Says on a message that an operator had it delivered again: it may come after those that were behind it.
fn marked(message: &Message) -> Message {
    let mut parts = message.clone().into_parts();
    // Both are legal, so it cannot fail.
    let _ = parts.headers.insert("redriven", "true");
    Message::new(parts)
}
