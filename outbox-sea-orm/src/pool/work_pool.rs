//! Connections for the framework's own transactions: those of handlers, deferred deliveries, steps
//! of sagas and operators.
//!
//! They have the options of the application's pool, but a pool of their own, so that their limits
//! do not reach the application. A pool of the driver takes a connection back only after a ping,
//! which never ends where the network drops everything. So when a response is overdue the whole
//! pool is closed: statements on its other connections end as usual, the connections that hang are
//! closed, and the next transaction opens a new pool. Connections are handed out without a ping: see
//! `OpenPool::send_begin`. Whoever waits for a connection in vain closes the pool only where its
//! connections hang, and not where others had them: see `OpenPool::is_stuck_since`.

use super::{
    error_class::response_timeout,
    open_pool::{Bound, OpenPool, PoolShare},
    single_statement::SingleStatements,
};
use crate::dialect::{Dialect, PoolOptions, TransactionLimits};
use async_trait::async_trait;
use outbox_core::runtime::{Connections, now};
use sea_orm::{
    ConnAcquireErr, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    ExecResult, QueryResult, RuntimeErr, Statement, TransactionOptions,
};
use std::{
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Longest wait for a free connection where the pool does not tell its own: the drivers' default.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait for a response of the driver, and which pool to close when none comes.
#[derive(Clone)]
pub(crate) struct ResponseDeadline {
    within: Duration,
    /// Where the connection comes from; `None` for the application's pool, which is not closed.
    from: Option<PoolShare>,
}

impl ResponseDeadline {
    /// The deadline of a transaction on the application's own pool.
    pub(crate) const fn of_application(within: Duration) -> Self {
        Self { within, from: None }
    }

    /// Waits for a response. An overdue one closes the connection.
    ///
    /// # Cancel safety
    /// That of the work.
    pub(crate) async fn wait_for<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        // Dropped after the pool is closed, so that its connection does not return to the pool.
        let mut work = pin!(work);
        match tokio::time::timeout(self.within, work.as_mut()).await {
            Ok(response) => response,
            Err(_) => Err(self.close(what)),
        }
    }

    /// Gives the longest wait for a response.
    pub(crate) const fn within(&self) -> Duration {
        self.within
    }

    /// Closes the connection, since a response is overdue; gives the error.
    pub(crate) fn close(&self, what: &'static str) -> DbErr {
        if let Some(pool) = &self.from {
            pool.close();
        }
        response_timeout(what, self.within)
    }
}

/// A transaction that was begun, with what it needs until its end.
pub(crate) struct Begun {
    pub(crate) txn: DatabaseTransaction,
    pub(crate) deadline: ResponseDeadline,
    /// The statement that gives the session its usual limits back; `None` where it has them, or has
    /// them again when the transaction ends.
    pub(crate) reset: Option<String>,
}

/// Opens transactions for the framework, and runs its statements outside of one.
pub(crate) struct WorkPool {
    application: DatabaseConnection,
    dialect: Dialect,
    limits: TransactionLimits,
    /// Whether the limits travel with each transaction, since a setting of a connection would reach
    /// other clients.
    limits_per_transaction: AtomicBool,
    /// Largest number of connections; `None` for that of the application's pool.
    max_connections: Option<u32>,
    pool: Mutex<Option<Arc<OpenPool>>>,
}

impl WorkPool {
    /// Prepares connections to the database of a pool; opens none.
    pub(crate) fn new(
        application: &DatabaseConnection,
        dialect: Dialect,
        limits: TransactionLimits,
        behind_pooler: bool,
    ) -> Self {
        let limits_per_transaction = AtomicBool::new(behind_pooler && dialect.has_poolers());
        Self {
            application: application.clone(),
            dialect,
            limits,
            limits_per_transaction,
            max_connections: None,
            pool: Mutex::new(None),
        }
    }

    /// Limits the number of connections.
    pub(crate) fn at_most(mut self, connections: u32) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// Gives the number of its connections, to be shared out; `None` where it has no pool.
    pub(crate) fn connections(&self) -> Option<Connections> {
        let max_connections = self.max_connections.or_else(|| {
            PoolOptions::of(&self.application).map(|options| options.max_connections)
        })?;
        let of_application = !self.dialect.is_on_a_server();
        Some(Connections::new(max_connections as usize, of_application))
    }

    /// How long BEGIN of a transaction of the application may take.
    pub(crate) fn begins_within(&self) -> Duration {
        acquire_timeout(&self.application) + self.limits.response()
    }

    /// The deadline of a transaction of the application.
    pub(crate) fn deadline_of_application(&self) -> ResponseDeadline {
        ResponseDeadline::of_application(self.limits.response())
    }

