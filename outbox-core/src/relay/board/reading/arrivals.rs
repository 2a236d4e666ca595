//! Events come in from reading: who takes them, and whether there is room.

use super::unrouted::{Missing, Sorted, is_to_be_routed, sorted};
use crate::relay::board::{
    Board, RouteNo, Timer,
    held::{Held, Leg, LegState},
    lanes::{Closed, Lane, Pass, Ready, RouteQueue},
};
use crate::{
    event::{EventId, Message},
    failure::{AttemptError, DeadReason, FailureClass},
    outbox::{Epoch, NewLetter, PartitionNo, RouteRow, RouteState, StoredEvent, Verdict},
};
use std::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// From where an event comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Past the cursor.
    Past,
    /// Found by looking back, or fetched by id.
    Found,
    /// Read again after it had been forgotten, in order.
    Again,
}

impl Board {
    /// Takes an event in.
    pub(crate) fn arrive(&mut self, stored: StoredEvent, origin: Origin, now: Instant) {
        let Some(partition) = self.partitions.get(&stored.partition) else { return };
        let epoch = partition.epoch;
        if self.settled_during_read.contains_key(&stored.id)
            || self.burying.contains_key(&stored.id)
        {
            if stored.rows.iter().any(|row| row.redriven && row.state == RouteState::Waiting) {
                // Redriven right after it was settled, or this read is older than that: another read tells.
                self.fetch_again(stored.partition, stored.id);
            }
            return;
        }
        if self.held.contains_key(&stored.id) {
            self.arrive_again(stored, origin, now);
            return;
        }
        let message = match stored.body {
            Ok(message) => message,
            Err(reason) => {
                self.bury_undecodable(stored.partition, epoch, stored.id, stored.rows, &reason);
                return;
            }
        };
        let place = (stored.partition, epoch, stored.id);
        let (to_be_routed, remembered) = (is_to_be_routed(&stored.rows), !stored.rows.is_empty());
        let Sorted { mut legs, orphans, sight } = sorted(&self.routes, stored.rows, now);
        if to_be_routed {
            legs.extend(
                (0..self.routes.len())
                    .filter(|&r| self.routes[r].selector.takes(&message))
                    .map(Leg::new),
            );
        }
        let has_no_route = to_be_routed && legs.is_empty();
        let all_final = legs.iter().all(|l| l.state.is_final());
        let mut writing = 0;
        if has_no_route || !orphans.is_empty() {
            let missing = match has_no_route {
                true => {
                    let text = format!(
                        "no route takes topic `{}`, type `{}`",
                        message.topic, message.event_type
                    );
                    Missing { orphans, sight, text }
                }
                false => Missing::routes(orphans, sight),
            };
            let (is_written, waits) = self.wait_for_route(place, missing);
            writing += u32::from(is_written);
            if all_final {
                if !waits {
                    self.burying.insert(stored.id, stored.partition);
                }
                return;
            }
        } else if sight.is_some() {
            self.routes_found(place, &mut legs, now);
            writing += 1;
        } else if all_final {
            // All final, yet still there: the settle that wrote the rows did not come to the event; it is done again.
            let (partition, id) = (stored.partition, stored.id);
            self.push_record(
                epoch,
                Verdict { partition, id, rows: Vec::new(), letters: Vec::new() },
            );
        }
        if all_final {
            self.burying.insert(stored.id, stored.partition);
            return;
        }
        let lane = message.key.as_deref().map(|k| xxh3_64(k.as_bytes()));
        let held = Held {
            bytes: memory_of(&message),
            left_out: stored.left_out.is_some(),
            message,
            partition: stored.partition,
            epoch,
            lane,
            expires_at: stored.expires_in.map(|d| now + d),
            legs,
            remembered,
            writing,
            gone: false,
        };
        self.held.insert(stored.id, held);
        self.place_all(stored.id, origin, now);
    }

