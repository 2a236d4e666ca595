//! How a user sets which deliveries share a transaction.

use super::Batching;
use crate::{consumer::builder::ConsumerBuilder, outbox::ConsumerStore};

impl<S: ConsumerStore> ConsumerBuilder<S> {
    /// Gives each delivery a transaction of its own. Unless set, deliveries that are ready
    /// [share transactions](crate::consumer::Consumer#transactions-of-several-deliveries) where
    /// their handlers are fast. [`HandlerOptions::alone`](crate::consumer::HandlerOptions::alone)
    /// keeps one handler out of it.
    ///
    /// ```
    /// # use outbox_core::{consumer::ConsumerBuilder, outbox::ConsumerStore};
    /// # fn example<S: ConsumerStore>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
    /// consumer.one_by_one() // its handlers lock rows that others wait for
    /// # }
    /// ```
    pub fn one_by_one(mut self) -> Self {
        self.settings.batching = Batching::Alone;
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
    /// often keeps large batches. Where failures are rare, the transactions that deliveries share
    /// unless this is set are faster. Only for deliveries that are acknowledged
    /// [after their handlers](crate::consumer::AckMode::AfterHandlers).
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
