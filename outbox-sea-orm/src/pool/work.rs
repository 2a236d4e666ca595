//! Connections for what the framework opens itself: handlers' runs, stored deliveries, steps of sagas, operators' acts.
//!
//! They lead to where the application's pool leads and are opened as it opens its own, but are apart from it, so that their
//! limits reach nobody else. A pool of the driver takes a connection back only after asking whether it is still there, and a
//! network that swallows everything never answers that. So a pool in which an answer is overdue is closed as a whole: what
//! runs on its other connections ends as usual, what hangs is closed, and whoever comes next opens a new one.

use super::{fault::overdue, size::pool_size};
use crate::dialect::Dialect;
use async_trait::async_trait;
use outbox_core::runtime::{Connections, now};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult,
    QueryResult, RuntimeErr, Statement, TransactionOptions, TransactionTrait,
};
use std::{
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// What is waited for an answer beyond the server's own limits: the way there and back.
const TRAVEL: Duration = Duration::from_secs(1);
/// Longest wait for a free connection where the pool does not tell its own: the drivers' default.
const ACQUIRED_WITHIN: Duration = Duration::from_secs(30);

/// Limits of the transactions that the framework opens itself: those of handlers, stored deliveries, steps of sagas and
/// operators. The server ends what exceeds them, so that a process that stands still, or whose network is gone, holds no lock
/// for longer.
///
/// | | PostgreSQL | MariaDB | MySQL | SQLite |
/// | --- | --- | --- | --- | --- |
/// | [`idle`](Self::idle) | `idle_in_transaction_session_timeout` | `idle_transaction_timeout` | none | none |
/// | [`lock_wait`](Self::lock_wait) | `lock_timeout` | `innodb_lock_wait_timeout` | the same | the pool's `busy_timeout` |
/// | [`statement`](Self::statement) | `statement_timeout` | `max_statement_time` | `max_execution_time` (reads) | none |
///
/// The process itself waits for the answers to its own BEGIN, COMMIT, ROLLBACK and inbox statements for the longer of
/// `idle` and `lock_wait`, and a second; then it closes the connection. That holds for every transaction of an
/// [`Outbox`](crate::Outbox).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct TransactionLimits {
    pub(crate) idle: Duration,
    pub(crate) lock_wait: Duration,
    pub(crate) statement: Duration,
}

impl Default for TransactionLimits {
    fn default() -> Self {
        let (idle, statement) = (Duration::from_secs(15), Duration::from_mins(5));
        Self { idle, lock_wait: idle, statement }
    }
}

impl TransactionLimits {
    /// Starts from the defaults: 15 s idle, 15 s for a lock, 5 min for a statement.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long a transaction may be idle, at least 1 s; 15 s unless set. A live process keeps its own awake while a
    /// handler or step waits for something else, so this ends those of frozen and vanished ones.
    pub fn idle(mut self, longest: Duration) -> Self {
        self.idle = longest.max(Duration::from_secs(1));
        self
    }

    /// Sets how long a statement waits for a lock, at least 1 s; 15 s unless set.
    pub fn lock_wait(mut self, longest: Duration) -> Self {
        self.lock_wait = longest.max(Duration::from_secs(1));
        self
    }

    /// Sets how long a statement may run, at least 1 s; 5 min unless set. Where the application's own `statement_timeout` is
    /// part of its PostgreSQL connection options, that one stays.
    pub fn statement(mut self, longest: Duration) -> Self {
        self.statement = longest.max(Duration::from_secs(1));
        self
    }

    /// How long the process waits for an answer of the server.
    pub(crate) fn answer(&self) -> Duration {
        self.idle.max(self.lock_wait) + TRAVEL
    }
}

/// How long the driver's answers are waited for, and what is closed when one does not come.
#[derive(Clone)]
pub(crate) struct Bound {
    within: Duration,
    /// Where the connection comes from; `None` for the application's pool, which is not closed.
    from: Option<Lent>,
}

