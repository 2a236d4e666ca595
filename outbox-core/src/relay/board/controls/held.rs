//! Held events: where they wait, and how they go on.

use crate::relay::board::{
    Board, RouteNo,
    entries::{LegState, RouteLeg},
    queues::Ready,
};
use crate::{
    event::{EventId, Message},
    outbox::{Controls, PartitionNo},
};
use std::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

impl Board {
    /// Starts nothing before the controls have come.
    pub(crate) fn wait_for_controls(&mut self) {
        self.controls.known = false;
    }

    /// Takes the controls in force.
    pub(crate) fn set_controls(&mut self, controls: &Controls, now: Instant) {
        self.controls.set(controls, &self.routes, now);
        self.resume_held();
    }

    /// Ends the pauses whose time is over.
    pub(in crate::relay::board) fn end_pauses(&mut self, now: Instant) {
        if self.controls.end_due(now) {
            self.resume_held();
        }
    }

    /// Lets the keys of held events go on. Those that are still held stop again at their heads.
    fn resume_held(&mut self) {
        for queue in &mut self.queues {
            queue.resume_held();
        }
        self.rescan_where_room();
    }

    /// Gives the hash of the key queue of an event: of its key, or, while its topic is paused, of a
    /// queue for events without a key.
    pub(in crate::relay::board) fn queue_hash(
        &self,
        message: &Message,
        partition: PartitionNo,
        id: EventId,
    ) -> Option<u64> {
        match &message.key {
            Some(key) => Some(xxh3_64(key.as_bytes())),
            None => self.controls.keyless_queue(&message.topic, partition, id),
        }
    }

    /// Tells whether an event that could start is held on a route.
    pub(in crate::relay::board) fn is_held(&self, id: EventId, route: RouteNo) -> bool {
        let Some(entry) = self.entries.get(id) else { return false };
        self.controls.holds(&entry.message().topic, entry.key_hash())
            && !self.entries.leg(id, route).is_some_and(RouteLeg::has_begun)
    }

    /// Moves an event without a key to a key queue, on each route on which it waits.
    pub(in crate::relay::board) fn hold_keyless(&mut self, id: EventId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let (topic, no) = (&entry.message().topic, entry.partition());
        let Some(hash) = self.controls.keyless_queue(topic, no, id) else { return };
        entry.move_to_key(hash);
        for leg in entry.legs() {
            let waits = match leg.state() {
                LegState::Waiting
                | LegState::Starting
                | LegState::Retrying
                | LegState::Unproven => true,
                LegState::InFlight | LegState::Evicted | LegState::Confirmed | LegState::Dead => {
                    false
                }
            };
            if waits {
                self.queues[leg.route()].move_to_key(hash, no, id);
            }
        }
    }

    /// Tells whether the database knows the start of a ready event already.
    pub(in crate::relay::board) fn is_begun(&self, ready: Ready, route: RouteNo) -> bool {
        let id = self.queues[route].event_of(ready);
        id.and_then(|id| self.entries.leg(id, route)).is_some_and(RouteLeg::has_begun)
    }

    /// Tells whether the first ready event of a route has begun.
    pub(in crate::relay::board) fn first_is_begun(&self, route: RouteNo) -> bool {
        let first = self.queues[route].first_ready();
        first.and_then(|id| self.entries.leg(id, route)).is_some_and(RouteLeg::has_begun)
    }
}
