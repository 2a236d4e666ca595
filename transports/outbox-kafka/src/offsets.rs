//! Which record to deliver next, and the position of each partition to commit. Pure.
//!
//! One record of a key is in flight at a time, in the order of the partition; records of other keys
//! are in flight beside it. A requeued record is delivered again before any later one of its key.
//! The position of a partition is the first record that is not done.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

/// A partition of a topic.
pub(crate) type TopicPartition = (Arc<str>, i32);

/// Identifies a delivered record, and the ownership of its partition in which it was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeliveryTag {
    pub(crate) partition: TopicPartition,
    pub(crate) offset: i64,
    epoch: u64,
}

/// The size of a record.
pub(crate) trait Weight {
    /// Bytes that it keeps in memory.
    fn bytes(&self) -> usize;
}

/// The partitions that the member owns, with their records.
#[derive(Debug)]
pub(crate) struct OffsetTracker<R> {
    partitions: BTreeMap<TopicPartition, Partition<R>>,
    /// The partition that was served last.
    last_served: Option<TopicPartition>,
    epochs: u64,
    waiting: usize,
    tracked: usize,
    /// How many records may wait behind one of their key that is in flight and count as waiting.
    per_key: usize,
    /// How many records wait beyond that.
    excess: usize,
    /// Bytes of the waiting and the in-flight records.
    bytes: usize,
}

#[derive(Debug)]
struct Partition<R> {
    epoch: u64,
    /// The records from the first one on that is not done, in order of offsets.
    entries: VecDeque<Entry<R>>,
    /// Offsets that may be delivered.
    ready: BTreeSet<i64>,
    /// Offsets of each key, the one that is in flight or ready first.
    by_key: HashMap<u64, VecDeque<i64>>,
    in_flight: usize,
    /// Where the group continues: the first offset before which all records are done.
    position: Option<i64>,
    /// The position that was last taken to be committed.
    committing: Option<i64>,
    /// The position that the brokers are known to have committed.
    confirmed: Option<i64>,
    /// The partition is about to be revoked: nothing more of it is delivered.
    draining: bool,
}

#[derive(Debug)]
struct Entry<R> {
    offset: i64,
    key: Option<u64>,
    state: State<R>,
}

#[derive(Debug)]
enum State<R> {
    Waiting(R),
    InFlight(R),
    Done,
}

impl<R: Clone + Weight> OffsetTracker<R> {
    /// Makes a tracker in which `per_key` records may wait behind one of their key and count as
    /// waiting.
    pub(crate) fn new(per_key: usize) -> Self {
        Self {
            partitions: BTreeMap::new(),
            last_served: None,
            epochs: 0,
            waiting: 0,
            tracked: 0,
            per_key,
            excess: 0,
            bytes: 0,
        }
    }

    /// Starts to track a partition. A partition that the member owned already starts from scratch.
    pub(crate) fn assign(&mut self, id: TopicPartition) {
        self.revoke(&id);
        self.epochs += 1;
        let partition = Partition {
            epoch: self.epochs,
            entries: VecDeque::new(),
            ready: BTreeSet::new(),
            by_key: HashMap::new(),
            in_flight: 0,
            position: None,
            committing: None,
            confirmed: None,
            draining: false,
        };
        self.partitions.insert(id, partition);
    }

    /// Forgets a partition: later ack decisions of its records are ignored.
    pub(crate) fn revoke(&mut self, id: &TopicPartition) {
        if let Some(partition) = self.partitions.remove(id) {
            self.tracked -= partition.entries.len();
            self.excess -= partition
                .by_key
                .values()
                .map(|offsets| excess(offsets, self.per_key))
                .sum::<usize>();
            self.waiting -= partition
                .entries
                .iter()
                .filter(|entry| matches!(entry.state, State::Waiting(_)))
                .count();
            self.bytes -= partition.entries.iter().map(Entry::bytes).sum::<usize>();
        }
    }