impl Bound {
    /// The bound of a transaction on the application's own pool.
    pub(crate) const fn of_application(within: Duration) -> Self {
        Self { within, from: None }
    }

    /// Waits for an answer. One that is overdue closes the connection.
    ///
    /// # Cancel safety
    /// That of the work.
    pub(crate) async fn answer<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        // Dropped behind the closing, so that its connection finds the pool closed.
        let mut work = pin!(work);
        match tokio::time::timeout(self.within, work.as_mut()).await {
            Ok(answer) => answer,
            Err(_) => Err(self.close(what)),
        }
    }

    /// Tells for how long.
    pub(crate) const fn within(&self) -> Duration {
        self.within
    }

    /// Closes the connection, since an answer is overdue; gives the error that says so.
    pub(crate) fn close(&self, what: &'static str) -> DbErr {
        if let Some(Lent(opened)) = &self.from {
            opened.close();
        }
        overdue(what, self.within)
    }
}

/// Opens transactions for the framework, and runs its statements outside of one.
pub(crate) struct WorkPool {
    application: DatabaseConnection,
    dialect: Dialect,
    limits: TransactionLimits,
    /// Whether the limits travel with each transaction, since a setting of a connection would reach other clients.
    with_each: AtomicBool,
    /// Connections at most; `None` for as many as the application's pool has.
    most: Option<u32>,
    opened: Mutex<Option<Arc<Opened>>>,
}

/// A pool of the driver, until an answer on it is overdue.
struct Opened {
    db: DatabaseConnection,
    /// Whether it is the application's, where the database needs no other.
    shared: bool,
    /// Whether its connections are opened without settings, since a pooler refuses them.
    plain: bool,
    closed: AtomicBool,
    /// Transactions that are open on it.
    lent: AtomicUsize,
}

/// One transaction's share of a pool.
struct Lent(Arc<Opened>);

