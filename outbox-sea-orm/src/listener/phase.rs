//! The phases of a transaction's end, in which listeners run.

/// How a transaction ended.
///
/// ```
/// # use outbox_sea_orm::prelude::*;
/// fn is_certain(outcome: Outcome) -> bool {
///     matches!(outcome, Outcome::Committed | Outcome::RolledBack)
/// }
/// assert!(!is_certain(Outcome::Unknown)); // the response to COMMIT was lost
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Data and events are in the database.
    Committed,
    /// Nothing is.
    RolledBack,
    /// COMMIT was sent, and the response was lost.
    Unknown,
}

/// A phase in which listeners of an event type run.
///
/// ```
/// # use outbox_sea_orm::prelude::*;
/// # #[derive(Clone, serde::Serialize, serde::Deserialize, OutboxEvent)]
/// # #[outbox(type = "order.placed", topic = "orders")]
/// # struct OrderPlaced { #[outbox(key)] order_id: i64 }
/// async fn check_stock(order: OrderPlaced) -> Result<(), BoxError> {
///     if order.order_id < 0 { Err("there is no such order".into()) } else { Ok(()) }
/// }
/// # async fn example(db: sea_orm::DatabaseConnection) -> Result<(), OutboxError> {
/// let outbox = Outbox::builder(db).listen(Phase::BeforeCommit, check_stock).build().await?;
/// # let _ = outbox;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Inside the transaction; an error rolls it back.
    BeforeCommit,
    /// After the data and the events are in the database.
    AfterCommit,
    /// After nothing was saved: an error, a panic, a dropped future.
    AfterRollback,
    /// After either, and when the outcome is unknown.
    AfterCompletion,
}

impl Phase {
    /// Tells whether the phase runs after an outcome.
    pub(crate) const fn runs_after(self, outcome: Outcome) -> bool {
        matches!(
            (self, outcome),
            (Self::AfterCompletion, _)
                | (Self::AfterCommit, Outcome::Committed)
                | (Self::AfterRollback, Outcome::RolledBack)
        )
    }
}
