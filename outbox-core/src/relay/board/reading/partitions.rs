//! The owned partitions: how they are gained, lost and released.

use super::Partition;
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
    /// Takes a partition in; it is read from its beginning. `crashed` says that its former owner
    /// did not release it.
    pub(crate) fn gain(&mut self, no: PartitionNo, epoch: Epoch, crashed: bool) {
        if self.partitions.contains_key(&no) {
            self.lose(no);
        }
        // No more than the crashed owner may have had in flight: a record for each event of a
        // backlog would cost a write each, for events that were never started.
        let recorded_starts: usize = match crashed {
            true => self.routes.iter().map(|r| r.limits.max_batch * r.limits.max_in_flight).sum(),
            false => 0,
        };
        self.partitions.insert(no, Partition::new(epoch, recorded_starts));
        self.positions.wake();
    }

    /// Drops a partition with its entries and pending writes: another relay owns it by now, or it
    /// was released.
    pub(crate) fn lose(&mut self, no: PartitionNo) {
        if self.partitions.remove(&no).is_none() {
            return;
        }
        for (route, queue) in self.queues.iter_mut().enumerate() {
            queue.drop_partition(no);
            for (_, entry) in self.entries.iter().filter(|(_, h)| h.partition() == no) {
                let takes_room = |leg: &&RouteLeg| {
                    leg.route() == route
                        && !leg.state().is_final()
                        && leg.state() != LegState::Evicted
                };
                for _ in entry.legs().iter().filter(takes_room) {
                    queue.release_capacity(entry.bytes());
                }
            }
        }
        self.entries.drop_partition(no);
        self.writes.finish.retain(|(p, _, _)| *p != no);
        self.writes.record.retain(|(_, v)| v.partition != no);
        self.positions.partition_lost(no);
        for queue in &mut self.queues {
            queue.retain_solo(|id| self.entries.contains(id));
        }
        self.drop_lost_isolated();
        self.rescan_where_room();
    }

    /// Drops a lost partition, unless the relay has gained it anew meanwhile.
    pub(crate) fn lost(&mut self, no: PartitionNo, epoch: Epoch) {
        if self.epoch(no) == Some(epoch) {
            self.stats.leases_lost += 1;
            self.lose(no);
        }
    }

    /// Starts no more events of a partition that the keeper wants to release.
    pub(crate) fn release(&mut self, no: PartitionNo) {
        if let Some(partition) = self.partitions.get_mut(&no) {
            partition.release();
        }
    }

    /// Gives the partitions that can be released now, and drops them. Partial confirmations of
    /// their events are recorded before, so that the next owner repeats nothing.
    pub(crate) fn take_released(&mut self, now: Instant) -> Vec<(PartitionNo, Epoch)> {
        self.record_partial_of_released(now);
        let done: Vec<_> = self
            .partitions
            .iter()
            .filter(|(_, p)| p.is_releasing() && p.is_quiet())
            .map(|(no, p)| (*no, p.epoch()))
            .collect();
        for (no, _) in &done {
            self.lose(*no);
        }
        done
    }

    /// Tells whether a relay that starts no more events has no publish in flight and no write
    /// pending. Partial confirmations are recorded before.
    pub(crate) fn is_drained(&mut self, now: Instant) -> bool {
        if !self.is_quiet() {
            return false;
        }
        self.record_partial_of_released(now);
        self.is_quiet()
    }

    /// Records the partial confirmations of releasing partitions that have nothing else under way.
    /// Not earlier: most of the events are confirmed on their other routes a moment later and need
    /// no record.
    fn record_partial_of_released(&mut self, now: Instant) {
        let is_quiet = |no: PartitionNo| {
            self.partitions.get(&no).is_some_and(|p| p.is_releasing() && p.is_quiet())
        };
        if !self.partitions.keys().copied().any(is_quiet) {
            return;
        }
        let mut partially_confirmed: Vec<EventId> = self
            .entries
            .iter()
            .filter(|(_, h)| h.is_partially_confirmed() && is_quiet(h.partition()))
            .map(|(id, _)| id)
            .collect();
        partially_confirmed.sort_unstable();
        partially_confirmed.into_iter().for_each(|id| self.record(id, now));
    }

    /// Starts no more events of any partition.
    pub(crate) fn release_all(&mut self) {
        self.partitions.values_mut().for_each(Partition::release);
    }

    /// Tells whether more writes are pending than events may be in memory: reading waits then.
    /// Events that no route takes are never in memory, so that a backlog of them would be read
    /// faster than its rows are written.
    pub(super) fn writes_are_behind(&self) -> bool {
        let pending_writes: usize = self.partitions.values().map(Partition::pending_writes).sum();
        pending_writes > self.config.per_route.saturating_mul(2 * (self.routes.len() + 1))
    }

    /// Gives the epoch under which a partition is owned.
    pub(crate) fn epoch(&self, no: PartitionNo) -> Option<Epoch> {
        self.partitions.get(&no).map(Partition::epoch)
    }

    /// Reads every partition from its beginning again, after a failed read.
    pub(crate) fn restart_reading(&mut self) {
        self.partitions.values_mut().for_each(Partition::restart_reading);
        self.positions.wake();
    }
}
