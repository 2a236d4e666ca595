//! One event in memory.

use super::leg::{LegEvent, LegState, RouteLeg};
use crate::relay::board::RouteNo;
use crate::{
    event::{EventId, Message},
    failure::DeadReason,
    outbox::{Epoch, NewLetter, PartitionNo, RouteRow, RouteUpdate},
    transport::{Route, WhenDead},
};
use std::time::Instant;

/// What an entry is made of.
#[derive(Debug)]
pub(crate) struct NewEntry {
    pub(crate) message: Message,
    /// Whether it came without its payload, and so can only be evicted.
    pub(crate) lacks_payload: bool,
    pub(crate) partition: PartitionNo,
    pub(crate) epoch: Epoch,
    /// Hash of the key; `None` without one.
    pub(crate) key_hash: Option<u64>,
    pub(crate) expires_at: Option<Instant>,
    pub(crate) legs: Vec<RouteLeg>,
    /// Whether the database has route rows of it.
    pub(crate) has_rows: bool,
    /// Records that the settler has not confirmed yet.
    pub(crate) pending_writes: u32,
}

/// An event in memory, with its state on each of its routes.
#[derive(Debug)]
pub(crate) struct EventEntry {
    message: Message,
    /// Whether it came without its payload, and so can only be evicted.
    lacks_payload: bool,
    /// Its bytes in the memory of each of its routes.
    bytes: usize,
    partition: PartitionNo,
    epoch: Epoch,
    /// Hash of the key; `None` without one.
    key_hash: Option<u64>,
    expires_at: Option<Instant>,
    legs: Vec<RouteLeg>,
    /// Whether the database has route rows of it, or the settler is about to write them.
    has_rows: bool,
    /// Records that the settler has not confirmed yet.
    pending_writes: u32,
    /// Whether the settler has deleted the event although an at-most-once publish of it has not
    /// ended.
    row_finished: bool,
}

impl EventEntry {
    pub(crate) fn new(new: NewEntry) -> Self {
        Self {
            bytes: memory_of(&new.message),
            message: new.message,
            lacks_payload: new.lacks_payload,
            partition: new.partition,
            epoch: new.epoch,
            key_hash: new.key_hash,
            expires_at: new.expires_at,
            legs: new.legs,
            has_rows: new.has_rows,
            pending_writes: new.pending_writes,
            row_finished: false,
        }
    }

    pub(crate) const fn message(&self) -> &Message {
        &self.message
    }

    /// Tells whether it came without its payload, and so can only be evicted.
    pub(crate) const fn lacks_payload(&self) -> bool {
        self.lacks_payload
    }

