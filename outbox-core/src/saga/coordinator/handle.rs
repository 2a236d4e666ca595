//! The handle of a service's sagas.

use super::{
    builder::SagasBuilder,
    replies::Replies,
    start::{CORRELATION, Start},
    worker::Worker,
};
use crate::{
    event::{JsonError, SagaId},
    outbox::StoreError,
    runtime::{ExitCounts, Running, Shutdown, SupervisorError},
    saga::{definition::SagaFault, store::SagaSource},
    telemetry::{Health, HealthCheck},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// What a coordinator has done since its start.
///
/// ```
/// # use outbox_core::saga::{SagaSource, Sagas};
/// # fn example<S: SagaSource>(sagas: &Sagas<S>) {
/// let stats = *sagas.stats().borrow();
/// if stats.missing_definitions > 0 {
///     println!("sagas of versions that this release does not register wait");
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SagasStats {
    /// Sagas that were claimed, each time.
    pub claimed: u64,
    /// Sagas that the coordinator has driven to their end, or until they were stuck.
    pub idle: u64,
    /// Sagas that began to wait for a retry, a reply or a lock, each time.
    pub waited: u64,
    /// Sagas that another coordinator has claimed meanwhile.
    pub lost: u64,
    /// Sagas that the coordinator could not read.
    pub unreadable: u64,
    /// Attempts at steps and compensations that were dropped at their time limit.
    pub timed_out: u64,
    /// Attempts that are slow now: they take longer than a tenth of their time limit.
    pub slow: usize,
    /// Sagas that the coordinator drives now.
    pub in_flight: usize,
    /// Definitions of due sagas that are not registered here, counted once a minute.
    pub missing_definitions: usize,
}

/// Why sagas did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SagasError {
    /// The definitions or settings have faults; these are all.
    #[error("the sagas cannot start: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<SagaFault>),
    /// No definition has data of this type.
    #[error(
        "no saga with data `{0}` is registered in this process: `Sagas::builder(&outbox).register(..)` with `start()` or `client()` does that"
    )]
    NotRegistered(&'static str),
    /// The correlation id is empty, too long, or has control characters.
    #[error("a correlation id has {CORRELATION}")]
    Correlation,
    /// The saga under the correlation id has not ended, so that no other one starts; nothing is
    /// written.
    #[error("the saga {id} under this correlation id has not ended: no other one can start")]
    StillRuns {
        /// The saga that has not ended.
        id: SagaId,
    },
    /// The data have no form in JSON that reads back as the same data; nothing is stored.
    #[error("the saga's data cannot be written: {0}")]
    Data(JsonError),
    /// The data are longer than what is stored.
    #[error("the saga's data have {actual} bytes as JSON; at most {limit} are stored")]
    TooLong {
        /// How long they are.
        actual: usize,
        /// How long they may be.
        limit: usize,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The coordinator failed, or did not stop in time.
    #[error("the coordinator failed or did not stop in time")]
    Stopped(#[from] SupervisorError),
}

/// The sagas of a service: starts them, and drives them until its shutdown. Cloning is cheap.
///
/// ```
/// # use outbox_core::saga::{SagaSource, Sagas, SagasError};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct PlaceOrder { order_id: i64 }
/// # async fn example<S: SagaSource>(sagas: &Sagas<S>, tx: S::Tx) -> Result<(), SagasError> {
/// let started = sagas.start(&tx, PlaceOrder { order_id: 7 }).correlation("order-7").await?;
/// println!("saga {} {}", started.id(), if started.is_new() { "is new" } else { "was there" });
/// # Ok(()) }
/// ```
pub struct Sagas<S: SagaSource>(Arc<Inner<S>>);

struct Inner<S: SagaSource> {
    worker: Arc<Worker<S>>,
    shutdown: Shutdown,
    health: HealthCheck,
    stats: Arc<watch::Sender<SagasStats>>,
    exits: watch::Receiver<ExitCounts>,
    ended: watch::Receiver<Option<Result<(), SupervisorError>>>,
}

impl<S: SagaSource> Clone for Sagas<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: SagaSource> std::fmt::Debug for Sagas<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sagas")
            .field("definitions", &self.0.worker.registry.definition_ids())
            .finish_non_exhaustive()
    }
}

impl<S: SagaSource> Sagas<S> {
    pub(super) fn running(
        worker: Arc<Worker<S>>,
        shutdown: Shutdown,
        health: HealthCheck,
        stats: Arc<watch::Sender<SagasStats>>,
        exits: watch::Receiver<ExitCounts>,
        ended: watch::Receiver<Option<Result<(), SupervisorError>>>,
    ) -> Self {
        Self(Arc::new(Inner { worker, shutdown, health, stats, exits, ended }))
    }

