//! Deliveries that consumers keep for later, and their letters.

use super::{MemoryStore, MemoryTx, Shared, Staged, State};
use crate::{
    event::{EventId, LetterId, Message, Timestamp},
    failure::{DeadLetter, ReceivedBy},
    outbox::{
        Admission, Awaited, Claim, ClaimQuery, ConsumerStore, History, InboxKey, Postponed, PutBy,
        ReceivedLetter, RetrierStore, Store, StoreError, StoredDelivery, lane_of,
    },
    runtime::{now, wall_clock},
};
use async_trait::async_trait;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A stored delivery.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) lane: (String, String, Option<i64>),
    pub(super) message: Message,
    /// `None` behind others of its lane.
    pub(super) due_at: Option<Instant>,
    pub(super) started: u32,
    pub(super) history: History,
    pub(super) claimed: Option<(Arc<str>, Instant)>,
    /// What it waits for, and since when.
    pub(super) awaits: Option<(Option<Awaited>, Instant)>,
}

impl Row {
    pub(super) fn of(delivery: &PutBy<'_>) -> Self {
        Self {
            lane: (
                delivery.consumer.to_owned(),
                delivery.handler.to_owned(),
                lane_of(delivery.message),
            ),
            message: delivery.message.clone(),
            due_at: delivery.due_in.map(|wait| now() + wait),
            started: delivery.history.runs,
            history: delivery.history.clone(),
            claimed: None,
            awaits: None,
        }
    }

