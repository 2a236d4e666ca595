//! How a function takes part in a transaction: it opens one, joins the caller's, or sets a savepoint in it.

use super::{OutboxTransaction, open::joinable};
use crate::{Outbox, error::OutboxError};
use sea_orm::{AccessMode, ConnectionTrait, DbBackend, IsolationLevel, TransactionOptions};
use std::{fmt, ops::Deref, sync::Arc, time::Duration};

/// How long a second transaction of a task waits for a connection: the first one keeps its own meanwhile, and a pool whose
/// connections are all kept so would never free one.
const BESIDE_WITHIN: Duration = Duration::from_secs(2);

/// What a `#[transactional_outbox]` function can be called with: an [`Outbox`], of which it opens a transaction, or an
/// [`OutboxTransaction`], which it joins.
///
/// Spring's `Propagation.REQUIRED`. A method that names its outbox in the attribute (`tx = self.outbox`) joins the transaction of
/// that outbox that is open around the call: of another such function, [`Outbox::transaction`], a handler, a step of a saga, a
/// hook before commit. A spawned task joins nothing. Implemented by those two and by references to them.
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
    /// Opens transactions where none of it is open around the function.
    Here(&'a Outbox),
    /// Is one.
    Transaction(&'a OutboxTransaction),
}

impl Origin<'_> {
    /// Of an outbox, the transaction is meant that is open around the function.
    #[must_use]
    pub const fn here(self) -> Self {
        match self {
            Self::Outbox(outbox) => Self::Here(outbox),
            other => other,
        }
    }
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
    /// Whether a transaction that it opens may only be read in.
    pub read_only: bool,
}

/// One run of a transactional function. Dropped before its end, it rolls back what it opened, or marks what it joined.
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
        let Entry { function, propagation, isolation, .. } = entry;
        let around = match origin {
            Origin::Outbox(_) => None,
            Origin::Here(outbox) => joinable(outbox).map(Handle::Found),
            Origin::Transaction(tx) => Some(Handle::Given(tx)),
        };
        let stage = match (origin, propagation, around) {
            (Origin::Transaction(tx), Propagation::RequiresNew, _) => {
                Stage::Owned(Some(open_beside(tx.outbox(), entry).await?))
            }
            (Origin::Here(outbox), Propagation::RequiresNew, around)
                if around.is_some() || outbox.holders().holds() =>
            {
                Stage::Owned(Some(open_beside(outbox, entry).await?))
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
                Origin::Here(outbox),
                Propagation::Required | Propagation::Nested | Propagation::Mandatory,
                None,
            ) if outbox.holders().holds() => {
                return Err(OutboxError::PassedBy { function });
            }
            (_, Propagation::Mandatory, None) => return Err(OutboxError::Mandatory { function }),
            (Origin::Outbox(outbox) | Origin::Here(outbox), _, _) => {
                Stage::Owned(Some(open(outbox, entry).await?))
            }
            // It is around the function.
            (Origin::Transaction(tx), _, None) => {
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
        if let Stage::Joined { tx, ended: false } = &self.stage {
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

async fn open(outbox: &Outbox, entry: Entry) -> Result<OutboxTransaction, OutboxError> {
    let access_mode = entry.read_only.then_some(AccessMode::ReadOnly);
    outbox
        .open(TransactionOptions {
            isolation_level: entry.isolation,
            access_mode,
            ..TransactionOptions::default()
        })
        .await
}

/// Opens a transaction while another one of the same task is open, which goes on only after this one.
async fn open_beside(outbox: &Outbox, entry: Entry) -> Result<OutboxTransaction, OutboxError> {
    let function = entry.function;
    if outbox.backend() == DbBackend::Sqlite {
        return Err(OutboxError::WaitsForItself { function });
    }
    match tokio::time::timeout(BESIDE_WITHIN, open(outbox, entry)).await {
        Ok(opened) => opened,
        Err(_) => Err(OutboxError::NoConnectionBeside { function, waited: BESIDE_WITHIN }),
    }
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
