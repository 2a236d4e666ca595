//! Which delivery may start: one of a key at a time, in order of arrival, up to a limit in all. Pure.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// Waiting deliveries, queued by key.
#[derive(Debug)]
pub(super) struct KeyQueues<K, T> {
    /// Keys with a delivery that runs or is ready, and the deliveries behind it.
    busy: HashMap<K, VecDeque<T>>,
    /// Deliveries that may start, in order of arrival.
    ready: VecDeque<(Option<K>, T)>,
    waiting: usize,
    /// Waiting deliveries that take no slot: those of a key beyond its slots.
    over_limit: usize,
    running: usize,
    capacity: Capacity,
}

/// How many deliveries may run and wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity {
    pub(super) concurrency: usize,
    /// Deliveries that may wait beside those that run.
    pub(super) prefetch: usize,
    /// How many of these slots the deliveries behind one of their key may take.
    pub(super) per_key: usize,
}

/// What becomes of a ready delivery that is offered to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pick {
    Take,
    /// It stays ready.
    Leave,
    /// It stays ready, and so do all behind it.
    Stop,
}

/// Deliveries in memory for each slot, where keys have more waiting than their slots: as many as a broker
/// sends ahead.
const IN_MEMORY_PER_SLOT: usize = 4;

/// Gives how many deliveries wait at most, of all keys, where so many are fetched ahead.
pub(in crate::consumer) fn most_waiting(prefetch: usize) -> usize {
    prefetch.max(1).saturating_mul(IN_MEMORY_PER_SLOT)
}

impl<K: Eq + Hash + Clone, T> KeyQueues<K, T> {
    pub(super) fn new(capacity: Capacity) -> Self {
        let Capacity { concurrency, prefetch, per_key } = capacity;
        let capacity = Capacity {
            concurrency: concurrency.max(1),
            prefetch: prefetch.max(1),
            per_key: per_key.max(1),
        };
        Self {
            busy: HashMap::new(),
            ready: VecDeque::new(),
            waiting: 0,
            over_limit: 0,
            running: 0,
            capacity,
        }
    }

    /// Tells whether no delivery waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Tells whether one more delivery may arrive.
    pub(super) fn has_room(&self) -> bool {
        let Capacity { prefetch, .. } = self.capacity;
        self.waiting - self.over_limit < prefetch && self.waiting < most_waiting(prefetch)
    }

    /// Tells whether the deliveries of a key take all slots that they may.
    pub(super) fn is_full(&self, key: &K) -> bool {
        self.busy.get(key).is_some_and(|queue| queue.len() >= self.capacity.per_key)
    }

    /// Queues a delivery. Without a key it has no order.
    pub(super) fn push(&mut self, key: Option<K>, item: T) {
        self.waiting += 1;
        if let Some(k) = &key {
            if let Some(queue) = self.busy.get_mut(k) {
                queue.push_back(item);
                self.over_limit += usize::from(queue.len() > self.capacity.per_key);
                return;
            }
            self.busy.insert(k.clone(), VecDeque::new());
        }
        self.ready.push_back((key, item));
    }

    /// Gives the next delivery that may start, if there is one; it counts as running from now on.
    pub(super) fn start(&mut self) -> Option<(Option<K>, T)> {
        if self.running >= self.capacity.concurrency {
            return None;
        }
        let next = self.ready.pop_front()?;
        self.waiting -= 1;
        self.running += 1;
        Some(next)
    }

    /// Starts further deliveries that may start, in order of arrival, as `pick` says; each counts as running from
    /// now on.
    pub(super) fn start_some(&mut self, mut pick: impl FnMut(&T) -> Pick) -> Vec<(Option<K>, T)> {
        let mut taken = Vec::new();
        let mut ready = std::mem::take(&mut self.ready).into_iter();
        for (key, item) in ready.by_ref() {
            let picked = match self.running < self.capacity.concurrency {
                true => pick(&item),
                false => Pick::Stop,
            };
            match picked {
                Pick::Take => {
                    self.running += 1;
                    taken.push((key, item));
                }
                Pick::Leave => self.ready.push_back((key, item)),
                Pick::Stop => {
                    self.ready.push_back((key, item));
                    break;
                }
            }
        }
        self.ready.extend(ready);
        self.waiting -= taken.len();
        taken
    }

