//! Admission: the routes that take an event which was read, and whether they have room for it.

use super::unrouted::{MissingRoutes, SplitRows, is_to_be_routed, split_rows};
use crate::relay::board::{
    Board, RouteNo, Timer,
    entries::{EventEntry, EventState, LegEvent, LegState, RouteLeg},
    queues::{EvictedFrom, KeyQueue, Ready, RescanState, RouteQueue},
};
use crate::{
    event::{EventId, Message},
    failure::{AttemptError, DeadReason, FailureClass},
    outbox::{
        Epoch, NewLetter, PartitionNo, RouteOutcome, RouteRow, RouteState, RouteUpdate,
        StoredEvent, row_after,
    },
};
use std::time::Instant;

/// The read that an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadSource {
    /// A read past the cursor.
    Forward,
    /// A read by id, of an event that the order window or the sweep has found, or that is due.
    LookBack,
    /// A rescan, which reads evicted events again, in order.
    Rescan,
}

impl Board {
    /// Takes in an event that was read.
    pub(crate) fn admit(&mut self, stored: StoredEvent, source: ReadSource, now: Instant) {
        let Some(partition) = self.partitions.get(&stored.partition) else { return };
        let epoch = partition.epoch;
        match self.state_of(stored.partition, stored.id) {
            EventState::Settled | EventState::BeingBuried => {
                if stored.rows.iter().any(|row| row.redriven && row.state == RouteState::Waiting) {
                    // Either it was redriven right after it was settled, or the read began before:
                    // only another read tells which.
                    self.refetch(stored.partition, stored.id);
                }
                return;
            }
            EventState::InMemory | EventState::PendingEviction => {
                self.readmit(stored, source, now);
                return;
            }
            EventState::Unknown
            | EventState::Wanted
            | EventState::Stashed
            | EventState::Evicted
            | EventState::Unrouted => {}
        }
        let message = match stored.body {
            Ok(message) => message,
            Err(reason) => {
                self.give_up_undecodable(stored.partition, epoch, stored.id, stored.rows, &reason);
                return;
            }
        };
        let owned_event = (stored.partition, epoch, stored.id);
        let (to_be_routed, has_rows) = (is_to_be_routed(&stored.rows), !stored.rows.is_empty());
        let SplitRows { mut legs, orphans, wait_row } = split_rows(&self.routes, stored.rows, now);
        if to_be_routed {
            legs.extend(
                (0..self.routes.len())
                    .filter(|&r| self.routes[r].selector.takes(&message))
                    .map(RouteLeg::new),
            );
        }
        let has_no_route = to_be_routed && legs.is_empty();
        let all_final = legs.iter().all(|l| l.state().is_final());
        let mut pending_writes = 0;
        if has_no_route || !orphans.is_empty() {
            let missing = match has_no_route {
                true => {
                    let text = format!(
                        "no route takes topic `{}`, type `{}`",
                        message.topic, message.event_type
                    );
                    MissingRoutes { orphans, wait_row, text }
                }
                false => MissingRoutes::routes(orphans, wait_row),
            };
            let (is_written, waits) = self.wait_for_route(owned_event, missing);
            pending_writes += u32::from(is_written);
            if all_final {
                if !waits {
                    self.entries.bury(stored.id, stored.partition);
                }
                return;
            }
        } else if wait_row.is_some() {
            self.routes_found(owned_event, &mut legs, now);
            pending_writes += 1;
        } else if all_final {
            // All rows are final, but the event still exists: the settle that wrote the rows did
            // not come to the event. An empty update makes the store delete it.
            let (partition, id) = (stored.partition, stored.id);
            self.push_record(
                epoch,
                RouteUpdate { partition, id, rows: Vec::new(), letters: Vec::new() },
            );
        }
        if all_final {
            self.entries.bury(stored.id, stored.partition);
            return;
        }
        let key_hash = self.queue_hash(&message, stored.partition, stored.id);
        let entry = EventEntry {
            bytes: memory_of(&message),
            left_out: stored.left_out.is_some(),
            message,
            partition: stored.partition,
            epoch,
            key_hash,
            expires_at: stored.expires_in.map(|d| now + d),
            legs,
            has_rows,
            pending_writes,
            row_finished: false,
        };
        self.entries.insert(stored.id, entry);
        self.queue_on_routes(stored.id, source, now);
    }

