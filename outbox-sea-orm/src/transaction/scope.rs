//! How a function takes part in a transaction: it opens one, joins the caller's, or sets a savepoint in it.

use super::OutboxTransaction;
use crate::{Outbox, error::OutboxError};
use sea_orm::{ConnectionTrait, DbBackend, IsolationLevel, TransactionOptions};
use std::{fmt, sync::Arc};

/// What a `#[transactional_outbox]` function can be called with: an [`Outbox`], of which it opens a transaction, or an
/// [`OutboxTransaction`], which it joins.
///
/// Spring's `Propagation.REQUIRED`. Implemented by those two and by references to them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can neither begin nor join an outbox transaction",
    label = "neither an `Outbox` nor an `OutboxTransaction`",
    note = "pass `&outbox` to open a transaction, or the `tx` that you hold to join it"
)]
pub trait Transactional: fmt::Debug + Send + Sync {
    /// Says which of the two it is.
    #[doc(hidden)]
    fn __origin(&self) -> Origin<'_>;
}

/// The two things that a transactional function can be called with.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    /// Opens transactions.
    Outbox(&'a Outbox),
    /// Is one.
    Transaction(&'a OutboxTransaction),
}

impl Transactional for Outbox {
    fn __origin(&self) -> Origin<'_> {
        Origin::Outbox(self)
    }
}

impl Transactional for OutboxTransaction {
    fn __origin(&self) -> Origin<'_> {
        Origin::Transaction(self)
    }
}

impl<T: Transactional + ?Sized> Transactional for &T {
    fn __origin(&self) -> Origin<'_> {
        (**self).__origin()
    }
}

impl<T: Transactional + ?Sized> Transactional for Arc<T> {
    fn __origin(&self) -> Origin<'_> {
        (**self).__origin()
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
    /// What it asks of the transaction.
    pub isolation: Option<IsolationLevel>,
}

/// One run of a transactional function. Dropped before its end, it rolls back what it opened, or marks what it joined.
pub(crate) struct Scope<'a> {
    stage: Stage<'a>,
    function: &'static str,
}

enum Stage<'a> {
    Owned(Option<OutboxTransaction>),
    Joined { tx: &'a OutboxTransaction, ended: bool },
}

/// How a run of a transactional function ended.
pub(crate) enum Ended {
    /// As it said.
    AsSaid,
    /// Otherwise: it said that it went well, and the commit failed.
    NotCommitted(OutboxError),
}

impl<'a> Scope<'a> {
    /// Enters.
    pub(crate) async fn enter(origin: Origin<'a>, entry: Entry) -> Result<Scope<'a>, OutboxError> {
        let Entry { function, propagation, isolation } = entry;
        let stage = match (origin, propagation) {
            (Origin::Outbox(_), Propagation::Mandatory) => return Err(OutboxError::Mandatory { function }),
            (Origin::Outbox(outbox), _) => Stage::Owned(Some(open(outbox, isolation).await?)),
            (Origin::Transaction(tx), Propagation::RequiresNew) => {
                Stage::Owned(Some(open(tx.outbox(), isolation).await?))
            }
            (Origin::Transaction(tx), Propagation::Nested) => {
                check_isolation(tx, isolation, function)?;
                Stage::Owned(Some(tx.begin().await?))
            }
            (Origin::Transaction(tx), Propagation::Required | Propagation::Mandatory) => {
                check_isolation(tx, isolation, function)?;
                Stage::Joined { tx, ended: false }
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

    /// Ends: commits what was opened when it went well, else rolls it back. Says whether repeating the whole may help.
    pub(crate) async fn finish(mut self, well: bool) -> (Ended, bool) {
        let owned = match &mut self.stage {
            Stage::Owned(tx) => tx.take(),
            Stage::Joined { tx, ended } => {
                *ended = true;
                if !well {
                    tx.mark_failed(self.function);
                }
                return (Ended::AsSaid, false);
            }
        };
        let Some(tx) = owned else { return (Ended::AsSaid, false) };
        // Only a whole transaction can be repeated.
        let (whole, ledger) = (!tx.is_nested(), tx.shared.ledger.clone());
        if !well {
            let conflict = ledger.lock().conflict();
            tx.end_unsaved().await;
            return (Ended::AsSaid, whole && conflict);
        }
        match tx.commit().await {
            Ok(()) => (Ended::AsSaid, false),
            Err(error) => {
                let unknown = matches!(error, OutboxError::OutcomeUnknown(_));
                let conflict = ledger.lock().conflict();
                (Ended::NotCommitted(error), whole && conflict && !unknown)
            }
        }
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        if let Stage::Joined { tx, ended: false } = self.stage {
            tx.mark_failed(self.function);
        }
    }
}

impl OutboxTransaction {
    /// Notes that a joined function failed, so that this can only be rolled back.
    fn mark_failed(&self, function: &'static str) {
        self.shared.ledger.lock().fail(self.seat.id, function);
    }
}

async fn open(outbox: &Outbox, isolation: Option<IsolationLevel>) -> Result<OutboxTransaction, OutboxError> {
    outbox.begin_with(TransactionOptions { isolation_level: isolation, ..TransactionOptions::default() }).await
}

/// A joined transaction must have been opened with at least the isolation that is asked for; a default may be weaker.
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
    // SQLite has one writer: everything is serializable.
    if ConnectionTrait::get_database_backend(tx) == DbBackend::Sqlite {
        return Ok(());
    }
    match tx.shared.ledger.lock().isolation() {
        Some(opened) if strength(opened) >= strength(wanted) => Ok(()),
        _ => Err(OutboxError::Isolation { function, wanted }),
    }
}
