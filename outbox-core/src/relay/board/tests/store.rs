//! The database of the model: producers' commits, reads, settles.

use super::*;

impl Model {
    pub(super) fn produce(&mut self) {
        let key = self.rng.u32(0..10);
        let key = (key > 0).then(|| format!("k{key}"));
        if key.is_some() && self.open.values().any(|k| *k == key) {
            return;
        }
        self.last_id += 1;
        let id = EventId(self.last_id);
        let message_id = MessageId::from_uuid(uuid::Uuid::from_u128(self.rng.u128(..)));
        let name = if self.rng.bool() { "a" } else { "b" };
        let name = if self.has_third && self.rng.u8(0..3) == 0 { "c" } else { name };
        let message = Message::new(MessageParts {
            id: message_id,
            sequence: Some(id),
            source: "model".into(),
            event_type: "thing.happened".into(),
            event_version: 1,
            topic: name.into(),
            aggregate_type: None,
            key: key.clone(),
            content_type: "application/json".into(),
            payload: vec![b' '; self.rng.usize(0..self.rng.clone().usize(1..1_500))].into(),
            headers: Headers::new(),
            created_at: Timestamp::from_micros(0),
            expires_at: None,
            retry: None,
        });
        self.messages.insert(id, message.clone());
        let partition = partition_of(key.as_deref(), message_id, PARTITIONS);
        let late = self.rng.u8(0..8) == 0;
        self.table.insert(id, Row { message, partition, visible: !late, rows: BTreeMap::new() });
        self.all.insert(id, (key.clone(), name.to_owned()));
        if late {
            self.open.insert(id, key);
        } else {
            self.board.wake();
        }
    }

    pub(super) fn commit_one(&mut self) {
        if let Some(id) = self.open.keys().nth(self.rng.usize(0..self.open.len().max(1))).copied() {
            self.open.remove(&id);
            self.table.get_mut(&id).expect("open events are stored").visible = true;
            self.board.wake();
        }
    }

    /// Gives a row as a read returns it; a longer payload is left out.
    pub(super) fn stored(&self, id: EventId, row: &Row, payload_limit: u32) -> StoredEvent {
        let rows = row.rows.values().map(|(r, due)| RouteRow {
            due_in: due.map(|at| at.saturating_duration_since(self.now)),
            ..r.clone()
        });
        let is_large = row.message.payload.len() > payload_limit as usize;
        let without_payload = Message::new(MessageParts {
            payload: bytes::Bytes::new(),
            ..row.message.clone().into_parts()
        });
        StoredEvent {
            partition: row.partition,
            id,
            body: Ok(if is_large { without_payload } else { row.message.clone() }),
            left_out: is_large.then_some(row.message.payload.len() as u64),
            expires_in: None,
            rows: rows.collect(),
        }
    }

    /// Answers a read from the table as it is now.
    pub(super) fn answer(&mut self, job: &ReadJob) -> ReadAnswer {
        // As if the read had only a few bytes for each of its rows.
        let few = self.rng.u32(0..2_000);

        let of = |no: PartitionNo| {
            self.table.iter().filter(move |(_, r)| r.partition == no && r.visible)
        };
        match job {
            ReadJob::Main { plan, .. } => ReadAnswer::Main(
                plan.partitions
                    .iter()
                    .map(|p| {
                        let limit = p.limit as usize;
                        let past: Vec<_> = of(p.partition)
                            .filter(|(id, _)| **id > p.after)
                            .take(limit)
                            .map(|(id, r)| self.stored(*id, r, few.min(plan.payload_limit)))
                            .collect();
                        let floor = p.after.0.saturating_sub(i64::from(plan.window));
                        let looks = p.look_back || !past.is_empty();
                        let window = of(p.partition)
                            .filter(|(id, _)| looks && id.0 > floor && **id <= p.after)
                            .map(|(id, _)| *id)
                            .collect();
                        PartitionRows { full: past.len() == limit, past, window }
                    })
                    .collect(),
            ),
            ReadJob::Fetch { ids, payload_limit, .. } => ReadAnswer::Events(
                ids.iter()
                    .filter_map(|(_, id)| {
                        let most = if *payload_limit == u32::MAX { u32::MAX } else { few };
                        self.table.get(id).filter(|r| r.visible).map(|r| self.stored(*id, r, most))
                    })
                    .collect(),
            ),
            ReadJob::Page { partition, from, to, limit, payload_limit, .. } => ReadAnswer::Events(
                of(*partition)
                    .filter(|(id, _)| *id >= from && *id <= to)
                    .take(*limit as usize)
                    .map(|(id, r)| self.stored(*id, r, few.min(*payload_limit)))
                    .collect(),
            ),
            ReadJob::Ids { partition, from, to, limit, .. } => ReadAnswer::Ids(
                of(*partition)
                    .filter(|(id, _)| *id >= from && *id <= to)
                    .take(*limit as usize)
                    .map(|(id, _)| *id)
                    .collect(),
            ),
        }
    }

