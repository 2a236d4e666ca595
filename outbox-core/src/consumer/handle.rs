//! A running consumer as its starter sees it.

use super::fault::ConsumerFault;
use crate::runtime::{Exit, ExitCounts, Shutdown, SupervisorError, Task};
use std::time::Duration;
use tokio::sync::watch;

/// What a consumer has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// Deliveries that were received.
    pub received: u64,
    /// Handlers' transactions that were committed.
    pub handled: u64,
    /// Handlers that were not run, for the inbox knew the message.
    pub duplicates: u64,
    /// Runs of handlers that failed and were to be repeated, while the delivery was held or after it was stored.
    pub retried: u64,
    /// Deliveries that were stored for one of their handlers, to be handled later.
    pub stored: u64,
    /// Dead letters that were written.
    pub buried: u64,
    /// Deliveries that were acknowledged.
    pub acked: u64,
    /// Deliveries that were rejected.
    pub rejected: u64,
    /// Deliveries that were returned, to come again.
    pub returned: u64,
    /// Those of them that were not begun, since their senders had given up waiting or would have before the answer.
    pub late: u64,
    /// Deliveries that no handler took, here or in another instance.
    pub unknown: u64,
    /// Deliveries that were stored for another instance, each time: one that knows their type, its version, or their saga's.
    pub left: u64,
    /// Stored deliveries under names of handlers that no instance has, as of the last count, which stops at 10,000. The log names
    /// them; after a day they become dead letters.
    pub orphaned: u64,
    /// Deliveries without content, which say that what was told under their key is gone.
    pub tombstones: u64,
    /// Runs of handlers that were dropped at their time limit.
    pub timed_out: u64,
    /// Runs that the database disturbed, by a lock that was not to be had or a connection that was lost: no attempt of them is
    /// counted, and they are made again.
    pub disturbed: u64,
    /// Runs of handlers that are slow now: they have taken longer than a tenth of their time limit.
    pub slow: usize,
    /// Deliveries that are being handled now.
    pub in_flight: usize,
    /// Runs of handlers, from the wait for their message's row on, that last for longer than the hold time now, and than 10 s.
    pub overdue: usize,
    /// Whether the consumer waits for its database.
    pub store_down: bool,
    /// Whether deliveries are stored before they are run: an instance of this consumer has ended without signing off, and a
    /// delivery may have ended it; or it is not known yet whether the others live.
    pub isolating: bool,
    /// Whether the kill switch holds it back.
    pub paused: bool,
}

/// Why a consumer did not start, or did not end well.
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
#[derive(Debug)]
pub struct ConsumerHandle {
    shutdown: Shutdown,
    task: Task<Result<(), SupervisorError>>,
    stats: watch::Receiver<ConsumerStats>,
    exits: watch::Receiver<ExitCounts>,
}

impl ConsumerHandle {
    pub(super) fn new(
        shutdown: Shutdown,
        task: Task<Result<(), SupervisorError>>,
        stats: watch::Receiver<ConsumerStats>,
        exits: watch::Receiver<ExitCounts>,
    ) -> Self {
        Self { shutdown, task, stats, exits }
    }

    /// Stops receiving, returns what has not begun, and waits for running handlers. At the deadline those that still run
    /// are dropped: their transactions roll back, and their messages come again. Then it says goodbye to the brokers, for which it
    /// takes what is left of the time, and 1 s in any case.
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

    /// Shows what the consumer has done.
    #[must_use]
    pub fn stats(&self) -> watch::Receiver<ConsumerStats> {
        self.stats.clone()
    }

    /// Shows the exits of its actors, counted.
    #[must_use]
    pub fn exits(&self) -> watch::Receiver<ExitCounts> {
        self.exits.clone()
    }
}
