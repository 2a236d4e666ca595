//! The queue of one route: a key queue for each key, and the list of events that may be published
//! now. `admission.rs` decides which events are taken into memory, `evictions.rs` which leave it
//! for want of room and when they are read again.

mod admission;
mod evictions;

pub(crate) use admission::{Admitted, Candidate};

use super::{
    eviction::EvictedFrom,
    key_queue::{KeyQueue, Parked},
    memory::{QueueLimits, RouteMemory},
    solo::{BatchFit, SoloEvents},
};
use crate::relay::board::FastMap;
use crate::{
    event::{EventId, LetterId},
    outbox::PartitionNo,
};
use std::collections::{BTreeMap, VecDeque, hash_map::Entry};

/// An entry of a route's list of publishable events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// The head of a key queue, by the key's hash.
    Key(u64),
    /// An event without a key.
    Single(EventId),
}

/// The head of a key, taken out of its queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyHead {
    pub(crate) id: EventId,
    pub(crate) partition: PartitionNo,
    /// From which event on evicted events of the key are to be read again.
    pub(crate) rescan_from: Option<EventId>,
}

/// The queue of one route.
#[derive(Debug)]
pub(crate) struct RouteQueue {
    ready: VecDeque<Ready>,
    key_queues: FastMap<u64, KeyQueue>,
    memory: RouteMemory,
    /// Events of one key that may wait in memory.
    per_key: usize,
    /// Batches handed to the publisher.
    batches: usize,
    /// By partition: the point from which on events were evicted.
    evicted_from: BTreeMap<PartitionNo, EvictedFrom>,
    /// Whether blocked keys have to evict all but their heads.
    evict_blocked: bool,
    /// Keys that may be held by a pause.
    held_keys: FastMap<u64, ()>,
    solo: SoloEvents,
}

impl RouteQueue {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self {
            ready: VecDeque::new(),
            key_queues: FastMap::default(),
            memory: RouteMemory::new(limits),
            per_key: limits.per_key,
            batches: 0,
            evicted_from: BTreeMap::new(),
            evict_blocked: false,
            held_keys: FastMap::default(),
            solo: SoloEvents::default(),
        }
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Gives how many keys, and events without a key, are ready.
    pub(crate) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Tells whether any ready event may be published without waiting for another one that is
    /// published alone.
    pub(crate) fn has_startable(&self) -> bool {
        self.ready.iter().any(|ready| self.batch_fit(*ready) != BatchFit::SoloLater)
    }

    /// Gives the first ready event; `None` also if its key has no event any more.
    pub(crate) fn first_ready(&self) -> Option<EventId> {
        self.ready.front().and_then(|ready| self.event_of(*ready))
    }

    /// Takes the first entry of the list.
    pub(crate) fn next_ready(&mut self) -> Option<Ready> {
        self.ready.pop_front()
    }

    /// Puts an entry back in front of all others.
    pub(crate) fn put_first(&mut self, ready: Ready) {
        self.ready.push_front(ready);
    }

    /// Puts an entry back behind all others.
    pub(crate) fn put_last(&mut self, ready: Ready) {
        self.ready.push_back(ready);
    }

    /// Gives the event that an entry of the list stands for.
    pub(crate) fn event_of(&self, ready: Ready) -> Option<EventId> {
        match ready {
            Ready::Single(id) => Some(id),
            Ready::Key(hash) => self.key_queues.get(&hash).and_then(KeyQueue::head),
        }
    }

    /// Makes a waiting event ready. One with a key is in its key queue already.
    pub(crate) fn make_ready(&mut self, id: EventId, key_hash: Option<u64>) {
        match key_hash {
            None => self.ready.push_back(Ready::Single(id)),
            Some(hash) => {
                if let Some(keys) = self.key_queues.get_mut(&hash) {
                    keys.unblock(id);
                    keys.make_ready(hash, &mut self.ready);
                }
            }
        }
    }

    /// Makes an event ready in front of all others, so that it is found however a pause or a limit
    /// keeps the others. `is_keyless` says that it has no key: if it waits in a key queue, a pause
    /// has moved it there.
    pub(crate) fn make_first(&mut self, id: EventId, key_hash: Option<u64>, is_keyless: bool) {
        let before = self.ready.len();
        self.make_ready(id, key_hash);
        if is_keyless && key_hash.is_some() {
            self.ready.push_front(Ready::Single(id));
        } else if self.ready.len() > before
            && let Some(last) = self.ready.pop_back()
        {
            self.ready.push_front(last);
        }
    }

    /// Gives how many batches are in flight.
    pub(crate) fn batches(&self) -> usize {
        self.batches
    }

