//! Rescans: evicted events are read again in order, from the first evicted id on, when a key or
//! route has room.
//!
//! Loading has to begin at the first evicted event and to stop at the first one without room.
//! Otherwise a later event of a key would be published before an earlier one that is still evicted.

use super::{PAGE, Partition, ReadJob, Stash, admission::ReadSource};
use crate::{
    event::EventId,
    outbox::{PartitionNo, StoredEvent},
    relay::board::{
        Board, RouteNo,
        queues::{EvictedFrom, RescanState, RouteQueue},
    },
};
use std::time::Instant;

impl Board {
    /// Plans the next page of a rescan; the first page begins it.
    pub(super) fn plan_page(&mut self) -> Option<ReadJob> {
        let most = self.config.read_batch.min(PAGE as usize);
        let budget = self.positions.size.budget(most, self.room_in_bytes());
        let page = u32::try_from(budget.rows).unwrap_or(PAGE);
        let ready =
            |p: &Partition| !p.releasing && p.rescan_at.is_some_and(|from| from <= p.cursor);
        let (no, partition) = self.partitions.iter_mut().find(|(_, p)| ready(p))?;
        let (no, from) = (*no, partition.rescan_at?);
        let payload_limit = budget.payload_limit(budget.rows);
        let job = ReadJob::Page {
            partition: no,
            epoch: partition.epoch,
            from,
            to: partition.cursor,
            limit: page,
            payload_limit,
        };
        if partition.rescan_began.is_none() {
            partition.rescan_began = Some(from);
            self.each_evicted(no, |evicted_from, _| {
                // An eviction that began before this page is loaded in part only, and stays: its
                // later events would be published before the earlier ones that are still evicted.
                evicted_from.rescan = match evicted_from.first >= from {
                    true => RescanState::Loading,
                    false => RescanState::Partial,
                };
            });
        }
        Some(job)
    }

    /// Takes a page, and admits its events when their payloads are complete.
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
        let kept = self.ask_for_payloads(&events, ReadSource::Rescan, &mut bytes);
        if kept < events.len() {
            events.truncate(kept);
            whole = false;
        }
        self.positions.stash = Some(Stash::Page { partition: no, to, events, whole });
        if self.positions.wanted.is_empty() {
            self.unstash(now);
        }
    }

    /// Admits the events of a page that was read up to `to` and whose last event is `last`.
    pub(super) fn admit_page(
        &mut self,
        no: PartitionNo,
        (to, last): (EventId, EventId),
        events: Vec<StoredEvent>,
        whole: bool,
        now: Instant,
    ) {
        for event in events {
            self.admit(event, ReadSource::Rescan, now);
        }
        if self.partitions.get(&no).is_none_or(|p| p.rescan_began.is_none()) {
            return;
        }
        let mut has_room = false;
        self.each_evicted(no, |evicted_from, _| {
            has_room |= evicted_from.rescan == RescanState::Loading;
        });
        if whole {
            self.end_rescan(no, to);
        }
        if let Some(partition) = self.partitions.get_mut(&no) {
            if whole || !has_room {
                (partition.rescan_at, partition.rescan_began) = (None, None);
            } else {
                partition.rescan_at = Some(EventId(last.0 + 1));
            }
        }
        if whole {
            self.rescan_where_room();
        }
    }

    /// Goes through the evictions of a partition, of its routes and of its keys, with whether each
    /// has room.
    fn each_evicted(&mut self, no: PartitionNo, mut each: impl FnMut(&mut EvictedFrom, bool)) {
        let Some(partition) = self.partitions.get(&no) else { return };
        let (per_route, per_key, routes) =
            (self.config.per_route, self.config.per_key, &self.routes);
        let has_room = |q: &RouteQueue, r: RouteNo| q.has_room(per_route, routes[r].max_in_memory);
        for (route, queue) in self.queues.iter_mut().enumerate() {
            let room = has_room(queue, route);
            if let Some(evicted_from) = queue.evicted_from.get_mut(&no) {
                each(evicted_from, room);
            }
        }
        for (route, hash) in &partition.evicted_keys {
            let queue = &mut self.queues[*route];
            let room = has_room(queue, *route);
            if let Some(key_queue) = queue.key_queues.get_mut(hash)
                && let is_blocked = key_queue.is_blocked()
                && let Some(evicted_from) = key_queue.evicted_from.as_mut()
            {
                // A blocked key is read again when it moves: before that its events would only be
                // evicted again.
                each(evicted_from, room && !is_blocked && key_queue.waiting.len() <= per_key / 2);
            }
        }
    }

    /// Asks for a rescan of each partition that has evicted events with room for them.
    pub(crate) fn rescan_where_room(&mut self) {
        let numbers: Vec<PartitionNo> = self.partitions.keys().copied().collect();
        for no in numbers {
            let mut from: Option<EventId> = None;
            self.each_evicted(no, |evicted_from, room| {
                if room {
                    from = Some(from.map_or(evicted_from.first, |f| f.min(evicted_from.first)));
                }
            });
            if let (Some(from), Some(partition)) = (from, self.partitions.get_mut(&no)) {
                partition.rescan_from(from);
            }
        }
    }

    /// Ends a rescan that has read everything up to `to`: evictions that it has loaded completely
    /// are over.
    fn end_rescan(&mut self, no: PartitionNo, to: EventId) {
        let Some(partition) = self.partitions.get_mut(&no) else { return };
        let is_loaded = |c: &EvictedFrom| c.rescan == RescanState::Loading && c.first.0 <= to.0 + 1;
        for queue in &mut self.queues {
            if queue.evicted_from.get(&no).is_some_and(is_loaded) {
                queue.evicted_from.remove(&no);
            }
        }
        let queues = &mut self.queues;
        partition.evicted_keys.retain(|(route, hash)| {
            let queue = &mut queues[*route];
            let Some(key_queue) = queue.key_queues.get_mut(hash) else { return false };
            if key_queue.evicted_from.as_ref().is_none_or(is_loaded) {
                key_queue.evicted_from = None;
                queue.drop_idle(*hash);
                return false;
            }
            true
        });
        if partition.evicted_keys.is_empty()
            && self.queues.iter().all(|q| !q.evicted_from.contains_key(&no))
        {
            partition.evicted.clear();
        }
    }

    pub(super) fn anything_evicted(&self) -> bool {
        self.queues.iter().any(|q| !q.evicted_from.is_empty())
            || self.partitions.values().any(|p| !p.evicted_keys.is_empty())
    }
}
