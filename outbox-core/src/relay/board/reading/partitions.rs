//! One owned partition: where reading stands, and what of it is under way.

use super::forgotten::Forgotten;
use crate::relay::board::{Board, FastMap, RouteNo};
use crate::{
    event::EventId,
    outbox::{Epoch, PartitionNo},
};
use std::{collections::HashSet, time::Instant};

/// One owned partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) epoch: Epoch,
    /// Everything up to here has been seen, or is looked for by window and sweep.
    pub(crate) cursor: EventId,
    /// Whether the last read was cut by its limit.
    pub(crate) full: bool,
    /// Whether it is to be handed back: nothing of it is started any more.
    pub(crate) releasing: bool,
    /// Handed to publishers.
    pub(crate) in_flight: usize,
    /// Writes on their way.
    pub(crate) writing: usize,
    /// Done on an at-most-once route, and not yet published there.
    pub(crate) claims: usize,
    /// Keys of which only the first forgotten id is known.
    pub(crate) closed_lanes: HashSet<(RouteNo, u64)>,
    /// Ids that are not held, of which a route or key has the first one closed.
    pub(crate) forgotten: Forgotten,
    /// Ids of which something waits for a route that this relay does not have.
    pub(crate) unrouted: FastMap<EventId, ()>,
    /// From where forgotten events are to be read again, as somebody has room.
    pub(crate) reread: Option<EventId>,
    /// From where the present pass over forgotten events began.
    pub(crate) pass_from: Option<EventId>,
    /// Where the sweep stands.
    pub(crate) swept_to: EventId,
    /// Events that may have been in flight when the former owner died, not yet answered since: so many are started only
    /// after that is written down.
    pub(crate) suspicious: usize,
}

impl Partition {
    fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            cursor: EventId(0),
            full: true,
            releasing: false,
            in_flight: 0,
            writing: 0,
            claims: 0,
            closed_lanes: HashSet::new(),
            forgotten: Forgotten::default(),
            unrouted: FastMap::default(),
            reread: None,
            pass_from: None,
            swept_to: EventId(0),
            suspicious: 0,
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight == 0 && self.writing == 0 && self.claims == 0
    }

    /// Asks for forgotten events from an id on. Where a pass is beyond that already, a new one begins.
    pub(crate) fn reread_from(&mut self, id: EventId) {
        if self.reread.is_none_or(|next| id < next) {
            self.reread = Some(id);
            self.pass_from = None;
        }
    }
}

impl Board {
    /// Begins with a partition: it is read from its beginning. `crashed` says that its former owner did not hand it back.
    pub(crate) fn gain(&mut self, no: PartitionNo, epoch: Epoch, crashed: bool) {
        if self.partitions.contains_key(&no) {
            self.lose(no);
        }
        let mut partition = Partition::new(epoch);
        if crashed {
            partition.suspicious =
                self.routes.iter().map(|r| r.limits.max_batch * r.limits.max_in_flight).sum();
        }
        self.partitions.insert(no, partition);
        self.positions.wake();
    }

    /// Forgets a partition that belongs to somebody else by now.
    pub(crate) fn lose(&mut self, no: PartitionNo) {
        if self.partitions.remove(&no).is_none() {
            return;
        }
        for (route, queue) in self.queues.iter_mut().enumerate() {
            queue.drop_partition(no);
            for held in self.held.values().filter(|h| h.partition == no) {
                for leg in held.legs.iter().filter(|l| l.route == route && !l.state.is_final()) {
                    queue.forget_leg(leg, held.bytes);
                }
            }
        }
        self.held.retain(|_, held| held.partition != no);
        self.writes.finish.retain(|(p, _, _)| *p != no);
        self.writes.record.retain(|(_, v)| v.partition != no);
        self.positions.partition_lost(no);
        self.burying.retain(|_, partition| *partition != no);
        for queue in &mut self.queues {
            queue.loners.retain(|id| self.held.contains_key(&id));
        }
        self.suspects_lost();
        self.reread_where_room();
    }

    /// Forgets a partition that was lost, unless it was gained anew meanwhile.
    pub(crate) fn lost(&mut self, no: PartitionNo, epoch: Epoch) {
        if self.epoch(no) == Some(epoch) {
            self.stats.leases_lost += 1;
            self.lose(no);
        }
    }

    /// Starts nothing more of a partition that is to be handed back.
    pub(crate) fn release(&mut self, no: PartitionNo) {
        if let Some(partition) = self.partitions.get_mut(&no) {
            partition.releasing = true;
        }
    }

    /// Gives the partitions that can be handed back now; they are forgotten. What some routes have confirmed of their events
    /// is written down before: the next owner repeats nothing.
    pub(crate) fn take_released(&mut self, now: Instant) -> Vec<(PartitionNo, Epoch)> {
        self.record_halfway_of_released(now);
        let done: Vec<_> = self
            .partitions
            .iter()
            .filter(|(_, p)| p.releasing && p.is_quiet())
            .map(|(no, p)| (*no, p.epoch))
            .collect();
        for (no, _) in &done {
            self.lose(*no);
        }
        done
    }

    /// Tells whether nothing is in flight and nothing waits to be written, of a relay that starts nothing more. What some
    /// routes have confirmed is written down before.
    pub(crate) fn is_drained(&mut self, now: Instant) -> bool {
        if !self.is_quiet() {
            return false;
        }
        self.record_halfway_of_released(now);
        self.is_quiet()
    }

    /// Writes down what some routes have confirmed and others have not, of partitions that are to be handed back and of
    /// which nothing else is under way.
    fn record_halfway_of_released(&mut self, now: Instant) {
        let over =
            |no: &PartitionNo| self.partitions.get(no).is_some_and(|p| p.releasing && p.is_quiet());
        if !self.partitions.keys().any(over) {
            return;
        }
        let mut halfway: Vec<EventId> = self
            .held
            .iter()
            .filter(|(_, h)| h.is_halfway() && over(&h.partition))
            .map(|(id, _)| *id)
            .collect();
        halfway.sort_unstable();
        halfway.into_iter().for_each(|id| self.record(id, now));
    }

    /// Starts nothing more at all.
    pub(crate) fn release_all(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.releasing = true;
        }
    }

    /// Tells whether more waits to be written than of the events that may be held: of events that no route takes none is
    /// held, and a backlog of them would be read faster than it is written down.
    pub(super) fn is_behind_with_writing(&self) -> bool {
        let writing: usize = self.partitions.values().map(|p| p.writing).sum();
        writing > self.config.per_route.saturating_mul(2 * (self.routes.len() + 1))
    }

    /// Gives the epoch under which a partition is owned.
    pub(crate) fn epoch(&self, no: PartitionNo) -> Option<Epoch> {
        self.partitions.get(&no).map(|p| p.epoch)
    }

    /// After the connection was lost every partition is read from its beginning again.
    pub(crate) fn restart_reading(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.cursor = EventId(0);
            partition.full = true;
            partition.swept_to = EventId(0);
            (partition.reread, partition.pass_from) = (None, None);
        }
        self.positions.wake();
    }
}
