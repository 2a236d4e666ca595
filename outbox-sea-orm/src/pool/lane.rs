//! One lane: one connection, used by one caller at a time, opened when first needed.
//!
//! A connection goes back to its lane only after it was used to the end. Whoever is cancelled on the way takes it along,
//! and the server ends what was open; so no half-done BEGIN can reach the next caller.

use super::{Arg, Link, connect::Opener, driver_error};
use outbox_core::{
    outbox::StoreError,
    runtime::{now, spawn},
};
use sea_orm::{QueryResult, sqlx};
use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, MutexGuard};

/// A connection that rested for longer is asked whether it is still there: servers and firewalls close idle ones.
const REST: Duration = Duration::from_secs(2);

/// One connection of the relay, used by one caller at a time.
pub(crate) struct Lane {
    opener: Arc<Opener>,
    resting: Mutex<Option<(Link, Instant)>>,
}

/// A transaction on a lane. Dropped without an end, it takes its connection along.
pub(crate) struct Tx<'a>(Taken<'a>);

/// The connection of a lane, in use.
struct Taken<'a> {
    patience: Duration,
    rest: MutexGuard<'a, Option<(Link, Instant)>>,
    link: Option<Link>,
    /// Whether a transaction may be open.
    open: bool,
}

impl Lane {
    pub(crate) fn new(opener: &Arc<Opener>) -> Self {
        Self { opener: Arc::clone(opener), resting: Mutex::new(None) }
    }

    /// Runs one statement by itself and gives its rows.
    pub(crate) async fn query(
        &self,
        sql: &Arc<str>,
        args: &[Arg<'_>],
    ) -> Result<Vec<QueryResult>, StoreError> {
        if self.opener.is_pooled() {
            let mut tx = self.begin().await?;
            let rows = tx.query(sql, args).await;
            return tx.end(rows).await;
        }
        let mut taken = self.take().await?;
        let rows = taken.query(sql, args).await;
        taken.rest_after(rows)
    }

    /// Runs one statement by itself and gives the number of rows that it touched.
    pub(crate) async fn execute(
        &self,
        sql: &Arc<str>,
        args: &[Arg<'_>],
    ) -> Result<u64, StoreError> {
        if self.opener.is_pooled() {
            let mut tx = self.begin().await?;
            let touched = tx.execute(sql, args).await;
            return tx.end(touched).await;
        }
        let mut taken = self.take().await?;
        let touched = taken.execute(sql, args).await;
        taken.rest_after(touched)
    }

    /// Opens a transaction that writes, READ COMMITTED.
    pub(crate) async fn begin(&self) -> Result<Tx<'_>, StoreError> {
        let mut taken = self.take().await?;
        taken.open = true;
        match taken.run(self.opener.begin()).await {
            Ok(()) => Ok(Tx(taken)),
            Err(error) => taken.rest_after(Err(error)),
        }
    }

    async fn take(&self) -> Result<Taken<'_>, StoreError> {
        let mut rest = self.resting.lock().await;
        let patience = self.opener.patience();
        let mut taken = match rest.take() {
            Some((link, since)) => {
                let mut taken = Taken { patience, rest, link: Some(link), open: false };
                if now().saturating_duration_since(since) < REST || taken.ping().await.is_ok() {
                    return Ok(taken);
                }
                taken
            }
            None => Taken { patience, rest, link: None, open: false },
        };
        taken.link = Some(bounded(patience, self.opener.open()).await?);
        Ok(taken)
    }
}

impl Tx<'_> {
    /// Runs a statement and gives its rows.
    pub(crate) async fn query(
        &mut self,
        sql: &Arc<str>,
        args: &[Arg<'_>],
    ) -> Result<Vec<QueryResult>, StoreError> {
        self.0.query(sql, args).await
    }

    /// Runs a statement and gives the number of rows that it touched.
    pub(crate) async fn execute(
        &mut self,
        sql: &Arc<str>,
        args: &[Arg<'_>],
    ) -> Result<u64, StoreError> {
        self.0.execute(sql, args).await
    }

    /// Commits after a success, rolls back after a failure.
    pub(crate) async fn end<T>(mut self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        let last = match outcome {
            Ok(_) => "COMMIT",
            // There is nobody to tell; the server ends it by itself.
            Err(StoreError::Unavailable(_)) => return outcome,
            Err(_) => "ROLLBACK",
        };
        match (outcome, self.0.run(last).await) {
            (outcome, Ok(())) => self.0.rest_after(outcome),
            (Ok(_), Err(error)) | (Err(error), Err(_)) => Err(error),
        }
    }
}

impl Taken<'_> {
    async fn query(
        &mut self,
        sql: &Arc<str>,
        args: &[Arg<'_>],
    ) -> Result<Vec<QueryResult>, StoreError> {
        bounded(self.patience, present(&mut self.link)?.query(sql, args)).await
    }

    async fn execute(&mut self, sql: &Arc<str>, args: &[Arg<'_>]) -> Result<u64, StoreError> {
        bounded(self.patience, present(&mut self.link)?.execute(sql, args)).await
    }

    async fn run(&mut self, sql: &str) -> Result<(), StoreError> {
        bounded(self.patience, present(&mut self.link)?.run(sql)).await
    }

    async fn ping(&mut self) -> Result<(), StoreError> {
        bounded(self.patience, present(&mut self.link)?.ping()).await
    }

    /// Lays the connection down for the next caller, unless the failure speaks of it.
    fn rest_after<T>(mut self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        if !matches!(outcome, Err(StoreError::Unavailable(_))) {
            self.open = false;
            // A shared one goes back to the application's pool at once.
            *self.rest =
                self.link.take().filter(|link| !link.is_shared()).map(|link| (link, now()));
        }
        outcome
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // The relay's own connection is closed, which rolls back. The application's may not be closed, since its memory
        // is the database; what was begun on it is rolled back before anybody else gets it.
        if let Some(mut link) = self.link.take().filter(|link| self.open && link.is_shared()) {
            let rollback = spawn(async move {
                if let Err(error) = link.run("ROLLBACK").await {
                    tracing::debug!(%error, "nothing was open on the shared connection");
                }
            });
            rollback.detach();
        }
    }
}

fn present(link: &mut Option<Link>) -> Result<&mut Link, StoreError> {
    link.as_mut().ok_or_else(|| StoreError::Unavailable("the connection is gone".into()))
}

/// Waits for an answer as long as patience lasts: a network that swallows everything never gives one.
async fn bounded<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, sqlx::Error>> + Send,
) -> Result<T, StoreError> {
    match tokio::time::timeout(patience, call).await {
        Ok(answer) => answer.map_err(driver_error),
        Err(late) => Err(StoreError::Unavailable(late.into())),
    }
}