    /// Gives its bytes in the memory of each of its routes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) const fn partition(&self) -> PartitionNo {
        self.partition
    }

    /// Gives the epoch of its partition when it was read.
    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Gives the hash of the key by which it is queued; `None` without one.
    pub(crate) const fn key_hash(&self) -> Option<u64> {
        self.key_hash
    }

    /// Queues an event without a key by a hash from now on.
    pub(crate) fn move_to_key(&mut self, hash: u64) {
        self.key_hash = Some(hash);
    }

    /// Tells whether it is too late to publish it.
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    pub(crate) fn legs(&self) -> &[RouteLeg] {
        &self.legs
    }

    /// Gives it on one route.
    pub(crate) fn leg(&self, route: RouteNo) -> Option<&RouteLeg> {
        self.legs.iter().find(|leg| leg.route() == route)
    }

    /// Gives it on one route, to change it.
    pub(crate) fn leg_mut(&mut self, route: RouteNo) -> Option<&mut RouteLeg> {
        self.legs.iter_mut().find(|leg| leg.route() == route)
    }

    /// Takes the waiting row of a route on which an operator redrove the event; it counts as
    /// evicted there until it is read again. Tells whether the event has to be fetched for that:
    /// the row is stale, so that it may be older than an end that was recorded since.
    pub(crate) fn redriven(
        &mut self,
        route: RouteNo,
        row: RouteRow,
        is_stale: bool,
        now: Instant,
    ) -> bool {
        let from_row = |row| {
            let mut leg = RouteLeg::from_row(route, row, now);
            leg.apply(LegEvent::Evicted);
            leg
        };
        match self.leg_mut(route) {
            Some(leg) if leg.is_settled() && !is_stale => {
                *leg = from_row(row);
                false
            }
            Some(leg) => is_stale && leg.state().is_final(),
            None if is_stale => true,
            None => {
                self.legs.push(from_row(row));
                false
            }
        }
    }

    /// Notes that it was read again; gives the routes on which it was evicted.
    pub(crate) fn read_again(&mut self) -> Vec<RouteNo> {
        let evicted = self.legs.iter_mut().filter(|leg| leg.state() == LegState::Evicted);
        evicted
            .map(|leg| {
                leg.apply(LegEvent::ReadAgain);
                leg.route()
            })
            .collect()
    }

    /// Takes what is to be recorded: all its rows the first time, then those that changed. That is
    /// pending from here on.
    pub(crate) fn take_record(
        &mut self,
        id: EventId,
        routes: &[Route],
        now: Instant,
    ) -> RouteUpdate {
        let mut update =
            RouteUpdate { partition: self.partition, id, rows: Vec::new(), letters: Vec::new() };
        let (has_rows, has_key) = (self.has_rows, self.message.key.is_some());
        for leg in self.legs.iter_mut().filter(|leg| !has_rows || !leg.is_written()) {
            update.rows.push(leg.take_row(routes, now));
            if let Some(reason) = leg.take_reason() {
                let route = &routes[leg.route()];
                let parks =
                    route.when_dead == WhenDead::Park && has_key && reason != DeadReason::Expired;
                update.letters.push(NewLetter { route: route.name.clone(), reason, parks });
            }
        }
        self.has_rows = true;
        self.write_pending();
        update
    }

    /// Notes a record for the settler.
    pub(crate) fn write_pending(&mut self) {
        self.pending_writes += 1;
    }

    /// Notes that the settler has written a record.
    pub(crate) fn write_done(&mut self) {
        self.pending_writes = self.pending_writes.saturating_sub(1);
    }

    pub(crate) const fn has_pending_writes(&self) -> bool {
        self.pending_writes > 0
    }

    /// Tells whether the database has route rows of it, or the settler is about to write them.
    pub(crate) const fn has_rows(&self) -> bool {
        self.has_rows
    }

    /// Notes that the settler is to delete it before it is published: no leg of it has to be
    /// recorded.
    pub(crate) fn delete_first(&mut self) {
        self.legs.iter_mut().for_each(RouteLeg::recorded);
    }

    /// Notes that the settler has deleted it, although its publish has not ended.
    pub(crate) fn deleted_first(&mut self) {
        self.row_finished = true;
    }

    /// Tells whether all its legs have ended, and the database knows it.
    pub(crate) fn is_settled(&self) -> bool {
        self.row_finished
            || (self.pending_writes == 0 && self.legs.iter().all(RouteLeg::is_settled))
    }

    /// Tells whether all its legs have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.legs.iter().all(|leg| leg.state().is_final())
    }

    /// Tells whether all its legs are recorded.
    pub(crate) fn is_recorded(&self) -> bool {
        self.legs.iter().all(RouteLeg::is_written)
    }

    /// Tells whether it is in memory for no route, and no record of it is being written.
    pub(crate) fn is_unused(&self) -> bool {
        self.pending_writes == 0
            && self
                .legs
                .iter()
                .all(|leg| leg.state().is_final() || leg.state() == LegState::Evicted)
    }

    /// Tells whether some of its legs have ended, and an ended one is not recorded.
    pub(crate) fn has_unrecorded_end(&self) -> bool {
        self.legs.iter().any(|leg| leg.state().is_final() && !leg.is_written())
    }

    /// Tells whether some of its routes have ended and others not, and an ended one is not
    /// recorded.
    pub(crate) fn is_partially_confirmed(&self) -> bool {
        self.has_unrecorded_end() && !self.is_over()
    }
}

/// Gives the bytes of a message in memory.
fn memory_of(message: &Message) -> usize {
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    message.payload.len() + headers + message.key.as_ref().map_or(0, String::len)
}
