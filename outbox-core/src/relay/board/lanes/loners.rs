//! Events that are published in no batch with others, one at a time: those that hung, or may have failed a whole batch.

use crate::{event::EventId, relay::board::FastMap};

/// The events of one route that go alone.
#[derive(Debug, Default)]
pub(crate) struct Loners {
    all: FastMap<EventId, ()>,
    in_flight: Option<EventId>,
}

/// How an event may be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Company {
    /// In a batch with others.
    Others,
    /// In a batch of its own, now.
    Alone,
    /// In a batch of its own, when the one before it was answered.
    Later,
}

impl Loners {
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn add(&mut self, id: EventId) {
        self.all.insert(id, ());
    }

    /// Lets an event go with others again; tells whether it went alone.
    pub(crate) fn remove(&mut self, id: EventId) -> bool {
        self.landed(id);
        !self.all.is_empty() && self.all.remove(&id).is_some()
    }

    pub(crate) fn company(&self, id: EventId) -> Company {
        match self.in_flight {
            _ if !self.all.contains_key(&id) => Company::Others,
            None => Company::Alone,
            Some(_) => Company::Later,
        }
    }

    pub(crate) fn started(&mut self, id: EventId) {
        if self.all.contains_key(&id) {
            self.in_flight = Some(id);
        }
    }

    pub(crate) fn landed(&mut self, id: EventId) {
        if self.in_flight == Some(id) {
            self.in_flight = None;
        }
    }

    /// Forgets the events that are not held any more.
    pub(crate) fn retain(&mut self, mut is_held: impl FnMut(EventId) -> bool) {
        self.all.retain(|id, ()| is_held(*id));
        self.in_flight = self.in_flight.filter(|id| is_held(*id));
    }
}
