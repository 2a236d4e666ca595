//! Which entry to deliver next, and which ones are still this consumer's. Pure.
//!
//! One entry of a key is in flight at a time, in the order of the stream; entries of other keys are
//! in flight beside it. A returned entry is delivered again before any later one of its key. An
//! entry belongs to this consumer for the length of a lease: after it, other consumers claim the
//! entry, so that it has to be renewed before.

use super::replies::EntryId;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

/// Identifies a delivered entry, and the claim with which it was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeliveryTag {
    /// The place of its stream among those of the subscriber.
    pub(crate) stream: usize,
    pub(crate) id: EntryId,
    claim: u64,
}

/// The size of a record.
pub(crate) trait Weight {
    /// Bytes that it keeps in memory.
    fn bytes(&self) -> usize;
}

/// The pending entries that this consumer has in memory.
#[derive(Debug)]
pub(crate) struct PendingEntries<R> {
    streams: Vec<Stream<R>>,
    /// The stream that was served last.
    last_served: usize,
    claims: u64,
    /// How many entries may wait behind one of their key and count as waiting.
    per_key: usize,
    waiting: usize,
    /// How many entries wait beyond that.
    excess: usize,
    /// Bytes of the waiting and the in-flight entries.
    bytes: usize,
}

#[derive(Debug)]
struct Stream<R> {
    entries: BTreeMap<EntryId, Entry<R>>,
    /// Entries that may be delivered.
    ready: BTreeSet<EntryId>,
    by_key: HashMap<u64, KeyQueue>,
}

#[derive(Debug)]
struct Entry<R> {
    key: Option<u64>,
    claim: u64,
    /// When its lease began, at the latest.
    renewed_at: Instant,
    /// How often it was delivered, the delivery in flight or the next one included.
    deliveries: u32,
    in_flight: bool,
    record: R,
}

/// The entries of a key.
#[derive(Debug, Default)]
struct KeyQueue {
    in_flight: bool,
    waiting: BTreeSet<EntryId>,
}

impl KeyQueue {
    /// Gives the entry that may be delivered.
    fn ready(&self) -> Option<EntryId> {
        if self.in_flight { None } else { self.waiting.first().copied() }
    }

    /// How many entries wait beyond `per_key`, the one that is ready not counted.
    fn excess(&self, per_key: usize) -> usize {
        self.waiting.len().saturating_sub(usize::from(!self.in_flight)).saturating_sub(per_key)
    }
}

impl<R> Default for Stream<R> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), ready: BTreeSet::new(), by_key: HashMap::new() }
    }
}

impl<R> Stream<R> {
    /// Changes the queue of a key, and which of its entries is ready. Gives the excess before and
    /// after.
    fn change(
        &mut self,
        key: u64,
        per_key: usize,
        change: impl FnOnce(&mut KeyQueue),
    ) -> (usize, usize) {
        let queue = self.by_key.entry(key).or_default();
        let (ready, excess) = (queue.ready(), queue.excess(per_key));
        change(queue);
        let (ready_now, excess_now) = (queue.ready(), queue.excess(per_key));
        if !queue.in_flight && queue.waiting.is_empty() {
            self.by_key.remove(&key);
        }
        if ready != ready_now {
            if let Some(id) = ready {
                self.ready.remove(&id);
            }
            self.ready.extend(ready_now);
        }
        (excess, excess_now)
    }
}

impl<R: Clone + Weight> PendingEntries<R> {
    /// Makes an empty one for so many streams, in which `per_key` entries may wait behind one of
    /// their key and count as waiting.
    pub(crate) fn new(streams: usize, per_key: usize) -> Self {
        Self {
            streams: (0..streams).map(|_| Stream::default()).collect(),
            last_served: 0,
            claims: 0,
            per_key,
            waiting: 0,
            excess: 0,
            bytes: 0,
        }
    }

    /// Adds an entry whose lease began at `renewed_at`. Of an entry that is there already, only the
    /// lease is renewed.
    pub(crate) fn insert(
        &mut self,
        stream: usize,
        id: EntryId,
        key: Option<u64>,
        deliveries: u32,
        renewed_at: Instant,
        record: R,
    ) {
        let Some(place) = self.streams.get_mut(stream) else { return };
        if let Some(entry) = place.entries.get_mut(&id) {
            entry.renewed_at = entry.renewed_at.max(renewed_at);
            return;
        }
        self.claims += 1;
        self.waiting += 1;
        self.bytes += record.bytes();
        let entry =
            Entry { key, claim: self.claims, renewed_at, deliveries, in_flight: false, record };
        place.entries.insert(id, entry);
        self.queue(stream, id, key, |queue| _ = queue.waiting.insert(id), true);
    }

    /// Tells whether an entry is there.
    pub(crate) fn contains(&self, stream: usize, id: EntryId) -> bool {
        self.streams.get(stream).is_some_and(|stream| stream.entries.contains_key(&id))
    }

