//! The settings of a consumer.

use super::{batch::Batching, handler::UnhandledPolicy, intake::most_waiting};
use crate::failure::RetryPolicy;
use std::time::Duration;

/// When a delivery is acknowledged.
///
/// ```
/// # use outbox_core::{consumer::{AckMode, ConsumerBuilder}, outbox::ConsumerStore};
/// # fn example<S: ConsumerStore>(metrics: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
/// metrics.acknowledge(AckMode::Before) // a measurement may be lost, and is never counted twice
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckMode {
    /// After its handlers' transactions are committed, or it is stored for later, or a dead letter is written: at
    /// least once, with effects that happen once.
    #[default]
    AfterHandlers,
    /// Before its handlers run: at most once. A handler that fails is not retried, its message becomes a dead letter; a
    /// crash loses the deliveries whose handlers had begun.
    Before,
    /// By the handlers, which ask for it [after their commit](super::HandlerContext::ack_after_commit), or
    /// [take the delivery](super::HandlerContext::take_delivery) and acknowledge it at any time. Nothing is retried or
    /// stored: an error rolls back and returns the delivery, unless the handler took it. A message that only another
    /// instance knows is returned too.
    Manual,
}

/// Where the messages go that a consumer gives up.
///
/// ```
/// # use outbox_core::{consumer::{ConsumerBuilder, DeadLetters}, outbox::ConsumerStore};
/// # fn example<S: ConsumerStore>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
/// consumer.dead_letters(DeadLetters::Transport) // the broker's queue is where our operators look
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeadLetters {
    /// Into the dead letters of its own database, to be listed and redriven there; the delivery is acknowledged.
    #[default]
    Stored,
    /// To the transport: the delivery is rejected, and the broker moves it to a dead-letter queue, or does what else
    /// it is configured to do. A stored delivery is acknowledged already, and becomes a dead letter of the database all
    /// the same.
    Transport,
}

/// Deliveries that may wait for each that may run, unless set: a hot key delays the others later, and memory
/// use stays small.
const PREFETCH_PER_SLOT: usize = 4;

/// How a consumer works.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) unhandled: UnhandledPolicy,
    pub(super) keep_unknown: Duration,
    pub(super) ack: AckMode,
    pub(super) letters: DeadLetters,
    pub(super) retry: RetryPolicy,
    pub(super) timeout: Option<Duration>,
    pub(super) max_unacked_time: Duration,
    pub(super) lease: Duration,
    pub(super) redelivery_window: Duration,
    pub(super) concurrency: usize,
    pub(super) batching: Batching,
    pub(super) prefetch: usize,
    pub(super) prefetch_per_key: usize,
}

impl Settings {
    /// How many stored deliveries run at once.
    pub(super) fn deferred_concurrency(&self) -> usize {
        deferred_beside(self.concurrency)
    }

    /// How many deliveries may run at once, those of one transaction counted each.
    pub(super) const fn most_running(&self) -> usize {
        self.concurrency.saturating_mul(self.batching.most())
    }

    /// How many deliveries may wait unless set: of those that share transactions optimistically, as many as where none
    /// does, since a batch takes what is ready and waits for no more.
    pub(super) const fn usual_prefetch(&self) -> usize {
        let running = match self.batching {
            Batching::Savepoints(deliveries) => self.concurrency.saturating_mul(deliveries),
            _ => self.concurrency,
        };
        running.saturating_mul(PREFETCH_PER_SLOT)
    }

    /// How many deliveries may be started at once that are delivered again when the process dies: none where they are
    /// acknowledged first, and none where the handlers acknowledge, which is their own responsibility.
    /// A transaction takes no more deliveries than wait when it begins.
    pub(super) fn max_in_flight(&self) -> usize {
        let together = self.batching.most().min(most_waiting(self.prefetch));
        match self.ack {
            AckMode::AfterHandlers => self.concurrency.saturating_mul(together),
            AckMode::Before | AckMode::Manual => 0,
        }
    }
}

/// How many stored deliveries run at once beside others: a quarter, since they are those that fail.
pub(super) fn deferred_beside(concurrency: usize) -> usize {
    (concurrency / 4).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(concurrency: usize, batching: Batching, prefetch: Option<usize>) -> Settings {
        let mut settings = Settings {
            unhandled: UnhandledPolicy::Defer,
            keep_unknown: Duration::ZERO,
            ack: AckMode::AfterHandlers,
            letters: DeadLetters::Stored,
            retry: RetryPolicy::attempts(3, Duration::from_secs(1)),
            timeout: None,
            max_unacked_time: Duration::ZERO,
            lease: Duration::ZERO,
            redelivery_window: Duration::ZERO,
            concurrency,
            batching,
            prefetch: 0,
            prefetch_per_key: 1,
        };
        settings.prefetch = prefetch.unwrap_or_else(|| settings.usual_prefetch());
        settings
    }

    #[test]
    fn no_more_deliveries_are_in_flight_than_can_wait_for_each_transaction() {
        for (concurrency, batching, prefetch, expected) in [
            (8, Batching::Alone, None, 8),
            // 4 and 8 are fetched ahead, and 16 and 32 wait at most.
            (1, Batching::Optimistic, None, 16),
            (2, Batching::Optimistic, None, 2 * 32),
            (8, Batching::Optimistic, None, 8 * 64),
            (8, Batching::Optimistic, Some(1), 8 * 4),
            (8, Batching::Optimistic, Some(0), 8 * 4),
            (2, Batching::Savepoints(50), None, 2 * 50),
            (2, Batching::Savepoints(50), Some(5), 2 * 20),
        ] {
            let settings = settings(concurrency, batching, prefetch);
            assert_eq!(settings.max_in_flight(), expected, "{settings:?}");
            for ack in [AckMode::Before, AckMode::Manual] {
                assert_eq!(Settings { ack, ..settings }.max_in_flight(), 0, "{ack:?}");
            }
        }
    }
}