    /// Lists the partitions that the member owns.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.keys()
    }

    /// Adds a record, unless the member does not own its partition. Offsets rise; where they do
    /// not, the topic was recreated or truncated, and the partition starts from scratch.
    pub(crate) fn push(&mut self, id: &TopicPartition, offset: i64, key: Option<u64>, record: R) {
        let Some(partition) = self.partitions.get(id) else { return };
        let last = partition
            .entries
            .back()
            .map(|entry| entry.offset)
            .or(partition.position.map(|next| next - 1));
        if last.is_some_and(|last| offset <= last) {
            self.assign(id.clone());
        }
        let Some(partition) = self.partitions.get_mut(id) else { return };
        self.bytes += record.bytes();
        partition.entries.push_back(Entry { offset, key, state: State::Waiting(record) });
        self.waiting += 1;
        self.tracked += 1;
        if let Some(key) = key {
            let offsets = partition.by_key.entry(key).or_default();
            offsets.push_back(offset);
            if offsets.len() > 1 {
                self.excess += usize::from(excess(offsets, self.per_key) > 0);
                return;
            }
        }
        partition.ready.insert(offset);
    }

    /// Delivers the next record: of each partition in turn, the earliest that is ready.
    pub(crate) fn next(&mut self) -> Option<(DeliveryTag, R)> {
        let is_ready = |(_, partition): &(&TopicPartition, &Partition<R>)| {
            !partition.draining && !partition.ready.is_empty()
        };
        let after = self.last_served.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.partitions.range((after, Bound::Unbounded)).find(is_ready);
        let id =
            next.or_else(|| self.partitions.iter().find(is_ready)).map(|(id, _)| id.clone())?;
        self.last_served = Some(id.clone());
        let partition = self.partitions.get_mut(&id)?;
        let offset = partition.ready.pop_first()?;
        let entry = partition.entry(offset)?;
        let record = match std::mem::replace(&mut entry.state, State::Done) {
            State::Waiting(record) | State::InFlight(record) => record,
            State::Done => return None,
        };
        entry.state = State::InFlight(record.clone());
        partition.in_flight += 1;
        self.waiting -= 1;
        Some((DeliveryTag { partition: id, offset, epoch: partition.epoch }, record))
    }

    /// Marks a record as done; `false` when the member no longer owns its partition.
    pub(crate) fn done(&mut self, tag: &DeliveryTag) -> bool {
        let per_key = self.per_key;
        let Some(partition) = self.owned(tag) else { return false };
        let Some(entry) = partition.entry(tag.offset) else { return false };
        let (key, bytes) = (entry.key, entry.bytes());
        entry.state = State::Done;
        partition.in_flight -= 1;
        let mut no_longer_excess = 0;
        if let Some(key) = key
            && let Some(offsets) = partition.by_key.get_mut(&key)
        {
            no_longer_excess = usize::from(excess(offsets, per_key) > 0);
            offsets.pop_front();
            match offsets.front() {
                Some(next) => _ = partition.ready.insert(*next),
                None => _ = partition.by_key.remove(&key),
            }
        }
        let mut untracked = 0;
        while let Some(Entry { offset, state: State::Done, .. }) = partition.entries.front() {
            partition.position = Some(offset + 1);
            partition.entries.pop_front();
            untracked += 1;
        }
        self.tracked -= untracked;
        self.excess -= no_longer_excess;
        self.bytes -= bytes;
        true
    }

    /// Requeues a record, to be delivered again; `false` when the member no longer owns its
    /// partition.
    pub(crate) fn requeue(&mut self, tag: &DeliveryTag) -> bool {
        let Some(partition) = self.owned(tag) else { return false };
        let Some(entry) = partition.entry(tag.offset) else { return false };
        entry.state = match std::mem::replace(&mut entry.state, State::Done) {
            State::Waiting(record) | State::InFlight(record) => State::Waiting(record),
            State::Done => return false,
        };
        partition.in_flight -= 1;
        partition.ready.insert(tag.offset);
        self.waiting += 1;
        true
    }

    /// Stops delivering records of a partition, and tells how many of it are in flight.
    pub(crate) fn drain(&mut self, id: &TopicPartition) -> usize {
        self.partitions.get_mut(id).map_or(0, |partition| {
            partition.draining = true;
            partition.in_flight
        })
    }

    /// Takes the positions that have moved, to be committed.
    pub(crate) fn take_moved(&mut self) -> Vec<(TopicPartition, i64)> {
        let mut moved = Vec::new();
        for (id, partition) in &mut self.partitions {
            if partition.position != partition.committing {
                partition.committing = partition.position;
                moved.extend(partition.position.map(|position| (id.clone(), position)));
            }
        }
        moved
    }

    /// Marks a position as uncommitted after a failed commit: `take_moved` gives it again.
    pub(crate) fn commit_failed(&mut self, id: &TopicPartition) {
        if let Some(partition) = self.partitions.get_mut(id) {
            partition.committing = None;
        }
    }

    /// Lists the positions of partitions that the brokers are not known to have committed, whether
    /// they were taken to be committed or not.
    pub(crate) fn unconfirmed<'p>(
        &self,
        ids: impl IntoIterator<Item = &'p TopicPartition>,
    ) -> Vec<(TopicPartition, i64)> {
        let position_of = |id: &TopicPartition| {
            let partition = self.partitions.get(id)?;
            let position = partition.position?;
            (partition.confirmed != Some(position)).then(|| (id.clone(), position))
        };
        ids.into_iter().filter_map(position_of).collect()
    }

    /// Records that the brokers have committed a position.
    pub(crate) fn confirm(&mut self, id: &TopicPartition, position: i64) {
        if let Some(partition) = self.partitions.get_mut(id) {
            partition.confirmed = Some(position);
        }
    }

    /// How many records wait to be delivered.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many of them wait behind so many of their key that they do not count towards the limit.
    pub(crate) fn excess(&self) -> usize {
        self.excess
    }

    /// How many records it tracks: waiting ones, those in flight, and done ones behind them.
    pub(crate) fn tracked(&self) -> usize {
        self.tracked
    }

    /// Bytes of the waiting and the in-flight records.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn owned(&mut self, tag: &DeliveryTag) -> Option<&mut Partition<R>> {
        self.partitions.get_mut(&tag.partition).filter(|partition| partition.epoch == tag.epoch)
    }
}

/// Gives how many records of a key wait behind the first one and the `per_key` that count as
/// waiting.
fn excess(offsets: &VecDeque<i64>, per_key: usize) -> usize {
    offsets.len().saturating_sub(1).saturating_sub(per_key)
}

impl<R: Weight> Entry<R> {
    fn bytes(&self) -> usize {
        match &self.state {
            State::Waiting(record) | State::InFlight(record) => record.bytes(),
            State::Done => 0,
        }
    }
}

impl<R> Partition<R> {
    fn entry(&mut self, offset: i64) -> Option<&mut Entry<R>> {
        let index = self.entries.partition_point(|entry| entry.offset < offset);
        self.entries.get_mut(index).filter(|entry| entry.offset == offset)
    }
}

#[cfg(test)]
mod tests;
