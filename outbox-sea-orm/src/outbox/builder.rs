//! The builder of an outbox: it reports all faults at once.

use super::{
    Inner, Outbox, RouteLimits,
    relay_watch::{DEFAULT_DELAY, RelayWatch},
    source::SourceSettings,
    waiting_limit::WaitingLimit,
};
use crate::{
    MAX_PARTITIONS, Namespace, Notifier, Retention, Schema,
    dialect::{Drivers, limits_like_own},
    error::OutboxError,
    listener::{IntoListener, Listeners},
    pool::{
        POOLER_REQUIREMENT, TransactionLimits, WorkPool, check_pooler, is_mixed_statement_error,
    },
    schema::Retentions,
    transaction::{Phase, TransactionTasks},
};
use outbox_core::{
    event::{OutboxEvent, PayloadCodec, PayloadCodecs, TextRule},
    outbox::DEFAULT_PARTITIONS,
    runtime::Wake,
    saga::SagaStarts,
};
use sea_orm::{DatabaseConnection, DatabaseConnectionType, DbErr};
use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

/// Most bytes of a payload unless set: with its envelope it fits into the 1 MiB that brokers and
/// databases take unless configured otherwise.
const MAX_PAYLOAD: usize = 960 * 1024;
/// Highest setting of the most bytes of a payload: the databases take 1 GB of a value.
const LARGEST_PAYLOAD: usize = 512 * 1024 * 1024;
/// Highest setting of the most waiting events: the databases count in signed 64 bits.
const MOST_WAITING: u64 = i64::MAX.unsigned_abs();
/// How long a dedup key is kept: longer than any client repeats a request.
const DEDUP_RETENTION: Duration = Duration::from_hours(7 * 24);
/// Connections for what operators ask: a second one, so that one slow statement does not make every
/// page wait for it.
const READ_CONNECTIONS: u32 = 2;

/// Configures an [`Outbox`]. Made by [`Outbox::builder`].
///
/// ```
/// # use outbox_sea_orm::prelude::*;
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let db = sea_orm::Database::connect("sqlite::memory:").await?;
/// let outbox = Outbox::builder(db)
///     .source("shop")
///     .namespace("shop")
///     .inbox_retention(Duration::from_hours(30 * 24))
///     .install()
///     .await?;
/// assert_eq!(outbox.source(), "shop");
/// # Ok(()) }
/// ```
#[must_use = "call `build()` or `install()`"]
pub struct OutboxBuilder {
    db: DatabaseConnection,
    source: SourceSettings,
    namespace: String,
    partitions: u16,
    listeners: Listeners,
    limits: RouteLimits,
    codecs: PayloadCodecs,
    max_payload: usize,
    dedup_retention: Duration,
    retention: Retention,
    retentions: Retentions,
    behind_pooler: bool,
    relay_check_delay: Duration,
    max_waiting: Option<u64>,
    work_limits: TransactionLimits,
    pub(crate) drivers: Drivers,
}

impl OutboxBuilder {
    pub(super) fn new(db: DatabaseConnection) -> Self {
        Self {
            db,
            source: SourceSettings::default(),
            namespace: String::new(),
            partitions: DEFAULT_PARTITIONS,
            listeners: Listeners::default(),
            limits: RouteLimits::default(),
            codecs: PayloadCodecs::NONE,
            max_payload: MAX_PAYLOAD,
            dedup_retention: DEDUP_RETENTION,
            retention: Retention::default(),
            retentions: Retentions::default(),
            behind_pooler: false,
            relay_check_delay: DEFAULT_DELAY,
            max_waiting: None,
            work_limits: TransactionLimits::default(),
            drivers: Drivers::BUILT,
        }
    }

