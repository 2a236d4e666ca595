//! The events in memory, each with its state on each of its routes, and those that have just left
//! it.

mod entry;
mod leg;
mod history;
mod state;

pub(super) use entry::{EventEntry, NewEntry};
pub(super) use history::AttemptHistory;
pub(super) use leg::{LegEvent, LegState, RouteLeg};
pub(super) use state::EventState;

use crate::relay::board::{FastMap, RouteNo};
use crate::{event::EventId, outbox::PartitionNo};
use std::{collections::VecDeque, time::Instant};

/// The events that the board knows by more than their ids. An event is in one of the three maps at
/// most: in memory, being buried, or settled during the read under way.
#[derive(Debug, Default)]
pub(super) struct Entries {
    in_memory: FastMap<EventId, EventEntry>,
    /// Events without an entry whose final rows are being written.
    buried: FastMap<EventId, PartitionNo>,
    // A read under way may have taken its snapshot before a write and show the rows of before it.
    // So both sets keep what was written during a read until that read is through; a redriven
    // event, delivered and recorded during the read, went out again otherwise.
    /// Ids that the settler finished while a read was under way.
    settled_during_read: FastMap<EventId, ()>,
    /// Ids that the settler recorded while a read was under way.
    recorded_during_read: FastMap<EventId, ()>,
    /// Evicted events whose entries are dropped when the read under way is over.
    pending_eviction: Vec<EventId>,
    /// Events that some routes have confirmed and others have not tried, each with the instant at
    /// which that is recorded.
    partially_confirmed: VecDeque<(Instant, EventId)>,
}

impl Entries {
    /// Gives the state of an event, if its partition and the reads need not be asked.
    pub(super) fn state_of(&self, id: EventId) -> Option<EventState> {
        if self.settled_during_read.contains_key(&id) {
            return Some(EventState::Settled);
        }
        if self.buried.contains_key(&id) {
            return Some(EventState::BeingBuried);
        }
        self.in_memory.get(&id).map(|entry| match entry.is_unused() {
            true => EventState::PendingEviction,
            false => EventState::InMemory,
        })
    }

    pub(super) fn contains(&self, id: EventId) -> bool {
        self.in_memory.contains_key(&id)
    }

    pub(super) fn get(&self, id: EventId) -> Option<&EventEntry> {
        self.in_memory.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: EventId) -> Option<&mut EventEntry> {
        self.in_memory.get_mut(&id)
    }

    /// Gives an event on one route.
    pub(super) fn leg(&self, id: EventId, route: RouteNo) -> Option<&RouteLeg> {
        self.get(id)?.leg(route)
    }

    /// Gives an event on one route, to change it.
    pub(super) fn leg_mut(&mut self, id: EventId, route: RouteNo) -> Option<&mut RouteLeg> {
        self.get_mut(id)?.leg_mut(route)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (EventId, &EventEntry)> {
        self.in_memory.iter().map(|(id, entry)| (*id, entry))
    }

    pub(super) fn len(&self) -> usize {
        self.in_memory.len()
    }

    pub(super) fn insert(&mut self, id: EventId, entry: EventEntry) {
        self.in_memory.insert(id, entry);
    }

    /// Notes that final rows of an event without an entry are being written.
    pub(super) fn bury(&mut self, id: EventId, partition: PartitionNo) {
        self.buried.insert(id, partition);
    }

    /// Notes that the settler has written a record of an event.
    pub(super) fn recorded(&mut self, id: EventId, is_reading: bool) {
        if self.buried.remove(&id).is_some() && is_reading {
            self.settled_during_read.insert(id, ());
        }
        if is_reading {
            self.recorded_during_read.insert(id, ());
        }
    }

    /// Drops the entry of an event that is settled.
    pub(super) fn settled(&mut self, id: EventId, is_reading: bool) {
        self.in_memory.remove(&id);
        if is_reading {
            self.settled_during_read.insert(id, ());
        }
    }

    /// Drops the entry of an evicted event whose record is written. The read under way may be older
    /// than the record and not show the routes that are done: the entry stays until it is over.
    pub(super) fn drop_recorded(&mut self, id: EventId, is_reading: bool) {
        if is_reading {
            self.pending_eviction.push(id);
        } else {
            self.in_memory.remove(&id);
        }
    }

    /// Drops the entry of an event that is in memory for no route.
    pub(super) fn drop_if_unused(&mut self, id: EventId) {
        if self.get(id).is_some_and(EventEntry::is_unused) {
            self.in_memory.remove(&id);
        }
    }

    /// Tells whether rows of an event that the read under way returns may be older than what was
    /// written.
    pub(super) fn is_stale(&self, id: EventId) -> bool {
        self.recorded_during_read.contains_key(&id)
            || self.get(id).is_some_and(EventEntry::has_pending_writes)
    }

    /// Forgets what was written during a read: its events are dropped.
    pub(super) fn read_failed(&mut self) {
        self.settled_during_read.clear();
        self.recorded_during_read.clear();
    }

    /// Forgets what was written during a read: all of its events are admitted.
    pub(super) fn read_over(&mut self) {
        self.settled_during_read.clear();
        self.recorded_during_read.clear();
        for id in std::mem::take(&mut self.pending_eviction) {
            self.drop_if_unused(id);
        }
    }

    /// Drops the events of a partition that the relay has lost.
    pub(super) fn drop_partition(&mut self, no: PartitionNo) {
        self.in_memory.retain(|_, entry| entry.partition() != no);
        self.buried.retain(|_, partition| *partition != no);
    }

    /// Records the confirmations of an event at an instant, unless its other routes end before.
    pub(super) fn record_at(&mut self, at: Instant, id: EventId) {
        self.partially_confirmed.push_back((at, id));
    }

    /// Gives the instant of the next such record.
    pub(super) fn next_record(&self) -> Option<Instant> {
        self.partially_confirmed.front().map(|(at, _)| *at)
    }

    /// Takes the next event whose confirmations are to be recorded now.
    pub(super) fn take_record_due(&mut self, now: Instant) -> Option<EventId> {
        // Most of them were confirmed on their other routes meanwhile and need no record: it is
        // cheaper to skip them here than to remove them at each confirmation.
        while let Some((_, id)) = self.partially_confirmed.pop_front_if(|(at, _)| *at <= now) {
            if self.get(id).is_some_and(EventEntry::is_partially_confirmed) {
                return Some(id);
            }
        }
        None
    }
}