    /// Puts running deliveries back, in their order, before all that are ready: they have to start again.
    pub(super) fn restart(&mut self, items: Vec<(Option<K>, T)>) {
        self.running -= items.len();
        self.waiting += items.len();
        for item in items.into_iter().rev() {
            self.ready.push_front(item);
        }
    }

    /// Notes that a running delivery is acknowledged: the next of its key is ready.
    pub(super) fn finish(&mut self, key: Option<K>) {
        self.running -= 1;
        let Some(key) = key else { return };
        let Some(queue) = self.busy.get_mut(&key) else { return };
        self.over_limit -= usize::from(queue.len() > self.capacity.per_key);
        match queue.pop_front() {
            Some(next) => self.ready.push_back((Some(key), next)),
            None => _ = self.busy.remove(&key),
        }
    }

    /// Notes that a running delivery is returned, and gives the deliveries behind it, in order: the caller
    /// must return them too, or they would overtake it.
    pub(super) fn finish_nacked(&mut self, key: Option<K>) -> Vec<T> {
        self.running -= 1;
        let behind: Vec<T> = key.and_then(|k| self.busy.remove(&k)).into_iter().flatten().collect();
        self.waiting -= behind.len();
        self.over_limit -= behind.len().saturating_sub(self.capacity.per_key);
        behind
    }

    /// Removes the waiting deliveries that match, with those of their keys behind, which would overtake them.
    /// Calls `matches` once for each delivery that stays.
    pub(super) fn take_if(&mut self, mut matches: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for (key, item) in std::mem::take(&mut self.ready) {
            if !matches(&item) {
                self.ready.push_back((key, item));
                continue;
            }
            taken.push(item);
            let behind = key.and_then(|k| self.busy.remove(&k)).unwrap_or_default();
            self.over_limit -= behind.len().saturating_sub(self.capacity.per_key);
            taken.extend(behind);
        }
        for queue in self.busy.values_mut() {
            let Some(first) = queue.iter().position(&mut matches) else { continue };
            let over_limit =
                |queue: &VecDeque<T>| queue.len().saturating_sub(self.capacity.per_key);
            self.over_limit -= over_limit(queue);
            taken.extend(queue.split_off(first));
            self.over_limit += over_limit(queue);
        }
        self.waiting -= taken.len();
        taken
    }

