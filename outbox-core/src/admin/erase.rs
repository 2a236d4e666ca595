//! The erasure of a person's data, found by key.

use super::{Bounded, OperatorNote};
use crate::outbox::StoreError;
use async_trait::async_trait;
use serde::Serialize;

/// What a table has of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableErasure {
    /// The table.
    pub table: String,
    /// Rows that an erasure deletes or empties, or that it has deleted or emptied.
    pub erased: u64,
    /// Rows that an erasure leaves, as they are still in use.
    pub left: Bounded,
}

/// What an erasure would do. It is not stored, and nothing is void when it has grown old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErasurePlan {
    /// The key.
    pub key: String,
    /// The tables, also those that have nothing of the key.
    pub tables: Vec<TableErasure>,
    /// What is left and until when, what cannot be found by a key, and which tables are scanned, in
    /// sentences.
    pub notes: Vec<String>,
}

/// Erases what is stored under a key: a person's, where the keys of events, the dedup keys of
/// requests and the correlation ids of sagas are persons.
///
/// | where | what an erasure does |
/// | --- | --- |
/// | archive, scheduled events | deletes the rows |
/// | dead letters | discards open ones, and deletes the content of all |
/// | deferred deliveries | deletes those that no instance runs |
/// | sagas | empties data, outputs, texts and log of those that have ended |
/// | responses | deletes the one whose dedup key is the key |
/// | events that wait | leaves them: they are still to be delivered |
///
/// A reply to a saga has the saga's id as its key. So the ids of the sagas that have ended count as
/// keys too; in the databases of other services they are erased by a call each.
///
/// Relays and consumers go on meanwhile. What they move from one table to another is erased, or
/// counted as left.
#[async_trait]
pub trait EraseStore: Send + Sync + 'static {
    /// Counts what an erasure would find. Reads whole tables where no index has the key, 5,000 rows
    /// a statement.
    async fn plan_erasure(&self, key: &str) -> Result<ErasurePlan, StoreError>;

    /// Erases what is stored under a key, at most 500 rows a transaction, with one row of the audit.
    /// Gives what it has erased and left, by table.
    ///
    /// # Errors
    /// [`StoreError`] of the transaction that failed; those before it stay done, and erasing again
    /// goes on, with another row of the audit.
    ///
    /// # Cancel safety
    /// Dropped, it has done whole transactions, and the audit says that it is running.
    async fn erase(&self, key: &str, note: &OperatorNote) -> Result<Vec<TableErasure>, StoreError>;
}
