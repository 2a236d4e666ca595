//! Reads: the one under way, what it is for, and what is to be read next.

use super::{left_out::Stash, sizes::ReadSize};
use crate::{
    event::EventId,
    outbox::{Epoch, PartitionNo, PartitionRows, ReadPlan, StoredEvent},
    relay::board::entries::EventState,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// One read for the reader to make.
#[derive(Debug, Clone)]
pub(crate) enum ReadJob {
    /// Reads past the cursors of all partitions.
    Main { plan: ReadPlan, epochs: Vec<Epoch>, is_sweep: bool },
    /// Reads events by id, of partitions that are owned under these epochs.
    Fetch {
        ids: Vec<(PartitionNo, EventId)>,
        epochs: BTreeMap<PartitionNo, Epoch>,
        payload_limit: u32,
    },
    /// Reads evicted events of one partition again.
    Page {
        partition: PartitionNo,
        epoch: Epoch,
        from: EventId,
        to: EventId,
        limit: u32,
        payload_limit: u32,
    },
    /// Reads ids of one partition.
    Ids { partition: PartitionNo, epoch: Epoch, from: EventId, to: EventId, limit: u32 },
}

/// The answer to a read.
#[derive(Debug)]
pub(crate) enum ReadAnswer {
    /// To `Main`.
    Main(Vec<PartitionRows>),
    /// To `Fetch` and `Page`.
    Events(Vec<StoredEvent>),
    /// To `Ids`.
    Ids(Vec<EventId>),
}

/// The state of reading.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    /// The read under way.
    pub(super) reading: Option<ReadJob>,
    pub(super) started: Option<Instant>,
    /// Events of the last read, which wait for payloads that it left out, or for earlier events.
    pub(super) stash: Option<Stash>,
    /// The payloads that the stash waits for.
    pub(super) missing_payloads: BTreeMap<(PartitionNo, EventId), Option<StoredEvent>>,
    /// Fetched events, until all wanted ones before them have come.
    pub(super) fetched_events: BTreeMap<(PartitionNo, EventId), StoredEvent>,
    /// Ids to fetch: of late events, of due ones, and of those whose payload was left out, with its
    /// size.
    pub(super) wanted: BTreeMap<(PartitionNo, EventId), Option<u64>>,
    /// Ids to fetch by a read that begins after the present one has ended.
    pub(super) wanted_next: BTreeSet<(PartitionNo, EventId)>,
    pub(super) size: ReadSize,
    /// The partition whose large payloads are read first; each has its turn.
    pub(super) turn: usize,
    pub(super) woken: bool,
    pub(super) idle: Duration,
    pub(super) next_poll: Option<Instant>,
    /// The instant at which every partition is looked back over, whatever else there is to read.
    pub(super) next_look_back: Option<Instant>,
    pub(super) next_sweep: Option<Instant>,
    pub(super) paused_until: Option<Instant>,
    pub(super) pause: Duration,
}

impl Positions {
    /// Tells whether events of a read are still to be admitted: they may show rows of before a
    /// write.
    pub(crate) fn is_reading(&self) -> bool {
        self.reading.is_some() || self.stash.is_some() || !self.fetched_events.is_empty()
    }

    /// Gives the state of an event that is not admitted yet.
    pub(crate) fn state_of(&self, partition: PartitionNo, id: EventId) -> Option<EventState> {
        let place = (partition, id);
        if self.fetched_events.contains_key(&place)
            || self.stash.as_ref().is_some_and(|stash| stash.contains(partition, id))
        {
            return Some(EventState::Stashed);
        }
        let wanted = self.wanted.contains_key(&place) || self.wanted_next.contains(&place);
        wanted.then_some(EventState::Wanted)
    }

    pub(crate) fn wake(&mut self) {
        self.woken = true;
    }

    pub(crate) fn nothing_wanted(&self) -> bool {
        self.wanted.is_empty()
            && self.wanted_next.is_empty()
            && !matches!(self.reading, Some(ReadJob::Fetch { .. }))
    }

    /// Moves the ids that were to be fetched after the present read to the wanted ones.
    pub(super) fn want_next(&mut self) {
        for id in std::mem::take(&mut self.wanted_next) {
            self.wanted.entry(id).or_insert(None);
        }
    }

    pub(crate) fn partition_lost(&mut self, no: PartitionNo) {
        match &mut self.stash {
            Some(Stash::Forward(read)) => read.retain(|(p, _)| *p != no),
            Some(Stash::Page { partition, .. }) if *partition == no => self.stash = None,
            Some(Stash::Page { .. }) | None => {}
        }
        self.wanted.retain(|(p, _), _| *p != no);
        self.wanted_next.retain(|(p, _)| *p != no);
        self.missing_payloads.retain(|(p, _), _| *p != no);
        self.fetched_events.retain(|(p, _), _| *p != no);
    }
}
