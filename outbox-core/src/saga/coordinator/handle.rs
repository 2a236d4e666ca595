//! Sagas as their user sees them: put together, started, stopped.

use super::{
    actor::Coordinator,
    care::Suspects,
    registry::Registry,
    replies::Replies,
    reports::SagaReports,
    start::{SagaClient, Start},
    stuck::{StuckListener, StuckSaga},
    worker::Worker,
};
use crate::{
    event::{JsonError, SagaId, jitter},
    outbox::StoreError,
    runtime::{
        ExitCounts, Restarts, Shutdown, Supervisor, SupervisorError, TIME_LIMIT, Use, spawn, take,
    },
    saga::{
        definition::{Saga, SagaFault},
        store::SagaSource,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};
use tokio::sync::watch;
use tracing::Instrument;

/// Longest topic in bytes, as events have it.
const MAX_TOPIC: usize = 255;
/// Sagas take a quarter of a pool: most of their time they wait for others.
const CONNECTIONS: Use = Use { one_of: 4, at_once: |concurrency| concurrency };
/// How long a claim lasts unless set: the pause after a crash, far above a step's usual time.
const LEASE: Duration = Duration::from_secs(30);
/// How long ended sagas are kept unless set: a quarter, for those who ask what happened.
const RETENTION: Duration = Duration::from_hours(90 * 24);
/// Longest pause between two claims unless set.
const POLL: Duration = Duration::from_secs(1);

/// What a coordinator has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SagasStats {
    /// Sagas that were claimed, each time.
    pub claimed: u64,
    /// Sagas that were carried to their end, or to where an operator has to decide.
    pub rested: u64,
    /// Sagas that wait for a retry or for an answer, each time.
    pub waited: u64,
    /// Sagas that somebody else had meanwhile.
    pub lost: u64,
    /// Sagas that could not be read.
    pub broken: u64,
    /// Attempts at steps and compensations that were dropped at their time limit.
    pub timed_out: u64,
    /// Attempts that are slow now: they have taken longer than a tenth of their time limit.
    pub slow: usize,
    /// Sagas that are carried now.
    pub in_flight: usize,
    /// Versions of which sagas wait and that are not registered here, looked for once a minute.
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
    /// The correlation id does not fit.
    #[error("a correlation id has 1 to 200 bytes without control characters")]
    Correlation,
    /// A saga that was to begin anew has not ended; nothing is written.
    #[error("the saga {id} under this correlation id has not ended: it cannot begin again")]
    StillRuns {
        /// The saga that has not.
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
    /// The coordinator ended by itself with an error, or did not end in time.
    #[error("the coordinator did not end well")]
    Stopped(#[from] SupervisorError),
}

/// Sets up sagas. See [`Sagas::builder`].
#[must_use = "no saga is carried before `start`"]
pub struct SagasBuilder<S: SagaSource> {
    store: S,
    registry: Registry<S::Tx>,
    concurrency: Option<usize>,
    lease: Duration,
    step_timeout: Option<Duration>,
    poll: Duration,
    retention: Duration,
    restarts: Restarts,
    reply_to: Option<Arc<str>>,
    on_stuck: Vec<StuckListener>,
}

impl<S: SagaSource> SagasBuilder<S> {
    /// Adds a definition. Sagas are started as the newest version that is registered for their data; those that run
    /// finish on theirs, so keep it registered until none of it is left.
    pub fn register<D>(mut self, saga: Saga<D, S::Tx>) -> Self
    where
        D: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.registry.add(saga);
        self
    }

    /// Sets how many sagas are carried at once; zero counts as one. Each uses one connection while a step is done, and one for each
    /// step of a group.
    ///
    /// Unless set it is what fits the store's pool: a quarter of its connections, no more than what the consumers that were started
    /// before leave, and 16 at most; with a pool of 10 it is 2. A start that leads to more transactions at once than the pool has
    /// connections is warned of, with both numbers.
    pub fn concurrency(mut self, sagas: usize) -> Self {
        self.concurrency = Some(sagas.max(1));
        self
    }

    /// Sets how long a claim lasts from its last use, 30 s unless set: the pause after a crash.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets the longest pause between two looks for sagas that are due, 1 s unless set.
    pub fn poll(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }

    /// Sets how long sagas that have ended are kept, with their logs and correlation ids, 90 days unless set. After that a
    /// start under the same id is a new saga.
    pub fn retention(mut self, keep: Duration) -> Self {
        self.retention = keep;
        self
    }

    /// Says on which topic others answer the commands of this service's sagas; needed where a step is one that others are
    /// asked to do. A consumer of this service has to take the answers:
    /// [`Consumer::replies`](crate::consumer::Consumer::replies).
    pub fn reply_to(mut self, topic: impl AsRef<str>) -> Self {
        self.reply_to = Some(topic.as_ref().into());
        self
    }

    /// Is told of every saga that is stuck, by the process that wrote it down, after it did. Must not block. What dies with
    /// the process before that is not told again: [`sagas`](crate::saga::SagaAdmin::sagas) finds all that are stuck.
    pub fn on_stuck(mut self, tell: impl Fn(&StuckSaga) + Send + Sync + 'static) -> Self {
        self.on_stuck.push(Arc::new(tell));
        self
    }

    /// Sets after which time an attempt at a step or at its compensation is dropped that has no time limit of its own
    /// ([`timeout`](crate::saga::StepBuilder::timeout)), 5 min unless set; also one that only composes a command for others.
    /// Its transaction rolls back, and it counts as failed. After a tenth of that time it is told in the log, and shown in
    /// [`SagasStats::slow`].
    pub fn step_timeout(mut self, limit: Duration) -> Self {
        self.step_timeout = Some(limit);
        self
    }

    /// Lets attempts that have no time limit of their own take as long as they take. One that never returns holds its place, its
    /// connection and its locks for ever.
    pub fn no_step_timeout(mut self) -> Self {
        self.step_timeout = None;
        self
    }

    /// Sets how often a failed coordinator is started again.
    pub fn restarts(mut self, restarts: Restarts) -> Self {
        self.restarts = restarts;
        self
    }

    /// Gives what starts sagas of these definitions and carries none: those that it starts are carried by other processes.
    /// Transactions of this process can start them too, as they can after [`start`](Self::start).
    ///
    /// # Errors
    /// [`SagasError::Invalid`] with all faults of all definitions.
    pub fn client(self) -> Result<SagaClient<S>, SagasError> {
        let mut faults = self.registry.faults().to_vec();
        faults.extend(self.none());
        if !faults.is_empty() {
            return Err(SagasError::Invalid(faults));
        }
        self.store.starts().add(&self.registry);
        Ok(SagaClient::new(self.store, self.registry))
    }

    fn none(&self) -> Option<SagaFault> {
        let none = self.registry.known().is_empty();
        none.then(|| SagaFault::Setting("there is no saga; add one with `register`".to_owned()))
    }

    /// Starts carrying sagas.
    ///
    /// # Errors
    /// [`SagasError::Invalid`] with all faults of all definitions.
    ///
    /// # Cancel safety
    /// Nothing is started before it returns.
    pub async fn start(self) -> Result<Sagas<S>, SagasError> {
        let faults = self.faults();
        if !faults.is_empty() {
            return Err(SagasError::Invalid(faults));
        }
        self.store.starts().add(&self.registry);
        let span = tracing::info_span!(parent: None, "sagas");
        let taken = span
            .in_scope(|| take(self.store.connections(), "sagas", self.concurrency, CONNECTIONS));
        let concurrency = taken.concurrency;
        let shutdown = Shutdown::default();
        let (stats, _) = watch::channel(SagasStats::default());
        let stats = Arc::new(stats);
        let worker = Arc::new(Worker {
            store: self.store,
            registry: self.registry,
            lease: self.lease,
            step_timeout: self.step_timeout,
            stats: Arc::clone(&stats),
            reply_to: self.reply_to,
            ahead_us: AtomicI64::new(0),
            shutdown: shutdown.clone(),
            jitter,
            suspects: Suspects::default(),
            on_stuck: self.on_stuck,
            reports: SagaReports::default(),
            probe: None,
        });
        let coordinator = Coordinator {
            worker: Arc::clone(&worker),
            wake: worker.store.saga_wake(),
            poll: self.poll,
            retention: self.retention,
            concurrency,
            stats: Arc::clone(&stats),
        };
        let supervisor = Supervisor::new(shutdown.clone(), self.restarts)
            .actor("coordinator", move || coordinator.clone().run());
        let exits = supervisor.exits();
        let (tell, ended) = watch::channel(None);
        let work = async move {
            let _taken = taken;
            let outcome = supervisor.run().await;
            tell.send_replace(Some(outcome));
        };
        span.in_scope(|| spawn(work.in_current_span())).detach();
        Ok(Sagas(Arc::new(Inner { worker, shutdown, stats, exits, ended })))
    }

    fn faults(&self) -> Vec<SagaFault> {
        let mut faults = self.registry.faults().to_vec();
        faults.extend(self.none());
        match &self.reply_to {
            None => faults.extend(
                self.registry.that_ask().map(|shape| SagaFault::NoReplyTo(shape.name.to_string())),
            ),
            Some(topic)
                if topic.is_empty()
                    || topic.len() > MAX_TOPIC
                    || topic.chars().any(char::is_control) =>
            {
                faults.push(SagaFault::Setting(format!(
                    "the topic for answers, `{topic}`, does not have 1 to {MAX_TOPIC} bytes without control characters"
                )));
            }
            Some(_) => {}
        }
        for (what, value, least, most) in [
            ("lease", self.lease, Duration::from_millis(300), Duration::from_hours(24)),
            ("poll", self.poll, Duration::from_millis(1), Duration::from_hours(1)),
        ] {
            if value < least || value > most {
                faults.push(SagaFault::Setting(format!(
                    "a {what} of {value:?} is not between {least:?} and {most:?}"
                )));
            }
        }
        faults
    }
}

/// The sagas of a service: starts them, and carries them until it is shut down. Cloning is cheap.
pub struct Sagas<S: SagaSource>(Arc<Inner<S>>);

struct Inner<S: SagaSource> {
    worker: Arc<Worker<S>>,
    shutdown: Shutdown,
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
            .field("definitions", &self.0.worker.registry.known())
            .finish_non_exhaustive()
    }
}

