//! Where to read next: the cursor, the order window, what was forgotten, and the sweep.

mod arrivals;
mod forgotten;
mod left_out;
mod partitions;
mod passes;
mod sizes;
mod unrouted;

use arrivals::Origin;
use left_out::Stash;
pub(crate) use partitions::Partition;
use sizes::ReadSize;

use crate::relay::board::{Board, lanes::RouteQueue};
use crate::{
    event::EventId,
    failure::FailureClass,
    outbox::{DueRetry, Epoch, PartitionNo, PartitionRead, PartitionRows, ReadPlan, StoredEvent},
    transport::Route,
};
use std::{
    collections::{BTreeMap, BTreeSet},
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
    Fetch {
        ids: Vec<(PartitionNo, EventId)>,
        epochs: BTreeMap<PartitionNo, Epoch>,
        whole_up_to: u32,
    },
    /// Forgotten events of one partition, whole.
    Page {
        partition: PartitionNo,
        epoch: Epoch,
        from: EventId,
        to: EventId,
        limit: u32,
        whole_up_to: u32,
    },
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
    /// What was read and waits for what was left out of it, or comes before it.
    stash: Option<Stash>,
    /// The payloads that the stash waits for.
    holes: BTreeMap<(PartitionNo, EventId), Option<StoredEvent>>,
    /// Fetched events, until all before them have come.
    found: BTreeMap<(PartitionNo, EventId), StoredEvent>,
    /// Ids to fetch: late ones, due ones, and those whose payload was left out, with its size.
    wanted: BTreeMap<(PartitionNo, EventId), Option<u64>>,
    /// Ids to fetch by a read that begins after the present one.
    again: BTreeSet<(PartitionNo, EventId)>,
    size: ReadSize,
    /// Which partition is the first to have large payloads read, so that each has its turn.
    turn: usize,
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
        self.reading.is_some() || self.stash.is_some() || !self.found.is_empty()
    }

    pub(crate) fn wake(&mut self) {
        self.woken = true;
    }

    pub(crate) fn nothing_wanted(&self) -> bool {
        self.wanted.is_empty()
            && self.again.is_empty()
            && !matches!(self.reading, Some(ReadJob::Fetch { .. }))
    }

    /// The present read is over: what was to be fetched after it is wanted now.
    fn want_again(&mut self) {
        for id in std::mem::take(&mut self.again) {
            self.wanted.entry(id).or_insert(None);
        }
    }

    pub(crate) fn partition_lost(&mut self, no: PartitionNo) {
        match &mut self.stash {
            Some(Stash::Past(read)) => read.retain(|(p, _)| *p != no),
            Some(Stash::Page { partition, .. }) if *partition == no => self.stash = None,
            Some(Stash::Page { .. }) | None => {}
        }
        self.wanted.retain(|(p, _), _| *p != no);
        self.again.retain(|(p, _)| *p != no);
        self.holes.retain(|(p, _), _| *p != no);
        self.found.retain(|(p, _), _| *p != no);
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
                held.legs.iter().any(|l| {
                    self.routes[l.route].name == retry.route && !(l.state.is_final() && l.written)
                })
            });
            let wanted = (retry.partition, retry.id);
            // Before a partition has been read to its end, what is due in it may have earlier events of its key before it.
            let caught_up = self.partitions.get(&retry.partition).is_some_and(|p| !p.full);
            if !known && caught_up {
                self.positions.wanted.entry(wanted).or_insert(None);
            }
        }
    }

    /// Asks for an event that came while it could not be told whether it is still there.
    pub(crate) fn fetch_again(&mut self, partition: PartitionNo, id: EventId) {
        let p = &mut self.positions;
        if p.is_reading() {
            // Only a read that begins after this one tells, and this one must not wait for it.
            p.again.insert((partition, id));
        } else {
            p.wanted.entry((partition, id)).or_insert(None);
        }
    }

    /// Gives the instant at which reading has something to do again.
    pub(crate) fn next_read_at(&self) -> Option<Instant> {
        let p = &self.positions;
        let any = self.partitions.values().any(|partition| !partition.releasing);
        if p.reading.is_some() || self.is_behind_with_writing() || !any {
            return None;
        }
        let poll =
            if self.room() > 0 { p.next_poll.into_iter().chain(p.next_look).min() } else { None };
        match p.paused_until {
            Some(until) => Some(until),
            None => poll.into_iter().chain(p.next_sweep.filter(|_| self.anything_closed())).min(),
        }
    }

    /// Plans the next read, if one is to be made now; it counts as under way from here on.
    pub(crate) fn next_read(&mut self, now: Instant) -> Option<ReadJob> {
        // A pause that is over is forgotten also where there is nothing to read: nobody looks again because of it.
        let p = &mut self.positions;
        p.paused_until = p.paused_until.filter(|until| now < *until);
        let (reading, paused) = (p.reading.is_some(), p.paused_until.is_some());
        if reading || paused || self.is_behind_with_writing() || self.partitions.is_empty() {
            return None;
        }
        self.shed_stuck();
        // New events have their turn however long others are read again.
        let tick = self.positions.next_look.is_none_or(|at| at <= now);
        let job = self
            .plan_fetch()
            .or_else(|| if tick { self.plan_main(now) } else { None })
            .or_else(|| self.plan_page())
            .or_else(|| self.plan_main(now))
            .or_else(|| self.plan_sweep(now))?;
        self.positions.started = Some(now);
        self.positions.reading = Some(job.clone());
        Some(job)
    }

    /// How many more events may be held: as many as the hungriest route takes.
    fn room(&self) -> usize {
        let hungry = |(q, route): (&RouteQueue, &Route)| {
            if q.has_room(self.config.per_route, route.max_in_memory) {
                self.config.per_route - q.held
            } else {
                0
            }
        };
        self.queues
            .iter()
            .zip(&*self.routes)
            .map(hungry)
            .max()
            .unwrap_or(self.config.read_batch)
            .min(self.config.read_batch)
    }

    /// How many more bytes may be held: as many as the hungriest route takes.
    pub(super) fn room_in_bytes(&self) -> usize {
        let left = |(q, route): (&RouteQueue, &Route)| route.max_in_memory.saturating_sub(q.bytes);
        self.queues.iter().zip(&*self.routes).map(left).max().unwrap_or_default()
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
        let budget = self.positions.size.budget(room, self.room_in_bytes());
        let (share, lean) = (
            budget.rows / full.max(1),
            LEAN.min(budget.rows / self.partitions.len().max(1)).max(1),
        );
        let mut plan = ReadPlan {
            partitions: Vec::with_capacity(self.partitions.len()),
            window,
            whole_up_to: 0,
        };
        let mut epochs = Vec::with_capacity(self.partitions.len());
        for (no, p) in self.partitions.iter().filter(|(_, p)| !p.releasing) {
            let limit = u32::try_from(if p.full { share.max(lean) } else { lean }).unwrap_or(PAGE);
            plan.partitions.push(PartitionRead {
                partition: *no,
                after: p.cursor,
                limit,
                look_back: tick,
            });
            epochs.push(p.epoch);
        }
        if plan.partitions.is_empty() {
            return None;
        }
        let rows = plan.partitions.iter().map(|p| p.limit as usize).sum();
        plan.whole_up_to = budget.whole_up_to(rows);
        self.positions.woken = false;
        Some(ReadJob::Main { plan, epochs, looks_at_all })
    }

    fn plan_sweep(&mut self, now: Instant) -> Option<ReadJob> {
        if self.positions.next_sweep.is_some_and(|at| at > now) || !self.anything_closed() {
            return None;
        }
        let window = i64::from(self.config.order_window);
        let end = |cursor: EventId| EventId(cursor.0.saturating_sub(window));
        let behind =
            self.partitions.iter().filter(|(_, p)| !p.releasing && p.swept_to < end(p.cursor));
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
            || self.is_known_settled(id)
            || self
                .partitions
                .get(&partition)
                .is_some_and(|p| p.forgotten.contains(id) || p.unrouted.contains_key(&id))
    }

    fn is_known_settled(&self, id: EventId) -> bool {
        self.settled_during_read.contains_key(&id) || self.burying.contains_key(&id)
    }

    /// The read failed: it is made again after a pause, from the beginning of all partitions, and smaller where its size may
    /// be to blame.
    pub(crate) fn read_failed(&mut self, class: FailureClass, now: Instant) {
        let took =
            self.positions.started.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.positions.size.failed(class, took, now);
        if let Some(ReadJob::Fetch { ids, epochs, .. }) = self.positions.reading.take() {
            // A partition that was lost and gained meanwhile is read from its beginning: fetched now, these would go before the
            // earlier ones of their keys.
            let ours =
                |(no, _): &(PartitionNo, EventId)| epochs.get(no).copied() == self.epoch(*no);
            let ids: Vec<_> = ids.into_iter().filter(ours).map(|id| (id, None)).collect();
            self.positions.wanted.extend(ids);
        }
        let p = &mut self.positions;
        p.stash = None;
        p.found.clear();
        // What the stash waited for is behind the cursors again: fetched now, it would go before the earlier ones of its key.
        let holes = std::mem::take(&mut p.holes);
        p.wanted.retain(|id, _| !holes.contains_key(id));
        p.pause = if p.pause.is_zero() { FIRST_PAUSE } else { (p.pause * 2).min(self.config.poll) };
        p.paused_until = Some(now + p.pause);
        self.settled_during_read.clear();
        self.recorded_during_read.clear();
        self.positions.want_again();
        self.restart_reading();
    }

    /// Takes the answer to the read under way.
    pub(crate) fn read_done(&mut self, answer: ReadAnswer, now: Instant) {
        let Some(job) = self.positions.reading.take() else { return };
        let took =
            self.positions.started.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        (self.positions.pause, self.positions.paused_until) = (Duration::ZERO, None);
        match (job, answer) {
            (ReadJob::Main { plan, epochs, looks_at_all }, ReadAnswer::Main(rows)) => {
                if looks_at_all {
                    self.positions.next_sweep = Some(now + self.config.poll.max(took * (REST + 1)));
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
                self.positions.next_sweep = Some(now + took * REST);
            }
            // Of a partition that was lost meanwhile.
            _ => {}
        }
        if !self.positions.is_reading() {
            self.settled_during_read.clear();
            self.recorded_during_read.clear();
            self.positions.want_again();
            for id in std::mem::take(&mut self.lingering) {
                self.let_go_if_forgotten(id);
            }
        }
    }

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
                if !self.is_known(read.partition, id) {
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
            (false, 0) => (p.idle * 2).clamp(BRISK, self.config.poll),
            (false, _) => BRISK.max(p.idle / 2),
        };
        p.next_poll = Some(now + p.idle.min(self.config.poll));
        // Nothing of this read is handed on before those that committed late.
        p.stash = Some(Stash::Past(stash));
        if p.wanted.is_empty() {
            self.unstash(now);
        }
    }

    /// Asks for the payloads that were left out of a read, in turn over the partitions; what has to wait for another read
    /// is cut off. Tells whether something was.
    fn ask_for_payloads_past(&mut self, read: &mut [(PartitionNo, PartitionRows)]) -> bool {
        if read.iter().all(|(_, rows)| rows.past.iter().all(|event| event.left_out.is_none())) {
            return false;
        }
        let mut bytes = self.positions.size.budget(1, self.room_in_bytes()).bytes;
        let (mut cut, parts) = (false, read.len());
        self.positions.turn = (self.positions.turn + 1) % parts;
        for n in 0..parts {
            let (_, rows) = &mut read[(self.positions.turn + n) % parts];
            let kept = self.ask_for_payloads(&rows.past, Origin::Past, &mut bytes);
            if kept < rows.past.len() {
                rows.past.truncate(kept);
                rows.full = true;
                cut = true;
            }
        }
        cut
    }

    /// Hands on what was read past the cursors, each with the last id that was read there.
    fn hand_on(&mut self, read: Vec<(PartitionNo, Option<EventId>, PartitionRows)>, now: Instant) {
        let window = i64::from(self.config.order_window);
        for (no, last, rows) in read {
            let Some(partition) = self.partitions.get_mut(&no) else { continue };
            partition.full = rows.full;
            if let Some(last) = last {
                partition.cursor = partition.cursor.max(last);
                partition.forgotten.keep_from(EventId(partition.cursor.0.saturating_sub(window)));
            }
            for event in rows.past {
                self.arrive(event, Origin::Past, now);
            }
        }
    }

    fn swept(&mut self, no: PartitionNo, to: EventId, ids: &[EventId], limit: u32) {
        let unknown: Vec<EventId> =
            ids.iter().copied().filter(|id| !self.is_known(no, *id)).collect();
        for id in unknown {
            self.positions.wanted.entry((no, id)).or_insert(None);
        }
        if let Some(partition) = self.partitions.get_mut(&no) {
            partition.swept_to =
                if ids.len() < limit as usize { to } else { ids.last().copied().unwrap_or(to) };
        }
    }
}

/// Gives the payload bytes of events, those included that were left out.
fn bytes_of(events: &[StoredEvent]) -> usize {
    let of = |event: &StoredEvent| match event.left_out {
        Some(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        None => event.body.as_ref().map_or(0, |message| message.payload.len()),
    };
    events.iter().map(of).sum()
}
