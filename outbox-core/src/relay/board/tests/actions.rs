//! The steps of the model: publishes and their results, operators, renewals, crashes, time.

use super::*;
use crate::outbox::{RouteOutcome, row_after};

impl Model {
    pub(super) fn is_at_most_once(&self, route: RouteNo) -> bool {
        self.routes[route].guarantee == crate::transport::Guarantee::AtMostOnce
    }

    /// An operator redrives a letter.
    pub(super) fn redrive(&mut self) {
        let Some((id, route)) =
            self.letters.keys().nth(self.rng.usize(0..self.letters.len().max(1))).copied()
        else {
            return;
        };
        let Some((letter, parks)) = self.letters.remove(&(id, route)) else { return };
        let name = self.routes[route].name.clone();
        let dead = RouteRow { state: RouteState::Dead, ..RouteRow::waiting(name.clone()) };
        let row = row_after(dead, RouteOutcome::Redriven);
        let message = self.messages[&id].clone();
        let partition = partition_of(message.key.as_deref(), message.id, PARTITIONS);
        let stored = self.table.entry(id).or_insert(Row {
            message,
            partition,
            visible: true,
            rows: BTreeMap::new(),
        });
        stored.rows.insert(name.clone(), (row, Some(self.now)));
        if parks {
            let key = self.messages[&id].key.clone().expect("only keys are parked");
            self.unparked.push(UnparkedKey {
                partition,
                event: id,
                route: name,
                key,
                letter,
                redriven: true,
            });
        }
    }

    /// The keeper's renewal.
    pub(super) fn renew(&mut self) {
        let due = self.table.iter().filter(|(_, r)| r.visible).flat_map(|(id, r)| {
            let waits = |(row, due): &&(RouteRow, Option<Instant>)| {
                row.state == RouteState::Waiting && due.is_some_and(|at| at <= self.now)
            };
            r.rows.values().filter(waits).map(|(row, _)| DueRetry {
                partition: r.partition,
                id: *id,
                route: row.route.clone(),
            })
        });
        let due = due.collect();
        // If the keeper cannot delete the rows of unparked keys, the next renewal reports them
        // again.
        let mut unparked = std::mem::take(&mut self.unparked);
        if self.failing && self.rng.u8(0..4) == 0 {
            self.unparked.clone_from(&unparked);
        }
        if self.rng.bool() {
            unparked.reverse();
        }
        let other_routes_wait = self.deploys && self.failing && self.rng.bool();
        self.board.renewed(due, unparked, other_routes_wait);
    }

    pub(super) fn deliver_one(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let n = self.rng.usize(0..self.pending.len());
        match self.pending.remove(n) {
            Pending::Read(answer) => self.board.read_done(answer, self.now),
            Pending::Failed => self.board.read_failed(FailureClass::Transient, self.now),
            Pending::Finished(events) => self.board.finished(&events),
            Pending::Recorded(letters, events) => {
                self.board.letters_written(&letters);
                self.board.recorded(&events, self.now);
            }
            Pending::Batch(batch) => self.publish(batch),
            Pending::Hung(batch, begun) => {
                let after = self.now.saturating_duration_since(begun);
                let unanswered = |(id, _): &(EventId, u32)| {
                    (*id, Attempt::Unanswered { text: "hung".into(), after })
                };
                let results = batch.events.iter().map(unanswered).collect();
                batch
                    .messages
                    .iter()
                    .for_each(|message| self.clear_in_flight(batch.route, message));
                self.board.published(batch.route, results, true, self.now);
            }
        }
    }

    fn clear_in_flight(&mut self, route: RouteNo, message: &Message) {
        if let Some(key) = &message.key {
            self.in_flight.remove(&(route, key.clone()));
        }
    }

