//! The next batches: events of distinct keys, as many as the route's limits and its breaker allow.

mod starts;

use crate::relay::board::{
    Board, RouteNo, Timer,
    entries::{LegEvent, LegState, RouteLeg},
    queues::{BatchFit, KeyHead, Ready},
};
use crate::{
    event::{EventId, Message},
    failure::DeadReason,
    transport::Guarantee,
};
use std::time::Instant;

/// Payload bytes of one batch, unless one message has more: a publisher encodes the whole batch.
const BATCH_BYTES: usize = 4 << 20;

/// Events of distinct keys for one publisher.
#[derive(Debug)]
pub(crate) struct RouteBatch {
    pub(crate) route: RouteNo,
    /// The events, each with the number of its attempt, from 1.
    pub(crate) events: Vec<(EventId, u32)>,
    /// The messages of the events, in their order.
    pub(crate) messages: Vec<Message>,
}

/// Whether the first ready event joins the batch.
enum Next {
    Publish(EventId, Message, u32),
    /// Its start is recorded first.
    Recorded,
    Skip,
}

impl Board {
    /// Gives the batches to publish now; their events are in flight from here on.
    pub(crate) fn next_batches(&mut self, now: Instant) -> Vec<RouteBatch> {
        let mut batches = Vec::new();
        if !self.controls.is_known() {
            return batches;
        }
        self.end_pauses(now);
        loop {
            for route in 0..self.routes.len() {
                while let Some(batch) = self.next_batch(route, now) {
                    batches.push(batch);
                }
            }
            // After every other event of its route: where the last recorded start of an event ends
            // the process again, the others have been published before.
            if !self.release_last() {
                return batches;
            }
        }
    }

    fn next_batch(&mut self, route: RouteNo, now: Instant) -> Option<RouteBatch> {
        let limits = self.routes[route].limits;
        let queue = &self.queues[route];
        if queue.batches() >= limits.max_in_flight || !queue.has_ready() {
            return None;
        }
        let allowed = self.destinations[route].breaker().allows(now);
        let room = allowed.unwrap_or(limits.max_batch).min(limits.max_batch);
        let mut batch = RouteBatch { route, events: Vec::new(), messages: Vec::new() };
        let (mut bytes, mut solo_later) = (0, Vec::new());
        let (startable, mut started) = (self.controls.startable(route, now), 0);
        while batch.events.len() < room && bytes < BATCH_BYTES {
            let Some(ready) = self.queues[route].next_ready() else { break };
            let is_begun = startable.is_some() && self.is_begun(ready, route);
            if startable.is_some_and(|most| started >= most) && !is_begun {
                self.queues[route].put_first(ready);
                break;
            }
            let batch_fit = self.queues[route].batch_fit(ready);
            if batch_fit == BatchFit::SoloLater {
                solo_later.push(ready);
                continue;
            }
            if batch_fit == BatchFit::Solo && !batch.events.is_empty() {
                self.queues[route].put_first(ready);
                break;
            }
            let next = match ready {
                Ready::Single(id) => self.start_single(id, route, now),
                Ready::Key(hash) => self.start_key(hash, route, now),
            };
            started += usize::from(!is_begun && !matches!(next, Next::Skip));
            if let Next::Publish(id, message, attempt) = next {
                bytes += message.payload.len();
                batch.events.push((id, attempt));
                batch.messages.push(message);
                if batch_fit == BatchFit::Solo {
                    self.queues[route].solo_started(id);
                    break;
                }
            }
        }
        // Behind the others: an event that waits for its turn alone must not keep shared batches
        // from forming.
        for ready in solo_later {
            // One that has begun goes on under a pause: it is found in front of what may not start.
            match startable.is_some() && self.is_begun(ready, route) {
                true => self.queues[route].put_first(ready),
                false => self.queues[route].put_last(ready),
            }
        }
        self.controls.started(route, started, now);
        if batch.events.is_empty() {
            return None;
        }
        self.destinations[route].batch_started();
        self.queues[route].batch_started();
        Some(batch)
    }

    /// Starts an event without a key.
    fn start_single(&mut self, id: EventId, route: RouteNo, now: Instant) -> Next {
        let Some(entry) = self.entries.get(id) else { return Next::Skip };
        match entry.key_hash() {
            None if self.is_held(id, route) => {
                self.hold_keyless(id);
                Next::Skip
            }
            None => self.start(id, route, now),
            // It waits in a key queue since its topic was paused, unless it has begun.
            Some(_) if !self.is_begun(Ready::Single(id), route) => Next::Skip,
            Some(hash) => {
                self.queues[route].take_waiting(hash, id);
                self.start(id, route, now)
            }
        }
    }

    /// Starts the head of a key.
    fn start_key(&mut self, hash: u64, route: RouteNo, now: Instant) -> Next {
        loop {
            let Some(head) = self.queues[route].take_head(hash) else { return Next::Skip };
            let KeyHead { id, partition, rescan_from } = head;
            if let Some(first) = rescan_from
                && let Some(p) = self.partitions.get_mut(&partition)
            {
                p.rescan_from(first);
            }
            let leg = self.entries.leg(id, route);
            let done_first = leg.is_some_and(RouteLeg::is_done_first);
            if leg.is_some_and(|l| {
                matches!(l.state(), LegState::Retrying | LegState::Unproven | LegState::Starting)
            }) {
                self.queues[route].block_head(hash, head);
                return Next::Skip;
            }
            if self.partitions.get(&partition).is_none_or(|p| p.is_releasing() && !done_first) {
                self.queues[route].return_head(hash, head);
                return Next::Skip;
            }
            if self.is_held(id, route) {
                self.queues[route].hold_head(hash, head);
                return Next::Skip;
            }
            let next = self.start(id, route, now);
            match next {
                Next::Publish(..) => {
                    self.queues[route].head_started(hash, head);
                    return next;
                }
                Next::Recorded => return next,
                Next::Skip => {}
            }
        }
    }