impl Clone for Lent {
    fn clone(&self) -> Self {
        self.0.lent.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.lent.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WorkPool {
    /// Prepares connections to the database of a pool; none is opened.
    pub(crate) fn new(
        application: &DatabaseConnection,
        dialect: Dialect,
        limits: TransactionLimits,
        behind_pooler: bool,
    ) -> Self {
        let with_each = AtomicBool::new(behind_pooler && dialect == Dialect::Postgres);
        Self {
            application: application.clone(),
            dialect,
            limits,
            with_each,
            most: None,
            opened: Mutex::new(None),
        }
    }

    /// Has so many connections at most.
    pub(crate) fn at_most(mut self, connections: u32) -> Self {
        self.most = Some(connections);
        self
    }

    /// Gives its connections, to be shared out; `None` where it has no pool.
    pub(crate) fn connections(&self) -> Option<Connections> {
        let most = self.most.or_else(|| pool_size(&self.application))?;
        let of_application =
            !matches!(self.dialect, Dialect::Postgres | Dialect::MySql | Dialect::MariaDb);
        Some(Connections::new(most as usize, of_application))
    }

    /// How long the opening of a transaction of the application may take.
    pub(crate) fn begins_within(&self) -> Duration {
        acquired_within(&self.application) + self.limits.answer()
    }

    /// The bound of a transaction of the application.
    pub(crate) fn bound_of_application(&self) -> Bound {
        Bound::of_application(self.limits.answer())
    }

    /// Tells the limits.
    pub(crate) const fn limits(&self) -> &TransactionLimits {
        &self.limits
    }

    /// Tells whether the server ends a transaction that is idle for too long.
    pub(crate) const fn ends_idle(&self) -> bool {
        matches!(self.dialect, Dialect::Postgres | Dialect::MariaDb)
    }

    /// Opens a transaction.
    ///
    /// # Errors
    /// What the database said, or that it said nothing.
    pub(crate) async fn begin(
        &self,
        options: TransactionOptions,
    ) -> Result<(DatabaseTransaction, Bound), DbErr> {
        self.on_open(|opened| async move {
            let txn = opened.db.begin_with_options(options).await?;
            let bound = Bound { within: self.limits.answer(), from: Some(opened.lend()) };
            if self.with_each.load(Ordering::Relaxed) {
                txn.execute_unprepared(&self.dialect.limits_of_transaction(&self.limits)).await?;
            }
            Ok((txn, bound))
        })
        .await
    }

    /// Does something on an open pool. An answer that is overdue closes that pool.
    async fn on_open<T, F>(&self, work: impl Fn(Arc<Opened>) -> F) -> Result<T, DbErr>
    where
        F: Future<Output = Result<T, DbErr>>,
    {
        let begun = now();
        loop {
            let opened = self.current();
            let within = acquired_within(&opened.db) + self.limits.answer();
            let mut doing = pin!(work(Arc::clone(&opened)));
            match tokio::time::timeout_at((begun + within).into(), doing.as_mut()).await {
                // Somebody else's answer was overdue at this very moment.
                Ok(Err(DbErr::ConnectionAcquire(_))) if opened.is_closed() => {}
                Ok(Err(error)) if refuses_options(&error) && !opened.plain => {
                    if !self.with_each.swap(true, Ordering::Relaxed) {
                        tracing::info!(
                            "the pooler before PostgreSQL takes no settings when a connection is opened; limits travel with \
                             each transaction instead, which `behind_pooler()` says from the beginning"
                        );
                    }
                    opened.close();
                }
                Ok(Err(error)) => {
                    if matches!(error, DbErr::ConnectionAcquire(_)) && opened.is_clogged() {
                        opened.close();
                    }
                    return Err(error);
                }
                Ok(Ok(done)) => return Ok(done),
                Err(_) => {
                    opened.close();
                    return Err(overdue("the database", within));
                }
            }
        }
    }

    /// Gives the pool that is open, or opens one.
    fn current(&self) -> Arc<Opened> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        match &*opened {
            Some(opened) if !opened.is_closed() => Arc::clone(opened),
            _ => Arc::clone(opened.insert(Arc::new(self.open()))),
        }
    }

    /// Makes a pool of the driver; its connections are opened when they are needed.
    fn open(&self) -> Opened {
        let plain = self.with_each.load(Ordering::Relaxed);
        let db = match self.dialect {
            #[cfg(feature = "sqlx-postgres")]
            Dialect::Postgres if is_real(&self.application) => {
                let pool = self.application.get_postgres_connection_pool();
                let mut options = (*pool.connect_options()).clone();
                if !plain {
                    let mut settings = self.dialect.limits_of_session(&self.limits);
                    if options.get_options().is_some_and(|set| set.contains("statement_timeout")) {
                        settings.retain(|(name, _)| *name != "statement_timeout");
                    }
                    options = options.options(settings);
                }
                let mut pool = pool.options().clone().min_connections(0);
                if let Some(most) = self.most {
                    pool = pool.max_connections(most);
                }
                Some(sea_orm::SqlxPostgresConnector::from_sqlx_postgres_pool(
                    pool.connect_lazy_with(options),
                ))
            }
            #[cfg(feature = "sqlx-mysql")]
            Dialect::MySql | Dialect::MariaDb if is_real(&self.application) => {
                let pool = self.application.get_mysql_connection_pool();
                let options = (*pool.connect_options()).clone();
                let settings = self.dialect.limits_of_transaction(&self.limits);
                let mut made =
                    pool.options().clone().min_connections(0).after_connect(move |conn, _| {
                        let settings = settings.clone();
                        Box::pin(async move {
                            use sea_orm::sqlx::{AssertSqlSafe, raw_sql};
                            raw_sql(AssertSqlSafe(settings)).execute(conn).await.map(|_| ())
                        })
                    });
                if let Some(most) = self.most {
                    made = made.max_connections(most);
                }
                Some(sea_orm::SqlxMySqlConnector::from_sqlx_mysql_pool(
                    made.connect_lazy_with(options),
                ))
            }
            // A file has no network, and a database in memory is there for its own pool only.
            _ => None,
        };
        let shared = db.is_none();
        let db = db.unwrap_or_else(|| self.application.clone());
        Opened {
            db,
            shared,
            plain: plain || shared,
            closed: AtomicBool::new(false),
            lent: AtomicUsize::new(0),
        }
    }
}

/// Tells whether a connection is one of a driver, and not a mock of it.
pub(super) fn is_real(db: &DatabaseConnection) -> bool {
    !db.is_mock_connection()
}

/// Tells for how long a free connection of a pool is waited for.
fn acquired_within(db: &DatabaseConnection) -> Duration {
    match db.get_database_backend() {
        _ if !is_real(db) => ACQUIRED_WITHIN,
        #[cfg(feature = "sqlx-postgres")]
        DbBackend::Postgres => db.get_postgres_connection_pool().options().get_acquire_timeout(),
        #[cfg(feature = "sqlx-mysql")]
        DbBackend::MySql => db.get_mysql_connection_pool().options().get_acquire_timeout(),
        #[cfg(feature = "sqlx-sqlite")]
        DbBackend::Sqlite => db.get_sqlite_connection_pool().options().get_acquire_timeout(),
        _ => ACQUIRED_WITHIN,
    }
}

/// Tells whether a pooler has refused the settings with which a connection was to be opened.
fn refuses_options(error: &DbErr) -> bool {
    let (DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))) = error
    else {
        return false;
    };
    error.as_database_error().is_some_and(|e| e.message().contains("startup parameter"))
}

