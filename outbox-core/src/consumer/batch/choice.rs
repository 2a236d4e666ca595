//! How a user asks for batches.

use super::Batching;
use crate::{consumer::builder::ConsumerBuilder, outbox::ConsumerStore};

impl<S: ConsumerStore> ConsumerBuilder<S> {
    /// Lets deliveries that are ready [share transactions](crate::consumer::Consumer#transactions-of-several-deliveries) where their handlers
    /// are fast; each has its own unless this is set. What fails is handled by itself. [`HandlerOptions::alone`](crate::consumer::HandlerOptions::alone) keeps a
    /// handler out of it.
    ///
    /// ```
    /// # use outbox_core::{consumer::ConsumerBuilder, outbox::ConsumerStore};
    /// # fn example<S: ConsumerStore>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
    /// consumer.optimistic_batches() // a queue of many small messages
    /// # }
    /// ```
    pub fn optimistic_batches(mut self) -> Self {
        self.settings.batching = Batching::Optimistic;
        self
    }

    /// Lets deliveries share transactions before their handlers are known to be fast, for tests.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn batch_eagerly(mut self) -> Self {
        self.settings.batching = Batching::Eager;
        self
    }

    /// Handles up to so many deliveries in one transaction, behind a savepoint each, whatever their handlers are; zero
    /// counts as one. A batch counts as one of those that are [handled at once](Self::concurrency): set that low.
    ///
    /// Each delivery has its own outcome: one that fails is taken out and handled by itself, so that a handler which fails
    /// often keeps large batches. Where failures are rare, [`optimistic_batches`](Self::optimistic_batches) are faster. Only for deliveries that are
    /// acknowledged [after their handlers](crate::consumer::AckMode::AfterHandlers).
    ///
    /// ```
    /// # use outbox_core::{consumer::ConsumerBuilder, outbox::ConsumerStore};
    /// # fn example<S: ConsumerStore>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
    /// consumer.batched(50).concurrency(2) // two transactions of 50 deliveries each
    /// # }
    /// ```
    pub fn batched(mut self, deliveries: usize) -> Self {
        self.settings.batching = match deliveries {
            0 | 1 => Batching::Alone,
            deliveries => Batching::Savepoints(deliveries),
        };
        self
    }
}