    /// Starts an event on a route, unless its start or its end has to be recorded first.
    fn start(&mut self, id: EventId, route: RouteNo, now: Instant) -> Next {
        let Some(entry) = self.entries.get_mut(id) else { return Next::Skip };
        let (no, is_expired) = (entry.partition(), entry.is_expired(now));
        let waiting = entry.leg_mut(route).filter(|leg| leg.state() == LegState::Waiting);
        let Some(leg) = waiting else { return Next::Skip };
        // An event that is marked as done is published even while its partition is released: no
        // other relay would.
        let done_first = leg.is_done_first();
        let owned = self.partitions.get_mut(&no);
        let Some(partition) = owned.filter(|p| !p.is_releasing() || done_first) else {
            return Next::Skip;
        };
        if !done_first && is_expired {
            self.expire(id, route, now);
            return Next::Skip;
        }
        let start_recorded = leg.is_start_recorded();
        // Before the recorded starts of a crash: the mark as done is the record of the start too,
        // and an event that ended its process is never tried again here.
        if self.routes[route].guarantee == Guarantee::AtMostOnce {
            if !start_recorded {
                self.mark_done_first(id, route, now);
                return Next::Recorded;
            }
            leg.apply(LegEvent::Published);
            partition.publish_started();
            return Next::Publish(id, entry.message().clone(), 1);
        }
        let must_record = partition.records_starts() || leg.attempts_started() > 0;
        if must_record && !start_recorded {
            return match self.record_start(id, route, now) {
                true => Next::Recorded,
                false => Next::Skip,
            };
        }
        leg.apply(LegEvent::Published);
        partition.publish_started();
        let (attempt, redriven) = (leg.attempt(), leg.is_redriven());
        let message = entry.message();
        let message = if redriven { with_redriven(message) } else { message.clone() };
        Next::Publish(id, message, attempt)
    }

    fn expire(&mut self, id: EventId, route: RouteNo, now: Instant) {
        self.give_up(id, route, DeadReason::Expired, None, now);
    }

    /// Makes events ready whose timers have fired.
    pub(crate) fn timers_fired(&mut self, timers: &[Timer], now: Instant) {
        for timer in timers {
            let Some(entry) = self.entries.get_mut(timer.id) else { continue };
            let key_hash = entry.key_hash();
            let Some(leg) = entry.leg_mut(timer.route) else { continue };
            let due = leg.due_at().is_none_or(|at| at <= now);
            // A timer outlives its retry: the breaker or a confirmation of another event may have
            // made this one ready before, and it may wait for a later retry by now.
            if !due || !matches!(leg.state(), LegState::Retrying | LegState::Unproven) {
                continue;
            }
            leg.apply(LegEvent::RetryDue);
            self.queues[timer.route].make_ready(timer.id, key_hash);
        }
    }

    /// Gives the instant of the next breaker probe, of the next event that a rate limit allows, of
    /// the next pause's end, or of the next record of a partially confirmed event.
    pub(crate) fn next_instant(&self) -> Option<Instant> {
        let can_start = |route: &RouteNo| {
            let queue = &self.queues[*route];
            // Without room for a batch the end of one in flight comes first, and wakes the
            // dispatcher.
            let has_room = queue.batches() < self.routes[*route].limits.max_in_flight;
            has_room && self.controls.is_known() && queue.has_startable()
        };
        let starts =
            (0..self.queues.len()).filter(can_start).filter_map(|route| self.next_start(route));
        starts.chain(self.controls.next_end()).chain(self.next_partial_record()).min()
    }

    /// Gives the instant at which the breaker and the limit of a route let its first ready event
    /// start; `None` if something else comes first.
    fn next_start(&self, route: RouteNo) -> Option<Instant> {
        let is_begun = self.first_is_begun(route);
        if self.controls.is_paused(route) && !is_begun {
            return None;
        }
        let refill_at = self.controls.refill_at(route).filter(|_| !is_begun);
        let breaker = self.destinations[route].breaker();
        match breaker.probe_at() {
            Some(at) => Some(refill_at.map_or(at, |refill| refill.max(at))),
            None => refill_at.filter(|_| !breaker.is_open()),
        }
    }

    /// Gives the instant at which the next partially confirmed event is recorded.
    pub(crate) fn next_partial_record(&self) -> Option<Instant> {
        self.entries.next_record()
    }
}

/// Adds the header by which a receiver knows that an operator redrove the message: it may come
/// after later ones of its key.
fn with_redriven(message: &Message) -> Message {
    let mut parts = message.clone().into_parts();
    // Name and value are legal, so it cannot fail.
    let _ = parts.headers.insert("redriven", "true");
    Message::new(parts)
}