    /// Takes in an event that is in memory already: evicted legs may have room now, dead ones may
    /// have been redriven.
    fn readmit(&mut self, stored: StoredEvent, source: ReadSource, now: Instant) {
        let is_stale = self.entries.is_stale(stored.id);
        let Some(entry) = self.entries.get_mut(stored.id) else { return };
        // The rows do not show records that are pending or that were written during the read: a
        // route that was redriven and has confirmed meanwhile would look as if it waited, and the
        // event would be published again. So the event is fetched again; a parked key waits for
        // that, or its next event would be published first.
        let mut must_refetch = false;
        let (mut orphans, mut wait_row) = (Vec::new(), None);
        for row in stored.rows {
            let Some(route) = self.routes.iter().position(|r| r.name == row.route) else {
                match row.state {
                    RouteState::Waiting if row.route.is_empty() => wait_row = Some(row),
                    RouteState::Waiting => orphans.push(row),
                    RouteState::Done | RouteState::Dead => {}
                }
                continue;
            };
            if row.state != RouteState::Waiting || !row.redriven {
                continue;
            }
            match entry.legs.iter_mut().find(|l| l.route == route) {
                Some(leg) if leg.state().is_final() && leg.written && !is_stale => {
                    *leg = RouteLeg::from_row(route, row, now)
                }
                Some(leg) => {
                    must_refetch |= is_stale && leg.state().is_final();
                    continue;
                }
                None if is_stale => {
                    must_refetch = true;
                    continue;
                }
                None => entry.legs.push(RouteLeg::from_row(route, row, now)),
            }
            // Queued below like an evicted leg.
            if let Some(leg) = entry.legs.iter_mut().find(|l| l.route == route) {
                leg.apply(LegEvent::Evicted);
            }
        }
        let mut returning = Vec::new();
        for leg in entry.legs.iter_mut().filter(|l| l.state() == LegState::Evicted) {
            leg.apply(LegEvent::ReadAgain);
            returning.push(leg.route);
        }
        let epoch = entry.epoch;
        for route in returning {
            self.queue_or_evict(stored.id, route, source, now);
        }
        // If the rows are stale, the next renewal reports the event again when it is due.
        if !orphans.is_empty() && !is_stale {
            let owned_event = (stored.partition, epoch, stored.id);
            let missing = MissingRoutes::routes(orphans, wait_row);
            let (is_written, _) = self.wait_for_route(owned_event, missing);
            if let Some(entry) = self.entries.get_mut(stored.id) {
                entry.pending_writes += u32::from(is_written);
            }
        }
        if must_refetch {
            self.refetch(stored.partition, stored.id);
        }
    }

    /// Queues a new event on each route for which it waits.
    fn queue_on_routes(&mut self, id: EventId, source: ReadSource, now: Instant) {
        let Some(entry) = self.entries.get(id) else { return };
        if let [leg] = entry.legs.as_slice() {
            let route = leg.route;
            self.queue_or_evict(id, route, source, now);
        } else {
            let waiting: Vec<RouteNo> = entry
                .legs
                .iter()
                .filter(|l| l.state() == LegState::Waiting)
                .map(|l| l.route)
                .collect();
            for route in waiting {
                self.queue_or_evict(id, route, source, now);
            }
        }
        self.entries.drop_if_unused(id);
    }

