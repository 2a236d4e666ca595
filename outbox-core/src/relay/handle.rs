//! The handle of a running relay.

use super::{RelayBuilder, RelaySource, RelayStats, fault::RelayFault};
use crate::{
    outbox::StoreError,
    runtime::{Exit, Running, Shutdown, SupervisorError, Task, Wake},
    telemetry::{Health, HealthCheck},
};
use std::time::Duration;
use tokio::sync::watch;

/// Why a relay did not start, or did not end well.
///
/// ```
/// # use outbox_core::relay::{RelayBuilder, RelayError};
/// # async fn example(relay: RelayBuilder<'_>) {
/// match relay.start().await {
///     Err(RelayError::Invalid(faults)) => faults.iter().for_each(|fault| println!("{fault}")),
///     Err(other) => println!("{other}"),
///     Ok(relay) => println!("running {relay:?}"),
/// }
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The configuration has faults; these are all.
    #[error("the relay cannot start: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<RelayFault>),
    /// The outbox cannot be opened.
    #[error("the outbox cannot be opened")]
    Store(#[from] StoreError),
    /// The relay gave up after failures, or did not stop in time.
    #[error("the relay did not end well")]
    Stopped(#[from] SupervisorError),
    /// The relay's task was aborted, or the runtime shut down.
    #[error("the relay was aborted: {0}")]
    Aborted(String),
}

/// A running relay. Dropping it does not stop the relay; call [`shutdown`](Self::shutdown).
#[derive(Debug)]
pub struct Relay {
    task: Task<Result<(), SupervisorError>>,
    shutdown: Shutdown,
    stats: watch::Receiver<RelayStats>,
    wake: Wake,
    health: HealthCheck,
}

impl Relay {
    pub(super) const fn running(
        task: Task<Result<(), SupervisorError>>,
        shutdown: Shutdown,
        stats: watch::Receiver<RelayStats>,
        wake: Wake,
        health: HealthCheck,
    ) -> Self {
        Self { task, shutdown, stats, wake, health }
    }

    /// Sets up a relay on an outbox.
    pub fn builder(source: &dyn RelaySource) -> RelayBuilder<'_> {
        RelayBuilder::new(source)
    }

    /// Shows the counters, up to 50 ms old.
    ///
    /// ```
    /// # use outbox_core::relay::Relay;
    /// # fn example(relay: &Relay) {
    /// let stats = *relay.stats().borrow();
    /// println!("{} events were delivered, {} are in memory", stats.delivered, stats.in_memory);
    /// # }
    /// ```
    #[must_use]
    pub fn stats(&self) -> watch::Receiver<RelayStats> {
        self.stats.clone()
    }

    /// Gives the relay's health: whether its actors run, its database answers, and it has a lease or
    /// waits for its turn.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.health()
    }

    /// Gives a check of the relay's health that outlives this handle.
    #[must_use]
    pub fn health_check(&self) -> HealthCheck {
        self.health.clone()
    }

    /// Makes the relay read now.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// Stops reading, lets publishes in flight end, settles, releases the partitions; all that
    /// within the time.
    ///
    /// ```
    /// # use outbox_core::relay::{Relay, RelayError};
    /// # use std::time::Duration;
    /// # async fn example(relay: Relay) {
    /// match relay.shutdown(Duration::from_secs(10)).await {
    ///     Ok(()) => println!("everything in flight is settled"),
    ///     Err(error) => println!("{error}: the next relay publishes the rest again"),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RelayError::Stopped`] when the relay had given up before, or was aborted at the deadline;
    /// the next relay delivers unsettled events again.
    ///
    /// # Cancel safety
    /// A call that is dropped lets the shutdown go on.
    pub async fn shutdown(self, within: Duration) -> Result<(), RelayError> {
        self.shutdown.request(within);
        self.finished().await
    }

    /// Gives the signal by which the relay can be stopped from elsewhere.
    #[must_use]
    pub fn shutdown_signal(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Waits until the relay has ended: it was shut down, or it gave up.
    ///
    /// ```
    /// # use outbox_core::relay::{Relay, RelayError};
    /// # async fn example(relay: Relay) -> Result<(), RelayError> {
    /// let shutdown = relay.shutdown_signal(); // for the task that stops the process
    /// # let _ = shutdown;
    /// relay.finished().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RelayError::Stopped`] with the cause.
    pub async fn finished(self) -> Result<(), RelayError> {
        match self.task.await {
            Exit::Finished(outcome) => Ok(outcome?),
            Exit::Panicked(text) => Err(RelayError::Aborted(text)),
            Exit::Cancelled => Err(RelayError::Aborted("cancelled".to_owned())),
        }
    }
}

impl From<Relay> for Running {
    fn from(relay: Relay) -> Self {
        Self::new("the relay", relay.shutdown_signal(), relay.finished())
    }
}
