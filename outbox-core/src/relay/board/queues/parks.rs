//! Keys that do not move: parked keys, which wait for an operator's decision about their head, and
//! the eviction of blocked keys when there is no room.

use crate::relay::board::{
    Board, RouteNo,
    entries::{EventEntry, LegEvent, RouteLeg},
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

    /// Takes keys that operators have unparked. They are reported until the keeper has deleted
    /// their rows; what is known is ignored.
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
        self.parks.more_parked.retain(|(route, hash, _)| queues[*route].has_key(*hash));
        for park in parked_keys {
            let Some(route) = self.routes.iter().position(|r| r.name == park.route) else {
                continue;
            };
            if !queues[route].park_behind(park.key_hash, partition, park.letter) {
                self.parks.more_parked.insert((route, park.key_hash, park.letter));
            }
        }
    }

    /// Takes the ids of dead letters. It comes before the message that the same events are
    /// recorded, which opens a parked key that has no letter.
    pub(crate) fn letters_written(&mut self, letters: &[(EventId, Arc<str>, LetterId)]) {
        for (id, route, letter) in letters {
            let Some(route) = self.routes.iter().position(|r| r.name == *route) else { continue };
            let Some(hash) = self.entries.get(*id).and_then(EventEntry::key_hash) else {
                continue;
            };
            self.queues[route].letter_written(hash, *id, *letter);
        }
    }

    /// Opens unparked keys, redriven heads first.
    fn open_unparked(&mut self) {
        let mut heads = Vec::new();
        for (epoch, park) in std::mem::take(&mut self.parks.unparked) {
            let owned = self.partitions.get(&park.partition);
            let Some(partition) = owned.filter(|p| p.epoch() == epoch) else { continue };
            let Some(route) = self.routes.iter().position(|r| r.name == park.route) else {
                continue;
            };
            let hash = xxh3_64(park.key.as_bytes());
            let queue = &mut self.queues[route];
            let Some(parked) = queue.parked(hash) else { continue };
            // Not yet, if the read has not come to the redriven head: it comes in order, behind the
            // earlier events of its key. Nor if the letter of the present head is still being
            // written: whether the decision is about that letter is not known before.
            let is_ahead = park.redriven && partition.is_full() && partition.cursor() < park.event;
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
                queue.park_on(hash, next.2);
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
            self.queues[route].unpark(hash);
        }
    }

    /// In full routes, evicts the waiting events of blocked keys, all but the heads: they are read
    /// again when the key moves.
    pub(crate) fn evict_blocked_keys(&mut self) {
        for route in 0..self.queues.len() {
            for hash in self.queues[route].take_keys_to_evict() {
                self.evict_blocked(route, hash);
            }
        }
    }

    /// Evicts the waiting events of a blocked key, all but the head.
    fn evict_blocked(&mut self, route: RouteNo, hash: u64) {
        let entries = &self.entries;
        let has_begun = |id: EventId| entries.leg(id, route).is_some_and(RouteLeg::has_begun);
        let Some((no, tail)) = self.queues[route].evict_behind_head(hash, has_begun) else {
            return;
        };
        if let Some(partition) = self.partitions.get_mut(&no) {
            partition.evict_key(route, hash);
            tail.iter().for_each(|id| partition.evict(*id));
        }
        for id in tail {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            if let Some(leg) = entry.leg_mut(route) {
                leg.apply(LegEvent::Evicted);
            }
            self.queues[route].release_capacity(entry.bytes());
            self.stats.evicted += 1;
            self.end_isolation(id, route);
            self.drop_evicted(id);
        }
    }

    /// Drops the entry of an evicted event, unless routes of it have ended and that is not
    /// recorded.
    fn drop_evicted(&mut self, id: EventId) {
        if self.entries.get(id).is_some_and(|entry| !entry.has_unrecorded_end()) {
            self.entries.drop_if_unused(id);
        }
        // Else the event is partially confirmed: its entry is dropped when that is recorded.
    }
}