    /// Sets sagas up on a store.
    pub fn builder(store: &S) -> SagasBuilder<S> {
        SagasBuilder::new(store.clone())
    }

    /// Gives the saga that has locked an entity, by
    /// [`StepContext::lock`](crate::saga::StepContext::lock): for code outside sagas that must know
    /// whether what it reads is final. A saga may lock the entity a moment later.
    ///
    /// ```
    /// # use outbox_core::{outbox::StoreError, saga::{SagaSource, Sagas}};
    /// # async fn example<S: SagaSource>(sagas: &Sagas<S>, tx: &S::Tx) -> Result<(), StoreError> {
    /// if let Some(saga) = sagas.holder(tx, "account/7").await? {
    ///     println!("the balance may change yet: saga {saga} has locked the account");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The database's error.
    pub async fn holder(
        &self,
        tx: &S::Tx,
        entity: impl AsRef<str> + Send,
    ) -> Result<Option<SagaId>, StoreError> {
        self.0.worker.store.holder(tx, entity.as_ref()).await
    }

    /// Starts a saga in the caller's transaction: it runs once that commits. Await the start, after
    /// its [`correlation`](Start::correlation) id is set: two starts under one id are one saga.
    /// Where that saga has ended, no other one starts, unless the start says
    /// [`again`](Start::again). A transaction that knows its store starts sagas without this
    /// handle.
    pub fn start<'a, D: 'static>(&'a self, tx: &'a S::Tx, data: D) -> Start<'a, S, D> {
        Start::of(&self.0.worker.store, tx, self.0.worker.registry.newest::<D>(), data)
    }

    /// Gives what takes the replies of participants. See
    /// [`ConsumerBuilder::replies`](crate::consumer::ConsumerBuilder::replies).
    pub(crate) fn replies(&self) -> Replies<S> {
        Replies::of(Arc::clone(&self.0.worker))
    }

    /// Wakes the coordinator, which polls for due sagas then.
    pub fn wake(&self) {
        self.0.worker.store.saga_wake().wake();
    }

    /// Watches the coordinator's statistics.
    #[must_use]
    pub fn stats(&self) -> watch::Receiver<SagasStats> {
        self.0.stats.subscribe()
    }

    /// Gives the health of the coordinator: whether it runs and its database answers.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.health.health()
    }

    /// Gives a check of the coordinator's health that outlives this handle.
    #[must_use]
    pub fn health_check(&self) -> HealthCheck {
        self.0.health.clone()
    }

    /// Watches the counted exits of its actors.
    #[must_use]
    pub fn exits(&self) -> watch::Receiver<ExitCounts> {
        self.0.exits.clone()
    }

    /// Stops claiming, lets running steps end, and releases the claims. At the deadline it drops
    /// the steps that still run: their transactions roll back, and another coordinator attempts
    /// them again.
    ///
    /// # Errors
    /// [`SagasError::Stopped`] when steps had to be dropped, or when the coordinator had failed
    /// before.
    ///
    /// # Cancel safety
    /// Once polled, the coordinator stops all the same.
    pub async fn shutdown(&self, within: Duration) -> Result<(), SagasError> {
        self.0.shutdown.request(within);
        self.finished().await
    }

    /// Gives the signal that stops the coordinator.
    #[must_use]
    pub fn shutdown_signal(&self) -> Shutdown {
        self.0.shutdown.clone()
    }

    /// Waits until the coordinator has stopped or failed.
    ///
    /// # Errors
    /// [`SagasError::Stopped`] with the cause.
    ///
    /// # Cancel safety
    /// Dropping the call leaves the coordinator running.
    pub async fn finished(&self) -> Result<(), SagasError> {
        let mut ended = self.0.ended.clone();
        let gone = |cause: &str| SupervisorError::GaveUp {
            actor: "supervisor",
            failures: 1,
            cause: cause.to_owned(),
        };
        let outcome = match ended.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        };
        Ok(outcome.unwrap_or_else(|| Err(gone("the runtime is shutting down")))?)
    }
}

impl<S: SagaSource> From<Sagas<S>> for Running {
    fn from(sagas: Sagas<S>) -> Self {
        Self::new("the coordinator of sagas", sagas.shutdown_signal(), async move {
            sagas.finished().await
        })
    }
}
