//! The builder of a service's sagas.

use super::{
    actor::Coordinator,
    crash_isolation::IsolationGate,
    handle::{Sagas, SagasError, SagasStats},
    metrics::SagaMetrics,
    registry::Registry,
    reports::SagaReports,
    start::SagaClient,
    stuck::{StuckListener, StuckSaga},
    worker::Worker,
};
use crate::{
    event::{TextRule, jitter},
    runtime::{
        ConnectionUse, Restarts, Shutdown, Supervisor, TIME_LIMIT, reserve_connections, spawn,
    },
    saga::{
        definition::{Saga, SagaFault},
        store::SagaSource,
    },
    telemetry::{HealthCheck, Heartbeats, Metrics},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};
use tokio::sync::watch;
use tracing::Instrument;

/// The share of a pool for sagas, a quarter: most of the time they wait for retries and replies.
const CONNECTIONS: ConnectionUse =
    ConnectionUse { share_divisor: 4, connections: |concurrency| concurrency };
/// How long a claim lasts unless set: the pause after a crash, far above a step's usual time.
const LEASE: Duration = Duration::from_secs(30);
/// How long ended sagas are kept unless set: a quarter, for those who ask what happened.
const RETENTION: Duration = Duration::from_hours(90 * 24);
/// Longest pause between two claims unless set.
const POLL: Duration = Duration::from_secs(1);

/// Sets up sagas. See [`Sagas::builder`].
///
/// ```
/// # use outbox_core::saga::{Saga, SagaSource, Sagas, SagasError};
/// # use std::time::Duration;
/// # #[derive(serde::Serialize, serde::Deserialize)] struct PlaceOrder;
/// # async fn example<S: SagaSource>(outbox: S, version_1: Saga<PlaceOrder, S::Tx>, version_2: Saga<PlaceOrder, S::Tx>) -> Result<(), SagasError> {
/// let sagas = Sagas::builder(&outbox)
///     .register(version_1) // until its last saga has ended
///     .register(version_2)
///     .retention(Duration::from_hours(365 * 24))
///     .start()
///     .await?;
/// # sagas.shutdown(Duration::from_secs(10)).await
/// # }
/// ```
#[must_use = "no saga is driven before `start`"]
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
    metrics: Metrics,
}

impl<S: SagaSource> SagasBuilder<S> {
    pub(super) fn new(store: S) -> Self {
        Self {
            store,
            registry: Registry::new(),
            concurrency: None,
            lease: LEASE,
            step_timeout: Some(TIME_LIMIT),
            poll: POLL,
            retention: RETENTION,
            restarts: Restarts::default(),
            reply_to: None,
            on_stuck: Vec::new(),
            metrics: Metrics::global(),
        }
    }

