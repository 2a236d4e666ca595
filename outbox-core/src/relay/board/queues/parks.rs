//! Keys that do not move: parked keys, which wait for an operator's decision about their head, and
//! the eviction of blocked keys when there is no room.

use crate::relay::board::{
    Board, RouteNo,
    entries::{LegEvent, LegState, RouteLeg},
    queues::{EvictedFrom, KeyQueue, Parked},
};
use crate::{
    event::{EventId, LetterId},
    outbox::{DueRetry, Epoch, PartitionNo, UnparkedKey},
    relay::messages::ParkedKeyHash,
};
use std::{collections::BTreeSet, sync::Arc};
use xxhash_rust::xxh3::xxh3_64;

/// Parked keys about which operators have decided, or have more than one decision to make.
#[derive(Debug, Default)]
pub(crate) struct Parks {
    /// Keys to unpark once their redriven heads have been fetched.
    unparking: Vec<(RouteNo, u64)>,
    /// Unparked keys that cannot be opened yet, with the epoch of the partition.
    unparked: Vec<(Epoch, UnparkedKey)>,
    /// Further letters that park a key: it opens when operators have decided about all of them.
    more_parked: BTreeSet<(RouteNo, u64, LetterId)>,
}

impl Board {
    /// Takes the answer to a renewal: due retries, unparked keys, and whether a relay with other
    /// routes waits for its turn.
    pub(crate) fn renewed(
        &mut self,
        due: Vec<DueRetry>,
        unparked: Vec<UnparkedKey>,
        other_routes_wait: bool,
    ) {
        self.other_routes_wait = other_routes_wait;
        self.fetch_due(due);
        self.unparked(unparked);
    }

    /// Takes keys that operators have unparked. They are reported until the keeper has deleted their
    /// rows; what is known is ignored.
    pub(crate) fn unparked(&mut self, unparked: Vec<UnparkedKey>) {
        for park in unparked {
            if let Some(epoch) = self.epoch(park.partition) {
                let is_same = |(known, other): &(Epoch, UnparkedKey)| {
                    *known == epoch && other.letter == park.letter
                };
                if !self.parks.unparked.iter().any(is_same) {
                    self.parks.unparked.push((epoch, park));
                }
            }
        }
        self.open_unparked();
    }

    /// Takes the parked keys of a partition that was gained just now.
    pub(crate) fn park_gained(&mut self, partition: PartitionNo, parked_keys: &[ParkedKeyHash]) {
        let queues = &mut self.queues;
        // Letters of an earlier ownership of the partition: its key queues were dropped.
        self.parks
            .more_parked
            .retain(|(route, hash, _)| queues[*route].key_queues.contains_key(hash));
        for park in parked_keys {
            let Some(route) = self.routes.iter().position(|r| r.name == park.route) else {
                continue;
            };
            let key_queue = queues[route].key_queue(park.key_hash, partition);
            match key_queue.parked {
                None => {
                    key_queue.parked = Some(Parked {
                        head: None,
                        letter: Some(park.letter),
                        until_written: false,
                    });
                }
                Some(_) => {
                    self.parks.more_parked.insert((route, park.key_hash, park.letter));
                }
            }
        }
    }

    /// Takes the ids of dead letters. It comes before the message that the same events are
    /// recorded, which opens a parked key that has no letter.
    pub(crate) fn letters_written(&mut self, letters: &[(EventId, Arc<str>, LetterId)]) {
        for (id, route, letter) in letters {
            let Some(route) = self.routes.iter().position(|r| r.name == *route) else { continue };
            let Some(hash) = self.entries.get(*id).and_then(|entry| entry.key_hash) else {
                continue;
            };
            let key_queue = self.queues[route].key_queues.get_mut(&hash);
            if let Some(parked) =
                key_queue.and_then(|keys| keys.parked.as_mut()).filter(|p| p.head == Some(*id))
            {
                parked.letter = Some(*letter);
            }
        }
    }

