//! Rescans: evicted events are read again in order, from the first evicted id on, when a key or
//! route has room.
//!
//! Loading has to begin at the first evicted event and to stop at the first one without room.
//! Otherwise a later event of a key would be published before an earlier one that is still evicted.

use super::{PAGE, Partition, ReadJob, Stash};
use crate::{
    event::EventId,
    outbox::{PartitionNo, StoredEvent},
    relay::board::{
        Board,
        queues::{EvictedFrom, ReadSource, RouteQueue},
    },
};
use std::time::Instant;

impl Board {
    /// Plans the next page of a rescan; the first page begins it.
    pub(super) fn plan_page(&mut self) -> Option<ReadJob> {
        let most = self.config.read_batch.min(PAGE as usize);
        let budget = self.positions.size.budget(most, self.room_in_bytes());
        let page = u32::try_from(budget.rows).unwrap_or(PAGE);
        let next = |(no, p): (&PartitionNo, &Partition)| Some((*no, p.next_page()?));
        let (no, from) = self.partitions.iter().find_map(next)?;
        let partition = self.partitions.get_mut(&no)?;
        let payload_limit = budget.payload_limit(budget.rows);
        let job = ReadJob::Page {
            partition: no,
            epoch: partition.epoch(),
            from,
            to: partition.cursor(),
            limit: page,
            payload_limit,
        };
        if partition.page_planned() {
            self.each_evicted(no, |evicted_from, _| evicted_from.rescan_begins(from));
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
        if self.partitions.get(&no).is_none_or(|p| !p.is_rescanning()) {
            return;
        }
        let mut has_room = false;
        self.each_evicted(no, |evicted_from, _| {
            has_room |= evicted_from.is_loading();
        });
        if whole {
            self.end_rescan(no, to);
        }
        if let Some(partition) = self.partitions.get_mut(&no) {
            if whole || !has_room {
                partition.end_rescan();
            } else {
                partition.rescan_on(last);
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
        for queue in &mut self.queues {
            if let Some((evicted_from, room)) = queue.eviction(no) {
                each(evicted_from, room);
            }
        }
        for (route, hash) in partition.evicted_keys() {
            if let Some((evicted_from, room)) = self.queues[route].key_eviction(hash) {
                each(evicted_from, room);
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
                    let first = evicted_from.first();
                    from = Some(from.map_or(first, |from| from.min(first)));
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
        let queues = &mut self.queues;
        queues.iter_mut().for_each(|queue| queue.end_eviction(no, to));
        partition.retain_evicted_keys(|route, hash| !queues[route].end_key_eviction(hash, to));
        if !partition.has_evicted_keys() && !queues.iter().any(|queue| queue.has_evicted_of(no)) {
            partition.nothing_evicted();
        }
    }

    pub(super) fn anything_evicted(&self) -> bool {
        self.queues.iter().any(RouteQueue::has_evicted)
            || self.partitions.values().any(Partition::has_evicted_keys)
    }
}
