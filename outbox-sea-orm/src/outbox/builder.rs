//! How an outbox is configured: all faults are reported at once.

use super::{
    Inner, Outbox, RouteLimits,
    relay_watch::{PATIENCE, RelayWatch},
    source::SaidSource,
};
use crate::{
    MAX_PARTITIONS, Namespace, Notifier, Retention, Schema,
    dialect::Drivers,
    error::OutboxError,
    listener::{IntoListener, Listeners},
    pool::{NEEDED_OF_POOLER, TransactionLimits, WorkPool, check_pooler, mixes_statements},
    schema::Retentions,
    transaction::{Holders, Phase},
};
use outbox_core::{
    event::OutboxEvent, outbox::DEFAULT_PARTITIONS, runtime::Wake, saga::SagaStarts,
};
use sea_orm::{DatabaseConnection, DatabaseConnectionType, DbErr};
use std::{sync::Arc, time::Duration};

/// Most bytes of a source: what every database's column takes.
const MAX_SOURCE: usize = 255;
/// Most bytes of a payload where nothing else is said: with its envelope it fits into the 1 MiB that brokers and databases
/// take unless they are configured otherwise.
const MAX_PAYLOAD: usize = 960 * 1024;
/// Most bytes of a payload that can be said: the databases take 1 GB of a value.
const LARGEST_PAYLOAD: usize = 512 * 1024 * 1024;
/// How long a dedup key is kept: longer than any client repeats a request.
const DEDUP_RETENTION: Duration = Duration::from_hours(7 * 24);

/// Configures an [`Outbox`]. Made by [`Outbox::builder`].
#[must_use = "call `build()` or `install()`"]
pub struct OutboxBuilder {
    db: DatabaseConnection,
    source: SaidSource,
    namespace: String,
    partitions: u16,
    listeners: Listeners,
    limits: RouteLimits,
    max_payload: usize,
    dedup_retention: Duration,
    retention: Retention,
    retentions: Retentions,
    behind_pooler: bool,
    without_relay: Duration,
    work_limits: TransactionLimits,
    pub(crate) drivers: Drivers,
}

impl OutboxBuilder {
    pub(super) fn new(db: DatabaseConnection) -> Self {
        Self {
            db,
            source: SaidSource::default(),
            namespace: String::new(),
            partitions: DEFAULT_PARTITIONS,
            listeners: Listeners::default(),
            limits: RouteLimits::default(),
            max_payload: MAX_PAYLOAD,
            dedup_retention: DEDUP_RETENTION,
            retention: Retention::default(),
            retentions: Retentions::default(),
            behind_pooler: false,
            without_relay: PATIENCE,
            work_limits: TransactionLimits::default(),
            drivers: Drivers::BUILT,
        }
    }

