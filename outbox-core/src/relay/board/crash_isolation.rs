//! Finds the event that ends its process. After a crash the relay records the start of every event
//! that may have been in flight before it publishes the event. An event that has a recorded start
//! without an end is published alone.
//!
//! A start is recorded first because a crash leaves no other trace; nothing is recorded while no
//! process has crashed. `dispatch/starts.rs` decides which events are suspected, this file keeps
//! that one of them at most is isolated and that the others wait for their turn once each.

use super::RouteNo;
use crate::event::EventId;
use std::collections::VecDeque;

/// The events that are published alone because an earlier process may have died of them.
#[derive(Debug, Default)]
pub(super) struct CrashIsolation {
    /// The event whose start is being recorded, or that is in flight.
    isolated: Option<(EventId, RouteNo)>,
    /// The events that wait for their turn.
    waiting: VecDeque<(EventId, RouteNo)>,
}

impl CrashIsolation {
    /// Isolates an event.
    pub(super) fn isolate(&mut self, id: EventId, route: RouteNo) {
        self.isolated = Some((id, route));
    }

    /// Lets an event wait for its turn.
    pub(super) fn wait(&mut self, id: EventId, route: RouteNo) {
        if !self.waiting.contains(&(id, route)) {
            self.waiting.push_back((id, route));
        }
    }

    /// Ends the isolation of an event; tells whether it was isolated.
    pub(super) fn end(&mut self, id: EventId, route: RouteNo) -> bool {
        self.isolated.take_if(|one| *one == (id, route)).is_some()
    }

    /// Gives the isolated event, unless it is this one.
    pub(super) fn other(&self, id: EventId, route: RouteNo) -> Option<(EventId, RouteNo)> {
        self.isolated.filter(|one| *one != (id, route))
    }

    /// Gives the waiting event with the fewest crashes, unless an event is isolated.
    pub(super) fn next(
        &self,
        crashes: impl Fn(EventId, RouteNo) -> u32,
    ) -> Option<(EventId, RouteNo)> {
        if self.isolated.is_some() {
            return None;
        }
        // The fewest first: an innocent event is cleared by its publish, and the event that ends
        // the process again holds up none of them.
        self.waiting.iter().min_by_key(|(id, route)| crashes(*id, *route)).copied()
    }

    /// Removes an event from the waiting ones: its turn has come.
    pub(super) fn remove_waiting(&mut self, id: EventId, route: RouteNo) {
        self.waiting.retain(|one| *one != (id, route));
    }

    /// Drops the events that are no longer in memory; tells whether the isolated one was.
    pub(super) fn retain(&mut self, in_memory: impl Fn(EventId) -> bool) -> bool {
        self.waiting.retain(|(id, _)| in_memory(*id));
        self.isolated.take_if(|(id, _)| !in_memory(*id)).is_some()
    }
}
