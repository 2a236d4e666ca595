//! Events that are published in batches of their own, one at a time: their publish hung, or they
//! may have failed a whole batch.

use crate::{event::EventId, relay::board::FastMap};

/// The events of one route that are published in batches of their own.
#[derive(Debug, Default)]
pub(super) struct SoloEvents {
    all: FastMap<EventId, ()>,
    in_flight: Option<EventId>,
}

/// How an event may be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchFit {
    /// In a batch with other events.
    Shared,
    /// In a batch of its own, now.
    Solo,
    /// In a batch of its own, when the publish of the one before it has ended.
    SoloLater,
}

impl SoloEvents {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn add(&mut self, id: EventId) {
        self.all.insert(id, ());
    }

    /// Allows an event in shared batches again; tells whether it was published alone.
    pub(super) fn remove(&mut self, id: EventId) -> bool {
        self.clear_in_flight(id);
        !self.all.is_empty() && self.all.remove(&id).is_some()
    }

    pub(super) fn batch_fit(&self, id: EventId) -> BatchFit {
        match self.in_flight {
            _ if !self.all.contains_key(&id) => BatchFit::Shared,
            None => BatchFit::Solo,
            Some(_) => BatchFit::SoloLater,
        }
    }

    pub(super) fn started(&mut self, id: EventId) {
        if self.all.contains_key(&id) {
            self.in_flight = Some(id);
        }
    }

    pub(super) fn clear_in_flight(&mut self, id: EventId) {
        if self.in_flight == Some(id) {
            self.in_flight = None;
        }
    }

    /// Drops the events that are no longer in memory.
    pub(super) fn retain(&mut self, mut in_memory: impl FnMut(EventId) -> bool) {
        self.all.retain(|id, ()| in_memory(*id));
        self.in_flight = self.in_flight.filter(|id| in_memory(*id));
    }
}
