//! What can be set for a consumer.

use super::handler::UnhandledPolicy;
use crate::failure::RetryPolicy;
use std::time::Duration;

/// When a delivery is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckMode {
    /// After its handlers' transactions are committed, or it is stored for later, or a dead letter is written: at least
    /// once, with effects that happen once.
    #[default]
    AfterHandlers,
    /// Before its handlers run: at most once. A handler that fails is not tried again, its message becomes a dead letter;
    /// a crash loses what had begun.
    Before,
    /// By the handlers, which ask for it [behind their commit](super::HandlerContext::ack_after_commit), or
    /// [take the delivery](super::HandlerContext::take_delivery) and answer when they like. Nothing is retried or stored: an
    /// error rolls back and returns the delivery, if the handler left it. So does a message that only another instance knows.
    Manual,
}

/// Where messages go that a consumer gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeadLetters {
    /// Into the dead letters of its own database, to be listed and redriven there; the delivery is acknowledged.
    #[default]
    Stored,
    /// To the transport: the delivery is rejected, and the broker does with it what it does with those, such as a
    /// dead-letter queue. What was stored for later has no delivery any more, and becomes a letter all the same.
    Transport,
}

/// How a consumer works.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) unhandled: UnhandledPolicy,
    pub(super) keep_unknown: Duration,
    pub(super) ack: AckMode,
    pub(super) letters: DeadLetters,
    pub(super) retry: RetryPolicy,
    pub(super) timeout: Option<Duration>,
    pub(super) hold: Duration,
    pub(super) lease: Duration,
    pub(super) redelivered_for: Duration,
    pub(super) concurrency: usize,
    pub(super) batch: usize,
    pub(super) prefetch: usize,
    pub(super) prefetch_per_key: usize,
}

impl Settings {
    /// How many stored deliveries run at once.
    pub(super) fn stored_at_once(&self) -> usize {
        stored_beside(self.concurrency)
    }

    /// How many deliveries may be begun at once that come again when the process dies: none of those that are acknowledged
    /// first, and those that a handler answers for are its own matter.
    pub(super) fn comes_again_at_once(&self) -> usize {
        match self.ack {
            AckMode::AfterHandlers => self.concurrency.saturating_mul(self.batch),
            AckMode::Before | AckMode::Manual => 0,
        }
    }
}

/// How many stored deliveries run at once beside others: a quarter, since they are those that fail.
pub(super) fn stored_beside(concurrency: usize) -> usize {
    (concurrency / 4).max(1)
}
