//! Records every event of a drain: none lost, none duplicated, none of a key out of order.

use super::fill::{KEYS, PAYLOAD, number_of};
use async_trait::async_trait;
use outbox_core::{
    event::Message,
    transport::{Batch, PublishError, Publisher, Receipt},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

/// The recorded events, by ids from 1 to a last one.
pub(crate) struct Checker {
    /// Bytes of each payload.
    payload: usize,
    seen: Vec<AtomicBool>,
    last_of_key: Vec<AtomicI64>,
    distinct: AtomicU64,
    twice: AtomicU64,
    reordered: AtomicU64,
    damaged: AtomicU64,
}

/// The faults of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) damaged: u64,
}

impl Checker {
    /// Expects so many events with the usual keys and payloads.
    pub(crate) fn new(events: u32) -> Arc<Self> {
        Self::of(events, KEYS, PAYLOAD)
    }

    /// Expects so many events, of keys with numbers below a limit, and payloads of so many bytes.
    pub(crate) fn of(events: u32, keys: usize, payload: usize) -> Arc<Self> {
        Arc::new(Self {
            payload,
            seen: (0..=events).map(|_| AtomicBool::new(false)).collect(),
            last_of_key: (0..keys).map(|_| AtomicI64::new(0)).collect(),
            distinct: AtomicU64::new(0),
            twice: AtomicU64::new(0),
            reordered: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
        })
    }

    /// Records one event.
    pub(crate) fn record(&self, id: i64, key: Option<&str>, payload: &[u8]) {
        if payload.len() == self.payload {
            self.note(id, key.and_then(number_of));
        } else {
            self.damaged.fetch_add(1, Relaxed);
        }
    }

    /// Records one event, whose payload is right, by the number of its key.
    pub(crate) fn note(&self, id: i64, key: Option<usize>) {
        let seen = usize::try_from(id).ok().and_then(|id| self.seen.get(id));
        let last = key.and_then(|number| self.last_of_key.get(number));
        let (Some(seen), Some(last)) = (seen, last) else {
            self.damaged.fetch_add(1, Relaxed);
            return;
        };
        if seen.swap(true, Relaxed) {
            self.twice.fetch_add(1, Relaxed);
            return;
        }
        self.distinct.fetch_add(1, Relaxed);
        if last.swap(id, Relaxed) > id {
            self.reordered.fetch_add(1, Relaxed);
        }
    }

    /// Gives the number of distinct recorded events.
    pub(crate) fn distinct(&self) -> u64 {
        self.distinct.load(Relaxed)
    }

    /// Gives the faults so far.
    pub(crate) fn faults(&self) -> Faults {
        Faults {
            lost: (self.seen.len() as u64 - 1).saturating_sub(self.distinct()),
            duplicated: self.twice.load(Relaxed),
            reordered: self.reordered.load(Relaxed),
            damaged: self.damaged.load(Relaxed),
        }
    }
}

impl Faults {
    /// Tells whether the figure of this drain is void.
    pub(crate) fn void(&self) -> bool {
        self.lost > 0 || self.reordered > 0 || self.damaged > 0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, duplicated, reordered, damaged } = self;
        write!(f, "{lost} lost, {duplicated} duplicated, {reordered} reordered, {damaged} damaged")
    }
}

/// A destination that checks each event and does nothing else.
pub(crate) struct CheckingPublisher(pub(crate) Arc<Checker>);

#[async_trait]
impl Publisher for CheckingPublisher {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        self.0.record(
            message.sequence.map_or(0, |id| id.0),
            message.key.as_deref(),
            &message.payload,
        );
        Ok(Receipt::new())
    }

    async fn publish_batch(&self, batch: &mut Batch) {
        for (index, message) in batch.messages().iter().enumerate() {
            self.0.record(
                message.sequence.map_or(0, |id| id.0),
                message.key.as_deref(),
                &message.payload,
            );
            batch.done(index, Ok(Receipt::new()));
        }
    }
}
