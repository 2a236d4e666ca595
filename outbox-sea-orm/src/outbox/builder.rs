//! How an outbox is configured: all faults are reported at once.

use super::{Inner, Outbox, RouteLimits};
use crate::{
    MAX_PARTITIONS, Namespace, Notifier, Retention, Schema,
    error::OutboxError,
    listener::{IntoListener, Listeners},
    schema::{BARRIER_RETENTION, INBOX_RETENTION},
    transaction::Phase,
};
use outbox_core::{event::OutboxEvent, outbox::DEFAULT_PARTITIONS, runtime::Wake};
use sea_orm::DatabaseConnection;
use std::{sync::Arc, time::Duration};

/// Most bytes of a source: what every database's column takes.
const MAX_SOURCE: usize = 255;
/// How long a dedup key is kept: longer than any client repeats a request.
const DEDUP_RETENTION: Duration = Duration::from_hours(7 * 24);

/// Configures an [`Outbox`]. Made by [`Outbox::builder`].
#[must_use = "call `build()` or `install()`"]
pub struct OutboxBuilder {
    db: DatabaseConnection,
    source: String,
    namespace: String,
    partitions: u16,
    listeners: Listeners,
    limits: RouteLimits,
    dedup_retention: Duration,
    retention: Retention,
    inbox_retention: Duration,
    barrier_retention: Duration,
    behind_pooler: bool,
}

impl OutboxBuilder {
    pub(super) fn new(db: DatabaseConnection) -> Self {
        Self {
            db,
            source: "outbox".into(),
            namespace: String::new(),
            partitions: DEFAULT_PARTITIONS,
            listeners: Listeners::default(),
            limits: RouteLimits::default(),
            dedup_retention: DEDUP_RETENTION,
            retention: Retention::default(),
            inbox_retention: INBOX_RETENTION,
            barrier_retention: BARRIER_RETENTION,
            behind_pooler: false,
        }
    }

    /// Names the service in its events: CloudEvents `source`, a URI reference of 1 to 255 bytes; `outbox` by default.
    ///
    /// Receivers tell messages apart by source and id, so two services must not share one.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
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
        self.inbox_retention = retention;
        self
    }

    /// Sets for how long commands of sagas that are received by this outbox from now on are remembered, with their answers;
    /// 90 days by default, and never shorter than the [inbox](Self::inbox_retention) remembers.
    ///
    /// It must be longer than any saga lasts whose steps are done here, waits for people included: what is undone after
    /// that counts as never done, and is not undone.
    pub fn barrier_retention(mut self, retention: Duration) -> Self {
        self.barrier_retention = retention;
        self
    }

    /// Says that a pooler stands before PostgreSQL which gives a connection to another client after each transaction:
    /// no notifications are used then, and relays poll.
    pub fn behind_pooler(mut self) -> Self {
        self.behind_pooler = true;
        self
    }

    /// Opens the outbox. Its tables must be there.
    ///
    /// # Errors
    /// [`OutboxError::Configuration`] with every fault at once; [`OutboxError::Store`] when the tables are missing or are
    /// not those of this version.
    pub async fn build(self) -> Result<Outbox, OutboxError> {
        let namespace = self.check()?;
        self.open(&namespace).await
    }

    /// Creates the tables where they are missing, brings older ones up to date, and opens the outbox.
    ///
    /// # Errors
    /// As [`build`](Self::build), and what the database says of the migration.
    pub async fn install(self) -> Result<Outbox, OutboxError> {
        let namespace = self.check()?;
        crate::install(&self.db, &namespace, self.partitions).await?;
        self.open(&namespace).await
    }

    async fn open(self, namespace: &Namespace) -> Result<Outbox, OutboxError> {
        let of_calls = self.barrier_retention.max(self.inbox_retention);
        let schema = Schema::open_with(&self.db, namespace, self.inbox_retention, of_calls).await?;
        let notifier = if self.behind_pooler { Notifier::silent() } else { Notifier::new(&self.db, &schema) };
        Ok(Outbox(Arc::new(Inner {
            notifier,
            retention: self.retention,
            inbox_retention: self.inbox_retention,
            behind_pooler: self.behind_pooler,
            source: self.source.into(),
            schema,
            wake: Wake::default(),
            saga_wake: Wake::default(),
            dedup_retention: self.dedup_retention,
            listeners: self.listeners,
            limits: self.limits,
            db: self.db,
        })))
    }

    fn check(&self) -> Result<Namespace, OutboxError> {
        let mut faults = Vec::new();
        if self.source.is_empty() || self.source.len() > MAX_SOURCE || self.source.chars().any(char::is_control) {
            faults.push(format!("the source must have 1 to {MAX_SOURCE} bytes and no control character"));
        }
        if !(1..=MAX_PARTITIONS).contains(&self.partitions) {
            faults.push(format!("there must be 1 to {MAX_PARTITIONS} partitions, not {}", self.partitions));
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