    /// An event that is held already: legs that were forgotten may have room now, dead ones may have been redriven.
    fn arrive_again(&mut self, stored: StoredEvent, origin: Origin, now: Instant) {
        let Some(held) = self.held.get_mut(&stored.id) else { return };
        // What is being written down, or was while this was read, is not to be seen here yet: a route that was redriven and
        // has confirmed meanwhile would look as if it waited. Another read tells, for which a parked key waits too.
        let mut another = false;
        let is_stale = held.writing > 0 || self.recorded_during_read.contains_key(&stored.id);
        let (mut orphans, mut sight) = (Vec::new(), None);
        for row in stored.rows {
            let Some(route) = self.routes.iter().position(|r| r.name == row.route) else {
                match row.state {
                    RouteState::Waiting if row.route.is_empty() => sight = Some(row),
                    RouteState::Waiting => orphans.push(row),
                    RouteState::Done | RouteState::Dead => {}
                }
                continue;
            };
            if row.state != RouteState::Waiting || !row.redriven {
                continue;
            }
            match held.legs.iter_mut().find(|l| l.route == route) {
                Some(leg) if leg.state.is_final() && leg.written && !is_stale => {
                    *leg = Leg::from_row(route, row, now)
                }
                Some(leg) => {
                    another |= is_stale && leg.state.is_final();
                    continue;
                }
                None if is_stale => {
                    another = true;
                    continue;
                }
                None => held.legs.push(Leg::from_row(route, row, now)),
            }
            // Placed below like one that was forgotten.
            if let Some(leg) = held.legs.iter_mut().find(|l| l.route == route) {
                leg.state = LegState::Forgotten;
            }
        }
        let mut again = Vec::new();
        for leg in held.legs.iter_mut().filter(|l| l.state == LegState::Forgotten) {
            leg.state = LegState::Waiting;
            again.push(leg.route);
        }
        let epoch = held.epoch;
        for route in again {
            self.place(stored.id, route, origin, now);
        }
        // What is stale is told by the next renewal, if it is due.
        if !orphans.is_empty() && !is_stale {
            let place = (stored.partition, epoch, stored.id);
            let (is_written, _) = self.wait_for_route(place, Missing::routes(orphans, sight));
            if let Some(held) = self.held.get_mut(&stored.id) {
                held.writing += u32::from(is_written);
            }
        }
        if another {
            self.fetch_again(stored.partition, stored.id);
        }
    }

    fn place_all(&mut self, id: EventId, origin: Origin, now: Instant) {
        let Some(held) = self.held.get(&id) else { return };
        if let [leg] = held.legs.as_slice() {
            let route = leg.route;
            self.place(id, route, origin, now);
        } else {
            let waiting: Vec<RouteNo> = held
                .legs
                .iter()
                .filter(|l| l.state == LegState::Waiting)
                .map(|l| l.route)
                .collect();
            for route in waiting {
                self.place(id, route, origin, now);
            }
        }
        self.let_go_if_forgotten(id);
    }

