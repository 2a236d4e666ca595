//! One pool of the driver, of which a transaction begins on any connection that works.

use super::{
    error_class::{DbErrorClass, classify, response_timeout},
    run_to_completion::RunToCompletion,
};
use crate::dialect::{PoolOptions, TxEffect, close_pool, used_connections};
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbErr, TransactionOptions, TransactionTrait,
};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// A pool of the driver, until a response on it is overdue.
pub(super) struct OpenPool {
    pub(super) db: DatabaseConnection,
    /// Whether it is the application's, where the database needs no second one.
    pub(super) shared: bool,
    /// Whether its connections are opened without settings, since a pooler refuses them.
    pub(super) without_settings: bool,
    closed: AtomicBool,
    /// Transactions that are open on it.
    in_use: AtomicUsize,
    /// How often one has begun or ended on it.
    turnover: AtomicUsize,
}

/// How long work on a pool may take.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    pub(super) within: Duration,
    pub(super) until: Instant,
}

impl Bound {
    /// Gives one that is so much longer.
    pub(super) fn and(self, longer: Duration) -> Self {
        Self { within: self.within + longer, until: self.until + longer }
    }
}

/// One transaction's share of a pool.
pub(super) struct PoolShare(Arc<OpenPool>);

impl Clone for PoolShare {
    fn clone(&self) -> Self {
        self.0.share()
    }
}

impl Drop for PoolShare {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Ordering::Relaxed);
        self.0.turnover.fetch_add(1, Ordering::Relaxed);
    }
}

impl PoolShare {
    /// Closes the pool.
    pub(super) fn close(&self) {
        self.0.close();
    }
}

impl OpenPool {
    /// Takes a pool of the driver.
    pub(super) fn new(db: DatabaseConnection, shared: bool, without_settings: bool) -> Self {
        let closed = AtomicBool::new(false);
        let (in_use, turnover) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { db, shared, without_settings, closed, in_use, turnover }
    }

    pub(super) fn share(self: &Arc<Self>) -> PoolShare {
        self.in_use.fetch_add(1, Ordering::Relaxed);
        self.turnover.fetch_add(1, Ordering::Relaxed);
        PoolShare(Arc::clone(self))
    }

    /// Opens a transaction. BEGIN runs to its end, within the bound, even when the caller is
    /// dropped: the driver forgets one that is dropped half-way, and whoever got its connection
    /// next would be inside a transaction before its own BEGIN. One that gets no connection since
    /// they are stuck closes the pool itself: its caller may be gone.
    ///
    /// # Cancel safety
    /// Dropped, it leaves no connection inside a transaction.
    pub(super) async fn begin(
        self: &Arc<Self>,
        options: TransactionOptions,
        bound: Bound,
    ) -> Result<DatabaseTransaction, DbErr> {
        let pool = Arc::clone(self);
        let begin = async move {
            let turnover = pool.turnover.load(Ordering::Relaxed);
            // Dropped after the pool is closed, so that its connection does not return to the pool.
            let mut begin = pin!(pool.send_begin(options));
            match tokio::time::timeout_at(bound.until.into(), begin.as_mut()).await {
                Ok(Err(error @ DbErr::ConnectionAcquire(_))) => {
                    if pool.is_stuck_since(turnover) {
                        pool.close();
                    }
                    Err(error)
                }
                Ok(begun) => begun,
                Err(_) => Err(pool.overdue(bound)),
            }
        };
        RunToCompletion::on_current(begin).await
    }

    /// Sends BEGIN.
    ///
    /// A pool of our own hands connections out without a ping, which would be a round trip before
    /// each transaction. So one may have been lost while it was idle: BEGIN fails on it, has done
    /// nothing, and is sent over another connection.
    async fn send_begin(&self, options: TransactionOptions) -> Result<DatabaseTransaction, DbErr> {
        let mut others = if self.shared { 0 } else { max_connections(&self.db) };
        loop {
            match self.db.begin_with_options(options).await {
                Err(error) if others > 0 && may_begin_elsewhere(&error) => others -= 1,
                begun => return begun,
            }
        }
    }

    /// Closes the pool, since a response is overdue; gives the error.
    pub(super) fn overdue(&self, bound: Bound) -> DbErr {
        self.close();
        response_timeout("the database", bound.within)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Closes the pool: it closes connections that return to it from now on.
    pub(super) fn close(&self) {
        if !self.shared && !self.closed.swap(true, Ordering::AcqRel) {
            close_pool(&self.db);
        }
    }

    /// Tells, after a wait for a connection in vain, whether connections of the pool hang: it counts
    /// more as used than transactions have, and none has begun or ended since the wait began.
    ///
    /// The first alone proves nothing: the driver counts a connection as used while it is opened, while
    /// BEGIN is under way on it, and while it is pinged on its return, and does not tell these from one
    /// that hangs. But in a saturated pool each of them follows the end of another transaction. Where
    /// some connections hang and others do not, the pool goes on with the others: it is closed when a
    /// wait sees no transaction on any of them, or when a response on one is overdue.
    fn is_stuck_since(&self, turnover: usize) -> bool {
        !self.shared
            && self.turnover.load(Ordering::Relaxed) == turnover
            && used_connections(&self.db) > self.in_use.load(Ordering::Relaxed)
    }
}

/// Tells the largest number of connections of a pool.
fn max_connections(db: &DatabaseConnection) -> u32 {
    PoolOptions::of(db).map_or(0, |options| options.max_connections)
}

/// Tells whether BEGIN failed for its connection alone, so that it may be sent over another one;
/// not whether the pool had none to give.
fn may_begin_elsewhere(error: &DbErr) -> bool {
    matches!(error, DbErr::Query(_) | DbErr::Exec(_))
        && is_of_connection(classify(error), TxEffect::of(error))
}

/// Tells whether a failure is one of the connection. An answer can say so, too: MySQL ends a
/// session that was idle for `wait_timeout`, and answers the next statement with error 4031.
const fn is_of_connection(class: DbErrorClass, effect: TxEffect) -> bool {
    matches!(effect, TxEffect::Lost) || matches!(class, DbErrorClass::Unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::ErrorCode::{self, MySql, Postgres};

    #[test]
    fn a_begin_that_an_idle_or_ended_session_refuses_is_sent_over_another_connection() {
        let elsewhere = |code: ErrorCode<'_>| is_of_connection(code.class(), code.effect());
        for (code, expected) in [
            // Idle for `wait_timeout`, killed, shut down, gone away.
            (MySql(4031), true),
            (MySql(1927), true),
            (MySql(1053), true),
            (MySql(2006), true),
            (Postgres("57P01"), true),
            (Postgres("57P05"), true),
            (Postgres("08006"), true),
            // Inside a transaction already, a lock, a right: so on every connection.
            (MySql(1568), false),
            (MySql(1205), false),
            (MySql(1227), false),
            (Postgres("25001"), false),
            (Postgres("42501"), false),
        ] {
            assert_eq!(elsewhere(code), expected, "{code:?}");
        }
    }
}
