//! One event in memory.

use super::leg::{LegState, RouteLeg};
use crate::{
    event::Message,
    outbox::{Epoch, PartitionNo},
};
use std::time::Instant;

/// An event in memory, with its state on each of its routes.
#[derive(Debug)]
pub(crate) struct EventEntry {
    pub(crate) message: Message,
    /// Whether it came without its payload, and so can only be evicted.
    pub(crate) left_out: bool,
    /// Its bytes in the memory of each of its routes.
    pub(crate) bytes: usize,
    pub(crate) partition: PartitionNo,
    pub(crate) epoch: Epoch,
    /// Hash of the key; `None` without one.
    pub(crate) key_hash: Option<u64>,
    pub(crate) expires_at: Option<Instant>,
    pub(crate) legs: Vec<RouteLeg>,
    /// Whether the database has route rows of it, or the settler is about to write them.
    pub(crate) has_rows: bool,
    /// Records that the settler has not confirmed yet.
    pub(crate) pending_writes: u32,
    /// Whether the settler has deleted the event although an at-most-once publish of it has not
    /// ended.
    pub(crate) row_finished: bool,
}

impl EventEntry {
    /// Tells whether it is in memory for no route, and no record of it is being written.
    pub(crate) fn is_unused(&self) -> bool {
        self.pending_writes == 0
            && self.legs.iter().all(|l| l.state().is_final() || l.state() == LegState::Evicted)
    }

    /// Tells whether some of its routes have ended and others not, and an ended one is not
    /// recorded.
    pub(crate) fn is_partially_confirmed(&self) -> bool {
        self.legs.iter().any(|l| l.state().is_final() && !l.written)
            && !self.legs.iter().all(|l| l.state().is_final())
    }
}
