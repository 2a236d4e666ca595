//! Which record may be given out, and how far each partition is done. Pure.
//!
//! Of the records of one key one is out at a time, in the order of the partition; records of other keys go beside it. What
//! comes back goes again before anything later of its key. A partition is done up to the first record that is not.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

/// A partition of a topic.
pub(crate) type Place = (Arc<str>, i32);

/// Says which record was given out, and during which ownership of its partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) place: Place,
    pub(crate) offset: i64,
    epoch: u64,
}

/// What is known of the size of a record.
pub(crate) trait Weight {
    /// Bytes that it keeps in memory.
    fn bytes(&self) -> usize;
}

/// The partitions that are ours, with what arrived of them.
#[derive(Debug)]
pub(crate) struct Ledger<R> {
    partitions: BTreeMap<Place, Partition<R>>,
    /// Whose turn it was.
    last: Option<Place>,
    epochs: u64,
    waiting: usize,
    held: usize,
    /// How many may wait behind one of their key that is out and count as waiting.
    per_key: usize,
    /// How many wait beyond that.
    beyond: usize,
    /// Bytes of those that wait and those that are out.
    bytes: usize,
}

#[derive(Debug)]
struct Partition<R> {
    epoch: u64,
    /// What arrived from the first record on that is not done, in order of offsets.
    slots: VecDeque<Slot<R>>,
    /// Offsets that may be given out.
    ready: BTreeSet<i64>,
    /// Offsets of each key that is out or ready, its own first.
    lanes: HashMap<u64, VecDeque<i64>>,
    out: usize,
    /// Where the group goes on: behind the last record before which all are done.
    position: Option<i64>,
    /// The position that was handed over to be committed.
    committing: Option<i64>,
    /// Nothing more is given out: the partition is about to go.
    leaving: bool,
}

#[derive(Debug)]
struct Slot<R> {
    offset: i64,
    key: Option<u64>,
    state: State<R>,
}

#[derive(Debug)]
enum State<R> {
    Waiting(R),
    Out(R),
    Done,
}

impl<R: Clone + Weight> Ledger<R> {
    /// Makes one in which so many records may wait behind one of their key before they count as waiting no more.
    pub(crate) fn new(per_key: usize) -> Self {
        Self {
            partitions: BTreeMap::new(),
            last: None,
            epochs: 0,
            waiting: 0,
            held: 0,
            per_key,
            beyond: 0,
            bytes: 0,
        }
    }

    /// Takes a partition over. One that was ours already begins anew.
    pub(crate) fn assign(&mut self, place: Place) {
        self.revoke(&place);
        self.epochs += 1;
        let partition = Partition {
            epoch: self.epochs,
            slots: VecDeque::new(),
            ready: BTreeSet::new(),
            lanes: HashMap::new(),
            out: 0,
            position: None,
            committing: None,
            leaving: false,
        };
        self.partitions.insert(place, partition);
    }

    /// Gives a partition up: what is out of it is no longer answered for here.
    pub(crate) fn revoke(&mut self, place: &Place) {
        if let Some(partition) = self.partitions.remove(place) {
            self.held -= partition.slots.len();
            self.beyond -=
                partition.lanes.values().map(|lane| beyond(lane, self.per_key)).sum::<usize>();
            self.waiting -= partition
                .slots
                .iter()
                .filter(|slot| matches!(slot.state, State::Waiting(_)))
                .count();
            self.bytes -= partition.slots.iter().map(Slot::bytes).sum::<usize>();
        }
    }

