//! What happens to the model: publishes and their answers, operators, renewals, crashes, time.

use super::*;

impl Model {
    pub(super) fn is_once(&self, route: RouteNo) -> bool {
        self.routes[route].guarantee == crate::transport::Guarantee::AtMostOnce
    }

    /// An operator redrives a letter.
    pub(super) fn redrive(&mut self) {
        let Some((id, route)) = self.letters.keys().nth(self.rng.usize(0..self.letters.len().max(1))).copied() else {
            return;
        };
        self.letters.remove(&(id, route));
        let name = self.routes[route].name.clone();
        let row = RouteRow { redriven: true, due_in: Some(Duration::ZERO), ..RouteRow::waiting(name.clone()) };
        let message = self.messages[&id].clone();
        let partition = partition_of(message.key.as_deref(), message.id, PARTITIONS);
        let stored = self.table.entry(id).or_insert(Row { message, partition, visible: true, rows: BTreeMap::new() });
        stored.rows.insert(name, (row, Some(self.now)));
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
        let parked = self.letters.iter().filter(|(_, parks)| **parks);
        let parks: Vec<OpenPark> = parked
            .map(|((id, route), _)| {
                let message = &self.messages[id];
                OpenPark {
                    partition: partition_of(message.key.as_deref(), message.id, PARTITIONS),
                    route: self.routes[*route].name.clone(),
                    key: message.key.clone().expect("only keys are parked"),
                    letter: crate::event::LetterId(id.0),
                }
            })
            .collect();
        // It was asked a moment ago; nothing happened since.
        self.board.renewed(due, &parks, self.now);
    }

    pub(super) fn one_answer(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let n = self.rng.usize(0..self.pending.len());
        match self.pending.remove(n) {
            Pending::Read(answer) => self.board.read_done(answer, self.now),
            Pending::Failed => self.board.read_failed(self.now),
            Pending::Finished(places) => self.board.finished(&places),
            Pending::Recorded(places) => self.board.recorded(&places, self.now),
            Pending::Batch(batch) => {
                let answers = self.publish(&batch);
                self.board.published(batch.route, answers, self.now);
            }
        }
    }

    pub(super) fn publish(&mut self, batch: &Batch) -> Vec<(EventId, Attempt)> {
        let down = self.failing && self.rng.u8(0..6) == 0;
        let mut answers = Vec::new();
        for (id, m) in batch.ids.iter().zip(&batch.messages) {
            if let Some(key) = &m.key {
                self.in_flight.remove(&(batch.route, key.clone()));
            }
            let failed = |class| Attempt::Failed { class, text: "no".into(), retry_after: None };
            let answer = match self.rng.u8(0..20) {
                _ if down => failed(FailureClass::Unavailable),
                0 if self.failing => failed(FailureClass::Transient),
                1 if self.failing => Attempt::Cancelled,
                2 if self.failing && id.0 % 7 == 0 => failed(FailureClass::Permanent),
                _ => {
                    self.delivered[batch.route].push(*id);
                    Attempt::Confirmed
                }
            };
            answers.push((*id, answer));
        }
        answers
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
        let due: Vec<_> = self.timers.iter().take_while(|(at, ..)| *at <= self.now).copied().collect();
        self.timers.retain(|t| t.0 > self.now);
        let timers: Vec<_> = due.into_iter().map(|(at, id, route)| Timer { at, id, route }).collect();
        self.board.ring(&timers, self.now);
    }

    pub(super) fn lose_one(&mut self) {
        let no = PartitionNo(self.rng.u16(0..PARTITIONS));
        let epoch = self.owned[&no];
        self.crashes += 1;
        // Another relay had it and gave it back; what we still write under the old epoch is void.
        self.board.lost(no, epoch);
        let keys: HashSet<String> = self
            .all
            .values()
            .filter_map(|(k, _)| k.clone())
            .filter(|k| partition_of(Some(k), MessageId::from_uuid(uuid::Uuid::nil()), PARTITIONS) == no)
            .collect();
        self.in_flight.retain(|(_, k)| !keys.contains(k));
        self.pending.iter_mut().for_each(|p| {
            if let Pending::Batch(batch) = p {
                let keep: Vec<bool> =
                    batch.messages.iter().map(|m| !m.key.as_ref().is_some_and(|k| keys.contains(k))).collect();
                let mut kept = keep.iter();
                batch.ids.retain(|_| *kept.next().expect("one each"));
                let mut kept = keep.iter();
                batch.messages.retain(|_| *kept.next().expect("one each"));
            }
        });
        let crashed = self.rng.bool();
        self.gain(no, crashed);
    }

    pub(super) fn crash(&mut self) {
        self.crashes += 1;
        self.board = Board::new(self.config, self.routes.clone(), no_jitter);
        self.pending.clear();
        self.writes.clear();
        self.timers.clear();
        self.in_flight.clear();
        for no in 0..PARTITIONS {
            self.gain(PartitionNo(no), true);
        }
    }

    pub(super) fn step(&mut self, producing: bool) {
        match self.rng.u8(0..100) {
            0..30 if producing => self.produce(),
            30..34 => self.commit_one(),
            34..60 => self.one_answer(),
            60..75 => self.settle(),
            77..78 => self.redrive(),
            78..80 => self.renew(),
            75..76 if self.failing && self.rng.u8(0..8) == 0 => self.lose_one(),
            76..77 if self.failing && self.rng.u8(0..20) == 0 => self.crash(),
            _ => {
                let by = Duration::from_millis(self.rng.u64(0..40));
                self.advance(by);
            }
        }
        self.pump();
    }

    pub(super) fn run(&mut self, events: i64) {
        while self.last_id < events {
            self.step(true);
        }
        self.failing = false;
        let mut left = 400_000;
        while !self.table.is_empty()
            || !self.letters.is_empty()
            || !self.board.is_quiet()
            || self.board.stats().held > 0
        {
            self.step(false);
            left -= 1;
            if left == 0 {
                let rest: Vec<_> = self.table.keys().take(5).collect();
                panic!("still waiting: {} events, first {rest:?}; {:?}", self.table.len(), self.board.stats());
            }
        }
    }
}
