//! Passes over forgotten events: read again in order, from the first forgotten id, as somebody has room.

use super::{PAGE, Partition, ReadJob, Stash, arrivals::Origin};
use crate::{
    event::EventId,
    outbox::{PartitionNo, StoredEvent},
    relay::board::{
        Board, RouteNo,
        lanes::{Closed, Pass, RouteQueue},
    },
};
use std::time::Instant;

impl Board {
    pub(super) fn plan_page(&mut self) -> Option<ReadJob> {
        let most = self.config.read_batch.min(PAGE as usize);
        let budget = self.positions.size.budget(most, self.room_in_bytes());
        let page = u32::try_from(budget.rows).unwrap_or(PAGE);
        let ready = |p: &Partition| !p.releasing && p.reread.is_some_and(|from| from <= p.cursor);
        let (no, partition) = self.partitions.iter_mut().find(|(_, p)| ready(p))?;
        let (no, from) = (*no, partition.reread?);
        let whole_up_to = budget.whole_up_to(budget.rows);
        let job = ReadJob::Page {
            partition: no,
            epoch: partition.epoch,
            from,
            to: partition.cursor,
            limit: page,
            whole_up_to,
        };
        if partition.pass_from.is_none() {
            partition.pass_from = Some(from);
            self.each_closed(no, |closed, _| {
                closed.pass = if closed.first >= from { Pass::Takes } else { Pass::Apart };
            });
        }
        Some(job)
    }

    pub(super) fn page_done(
        &mut self,
        no: PartitionNo,
        to: EventId,
        mut events: Vec<StoredEvent>,
        limit: u32,
        now: Instant,
    ) {
        let mut whole = events.len() < limit as usize;
        let mut bytes = self.positions.size.budget(1, self.room_in_bytes()).bytes;
        let kept = self.ask_for_payloads(&events, Origin::Again, &mut bytes);
        if kept < events.len() {
            events.truncate(kept);
            whole = false;
        }
        self.positions.stash = Some(Stash::Page { partition: no, to, events, whole });
        if self.positions.wanted.is_empty() {
            self.unstash(now);
        }
    }

    /// Hands on a page, of which an id is known up to which it was asked for, and the last that it has.
    pub(super) fn page_over(
        &mut self,
        no: PartitionNo,
        (to, last): (EventId, EventId),
        events: Vec<StoredEvent>,
        whole: bool,
        now: Instant,
    ) {
        for event in events {
            self.arrive(event, Origin::Again, now);
        }
        if self.partitions.get(&no).is_none_or(|p| p.pass_from.is_none()) {
            return;
        }
        let mut has_room = false;
        self.each_closed(no, |closed, _| has_room |= closed.pass == Pass::Takes);
        if whole {
            self.reopen(no, to);
        }
        if let Some(partition) = self.partitions.get_mut(&no) {
            if whole || !has_room {
                (partition.reread, partition.pass_from) = (None, None);
            } else {
                partition.reread = Some(EventId(last.0 + 1));
            }
        }
        if whole {
            self.reread_where_room();
        }
    }

    /// Goes through everything of a partition of which only the first forgotten id is known, telling whether it has
    /// room.
    fn each_closed(&mut self, no: PartitionNo, mut each: impl FnMut(&mut Closed, bool)) {
        let Some(partition) = self.partitions.get(&no) else { return };
        let (per_route, per_key, routes) =
            (self.config.per_route, self.config.per_key, &self.routes);
        let roomy = |q: &RouteQueue, r: RouteNo| q.has_room(per_route, routes[r].max_in_memory);
        for (route, queue) in self.queues.iter_mut().enumerate() {
            let room = roomy(queue, route);
            if let Some(closed) = queue.closed.get_mut(&no) {
                each(closed, room);
            }
        }
        for (route, hash) in &partition.closed_lanes {
            let queue = &mut self.queues[*route];
            let room = roomy(queue, *route);
            if let Some(lane) = queue.lanes.get_mut(hash)
                && let stuck = lane.is_stuck()
                && let Some(closed) = lane.closed.as_mut()
            {
                // A key that waits for its head is read again when it moves: before that it would only be forgotten again.
                each(closed, room && !stuck && lane.queue.len() <= per_key / 2);
            }
        }
    }

    /// Asks for forgotten events wherever there is room for them.
    pub(crate) fn reread_where_room(&mut self) {
        let numbers: Vec<PartitionNo> = self.partitions.keys().copied().collect();
        for no in numbers {
            let mut from: Option<EventId> = None;
            self.each_closed(no, |closed, room| {
                if room {
                    from = Some(from.map_or(closed.first, |f| f.min(closed.first)));
                }
            });
            if let (Some(from), Some(partition)) = (from, self.partitions.get_mut(&no)) {
                partition.reread_from(from);
            }
        }
    }

    /// A pass read everything up to `to` again: what it covered and nothing was refused of is open.
    fn reopen(&mut self, no: PartitionNo, to: EventId) {
        let Some(partition) = self.partitions.get_mut(&no) else { return };
        let opens = |c: &Closed| c.pass == Pass::Takes && c.first.0 <= to.0 + 1;
        for queue in &mut self.queues {
            if queue.closed.get(&no).is_some_and(opens) {
                queue.closed.remove(&no);
            }
        }
        let queues = &mut self.queues;
        partition.closed_lanes.retain(|(route, hash)| {
            let queue = &mut queues[*route];
            let Some(lane) = queue.lanes.get_mut(hash) else { return false };
            if lane.closed.as_ref().is_none_or(opens) {
                lane.closed = None;
                queue.drop_idle(*hash);
                return false;
            }
            true
        });
        if partition.closed_lanes.is_empty()
            && self.queues.iter().all(|q| !q.closed.contains_key(&no))
        {
            partition.forgotten.clear();
        }
    }

    pub(super) fn anything_closed(&self) -> bool {
        self.queues.iter().any(|q| !q.closed.is_empty())
            || self.partitions.values().any(|p| !p.closed_lanes.is_empty())
    }
}
