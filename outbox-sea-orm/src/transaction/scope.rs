//! How a function takes part in a transaction: it opens one, joins the caller's, or sets a
//! savepoint in it.

use super::{OutboxTransaction, open::joinable, refuse_in_trial};
use crate::{Outbox, error::OutboxError};
use sea_orm::{AccessMode, IsolationLevel, TransactionOptions};
use std::{fmt, ops::Deref, sync::Arc, time::Duration};

/// How long a second transaction of a task waits for a connection. The first one keeps its own
/// meanwhile, and a pool whose connections all belong to such first ones would never free one.
const SECOND_CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// The transaction argument of a `#[transactional_outbox]` function: an [`Outbox`], of which it
/// opens a transaction, or an [`OutboxTransaction`], which it joins.
///
/// Spring's `Propagation.REQUIRED`. A method that names its outbox in the attribute
/// (`tx = self.outbox`) joins the transaction of that outbox that is open around the call: of
/// another such function, [`Outbox::transaction`], a handler, a step of a saga, a hook before
/// commit. A spawned task joins nothing. Implemented by those two and by references to them.
///
/// ```
/// # use outbox_sea_orm::prelude::*;
/// # #[derive(Clone, serde::Serialize, serde::Deserialize, OutboxEvent)]
/// # #[outbox(type = "order.placed", topic = "orders")]
/// # struct OrderPlaced { #[outbox(key)] order_id: i64 }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let outbox = Outbox::builder(sea_orm::Database::connect("sqlite::memory:").await?).install().await?;
/// #[transactional_outbox]
/// async fn place(tx: &OutboxTransaction, order_id: i64) -> Result<(), OutboxError> {
///     tx.emit(OrderPlaced { order_id }).map(drop)
/// }
/// place(&outbox, 7).await?; // in a transaction of its own
/// let tx = outbox.begin().await?;
/// place(&tx, 8).await?; // in the caller's
/// tx.commit().await?;
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can neither begin nor join an outbox transaction",
    label = "neither an `Outbox` nor an `OutboxTransaction`",
    note = "pass `&outbox` to open a transaction, or the `tx` that you hold to join it"
)]
pub trait Transactional: fmt::Debug + Send + Sync {
    /// Tells which of the two it is.
    #[doc(hidden)]
    fn __source(&self) -> TxSource<'_>;
}

/// Where a transactional function takes its transaction from.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub enum TxSource<'a> {
    /// Opens transactions.
    Outbox(&'a Outbox),
    /// Opens transactions where no transaction of this outbox is open around the function.
    OutboxOrCurrent(&'a Outbox),
    /// Is the transaction.
    Transaction(&'a OutboxTransaction),
}

impl TxSource<'_> {
    /// Prefers the transaction of the outbox that is open around the function.
    #[must_use]
    pub const fn or_current(self) -> Self {
        match self {
            Self::Outbox(outbox) => Self::OutboxOrCurrent(outbox),
            other => other,
        }
    }
}

impl Transactional for Outbox {
    fn __source(&self) -> TxSource<'_> {
        TxSource::Outbox(self)
    }
}

impl Transactional for OutboxTransaction {
    fn __source(&self) -> TxSource<'_> {
        TxSource::Transaction(self)
    }
}

impl<T: Transactional + ?Sized> Transactional for &T {
    fn __source(&self) -> TxSource<'_> {
        (**self).__source()
    }
}

impl<T: Transactional + ?Sized> Transactional for Arc<T> {
    fn __source(&self) -> TxSource<'_> {
        (**self).__source()
    }
}

/// How a function takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Joins, or opens where there is none.
    Required,
    /// Joins by a savepoint, or opens where there is none.
    Nested,
    /// Joins, and fails where there is none.
    Mandatory,
    /// Opens one of its own, on another connection.
    RequiresNew,
}

/// How a function enters a transaction.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its name, for errors.
    pub function: &'static str,
    /// How it takes part.
    pub propagation: Propagation,
    /// The isolation that it needs.
    pub isolation: Option<IsolationLevel>,
    /// Whether a transaction that it opens only reads.
    pub read_only: bool,
}

/// One run of a transactional function. Dropped before its end, it rolls back a transaction that it
/// opened, and marks one that it joined as failed.
pub(crate) struct Scope<'a> {
    stage: Stage<'a>,
    function: &'static str,
}

enum Stage<'a> {
    Owned(Option<OutboxTransaction>),
    Joined { tx: Handle<'a>, ended: bool },
}

/// The transaction that is joined.
enum Handle<'a> {
    /// The caller passed it.
    Given(&'a OutboxTransaction),
    /// It is open around the function.
    Found(OutboxTransaction),
}

impl Deref for Handle<'_> {
    type Target = OutboxTransaction;

    fn deref(&self) -> &OutboxTransaction {
        match self {
            Self::Given(tx) => tx,
            Self::Found(tx) => tx,
        }
    }
}

/// The result of a run of a transactional function.
pub(crate) enum ScopeResult {
    /// As the function returned it.
    AsReturned,
    /// The function returned `Ok`, and the commit failed.
    NotCommitted(OutboxError),
}