    /// Puts an event in its lane, or forgets it where there is no room.
    fn place(&mut self, id: EventId, route: RouteNo, origin: Origin, now: Instant) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let (no, bytes) = (held.partition, held.bytes);
        let Some(partition) = self.partitions.get_mut(&no) else { return };
        let queue = &mut self.queues[route];
        let most = self.routes[route].max_in_memory;
        // While anything of the route is left to be read again, or would have to be.
        let crowded = !queue.closed.is_empty() || !queue.has_room(self.config.per_route, most);
        let RouteQueue { lanes, closed: all_closed, ready, held: count, bytes: held_bytes, .. } =
            queue;
        let mut lane = held.lane.map(|hash| lanes.entry(hash).or_insert_with(|| Lane::new(no)));
        // An event without its payload is never held: it is read again. Where its key refuses it anyway, the route is not to
        // blame, and the pass that reads it again goes on.
        let absent = held.left_out;
        let is_refused = || {
            lane.as_ref().and_then(|l| l.closed.as_ref()).is_some_and(|c| refuses(c, id, origin))
        };
        let full = *count >= self.config.per_route
            || (*count > 0 && *held_bytes + bytes > most)
            || (absent && !is_refused());
        // Later ones of its key are held: it goes before them, room or not.
        let overdue = !absent
            && lane.as_ref().and_then(|lane| lane.queue.back()).is_some_and(|last| id < *last);
        let route_open =
            if overdue { Ok(()) } else { admit(all_closed.get_mut(&no), id, origin, full) };
        let lane_open = match &mut lane {
            None => Ok(()),
            Some(_) if overdue => Ok(()),
            Some(lane) => {
                // A key that waits for its head does not take the room of those that move: one that is parked has its head
                // elsewhere.
                let most = match crowded {
                    true if lane.parked.is_some() => 0,
                    true if lane.blocked.is_some() => 1,
                    _ => self.config.per_key,
                };
                let full = lane.queue.len() >= most;
                admit(lane.closed.as_mut(), id, origin, full || route_open.is_err())
            }
        };
        let Some(leg) = held.legs.iter_mut().find(|l| l.route == route) else { return };
        if let (Ok(()), Ok(())) = (route_open, lane_open) {
            partition.forgotten.remove(id);
            if let Some(at) = leg.past.as_ref().and_then(|p| p.due_at).filter(|at| *at > now) {
                leg.state = LegState::Retrying;
                self.timers.push(Timer { at, id, route });
            }
            match held.lane.zip(lane) {
                None if leg.state == LegState::Waiting => ready.push_back(Ready::Single(id)),
                None => {}
                Some((hash, lane)) => {
                    lane.insert(id);
                    lane.make_ready(hash, ready);
                }
            }
            queue.hold(bytes);
            if queue.breaker.is_open() {
                queue.breaker.new_key(queue.ready.len(), now);
            }
            return;
        }
        leg.state = LegState::Forgotten;
        self.stats.forgotten += u64::from(origin != Origin::Again);
        partition.forgotten.insert(id);
        if route_open == Err(true) {
            queue.closed.insert(no, Closed::at(id));
            queue.shed = true;
        } else if route_open.is_ok()
            && lane_open == Err(true)
            && let Some(hash) = held.lane
        {
            queue.lane(hash, no).closed = Some(Closed::at(id));
            partition.closed_lanes.insert((route, hash));
        }
        if let Some(hash) = held.lane {
            queue.drop_idle(hash);
        }
    }

    /// Gives up the memory of an event that is not held for any route.
    pub(crate) fn let_go_if_forgotten(&mut self, id: EventId) {
        let nothing_held = self.held.get(&id).is_some_and(|h| {
            h.writing == 0
                && h.legs.iter().all(|l| l.state.is_final() || l.state == LegState::Forgotten)
        });
        if nothing_held {
            self.held.remove(&id);
        }
    }

    /// Puts an event aside whose row does not decode, on all routes for which it waits; nothing of it waits any more then.
    fn bury_undecodable(
        &mut self,
        partition: PartitionNo,
        epoch: Epoch,
        id: EventId,
        rows: Vec<RouteRow>,
        reason: &str,
    ) {
        self.burying.insert(id, partition);
        if !rows.is_empty() && rows.iter().all(|row| row.state.is_final()) {
            // The settle that wrote the rows did not come to the event.
            self.push_record(
                epoch,
                Verdict { partition, id, rows: Vec::new(), letters: Vec::new() },
            );
            return;
        }
        let (sights, mut waiting): (Vec<RouteRow>, Vec<RouteRow>) = rows
            .into_iter()
            .filter(|row| row.state == RouteState::Waiting)
            .partition(|row| row.route.is_empty());
        if waiting.is_empty() {
            waiting.push(RouteRow::waiting("".into()));
        } else {
            waiting.extend(sights);
        }
        let named = waiting.iter().filter(|row| waiting.len() == 1 || !row.route.is_empty());
        let letter = |row: &RouteRow| NewLetter {
            route: row.route.clone(),
            reason: DeadReason::Undecodable,
            parks: false,
        };
        let letters: Vec<NewLetter> = named.map(letter).collect();
        let dead = |mut row: RouteRow| {
            let error = AttemptError::new(
                row.attempts_finished,
                FailureClass::Permanent,
                reason.to_owned(),
            );
            AttemptError::push(&mut row.errors, error);
            RouteRow { state: RouteState::Dead, due_in: None, ..row }
        };
        self.stats.dead += letters.len() as u64;
        let rows = waiting.into_iter().map(dead).collect();
        self.push_record(epoch, Verdict { partition, id, rows, letters });
    }

    pub(crate) fn push_record(&mut self, epoch: Epoch, verdict: Verdict) {
        if let Some(partition) =
            self.partitions.get_mut(&verdict.partition).filter(|p| p.epoch == epoch)
        {
            partition.writing += 1;
            self.writes.record.push((epoch, verdict));
        }
    }
}

/// Gives what a message takes of the memory of a route, in bytes.
fn memory_of(message: &Message) -> usize {
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    message.payload.len() + headers + message.key.as_ref().map_or(0, String::len)
}

/// Tells whether something closed refuses an event, room or not.
pub(super) fn refuses(closed: &Closed, id: EventId, origin: Origin) -> bool {
    id >= closed.first && !(origin == Origin::Again && closed.pass == Pass::Takes)
}

/// Decides whether an event may be held: `Err(true)` when this refusal begins a closing, `Err(false)` when it is
/// closed already.
fn admit(closed: Option<&mut Closed>, id: EventId, origin: Origin, full: bool) -> Result<(), bool> {
    let Some(closed) = closed else { return if full { Err(true) } else { Ok(()) } };
    if id < closed.first {
        // Earlier than everything that was forgotten: its turn is before them.
        if full {
            *closed = Closed::at(id);
        }
        return if full { Err(false) } else { Ok(()) };
    }
    if origin == Origin::Again && closed.pass == Pass::Takes {
        if full {
            *closed = Closed { first: id, pass: Pass::Refused };
        } else {
            closed.first = EventId(id.0 + 1);
            return Ok(());
        }
    }
    Err(false)
}