    pub(crate) fn batch_started(&mut self) {
        self.batches += 1;
    }

    pub(crate) fn batch_ended(&mut self) {
        self.batches = self.batches.saturating_sub(1);
    }

    /// Tells in which batch a ready event may be published.
    pub(crate) fn batch_fit(&self, ready: Ready) -> BatchFit {
        if self.solo.is_empty() {
            return BatchFit::Shared;
        }
        self.event_of(ready).map_or(BatchFit::Shared, |id| self.solo.batch_fit(id))
    }

    /// Publishes an event in batches of its own from now on.
    pub(crate) fn publish_singly(&mut self, id: EventId) {
        self.solo.add(id);
    }

    /// Allows an event in shared batches again; tells whether it was published alone.
    pub(crate) fn publish_shared(&mut self, id: EventId) -> bool {
        self.solo.remove(id)
    }

    /// Notes that an event is in flight in a batch of its own.
    pub(crate) fn solo_started(&mut self, id: EventId) {
        self.solo.started(id);
    }

    /// Notes that the publish of an event has ended, in whatever batch.
    pub(crate) fn solo_ended(&mut self, id: EventId) {
        self.solo.clear_in_flight(id);
    }

    /// Forgets which events are published alone, but for those in memory.
    pub(crate) fn retain_solo(&mut self, in_memory: impl FnMut(EventId) -> bool) {
        self.solo.retain(in_memory);
    }

    /// Takes the head of a key whose turn has come; `None` if it may not be published.
    pub(crate) fn take_head(&mut self, hash: u64) -> Option<KeyHead> {
        let Entry::Occupied(mut entry) = self.key_queues.entry(hash) else { return None };
        let keys = entry.get_mut();
        if !keys.turn_comes() {
            return None;
        }
        let Some(id) = keys.take_head() else {
            if keys.is_idle() {
                entry.remove();
            }
            return None;
        };
        let rescan_from = keys.rescan_from(self.per_key).filter(|_| self.memory.has_room());
        Some(KeyHead { id, partition: keys.partition(), rescan_from })
    }

    /// Puts the head of a key back that was taken: its partition is about to be released.
    pub(crate) fn return_head(&mut self, hash: u64, head: KeyHead) {
        self.key_queue(hash, head.partition).return_head(head.id);
    }

    /// Puts the head of a key back that was taken; it blocks its key until it may be published.
    pub(crate) fn block_head(&mut self, hash: u64, head: KeyHead) {
        let keys = self.key_queue(hash, head.partition);
        keys.return_head(head.id);
        keys.block(head.id);
    }

    /// Puts the head of a key back that was taken; it holds its key until a pause ends.
    pub(crate) fn hold_head(&mut self, hash: u64, head: KeyHead) {
        let keys = self.key_queue(hash, head.partition);
        keys.return_head(head.id);
        keys.hold();
        self.key_held(hash);
    }

    /// Notes that the head of a key that was taken is in flight.
    pub(crate) fn head_started(&mut self, hash: u64, head: KeyHead) {
        self.key_queue(hash, head.partition).started(head.id);
    }

    /// Takes an event out of its key queue, wherever it waits.
    pub(crate) fn take_waiting(&mut self, hash: u64, id: EventId) {
        if let Some(keys) = self.key_queues.get_mut(&hash) {
            keys.take(id);
        }
    }

    /// Notes that the publish of a key's event has ended, and makes the next event ready.
    pub(crate) fn clear_in_flight(&mut self, hash: u64, id: EventId) {
        self.resume(hash, |keys| {
            keys.ended(id);
            true
        });
    }

    /// Puts an event back at the head of its key as if it had not been tried; the other ready keys
    /// have their turn first.
    pub(crate) fn requeue(&mut self, id: EventId, partition: PartitionNo, key_hash: Option<u64>) {
        if let Some(hash) = key_hash {
            self.key_queue(hash, partition).requeue(id);
        }
        self.make_ready(id, key_hash);
    }

    /// Puts an event whose publish has failed back in its key queue, until its retry.
    pub(crate) fn wait_for_retry(&mut self, hash: u64, partition: PartitionNo, id: EventId) {
        let Self { ready, key_queues, .. } = self;
        let keys = key_queues.entry(hash).or_insert_with(|| KeyQueue::new(partition));
        keys.wait_for_retry(id);
        keys.make_ready(hash, ready);
        let can_evict = keys.can_evict();
        self.key_blocked(can_evict);
    }

    /// Keeps an event at the head of its key until it may be published.
    pub(crate) fn block(&mut self, hash: u64, partition: PartitionNo, id: EventId) {
        let keys = self.key_queue(hash, partition);
        keys.insert(id);
        keys.block(id);
        let can_evict = keys.can_evict();
        self.key_blocked(can_evict);
    }