    /// Opens unparked keys, redriven heads first.
    fn open_unparked(&mut self) {
        let mut heads = Vec::new();
        for (epoch, park) in std::mem::take(&mut self.parks.unparked) {
            let Some(partition) = self.partitions.get(&park.partition).filter(|p| p.epoch == epoch)
            else {
                continue;
            };
            let Some(route) = self.routes.iter().position(|r| r.name == park.route) else {
                continue;
            };
            let hash = xxh3_64(park.key.as_bytes());
            let key_queue = self.queues[route].key_queues.get_mut(&hash);
            let Some(parked) = key_queue.and_then(|keys| keys.parked.as_mut()) else { continue };
            // Not yet, if the read has not come to the redriven head: it comes in order, behind the
            // earlier events of its key. Nor if the letter of the present head is still being
            // written: whether the decision is about that letter is not known before.
            let is_ahead = park.redriven && partition.full && partition.cursor < park.event;
            if is_ahead || parked.letter.is_none() {
                self.parks.unparked.push((epoch, park));
                continue;
            }
            self.parks.more_parked.remove(&(route, hash, park.letter));
            if parked.letter != Some(park.letter) {
                continue;
            }
            let of_key = (route, hash, LetterId(i64::MIN))..=(route, hash, LetterId(i64::MAX));
            if let Some(next) = self.parks.more_parked.range(of_key).next().copied() {
                self.parks.more_parked.remove(&next);
                parked.letter = Some(next.2);
                continue;
            }
            if park.redriven {
                heads.push((park.partition, park.event));
            }
            self.parks.unparking.push((route, hash));
        }
        heads.into_iter().for_each(|(partition, id)| self.refetch(partition, id));
        // Not before the redriven heads are fetched, again where their rows were stale: without
        // that the next event of the key went first, in one of 250 random worlds of the model.
        if self.positions.nothing_wanted() {
            self.unpark();
        }
    }

    /// Opens the keys whose redriven heads have been fetched.
    pub(crate) fn unpark(&mut self) {
        for (route, hash) in std::mem::take(&mut self.parks.unparking) {
            let queue = &mut self.queues[route];
            if let Some(key_queue) = queue.key_queues.get_mut(&hash) {
                key_queue.parked = None;
                queue.make_ready(hash);
                queue.drop_idle(hash);
            }
        }
    }

    /// In full routes, evicts the waiting events of blocked keys, all but the heads: they are read
    /// again when the key moves.
    pub(crate) fn evict_blocked_keys(&mut self) {
        for route in 0..self.queues.len() {
            if !std::mem::take(&mut self.queues[route].evict_blocked) {
                continue;
            }
            let blocked: Vec<u64> = self.queues[route]
                .key_queues
                .iter()
                .filter(|(_, key_queue)| can_evict(key_queue))
                .map(|(h, _)| *h)
                .collect();
            for hash in blocked {
                self.evict_blocked(route, hash);
            }
        }
    }

    /// Notes that a key is blocked from now on: in a full route it has to evict all but its head.
    pub(crate) fn key_blocked(&mut self, route: RouteNo, hash: u64) {
        let most = self.routes[route].max_in_memory;
        let queue = &mut self.queues[route];
        if !queue.evicted_from.is_empty()
            && !queue.has_room(self.config.per_route, most)
            && queue.key_queues.get(&hash).is_some_and(can_evict)
        {
            queue.evict_blocked = true;
        }
    }

    /// Evicts the waiting events of a blocked key, all but the head.
    fn evict_blocked(&mut self, route: RouteNo, hash: u64) {
        let Some(key_queue) = self.queues[route].key_queues.get_mut(&hash) else { return };
        let keep = usize::from(key_queue.blocked.is_some());
        // An event that has begun stays: the database counts its start.
        let entries = &self.entries;
        let has_begun = |id: &EventId| entries.leg(*id, route).is_some_and(RouteLeg::has_begun);
        let (begun, tail): (Vec<EventId>, Vec<EventId>) =
            key_queue.waiting.drain(keep..).partition(has_begun);
        key_queue.waiting.extend(begun);
        let Some(first) = tail.first().copied() else { return };
        match key_queue.evicted_from.as_mut() {
            Some(evicted_from) => *evicted_from = EvictedFrom::at(evicted_from.first.min(first)),
            None => key_queue.evicted_from = Some(EvictedFrom::at(first)),
        }
        if let Some(partition) = self.partitions.get_mut(&key_queue.partition) {
            partition.evicted_keys.insert((route, hash));
            tail.iter().for_each(|id| partition.evicted.insert(*id));
        }
        for id in tail {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            let bytes = entry.bytes;
            for leg in entry.legs.iter_mut().filter(|l| l.route == route) {
                leg.apply(LegEvent::Evicted);
            }
            self.queues[route].release_capacity(bytes);
            self.stats.evicted += 1;
            self.end_isolation(id, route);
            self.drop_evicted(id);
        }
    }

    /// Drops the entry of an evicted event, unless routes of it have ended and that is not
    /// recorded.
    fn drop_evicted(&mut self, id: EventId) {
        let Some(entry) = self.entries.get(id) else { return };
        if entry
            .legs
            .iter()
            .all(|l| l.state().is_final() == l.written || l.state() == LegState::Evicted)
        {
            self.entries.drop_if_unused(id);
        }
        // Else the event is partially confirmed: its entry is dropped when that is recorded.
    }
}

/// Tells whether a key is blocked and has waiting events behind its head.
fn can_evict(key_queue: &KeyQueue) -> bool {
    key_queue.is_blocked() && key_queue.waiting.len() > usize::from(key_queue.blocked.is_some())
}
