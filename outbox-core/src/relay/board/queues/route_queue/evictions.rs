//! The room of a route, its evicted events, and when these are read again.

use super::RouteQueue;
use crate::{event::EventId, outbox::PartitionNo, relay::board::queues::EvictedFrom};
use std::collections::hash_map::Entry;

/// Events in memory of a route whose queue has run dry, at most: all of its partitions are
/// rescanned then.
const FEW_EVENTS: usize = 64;

impl RouteQueue {
    /// Gives how many events are in memory, those in flight included.
    pub(crate) fn events(&self) -> usize {
        self.memory.events()
    }

    /// Gives how many more events the route wants.
    pub(crate) fn room(&self) -> usize {
        self.memory.room()
    }

    /// Gives how many more bytes may be in memory.
    pub(crate) fn room_in_bytes(&self) -> usize {
        self.memory.room_in_bytes()
    }

    /// Counts an event out.
    pub(crate) fn release_capacity(&mut self, bytes: usize) {
        self.memory.release(bytes);
    }

    /// Tells whether events of the route are evicted, apart from those that only their keys evict.
    pub(crate) fn has_evicted(&self) -> bool {
        !self.evicted_from.is_empty()
    }

    /// Tells whether events of a partition are evicted, apart from those that only their keys
    /// evict.
    pub(crate) fn has_evicted_of(&self, no: PartitionNo) -> bool {
        self.evicted_from.contains_key(&no)
    }

    /// Gives from which event on each partition is to be rescanned after an event of a partition
    /// has ended: nothing without room; only this partition until the queue runs dry.
    pub(crate) fn rescans_after(
        &self,
        no: PartitionNo,
    ) -> impl Iterator<Item = (PartitionNo, EventId)> {
        let (room, is_dry) = (self.memory.has_room(), self.memory.events() < FEW_EVENTS);
        let all = self.evicted_from.iter().take_while(move |_| room);
        all.filter(move |(partition, _)| is_dry || **partition == no)
            .map(|(partition, evicted_from)| (*partition, evicted_from.first()))
    }

    /// Gives the eviction of a partition, with whether the route has room to load from it.
    pub(crate) fn eviction(&mut self, no: PartitionNo) -> Option<(&mut EvictedFrom, bool)> {
        let room = self.memory.has_room();
        self.evicted_from.get_mut(&no).map(|evicted_from| (evicted_from, room))
    }

    /// Gives the eviction of a key, with whether route and key have room to load from it.
    pub(crate) fn key_eviction(&mut self, hash: u64) -> Option<(&mut EvictedFrom, bool)> {
        let room = self.memory.has_room();
        let (evicted_from, key_room) = self.key_queues.get_mut(&hash)?.eviction(self.per_key)?;
        Some((evicted_from, room && key_room))
    }

    /// Ends the eviction of a partition, if a rescan that has read everything up to `to` has loaded
    /// all of it.
    pub(crate) fn end_eviction(&mut self, no: PartitionNo, to: EventId) {
        if self.evicted_from.get(&no).is_some_and(|evicted_from| evicted_from.is_loaded(to)) {
            self.evicted_from.remove(&no);
        }
    }

    /// Ends the eviction of a key, if a rescan that has read everything up to `to` has loaded all
    /// of it; tells whether none is left.
    pub(crate) fn end_key_eviction(&mut self, hash: u64, to: EventId) -> bool {
        let Entry::Occupied(mut entry) = self.key_queues.entry(hash) else { return true };
        let is_over = entry.get_mut().end_eviction(to);
        if is_over && entry.get().is_idle() {
            entry.remove();
        }
        is_over
    }

    /// Gives the blocked keys that have to evict all but their heads, if the route has become full
    /// since the last call.
    pub(crate) fn take_keys_to_evict(&mut self) -> Vec<u64> {
        if !std::mem::take(&mut self.evict_blocked) {
            return Vec::new();
        }
        let can_evict = self.key_queues.iter().filter(|(_, keys)| keys.can_evict());
        can_evict.map(|(hash, _)| *hash).collect()
    }

    /// Evicts the waiting events of a blocked key behind its head, but for those that have begun.
    /// Gives the evicted ones, in order, with their partition.
    pub(crate) fn evict_behind_head(
        &mut self,
        hash: u64,
        has_begun: impl FnMut(EventId) -> bool,
    ) -> Option<(PartitionNo, Vec<EventId>)> {
        let keys = self.key_queues.get_mut(&hash)?;
        let tail = keys.evict_behind_head(has_begun);
        Some((keys.partition(), tail)).filter(|(_, tail)| !tail.is_empty())
    }

    /// Notes that a key is blocked from now on: in a full route it has to evict all but its head.
    pub(super) fn key_blocked(&mut self, can_evict: bool) {
        self.evict_blocked |= can_evict && self.has_evicted() && !self.memory.has_room();
    }

    /// Notes that a key is held from now on.
    pub(super) fn key_held(&mut self, hash: u64) {
        self.held_keys.insert(hash, ());
        self.evict_blocked |= !self.memory.has_room_for_held();
    }
}