    /// Tells whether a key waits for its head or for an operator.
    pub(crate) fn is_blocked(&self, hash: u64) -> bool {
        self.key_queues.get(&hash).is_some_and(KeyQueue::is_blocked)
    }

    /// Moves an event without a key to the key queue in which a pause holds it.
    pub(crate) fn move_to_key(&mut self, hash: u64, partition: PartitionNo, id: EventId) {
        let Self { ready, key_queues, .. } = self;
        let keys = key_queues.entry(hash).or_insert_with(|| KeyQueue::new(partition));
        keys.insert(id);
        keys.make_ready(hash, ready);
    }

    /// Lets the keys of held events go on. Those that are still held stop again at their heads.
    pub(crate) fn resume_held(&mut self) {
        for (hash, ()) in std::mem::take(&mut self.held_keys) {
            self.resume(hash, |keys| {
                keys.end_hold();
                true
            });
        }
    }

    /// Parks a key behind an event that is given up, until its letter is written or, if not
    /// `until_written`, until an operator has decided about it.
    pub(crate) fn park(
        &mut self,
        hash: u64,
        partition: PartitionNo,
        id: EventId,
        until_written: bool,
    ) {
        let keys = self.key_queue(hash, partition);
        keys.park(id, until_written);
        let can_evict = keys.can_evict();
        self.key_blocked(can_evict);
    }

    /// Opens a key whose event was given up when its letter is recorded, unless an operator has to
    /// decide about it.
    pub(crate) fn letter_recorded(&mut self, hash: u64, id: EventId) {
        self.resume(hash, |keys| keys.letter_recorded(id));
    }

    /// Parks a key behind a letter that was there before the partition was gained, unless it is
    /// parked already; tells whether it was not.
    pub(super) fn park_behind(
        &mut self,
        hash: u64,
        partition: PartitionNo,
        letter: LetterId,
    ) -> bool {
        self.key_queue(hash, partition).park_behind(letter)
    }

    /// Tells whether a key has a queue.
    pub(super) fn has_key(&self, hash: u64) -> bool {
        self.key_queues.contains_key(&hash)
    }

    /// Gives why a key is parked, if it is.
    pub(super) fn parked(&self, hash: u64) -> Option<Parked> {
        self.key_queues.get(&hash).and_then(KeyQueue::parked)
    }

    /// Keeps a parked key waiting for a further letter.
    pub(super) fn park_on(&mut self, hash: u64, letter: LetterId) {
        if let Some(keys) = self.key_queues.get_mut(&hash) {
            keys.park_on(letter);
        }
    }

    /// Takes the id of the letter of an event, which may park its key.
    pub(super) fn letter_written(&mut self, hash: u64, id: EventId, letter: LetterId) {
        if let Some(keys) = self.key_queues.get_mut(&hash) {
            keys.letter_written(id, letter);
        }
    }

    /// Opens a parked key.
    pub(super) fn unpark(&mut self, hash: u64) {
        self.resume(hash, |keys| {
            keys.unpark();
            true
        });
    }

    /// Removes the keys of a partition; ready events without a key are skipped when their turn
    /// comes.
    pub(crate) fn drop_partition(&mut self, no: PartitionNo) {
        self.key_queues.retain(|_, keys| keys.partition() != no);
        self.evicted_from.remove(&no);
        let key_queues = &self.key_queues;
        self.ready.retain(|r| !matches!(r, Ready::Key(hash) if !key_queues.contains_key(hash)));
    }

    /// Gives the queue of a key.
    fn key_queue(&mut self, hash: u64, partition: PartitionNo) -> &mut KeyQueue {
        self.key_queues.entry(hash).or_insert_with(|| KeyQueue::new(partition))
    }

    /// Changes a key. If `change` says that the key may go on, its head is made ready, or an idle
    /// queue is removed.
    fn resume(&mut self, hash: u64, change: impl FnOnce(&mut KeyQueue) -> bool) {
        let Entry::Occupied(mut entry) = self.key_queues.entry(hash) else { return };
        let keys = entry.get_mut();
        if !change(keys) {
            return;
        }
        keys.make_ready(hash, &mut self.ready);
        if keys.is_idle() {
            entry.remove();
        }
    }

    /// Removes a key queue without events or state.
    fn drop_idle(&mut self, hash: u64) {
        if let Entry::Occupied(entry) = self.key_queues.entry(hash)
            && entry.get().is_idle()
        {
            entry.remove();
        }
    }

    /// Gives how many keys have a queue.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> usize {
        self.key_queues.len()
    }
}