    /// Lists our partitions.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Place> {
        self.partitions.keys()
    }

    /// Takes in a record; one of a partition that is not ours is left to its owner. Offsets rise; where they do not, the topic
    /// was made anew or cut off, and the partition begins anew too.
    pub(crate) fn arrive(&mut self, place: &Place, offset: i64, key: Option<u64>, record: R) {
        let Some(partition) = self.partitions.get(place) else { return };
        let last = partition
            .slots
            .back()
            .map(|slot| slot.offset)
            .or(partition.position.map(|next| next - 1));
        if last.is_some_and(|last| offset <= last) {
            self.assign(place.clone());
        }
        let Some(partition) = self.partitions.get_mut(place) else { return };
        self.bytes += record.bytes();
        partition.slots.push_back(Slot { offset, key, state: State::Waiting(record) });
        self.waiting += 1;
        self.held += 1;
        if let Some(key) = key {
            let lane = partition.lanes.entry(key).or_default();
            lane.push_back(offset);
            if lane.len() > 1 {
                self.beyond += usize::from(beyond(lane, self.per_key) > 0);
                return;
            }
        }
        partition.ready.insert(offset);
    }

    /// Gives out the next record: of each partition in turn, the earliest that may go.
    pub(crate) fn next(&mut self) -> Option<(Ticket, R)> {
        let may = |(_, partition): &(&Place, &Partition<R>)| {
            !partition.leaving && !partition.ready.is_empty()
        };
        let behind = self.last.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let turn = self.partitions.range((behind, Bound::Unbounded)).find(may);
        let place =
            turn.or_else(|| self.partitions.iter().find(may)).map(|(place, _)| place.clone())?;
        self.last = Some(place.clone());
        let partition = self.partitions.get_mut(&place)?;
        let offset = partition.ready.pop_first()?;
        let slot = partition.slot(offset)?;
        let record = match std::mem::replace(&mut slot.state, State::Done) {
            State::Waiting(record) | State::Out(record) => record,
            State::Done => return None,
        };
        slot.state = State::Out(record.clone());
        partition.out += 1;
        self.waiting -= 1;
        Some((Ticket { place, offset, epoch: partition.epoch }, record))
    }

    /// Notes that a record is done; `false` when its partition is no longer ours.
    pub(crate) fn done(&mut self, ticket: &Ticket) -> bool {
        let per_key = self.per_key;
        let Some(partition) = self.owned(ticket) else { return false };
        let Some(slot) = partition.slot(ticket.offset) else { return false };
        let (key, bytes) = (slot.key, slot.bytes());
        slot.state = State::Done;
        partition.out -= 1;
        let mut comes_up = 0;
        if let Some(key) = key
            && let Some(lane) = partition.lanes.get_mut(&key)
        {
            comes_up = usize::from(beyond(lane, per_key) > 0);
            lane.pop_front();
            match lane.front() {
                Some(next) => _ = partition.ready.insert(*next),
                None => _ = partition.lanes.remove(&key),
            }
        }
        let mut gone = 0;
        while let Some(Slot { offset, state: State::Done, .. }) = partition.slots.front() {
            partition.position = Some(offset + 1);
            partition.slots.pop_front();
            gone += 1;
        }
        self.held -= gone;
        self.beyond -= comes_up;
        self.bytes -= bytes;
        true
    }

    /// Notes that a record comes back, to go again; `false` when its partition is no longer ours.
    pub(crate) fn back(&mut self, ticket: &Ticket) -> bool {
        let Some(partition) = self.owned(ticket) else { return false };
        let Some(slot) = partition.slot(ticket.offset) else { return false };
        slot.state = match std::mem::replace(&mut slot.state, State::Done) {
            State::Waiting(record) | State::Out(record) => State::Waiting(record),
            State::Done => return false,
        };
        partition.out -= 1;
        partition.ready.insert(ticket.offset);
        self.waiting += 1;
        true
    }

    /// Gives nothing more out of a partition, and says how many of it are out.
    pub(crate) fn leave(&mut self, place: &Place) -> usize {
        self.partitions.get_mut(place).map_or(0, |partition| {
            partition.leaving = true;
            partition.out
        })
    }

    /// Hands over the positions that have moved, to be committed.
    pub(crate) fn moved(&mut self) -> Vec<(Place, i64)> {
        let mut moved = Vec::new();
        for (place, partition) in &mut self.partitions {
            if partition.position != partition.committing {
                partition.committing = partition.position;
                moved.extend(partition.position.map(|position| (place.clone(), position)));
            }
        }
        moved
    }

    /// Notes that a position could not be committed: it is handed over again.
    pub(crate) fn not_committed(&mut self, place: &Place) {
        if let Some(partition) = self.partitions.get_mut(place) {
            partition.committing = None;
        }
    }

    /// How many records wait to be given out.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many of them wait behind so many of their key that they take nobody else's place.
    pub(crate) fn beyond(&self) -> usize {
        self.beyond
    }

    /// How many records are known: those that wait, those that are out, and those behind them that are done.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Bytes of the records that wait or are out.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn owned(&mut self, ticket: &Ticket) -> Option<&mut Partition<R>> {
        self.partitions.get_mut(&ticket.place).filter(|partition| partition.epoch == ticket.epoch)
    }
}

/// Gives how many records of a key wait behind those that count as waiting, and behind the first.
fn beyond(lane: &VecDeque<i64>, per_key: usize) -> usize {
    lane.len().saturating_sub(1).saturating_sub(per_key)
}

impl<R: Weight> Slot<R> {
    fn bytes(&self) -> usize {
        match &self.state {
            State::Waiting(record) | State::Out(record) => record.bytes(),
            State::Done => 0,
        }
    }
}

impl<R> Partition<R> {
    fn slot(&mut self, offset: i64) -> Option<&mut Slot<R>> {
        let at = self.slots.partition_point(|slot| slot.offset < offset);
        self.slots.get_mut(at).filter(|slot| slot.offset == offset)
    }
}

#[cfg(test)]
mod tests;
