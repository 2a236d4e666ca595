//! Which delivery may start: one of a key at a time, in order of arrival, and so many in all. Pure.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// Deliveries that wait and keys that are busy.
#[derive(Debug)]
pub(super) struct Lanes<K, T> {
    /// Keys with a delivery that runs or is ready, and what waits behind it.
    busy: HashMap<K, VecDeque<T>>,
    /// What may start, in order of arrival.
    ready: VecDeque<(Option<K>, T)>,
    waiting: usize,
    /// Those of them that take no place: what waits of a key beyond its places.
    beyond: usize,
    running: usize,
    places: Places,
}

/// How many deliveries may run and wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    pub(super) concurrency: usize,
    /// Deliveries that may wait beside those that run.
    pub(super) prefetch: usize,
    /// How many of these places the deliveries behind one of their key may take.
    pub(super) per_key: usize,
}

/// Deliveries in memory for each place, where keys have more waiting than their places: as many as a broker sends ahead.
const IN_MEMORY_PER_PLACE: usize = 4;

impl<K: Eq + Hash + Clone, T> Lanes<K, T> {
    pub(super) fn new(places: Places) -> Self {
        let Places { concurrency, prefetch, per_key } = places;
        let places = Places {
            concurrency: concurrency.max(1),
            prefetch: prefetch.max(1),
            per_key: per_key.max(1),
        };
        Self {
            busy: HashMap::new(),
            ready: VecDeque::new(),
            waiting: 0,
            beyond: 0,
            running: 0,
            places,
        }
    }

    /// Tells whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Tells whether one more delivery may arrive.
    pub(super) fn has_room(&self) -> bool {
        let Places { prefetch, .. } = self.places;
        self.waiting - self.beyond < prefetch
            && self.waiting < prefetch.saturating_mul(IN_MEMORY_PER_PLACE)
    }

    /// Tells whether the deliveries of a key take all places that they may.
    pub(super) fn is_full(&self, key: &K) -> bool {
        self.busy.get(key).is_some_and(|lane| lane.len() >= self.places.per_key)
    }

    /// Takes in a delivery. Without a key it has no order.
    pub(super) fn arrive(&mut self, key: Option<K>, item: T) {
        self.waiting += 1;
        if let Some(k) = &key {
            if let Some(lane) = self.busy.get_mut(k) {
                lane.push_back(item);
                self.beyond += usize::from(lane.len() > self.places.per_key);
                return;
            }
            self.busy.insert(k.clone(), VecDeque::new());
        }
        self.ready.push_back((key, item));
    }

    /// Gives the next delivery that may start, if there is one; it counts as running from now on.
    pub(super) fn start(&mut self) -> Option<(Option<K>, T)> {
        if self.running >= self.places.concurrency {
            return None;
        }
        let next = self.ready.pop_front()?;
        self.waiting -= 1;
        self.running += 1;
        Some(next)
    }

    /// Notes that a running delivery is answered: the next of its key is ready.
    pub(super) fn finish(&mut self, key: Option<K>) {
        self.running -= 1;
        let Some(key) = key else { return };
        let Some(lane) = self.busy.get_mut(&key) else { return };
        self.beyond -= usize::from(lane.len() > self.places.per_key);
        match lane.pop_front() {
            Some(next) => self.ready.push_back((Some(key), next)),
            None => _ = self.busy.remove(&key),
        }
    }

    /// Notes that a running delivery is returned and will come again, and gives what waits behind it, in order: it must
    /// be returned too, or it would overtake.
    pub(super) fn turn_back(&mut self, key: Option<K>) -> Vec<T> {
        self.running -= 1;
        let behind: Vec<T> = key.and_then(|k| self.busy.remove(&k)).into_iter().flatten().collect();
        self.waiting -= behind.len();
        self.beyond -= behind.len().saturating_sub(self.places.per_key);
        behind
    }

