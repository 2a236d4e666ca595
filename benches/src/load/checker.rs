//! Sees every event and keeps count: none lost, none twice, none of a key before its turn.

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

/// What was seen of the ids from 1 to a last one.
pub(crate) struct Checker {
    seen: Vec<AtomicBool>,
    last_of_key: Vec<AtomicI64>,
    distinct: AtomicU64,
    twice: AtomicU64,
    reordered: AtomicU64,
    damaged: AtomicU64,
}

/// What went wrong with a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) damaged: u64,
}

impl Checker {
    pub(crate) fn new(events: u32) -> Arc<Self> {
        Arc::new(Self {
            seen: (0..=events).map(|_| AtomicBool::new(false)).collect(),
            last_of_key: (0..KEYS).map(|_| AtomicI64::new(0)).collect(),
            distinct: AtomicU64::new(0),
            twice: AtomicU64::new(0),
            reordered: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
        })
    }

    /// Sees one event.
    pub(crate) fn see(&self, id: i64, key: Option<&str>, payload: &[u8]) {
        let place = usize::try_from(id).ok().and_then(|id| self.seen.get(id));
        let last = key.and_then(number_of).and_then(|number| self.last_of_key.get(number));
        let (Some(place), Some(last), PAYLOAD) = (place, last, payload.len()) else {
            self.damaged.fetch_add(1, Relaxed);
            return;
        };
        if place.swap(true, Relaxed) {
            self.twice.fetch_add(1, Relaxed);
            return;
        }
        self.distinct.fetch_add(1, Relaxed);
        if last.swap(id, Relaxed) > id {
            self.reordered.fetch_add(1, Relaxed);
        }
    }

    /// Tells how many events were seen, each once.
    pub(crate) fn distinct(&self) -> u64 {
        self.distinct.load(Relaxed)
    }

    /// Sums up.
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
    /// Tells whether a figure of this drain counts for anything.
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

/// A destination that does nothing but look.
pub(crate) struct Looks(pub(crate) Arc<Checker>);

#[async_trait]
impl Publisher for Looks {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        self.0.see(message.sequence.map_or(0, |id| id.0), message.key.as_deref(), &message.payload);
        Ok(Receipt::new())
    }

    async fn publish_batch(&self, batch: &mut Batch) {
        for (place, message) in batch.messages().iter().enumerate() {
            self.0.see(
                message.sequence.map_or(0, |id| id.0),
                message.key.as_deref(),
                &message.payload,
            );
            batch.done(place, Ok(Receipt::new()));
        }
    }
}
