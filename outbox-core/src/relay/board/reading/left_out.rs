//! Payloads that a read left out for their size: fetched before anything that comes after them is handed on.

use super::{Origin, PAGE, ReadJob, arrivals::refuses, unrouted::is_to_be_routed};
use crate::{
    event::EventId,
    outbox::{PartitionNo, PartitionRows, RouteState, StoredEvent},
    relay::board::{Board, RouteNo},
};
use std::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// What waits for the payloads that its read left out, and for events that committed late.
#[derive(Debug)]
pub(crate) enum Stash {
    /// Rows past the cursors.
    Past(Vec<(PartitionNo, PartitionRows)>),
    /// Events that had been forgotten.
    Page { partition: PartitionNo, to: EventId, events: Vec<StoredEvent>, whole: bool },
}

impl Board {
    /// Plans a read by id: of as many events as have no more bytes than a read may, or of those whose size is not known yet.
    pub(super) fn plan_fetch(&mut self) -> Option<ReadJob> {
        let p = &self.positions;
        let budget = p.size.budget(PAGE as usize, usize::MAX);
        let (_, first) = p.wanted.first_key_value()?;
        let sized = first.is_some();
        let mut bytes = 0;
        let mut fits =
            |(at, (_, size)): &(usize, (&(PartitionNo, EventId), &Option<u64>))| match size {
                Some(size) if sized => {
                    bytes += usize::try_from(*size).unwrap_or(usize::MAX);
                    *at == 0 || (bytes <= budget.bytes && *at < PAGE as usize)
                }
                None if !sized => *at < budget.rows,
                Some(_) | None => false,
            };
        let ids: Vec<_> = p
            .wanted
            .iter()
            .enumerate()
            .take_while(|one| fits(one))
            .map(|(_, (id, _))| *id)
            .collect();
        ids.iter().for_each(|id| _ = self.positions.wanted.remove(id));
        let epochs = self.partitions.iter().map(|(no, p)| (*no, p.epoch)).collect();
        let whole_up_to = if sized { u32::MAX } else { budget.whole_up_to(ids.len()) };
        Some(ReadJob::Fetch { ids, epochs, whole_up_to })
    }

    /// Takes fetched events; hands on what nothing wanted is before.
    pub(super) fn fetched(&mut self, events: Vec<StoredEvent>, now: Instant) {
        for event in events {
            if let Some(hole) = self.positions.holes.get_mut(&(event.partition, event.id)) {
                *hole = Some(event);
            } else if let Some(bytes) =
                event.left_out.filter(|_| self.wants_payload(&event, Origin::Found))
            {
                self.positions.wanted.insert((event.partition, event.id), Some(bytes));
            } else {
                self.positions.found.insert((event.partition, event.id), event);
            }
        }
        let p = &mut self.positions;
        let ready = match p.wanted.first_key_value() {
            None => std::mem::take(&mut p.found),
            Some((first, _)) => {
                let rest = p.found.split_off(first);
                std::mem::replace(&mut p.found, rest)
            }
        };
        for (_, event) in ready {
            self.arrive(event, Origin::Found, now);
        }
        if self.positions.wanted.is_empty() {
            self.unstash(now);
            if self.positions.nothing_wanted() {
                self.unpark();
            }
        }
    }

    /// Hands on what waited, with the payloads that were left out.
    pub(super) fn unstash(&mut self, now: Instant) {
        let stash = self.positions.stash.take();
        let mut holes = std::mem::take(&mut self.positions.holes);
        let mut fill = |events: Vec<StoredEvent>| -> Vec<StoredEvent> {
            if holes.is_empty() {
                return events;
            }
            // What was not found any more is finished.
            let whole = |event: StoredEvent| match holes.remove(&(event.partition, event.id)) {
                Some(fetched) => fetched,
                None => Some(event),
            };
            events.into_iter().filter_map(whole).collect()
        };
        match stash {
            None => {}
            Some(Stash::Past(read)) => {
                let read = read.into_iter().map(|(no, rows)| {
                    let last = rows.past.last().map(|event| event.id);
                    (no, last, PartitionRows { past: fill(rows.past), ..rows })
                });
                let read = read.collect();
                self.hand_on(read, now);
            }
            Some(Stash::Page { partition, to, events, whole }) => {
                let last = events.last().map_or(to, |event| event.id);
                let events = fill(events);
                self.page_over(partition, (to, last), events, whole, now);
            }
        }
    }

    /// Asks for the payloads that were left out of events in order, as far as the bytes go that a read may have; gives how
    /// many of the events can be handed on with them.
    pub(super) fn ask_for_payloads(
        &mut self,
        events: &[StoredEvent],
        origin: Origin,
        bytes: &mut usize,
    ) -> usize {
        for (at, event) in events.iter().enumerate() {
            let Some(size) = event.left_out.filter(|_| self.wants_payload(event, origin)) else {
                continue;
            };
            let size_here = usize::try_from(size).unwrap_or(usize::MAX);
            if size_here > *bytes && !self.positions.holes.is_empty() {
                *bytes = 0;
                return at;
            }
            *bytes = bytes.saturating_sub(size_here);
            self.positions.holes.insert((event.partition, event.id), None);
            self.positions.wanted.insert((event.partition, event.id), Some(size));
        }
        events.len()
    }

    /// Tells whether an event that came without its payload may be held by any of its routes. If not it is forgotten, for
    /// which no payload is needed.
    fn wants_payload(&self, event: &StoredEvent, origin: Origin) -> bool {
        if self.held.contains_key(&event.id) || self.is_known_settled(event.id) {
            return false;
        }
        let Ok(message) = &event.body else { return false };
        if self.routes.iter().any(|route| route.selector.reads_messages()) {
            return true;
        }
        let takes = |route: RouteNo| match is_to_be_routed(&event.rows) {
            true => self.routes[route].selector.takes(message),
            false => {
                let row = event.rows.iter().find(|row| row.route == self.routes[route].name);
                row.is_some_and(|row| row.state == RouteState::Waiting)
            }
        };
        let hash = message.key.as_deref().map(|key| xxh3_64(key.as_bytes()));
        let may_hold = |route: RouteNo| {
            let queue = &self.queues[route];
            let is_full = queue.held >= self.config.per_route;
            let lane = hash.and_then(|hash| queue.lanes.get(&hash));
            let is_closed = |closed| refuses(closed, event.id, origin);
            let overdue =
                lane.and_then(|lane| lane.queue.back()).is_some_and(|last| event.id < *last);
            overdue
                || !(is_full
                    || queue.closed.get(&event.partition).is_some_and(is_closed)
                    || lane.and_then(|lane| lane.closed.as_ref()).is_some_and(is_closed))
        };
        (0..self.routes.len()).any(|route| takes(route) && may_hold(route))
    }
}
