//! Where to read next: the cursor, the order window, what was forgotten, and the sweep.

mod arrivals;
mod partitions;
mod passes;

use arrivals::Origin;
pub(crate) use partitions::Partition;

use crate::relay::board::{Board, lanes::RouteQueue};
use crate::{
    event::EventId,
    outbox::{DueRetry, Epoch, PartitionNo, PartitionRead, PartitionRows, ReadPlan, StoredEvent},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Shortest pause after a read that found a little: new events of other processes come without a wake.
const BRISK: Duration = Duration::from_millis(20);
/// Rows of a partition that was not full at its last read; more come with the next one.
const LEAN: usize = 64;
/// Rows of one page of forgotten events, and ids of one page of the sweep, at most.
const PAGE: u32 = 1_000;
/// The sweep takes at most a tenth of the time: after a page it rests nine times as long as the page took.
const REST: u32 = 9;
/// First pause after a failed read.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// One read for the reader to make.
#[derive(Debug, Clone)]
pub(crate) enum ReadJob {
    /// Past the cursors of all partitions.
    Main { plan: ReadPlan, epochs: Vec<Epoch>, looks_at_all: bool },
    /// By id, for partitions owned under these epochs.
    Fetch { ids: Vec<(PartitionNo, EventId)>, epochs: BTreeMap<PartitionNo, Epoch> },
    /// Forgotten events of one partition, whole.
    Page { partition: PartitionNo, epoch: Epoch, from: EventId, to: EventId, limit: u32 },
    /// Ids of one partition.
    Ids { partition: PartitionNo, epoch: Epoch, from: EventId, to: EventId, limit: u32 },
}

/// What a read answered.
#[derive(Debug)]
pub(crate) enum ReadAnswer {
    /// To `Main`.
    Main(Vec<PartitionRows>),
    /// To `Fetch` and `Page`.
    Events(Vec<StoredEvent>),
    /// To `Ids`.
    Ids(Vec<EventId>),
}

/// What the board knows of its reading.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    /// The read under way.
    reading: Option<ReadJob>,
    started: Option<Instant>,
    /// Rows past the cursor that wait for those before them.
    stash: Vec<(PartitionNo, PartitionRows)>,
    /// Fetched events, until all that were wanted have come.
    found: Vec<StoredEvent>,
    /// Ids to fetch: late ones and due ones.
    wanted: Vec<(PartitionNo, EventId)>,
    woken: bool,
    idle: Duration,
    next_poll: Option<Instant>,
    /// When every partition is looked back over, whatever else happens.
    next_look: Option<Instant>,
    next_sweep: Option<Instant>,
    paused_until: Option<Instant>,
    pause: Duration,
}

impl Positions {
    /// A read may show what was finished since it began.
    pub(crate) fn is_reading(&self) -> bool {
        self.reading.is_some() || !self.stash.is_empty() || !self.found.is_empty()
    }

    pub(crate) fn wake(&mut self) {
        self.woken = true;
    }

    pub(crate) fn nothing_wanted(&self) -> bool {
        self.wanted.is_empty() && !matches!(self.reading, Some(ReadJob::Fetch { .. }))
    }

    pub(crate) fn partition_lost(&mut self, no: PartitionNo) {
        self.stash.retain(|(p, _)| *p != no);
        self.wanted.retain(|(p, _)| *p != no);
        self.found.retain(|e| e.partition != no);
    }
}

impl Board {
    /// A wake rang.
    pub(crate) fn wake(&mut self) {
        self.positions.wake();
    }

    /// Routes of events that the database says are due: those not known to be waited for are fetched.
    pub(crate) fn due_in_database(&mut self, due: Vec<DueRetry>) {
        for retry in due {
            let known = self.held.get(&retry.id).is_some_and(|held| {
                held.legs.iter().any(|l| self.routes[l.route].name == retry.route && !(l.state.is_final() && l.written))
            });
            let wanted = (retry.partition, retry.id);
            // Before a partition has been read to its end, what is due in it may have earlier events of its key before it.
            let caught_up = self.partitions.get(&retry.partition).is_some_and(|p| !p.full);
            if !known && caught_up && !self.positions.wanted.contains(&wanted) {
                self.positions.wanted.push(wanted);
            }
        }
    }

    /// Asks for an event that came while it could not be told whether it is still there.
    pub(crate) fn fetch_again(&mut self, partition: PartitionNo, id: EventId) {
        if !self.positions.wanted.contains(&(partition, id)) {
            self.positions.wanted.push((partition, id));
        }
    }

    /// Gives the instant at which reading has something to do again.
    pub(crate) fn next_read_at(&self) -> Option<Instant> {
        let p = &self.positions;
        if p.reading.is_some() {
            return None;
        }
        let poll = if self.room() > 0 { p.next_poll.into_iter().chain(p.next_look).min() } else { None };
        match p.paused_until {
            Some(until) => Some(until),
            None => poll.into_iter().chain(p.next_sweep.filter(|_| self.anything_closed())).min(),
        }
    }