    /// Claims it.
    pub(super) fn claim(
        &mut self,
        id: i64,
        query: &ClaimQuery<'_>,
        now: Instant,
    ) -> StoredDelivery {
        self.claimed = Some((query.by.clone(), now + query.lease));
        StoredDelivery {
            claim: Claim { id, by: query.by.clone() },
            handler: self.lane.1.as_str().into(),
            message: Ok(self.message.clone()),
            started: self.started,
            expired: self.message.expires_at.is_some_and(|at| at <= Timestamp::from(wall_clock())),
            awaited_for: self.awaits.as_ref().map(|(_, since)| now.duration_since(*since)),
            history: self.history.clone(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let who = |row: &Self| {
            (row.lane.0.clone(), row.lane.1.clone(), row.message.source.clone(), row.message.id)
        };
        who(self) == who(other)
    }

    fn is_claimed_by(&self, claim: &Claim) -> bool {
        self.claimed.as_ref().is_some_and(|(by, _)| *by == claim.by)
    }
}

impl Staged {
    /// Takes in what a transaction inside this one has written.
    pub(super) fn take_in(&mut self, inside: Self) {
        self.keys.extend(inside.keys);
        self.calls.extend(inside.calls);
        self.rows.extend(inside.rows);
        self.events.extend(inside.events);
        self.put_by.extend(inside.put_by);
        self.finished.extend(inside.finished);
        self.letters.extend(inside.letters);
    }
}

impl State {
    /// Commits what a transaction did to stored deliveries and letters.
    pub(super) fn settle(&mut self, staged: &mut Staged) {
        for row in staged.put_by.drain(..) {
            if !self.deliveries.values().any(|there| there.is_same(&row)) {
                self.last_id += 1;
                self.deliveries.insert(self.last_id, row);
            }
        }
        for id in staged.finished.drain(..) {
            self.deliveries.remove(&id);
        }
        // The first of each lane is due.
        let mut seen = Vec::new();
        for row in self.deliveries.values_mut().filter(|row| row.lane.2.is_some()) {
            if !seen.contains(&row.lane) {
                seen.push(row.lane.clone());
                row.due_at.get_or_insert_with(now);
            }
        }
        self.letters.append(&mut staged.letters);
    }

    fn is_busy(&self, lane: &(String, String, Option<i64>)) -> bool {
        lane.2.is_some() && self.deliveries.values().any(|row| row.lane == *lane)
    }
}

impl Shared {
    /// Changes a delivery that is claimed; `false` when it is not.
    pub(super) fn change(
        &self,
        claim: &Claim,
        change: impl FnOnce(&mut Row),
    ) -> Result<bool, StoreError> {
        let mut state = self.up()?;
        let Some(row) = state.deliveries.get_mut(&claim.id).filter(|row| row.is_claimed_by(claim))
        else {
            return Ok(false);
        };
        change(row);
        Ok(true)
    }
}

#[async_trait]
impl ConsumerStore for MemoryStore {
    async fn admit(
        &self,
        tx: &MemoryTx,
        key: InboxKey<'_>,
        lane: Option<i64>,
    ) -> Result<Admission, StoreError> {
        {
            let state = self.0.up()?;
            let owned = (
                key.consumer.to_owned(),
                key.handler.to_owned(),
                key.source.to_owned(),
                key.message_id,
            );
            let lane = (owned.0.clone(), owned.1.clone(), lane);
            if state.is_busy(&lane) {
                return Ok(if state.inbox.contains(&owned) {
                    Admission::Repeat
                } else {
                    Admission::Behind
                });
            }
        }
        Ok(if self.receive(tx, key).await? { Admission::First } else { Admission::Repeat })
    }

    async fn put_by(&self, tx: &MemoryTx, delivery: &PutBy<'_>) -> Result<bool, StoreError> {
        let row = Row::of(delivery);
        if self.0.up()?.refused_delivery.as_ref() == Some(&row.message.source) {
            return Err(StoreError::Refused("a packet that is too large".into()));
        }
        if row.due_at.is_none() && !self.0.up()?.is_busy(&row.lane) {
            return Ok(false);
        }
        tx.staged().put_by.push(row);
        Ok(true)
    }

    async fn bury(
        &self,
        tx: &MemoryTx,
        letter: &ReceivedLetter<'_>,
    ) -> Result<DeadLetter, StoreError> {
        let id = {
            let mut state = self.0.writable()?;
            state.last_id += 1;
            LetterId(state.last_id)
        };
        let message = letter.message.ok();
        let letter = DeadLetter::new(
            id,
            message.and_then(|m| m.sequence).unwrap_or(EventId(0)),
            message.cloned(),
            String::new(),
            letter.reason,
            letter.history.failures,
            letter.history.errors.clone(),
            false,
            Timestamp::from_micros(0),
            None,
            letter.history.letter,
        )
        .received_by(Some(ReceivedBy {
            consumer: letter.consumer.to_owned(),
            handler: letter.handler.to_owned(),
        }));
        tx.staged().letters.push(letter.clone());
        Ok(letter)
    }

    async fn nest(&self, tx: &MemoryTx) -> Result<MemoryTx, StoreError> {
        self.0.up()?.open += 1;
        let (staged, around) = (Arc::default(), Some(tx.staged.clone()));
        let trail = Mutex::new(tx.trail().clone());
        Ok(MemoryTx { store: self.0.clone(), staged, around, trail })
    }

    fn inbox_retention(&self) -> Duration {
        self.0.state().inbox_retention.unwrap_or(Duration::MAX)
    }
}

#[async_trait]
impl RetrierStore for MemoryStore {
    async fn claim(&self, query: &ClaimQuery<'_>) -> Result<Vec<StoredDelivery>, StoreError> {
        let mut state = self.0.up()?;
        let (now, mut heads, mut claimed) = (now(), Vec::new(), Vec::new());
        for (id, row) in &mut state.deliveries {
            let is_head = row.lane.2.is_none() || !heads.contains(&row.lane);
            heads.push(row.lane.clone());
            let is_free = row.claimed.as_ref().is_none_or(|(_, until)| *until <= now);
            let is_due = row.due_at.is_some_and(|at| at <= now);
            let is_known = row.lane.0 == query.consumer
                && query.handlers.iter().any(|known| **known == *row.lane.1);
            if !(is_head && is_free && is_due && is_known) || claimed.len() >= query.limit as usize
            {
                continue;
            }
            claimed.push(row.claim(*id, query, now));
        }
        Ok(claimed)
    }

    async fn claim_new(
        &self,
        key: InboxKey<'_>,
        by: &Arc<str>,
        lease: Duration,
    ) -> Result<Option<Claim>, StoreError> {
        let mut state = self.0.up()?;
        let mut heads = Vec::new();
        for (id, row) in &mut state.deliveries {
            let is_head = row.lane.2.is_none() || !heads.contains(&row.lane);
            heads.push(row.lane.clone());
            let is_it = (
                row.lane.0.as_str(),
                row.lane.1.as_str(),
                row.message.source.as_str(),
                row.message.id,
            ) == (key.consumer, key.handler, key.source, key.message_id);
            if is_it && is_head && row.started == 0 && row.claimed.is_none() {
                row.started = 1;
                row.claimed = Some((by.clone(), now() + lease));
                return Ok(Some(Claim { id: *id, by: by.clone() }));
            }
        }
        Ok(None)
    }

    async fn prolong(
        &self,
        claim: &Claim,
        lease: Duration,
        begins: bool,
    ) -> Result<bool, StoreError> {
        self.0.change(claim, |row| {
            row.claimed = Some((claim.by.clone(), now() + lease));
            row.started += u32::from(begins);
        })
    }

    async fn finish(&self, tx: &MemoryTx, claim: &Claim) -> Result<bool, StoreError> {
        let held = self.0.change(claim, |_| {})?;
        if held {
            tx.staged().finished.push(claim.id);
        }
        Ok(held)
    }

    async fn postpone(
        &self,
        claim: &Claim,
        postponed: Option<Postponed<'_>>,
    ) -> Result<bool, StoreError> {
        {
            let state = self.0.up()?;
            let source = state.deliveries.get(&claim.id).map(|row| &row.message.source);
            if postponed.is_some() && source.is_some() && source == state.refused_delivery.as_ref()
            {
                return Err(StoreError::Refused("a row that is too large".into()));
            }
        }
        self.0.change(claim, |row| {
            if let Some(postponed) = &postponed {
                row.history = postponed.history.clone();
                row.awaits = None;
            }
            row.due_at = Some(now() + postponed.map_or(Duration::ZERO, |p| p.due_in));
            row.started = row.history.runs;
            row.claimed = None;
        })
    }

    async fn forget(&self, _limit: u32) -> Result<u64, StoreError> {
        self.0.up().map(|_| 0)
    }
}