    /// Takes out what waits and is meant, with what waits behind it, which would overtake it. Asks once for each that stays.
    pub(super) fn take_if(&mut self, mut is_meant: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for (key, item) in std::mem::take(&mut self.ready) {
            if !is_meant(&item) {
                self.ready.push_back((key, item));
                continue;
            }
            taken.push(item);
            let behind = key.and_then(|k| self.busy.remove(&k)).unwrap_or_default();
            self.beyond -= behind.len().saturating_sub(self.places.per_key);
            taken.extend(behind);
        }
        for lane in self.busy.values_mut() {
            let Some(first) = lane.iter().position(&mut is_meant) else { continue };
            let beyond = |lane: &VecDeque<T>| lane.len().saturating_sub(self.places.per_key);
            self.beyond -= beyond(lane);
            taken.extend(lane.split_off(first));
            self.beyond += beyond(lane);
        }
        self.waiting -= taken.len();
        taken
    }

    /// Gives everything that waits; what runs, runs on.
    pub(super) fn drain(&mut self) -> Vec<T> {
        (self.waiting, self.beyond) = (0, 0);
        let mut all = Vec::new();
        for (key, item) in self.ready.drain(..) {
            all.push(item);
            all.extend(key.and_then(|k| self.busy.remove(&k)).into_iter().flatten());
        }
        all.extend(self.busy.values_mut().flat_map(std::mem::take));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn places(concurrency: usize, prefetch: usize, per_key: usize) -> Places {
        Places { concurrency, prefetch, per_key }
    }

    fn start_all(lanes: &mut Lanes<u8, u32>) -> Vec<u32> {
        std::iter::from_fn(|| lanes.start()).map(|(_, n)| n).collect()
    }

    #[test]
    fn a_key_runs_alone_and_the_others_beside_it() {
        let mut lanes = Lanes::new(places(3, 12, 12));
        for (key, n) in [(Some(1), 10), (Some(1), 11), (Some(2), 20), (None, 30), (None, 31)] {
            lanes.arrive(key, n);
        }
        assert_eq!(start_all(&mut lanes), [10, 20, 30]);
        lanes.finish(Some(1));
        assert_eq!(start_all(&mut lanes), [31], "what came first is started first");
        lanes.finish(None);
        assert_eq!(start_all(&mut lanes), [11]);
    }

    #[test]
    fn what_waits_behind_a_returned_delivery_is_returned_with_it() {
        let mut lanes = Lanes::new(places(2, 8, 8));
        for (key, n) in [(Some(1), 10), (Some(2), 20), (Some(1), 11), (Some(1), 12)] {
            lanes.arrive(key, n);
        }
        assert_eq!(start_all(&mut lanes), [10, 20]);
        assert_eq!(lanes.turn_back(Some(1)), [11, 12]);
        lanes.arrive(Some(1), 10);
        assert_eq!(start_all(&mut lanes), [10], "the key is free again");
    }

    #[test]
    fn room_ends_at_as_many_waiting_as_are_fetched_ahead() {
        let mut lanes = Lanes::new(places(1, 4, 4));
        for n in 0..4 {
            assert!(lanes.has_room());
            lanes.arrive(Some(1), n);
        }
        assert!(!lanes.has_room());
        assert_eq!(start_all(&mut lanes), [0]);
        assert!(lanes.has_room());
        assert_eq!(lanes.drain(), [1, 2, 3]);
    }

    #[test]
    fn a_key_that_waits_leaves_places_to_the_others_until_memory_is_full() {
        let mut lanes = Lanes::new(places(2, 4, 1));
        for n in 0..16 {
            assert!(lanes.has_room() && lanes.is_full(&1) == (n > 1), "{n}");
            lanes.arrive(Some(1), n);
        }
        assert!(!lanes.has_room(), "as many are in memory as may");
        assert_eq!(start_all(&mut lanes), [0]);
        assert!(lanes.has_room() && !lanes.is_full(&2));
        lanes.arrive(Some(2), 20);
        assert_eq!(start_all(&mut lanes), [20], "another key goes on");
        // The places of the key are taken by what waited beyond them.
        lanes.finish(Some(1));
        assert_eq!((start_all(&mut lanes), lanes.is_full(&1)), (vec![1], true));
        assert_eq!(lanes.turn_back(Some(1)), (2..16).collect::<Vec<_>>());
        assert_eq!((lanes.waiting, lanes.beyond, lanes.is_full(&1)), (0, 0, false));
        // Deliveries of different keys take a place each.
        for key in 3..7 {
            assert!(lanes.has_room());
            lanes.arrive(Some(key), 0);
        }
        assert!(!lanes.has_room());
    }

    #[derive(Debug, Clone)]
    enum Act {
        Arrive(Option<u8>),
        Start,
        Finish(usize),
        TurnBack(usize),
        TakeIf(u32),
        Drain,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            6 => proptest::option::of(0u8..3).prop_map(Act::Arrive),
            6 => Just(Act::Start),
            4 => (0usize..8).prop_map(Act::Finish),
            1 => (0usize..8).prop_map(Act::TurnBack),
            1 => (1u32..5).prop_map(Act::TakeIf),
            1 => Just(Act::Drain),
        ]
    }

