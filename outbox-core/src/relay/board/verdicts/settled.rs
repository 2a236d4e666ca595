//! What the settler did, and what may be forgotten then.

use crate::relay::board::{Board, held::LegState};
use crate::{
    event::EventId,
    outbox::{Epoch, PartitionNo},
};
use std::time::Instant;

impl Board {
    /// Notes events that are finished in the database.
    pub(crate) fn finished(&mut self, events: &[(PartitionNo, Epoch, EventId)]) {
        for (no, epoch, id) in events {
            if self.write_done(*no, *epoch) && !self.claim_finished(*id) {
                self.drop_held(*id);
            }
        }
    }

    /// Notes that what was to be remembered of events is in the database.
    pub(crate) fn recorded(&mut self, events: &[(PartitionNo, Epoch, EventId)], now: Instant) {
        for (no, epoch, id) in events {
            if !self.write_done(*no, *epoch) {
                continue;
            }
            self.burying_done(*id);
            if self.positions.is_reading() {
                self.recorded_during_read.insert(*id, ());
            }
            let Some(held) = self.held.get_mut(id) else { continue };
            held.writing = held.writing.saturating_sub(1);
            let starting: Vec<_> = held
                .legs
                .iter()
                .filter(|l| l.state == LegState::Starting && l.written)
                .map(|l| l.route)
                .collect();
            if held.writing == 0 {
                self.letter_written(*id);
                starting.into_iter().for_each(|route| self.start_written(*id, route));
            }
            let Some(held) = self.held.get_mut(id) else { continue };
            if held.writing > 0
                || !held.legs.iter().all(|l| l.state.is_final() || l.state == LegState::Forgotten)
            {
                continue;
            }
            let all_final = held.legs.iter().all(|l| l.state.is_final());
            if !held.legs.iter().all(|l| l.written) {
                self.record(*id, now);
            } else if all_final {
                self.drop_held(*id);
            } else if self.positions.is_reading() {
                // What is being read may not show yet which routes are done.
                self.lingering.push(*id);
            } else {
                self.held.remove(id);
            }
        }
    }

    fn write_done(&mut self, no: PartitionNo, epoch: Epoch) -> bool {
        match self.partitions.get_mut(&no).filter(|p| p.epoch == epoch) {
            Some(partition) => {
                partition.writing = partition.writing.saturating_sub(1);
                true
            }
            None => false,
        }
    }

    fn burying_done(&mut self, id: EventId) {
        if self.burying.remove(&id).is_some() && self.positions.is_reading() {
            self.settled_during_read.insert(id, ());
        }
    }

    pub(crate) fn drop_held(&mut self, id: EventId) {
        self.held.remove(&id);
        if self.positions.is_reading() {
            self.settled_during_read.insert(id, ());
        }
    }

    /// The letters of an event's dead legs are in the database from now on.
    fn letter_written(&mut self, id: EventId) {
        let Some(held) = self.held.get(&id) else { return };
        let Some(hash) = held.lane else { return };
        // A leg that died while another one was being recorded is recorded after that.
        for leg in held.legs.iter().filter(|l| l.state == LegState::Dead && l.written) {
            let queue = &mut self.queues[leg.route];
            let Some(lane) = queue.lanes.get_mut(&hash) else { continue };
            let Some(parked) = lane.parked.filter(|p| p.head == Some(id)) else { continue };
            // A park without a letter was decided about before its record was made again.
            if parked.until_written || parked.letter.is_none() {
                lane.parked = None;
                queue.make_ready(hash);
                queue.drop_idle(hash);
            }
        }
    }
}
