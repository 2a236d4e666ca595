//! Deferred deliveries of consumers, and their dead letters.

use super::{MemoryStore, MemoryTx, Shared, Staged, State};
use crate::{
    event::{EventId, LetterId, Message, Timestamp},
    failure::{ConsumerOrigin, DeadLetter},
    outbox::{
        Admission, Awaited, ClaimQuery, ConsumerStore, Deferral, DeferredDelivery, DeliveryClaim,
        History, InboxKey, ReceivedLetter, RetrierStore, Store, StoreError, StoredDelivery,
        order_hash,
    },
    runtime::{later, now, wall_clock},
};
use async_trait::async_trait;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A stored delivery.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) queue: (String, String, Option<i64>),
    pub(super) message: Message,
    /// `None` behind others of its queue.
    pub(super) due_at: Option<Instant>,
    pub(super) started: u32,
    pub(super) history: History,
    pub(super) claimed: Option<(Arc<str>, Instant)>,
    /// What an instance has to know to run it, and since when it waits.
    pub(super) awaits: Option<(Option<Awaited>, Instant)>,
}

impl Row {
    pub(super) fn of(delivery: &DeferredDelivery<'_>) -> Self {
        Self {
            queue: (
                delivery.consumer.to_owned(),
                delivery.handler.to_owned(),
                order_hash(delivery.message),
            ),
            message: delivery.message.clone(),
            due_at: delivery.due_in.map(|wait| later(now(), wait)),
            started: delivery.history.attempts,
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
        self.claimed = Some((query.by.clone(), later(now, query.lease)));
        StoredDelivery {
            claim: DeliveryClaim { id, by: query.by.clone() },
            handler: self.queue.1.as_str().into(),
            message: Ok(self.message.clone()),
            started: self.started,
            expired: self.message.expires_at.is_some_and(|at| at <= Timestamp::from(wall_clock())),
            awaited_for: self.awaits.as_ref().map(|(_, since)| now.duration_since(*since)),
            history: self.history.clone(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let who = |row: &Self| {
            (row.queue.0.clone(), row.queue.1.clone(), row.message.source.clone(), row.message.id)
        };
        who(self) == who(other)
    }

    fn is_claimed_by(&self, claim: &DeliveryClaim) -> bool {
        self.claimed.as_ref().is_some_and(|(by, _)| *by == claim.by)
    }
}

impl Staged {
    /// Takes over the writes of a nested transaction.
    pub(super) fn absorb(&mut self, inside: Self) {
        self.keys.extend(inside.keys);
        self.commands.extend(inside.commands);
        self.rows.extend(inside.rows);
        self.events.extend(inside.events);
        self.deferred.extend(inside.deferred);
        self.finished.extend(inside.finished);
        self.letters.extend(inside.letters);
    }
}

impl State {
    /// Commits a transaction's writes to stored deliveries and letters.
    pub(super) fn settle(&mut self, staged: &mut Staged) {
        for row in staged.deferred.drain(..) {
            if !self.deliveries.values().any(|there| there.is_same(&row)) {
                self.last_id += 1;
                self.deliveries.insert(self.last_id, row);
            }
        }
        for id in staged.finished.drain(..) {
            self.deliveries.remove(&id);
        }
        // The first of each queue is due.
        let mut seen = Vec::new();
        for row in self.deliveries.values_mut().filter(|row| row.queue.2.is_some()) {
            if !seen.contains(&row.queue) {
                seen.push(row.queue.clone());
                row.due_at.get_or_insert_with(now);
            }
        }
        self.letters.append(&mut staged.letters);
    }

    fn is_busy(&self, queue: &(String, String, Option<i64>)) -> bool {
        queue.2.is_some() && self.deliveries.values().any(|row| row.queue == *queue)
    }
}

impl Shared {
    /// Changes a delivery that is claimed; `false` when it is not.
    pub(super) fn change(
        &self,
        claim: &DeliveryClaim,
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
        order_hash: Option<i64>,
    ) -> Result<Admission, StoreError> {
        {
            let state = self.0.up()?;
            let owned = (
                key.consumer.to_owned(),
                key.handler.to_owned(),
                key.source.to_owned(),
                key.message_id,
            );
            let queue = (owned.0.clone(), owned.1.clone(), order_hash);
            if state.is_busy(&queue) {
                return Ok(if state.inbox.contains(&owned) {
                    Admission::Duplicate
                } else {
                    Admission::QueueBehind
                });
            }
        }
        Ok(if self.receive(tx, key).await? { Admission::New } else { Admission::Duplicate })
    }

    async fn defer(
        &self,
        tx: &MemoryTx,
        delivery: &DeferredDelivery<'_>,
    ) -> Result<bool, StoreError> {
        let row = Row::of(delivery);
        if self.0.up()?.refused_delivery.as_ref() == Some(&row.message.source) {
            return Err(StoreError::Refused("a packet that is too large".into()));
        }
        if row.due_at.is_none() && !self.0.up()?.is_busy(&row.queue) {
            return Ok(false);
        }
        tx.staged().deferred.push(row);
        Ok(true)
    }

    async fn write_dead_letter(
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
        .with_consumer_origin(Some(ConsumerOrigin {
            consumer: letter.consumer.to_owned(),
            handler: letter.handler.to_owned(),
        }));
        tx.staged().letters.push(letter.clone());
        Ok(letter)
    }

    async fn begin_nested(&self, tx: &MemoryTx) -> Result<MemoryTx, StoreError> {
        self.0.up()?.open += 1;
        let (staged, around) = (Arc::default(), Some(tx.staged.clone()));
        let correlation = Mutex::new(tx.correlation().clone());
        Ok(MemoryTx { store: self.0.clone(), staged, around, correlation })
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
            let is_head = row.queue.2.is_none() || !heads.contains(&row.queue);
            heads.push(row.queue.clone());
            let is_free = row.claimed.as_ref().is_none_or(|(_, until)| *until <= now);
            let is_due = row.due_at.is_some_and(|at| at <= now);
            let is_known = row.queue.0 == query.consumer
                && query.handlers.iter().any(|known| **known == *row.queue.1);
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
    ) -> Result<Option<DeliveryClaim>, StoreError> {
        let mut state = self.0.up()?;
        let mut heads = Vec::new();
        for (id, row) in &mut state.deliveries {
            let is_head = row.queue.2.is_none() || !heads.contains(&row.queue);
            heads.push(row.queue.clone());
            let is_it = (
                row.queue.0.as_str(),
                row.queue.1.as_str(),
                row.message.source.as_str(),
                row.message.id,
            ) == (key.consumer, key.handler, key.source, key.message_id);
            if is_it && is_head && row.started == 0 && row.claimed.is_none() {
                row.started = 1;
                row.claimed = Some((by.clone(), later(now(), lease)));
                return Ok(Some(DeliveryClaim { id: *id, by: by.clone() }));
            }
        }
        Ok(None)
    }

    async fn extend_claim(
        &self,
        claim: &DeliveryClaim,
        lease: Duration,
        starts: bool,
    ) -> Result<bool, StoreError> {
        self.0.change(claim, |row| {
            row.claimed = Some((claim.by.clone(), later(now(), lease)));
            row.started += u32::from(starts);
        })
    }

    async fn finish(&self, tx: &MemoryTx, claim: &DeliveryClaim) -> Result<bool, StoreError> {
        let claimed = self.0.change(claim, |_| {})?;
        if claimed {
            tx.staged().finished.push(claim.id);
        }
        Ok(claimed)
    }

    async fn reschedule(
        &self,
        claim: &DeliveryClaim,
        deferral: Option<Deferral<'_>>,
    ) -> Result<bool, StoreError> {
        {
            let state = self.0.up()?;
            let source = state.deliveries.get(&claim.id).map(|row| &row.message.source);
            if deferral.is_some() && source.is_some() && source == state.refused_delivery.as_ref() {
                return Err(StoreError::Refused("a row that is too large".into()));
            }
        }
        self.0.change(claim, |row| {
            if let Some(deferral) = &deferral {
                row.history = deferral.history.clone();
                row.awaits = None;
            }
            row.due_at = Some(later(now(), deferral.map_or(Duration::ZERO, |p| p.due_in)));
            row.started = row.history.attempts;
            row.claimed = None;
        })
    }

    async fn prune_inbox(&self, _limit: u32) -> Result<u64, StoreError> {
        self.0.up().map(|_| 0)
    }
}