    /// Plans the next read, if one is to be made now; it counts as under way from here on.
    pub(crate) fn next_read(&mut self, now: Instant) -> Option<ReadJob> {
        let p = &self.positions;
        if p.reading.is_some() || p.paused_until.is_some_and(|until| now < until) || self.partitions.is_empty() {
            return None;
        }
        self.shed_stuck();
        let job = self
            .plan_fetch()
            .or_else(|| self.plan_page())
            .or_else(|| self.plan_main(now))
            .or_else(|| self.plan_sweep(now))?;
        self.positions.paused_until = None;
        self.positions.started = Some(now);
        self.positions.reading = Some(job.clone());
        Some(job)
    }

    fn plan_fetch(&mut self) -> Option<ReadJob> {
        if self.positions.wanted.is_empty() {
            return None;
        }
        let rest = self.positions.wanted.len().saturating_sub(PAGE as usize);
        let ids = self.positions.wanted.split_off(rest);
        let epochs = self.partitions.iter().map(|(no, p)| (*no, p.epoch)).collect();
        Some(ReadJob::Fetch { ids, epochs })
    }

    /// How many more events may be held: as many as the hungriest route takes.
    fn room(&self) -> usize {
        let hungry = |q: &RouteQueue| {
            let bytes_left = q.bytes < self.config.bytes_per_route / 2;
            if q.held <= self.config.per_route / 2 && bytes_left { self.config.per_route - q.held } else { 0 }
        };
        self.queues.iter().map(hungry).max().unwrap_or(self.config.read_batch).min(self.config.read_batch)
    }

    fn plan_main(&mut self, now: Instant) -> Option<ReadJob> {
        let room = self.room();
        let poll = self.positions.next_poll.is_none_or(|at| at <= now);
        let tick = self.positions.next_look.is_none_or(|at| at <= now);
        let more = self.partitions.values().any(|p| p.full && !p.releasing);
        if room == 0 || !(poll || tick || more || self.positions.woken) {
            return None;
        }
        if tick {
            self.positions.next_look = Some(now + self.config.poll);
            self.reread_where_room();
        }
        let sweep_due = self.positions.next_sweep.is_none_or(|at| at <= now);
        let looks_at_all = tick && sweep_due && !self.anything_closed();
        let window = if looks_at_all { u32::MAX } else { self.config.order_window };
        let full = self.partitions.values().filter(|p| p.full && !p.releasing).count();
        let share = room / full.max(1);
        let mut plan = ReadPlan { partitions: Vec::with_capacity(self.partitions.len()), window };
        let mut epochs = Vec::with_capacity(self.partitions.len());
        for (no, p) in self.partitions.iter().filter(|(_, p)| !p.releasing) {
            let limit = u32::try_from(if p.full { share } else { LEAN }.max(LEAN.min(room))).unwrap_or(PAGE);
            plan.partitions.push(PartitionRead { partition: *no, after: p.cursor, limit, look_back: tick });
            epochs.push(p.epoch);
        }
        if plan.partitions.is_empty() {
            return None;
        }
        self.positions.woken = false;
        Some(ReadJob::Main { plan, epochs, looks_at_all })
    }

    fn plan_sweep(&mut self, now: Instant) -> Option<ReadJob> {
        if self.positions.next_sweep.is_some_and(|at| at > now) || !self.anything_closed() {
            return None;
        }
        let window = i64::from(self.config.order_window);
        let end = |cursor: EventId| EventId(cursor.0.saturating_sub(window));
        let behind = self.partitions.iter().filter(|(_, p)| !p.releasing && p.swept_to < end(p.cursor));
        let Some((no, p)) = behind.min_by_key(|(_, p)| p.swept_to) else {
            for p in self.partitions.values_mut() {
                p.swept_to = EventId(0);
            }
            self.positions.next_sweep = Some(now + self.config.poll);
            return None;
        };
        let from = EventId(p.swept_to.0 + 1);
        Some(ReadJob::Ids { partition: *no, epoch: p.epoch, from, to: end(p.cursor), limit: PAGE })
    }

    fn is_known(&self, partition: PartitionNo, id: EventId) -> bool {
        self.held.contains_key(&id)
            || self.settled_during_read.contains_key(&id)
            || self.burying.contains_key(&id)
            || self.partitions.get(&partition).is_some_and(|p| p.forgotten.contains(&id))
    }

    /// The read failed: it is made again after a pause, from the beginning of all partitions.
    pub(crate) fn read_failed(&mut self, now: Instant) {
        let p = &mut self.positions;
        if let Some(ReadJob::Fetch { ids, .. }) = p.reading.take() {
            p.wanted.extend(ids);
        }
        p.stash.clear();
        p.found.clear();
        p.pause = if p.pause.is_zero() { FIRST_PAUSE } else { (p.pause * 2).min(self.config.poll) };
        p.paused_until = Some(now + p.pause);
        self.settled_during_read.clear();
        self.recorded_during_read.clear();
        self.restart_reading();
    }