impl<S: SagaSource> Sagas<S> {
    /// Sets sagas up on a store.
    pub fn builder(store: &S) -> SagasBuilder<S> {
        SagasBuilder {
            store: store.clone(),
            registry: Registry::new(),
            concurrency: None,
            lease: LEASE,
            step_timeout: Some(TIME_LIMIT),
            poll: POLL,
            retention: RETENTION,
            restarts: Restarts::default(),
            reply_to: None,
            on_stuck: Vec::new(),
        }
    }

    /// Says which saga has marked an entity, by [`StepContext::lock`](crate::saga::StepContext::lock): for those that are no
    /// sagas and want to know whether what they read is final. Nothing keeps a saga from marking it a moment later.
    ///
    /// # Errors
    /// What the database said.
    pub async fn holder(
        &self,
        tx: &S::Tx,
        entity: impl AsRef<str> + Send,
    ) -> Result<Option<SagaId>, StoreError> {
        self.0.worker.store.holder(tx, entity.as_ref()).await
    }

    /// Starts a saga in the caller's transaction: it is there when that commits, and begins then. Await the answer, or
    /// name what the saga is known by first: two starts under one correlation id are one saga.
    /// Where that saga has ended, nothing begins either, unless the start says [`again`](Start::again). A transaction that
    /// knows its store starts sagas without this handle.
    pub fn start<'a, D: 'static>(&'a self, tx: &'a S::Tx, data: D) -> Start<'a, S, D> {
        Start::of(&self.0.worker.store, tx, self.0.worker.registry.newest::<D>(), data)
    }

    /// Gives what takes the answers of others. See [`Consumer::replies`](crate::consumer::Consumer::replies).
    pub(crate) fn replies(&self) -> Replies<S> {
        Replies::of(Arc::clone(&self.0.worker))
    }

    /// Looks for sagas that are due now.
    pub fn wake(&self) {
        self.0.worker.store.saga_wake().wake();
    }

    /// Shows what the coordinator has done.
    #[must_use]
    pub fn stats(&self) -> watch::Receiver<SagasStats> {
        self.0.stats.subscribe()
    }

    /// Shows the exits of its actors, counted.
    #[must_use]
    pub fn exits(&self) -> watch::Receiver<ExitCounts> {
        self.0.exits.clone()
    }

    /// Stops claiming, lets running steps end, and gives the sagas back. At the deadline steps that still run are dropped:
    /// their transactions roll back, and another coordinator does them again.
    ///
    /// # Errors
    /// [`SagasError::Stopped`] when steps had to be dropped, or when the coordinator had failed before.
    ///
    /// # Cancel safety
    /// Once polled, the coordinator stops all the same.
    pub async fn shutdown(&self, within: Duration) -> Result<(), SagasError> {
        self.0.shutdown.request(within);
        self.finished().await
    }

    /// Gives the signal by which the coordinator can be stopped from elsewhere.
    #[must_use]
    pub fn shutdown_signal(&self) -> Shutdown {
        self.0.shutdown.clone()
    }

    /// Waits until the coordinator has ended: it was shut down, or it failed.
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
