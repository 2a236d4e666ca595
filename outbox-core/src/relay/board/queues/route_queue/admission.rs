//! Which events a route takes into memory, by its room, by the room of their keys and by what is
//! evicted already.

use super::RouteQueue;
use crate::{
    event::EventId,
    outbox::PartitionNo,
    relay::board::queues::{
        Ready,
        eviction::{EvictedFrom, ReadSource, Refusal, check_capacity},
        key_queue::KeyQueue,
    },
};

/// An event that was read, as the queue of a route sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) id: EventId,
    pub(crate) partition: PartitionNo,
    /// Hash of its key; `None` without one.
    pub(crate) key_hash: Option<u64>,
    /// Its bytes in memory.
    pub(crate) bytes: usize,
    pub(crate) source: ReadSource,
    /// Whether a pause holds it.
    pub(crate) is_held: bool,
    /// Whether it came without its payload. It is never in memory then: a rescan reads it again.
    pub(crate) lacks_payload: bool,
    /// Whether it waits for its retry.
    pub(crate) waits_for_retry: bool,
}

/// Whether an event was taken into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// It waits in the queue.
    Queued,
    /// A rescan reads it again.
    Evicted {
        /// Whether the eviction of its key begins with it.
        begins_on_key: bool,
    },
}

impl RouteQueue {
    /// Puts an event in its key queue, or evicts it if there is no room.
    pub(crate) fn admit(&mut self, event: &Candidate) -> Admitted {
        let Candidate { id, partition, key_hash, bytes, source, .. } = *event;
        // Crowded as long as events of the route are evicted, or this one would have to be soon.
        let crowded = self.has_evicted() || !self.memory.has_room();
        let room_for_held = !crowded && self.memory.has_room_for_held();
        let Self { ready, key_queues, memory, evicted_from, held_keys, .. } = self;
        let mut key_queue =
            key_hash.map(|hash| key_queues.entry(hash).or_insert_with(|| KeyQueue::new(partition)));
        // Whether the event holds its key from now on.
        let holds =
            event.is_held && key_queue.as_ref().is_some_and(|keys| keys.is_next(id, source));
        // If its key evicts an event without its payload anyway, the route does not count as full,
        // so that the rescan goes on with the other keys.
        let key_evicts = || key_queue.as_ref().is_some_and(|keys| keys.evicts(id, source));
        let full = memory.is_full_for(bytes)
            || (holds && memory.is_full_of_held(held_keys.len()))
            || (event.lacks_payload && !key_evicts());
        let overdue =
            !event.lacks_payload && key_queue.as_ref().is_some_and(|keys| keys.is_overdue(id));
        let on_route = match overdue {
            true => Ok(()),
            false => check_capacity(evicted_from.get_mut(&partition), id, source, full),
        };
        let on_key = match &mut key_queue {
            None => Ok(()),
            Some(_) if overdue => Ok(()),
            Some(keys) => {
                let held_out = (holds || keys.is_held()) && !room_for_held;
                let most = keys.capacity(crowded, held_out, self.per_key);
                keys.check_capacity(id, source, most, on_route.is_err())
            }
        };
        if on_route.is_err() || on_key.is_err() {
            return self.evict(event, on_route, on_key, holds);
        }
        match key_hash.zip(key_queue) {
            None if event.waits_for_retry => {}
            None => ready.push_back(Ready::Single(id)),
            Some((hash, keys)) => {
                keys.insert(id);
                if holds {
                    keys.hold();
                }
                keys.make_ready(hash, ready);
            }
        }
        memory.take(bytes);
        if let Some(hash) = key_hash.filter(|_| holds) {
            self.key_held(hash);
        }
        Admitted::Queued
    }

    /// Notes that an event is evicted, and from where on its route or its key is.
    fn evict(
        &mut self,
        event: &Candidate,
        on_route: Result<(), Refusal>,
        on_key: Result<(), Refusal>,
        holds: bool,
    ) -> Admitted {
        let Candidate { id, partition, key_hash, .. } = *event;
        if on_route == Err(Refusal::BeginsEviction) {
            self.evicted_from.insert(partition, EvictedFrom::at(id));
            self.evict_blocked = true;
        }
        let mut begins_on_key = false;
        let Some(hash) = key_hash else { return Admitted::Evicted { begins_on_key } };
        if on_route.is_ok() {
            let keys = self.key_queue(hash, partition);
            begins_on_key = on_key == Err(Refusal::BeginsEviction);
            if begins_on_key {
                keys.begin_eviction(id);
            }
            if holds {
                // It is the first that is evicted: a rescan waits for the end of the pause.
                keys.hold();
                self.held_keys.insert(hash, ());
            }
        }
        self.drop_idle(hash);
        Admitted::Evicted { begins_on_key }
    }

    /// Tells whether the queue may take an event into memory that was read without its payload.
    pub(crate) fn may_take(
        &self,
        id: EventId,
        partition: PartitionNo,
        key_hash: Option<u64>,
        source: ReadSource,
    ) -> bool {
        let evicts = |evicted_from: &EvictedFrom| evicted_from.evicts(id, source);
        let key_queue = key_hash.and_then(|hash| self.key_queues.get(&hash));
        key_queue.is_some_and(|keys| keys.is_overdue(id))
            || !(self.memory.is_full()
                || self.evicted_from.get(&partition).is_some_and(evicts)
                || key_queue.is_some_and(|keys| keys.evicts(id, source)))
    }
}
