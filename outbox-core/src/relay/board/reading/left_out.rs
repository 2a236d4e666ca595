//! Payloads that a read left out for their size: they are fetched before any later event of the
//! read is admitted.

use super::{PAGE, ReadJob, unrouted::is_to_be_routed};
use crate::{
    event::EventId,
    outbox::{PartitionNo, PartitionRows, RouteState, StoredEvent},
    relay::board::{Board, RouteNo, queues::ReadSource},
};
use std::time::Instant;

/// Events of a read that wait for left-out payloads, and for events that committed late.
#[derive(Debug)]
pub(crate) enum Stash {
    /// Rows past the cursors.
    Forward(Vec<(PartitionNo, PartitionRows)>),
    /// A page of a rescan.
    Page { partition: PartitionNo, to: EventId, events: Vec<StoredEvent>, whole: bool },
}

impl Stash {
    /// Tells whether it has an event.
    pub(super) fn contains(&self, partition: PartitionNo, id: EventId) -> bool {
        // In the order of their ids, as every read returns them.
        let has = |events: &[StoredEvent]| events.binary_search_by_key(&id, |e| e.id).is_ok();
        match self {
            Self::Forward(read) => {
                read.iter().any(|(no, rows)| *no == partition && has(&rows.past))
            }
            Self::Page { partition: no, events, .. } => *no == partition && has(events),
        }
    }
}

impl Board {
    /// Plans a read by id: of events whose sizes are known, as many as the bytes of a read allow,
    /// or of events whose sizes are not known yet.
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
        let epochs = self.partitions.iter().map(|(no, p)| (*no, p.epoch())).collect();
        let payload_limit = if sized { u32::MAX } else { budget.payload_limit(ids.len()) };
        Some(ReadJob::Fetch { ids, epochs, payload_limit })
    }

    /// Takes fetched events, and admits those before the first id that is still wanted: so events
    /// of a key stay in order.
    pub(super) fn fetched(&mut self, events: Vec<StoredEvent>, now: Instant) {
        for event in events {
            let place = (event.partition, event.id);
            if let Some(missing) = self.positions.missing_payloads.get_mut(&place) {
                *missing = Some(event);
            } else if let Some(bytes) =
                event.left_out.filter(|_| self.wants_payload(&event, ReadSource::LookBack))
            {
                self.positions.wanted.insert(place, Some(bytes));
            } else {
                self.positions.fetched_events.insert(place, event);
            }
        }
        let p = &mut self.positions;
        let ready = match p.wanted.first_key_value() {
            None => std::mem::take(&mut p.fetched_events),
            Some((first, _)) => {
                let rest = p.fetched_events.split_off(first);
                std::mem::replace(&mut p.fetched_events, rest)
            }
        };
        for (_, event) in ready {
            self.admit(event, ReadSource::LookBack, now);
        }
        if self.positions.wanted.is_empty() {
            self.unstash(now);
            if self.positions.nothing_wanted() {
                self.unpark();
            }
        }
    }

    /// Admits the stashed events, with the payloads that were left out.
    pub(super) fn unstash(&mut self, now: Instant) {
        let stash = self.positions.stash.take();
        let mut missing_payloads = std::mem::take(&mut self.positions.missing_payloads);
        let mut fill = |events: Vec<StoredEvent>| -> Vec<StoredEvent> {
            if missing_payloads.is_empty() {
                return events;
            }
            // An event that the fetch did not find has been finished.
            let complete = |event: StoredEvent| {
                let place = (event.partition, event.id);
                missing_payloads.remove(&place).unwrap_or(Some(event))
            };
            events.into_iter().filter_map(complete).collect()
        };
        match stash {
            None => {}
            Some(Stash::Forward(read)) => {
                let read = read.into_iter().map(|(no, rows)| {
                    let last = rows.past.last().map(|event| event.id);
                    (no, last, PartitionRows { past: fill(rows.past), ..rows })
                });
                let read = read.collect();
                self.admit_read(read, now);
            }
            Some(Stash::Page { partition, to, events, whole }) => {
                let last = events.last().map_or(to, |event| event.id);
                let events = fill(events);
                self.admit_page(partition, (to, last), events, whole, now);
            }
        }
    }

    /// Asks for the left-out payloads of events in order, as many as the bytes of a read allow.
    /// Gives how many of the events can be admitted with them.
    pub(super) fn ask_for_payloads(
        &mut self,
        events: &[StoredEvent],
        source: ReadSource,
        bytes: &mut usize,
    ) -> usize {
        for (at, event) in events.iter().enumerate() {
            let Some(size) = event.left_out.filter(|_| self.wants_payload(event, source)) else {
                continue;
            };
            let payload_bytes = usize::try_from(size).unwrap_or(usize::MAX);
            // One payload at least, whatever its size, or an event that is larger than a read would
            // stop its partition for ever.
            if payload_bytes > *bytes && !self.positions.missing_payloads.is_empty() {
                *bytes = 0;
                return at;
            }
            *bytes = bytes.saturating_sub(payload_bytes);
            self.positions.missing_payloads.insert((event.partition, event.id), None);
            self.positions.wanted.insert((event.partition, event.id), Some(size));
        }
        events.len()
    }

    /// Tells whether any route of an event without payload may take it into memory. If not, the
    /// event is evicted, and its payload is not needed.
    fn wants_payload(&self, event: &StoredEvent, source: ReadSource) -> bool {
        if self.entries.state_of(event.id).is_some() {
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
        let hash = self.queue_hash(message, event.partition, event.id);
        let has_place =
            |route: RouteNo| self.queues[route].may_take(event.id, event.partition, hash, source);
        (0..self.routes.len()).any(|route| takes(route) && has_place(route))
    }
}
