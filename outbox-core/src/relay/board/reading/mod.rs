//! The next read: past the cursors with the order window behind them, events by id, rescans of
//! evicted events, the sweep.

mod admission;
mod evicted;
mod left_out;
mod partition;
mod partitions;
mod positions;
mod rescan;
mod sizes;
mod unrouted;

use left_out::Stash;
pub(crate) use partition::Partition;
pub(crate) use positions::{Positions, ReadAnswer, ReadJob};
pub(crate) use unrouted::UnroutedReports;

use crate::relay::board::{
    Board,
    entries::RouteLeg,
    queues::{ReadSource, RouteQueue},
};
use crate::{
    event::EventId,
    failure::FailureClass,
    outbox::{DueRetry, Epoch, PartitionNo, PartitionRead, PartitionRows, ReadPlan, StoredEvent},
};
use std::time::{Duration, Instant};

/// Shortest pause after a read that found a few events: those of other processes may come without a
/// wake.
const MIN_POLL: Duration = Duration::from_millis(20);
/// Row limit of a partition whose last read was not cut by its limit; the next read takes more.
const IDLE_LIMIT: usize = 64;
/// Rows of one page of a rescan, and ids of one page of the sweep, at most.
const PAGE: u32 = 1_000;
/// The sweep takes at most a tenth of the time: after a page it rests nine times as long as the
/// page took.
const SWEEP_REST_FACTOR: u32 = 9;
/// First pause after a failed read.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

impl Board {
    /// Notes a wake.
    pub(crate) fn wake(&mut self) {
        self.positions.wake();
    }

    /// Takes the due retries of a renewal: those of which the board knows nothing are fetched.
    pub(crate) fn fetch_due(&mut self, due: Vec<DueRetry>) {
        for retry in due {
            let known = self.entries.get(retry.id).is_some_and(|entry| {
                let is_due = |leg: &RouteLeg| {
                    self.routes[leg.route()].name == retry.route && !leg.is_settled()
                };
                entry.legs().iter().any(is_due)
            });
            let wanted = (retry.partition, retry.id);
            // Not before the partition has been read to its end: a fetched event would be published
            // before earlier events of its key that the read has not come to.
            let caught_up = self.partitions.get(&retry.partition).is_some_and(|p| !p.is_full());
            if !known && caught_up {
                self.positions.wanted.entry(wanted).or_insert(None);
            }
        }
    }

    /// Asks for an event whose rows may be stale.
    pub(crate) fn refetch(&mut self, partition: PartitionNo, id: EventId) {
        let p = &mut self.positions;
        if p.is_reading() {
            // The present read may be older than the last write, and its events must not wait for
            // the fetch.
            p.wanted_next.insert((partition, id));
        } else {
            p.wanted.entry((partition, id)).or_insert(None);
        }
    }

    /// Gives the instant of the next read.
    pub(crate) fn next_read_at(&self) -> Option<Instant> {
        let p = &self.positions;
        let any = self.partitions.values().any(|partition| !partition.is_releasing());
        if p.reading.is_some() || self.writes_are_behind() || !any {
            return None;
        }
        let poll = match self.room() > 0 {
            true => p.next_poll.into_iter().chain(p.next_look_back).min(),
            false => None,
        };
        match p.paused_until {
            Some(until) => Some(until),
            None => poll.into_iter().chain(p.next_sweep.filter(|_| self.anything_evicted())).min(),
        }
    }

