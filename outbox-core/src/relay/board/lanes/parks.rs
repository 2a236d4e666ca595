//! Keys that do not move: those that wait for an operator's decision about their head, and what is given up of the
//! others when there is no room.

use crate::relay::board::{
    Board, RouteNo,
    held::LegState,
    lanes::{Closed, Lane, Parked},
};
use crate::{
    event::{EventId, LetterId},
    outbox::{DecidedPark, DueRetry, PartitionNo},
    relay::messages::ParkedKey,
};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

impl Board {
    /// Takes what a renewal says of due retries, of parked keys that have been decided about, and whether a relay with other
    /// routes waits for its turn.
    pub(crate) fn renewed(
        &mut self,
        due: Vec<DueRetry>,
        decided: Vec<DecidedPark>,
        others_wait: bool,
    ) {
        self.others_wait = others_wait;
        self.due_in_database(due);
        for park in decided {
            if let Some(epoch) = self.epoch(park.partition) {
                self.decided.push((epoch, park));
            }
        }
        self.open_decided();
    }

    /// Takes the keys that are parked in a partition that was gained just now.
    pub(crate) fn parked(&mut self, partition: PartitionNo, parks: &[ParkedKey]) {
        let queues = &mut self.queues;
        // What is left of an earlier ownership of the partition; its lanes are gone.
        self.also_parked.retain(|(route, hash, _)| queues[*route].lanes.contains_key(hash));
        for park in parks {
            let Some(route) = self.routes.iter().position(|r| r.name == park.route) else {
                continue;
            };
            let lane = queues[route].lane(park.key, partition);
            match lane.parked {
                None => {
                    lane.parked = Some(Parked {
                        head: None,
                        letter: Some(park.letter),
                        until_written: false,
                    });
                }
                Some(_) => {
                    self.also_parked.insert((route, park.key, park.letter));
                }
            }
        }
    }

    /// Takes the letters of heads, before it is told that these are recorded.
    pub(crate) fn buried(&mut self, letters: &[(EventId, Arc<str>, LetterId)]) {
        for (id, route, letter) in letters {
            let Some(route) = self.routes.iter().position(|r| r.name == *route) else { continue };
            let Some(hash) = self.held.get(id).and_then(|held| held.lane) else { continue };
            let lane = self.queues[route].lanes.get_mut(&hash);
            if let Some(parked) =
                lane.and_then(|lane| lane.parked.as_mut()).filter(|p| p.head == Some(*id))
            {
                parked.letter = Some(*letter);
            }
        }
    }

    /// Opens keys that have been decided about, a redriven head first.
    fn open_decided(&mut self) {
        let mut heads = Vec::new();
        for (epoch, park) in std::mem::take(&mut self.decided) {
            let Some(partition) = self.partitions.get(&park.partition).filter(|p| p.epoch == epoch)
            else {
                continue;
            };
            let Some(route) = self.routes.iter().position(|r| r.name == park.route) else {
                continue;
            };
            let hash = xxh3_64(park.key.as_bytes());
            let lane = self.queues[route].lanes.get_mut(&hash);
            let Some(parked) = lane.and_then(|lane| lane.parked.as_mut()) else { continue };
            // A redriven head that the reading has not come to comes with what is before it in its key; and the letter of a
            // head that is being written down is not known.
            let is_ahead = park.redriven && partition.full && partition.cursor < park.event;
            if is_ahead || parked.letter.is_none() {
                self.decided.push((epoch, park));
                continue;
            }
            self.also_parked.remove(&(route, hash, park.letter));
            if parked.letter != Some(park.letter) {
                continue;
            }
            let of_key = (route, hash, LetterId(i64::MIN))..=(route, hash, LetterId(i64::MAX));
            if let Some(next) = self.also_parked.range(of_key).next().copied() {
                self.also_parked.remove(&next);
                parked.letter = Some(next.2);
                continue;
            }
            if park.redriven {
                heads.push((park.partition, park.event));
            }
            self.unparking.push((route, hash));
        }
        heads.into_iter().for_each(|(partition, id)| self.fetch_again(partition, id));
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
                .filter(|(_, l)| l.is_stuck() && l.queue.len() > usize::from(l.blocked.is_some()))
                .map(|(h, _)| *h)
                .collect();
            for hash in stuck {
                self.shed(route, hash);
            }
        }
    }

    /// A key waits from now on: where there is no room, it gives up the memory of all but its head.
    pub(crate) fn waits_from_now(&mut self, route: RouteNo, hash: u64) {
        let most = self.routes[route].max_in_memory;
        let queue = &mut self.queues[route];
        let holds_more =
            |l: &Lane| l.is_stuck() && l.queue.len() > usize::from(l.blocked.is_some());
        if !queue.closed.is_empty()
            && !queue.has_room(self.config.per_route, most)
            && queue.lanes.get(&hash).is_some_and(holds_more)
        {
            queue.shed = true;
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
            tail.iter().for_each(|id| partition.forgotten.insert(*id));
        }
        for id in tail {
            let Some(held) = self.held.get_mut(&id) else { continue };
            let bytes = held.bytes;
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
        if held
            .legs
            .iter()
            .all(|l| l.state.is_final() == l.written || l.state == LegState::Forgotten)
        {
            self.let_go_if_forgotten(id);
        }
        // Else it is halfway, and written down by that.
    }
}