impl Opened {
    fn lend(self: &Arc<Self>) -> Lent {
        self.lent.fetch_add(1, Ordering::Relaxed);
        Lent(Arc::clone(self))
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Closes it: connections that are given back from now on are closed. The future that is dropped would wait for them.
    fn close(&self) {
        if self.shared || self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        match self.db.get_database_backend() {
            #[cfg(feature = "sqlx-postgres")]
            DbBackend::Postgres => drop(self.db.get_postgres_connection_pool().close()),
            #[cfg(feature = "sqlx-mysql")]
            DbBackend::MySql => drop(self.db.get_mysql_connection_pool().close()),
            _ => {}
        }
    }

    /// Tells whether connections are in use that no transaction has: they hang on their way back.
    fn is_clogged(&self) -> bool {
        let (size, idle): (u32, usize) = match self.db.get_database_backend() {
            _ if self.shared => return false,
            #[cfg(feature = "sqlx-postgres")]
            DbBackend::Postgres => {
                let pool = self.db.get_postgres_connection_pool();
                (pool.size(), pool.num_idle())
            }
            #[cfg(feature = "sqlx-mysql")]
            DbBackend::MySql => {
                let pool = self.db.get_mysql_connection_pool();
                (pool.size(), pool.num_idle())
            }
            _ => return false,
        };
        usize::try_from(size).unwrap_or(0).saturating_sub(idle) > self.lent.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl ConnectionTrait for WorkPool {
    fn get_database_backend(&self) -> DbBackend {
        self.application.get_database_backend()
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        self.on_open(|opened| {
            let stmt = stmt.clone();
            async move { opened.db.execute_raw(stmt).await }
        })
        .await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.on_open(|opened| async move { opened.db.execute_unprepared(sql).await }).await
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.on_open(|opened| {
            let stmt = stmt.clone();
            async move { opened.db.query_one_raw(stmt).await }
        })
        .await
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.on_open(|opened| {
            let stmt = stmt.clone();
            async move { opened.db.query_all_raw(stmt).await }
        })
        .await
    }
}

impl std::fmt::Debug for WorkPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkPool").field("limits", &self.limits).finish_non_exhaustive()
    }
}
