//! Events come in from reading: who takes them, and whether there is room.

use crate::relay::board::{
    Board, RouteNo, Timer,
    held::{Held, Leg, LegState},
    lanes::{Closed, Pass, Ready},
};
use crate::{
    event::EventId,
    failure::{AttemptError, DeadReason, FailureClass},
    outbox::{Epoch, NewLetter, PartitionNo, RouteRow, RouteState, StoredEvent, Verdict},
};
use std::{sync::Arc, time::Instant};
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
        if self.settled_during_read.contains_key(&stored.id) || self.burying.contains_key(&stored.id) {
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
                self.bury_unread(stored.partition, epoch, stored.id, DeadReason::Undecodable, reason);
                return;
            }
        };
        let mut legs = Vec::new();
        let mut orphans = Vec::new();
        let remembered = !stored.rows.is_empty();
        for row in stored.rows {
            match self.routes.iter().position(|r| r.name == row.route) {
                Some(route) => legs.push(Leg::from_row(route, row, now)),
                None if row.state == RouteState::Waiting => orphans.push(row),
                None => {}
            }
        }
        if !remembered {
            legs.extend((0..self.routes.len()).filter(|&r| self.routes[r].selector.takes(&message)).map(Leg::new));
            if legs.is_empty() {
                let text = format!("no route takes topic `{}`, type `{}`", message.topic, message.event_type);
                self.bury_unread(stored.partition, epoch, stored.id, DeadReason::Unroutable, text);
                return;
            }
        }
        let all_final = legs.iter().all(|l| l.state.is_final());
        if !orphans.is_empty() || all_final {
            // All final, yet still there: the settle that wrote the rows did not come to the event; it is done again.
            self.bury_orphans(stored.partition, epoch, stored.id, orphans, all_final);
        }
        if all_final {
            return;
        }
        let lane = message.key.as_deref().map(|k| xxh3_64(k.as_bytes()));
        let held = Held {
            message,
            partition: stored.partition,
            epoch,
            lane,
            expires_at: stored.expires_in.map(|d| now + d),
            legs,
            remembered,
            writing: 0,
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
        for row in stored.rows {
            let Some(route) = self.routes.iter().position(|r| r.name == row.route) else { continue };
            if row.state != RouteState::Waiting || !row.redriven {
                continue;
            }
            match held.legs.iter_mut().find(|l| l.route == route) {
                Some(leg) if leg.state.is_final() && leg.written && !is_stale => *leg = Leg::from_row(route, row, now),
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
        for route in again {
            self.place(stored.id, route, origin, now);
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
            let waiting: Vec<RouteNo> =
                held.legs.iter().filter(|l| l.state == LegState::Waiting).map(|l| l.route).collect();
            for route in waiting {
                self.place(id, route, origin, now);
            }
        }
        self.let_go_if_forgotten(id);
    }

    /// Puts an event in its lane, or forgets it where there is no room.
    fn place(&mut self, id: EventId, route: RouteNo, origin: Origin, now: Instant) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let (no, bytes) = (held.partition, held.message.payload.len());
        let Some(partition) = self.partitions.get_mut(&no) else { return };
        let queue = &mut self.queues[route];
        let full = queue.held >= self.config.per_route || queue.bytes + bytes > self.config.bytes_per_route;
        let crowded = queue.held > self.config.per_route / 2;
        // Later ones of its key are held: it goes before them, room or not.
        let overdue = held.lane.and_then(|hash| queue.lanes.get(&hash)?.queue.back()).is_some_and(|last| id < *last);
        let route_open = if overdue { Ok(()) } else { admit(queue.closed.get_mut(&no), id, origin, full) };
        let lane_open = match held.lane {
            None => Ok(()),
            Some(_) if overdue => Ok(()),
            Some(hash) => {
                let lane = queue.lane(hash, no);
                // A key that waits for its head does not take the room of those that move.
                let most = if lane.is_stuck() && crowded { 1 } else { self.config.per_key };
                let full = lane.queue.len() >= most;
                admit(lane.closed.as_mut(), id, origin, full || route_open.is_err())
            }
        };
        let Some(leg) = held.legs.iter_mut().find(|l| l.route == route) else { return };
        if let (Ok(()), Ok(())) = (route_open, lane_open) {
            partition.forgotten.remove(&id);
            queue.hold(bytes);
            if let Some(at) = leg.past.as_ref().and_then(|p| p.due_at).filter(|at| *at > now) {
                leg.state = LegState::Retrying;
                self.timers.push(Timer { at, id, route });
            }
            match held.lane {
                None if leg.state == LegState::Waiting => queue.ready.push_back(Ready::Single(id)),
                None => {}
                Some(hash) => {
                    queue.lane(hash, no).insert(id);
                    queue.make_ready(hash);
                }
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
            h.writing == 0 && h.legs.iter().all(|l| l.state.is_final() || l.state == LegState::Forgotten)
        });
        if nothing_held {
            self.held.remove(&id);
        }
    }

    fn bury_unread(&mut self, partition: PartitionNo, epoch: Epoch, id: EventId, reason: DeadReason, text: String) {
        let route: Arc<str> = "".into();
        let errors = vec![AttemptError::new(0, FailureClass::Permanent, text)];
        let row = RouteRow { state: RouteState::Dead, errors, ..RouteRow::waiting(route.clone()) };
        let letters = vec![NewLetter { route, reason, parks: false }];
        self.stats.dead += 1;
        self.burying.insert(id, ());
        self.push_record(epoch, Verdict { partition, id, rows: vec![row], letters });
    }

    /// Puts aside what waits for routes that are no longer configured; with nothing else to do, the event goes.
    fn bury_orphans(&mut self, partition: PartitionNo, epoch: Epoch, id: EventId, rows: Vec<RouteRow>, all: bool) {
        let letter =
            |row: &RouteRow| NewLetter { route: row.route.clone(), reason: DeadReason::Unroutable, parks: false };
        let letters: Vec<NewLetter> = rows.iter().map(letter).collect();
        let dead = |mut row: RouteRow| {
            let text = format!("the route `{}` is no longer configured", row.route);
            AttemptError::push(
                &mut row.errors,
                AttemptError::new(row.attempts_finished, FailureClass::Permanent, text),
            );
            RouteRow { state: RouteState::Dead, due_in: None, ..row }
        };
        self.stats.dead += letters.len() as u64;
        if all {
            self.burying.insert(id, ());
        }
        self.push_record(epoch, Verdict { partition, id, rows: rows.into_iter().map(dead).collect(), letters });
    }

    pub(crate) fn push_record(&mut self, epoch: Epoch, verdict: Verdict) {
        if let Some(partition) = self.partitions.get_mut(&verdict.partition).filter(|p| p.epoch == epoch) {
            partition.writing += 1;
            self.writes.record.push((epoch, verdict));
        }
    }
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