    /// Puts an event in its key queue, or evicts it if there is no room.
    fn queue_or_evict(&mut self, id: EventId, route: RouteNo, source: ReadSource, now: Instant) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let (no, bytes) = (entry.partition, entry.bytes);
        let Some(partition) = self.partitions.get_mut(&no) else { return };
        let held = self.controls.holds(&entry.message.topic, entry.key_hash);
        let (queue, per_route) = (&mut self.queues[route], self.config.per_route);
        let most = self.routes[route].max_in_memory;
        // Crowded as long as events of the route are evicted, or this one would have to be soon.
        let crowded = !queue.evicted_from.is_empty() || !queue.has_room(per_route, most);
        let room_for_held = !crowded && queue.has_room_for_held(per_route, most);
        let too_many_held = queue.held_keys.len() >= per_route;
        let RouteQueue { key_queues, evicted_from, ready, events, bytes: bytes_in_memory, .. } =
            queue;
        let mut key_queue =
            entry.key_hash.map(|hash| key_queues.entry(hash).or_insert_with(|| KeyQueue::new(no)));
        // Whether the event holds its key from now on.
        let holds = held && key_queue.as_ref().is_some_and(|keys| is_next(keys, id, source));
        // An event without its payload is never in memory: a rescan reads it again. If its key
        // evicts it anyway, the route does not count as full, so that the rescan goes on with the
        // other keys.
        let lacks_payload = entry.left_out;
        let key_evicts = || {
            let evicted_from = key_queue.as_ref().and_then(|keys| keys.evicted_from.as_ref());
            evicted_from.is_some_and(|evicted_from| is_still_evicted(evicted_from, id, source))
        };
        let full = *events >= per_route
            || (*events > 0 && *bytes_in_memory + bytes > most)
            || (holds && too_many_held)
            || (lacks_payload && !key_evicts());
        // Later events of its key are in memory: it has to be published before them, with or
        // without room.
        let overdue = !lacks_payload
            && key_queue
                .as_ref()
                .and_then(|keys| keys.waiting.back())
                .is_some_and(|last| id < *last);
        let on_route = match overdue {
            true => Ok(()),
            false => check_capacity(evicted_from.get_mut(&no), id, source, full),
        };
        let on_key = match &mut key_queue {
            None => Ok(()),
            Some(_) if overdue => Ok(()),
            Some(key_queue) => {
                let held_out = (holds || key_queue.is_held) && !room_for_held;
                let most = key_queue.capacity(crowded, held_out, self.config.per_key);
                let full = key_queue.waiting.len() >= most || on_route.is_err();
                check_capacity(key_queue.evicted_from.as_mut(), id, source, full)
            }
        };
        let Some(leg) = entry.legs.iter_mut().find(|l| l.route == route) else { return };
        if let (Ok(()), Ok(())) = (on_route, on_key) {
            partition.evicted.remove(id);
            if let Some(at) = leg.history.as_ref().and_then(|p| p.due_at).filter(|at| *at > now) {
                leg.apply(LegEvent::ToRetry);
                self.timers.push(Timer { at, id, route });
            }
            match entry.key_hash.zip(key_queue) {
                None if leg.state() == LegState::Waiting => ready.push_back(Ready::Single(id)),
                None => {}
                Some((hash, key_queue)) => {
                    key_queue.insert(id);
                    key_queue.is_held |= holds;
                    key_queue.make_ready(hash, ready);
                }
            }
            queue.take_capacity(bytes);
            if let Some(hash) = entry.key_hash.filter(|_| holds) {
                queue.held_keys.insert(hash, ());
                queue.evict_blocked |= !queue.has_room_for_held(per_route, most);
            }
            if queue.breaker.is_open() {
                queue.breaker.new_key(queue.ready.len(), now);
            }
            return;
        }
        leg.apply(LegEvent::Evicted);
        self.stats.evicted += u64::from(source != ReadSource::Rescan);
        let evicted = Evicted { id, no, key_hash: entry.key_hash, holds };
        self.note_evicted(&evicted, route, on_route, on_key);
    }

    /// Notes from where on a route or a key is evicted.
    fn note_evicted(
        &mut self,
        evicted: &Evicted,
        route: RouteNo,
        on_route: Result<(), Refusal>,
        on_key: Result<(), Refusal>,
    ) {
        let Evicted { id, no, key_hash, holds } = *evicted;
        let Some(partition) = self.partitions.get_mut(&no) else { return };
        let queue = &mut self.queues[route];
        partition.evicted.insert(id);
        if on_route == Err(Refusal::BeginsEviction) {
            queue.evicted_from.insert(no, EvictedFrom::at(id));
            queue.evict_blocked = true;
        }
        let Some(hash) = key_hash else { return };
        if on_route.is_ok() {
            let key_queue = queue.key_queue(hash, no);
            if on_key == Err(Refusal::BeginsEviction) {
                key_queue.evicted_from = Some(EvictedFrom::at(id));
                partition.evicted_keys.insert((route, hash));
            }
            if holds {
                // It is the first that is evicted: a rescan waits for the end of the pause.
                key_queue.is_held = true;
                queue.held_keys.insert(hash, ());
            }
        }
        queue.drop_idle(hash);
    }

    /// Gives up an event whose row does not decode, on all routes for which it waits. All of its
    /// waiting rows become final: a row that stayed would be due at each renewal, and its letter
    /// would be reported each time.
    fn give_up_undecodable(
        &mut self,
        partition: PartitionNo,
        epoch: Epoch,
        id: EventId,
        rows: Vec<RouteRow>,
        reason: &str,
    ) {
        self.entries.bury(id, partition);
        if !rows.is_empty() && rows.iter().all(|row| row.state.is_final()) {
            // The settle that wrote the rows did not come to the event: an empty update deletes it.
            self.push_record(
                epoch,
                RouteUpdate { partition, id, rows: Vec::new(), letters: Vec::new() },
            );
            return;
        }
        let (wait_rows, mut waiting): (Vec<RouteRow>, Vec<RouteRow>) = rows
            .into_iter()
            .filter(|row| row.state == RouteState::Waiting)
            .partition(|row| row.route.is_empty());
        if waiting.is_empty() {
            waiting.push(RouteRow::waiting("".into()));
        } else {
            waiting.extend(wait_rows);
        }
        let named = waiting.iter().filter(|row| waiting.len() == 1 || !row.route.is_empty());
        let letter = |row: &RouteRow| NewLetter {
            route: row.route.clone(),
            reason: DeadReason::Undecodable,
            parks: false,
        };
        let letters: Vec<NewLetter> = named.map(letter).collect();
        let dead = |row: RouteRow| {
            let error = AttemptError::new(
                row.attempts_finished,
                FailureClass::Permanent,
                reason.to_owned(),
            );
            row_after(row, RouteOutcome::GivenUp { error: Some(error) })
        };
        self.stats.dead += letters.len() as u64;
        let rows = waiting.into_iter().map(dead).collect();
        self.push_record(epoch, RouteUpdate { partition, id, rows, letters });
    }

    /// Adds a record to the writes, unless its partition is owned under another epoch by now.
    pub(crate) fn push_record(&mut self, epoch: Epoch, update: RouteUpdate) {
        if let Some(partition) =
            self.partitions.get_mut(&update.partition).filter(|p| p.epoch == epoch)
        {
            partition.pending_writes += 1;
            self.writes.record.push((epoch, update));
        }
    }
}

