//! What the database of the model does: producers' commits, reads, settles.

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

    /// Gives a row as it is read; a payload of more bytes is left out.
    pub(super) fn stored(&self, id: EventId, row: &Row, whole_up_to: u32) -> StoredEvent {
        let rows = row.rows.values().map(|(r, due)| RouteRow {
            due_in: due.map(|at| at.saturating_duration_since(self.now)),
            ..r.clone()
        });
        let is_large = row.message.payload.len() > whole_up_to as usize;
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
        // As if a read had few bytes for each of its rows.
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
                            .map(|(id, r)| self.stored(*id, r, few.min(plan.whole_up_to)))
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
            ReadJob::Fetch { ids, whole_up_to, .. } => ReadAnswer::Events(
                ids.iter()
                    .filter_map(|(_, id)| {
                        let most = if *whole_up_to == u32::MAX { u32::MAX } else { few };
                        self.table.get(id).filter(|r| r.visible).map(|r| self.stored(*id, r, most))
                    })
                    .collect(),
            ),
            ReadJob::Page { partition, from, to, limit, whole_up_to, .. } => ReadAnswer::Events(
                of(*partition)
                    .filter(|(id, _)| *id >= from && *id <= to)
                    .take(*limit as usize)
                    .map(|(id, r)| self.stored(*id, r, few.min(*whole_up_to)))
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

    /// Lets the board do what it wants to do.
    pub(super) fn pump(&mut self) {
        self.board.write_halfway(self.now);
        for batch in self.board.next_batches(self.now) {
            for ((id, _), m) in batch.events.iter().zip(&batch.messages) {
                assert_eq!(m.payload, self.messages[id].payload, "{id} without its payload");
                if let Some(key) = &m.key {
                    assert!(
                        self.in_flight.insert((batch.route, key.clone())),
                        "two of a key in flight"
                    );
                }
            }
            self.pending.push(Pending::Batch(batch));
        }
        if self.leaves {
            self.leave_when_drained();
        }
        if self.stopping {
            self.take_what_is_wanted();
            return;
        }
        if let Some(job) = self.board.next_read(self.now) {
            let failed = self.failing && self.rng.u8(0..40) == 0;
            let answer = self.answer(&job);
            self.pending.push(if failed { Pending::Failed } else { Pending::Read(answer) });
        }
        self.take_what_is_wanted();
        let turns =
            [("reading", self.board.next_read_at()), ("publishing", self.board.next_instant())];
        for (what, turn) in turns {
            assert!(
                turn.is_none_or(|at| at > self.now),
                "{what} has nothing to do now and asks for a turn at once, for ever"
            );
        }
    }

    fn take_what_is_wanted(&mut self) {
        let writes = self.board.take_writes();
        if !writes.is_empty() {
            self.writes.push_back((false, writes));
        }
        for timer in self.board.take_timers() {
            self.timers.insert((timer.at, timer.id, timer.route));
        }
    }

    pub(super) fn holds(&self, no: PartitionNo, epoch: Epoch) -> bool {
        self.owned.get(&no) == Some(&epoch)
    }

    /// The settler's database work, in order.
    pub(super) fn settle(&mut self) {
        let Some((_, writes)) = self.writes.pop_front() else { return };
        let mut finished = Vec::new();
        for place in writes.finish {
            if self.holds(place.0, place.1) {
                self.table.remove(&place.2);
                finished.push(place);
            }
        }
        let (mut recorded, mut buried) = (Vec::new(), Vec::new());
        for (epoch, verdict) in writes.record {
            if !self.holds(verdict.partition, epoch) {
                continue;
            }
            recorded.push((verdict.partition, epoch, verdict.id));
            let Some(row) = self.table.get_mut(&verdict.id) else { continue };
            for letter in &verdict.letters {
                if letter.route.is_empty() {
                    self.unroutable.insert(verdict.id);
                    continue;
                }
                let route = self
                    .routes
                    .iter()
                    .position(|r| r.name == letter.route)
                    .expect("a route of ours");
                self.last_letter += 1;
                let id = LetterId(self.last_letter);
                buried.push((verdict.id, letter.route.clone(), id));
                self.letters.insert((verdict.id, route), (id, letter.parks));
                self.buried.insert((verdict.id, route));
                if letter.reason == crate::failure::DeadReason::Rejected {
                    self.rejected.insert((verdict.id, route));
                }
            }
            for r in verdict.rows {
                let due = r.due_in.map(|d| self.now + d);
                row.rows.insert(r.route.clone(), (r, due));
            }
            if row.rows.values().all(|(r, _)| r.state != RouteState::Waiting) {
                self.table.remove(&verdict.id);
            }
        }
        for carried in writes.bury {
            let route = self
                .routes
                .iter()
                .position(|r| r.name == carried.letter.route)
                .expect("a route of ours");
            assert!(self.is_once(route));
            self.buried.insert((carried.id, route));
        }
        self.pending.push(Pending::Finished(finished));
        self.pending.push(Pending::Recorded(buried, recorded));
    }
}