    /// Takes the board's batches, reads and writes.
    pub(super) fn pump(&mut self) {
        self.board.record_partially_confirmed(self.now);
        for batch in self.board.next_batches(self.now) {
            for ((id, _), m) in batch.events.iter().zip(&batch.messages) {
                assert_eq!(m.payload, self.messages[id].payload, "{id} without its payload");
                self.check_controls(batch.route, *id, m);
                if let Some(key) = &m.key {
                    assert!(
                        self.in_flight.insert((batch.route, key.clone())),
                        "two of a key in flight"
                    );
                }
            }
            self.pending.push(Pending::Batch(batch));
        }
        if self.relays_leave {
            self.replace_when_drained();
        }
        if self.stopping {
            self.take_outputs();
            return;
        }
        if let Some(job) = self.board.next_read(self.now) {
            let failed = self.failing && self.rng.u8(0..40) == 0;
            let answer = self.answer(&job);
            self.pending.push(if failed { Pending::Failed } else { Pending::Read(answer) });
        }
        self.take_outputs();
        let turns =
            [("reading", self.board.next_read_at()), ("publishing", self.board.next_instant())];
        for (what, turn) in turns {
            assert!(
                turn.is_none_or(|at| at > self.now),
                "{what} has nothing to do now and asks for a turn at once, for ever"
            );
        }
    }

    fn take_outputs(&mut self) {
        let writes = self.board.take_writes();
        if !writes.is_empty() {
            self.writes.push_back((false, writes));
        }
        for timer in self.board.take_timers() {
            self.timers.insert((timer.at, timer.id, timer.route));
        }
    }

    pub(super) fn owns(&self, no: PartitionNo, epoch: Epoch) -> bool {
        self.owned.get(&no) == Some(&epoch)
    }

    /// The settler's database work, in order.
    pub(super) fn settle(&mut self) {
        let Some((_, writes)) = self.writes.pop_front() else { return };
        let mut finished = Vec::new();
        for event in writes.finish {
            if self.owns(event.0, event.1) {
                self.table.remove(&event.2);
                finished.push(event);
            }
        }
        let (mut recorded, mut letters) = (Vec::new(), Vec::new());
        for (epoch, update) in writes.record {
            if !self.owns(update.partition, epoch) {
                continue;
            }
            recorded.push((update.partition, epoch, update.id));
            let Some(row) = self.table.get_mut(&update.id) else { continue };
            for letter in &update.letters {
                if letter.route.is_empty() {
                    self.unroutable.insert(update.id);
                    continue;
                }
                let route = self
                    .routes
                    .iter()
                    .position(|r| r.name == letter.route)
                    .expect("a route of ours");
                self.last_letter += 1;
                let id = LetterId(self.last_letter);
                letters.push((update.id, letter.route.clone(), id));
                self.letters.insert((update.id, route), (id, letter.parks));
                self.given_up.insert((update.id, route));
                if letter.reason == crate::failure::DeadReason::Rejected {
                    self.rejected.insert((update.id, route));
                }
            }
            for r in update.rows {
                let due = r.due_in.map(|d| self.now + d);
                row.rows.insert(r.route.clone(), (r, due));
            }
            if row.rows.values().all(|(r, _)| r.state != RouteState::Waiting) {
                self.table.remove(&update.id);
            }
        }
        for detached in writes.letters {
            let route = self
                .routes
                .iter()
                .position(|r| r.name == detached.letter.route)
                .expect("a route of ours");
            assert!(self.is_at_most_once(route));
            self.given_up.insert((detached.id, route));
        }
        self.pending.push(Pending::Finished(finished));
        self.pending.push(Pending::Recorded(letters, recorded));
    }
}