/// Gives the bytes of a message in memory.
fn memory_of(message: &Message) -> usize {
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    message.payload.len() + headers + message.key.as_ref().map_or(0, String::len)
}

/// Tells whether an eviction keeps an event out of memory, even if there is room.
pub(super) fn is_still_evicted(
    evicted_from: &EvictedFrom,
    id: EventId,
    source: ReadSource,
) -> bool {
    let loads = source == ReadSource::Rescan && evicted_from.rescan == RescanState::Loading;
    id >= evicted_from.first && !loads
}

/// Tells whether an event would be the next of its key, were it not for a pause: neither another
/// one in memory nor an evicted one is before it.
fn is_next(key_queue: &KeyQueue, id: EventId, source: ReadSource) -> bool {
    let is_first = |evicted_from: &EvictedFrom| {
        id <= evicted_from.first || !is_still_evicted(evicted_from, id, source)
    };
    key_queue.would_be_next(id) && key_queue.evicted_from.as_ref().is_none_or(is_first)
}

/// An event that is not taken into memory.
struct Evicted {
    id: EventId,
    no: PartitionNo,
    key_hash: Option<u64>,
    /// Whether it holds its key.
    holds: bool,
}

/// Why an event is not taken into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// There is no room, and the event is the first one to be evicted.
    BeginsEviction,
    /// Earlier events are evicted already.
    Evicted,
}

/// Decides whether an event is taken into memory, by the eviction of its route or key.
fn check_capacity(
    evicted_from: Option<&mut EvictedFrom>,
    id: EventId,
    source: ReadSource,
    full: bool,
) -> Result<(), Refusal> {
    let Some(evicted_from) = evicted_from else {
        return if full { Err(Refusal::BeginsEviction) } else { Ok(()) };
    };
    if id < evicted_from.first {
        // Earlier than all evicted events: its turn is before them.
        if full {
            *evicted_from = EvictedFrom::at(id);
        }
        return if full { Err(Refusal::Evicted) } else { Ok(()) };
    }
    if source == ReadSource::Rescan && evicted_from.rescan == RescanState::Loading {
        if full {
            *evicted_from = EvictedFrom { first: id, rescan: RescanState::Full };
        } else {
            evicted_from.first = EventId(id.0 + 1);
            return Ok(());
        }
    }
    Err(Refusal::Evicted)
}