    /// Removes all waiting deliveries; running ones go on.
    pub(super) fn drain(&mut self) -> Vec<T> {
        (self.waiting, self.over_limit) = (0, 0);
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

    fn capacity(concurrency: usize, prefetch: usize, per_key: usize) -> Capacity {
        Capacity { concurrency, prefetch, per_key }
    }

    fn start_all(queues: &mut KeyQueues<u8, u32>) -> Vec<u32> {
        std::iter::from_fn(|| queues.start()).map(|(_, n)| n).collect()
    }

    #[test]
    fn a_key_runs_alone_and_the_others_beside_it() {
        let mut queues = KeyQueues::new(capacity(3, 12, 12));
        for (key, n) in [(Some(1), 10), (Some(1), 11), (Some(2), 20), (None, 30), (None, 31)] {
            queues.push(key, n);
        }
        assert_eq!(start_all(&mut queues), [10, 20, 30]);
        queues.finish(Some(1));
        assert_eq!(start_all(&mut queues), [31], "what came first is started first");
        queues.finish(None);
        assert_eq!(start_all(&mut queues), [11]);
    }

    #[test]
    fn what_waits_behind_a_returned_delivery_is_returned_with_it() {
        let mut queues = KeyQueues::new(capacity(2, 8, 8));
        for (key, n) in [(Some(1), 10), (Some(2), 20), (Some(1), 11), (Some(1), 12)] {
            queues.push(key, n);
        }
        assert_eq!(start_all(&mut queues), [10, 20]);
        assert_eq!(queues.finish_nacked(Some(1)), [11, 12]);
        queues.push(Some(1), 10);
        assert_eq!(start_all(&mut queues), [10], "the key is free again");
    }

    #[test]
    fn room_ends_at_as_many_waiting_as_are_fetched_ahead() {
        let mut queues = KeyQueues::new(capacity(1, 4, 4));
        for n in 0..4 {
            assert!(queues.has_room());
            queues.push(Some(1), n);
        }
        assert!(!queues.has_room());
        assert_eq!(start_all(&mut queues), [0]);
        assert!(queues.has_room());
        assert_eq!(queues.drain(), [1, 2, 3]);
    }

    #[test]
    fn a_key_that_waits_leaves_places_to_the_others_until_memory_is_full() {
        let mut queues = KeyQueues::new(capacity(2, 4, 1));
        for n in 0..16 {
            assert!(queues.has_room() && queues.is_full(&1) == (n > 1), "{n}");
            queues.push(Some(1), n);
        }
        assert!(!queues.has_room(), "as many are in memory as may");
        assert_eq!(start_all(&mut queues), [0]);
        assert!(queues.has_room() && !queues.is_full(&2));
        queues.push(Some(2), 20);
        assert_eq!(start_all(&mut queues), [20], "another key goes on");
        // The places of the key are taken by what waited beyond them.
        queues.finish(Some(1));
        assert_eq!((start_all(&mut queues), queues.is_full(&1)), (vec![1], true));
        assert_eq!(queues.finish_nacked(Some(1)), (2..16).collect::<Vec<_>>());
        assert_eq!((queues.waiting, queues.over_limit, queues.is_full(&1)), (0, 0, false));
        // Deliveries of different keys take a place each.
        for key in 3..7 {
            assert!(queues.has_room());
            queues.push(Some(key), 0);
        }
        assert!(!queues.has_room());
    }

    #[test]
    fn a_batch_takes_what_it_wants_and_what_runs_again_comes_first() {
        let mut queues = KeyQueues::new(capacity(4, 16, 16));
        for (key, n) in
            [(Some(1), 10), (Some(1), 11), (None, 30), (Some(2), 20), (None, 31), (None, 33)]
        {
            queues.push(key, n);
        }
        let odd_to_31 = |n: &u32| match n {
            31.. => Pick::Stop,
            n if n % 20 == 10 => Pick::Take,
            _ => Pick::Leave,
        };
        let batch = queues.start_some(odd_to_31);
        assert_eq!(batch, [(Some(1), 10), (None, 30)], "one of a key, and none behind the stop");
        queues.restart(batch);
        assert_eq!(start_all(&mut queues), [10, 30, 20, 31], "no more than may run");
        assert_eq!(queues.start_some(|_| Pick::Take), [], "all slots are taken");
        queues.finish(Some(1));
        queues.finish(None);
        assert_eq!(queues.start_some(|_| Pick::Take), [(None, 33), (Some(1), 11)]);
        assert!(queues.is_empty());
    }

    #[derive(Debug, Clone)]
    enum Act {
        Arrive(Option<u8>),
        Start,
        StartSome(u32),
        Restart(usize),
        Finish(usize),
        Nack(usize),
        TakeIf(u32),
        Drain,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            6 => proptest::option::of(0u8..3).prop_map(Act::Arrive),
            6 => Just(Act::Start),
            3 => (1u32..5).prop_map(Act::StartSome),
            2 => (0usize..4).prop_map(Act::Restart),
            4 => (0usize..8).prop_map(Act::Finish),
            1 => (0usize..8).prop_map(Act::Nack),
            1 => (1u32..5).prop_map(Act::TakeIf),
            1 => Just(Act::Drain),
        ]
    }