impl<'a> Scope<'a> {
    /// Enters the transaction.
    pub(crate) async fn enter(
        source: TxSource<'a>,
        entry: Entry,
    ) -> Result<Scope<'a>, OutboxError> {
        let Entry { function, propagation, isolation, .. } = entry;
        let around = match source {
            TxSource::Outbox(_) => None,
            TxSource::OutboxOrCurrent(outbox) => joinable(outbox).map(Handle::Found),
            TxSource::Transaction(tx) => Some(Handle::Given(tx)),
        };
        let stage = match (source, propagation, around) {
            (TxSource::Transaction(tx), Propagation::RequiresNew, _) => {
                Stage::Owned(Some(open_second(tx.outbox(), entry).await?))
            }
            (TxSource::OutboxOrCurrent(outbox), Propagation::RequiresNew, around)
                if around.is_some() || outbox.transaction_tasks().has_current() =>
            {
                Stage::Owned(Some(open_second(outbox, entry).await?))
            }
            (_, Propagation::Nested, Some(tx)) => {
                check_isolation(&tx, isolation, function)?;
                Stage::Owned(Some(tx.begin().await?))
            }
            (_, Propagation::Required | Propagation::Mandatory, Some(tx)) => {
                check_isolation(&tx, isolation, function)?;
                Stage::Joined { tx, ended: false }
            }
            (
                TxSource::OutboxOrCurrent(outbox),
                Propagation::Required | Propagation::Nested | Propagation::Mandatory,
                None,
            ) if outbox.transaction_tasks().has_current() => {
                return Err(OutboxError::CannotJoin { function });
            }
            (_, Propagation::Mandatory, None) => return Err(OutboxError::Mandatory { function }),
            (TxSource::Outbox(outbox) | TxSource::OutboxOrCurrent(outbox), _, _) => {
                Stage::Owned(Some(open(outbox, entry).await?))
            }
            // The given transaction is open around the function.
            (TxSource::Transaction(tx), _, None) => {
                Stage::Joined { tx: Handle::Given(tx), ended: false }
            }
        };
        Ok(Self { stage, function })
    }

    /// The transaction that the function works in.
    pub(crate) fn tx(&self) -> &OutboxTransaction {
        match &self.stage {
            Stage::Owned(tx) => tx.as_ref().expect("taken only by the scope's end"),
            Stage::Joined { tx, .. } => tx,
        }
    }

    /// Ends the run: commits a transaction that it opened when the function returned `Ok`, else
    /// rolls it back. Tells whether repeating the whole may help.
    pub(crate) async fn finish(mut self, is_ok: bool) -> (ScopeResult, bool) {
        let owned = match &mut self.stage {
            Stage::Owned(tx) => tx.take(),
            Stage::Joined { tx, ended } => {
                *ended = true;
                if !is_ok {
                    tx.mark_failed(self.function);
                }
                return (ScopeResult::AsReturned, false);
            }
        };
        let Some(tx) = owned else { return (ScopeResult::AsReturned, false) };
        // Only a whole transaction can be repeated.
        let (whole, state) = (!tx.is_nested(), tx.shared.state.clone());
        if !is_ok {
            let conflict = state.lock().conflict();
            tx.rollback_quietly().await;
            return (ScopeResult::AsReturned, whole && conflict);
        }
        match tx.commit().await {
            Ok(()) => (ScopeResult::AsReturned, false),
            Err(error) => {
                // Never repeated: the first run may be committed, and only the caller knows whether
                // a dedup key makes the second one safe.
                let unknown = matches!(error, OutboxError::OutcomeUnknown(_));
                let conflict = state.lock().conflict();
                (ScopeResult::NotCommitted(error), whole && conflict && !unknown)
            }
        }
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        // Dropped half-way the function has done a part of its work, which the whole must not
        // commit.
        if let Stage::Joined { tx, ended: false } = &self.stage {
            tx.mark_failed(self.function);
        }
    }
}

impl OutboxTransaction {
    /// Notes that a joined function failed, so that this can only be rolled back.
    fn mark_failed(&self, function: &'static str) {
        self.shared.state.lock().fail(self.frame.id, function);
    }
}

async fn open(outbox: &Outbox, entry: Entry) -> Result<OutboxTransaction, OutboxError> {
    refuse_in_trial(outbox, entry.function)?;
    let access_mode = entry.read_only.then_some(AccessMode::ReadOnly);
    outbox
        .open(TransactionOptions {
            isolation_level: entry.isolation,
            access_mode,
            ..TransactionOptions::default()
        })
        .await
}

/// Opens a transaction while another one of the same task is open, which continues only after this
/// one.
async fn open_second(outbox: &Outbox, entry: Entry) -> Result<OutboxTransaction, OutboxError> {
    let function = entry.function;
    refuse_in_trial(outbox, function)?;
    if outbox.schema().dialect().has_one_writer() {
        return Err(OutboxError::SelfDeadlock { function });
    }
    match tokio::time::timeout(SECOND_CONNECTION_TIMEOUT, open(outbox, entry)).await {
        Ok(opened) => opened,
        Err(_) => {
            Err(OutboxError::NoSecondConnection { function, waited: SECOND_CONNECTION_TIMEOUT })
        }
    }
}

/// Refuses a joined transaction that was not opened with at least the wanted isolation; a default
/// may be weaker.
fn check_isolation(
    tx: &OutboxTransaction,
    wanted: Option<IsolationLevel>,
    function: &'static str,
) -> Result<(), OutboxError> {
    const fn strength(level: IsolationLevel) -> u8 {
        match level {
            IsolationLevel::ReadUncommitted => 0,
            IsolationLevel::ReadCommitted => 1,
            IsolationLevel::RepeatableRead => 2,
            IsolationLevel::Serializable => 3,
        }
    }
    let Some(wanted) = wanted else { return Ok(()) };
    if tx.shared.outbox.schema().dialect().has_one_writer() {
        return Ok(());
    }
    match tx.shared.state.lock().isolation() {
        Some(opened) if strength(opened) >= strength(wanted) => Ok(()),
        _ => Err(OutboxError::Isolation { function, wanted }),
    }
}