    /// Tells the limits.
    pub(crate) const fn limits(&self) -> &TransactionLimits {
        &self.limits
    }

    /// Tells whether the server ends a transaction that is idle for too long.
    pub(crate) const fn ends_idle(&self) -> bool {
        self.dialect.ends_idle_transactions()
    }

    /// Gives what runs single statements that walk over a table: each may take as long as the server
    /// lets a statement run. Others may take as long as a response, and a slower one closes the pool.
    pub(crate) const fn long_statements(&self) -> SingleStatements<'_> {
        SingleStatements::new(self, self.limits.statement)
    }

    const fn short_statements(&self) -> SingleStatements<'_> {
        SingleStatements::new(self, Duration::ZERO)
    }

    /// Opens a transaction with the usual limits, or with others.
    ///
    /// # Errors
    /// The database's error, or that it did not respond.
    pub(crate) async fn begin(
        &self,
        options: TransactionOptions,
        limits: Option<TransactionLimits>,
    ) -> Result<Begun, DbErr> {
        self.run_on_pool(Duration::ZERO, |pool, bound| async move {
            let txn = pool.begin(options, bound).await?;
            let deadline =
                ResponseDeadline { within: self.limits.response(), from: Some(pool.share()) };
            let (set, reset) = self.statements(limits.as_ref());
            if !set.is_empty() {
                txn.execute_unprepared(&set).await?;
            }
            Ok(Begun { txn, deadline, reset })
        })
        .await
    }

    /// Writes the statement that sets the limits of one transaction, empty where they are set, and
    /// the one that puts the session's back.
    pub(super) fn statements(
        &self,
        limits: Option<&TransactionLimits>,
    ) -> (String, Option<String>) {
        let (dialect, usual) = (self.dialect, &self.limits);
        if self.limits_per_transaction.load(Ordering::Relaxed) {
            return (dialect.limits_of_transaction(limits.unwrap_or(usual)), None);
        }
        let Some(limits) = limits else { return (String::new(), None) };
        let reset = dialect.change_of_limits(limits, usual);
        let outlast = dialect.keeps_limits_of_transaction() && !reset.is_empty();
        (dialect.change_of_limits(usual, limits), outlast.then_some(reset))
    }

    /// Runs work on the open pool, which may take so much longer than a connection and a response. An
    /// overdue response closes that pool.
    pub(super) async fn run_on_pool<T, F>(
        &self,
        longer: Duration,
        work: impl Fn(Arc<OpenPool>, Bound) -> F,
    ) -> Result<T, DbErr>
    where
        F: Future<Output = Result<T, DbErr>>,
    {
        let begun = now();
        loop {
            let pool = self.current();
            let within = acquire_timeout(&pool.db) + self.limits.response();
            let bound = Bound { within, until: begun + within };
            let longest = bound.and(longer);
            let mut running = pin!(work(Arc::clone(&pool), bound));
            match tokio::time::timeout_at(longest.until.into(), running.as_mut()).await {
                // Another transaction has closed the pool meanwhile. Not where this one has waited as
                // long as a connection may take: a database that is away looks like stuck ones. And
                // not where less time is left than that: it would run out in the wait for a
                // connection, close the new pool under others, and be told as a slow response.
                Ok(Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)))
                    if pool.is_closed() && now() + acquire_timeout(&pool.db) < bound.until => {}
                Ok(Err(error)) if is_settings_refused(&error) && !pool.without_settings => {
                    if !self.limits_per_transaction.swap(true, Ordering::Relaxed) {
                        tracing::info!(
                            "the pooler before PostgreSQL takes no settings when a connection is opened; limits travel with \
                             each transaction instead, which `behind_pooler()` says from the beginning"
                        );
                    }
                    pool.close();
                }
                Ok(done) => return done,
                Err(_) => return Err(pool.overdue(longest)),
            }
        }
    }

    /// Gives the open pool, or opens one.
    pub(super) fn current(&self) -> Arc<OpenPool> {
        let mut current = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(pool) if !pool.is_closed() => Arc::clone(pool),
            _ => Arc::clone(current.insert(Arc::new(self.open()))),
        }
    }

    /// Makes a pool of the driver, which opens its connections when they are needed.
    fn open(&self) -> OpenPool {
        let without_settings = self.limits_per_transaction.load(Ordering::Relaxed);
        let db = self.dialect.own_pool(
            &self.application,
            &self.limits,
            !without_settings,
            self.max_connections,
        );
        let shared = db.is_none();
        let db = db.unwrap_or_else(|| self.application.clone());
        OpenPool::new(db, shared, without_settings || shared)
    }
}