    /// Registers a definition. Sagas start as the newest version that is registered for their data;
    /// running sagas finish on theirs, so keep a version registered until no saga of it is left.
    pub fn register<D>(mut self, saga: Saga<D, S::Tx>) -> Self
    where
        D: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.registry.add(saga);
        self
    }

    /// Sets how many sagas the coordinator drives at once; zero counts as one. Each uses one
    /// connection while a step runs, and one for each step of a group.
    ///
    /// Unless set it fits the store's pool: a quarter of its connections, no more than what the
    /// consumers that were started before leave, and 16 at most; with a pool of 10 it is 2. The
    /// start warns, with both numbers, where more transactions may be open at once than the pool
    /// has connections.
    pub fn concurrency(mut self, sagas: usize) -> Self {
        self.concurrency = Some(sagas.max(1));
        self
    }

    /// Sets how long a claim lasts after its last use, 30 s unless set: the pause after a crash.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets the longest pause between two polls for due sagas, 1 s unless set.
    pub fn poll(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }

    /// Sets how long ended sagas are kept, with their logs and correlation ids, 90 days unless set.
    /// After that a start under the same id is a new saga.
    pub fn retention(mut self, keep: Duration) -> Self {
        self.retention = keep;
        self
    }

    /// Sets the topic for the replies to the commands of this service's sagas; required where a
    /// definition has remote steps. A consumer of this service has to receive the replies:
    /// [`ConsumerBuilder::replies`](crate::consumer::ConsumerBuilder::replies).
    ///
    /// ```
    /// # use outbox_core::{consumer::{Consumer, ConsumerError}, outbox::ConsumerStore, saga::{SagaSource, SagasBuilder}, transport::Subscriber};
    /// # async fn example<S: SagaSource + ConsumerStore>(outbox: S, sagas: SagasBuilder<S>, queue: impl Subscriber) -> Result<(), Box<dyn std::error::Error>> {
    /// let sagas = sagas.reply_to("checkout.replies").start().await?;
    /// let consumer = Consumer::builder("checkout", &outbox).replies(&sagas).subscribe(queue).start().await?;
    /// # let _ = consumer;
    /// # Ok(()) }
    /// ```
    pub fn reply_to(mut self, topic: impl AsRef<str>) -> Self {
        self.reply_to = Some(topic.as_ref().into());
        self
    }

    /// Calls this for every saga that gets stuck, in the process that has recorded it, after the
    /// commit. It must not block. Where the process ends before the call, there is no other one:
    /// [`sagas`](crate::saga::SagaAdmin::sagas) finds all stuck sagas.
    ///
    /// ```
    /// # use outbox_core::saga::{SagaSource, SagasBuilder};
    /// # fn example<S: SagaSource>(sagas: SagasBuilder<S>) -> SagasBuilder<S> {
    /// sagas.on_stuck(|saga| {
    ///     println!("saga {} is stuck at {:?}: {}", saga.id, saga.step, saga.reason);
    /// })
    /// # }
    /// ```
    pub fn on_stuck(mut self, listener: impl Fn(&StuckSaga) + Send + Sync + 'static) -> Self {
        self.on_stuck.push(Arc::new(listener));
        self
    }

    /// Sets the time limit of attempts at steps and compensations that have none of their own
    /// ([`timeout`](crate::saga::StepBuilder::timeout)), 5 min unless set; also of a remote step's
    /// attempt to make its command. At the limit the coordinator drops the attempt, its transaction
    /// rolls back, and it counts as failed. After a tenth of the limit the coordinator logs it, and
    /// [`SagasStats::slow`] counts it.
    ///
    /// ```
    /// # use outbox_core::saga::{SagaSource, SagasBuilder};
    /// # use std::time::Duration;
    /// # fn example<S: SagaSource>(sagas: SagasBuilder<S>) -> SagasBuilder<S> {
    /// sagas.step_timeout(Duration::from_secs(30))
    /// # }
    /// ```
    pub fn step_timeout(mut self, limit: Duration) -> Self {
        self.step_timeout = Some(limit);
        self
    }

    /// Sets no time limit for attempts that have none of their own. One that never returns holds
    /// its saga, its connection and its locks for ever.
    pub fn no_step_timeout(mut self) -> Self {
        self.step_timeout = None;
        self
    }

    /// Sets how often the supervisor restarts a failed coordinator.
    pub fn restarts(mut self, restarts: Restarts) -> Self {
        self.restarts = restarts;
        self
    }

    /// Counts into this registry; into that of the process unless set.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Makes a client, which starts sagas of these definitions and drives none: other processes
    /// drive them. Transactions of this process can start them too, as they can after
    /// [`start`](Self::start).
    ///
    /// ```
    /// # use outbox_core::saga::{Saga, SagaSource, Sagas, SagasError, Started};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct PlaceOrder { order_id: i64 }
    /// # async fn example<S: SagaSource>(outbox: S, tx: S::Tx, definition: Saga<PlaceOrder, S::Tx>) -> Result<(), SagasError> {
    /// let client = Sagas::builder(&outbox).register(definition).client()?; // in the web process
    /// client.start(&tx, PlaceOrder { order_id: 7 }).correlation("order-7").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`SagasError::Invalid`] with all faults of all definitions.
    pub fn client(self) -> Result<SagaClient<S>, SagasError> {
        let mut faults = self.registry.faults().to_vec();
        faults.extend(self.no_saga());
        if !faults.is_empty() {
            return Err(SagasError::Invalid(faults));
        }
        self.store.starts().add(&self.registry);
        Ok(SagaClient::new(self.store, self.registry))
    }

    fn no_saga(&self) -> Option<SagaFault> {
        let is_empty = self.registry.definition_ids().is_empty();
        is_empty.then(|| SagaFault::Setting("there is no saga; add one with `register`".to_owned()))
    }

    /// Starts the coordinator.
    ///
    /// ```
    /// # use outbox_core::saga::{SagaSource, SagasBuilder, SagasError};
    /// # async fn example<S: SagaSource>(sagas: SagasBuilder<S>) {
    /// match sagas.start().await {
    ///     Ok(sagas) => println!("running {sagas:?}"),
    ///     Err(SagasError::Invalid(faults)) => faults.iter().for_each(|fault| println!("{fault}")),
    ///     Err(other) => println!("{other}"),
    /// }
    /// # }
    /// ```
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
        let taken = span.in_scope(|| {
            reserve_connections(self.store.connections(), "sagas", self.concurrency, CONNECTIONS)
        });
        let concurrency = taken.concurrency;
        let shutdown = Shutdown::default();
        let (stats, _) = watch::channel(SagasStats::default());
        let stats = Arc::new(stats);
        let heartbeats = Arc::new(Heartbeats::default());
        let check = HealthCheck::new("sagas", heartbeats.clone(), self.lease);
        let worker = Arc::new(Worker {
            store: self.store,
            registry: self.registry,
            lease: self.lease,
            step_timeout: self.step_timeout,
            stats: Arc::clone(&stats),
            metrics: SagaMetrics::new(self.metrics),
            heartbeats: Arc::clone(&heartbeats),
            reply_to: self.reply_to,
            ahead_us: AtomicI64::new(0),
            shutdown: shutdown.clone(),
            jitter,
            isolation: IsolationGate::default(),
            on_stuck: self.on_stuck,
            reports: SagaReports::default(),
            test_hook: None,
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
        let (outcome_sender, ended) = watch::channel(None);
        let work = async move {
            let _taken = taken;
            let outcome = heartbeats.while_running(supervisor.run()).await;
            outcome_sender.send_replace(Some(outcome));
        };
        span.in_scope(|| spawn(work.in_current_span())).detach();
        Ok(Sagas::running(worker, shutdown, check, stats, exits, ended))
    }

    fn faults(&self) -> Vec<SagaFault> {
        let mut faults = self.registry.faults().to_vec();
        faults.extend(self.no_saga());
        match &self.reply_to {
            None => faults.extend(
                self.registry
                    .with_remote_steps()
                    .map(|shape| SagaFault::NoReplyTo(shape.name.to_string())),
            ),
            Some(topic) if !TextRule::ATTRIBUTE.allows(topic) => {
                faults.push(SagaFault::Setting(format!(
                    "the topic for replies, `{topic}`, does not have {}",
                    TextRule::ATTRIBUTE
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