    /// Plans the next read, if one is to be made now; it counts as under way from here on.
    pub(crate) fn next_read(&mut self, now: Instant) -> Option<ReadJob> {
        // A pause that is over is cleared even if there is nothing to read: else `next_read_at`
        // would give its instant for ever, and the dispatcher would spin.
        let p = &mut self.positions;
        p.paused_until = p.paused_until.filter(|until| now < *until);
        let (reading, paused) = (p.reading.is_some(), p.paused_until.is_some());
        if reading || paused || self.writes_are_behind() || self.partitions.is_empty() {
            return None;
        }
        self.evict_blocked_keys();
        // The order matters: fetched ids first, since events of a read wait for them. Then the
        // look-back if it is due, so that new events have their turn however long a rescan takes.
        let look_back_due = self.positions.next_look_back.is_none_or(|at| at <= now);
        let job = self
            .plan_fetch()
            .or_else(|| if look_back_due { self.plan_main(now) } else { None })
            .or_else(|| self.plan_page())
            .or_else(|| self.plan_main(now))
            .or_else(|| self.plan_sweep(now))?;
        self.positions.started = Some(now);
        self.positions.reading = Some(job.clone());
        Some(job)
    }

    /// Gives how many more events may be in memory: as many as the emptiest route takes.
    fn room(&self) -> usize {
        let room = self.queues.iter().map(RouteQueue::room).max();
        room.unwrap_or(self.config.read_batch).min(self.config.read_batch)
    }

    /// Gives how many more bytes may be in memory: as many as the emptiest route takes.
    pub(super) fn room_in_bytes(&self) -> usize {
        self.queues.iter().map(RouteQueue::room_in_bytes).max().unwrap_or_default()
    }

    /// Plans a read past the cursors of all partitions.
    fn plan_main(&mut self, now: Instant) -> Option<ReadJob> {
        let room = self.room();
        let poll = self.positions.next_poll.is_none_or(|at| at <= now);
        let look_back_due = self.positions.next_look_back.is_none_or(|at| at <= now);
        let more = self.partitions.values().any(|p| p.is_full() && !p.is_releasing());
        if room == 0 || !(poll || look_back_due || more || self.positions.woken) {
            return None;
        }
        if look_back_due {
            self.positions.next_look_back = Some(now + self.config.poll);
            self.rescan_where_room();
        }
        let sweep_due = self.positions.next_sweep.is_none_or(|at| at <= now);
        // While events are evicted, a look-back without a window would return all of their ids at
        // each sweep: the sweep goes in pages then (`plan_sweep`).
        let is_sweep = look_back_due && sweep_due && !self.anything_evicted();
        let window = if is_sweep { u32::MAX } else { self.config.order_window };
        let full = self.partitions.values().filter(|p| p.is_full() && !p.is_releasing()).count();
        let budget = self.positions.size.budget(room, self.room_in_bytes());
        let (share, idle_limit) = (
            budget.rows / full.max(1),
            IDLE_LIMIT.min(budget.rows / self.partitions.len().max(1)).max(1),
        );
        let mut plan = ReadPlan {
            partitions: Vec::with_capacity(self.partitions.len()),
            window,
            payload_limit: 0,
        };
        let mut epochs = Vec::with_capacity(self.partitions.len());
        for (no, p) in self.partitions.iter().filter(|(_, p)| !p.is_releasing()) {
            let limit = if p.is_full() { share.max(idle_limit) } else { idle_limit };
            let limit = u32::try_from(limit).unwrap_or(PAGE);
            plan.partitions.push(PartitionRead {
                partition: *no,
                after: p.cursor(),
                limit,
                look_back: look_back_due,
            });
            epochs.push(p.epoch());
        }
        if plan.partitions.is_empty() {
            return None;
        }
        let rows = plan.partitions.iter().map(|p| p.limit as usize).sum();
        plan.payload_limit = budget.payload_limit(rows);
        // Before the read and not after it: a wake that comes meanwhile may be for an event that
        // the read does not see.
        self.positions.woken = false;
        Some(ReadJob::Main { plan, epochs, is_sweep })
    }

    /// Plans a page of the sweep, which goes through the ids below the order window for events that
    /// committed very late.
    fn plan_sweep(&mut self, now: Instant) -> Option<ReadJob> {
        if self.positions.next_sweep.is_some_and(|at| at > now) || !self.anything_evicted() {
            return None;
        }
        let window = i64::from(self.config.order_window);
        let left = |(no, p): (&PartitionNo, &Partition)| {
            let (from, to) = p.left_to_sweep(window)?;
            Some((*no, p.epoch(), from, to))
        };
        let behind = self.partitions.iter().filter_map(left);
        let Some((partition, epoch, from, to)) = behind.min_by_key(|(_, _, from, _)| *from) else {
            self.partitions.values_mut().for_each(Partition::restart_sweep);
            self.positions.next_sweep = Some(now + self.config.poll);
            return None;
        };
        Some(ReadJob::Ids { partition, epoch, from, to, limit: PAGE })
    }