    proptest! {
        /// Whatever happens: nothing is lost or doubled, a key never runs twice at once, never out of order, never more
        /// than the limit.
        #[test]
        fn order_holds_and_nothing_is_lost(acts in proptest::collection::vec(act(), 0..200)) {
            let mut lanes = Lanes::new(places(3, 12, 2));
            let (mut arrived, mut running, mut left) = (0u32, Vec::<(Option<u8>, u32)>::new(), 0usize);
            let mut last_started: HashMap<u8, u32> = HashMap::new();
            for act in acts {
                match act {
                    Act::Arrive(key) => { lanes.arrive(key, arrived); arrived += 1; }
                    Act::Start => if let Some((key, n)) = lanes.start() {
                        if let Some(k) = key {
                            prop_assert!(running.iter().all(|(other, _)| *other != Some(k)));
                            prop_assert!(last_started.insert(k, n).is_none_or(|before| before < n));
                        }
                        running.push((key, n));
                    },
                    Act::Finish(i) if i < running.len() => { lanes.finish(running.remove(i).0); left += 1; }
                    Act::TurnBack(i) if i < running.len() => {
                        let (key, n) = running.remove(i);
                        let behind = lanes.turn_back(key);
                        prop_assert!(key.is_some() || behind.is_empty());
                        prop_assert!(behind.iter().all(|b| *b > n) && behind.is_sorted());
                        left += 1 + behind.len();
                    }
                    Act::TakeIf(one_of) => {
                        let before = lanes.waiting;
                        let taken = lanes.take_if(|n| n % one_of == 0);
                        prop_assert_eq!(before, lanes.waiting + taken.len());
                        left += taken.len();
                        let waits = lanes.ready.iter().map(|(_, n)| n).chain(lanes.busy.values().flatten());
                        prop_assert!(waits.into_iter().all(|n| n % one_of != 0), "all that are meant are taken");
                    }
                    Act::Drain => left += lanes.drain().len(),
                    Act::Finish(_) | Act::TurnBack(_) => {}
                }
                prop_assert!(running.len() <= 3);
                prop_assert_eq!(lanes.running, running.len());
                prop_assert_eq!(arrived as usize, left + running.len() + lanes.waiting);
                let beyond = lanes.busy.values().map(|lane| lane.len().saturating_sub(2)).sum::<usize>();
                prop_assert_eq!(lanes.beyond, beyond);
            }
            while let Some((key, _)) = running.pop() {
                lanes.finish(key);
                running.extend(lanes.start());
                left += 1;
            }
            while lanes.start().is_some() { left += 1; lanes.running -= 1; }
            left += lanes.drain().len();
            prop_assert_eq!(arrived as usize, left);
        }
    }
}