    /// Delivers the next entry: of each stream in turn, the earliest that is ready. Gives how often
    /// it was delivered, this delivery included.
    pub(crate) fn next(&mut self) -> Option<(DeliveryTag, u32, R)> {
        let after = (1..=self.streams.len()).map(|n| (self.last_served + n) % self.streams.len());
        let stream = after.into_iter().find(|at| !self.streams[*at].ready.is_empty())?;
        let id = *self.streams[stream].ready.first()?;
        self.last_served = stream;
        let entry = self.streams[stream].entries.get_mut(&id)?;
        entry.in_flight = true;
        let (key, claim, deliveries) = (entry.key, entry.claim, entry.deliveries);
        let record = entry.record.clone();
        self.waiting -= 1;
        let taken = |queue: &mut KeyQueue| {
            queue.waiting.remove(&id);
            queue.in_flight = true;
        };
        self.queue(stream, id, key, taken, false);
        Some((DeliveryTag { stream, id, claim }, deliveries, record))
    }

    /// Removes a delivered entry that is acknowledged; `false` when its lease has ended.
    pub(crate) fn done(&mut self, tag: &DeliveryTag) -> bool {
        let is_held = self.is_held(tag);
        if is_held {
            self.remove(tag.stream, tag.id);
        }
        is_held
    }

    /// Returns a delivered entry, to be delivered again; `false` when its lease has ended.
    pub(crate) fn requeue(&mut self, tag: &DeliveryTag) -> bool {
        if !self.is_held(tag) {
            return false;
        }
        let Some(entry) = self.streams[tag.stream].entries.get_mut(&tag.id) else { return false };
        entry.in_flight = false;
        entry.deliveries = entry.deliveries.saturating_add(1);
        let key = entry.key;
        self.waiting += 1;
        let returned = |queue: &mut KeyQueue| {
            queue.in_flight = false;
            queue.waiting.insert(tag.id);
        };
        self.queue(tag.stream, tag.id, key, returned, true);
        true
    }

    /// Lists the entries whose lease began before `since` ago, by stream: they are to be renewed.
    pub(crate) fn to_renew(&self, now: Instant, since: Duration) -> Vec<(usize, Vec<EntryId>)> {
        let old = |stream: &Stream<R>| {
            let old = |entry: &Entry<R>| now.saturating_duration_since(entry.renewed_at) >= since;
            let old = stream.entries.iter().filter(|(_, entry)| old(entry));
            old.map(|(id, _)| *id).collect::<Vec<_>>()
        };
        let all = self.streams.iter().map(old).enumerate();
        all.filter(|(_, ids)| !ids.is_empty()).collect()
    }

    /// Notes which of the entries that were to be renewed are still this consumer's. A waiting
    /// entry that is not is forgotten.
    pub(crate) fn renewed(
        &mut self,
        stream: usize,
        asked: &[EntryId],
        renewed: &BTreeSet<EntryId>,
        renewed_at: Instant,
    ) {
        for id in asked {
            let Some(entry) = self.streams[stream].entries.get_mut(id) else { continue };
            if renewed.contains(id) {
                entry.renewed_at = entry.renewed_at.max(renewed_at);
            } else if !entry.in_flight {
                self.remove(stream, *id);
            }
        }
    }

    /// Forgets the entries whose lease has ended, those in flight too: another consumer may have
    /// them. Gives how many.
    pub(crate) fn expire(&mut self, now: Instant, lease: Duration) -> usize {
        let expired = self.to_renew(now, lease);
        for (stream, ids) in &expired {
            ids.iter().for_each(|id| self.remove(*stream, *id));
        }
        expired.iter().map(|(_, ids)| ids.len()).sum()
    }

    /// Forgets all waiting entries.
    pub(crate) fn forget_waiting(&mut self) {
        for stream in 0..self.streams.len() {
            let waiting = self.streams[stream].entries.iter().filter(|(_, entry)| !entry.in_flight);
            let waiting: Vec<EntryId> = waiting.map(|(id, _)| *id).collect();
            waiting.into_iter().for_each(|id| self.remove(stream, id));
        }
    }

    /// How many entries wait to be delivered.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many of them wait behind so many of their key that they do not count towards the limit.
    pub(crate) fn excess(&self) -> usize {
        self.excess
    }

    /// Bytes of the waiting and the in-flight entries.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Tells whether no entry is in memory.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.streams.iter().all(|stream| stream.entries.is_empty())
    }

    fn is_held(&self, tag: &DeliveryTag) -> bool {
        let stream = self.streams.get(tag.stream);
        let entry = stream.and_then(|stream| stream.entries.get(&tag.id));
        entry.is_some_and(|entry| entry.claim == tag.claim && entry.in_flight)
    }

    fn remove(&mut self, stream: usize, id: EntryId) {
        let Some(entry) = self.streams[stream].entries.remove(&id) else { return };
        self.bytes -= entry.record.bytes();
        self.waiting -= usize::from(!entry.in_flight);
        let gone = |queue: &mut KeyQueue| {
            queue.in_flight &= !entry.in_flight;
            queue.waiting.remove(&id);
        };
        self.queue(stream, id, entry.key, gone, false);
    }

    /// Changes the queue of a key; an entry without a key is ready or not by itself.
    fn queue(
        &mut self,
        stream: usize,
        id: EntryId,
        key: Option<u64>,
        change: impl FnOnce(&mut KeyQueue),
        is_ready_alone: bool,
    ) {
        let place = &mut self.streams[stream];
        match key {
            Some(key) => {
                let (before, after) = place.change(key, self.per_key, change);
                self.excess = self.excess + after - before;
            }
            None if is_ready_alone => _ = place.ready.insert(id),
            None => _ = place.ready.remove(&id),
        }
    }
}

#[cfg(test)]
mod tests;