    /// Takes the answer to the read under way.
    pub(crate) fn read_done(&mut self, answer: ReadAnswer, now: Instant) {
        let Some(job) = self.positions.reading.take() else { return };
        let took = self.positions.started.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        (self.positions.pause, self.positions.paused_until) = (Duration::ZERO, None);
        match (job, answer) {
            (ReadJob::Main { plan, epochs, looks_at_all }, ReadAnswer::Main(rows)) => {
                if looks_at_all {
                    self.positions.next_sweep = Some(now + self.config.poll.max(took * (REST + 1)));
                }
                self.main_done(&plan, &epochs, rows, now);
            }
            (ReadJob::Fetch { epochs, .. }, ReadAnswer::Events(mut events)) => {
                // A partition that was lost and gained meanwhile is read from its beginning.
                events.retain(|e| epochs.get(&e.partition).copied() == self.epoch(e.partition));
                self.positions.found.extend(events);
                if self.positions.wanted.is_empty() {
                    let stash = std::mem::take(&mut self.positions.stash);
                    let found = std::mem::take(&mut self.positions.found);
                    self.hand_on(found, stash, now);
                    if self.positions.wanted.is_empty() {
                        self.unpark();
                    }
                }
            }
            (ReadJob::Page { partition, epoch, to, limit, .. }, ReadAnswer::Events(events))
                if self.epoch(partition) == Some(epoch) =>
            {
                self.page_done(partition, to, events, limit, now);
            }
            (ReadJob::Ids { partition, epoch, to, limit, .. }, ReadAnswer::Ids(ids)) => {
                if self.epoch(partition) == Some(epoch) {
                    self.swept(partition, to, &ids, limit);
                }
                self.positions.next_sweep = Some(now + took * REST);
            }
            // Of a partition that was lost meanwhile.
            _ => {}
        }
        if !self.positions.is_reading() {
            self.settled_during_read.clear();
            self.recorded_during_read.clear();
            for id in std::mem::take(&mut self.lingering) {
                self.let_go_if_forgotten(id);
            }
        }
    }

    fn main_done(&mut self, plan: &ReadPlan, epochs: &[Epoch], rows: Vec<PartitionRows>, now: Instant) {
        let window = i64::from(self.config.order_window);
        let mut stash = Vec::with_capacity(rows.len());
        let mut found = 0;
        let mut full = false;
        for ((read, epoch), rows) in plan.partitions.iter().zip(epochs).zip(rows) {
            if self.epoch(read.partition) != Some(*epoch) {
                continue;
            }
            for &id in &rows.window {
                if !self.is_known(read.partition, id) {
                    self.positions.wanted.push((read.partition, id));
                    self.stats.late += 1;
                    self.stats.beyond_window += u64::from(id.0 <= read.after.0.saturating_sub(window));
                }
            }
            found += rows.past.len();
            full |= rows.full;
            stash.push((read.partition, rows));
        }
        let p = &mut self.positions;
        p.idle = match (full, found) {
            (true, _) => Duration::ZERO,
            (false, 0) => (p.idle * 2).clamp(BRISK, self.config.poll),
            (false, _) => BRISK.max(p.idle / 2),
        };
        p.next_poll = Some(now + p.idle.min(self.config.poll));
        if p.wanted.is_empty() {
            self.hand_on(Vec::new(), stash, now);
        } else {
            // Nothing of this read is handed on before those that committed late.
            p.stash = stash;
        }
    }

    fn hand_on(&mut self, mut found: Vec<StoredEvent>, stash: Vec<(PartitionNo, PartitionRows)>, now: Instant) {
        found.sort_unstable_by_key(|e| e.id);
        for event in found {
            self.arrive(event, Origin::Found, now);
        }
        let window = i64::from(self.config.order_window);
        for (no, rows) in stash {
            let Some(partition) = self.partitions.get_mut(&no) else { continue };
            partition.full = rows.full;
            if let Some(last) = rows.past.last() {
                partition.cursor = partition.cursor.max(last.id);
                if !partition.forgotten.is_empty() {
                    let floor = EventId(partition.cursor.0.saturating_sub(window));
                    partition.forgotten = partition.forgotten.split_off(&floor);
                }
            }
            for event in rows.past {
                self.arrive(event, Origin::Past, now);
            }
        }
    }

    fn swept(&mut self, no: PartitionNo, to: EventId, ids: &[EventId], limit: u32) {
        let unknown: Vec<EventId> = ids.iter().copied().filter(|id| !self.is_known(no, *id)).collect();
        for id in unknown {
            self.positions.wanted.push((no, id));
        }
        if let Some(partition) = self.partitions.get_mut(&no) {
            partition.swept_to = if ids.len() < limit as usize { to } else { ids.last().copied().unwrap_or(to) };
        }
    }
}
