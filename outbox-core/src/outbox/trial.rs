//! What a store must do so that a handler can be tried: a transaction that is never committed, and
//! what was done in it.

use super::StoreError;
use crate::event::NewEvent;
use async_trait::async_trait;
use serde::Serialize;
use std::time::Duration;

/// What a try has changed in a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableChange {
    /// The table, as the statement names it, without quotes; `None` where the statement does not
    /// show it.
    pub table: Option<String>,
    /// How many rows were written or deleted; `None` if the store cannot know.
    pub rows: Option<u64>,
}

/// What was done in the transaction of a try, before it was rolled back.
#[derive(Debug, Clone, Default)]
pub struct TrialEffects {
    /// The tables that were changed through the transaction, by name; those that are not known last.
    pub tables: Vec<TableChange>,
    /// The events that a commit would have saved, in order.
    pub events: Vec<NewEvent>,
    /// Calls that were refused, as a rollback would not undo them: `Outbox::begin`, or the name of
    /// a function.
    pub refused: Vec<String>,
    /// Why the transaction could not have been committed: where it was asked to, or where a
    /// statement has ended it.
    pub not_committable: Option<String>,
    /// What the store could not show, check or roll back, in sentences.
    pub notes: Vec<String>,
}

/// Opens transactions in which handlers are tried.
#[async_trait]
pub trait TrialStore<Tx: Send + 'static>: Send + Sync + 'static {
    /// Opens a transaction that ends with [`end_trial`](Self::end_trial). It waits for locks for a
    /// second at most, and no statement lasts longer than `limit`. No hook runs after it.
    async fn begin_trial(&self, limit: Duration) -> Result<Tx, StoreError>;

    /// Rolls the transaction back, and gives what was done in it. With `is_done` it does first what
    /// a commit does before COMMIT, for as long as the `limit` of the try: hooks and listeners
    /// before the commit run, the events are written, and constraints are checked that wait for the
    /// commit.
    ///
    /// # Cancel safety
    /// Dropped, the transaction is rolled back all the same.
    async fn end_trial(&self, tx: Tx, is_done: bool) -> Result<TrialEffects, StoreError>;
}
