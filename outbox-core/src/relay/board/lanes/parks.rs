//! Keys that do not move: those that wait for an operator's decision about their head, and what is given up of the
//! others when there is no room.

use crate::relay::board::{
    Board, RouteNo,
    held::LegState,
    lanes::{Closed, Parked},
};
use crate::{
    event::EventId,
    outbox::{DUE_LIMIT, DueRetry, OpenPark},
};
use std::{collections::HashSet, time::Instant};
use xxhash_rust::xxh3::xxh3_64;

impl Board {
    /// Takes what a renewal says of due retries and parked keys; `begun` is when it was asked.
    ///
    /// A key that is parked here and no longer there opens, its redriven head first.
    pub(crate) fn renewed(&mut self, due: Vec<DueRetry>, parks: &[OpenPark], begun: Instant) {
        let all_due_told = due.len() < DUE_LIMIT as usize;
        self.due_in_database(due);
        let mut open: HashSet<(RouteNo, u64)> = HashSet::new();
        for park in parks.iter().filter(|p| self.partitions.contains_key(&p.partition)) {
            let Some(route) = self.routes.iter().position(|r| r.name == park.route) else { continue };
            let hash = xxh3_64(park.key.as_bytes());
            open.insert((route, hash));
            let lane = self.queues[route].lane(hash, park.partition);
            lane.parked.get_or_insert(Parked { head: None, written_at: Some(begun), until_written: false });
        }
        if !all_due_told {
            return;
        }
        for (route, queue) in self.queues.iter().enumerate() {
            for (hash, lane) in &queue.lanes {
                let written_before = lane.parked.is_some_and(|p| p.written_at.is_some_and(|at| at < begun));
                // Where due retries were left for later, a redriven head may be among them.
                let heads_told = self.partitions.get(&lane.partition).is_some_and(|p| !p.full);
                if written_before && heads_told && !open.contains(&(route, *hash)) {
                    self.unparking.push((route, *hash));
                }
            }
        }
        if self.positions.nothing_wanted() {
            self.unpark();
        }
    }

    /// Opens the keys whose heads have been decided about.
    pub(crate) fn unpark(&mut self) {
        for (route, hash) in std::mem::take(&mut self.unparking) {
            let queue = &mut self.queues[route];
            if let Some(lane) = queue.lanes.get_mut(&hash) {
                lane.parked = None;
                queue.make_ready(hash);
                queue.drop_idle(hash);
            }
        }
    }

    /// Where a route is full, keys that wait for their head forget the rest: it is read again when they move.
    pub(crate) fn shed_stuck(&mut self) {
        for route in 0..self.queues.len() {
            if !std::mem::take(&mut self.queues[route].shed) {
                continue;
            }
            let stuck: Vec<u64> = self.queues[route]
                .lanes
                .iter()
                .filter(|(_, l)| l.is_stuck() && l.queue.len() > 1)
                .map(|(h, _)| *h)
                .collect();
            for hash in stuck {
                self.shed(route, hash);
            }
        }
    }

    fn shed(&mut self, route: RouteNo, hash: u64) {
        let Some(lane) = self.queues[route].lanes.get_mut(&hash) else { return };
        let keep = usize::from(lane.blocked.is_some());
        let tail: Vec<EventId> = lane.queue.drain(keep..).collect();
        let Some(first) = tail.first().copied() else { return };
        match lane.closed.as_mut() {
            Some(closed) => *closed = Closed::at(closed.first.min(first)),
            None => lane.closed = Some(Closed::at(first)),
        }
        if let Some(partition) = self.partitions.get_mut(&lane.partition) {
            partition.closed_lanes.insert((route, hash));
            partition.forgotten.extend(&tail);
        }
        for id in tail {
            let Some(held) = self.held.get_mut(&id) else { continue };
            let bytes = held.message.payload.len();
            for leg in held.legs.iter_mut().filter(|l| l.route == route) {
                leg.state = LegState::Forgotten;
            }
            self.queues[route].let_go(bytes);
            self.stats.forgotten += 1;
            self.next_alone(id, route);
            self.resolve_forgotten(id);
        }
    }

    /// An event whose other routes have confirmed gets its rows before its memory goes.
    fn resolve_forgotten(&mut self, id: EventId) {
        let Some(held) = self.held.get(&id) else { return };
        if held.legs.iter().all(|l| l.state.is_final() == l.written || l.state == LegState::Forgotten) {
            self.let_go_if_forgotten(id);
        }
        // Else it is halfway, and written down by that.
    }
}