    /// Names the service in its events: CloudEvents `source`, a URI reference of 1 to 255 bytes.
    ///
    /// Receivers distinguish messages by source and id, so two services must not share a source,
    /// and an outbox belongs to one: the first service that builds or installs it with a source
    /// stores that, and [`build`](Self::build) refuses any other. A tool that only carries or shows
    /// events sets none and takes the stored one, or else `outbox`.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source.own = Some(source.into());
        self
    }

    /// Allows several services to write into this outbox, each under its own source: none is
    /// refused here.
    pub fn shared(mut self) -> Self {
        self.source.is_shared = true;
        self
    }

    /// Sets the former source of this service, which its new one replaces in this outbox. An
    /// instance that starts with the former source after that is refused.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # async fn example(db: sea_orm::DatabaseConnection) -> Result<(), OutboxError> {
    /// let outbox = Outbox::builder(db).source("web-shop").rename_source("shop").build().await?;
    /// # let _ = outbox;
    /// # Ok(()) }
    /// ```
    pub fn rename_source(mut self, former: impl Into<String>) -> Self {
        self.source.former = Some(former.into());
        self
    }

    /// Sets the prefix of the tables, for several outboxes in one database; none by default.
    pub fn namespace(mut self, prefix: impl Into<String>) -> Self {
        self.namespace = prefix.into();
        self
    }

    /// Sets the number of partitions that [`install`](Self::install) gives to new tables, 1 to 128;
    /// 16 by default.
    pub fn partitions(mut self, partitions: u16) -> Self {
        self.partitions = partitions;
        self
    }

    /// Runs a handler for every event of a type, in a phase of the transaction that emits it.
    ///
    /// The handler is an `async fn(Event)`, or a [`Listener`](crate::listener::Listener) with a
    /// retry policy of its own. The caller of `commit` waits for it. It ends with the process: what
    /// must happen goes through the outbox.
    ///
    /// It gets the events of [`emit`](crate::OutboxTransaction::emit) whose type has no lifetimes.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, OutboxEvent)]
    /// # #[outbox(type = "order.placed", topic = "orders")]
    /// # struct OrderPlaced { #[outbox(key)] order_id: i64 }
    /// # async fn example(db: sea_orm::DatabaseConnection) -> Result<(), OutboxError> {
    /// async fn refresh_screen(order: OrderPlaced) {
    ///     println!("order {} is saved", order.order_id);
    /// }
    /// let outbox = Outbox::builder(db).listen(Phase::AfterCommit, refresh_screen).build().await?;
    /// # let _ = outbox;
    /// # Ok(()) }
    /// ```
    pub fn listen<E, M>(mut self, phase: Phase, handler: impl IntoListener<E, M>) -> Self
    where
        E: OutboxEvent + Clone + 'static,
    {
        self.listeners.add(phase, handler.into_listener());
        self
    }

    /// Sets limits of routes, which another part of the program may fill.
    pub fn limits(mut self, limits: RouteLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Encodes the payload of each event that this outbox saves, such as to encrypt it, and decodes that
    /// of messages just before a handler or a saga of this outbox sees them. What lies between carries
    /// the encoded form: tables, archive, brokers, dead letters, the pages of operators. See
    /// [`PayloadCodec`].
    ///
    /// The envelope stays clear, with its key and its headers, and so does what else the tables keep:
    /// data and outputs of sagas, stored responses, and the texts of errors. Limits of sizes hold for
    /// the encoded form.
    ///
    /// ```
    /// # use outbox_sea_orm::{event::PayloadCodec, prelude::*};
    /// # async fn example(db: sea_orm::DatabaseConnection, aead: impl PayloadCodec, former: impl PayloadCodec) -> Result<(), OutboxError> {
    /// let outbox = Outbox::builder(db)
    ///     .source("shop")
    ///     .payload_codec(aead)
    ///     .payload_decoder(former) // its messages may still be on their way
    ///     .build()
    ///     .await?;
    /// # let _ = outbox;
    /// # Ok(()) }
    /// ```
    pub fn payload_codec(mut self, codec: impl PayloadCodec) -> Self {
        self.codecs = self.codecs.encode_with(codec);
        self
    }

    /// Decodes payloads of one more codec, under its own name, and encodes none with it: the next one
    /// before a rollout, and the former one after it.
    ///
    /// A message whose codec or key this instance does not have waits for one that has it, for
    /// [`keep_unknown`](crate::consumer::ConsumerBuilder::keep_unknown).
    pub fn payload_decoder(mut self, codec: impl PayloadCodec) -> Self {
        self.codecs = self.codecs.decode_with(codec);
        self
    }

    /// Sets the longest payload of an event in bytes, 1 to 512 MiB; 960 KiB by default. A route may
    /// take less; see [`Limits`](outbox_core::transport::Limits). MySQL's `max_allowed_packet` must
    /// be larger.
    ///
    /// The outbox refuses an event with a longer one when it is saved: [`OutboxError::Limit`].
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Sets how long after the first event of this process the outbox checks whether a relay runs,
    /// here or elsewhere; 60 s by default. Where none does, it logs a warning, once.
    pub fn warn_without_relay_after(mut self, delay: Duration) -> Self {
        self.relay_check_delay = delay;
        self
    }

    /// Sets how many events may wait for relays, at least 1; without a limit by default.
    ///
    /// Once so many wait, the application's `emit` and `enqueue` give
    /// [`OutboxError::TooManyWaiting`] until relays have published some: a destination that is away
    /// for days does not fill the database. What handlers and steps of sagas emit is saved all the
    /// same. Each process counts while it emits, once a second at most and less often where a count
    /// is slow, so that more may wait than the limit says. A count that fails is warned of; until
    /// one succeeds, what the last one said holds.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # async fn example(db: sea_orm::DatabaseConnection) -> Result<(), OutboxError> {
    /// let outbox = Outbox::builder(db).source("shop").max_waiting(5_000_000).build().await?;
    /// # let _ = outbox;
    /// # Ok(()) }
    /// ```
    pub fn max_waiting(mut self, events: u64) -> Self {
        self.max_waiting = Some(events);
        self
    }

    /// Sets how long a dedup key is kept; 7 days by default.
    pub fn dedup_retention(mut self, retention: Duration) -> Self {
        self.dedup_retention = retention;
        self
    }

    /// Sets what relays do with finished events: they delete them, the default, or archive them in
    /// `outbox_archive` for a time.
    ///
    /// ```
    /// # use outbox_sea_orm::{Retention, prelude::*};
    /// # use std::time::Duration;
    /// # async fn example(db: sea_orm::DatabaseConnection) -> Result<(), OutboxError> {
    /// let a_month = Retention::Keep(Duration::from_hours(30 * 24)); // in `outbox_archive`
    /// let outbox = Outbox::builder(db).retention(a_month).build().await?;
    /// # let _ = outbox;
    /// # Ok(()) }
    /// ```
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Sets how long the inbox keeps messages that this outbox receives from now on; 14 days by
    /// default. It must be longer than any message may be delivered again.
    pub fn inbox_retention(mut self, retention: Duration) -> Self {
        self.retentions.inbox = retention;
        self
    }

    /// Sets how long the barrier keeps commands of sagas that this outbox receives from now on,
    /// with their replies; 90 days by default, and never shorter than the
    /// [inbox](Self::inbox_retention) keeps messages.
    ///
    /// It must be longer than any saga lasts whose steps run here, waits for people included: a
    /// step that is compensated after that counts as never done, and its compensation does nothing.
    pub fn barrier_retention(mut self, retention: Duration) -> Self {
        self.retentions.barrier = retention;
        self
    }

    /// Sets how long a dead letter is kept after it was redriven, discarded or sent again; 90 days
    /// by default. Relays and consumers delete it then. An unresolved letter is kept until an
    /// operator resolves it; see [`purge_all`](outbox_core::admin::purge_all).
    pub fn dead_letter_retention(mut self, retention: Duration) -> Self {
        self.retentions.letters = retention;
        self
    }

    /// Sets how long the audit keeps what operators did; a year by default. Relays delete it then.
    pub fn audit_retention(mut self, retention: Duration) -> Self {
        self.retentions.audit = retention;
        self
    }

    /// Tells that a pooler before PostgreSQL gives a connection to another client after each
    /// transaction: then the outbox uses no notifications, relays poll and prepare no statement
    /// under a name, and each transaction sets its limits itself.
    ///
    /// SeaORM prepares its statements under names, so the pooler has to carry them over: PgBouncer
    /// does since 1.21, with `max_prepared_statements` above 0. [`build`](Self::build) and
    /// [`install`](Self::install) refuse another one.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let pgbouncer = sea_orm::Database::connect("postgres://shop@127.0.0.1:6432/shop").await?;
    /// let outbox = Outbox::builder(pgbouncer).behind_pooler().build().await?;
    /// # let _ = outbox;
    /// # Ok(()) }
    /// ```
    pub fn behind_pooler(mut self) -> Self {
        self.behind_pooler = true;
        self
    }

    /// Sets the limits of the transactions that the framework opens itself: 15 s idle, 15 s for a
    /// lock and 5 min for a statement unless set. See [`TransactionLimits`].
    ///
    /// These transactions have connections of their own: a second pool, opened with the options of
    /// the application's and as large as that, when a consumer, a coordinator or an operator first
    /// needs one. What operators ask has two further connections. On MySQL and MariaDB a hook that
    /// runs after each connect of the application's pool does not run for them.
    ///
    /// ```
    /// # use outbox_sea_orm::{TransactionLimits, prelude::*};
    /// # use std::time::Duration;
    /// # async fn example(db: sea_orm::DatabaseConnection) -> Result<(), OutboxError> {
    /// let limits = TransactionLimits::new().lock_wait(Duration::from_secs(5));
    /// let outbox = Outbox::builder(db).transaction_limits(limits).build().await?;
    /// # let _ = outbox;
    /// # Ok(()) }
    /// ```
    pub fn transaction_limits(mut self, limits: TransactionLimits) -> Self {
        self.work_limits = limits;
        self
    }

    /// Opens the outbox. Its tables must exist.
    ///
    /// # Errors
    /// [`OutboxError::Configuration`] with every fault at once, or when the outbox belongs to
    /// another source; [`OutboxError::Store`] when the tables are missing or have an older version.
    pub async fn build(self) -> Result<Outbox, OutboxError> {
        let namespace = self.check()?;
        self.check_pooler().await?;
        self.open(&namespace).await.map_err(explain_pooler_error)
    }

    /// Creates the tables where they are missing, brings older ones up to date, and opens the
    /// outbox.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # async fn example(db: sea_orm::DatabaseConnection) -> Result<Outbox, OutboxError> {
    /// match Outbox::builder(db).source("shop").install().await {
    ///     Err(OutboxError::Install(why)) => {
    ///         eprintln!("for a database administrator: {why}"); // with the SQL
    ///         Err(OutboxError::Install(why))
    ///     }
    ///     other => other,
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`build`](Self::build); [`OutboxError::Install`] where the role of this program may not
    /// create the tables, with the SQL to run, and where tables with another number of partitions
    /// exist; else the database's error of the migration. A role without the right to create tables
    /// may call this where they are up to date.
    pub async fn install(self) -> Result<Outbox, OutboxError> {
        let namespace = self.check()?;
        self.check_pooler().await?;
        self.install_in(namespace).await.map_err(explain_pooler_error)
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
        let notifier = if self.behind_pooler {
            Notifier::disabled()
        } else {
            Notifier::new(&self.db, &schema)
        };
        let pool = |limits| WorkPool::new(&self.db, schema.dialect(), limits, self.behind_pooler);
        let limits = limits_like_own(&self.db, self.work_limits);
        let (work, heartbeat_pool) = (pool(limits), pool(limits).at_most(1));
        let read_pool = pool(limits.of_reads()).at_most(READ_CONNECTIONS);
        Ok(Outbox(Arc::new(Inner {
            heartbeat_pool: Arc::new(heartbeat_pool),
            read_pool,
            transaction_tasks: TransactionTasks::default(),
            waiting_writers: AtomicUsize::default(),
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
            relay_watch: RelayWatch::new(self.relay_check_delay),
            waiting_limit: self.max_waiting.map(WaitingLimit::new),
            dedup_retention: self.dedup_retention,
            listeners: self.listeners,
            limits: self.limits,
            codecs: self.codecs,
            max_payload: self.max_payload,
            db: self.db,
        })))
    }

    /// Checks that a pooler does what SeaORM needs.
    async fn check_pooler(&self) -> Result<(), OutboxError> {
        if !self.behind_pooler {
            return Ok(());
        }
        check_pooler(&self.db).await.map_err(|why| OutboxError::Configuration(vec![why.to_owned()]))
    }

    fn check(&self) -> Result<Namespace, OutboxError> {
        // A disconnected one has no database backend.
        let mut faults: Vec<String> = match self.db.inner {
            DatabaseConnectionType::Disconnected => {
                vec!["the connection is not open: `Database::connect(url)` gives one".to_owned()]
            }
            _ => self.drivers.missing_for(self.db.get_database_backend()).into_iter().collect(),
        };
        let mut sources = self.source.own.iter().chain(&self.source.former);
        if !sources.all(|source| TextRule::ATTRIBUTE.allows(source)) {
            faults.push(format!("the source must have {}", TextRule::ATTRIBUTE));
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
        faults.extend(self.codecs.faults());
        if self.max_waiting.is_some_and(|events| !(1..=MOST_WAITING).contains(&events)) {
            faults.push(format!("the most waiting events must be 1 to {MOST_WAITING}"));
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

/// Turns an error of mixed-up prepared statements into one that names the pooler.
fn explain_pooler_error(error: OutboxError) -> OutboxError {
    if is_mixed_statement_error(&error) {
        OutboxError::Configuration(vec![POOLER_REQUIREMENT.to_owned()])
    } else {
        error
    }
}
