//! The handle of a running consumer.

use super::{builder::ConsumerBuilder, fault::ConsumerFault, trial::HandlerTrials, work::Worker};
use crate::{
    outbox::ConsumerStore,
    runtime::{Exit, ExitCounts, Running, Shutdown, SupervisorError, Task},
    telemetry::{Health, HealthCheck},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Counts of a consumer since its start, and its present state.
///
/// ```
/// # use outbox_core::consumer::Consumer;
/// # fn example(consumer: &Consumer) {
/// let stats = *consumer.stats().borrow();
/// println!("{} handled, {} in flight, {} dead letters", stats.handled, stats.in_flight, stats.dead_lettered);
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// Deliveries that were received.
    pub received: u64,
    /// Runs of handlers that were committed.
    pub handled: u64,
    /// Transactions of several deliveries that were committed.
    pub batches: u64,
    /// Transactions of several deliveries that were rolled back; each of their deliveries was then handled by itself.
    pub batches_rolled_back: u64,
    /// Handlers that did not run, because the inbox knew the message.
    pub duplicates: u64,
    /// Runs of handlers that failed and were retried, while the delivery stayed unacknowledged or after it was stored.
    pub retried: u64,
    /// Deliveries that were stored for one of their handlers, to run later.
    pub stored: u64,
    /// Dead letters that were written.
    pub dead_lettered: u64,
    /// Deliveries that were acknowledged.
    pub acked: u64,
    /// Deliveries that were rejected.
    pub rejected: u64,
    /// Deliveries that were returned, to be delivered again.
    pub returned: u64,
    /// Returned deliveries that were not started, since their senders had stopped waiting or would have before the
    /// acknowledgement.
    pub late: u64,
    /// Deliveries that no handler took, here or in another instance.
    pub unknown: u64,
    /// Deliveries that were handed over to another instance, each time: one that knows their type, its version, or the
    /// version of their saga.
    pub handed_over: u64,
    /// Stored deliveries under names of handlers that no instance has, as of the last count, which stops at 10,000. The log
    /// names them; after a day they become dead letters.
    pub orphaned: u64,
    /// Deliveries without content, which say that the entity of their key is deleted.
    pub tombstones: u64,
    /// Runs of handlers that were dropped at their time limit.
    pub timed_out: u64,
    /// Runs that the database disturbed, by a lock that was not granted or a connection that was lost: they are
    /// repeated without counting an attempt.
    pub disturbed: u64,
    /// Runs of handlers that are slow now: they have taken longer than a tenth of their time limit.
    pub slow: usize,
    /// Deliveries that are being handled now.
    pub in_flight: usize,
    /// Runs of handlers, from the wait for their message's row on, that have lasted for longer than
    /// [`max_unacked_time`](super::ConsumerBuilder::max_unacked_time) and than 10 s.
    pub overdue: usize,
    /// Whether the consumer waits until its database is up.
    pub store_down: bool,
    /// Whether deliveries are stored before they are run: an instance of this consumer has ended without deregistering,
    /// and a delivery may have ended it; or it is not known yet whether the other instances are alive.
    pub isolating: bool,
    /// Whether the kill switch or an operator has paused it.
    pub paused: bool,
}

/// Why a consumer did not start, or did not end well.
///
/// ```
/// # use outbox_core::{consumer::{ConsumerBuilder, ConsumerError}, outbox::ConsumerStore};
/// # async fn example<S: ConsumerStore>(consumer: ConsumerBuilder<S>) {
/// if let Err(ConsumerError::Invalid(faults)) = consumer.start().await {
///     faults.iter().for_each(|fault| println!("{fault}")); // all of them at once
/// }
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// The configuration has faults; these are all.
    #[error("the consumer cannot start: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<ConsumerFault>),
    /// It ended by itself with an error, or did not end in time.
    #[error("the consumer did not end well")]
    Stopped(#[from] SupervisorError),
}

/// A running consumer. Dropped, the consumer runs on.
///
/// # Transactions of several deliveries
///
/// A consumer takes the deliveries that are ready and waits for no more. Where their handlers are
/// fast, up to 64 of them share one transaction: the inbox rows are written in one statement, then
/// the handlers run one after the other, then what they emitted is written in one statement. Each
/// commits together with its inbox row, as if it were alone.
/// [`one_by_one`](ConsumerBuilder::one_by_one) gives each its own.
///
/// If anything in it fails, all of it is rolled back, nothing is counted, and each of its deliveries is handled by itself:
/// attempts, retries, dead letters and order are those of single runs, whatever its neighbours did. A handler that fails
/// often is soon handled by itself again.
///
/// A handler may notice it in three ways. It sees uncommitted rows of its neighbours. Its locks are held until the last
/// of them is done, 100 ms by the handlers' median times. And it runs once more after a failure of another one: its
/// effects in the database are undone before, and effects elsewhere happen twice, as after a crash.
///
/// What has not come to COMMIT 3 s after BEGIN is rolled back: the handlers, and the hooks and listeners before the commit,
/// have these 3 s together. No statement among them waits for a lock, or lasts, for longer than 1 s (MariaDB may notice
/// the end of a wait a second late), so that the locks are free after 4 s, on MariaDB 5 s, whatever a handler or hook
/// waits for; only MySQL does not end a write that lasts longer and waits for no lock. COMMIT itself comes on top, and is
/// never cut off. Hooks and listeners after it hold no locks and have their own limits; the deliveries are acknowledged
/// when they have ended.
///
/// Handled by themselves are deliveries with several handlers, repeats that the broker counts, commands and replies of sagas, stored ones, those that are
/// not acknowledged [after their handlers](super::AckMode::AfterHandlers), those around which a layer
/// [waits](super::HandlerLayer::waits), and those of a handler whose median run takes longer than 5 ms or is not known
/// yet, that [says so](super::HandlerOptions::alone), [writes nothing](super::HandlerOptions::no_writes), [must not be tried](super::HandlerOptions::no_try), was
/// [renamed](super::HandlerOptions::renamed_from), or [takes SQLite's lock late](super::HandlerOptions::deferred_lock).
#[derive(Debug)]
pub struct Consumer {
    shutdown: Shutdown,
    task: Task<Result<(), SupervisorError>>,
    stats: watch::Receiver<ConsumerStats>,
    exits: watch::Receiver<ExitCounts>,
    health: HealthCheck,
    trials: HandlerTrials,
}