    /// Names the service in its events: CloudEvents `source`, a URI reference of 1 to 255 bytes.
    ///
    /// Receivers tell messages apart by source and id, so two services must not share one, and an outbox belongs to one: the
    /// first that builds or installs it with a source writes that down, and [`build`](Self::build) refuses any other. A tool
    /// that only carries or shows events says none and takes the one that is written down, or else `outbox`.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source.own = Some(source.into());
        self
    }

    /// Says that several services write into this outbox on purpose, each under its source: no other one is refused here.
    pub fn shared(mut self) -> Self {
        self.source.is_shared = true;
        self
    }

    /// Says under which source this service wrote into this outbox before, so that its new one takes that place. An instance
    /// that still says the former one is refused when it starts after that.
    pub fn rename_source(mut self, former: impl Into<String>) -> Self {
        self.source.former = Some(former.into());
        self
    }

    /// Sets the prefix of the tables, for several outboxes in one database; none by default.
    pub fn namespace(mut self, prefix: impl Into<String>) -> Self {
        self.namespace = prefix.into();
        self
    }

    /// Sets the number of partitions that [`install`](Self::install) gives to new tables, 1 to 128; 16 by default.
    pub fn partitions(mut self, partitions: u16) -> Self {
        self.partitions = partitions;
        self
    }

    /// Runs a handler for every event of a type, in a phase of the transaction that emits it.
    ///
    /// The handler is an `async fn(Event)`, or a [`Listener`](crate::listener::Listener) with a retry policy of its own.
    /// The caller of `commit` waits for it. It dies with the process: what must happen goes through the outbox.
    ///
    /// Heard are events given to [`emit`](crate::OutboxTransaction::emit) whose type has no lifetimes.
    pub fn listen<E, M>(mut self, phase: Phase, handler: impl IntoListener<E, M>) -> Self
    where
        E: OutboxEvent + Clone + 'static,
    {
        self.listeners.add(phase, handler.into_listener());
        self
    }

    /// Shares limits of routes that are filled elsewhere.
    pub fn limits(mut self, limits: RouteLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the longest payload of an event in bytes, 1 to 512 MiB; 960 KiB by default. A route may take less; see
    /// [`Limits`](outbox_core::transport::Limits). MySQL's `max_allowed_packet` must be larger.
    ///
    /// An event with a longer one is refused when it is saved: [`OutboxError::Limit`].
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Sets how long after the first event of this process somebody looks whether a relay runs, here or elsewhere; 60 s by
    /// default. Where none does, a warning says so, once.
    pub fn warn_without_relay_after(mut self, patience: Duration) -> Self {
        self.without_relay = patience;
        self
    }

    /// Sets how long a dedup key is kept; 7 days by default.
    pub fn dedup_retention(mut self, retention: Duration) -> Self {
        self.dedup_retention = retention;
        self
    }

    /// Sets what relays do with events that are finished: deleted by default, or kept for a time in `outbox_done`.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Sets for how long the inbox remembers what is received by this outbox from now on; 14 days by default. It must be
    /// longer than any message may be delivered again.
    pub fn inbox_retention(mut self, retention: Duration) -> Self {
        self.retentions.inbox = retention;
        self
    }

    /// Sets for how long commands of sagas that are received by this outbox from now on are remembered, with their answers;
    /// 90 days by default, and never shorter than the [inbox](Self::inbox_retention) remembers.
    ///
    /// It must be longer than any saga lasts whose steps are done here, waits for people included: what is undone after
    /// that counts as never done, and is not undone.
    pub fn barrier_retention(mut self, retention: Duration) -> Self {
        self.retentions.barrier = retention;
        self
    }

    /// Sets how long a dead letter is kept after it was redriven, discarded or sent again; 90 days by default. Relays and
    /// consumers delete it then. A letter about which nothing was decided is kept until somebody decides; see
    /// [`purge_all`](outbox_core::admin::purge_all).
    pub fn dead_letter_retention(mut self, retention: Duration) -> Self {
        self.retentions.letters = retention;
        self
    }

    /// Says that a pooler stands before PostgreSQL which gives a connection to another client after each transaction:
    /// no notifications are used then, relays poll and prepare nothing under a name, and limits travel with each transaction.
    ///
    /// SeaORM prepares its statements under names, so the pooler has to carry them over: PgBouncer does since 1.21, with
    /// `max_prepared_statements` above 0. Another one is refused by [`build`](Self::build) and [`install`](Self::install).
    pub fn behind_pooler(mut self) -> Self {
        self.behind_pooler = true;
        self
    }

    /// Sets the limits of the transactions that the framework opens itself: 15 s idle, 15 s for a lock and 5 min for a
    /// statement unless set. See [`TransactionLimits`].
    ///
    /// These transactions have connections of their own: a second pool, opened with the options of the application's and as
    /// large as that, when a consumer, a coordinator or an operator first needs one. On MySQL and MariaDB a hook that runs
    /// after each connect of the application's pool does not run for them.
    pub fn transaction_limits(mut self, limits: TransactionLimits) -> Self {
        self.work_limits = limits;
        self
    }

    /// Opens the outbox. Its tables must be there.
    ///
    /// # Errors
    /// [`OutboxError::Configuration`] with every fault at once, or when the outbox belongs to another source;
    /// [`OutboxError::Store`] when the tables are missing or are not those of this version.
    pub async fn build(self) -> Result<Outbox, OutboxError> {
        let namespace = self.check()?;
        self.check_pooler().await?;
        self.open(&namespace).await.map_err(told_of_pooler)
    }

    /// Creates the tables where they are missing, brings older ones up to date, and opens the outbox.
    ///
    /// # Errors
    /// As [`build`](Self::build); [`OutboxError::Install`] where the role of this program may not make the tables, with the SQL to
    /// run, and where tables with another number of partitions are there; else what the database says of the migration. A role
    /// without the right to make tables may call this where they are up to date.
    pub async fn install(self) -> Result<Outbox, OutboxError> {
        let namespace = self.check()?;
        self.check_pooler().await?;
        self.install_in(namespace).await.map_err(told_of_pooler)
    }

    async fn install_in(self, namespace: Namespace) -> Result<Outbox, OutboxError> {
        crate::install(&self.db, &namespace, self.partitions).await.map_err(
            |error| match error {
                DbErr::Migration(why) => OutboxError::Install(why),
                other => other.into(),
            },
        )?;
        self.open(&namespace).await
    }

    async fn open(self, namespace: &Namespace) -> Result<Outbox, OutboxError> {
        let mut retentions = self.retentions;
        retentions.barrier = retentions.barrier.max(retentions.inbox);
        let schema = Schema::open_with(&self.db, namespace, &retentions).await?;
        let source = self.source.settle(&self.db, &schema).await?;
        let notifier =
            if self.behind_pooler { Notifier::silent() } else { Notifier::new(&self.db, &schema) };
        let pool =
            || WorkPool::new(&self.db, schema.dialect(), self.work_limits, self.behind_pooler);
        let (work, signs) = (pool(), pool().at_most(1));
        Ok(Outbox(Arc::new(Inner {
            signs: Arc::new(signs),
            holders: Holders::default(),
            connections: work.connections(),
            work: Arc::new(work),
            notifier,
            retention: self.retention,
            retentions,
            behind_pooler: self.behind_pooler,
            source: source.into(),
            schema,
            wake: Wake::default(),
            saga_wake: Wake::default(),
            saga_starts: SagaStarts::default(),
            relay_watch: RelayWatch::new(self.without_relay),
            dedup_retention: self.dedup_retention,
            listeners: self.listeners,
            limits: self.limits,
            max_payload: self.max_payload,
            db: self.db,
        })))
    }

    /// Makes sure that a pooler does what SeaORM needs.
    async fn check_pooler(&self) -> Result<(), OutboxError> {
        if !self.behind_pooler {
            return Ok(());
        }
        check_pooler(&self.db).await.map_err(|why| OutboxError::Configuration(vec![why.to_owned()]))
    }

    fn check(&self) -> Result<Namespace, OutboxError> {
        // Of one that is none, SeaORM tells no database.
        let mut faults: Vec<String> = match self.db.inner {
            DatabaseConnectionType::Disconnected => {
                vec!["the connection is not open: `Database::connect(url)` gives one".to_owned()]
            }
            _ => self.drivers.missing_for(self.db.get_database_backend()).into_iter().collect(),
        };
        let is_wrong =
            |s: &String| s.is_empty() || s.len() > MAX_SOURCE || s.chars().any(char::is_control);
        if self.source.own.iter().chain(&self.source.former).any(is_wrong) {
            faults.push(format!(
                "the source must have 1 to {MAX_SOURCE} bytes and no control character"
            ));
        }
        if !(1..=MAX_PARTITIONS).contains(&self.partitions) {
            faults.push(format!(
                "there must be 1 to {MAX_PARTITIONS} partitions, not {}",
                self.partitions
            ));
        }
        if !(1..=LARGEST_PAYLOAD).contains(&self.max_payload) {
            faults.push(format!(
                "the longest payload must have 1 to {LARGEST_PAYLOAD} bytes, not {}",
                self.max_payload
            ));
        }
        let namespace = match self.namespace.as_str() {
            "" => Ok(Namespace::default()),
            prefix => Namespace::new(prefix),
        };
        match namespace {
            Ok(namespace) if faults.is_empty() => Ok(namespace),
            Ok(_) => Err(OutboxError::Configuration(faults)),
            Err(error) => {
                faults.push(error.to_string());
                Err(OutboxError::Configuration(faults))
            }
        }
    }
}

/// Says what a pooler lacks that nobody has told of.
fn told_of_pooler(error: OutboxError) -> OutboxError {
    if mixes_statements(&error) {
        OutboxError::Configuration(vec![NEEDED_OF_POOLER.to_owned()])
    } else {
        error
    }
}
