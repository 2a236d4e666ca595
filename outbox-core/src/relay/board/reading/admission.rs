//! Admission: the routes that take an event which was read. Whether they have room for it, their
//! queues decide.

use super::unrouted::{MissingRoutes, SplitRows, is_to_be_routed, split_rows};
use crate::relay::board::{
    Board, RouteNo, Timer,
    entries::{EventEntry, EventState, LegEvent, LegState, NewEntry, RouteLeg},
    queues::{Admitted, Candidate, ReadSource},
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

impl Board {
    /// Takes in an event that was read.
    pub(crate) fn admit(&mut self, stored: StoredEvent, source: ReadSource, now: Instant) {
        let Some(partition) = self.partitions.get(&stored.partition) else { return };
        let epoch = partition.epoch();
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
        let mut rows = split_rows(&self.routes, stored.rows, now);
        if to_be_routed {
            let takes = |route: &RouteNo| self.routes[*route].selector.takes(&message);
            rows.legs.extend((0..self.routes.len()).filter(takes).map(RouteLeg::new));
        }
        let has_no_route = to_be_routed && rows.legs.is_empty();
        let Some(pending_writes) =
            self.settle_rows(owned_event, &message, &mut rows, has_no_route, now)
        else {
            return;
        };
        let key_hash = self.queue_hash(&message, stored.partition, stored.id);
        let entry = EventEntry::new(NewEntry {
            lacks_payload: stored.left_out.is_some(),
            message,
            partition: stored.partition,
            epoch,
            key_hash,
            expires_at: stored.expires_in.map(|d| now + d),
            legs: rows.legs,
            has_rows,
            pending_writes,
        });
        self.entries.insert(stored.id, entry);
        self.queue_on_routes(stored.id, source, now);
    }

    /// Lets an event wait for the routes that are missing, or ends that wait, and finishes an event
    /// for which no route waits. Gives how many records of it are being written; `None` if it gets
    /// no entry.
    fn settle_rows(
        &mut self,
        owned_event: (PartitionNo, Epoch, EventId),
        message: &Message,
        rows: &mut SplitRows,
        has_no_route: bool,
        now: Instant,
    ) -> Option<u32> {
        let (partition, epoch, id) = owned_event;
        let all_final = rows.legs.iter().all(|leg| leg.state().is_final());
        let (orphans, wait_row) = (std::mem::take(&mut rows.orphans), rows.wait_row.take());
        let (mut is_written, mut waits) = (false, false);
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
            (is_written, waits) = self.wait_for_route(owned_event, missing);
        } else if wait_row.is_some() {
            self.routes_found(owned_event, &mut rows.legs, now);
            is_written = true;
        } else if all_final {
            // All rows are final, but the event still exists: the settle that wrote the rows did
            // not come to the event. An empty update makes the store delete it.
            self.push_record(
                epoch,
                RouteUpdate { partition, id, rows: Vec::new(), letters: Vec::new() },
            );
        }
        if !all_final {
            return Some(u32::from(is_written));
        }
        if !waits {
            self.entries.bury(id, partition);
        }
        None
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
            // Queued below like an evicted leg.
            must_refetch |= entry.redriven(route, row, is_stale, now);
        }
        let (returning, epoch) = (entry.read_again(), entry.epoch());
        for route in returning {
            self.queue_or_evict(stored.id, route, source, now);
        }
        // If the rows are stale, the next renewal reports the event again when it is due.
        if !orphans.is_empty() && !is_stale {
            let owned_event = (stored.partition, epoch, stored.id);
            let missing = MissingRoutes::routes(orphans, wait_row);
            let (is_written, _) = self.wait_for_route(owned_event, missing);
            if let Some(entry) = self.entries.get_mut(stored.id).filter(|_| is_written) {
                entry.write_pending();
            }
        }
        if must_refetch {
            self.refetch(stored.partition, stored.id);
        }
    }

    /// Queues a new event on each route for which it waits.
    fn queue_on_routes(&mut self, id: EventId, source: ReadSource, now: Instant) {
        let Some(entry) = self.entries.get(id) else { return };
        if let [leg] = entry.legs() {
            let route = leg.route();
            self.queue_or_evict(id, route, source, now);
        } else {
            let waiting = entry.legs().iter().filter(|leg| leg.state() == LegState::Waiting);
            let waiting: Vec<RouteNo> = waiting.map(RouteLeg::route).collect();
            for route in waiting {
                self.queue_or_evict(id, route, source, now);
            }
        }
        self.entries.drop_if_unused(id);
    }

    /// Puts an event in its key queue, or evicts it if there is no room.
    fn queue_or_evict(&mut self, id: EventId, route: RouteNo, source: ReadSource, now: Instant) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let key_hash = entry.key_hash();
        let Some(partition) = self.partitions.get_mut(&entry.partition()) else { return };
        let mut candidate = Candidate {
            id,
            partition: entry.partition(),
            key_hash,
            bytes: entry.bytes(),
            source,
            is_held: self.controls.holds(&entry.message().topic, key_hash),
            lacks_payload: entry.lacks_payload(),
            waits_for_retry: false,
        };
        let Some(leg) = entry.leg_mut(route) else { return };
        let due_at = leg.due_at().filter(|at| *at > now);
        candidate.waits_for_retry = due_at.is_some();
        match self.queues[route].admit(&candidate) {
            Admitted::Queued => {
                partition.load(id);
                if let Some(at) = due_at {
                    leg.apply(LegEvent::ToRetry);
                    self.timers.push(Timer { at, id, route });
                }
                self.destinations[route].event_queued(self.queues[route].ready_len(), now);
            }
            Admitted::Evicted { begins_on_key } => {
                leg.apply(LegEvent::Evicted);
                self.stats.evicted += u64::from(source != ReadSource::Rescan);
                partition.evict(id);
                if let Some(hash) = key_hash.filter(|_| begins_on_key) {
                    partition.evict_key(route, hash);
                }
            }
        }
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
            self.partitions.get_mut(&update.partition).filter(|p| p.epoch() == epoch)
        {
            partition.write_pending();
            self.writes.record.push((epoch, update));
        }
    }
}
