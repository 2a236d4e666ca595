//! Confirmed writes: entries that may be dropped, and starts that may be published.

use crate::relay::board::{
    Board,
    entries::{LegState, RouteLeg},
};
use crate::{
    event::EventId,
    outbox::{Epoch, PartitionNo},
};
use std::time::Instant;

impl Board {
    /// Notes events that the settler has deleted.
    pub(crate) fn finished(&mut self, events: &[(PartitionNo, Epoch, EventId)]) {
        for (no, epoch, id) in events {
            if self.write_done(*no, *epoch) && !self.done_first_finished(*id) {
                self.drop_entry(*id);
            }
        }
    }

    /// Notes events whose records the settler has written.
    pub(crate) fn recorded(&mut self, events: &[(PartitionNo, Epoch, EventId)], now: Instant) {
        for (no, epoch, id) in events {
            if !self.write_done(*no, *epoch) {
                continue;
            }
            let is_reading = self.positions.is_reading();
            // Kept for the read under way, whose snapshot may be older than this record: a redriven
            // event that was delivered and recorded meanwhile was published again without it.
            self.entries.recorded(*id, is_reading);
            let Some(entry) = self.entries.get_mut(*id) else { continue };
            entry.write_done();
            let starts = |leg: &&RouteLeg| leg.state() == LegState::Starting && leg.is_written();
            let starting: Vec<_> =
                entry.legs().iter().filter(starts).map(RouteLeg::route).collect();
            // Of several records only the last one shows that the start is written. When any of
            // them counted, the letter of an unknown route let the event start unrecorded.
            if !entry.has_pending_writes() {
                self.unpark_recorded(*id);
                starting.into_iter().for_each(|route| self.on_start_recorded(*id, route));
            }
            let Some(entry) = self.entries.get(*id) else { continue };
            if !entry.is_unused() {
                continue;
            }
            if !entry.is_recorded() {
                self.record(*id, now);
            } else if entry.is_over() {
                self.drop_entry(*id);
            } else {
                self.entries.drop_recorded(*id, is_reading);
            }
        }
    }

    /// Notes that a write has ended; `false` if the partition is owned under another epoch by now.
    fn write_done(&mut self, no: PartitionNo, epoch: Epoch) -> bool {
        match self.partitions.get_mut(&no).filter(|p| p.epoch() == epoch) {
            Some(partition) => {
                partition.write_done();
                true
            }
            None => false,
        }
    }

    /// Drops the entry of an event that is settled.
    pub(crate) fn drop_entry(&mut self, id: EventId) {
        self.entries.settled(id, self.positions.is_reading());
    }

    /// Opens the keys of an event's dead legs whose letters are written, unless an operator has to
    /// decide about them.
    fn unpark_recorded(&mut self, id: EventId) {
        let Some(entry) = self.entries.get(id) else { return };
        let Some(hash) = entry.key_hash() else { return };
        // A leg that was given up during this record is not written yet: the next record writes it.
        let is_dead = |leg: &&RouteLeg| leg.state() == LegState::Dead && leg.is_written();
        for leg in entry.legs().iter().filter(is_dead) {
            self.queues[leg.route()].letter_recorded(hash, id);
        }
    }
}