/// Tells how long a pool waits for a free connection.
fn acquire_timeout(db: &DatabaseConnection) -> Duration {
    PoolOptions::of(db).map_or(ACQUIRE_TIMEOUT, |options| options.acquire_timeout)
}

/// Tells whether a pooler has refused the settings of a new connection.
fn is_settings_refused(error: &DbErr) -> bool {
    let (DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))) = error
    else {
        return false;
    };
    error.as_database_error().is_some_and(|e| e.message().contains("startup parameter"))
}

#[async_trait]
impl ConnectionTrait for WorkPool {
    fn get_database_backend(&self) -> DbBackend {
        self.application.get_database_backend()
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        self.short_statements().execute_raw(stmt).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.short_statements().execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.short_statements().query_one_raw(stmt).await
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.short_statements().query_all_raw(stmt).await
    }
}

impl std::fmt::Debug for WorkPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkPool").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sea_orm::{
        SqlxPostgresConnector,
        sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
    };
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };
    use tokio::{task::yield_now, time::timeout};

    /// What PostgreSQL sends to a client that it lets in without a password: so, its number, ready.
    const LETS_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x01Z\0\0\0\x05I";

    /// A pool of one connection to a server that lets everybody in and then says nothing more.
    fn pool_to_a_silent_server() -> WorkPool {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let port = listener.local_addr().expect("it listens").port();
        thread::spawn(move || {
            let mut open = Vec::new();
            for mut client in listener.incoming().flatten() {
                let mut startup = [0; 4096];
                if client.read(&mut startup).is_ok() && client.write_all(LETS_IN).is_ok() {
                    open.push(client);
                }
            }
        });
        let server = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(port)
            .username("shop")
            .ssl_mode(PgSslMode::Disable);
        let options =
            PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_millis(300));
        let db = SqlxPostgresConnector::from_sqlx_postgres_pool(options.connect_lazy_with(server));
        WorkPool::new(&db, Dialect::Postgres, TransactionLimits::default(), false)
    }

    async fn is_closed_soon(pool: &OpenPool) {
        let closed = async {
            while !pool.is_closed() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(10), closed).await.expect("its connections are stuck");
    }

    #[tokio::test]
    async fn a_pool_with_a_stuck_connection_is_closed_however_many_statements_wait_for_one() {
        let work = Arc::new(pool_to_a_silent_server());
        let pool = work.current();
        let _stuck = pool.db.get_postgres_connection_pool().acquire().await.expect("it lets in");
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let work = Arc::clone(&work);
                tokio::spawn(async move { work.execute_unprepared("SELECT 1").await.map(drop) })
            })
            .collect();
        is_closed_soon(&pool).await;
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn a_pool_on_which_transactions_end_stays_open_however_long_one_has_waited() {
        let work = Arc::new(pool_to_a_silent_server());
        let pool = work.current();
        // As a ping has it, or a BEGIN under way.
        let _used = pool.db.get_postgres_connection_pool().acquire().await.expect("it lets in");
        let waiting = tokio::spawn({
            let work = Arc::clone(&work);
            async move { work.execute_unprepared("SELECT 1").await.map(drop) }
        });
        yield_now().await;
        drop(pool.share());
        let told = timeout(Duration::from_secs(10), waiting).await.expect("its wait ends");
        let error = told.expect("no panic").unwrap_err();
        assert!(matches!(error, DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)), "{error}");
        assert!(!pool.is_closed(), "others had the connections meanwhile");
        let told = work.execute_unprepared("SELECT 1").await.map(drop);
        assert!(told.is_err() && pool.is_closed(), "nobody had them meanwhile");
    }

    #[tokio::test]
    async fn whoever_has_waited_for_a_stuck_connection_is_told_so_and_waits_for_no_other_pool() {
        let work = pool_to_a_silent_server();
        let pool = work.current();
        let _stuck = pool.db.get_postgres_connection_pool().acquire().await.expect("it lets in");
        let told = timeout(Duration::from_secs(10), work.execute_unprepared("SELECT 1")).await;
        let error = told.expect("at once, not after another BEGIN").map(drop).unwrap_err();
        assert!(matches!(error, DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)), "{error}");
        assert!(pool.is_closed());
    }

    #[tokio::test]
    async fn a_begin_whose_caller_is_gone_closes_a_pool_with_a_stuck_connection() {
        let work = Arc::new(pool_to_a_silent_server());
        let pool = work.current();
        let _stuck = pool.db.get_postgres_connection_pool().acquire().await.expect("it lets in");
        let caller = tokio::spawn({
            let work = Arc::clone(&work);
            async move { work.begin(TransactionOptions::default(), None).await.map(drop) }
        });
        yield_now().await;
        caller.abort();
        is_closed_soon(&pool).await;
    }
}