    /// Notes that the read failed: after a pause all partitions are read from their beginning, with
    /// smaller reads if the size may be the cause.
    pub(crate) fn read_failed(&mut self, class: FailureClass, now: Instant) {
        let took =
            self.positions.started.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.positions.size.failed(class, took, now);
        if let Some(ReadJob::Fetch { ids, epochs, .. }) = self.positions.reading.take() {
            // Not those of a partition that was lost and gained meanwhile: it is read from its
            // beginning, and they would be published before earlier events of their keys.
            let ours =
                |(no, _): &(PartitionNo, EventId)| epochs.get(no).copied() == self.epoch(*no);
            let ids: Vec<_> = ids.into_iter().filter(ours).map(|id| (id, None)).collect();
            self.positions.wanted.extend(ids);
        }
        let p = &mut self.positions;
        p.stash = None;
        p.fetched_events.clear();
        // The events of the stash are past the cursors again: their payloads, fetched now, would
        // come before the earlier events of their keys.
        let missing_payloads = std::mem::take(&mut p.missing_payloads);
        p.wanted.retain(|id, _| !missing_payloads.contains_key(id));
        p.pause = if p.pause.is_zero() { FIRST_PAUSE } else { (p.pause * 2).min(self.config.poll) };
        p.paused_until = Some(now + p.pause);
        self.entries.read_failed();
        self.positions.want_next();
        self.restart_reading();
    }

    /// Takes the answer to the read under way.
    pub(crate) fn read_done(&mut self, answer: ReadAnswer, now: Instant) {
        let Some(job) = self.positions.reading.take() else { return };
        let took =
            self.positions.started.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        (self.positions.pause, self.positions.paused_until) = (Duration::ZERO, None);
        match (job, answer) {
            (ReadJob::Main { plan, epochs, is_sweep }, ReadAnswer::Main(rows)) => {
                if is_sweep {
                    let rest = self.config.poll.max(took * (SWEEP_REST_FACTOR + 1));
                    self.positions.next_sweep = Some(now + rest);
                }
                let (count, bytes) =
                    rows.iter().fold((0, 0), |(n, b), r| (n + r.past.len(), b + bytes_of(&r.past)));
                self.positions.size.read(count, bytes, now);
                self.main_done(&plan, &epochs, rows, now);
            }
            (ReadJob::Fetch { epochs, .. }, ReadAnswer::Events(mut events)) => {
                // A partition that was lost and gained meanwhile is read from its beginning.
                events.retain(|e| epochs.get(&e.partition).copied() == self.epoch(e.partition));
                self.positions.size.read(events.len(), bytes_of(&events), now);
                self.fetched(events, now);
            }
            (ReadJob::Page { partition, epoch, to, limit, .. }, ReadAnswer::Events(events))
                if self.epoch(partition) == Some(epoch) =>
            {
                self.positions.size.read(events.len(), bytes_of(&events), now);
                self.page_done(partition, to, events, limit, now);
            }
            (ReadJob::Ids { partition, epoch, to, limit, .. }, ReadAnswer::Ids(ids)) => {
                if self.epoch(partition) == Some(epoch) {
                    self.swept(partition, to, &ids, limit);
                }
                self.positions.next_sweep = Some(now + took * SWEEP_REST_FACTOR);
            }
            // The partition was lost meanwhile.
            _ => {}
        }
        if !self.positions.is_reading() {
            self.positions.want_next();
            self.entries.read_over();
        }
    }