    pub(super) fn publish(&mut self, batch: RouteBatch) {
        let route = batch.route;
        if self.failing && self.rng.u8(0..200) == 0 {
            self.rejecting[route] = self.now + Duration::from_millis(self.rng.u64(0..90_000));
        }
        let down = self.failing && self.rng.u8(0..6) == 0;
        let rejecting = self.failing && self.now < self.rejecting[route];
        let hangs = self.failing && self.rng.u8(0..10) == 0;
        let mut results = Vec::new();
        let mut hung = RouteBatch { route, events: Vec::new(), messages: Vec::new() };
        for ((id, attempt), m) in batch.events.into_iter().zip(batch.messages) {
            if hangs && self.rng.u8(0..3) == 0 {
                hung.events.push((id, attempt));
                hung.messages.push(m);
                continue;
            }
            self.clear_in_flight(route, &m);
            let failed = |class| Attempt::Failed {
                class,
                text: "no".into(),
                retry_after: None,
                responded: false,
            };
            let answer = match self.rng.u8(0..20) {
                _ if rejecting => failed(FailureClass::Permanent),
                _ if down => failed(FailureClass::Unavailable),
                0 if self.failing => failed(FailureClass::Transient),
                1 if self.failing => Attempt::Cancelled,
                4 if self.failing => Attempt::Busy { wait: Duration::from_secs(1) },
                2 if self.failing && is_always_rejected(id) => failed(FailureClass::Permanent),
                3 if self.failing => Attempt::Unclear { text: "panicked".into() },
                _ if self.failing && id.0 % 21 == 0 => failed(FailureClass::Permanent),
                _ => {
                    self.delivered[route].push(id);
                    Attempt::Confirmed
                }
            };
            results.push((id, answer));
        }
        self.board.published(route, results, hung.events.is_empty(), self.now);
        if !hung.events.is_empty() {
            self.pending.push(Pending::Hung(hung, self.now));
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
        let due: Vec<_> =
            self.timers.iter().take_while(|(at, ..)| *at <= self.now).copied().collect();
        self.timers.retain(|t| t.0 > self.now);
        let timers: Vec<_> =
            due.into_iter().map(|(at, id, route)| Timer { at, id, route }).collect();
        self.board.timers_fired(&timers, self.now);
    }

    pub(super) fn lose_one(&mut self) {
        let no = PartitionNo(self.rng.u16(0..PARTITIONS));
        let epoch = self.owned[&no];
        self.crashes += 1;
        // Another relay owned the partition and released it; pending writes under the old epoch are
        // void.
        self.board.lost(no, epoch);
        let keys: HashSet<String> = self
            .all
            .values()
            .filter_map(|(k, _)| k.clone())
            .filter(|k| {
                partition_of(Some(k), MessageId::from_uuid(uuid::Uuid::nil()), PARTITIONS) == no
            })
            .collect();
        self.in_flight.retain(|(_, k)| !keys.contains(k));
        self.pending.iter_mut().for_each(|p| {
            if let Pending::Batch(batch) | Pending::Hung(batch, _) = p {
                let keep: Vec<bool> = batch
                    .messages
                    .iter()
                    .map(|m| !m.key.as_ref().is_some_and(|k| keys.contains(k)))
                    .collect();
                let mut kept = keep.iter();
                batch.events.retain(|_| *kept.next().expect("one each"));
                let mut kept = keep.iter();
                batch.messages.retain(|_| *kept.next().expect("one each"));
            }
        });
        let crashed = self.rng.bool();
        self.gain(no, crashed);
    }

    pub(super) fn crash(&mut self) {
        self.crashes += 1;
        self.start_next_relay(true);
    }

    /// Starts another relay, without any state of the one before it.
    pub(super) fn start_next_relay(&mut self, crashed: bool) {
        self.stopping = false;
        self.board = Board::new(self.config, self.routes[..self.has_routes].into(), no_jitter);
        self.pass_controls_on();
        self.pending.clear();
        self.writes.clear();
        self.timers.clear();
        self.in_flight.clear();
        for no in 0..PARTITIONS {
            self.gain(PartitionNo(no), crashed);
        }
    }

    pub(super) fn step(&mut self, producing: bool) {
        match self.rng.u8(0..100) {
            0..30 if producing => self.produce(),
            30..34 => self.commit_one(),
            34..60 => self.deliver_one(),
            60..75 => self.settle(),
            77..78 => self.redrive(),
            78..80 => self.renew(),
            75..76 if self.failing && self.rng.u8(0..8) == 0 => self.lose_one(),
            76..77 if self.failing && self.rng.u8(0..20) == 0 => self.crash(),
            80..81 if self.relays_leave && producing => self.shut_down(),
            81..83 if self.relays_leave && producing => self.release_one(),
            83..86 if self.operator.is_some() && producing => self.operate(),
            _ => {
                let by = Duration::from_millis(self.rng.u64(0..40));
                self.advance(by);
            }
        }
        self.pump();
    }

    /// Describes the board, for a seed with which events wait for ever.
    fn state(&self) -> String {
        let mut text = String::new();
        for (queue, route) in self.board.queues.iter().zip(&*self.routes) {
            text += &format!("\n{}: {queue:?}", route.name);
        }
        for (no, partition) in &self.board.partitions {
            text += &format!("\n{no:?}: {partition:?}");
        }
        text + &format!("\n{:?}", self.board.positions)
    }

    pub(super) fn run(&mut self, events: i64) {
        while self.last_id < events {
            self.step(true);
        }
        self.failing = false;
        self.end_controls();
        self.end_deployments();
        let mut left = 400_000;
        while !self.table.is_empty()
            || !self.letters.is_empty()
            || !self.board.is_quiet()
            || self.board.stats().in_memory > 0
        {
            self.step(false);
            left -= 1;
            if left == 0 {
                let rest: Vec<_> = self.table.keys().take(5).collect();
                let stats = self.board.stats();
                panic!(
                    "still waiting: {} events, first {rest:?}; {stats:?}{}",
                    self.table.len(),
                    self.state()
                );
            }
        }
    }
}