impl Consumer {
    /// Sets up a consumer of a service's events. Its name is stored with each inbox row: keep it when the code around it
    /// moves.
    ///
    /// ```
    /// # use outbox_core::{consumer::{Consumer, ConsumerBuilder}, outbox::ConsumerStore, transport::Subscriber};
    /// # fn example<S: ConsumerStore>(outbox: &S, queue: impl Subscriber) -> ConsumerBuilder<S> {
    /// Consumer::builder("receipts", outbox).subscribe(queue)
    /// # }
    /// ```
    pub fn builder<S: ConsumerStore>(name: impl Into<String>, store: &S) -> ConsumerBuilder<S> {
        ConsumerBuilder::new(name.into(), store)
    }

    pub(super) fn running<S: ConsumerStore>(
        worker: &Arc<Worker<S>>,
        task: Task<Result<(), SupervisorError>>,
        exits: watch::Receiver<ExitCounts>,
        health: HealthCheck,
    ) -> Self {
        let (shutdown, stats) = (worker.shutdown.clone(), worker.stats.subscribe());
        Self { shutdown, task, stats, exits, health, trials: HandlerTrials::of(worker) }
    }

    /// Stops receiving, returns deliveries that have not been started, and waits for running handlers. At the deadline
    /// it drops handlers that still run: their transactions roll back, and their messages are delivered again. Then it
    /// closes the subscriptions, for which it takes the rest of the time, and 1 s in any case.
    ///
    /// ```
    /// # use outbox_core::consumer::{Consumer, ConsumerError};
    /// # use std::time::Duration;
    /// # async fn example(consumer: Consumer) -> Result<(), ConsumerError> {
    /// consumer.shutdown(Duration::from_secs(10)).await // handlers that run may end in this time
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ConsumerError::Stopped`] when handlers had to be dropped, or when the consumer had failed before.
    ///
    /// # Cancel safety
    /// Once polled, the consumer stops all the same.
    pub async fn shutdown(self, within: Duration) -> Result<(), ConsumerError> {
        self.shutdown.request(within);
        self.finished().await
    }

    /// Gives the signal by which the consumer can be stopped from elsewhere.
    #[must_use]
    pub fn shutdown_signal(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Waits until the consumer has ended: it was shut down, all its subscribers are closed, or it failed.
    ///
    /// ```
    /// # use outbox_core::consumer::{Consumer, ConsumerError};
    /// # async fn example(consumer: Consumer) -> Result<(), ConsumerError> {
    /// let shutdown = consumer.shutdown_signal(); // for the task that stops the process
    /// # let _ = shutdown;
    /// consumer.finished().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ConsumerError::Stopped`] with the cause.
    ///
    /// # Cancel safety
    /// Dropping the call leaves the consumer running.
    pub async fn finished(self) -> Result<(), ConsumerError> {
        let failed =
            |cause: String| SupervisorError::GaveUp { actor: "supervisor", failures: 1, cause };
        match self.task.await {
            Exit::Finished(outcome) => Ok(outcome?),
            Exit::Panicked(text) => Err(failed(format!("a panic: {text}")).into()),
            Exit::Cancelled => Err(failed("the runtime is shutting down".to_owned()).into()),
        }
    }

    /// Shows the consumer's counts and state.
    ///
    /// ```
    /// # use outbox_core::consumer::Consumer;
    /// # async fn example(consumer: &Consumer) {
    /// let mut stats = consumer.stats();
    /// let _ = stats.wait_for(|stats| stats.paused).await;
    /// println!("the kill switch has paused the consumer");
    /// # }
    /// ```
    #[must_use]
    pub fn stats(&self) -> watch::Receiver<ConsumerStats> {
        self.stats.clone()
    }

    /// Gives the consumer's health: whether its actors run and its database answers.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.health()
    }

    /// Gives a check of the consumer's health that outlives this handle.
    #[must_use]
    pub fn health_check(&self) -> HealthCheck {
        self.health.clone()
    }

    /// Gives what tries its handlers, which outlives this handle; see
    /// [`try_handle`](Self::try_handle).
    ///
    /// ```
    /// # use outbox_core::consumer::{Consumer, HandlerTrials};
    /// # fn example(consumer: &Consumer) -> HandlerTrials {
    /// consumer.trials() // for the operator's page of this service
    /// # }
    /// ```
    #[must_use]
    pub fn trials(&self) -> HandlerTrials {
        self.trials.clone()
    }

    /// Shows the exits of its actors, counted.
    #[must_use]
    pub fn exits(&self) -> watch::Receiver<ExitCounts> {
        self.exits.clone()
    }
}

impl From<Consumer> for Running {
    fn from(consumer: Consumer) -> Self {
        Self::new("the consumer", consumer.shutdown_signal(), consumer.finished())
    }
}