    /// Takes the rows of a read past the cursors, and admits them when late events and missing
    /// payloads have come.
    fn main_done(
        &mut self,
        plan: &ReadPlan,
        epochs: &[Epoch],
        rows: Vec<PartitionRows>,
        now: Instant,
    ) {
        let window = i64::from(self.config.order_window);
        let mut stash = Vec::with_capacity(rows.len());
        let mut found = 0;
        let mut full = false;
        for ((read, epoch), rows) in plan.partitions.iter().zip(epochs).zip(rows) {
            if self.epoch(read.partition) != Some(*epoch) {
                continue;
            }
            for &id in &rows.window {
                if !self.state_of(read.partition, id).is_known() {
                    self.positions.wanted.insert((read.partition, id), None);
                    self.stats.late += 1;
                    self.stats.beyond_window +=
                        u64::from(id.0 <= read.after.0.saturating_sub(window));
                }
            }
            found += rows.past.len();
            full |= rows.full;
            stash.push((read.partition, rows));
        }
        full |= self.ask_for_payloads_past(&mut stash);
        let p = &mut self.positions;
        p.idle = match (full, found) {
            (true, _) => Duration::ZERO,
            (false, 0) => (p.idle * 2).clamp(MIN_POLL, self.config.poll),
            (false, _) => MIN_POLL.max(p.idle / 2),
        };
        p.next_poll = Some(now + p.idle.min(self.config.poll));
        // Late events come first: a later event of their key in this read would otherwise be
        // published before them.
        p.stash = Some(Stash::Forward(stash));
        if p.wanted.is_empty() {
            self.unstash(now);
        }
    }

    /// Asks for the payloads that were left out of a read, in turn over the partitions. Events
    /// whose payload needs another read are cut off. Tells whether any was.
    fn ask_for_payloads_past(&mut self, read: &mut [(PartitionNo, PartitionRows)]) -> bool {
        if read.iter().all(|(_, rows)| rows.past.iter().all(|event| event.left_out.is_none())) {
            return false;
        }
        let mut bytes = self.positions.size.budget(1, self.room_in_bytes()).bytes;
        let (mut cut, parts) = (false, read.len());
        // Each partition is the first in its turn: the bytes of one read may suffice for one large
        // payload only, and the same partition would get it each time.
        self.positions.turn = (self.positions.turn + 1) % parts;
        for n in 0..parts {
            let (_, rows) = &mut read[(self.positions.turn + n) % parts];
            let kept = self.ask_for_payloads(&rows.past, ReadSource::Forward, &mut bytes);
            if kept < rows.past.len() {
                rows.past.truncate(kept);
                rows.full = true;
                cut = true;
            }
        }
        cut
    }

    /// Admits the events past the cursors, each partition with the last id that was read there.
    fn admit_read(
        &mut self,
        read: Vec<(PartitionNo, Option<EventId>, PartitionRows)>,
        now: Instant,
    ) {
        let window = i64::from(self.config.order_window);
        for (no, last, rows) in read {
            let Some(partition) = self.partitions.get_mut(&no) else { continue };
            partition.read(last, rows.full, window);
            for event in rows.past {
                self.admit(event, ReadSource::Forward, now);
            }
        }
    }

    /// Takes a page of the sweep: unknown ids are fetched.
    fn swept(&mut self, no: PartitionNo, to: EventId, ids: &[EventId], limit: u32) {
        let unknown: Vec<EventId> =
            ids.iter().copied().filter(|id| !self.state_of(no, *id).is_known()).collect();
        for id in unknown {
            self.positions.wanted.entry((no, id)).or_insert(None);
        }
        if let Some(partition) = self.partitions.get_mut(&no) {
            let is_end = ids.len() < limit as usize;
            partition.swept(if is_end { to } else { ids.last().copied().unwrap_or(to) });
        }
    }
}

/// Gives the payload bytes of events, left-out payloads included.
fn bytes_of(events: &[StoredEvent]) -> usize {
    let of = |event: &StoredEvent| match event.left_out {
        Some(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        None => event.body.as_ref().map_or(0, |message| message.payload.len()),
    };
    events.iter().map(of).sum()
}