    /// A delivery that starts: no other of its key runs, and none behind it was started before.
    fn note_start(
        (key, n): (Option<u8>, u32),
        running: &mut Vec<(Option<u8>, u32)>,
        last_started: &mut HashMap<u8, u32>,
    ) -> Result<(), TestCaseError> {
        if let Some(k) = key {
            prop_assert!(running.iter().all(|(other, _)| *other != Some(k)));
            prop_assert!(last_started.insert(k, n).is_none_or(|before| before < n));
        }
        running.push((key, n));
        Ok(())
    }

    /// Deliveries that start again, each before those behind it.
    fn note_restart(back: &[(Option<u8>, u32)], last_started: &mut HashMap<u8, u32>) {
        for (key, n) in back {
            let Some(key) = key else { continue };
            match n.checked_sub(1) {
                Some(before) => last_started.insert(*key, before),
                None => last_started.remove(key),
            };
        }
    }

    proptest! {
        /// Whatever happens: nothing is lost or doubled, a key never runs twice at once, never out of order, never more
        /// than the limit.
        #[test]
        fn order_holds_and_nothing_is_lost(acts in proptest::collection::vec(act(), 0..200)) {
            let mut queues = KeyQueues::new(capacity(3, 12, 2));
            let (mut arrived, mut running, mut left) = (0u32, Vec::<(Option<u8>, u32)>::new(), 0usize);
            let mut last_started: HashMap<u8, u32> = HashMap::new();
            for act in acts {
                match act {
                    Act::Arrive(key) => { queues.push(key, arrived); arrived += 1; }
                    Act::Start => if let Some(one) = queues.start() {
                        note_start(one, &mut running, &mut last_started)?;
                    },
                    Act::StartSome(one_of) => {
                        let some = queues.start_some(|n| match n % 7 {
                            6 => Pick::Stop,
                            _ if n % one_of == 0 => Pick::Take,
                            _ => Pick::Leave,
                        });
                        for one in some {
                            note_start(one, &mut running, &mut last_started)?;
                        }
                    }
                    Act::Restart(from) if from < running.len() => {
                        let back = running.split_off(from);
                        note_restart(&back, &mut last_started);
                        queues.restart(back);
                    }
                    Act::Finish(i) if i < running.len() => { queues.finish(running.remove(i).0); left += 1; }
                    Act::Nack(i) if i < running.len() => {
                        let (key, n) = running.remove(i);
                        let behind = queues.finish_nacked(key);
                        prop_assert!(key.is_some() || behind.is_empty());
                        prop_assert!(behind.iter().all(|b| *b > n) && behind.is_sorted());
                        left += 1 + behind.len();
                    }
                    Act::TakeIf(one_of) => {
                        let before = queues.waiting;
                        let taken = queues.take_if(|n| n % one_of == 0);
                        prop_assert_eq!(before, queues.waiting + taken.len());
                        left += taken.len();
                        let waits = queues.ready.iter().map(|(_, n)| n).chain(queues.busy.values().flatten());
                        prop_assert!(waits.into_iter().all(|n| n % one_of != 0), "all that match are taken");
                    }
                    Act::Drain => left += queues.drain().len(),
                    Act::Finish(_) | Act::Nack(_) | Act::Restart(_) => {}
                }
                prop_assert!(running.len() <= 3);
                prop_assert_eq!(queues.running, running.len());
                prop_assert_eq!(arrived as usize, left + running.len() + queues.waiting);
                let over_limit = queues.busy.values().map(|queue| queue.len().saturating_sub(2)).sum::<usize>();
                prop_assert_eq!(queues.over_limit, over_limit);
            }
            while let Some((key, _)) = running.pop() {
                queues.finish(key);
                running.extend(queues.start());
                left += 1;
            }
            while queues.start().is_some() { left += 1; queues.running -= 1; }
            left += queues.drain().len();
            prop_assert_eq!(arrived as usize, left);
        }
    }
}
