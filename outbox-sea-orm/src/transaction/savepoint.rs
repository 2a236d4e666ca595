//! Nested transactions: savepoints of our own.
//!
//! SeaORM's nested `begin` is never used: when its future is dropped, the driver rolls back the transaction around it.

use super::{OutboxTransaction, Seat, Shared, lane::Turn, state::FrameId};
use crate::error::{OutboxError, commit_may_lie};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr};
use std::{mem, sync::Arc};

fn name(id: FrameId) -> String {
    format!("outbox_{id}")
}

/// Savepoint under which the driver's own transaction is lent out: when it is gone, somebody ended more than was theirs.
fn lent_name(id: FrameId) -> String {
    format!("outbox_lent_{id}")
}

impl OutboxTransaction {
    /// Opens a nested transaction: a savepoint. What is done and emitted through it goes when it is rolled back or
    /// dropped, and stays with this transaction when it is committed. Meanwhile this handle takes no statements.
    ///
    /// # Errors
    /// [`OutboxError::NestedOpen`] when one is open already, and what [`emit`](Self::emit) and the database may answer.
    ///
    /// # Cancel safety
    /// Dropped, it leaves this transaction as it was.
    pub async fn begin(&self) -> Result<Self, OutboxError> {
        let mut turn = self.shared.turn(self.seat.id).await?;
        let ledger = self.shared.ledger.clone();
        let id = ledger.lock().open(self.seat.id)?;
        let seat =
            Seat { id, ledger: ledger.clone(), runtime: self.seat.runtime.clone(), taken: true };
        let nested = Self { shared: Arc::clone(&self.shared), seat };
        let set = move |txn: Arc<DatabaseTransaction>| async move {
            let answer = txn.execute_unprepared(&format!("SAVEPOINT {}", name(id))).await;
            if answer.is_err() {
                ledger.lock().never_opened(id);
            }
            answer
        };
        self.shared.run_bounded(&mut turn, "a savepoint", set).await?;
        Ok(nested)
    }

    /// Gives the driver's own transaction, for code that names the concrete type.
    ///
    /// What is done through it is not watched: should it end the transaction, by a dropped nested `begin` or a deadlock
    /// whose error is swallowed, then the commit is refused.
    ///
    /// # Errors
    /// [`OutboxError::NestedOpen`], [`OutboxError::Over`] and [`OutboxError::Aborted`] when the handle is not usable.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the transaction as it was.
    pub async fn sea_orm(&self) -> Result<&DatabaseTransaction, OutboxError> {
        let mut turn = self.shared.turn(self.seat.id).await?;
        let (id, ledger) = (self.seat.id, self.shared.ledger.clone());
        if !*ledger.lock().frame(id)?.lent() {
            let set = move |txn: Arc<DatabaseTransaction>| async move {
                txn.execute_unprepared(&format!("SAVEPOINT {}", lent_name(id))).await?;
                if let Ok(frame) = ledger.lock().frame(id) {
                    *frame.lent() = true;
                }
                Ok(())
            };
            self.shared.run_bounded(&mut turn, "a savepoint", set).await?;
        }
        Ok(&self.shared.txn)
    }

    /// Makes sure that nothing was ended behind our back, and that the database would commit.
    pub(super) async fn verify(&self) -> Result<(), OutboxError> {
        let mut turn = self.shared.turn(self.seat.id).await?;
        let (id, ledger) = (self.seat.id, self.shared.ledger.clone());
        if mem::take(ledger.lock().frame(id)?.lent()) {
            let release = format!("RELEASE SAVEPOINT {}", lent_name(id));
            let kept = self
                .shared
                .run_bounded(&mut turn, "a savepoint", |txn| async move {
                    txn.execute_unprepared(&release).await
                })
                .await;
            if let Err(error) = kept {
                ledger.lock().abort(&error);
                return Err(OutboxError::Aborted(error));
            }
        }
        let suspect = ledger.lock().suspect();
        if suspect && commit_may_lie(self.shared.txn.get_database_backend()) {
            let probe = self.shared.run_bounded(&mut turn, "a savepoint", |txn| async move {
                txn.execute_unprepared("SELECT 1").await
            });
            probe.await.map_err(OutboxError::Commit)?;
        }
        Ok(())
    }

    /// Commits a savepoint into the transaction around it.
    pub(super) async fn release(mut self) -> Result<(), OutboxError> {
        if let Err(error) = self.try_release().await {
            if let Err(undo) = self.undo().await {
                tracing::debug!(
                    error = &undo as &dyn std::error::Error,
                    "a savepoint could not be rolled back"
                );
            }
            return Err(error);
        }
        Ok(())
    }

    async fn try_release(&mut self) -> Result<(), OutboxError> {
        let id = self.seat.id;
        self.verify().await.map_err(still_nested)?;
        let mut turn = self.shared.turn(id).await?;
        let ledger = self.shared.ledger.clone();
        ledger.lock().frame(id).and_then(|frame| frame.check())?;
        // From here on a dropped caller changes nothing: the savepoint is released, with all that belongs to it.
        self.seat.taken = false;
        let release = move |txn: Arc<DatabaseTransaction>| async move {
            let answer = txn.execute_unprepared(&format!("RELEASE SAVEPOINT {}", name(id))).await;
            let mut state = ledger.lock();
            match &answer {
                Ok(_) => state.released(id),
                Err(error) => state.abort(error),
            }
            answer
        };
        let answer = self.shared.run_bounded(&mut turn, "a savepoint", release).await;
        drop(turn);
        answer.map(|_| ()).map_err(|error| {
            self.seat.taken = true;
            OutboxError::Aborted(error)
        })
    }

    /// Rolls a savepoint back.
    pub(super) async fn undo(mut self) -> Result<(), OutboxError> {
        self.seat.give_up();
        let mut turn = self.shared.take_turn().await?;
        self.shared.settle(&mut turn).await
    }
}

/// A commit speaks of the nested transaction that hinders it in other words.
pub(super) fn still_nested(error: OutboxError) -> OutboxError {
    match error {
        OutboxError::NestedOpen => OutboxError::StillNested,
        other => other,
    }
}

impl Seat {
    /// Gives the frame up now.
    fn give_up(&mut self) {
        if mem::take(&mut self.taken) {
            super::completion::give_up(self.id, &self.ledger, &self.runtime);
        }
    }
}

impl Shared {
    /// Undoes savepoints whose handles are gone.
    ///
    /// # Cancel safety
    /// What is begun is ended at the next turn.
    pub(super) async fn settle(&self, turn: &mut Turn<'_>) -> Result<(), OutboxError> {
        loop {
            let Some(id) = self.ledger.lock().to_undo() else { return Ok(()) };
            let ledger = self.ledger.clone();
            let undo = move |txn: Arc<DatabaseTransaction>| async move {
                let name = name(id);
                let answer: Result<_, DbErr> = async {
                    txn.execute_unprepared(&format!("ROLLBACK TO SAVEPOINT {name}")).await?;
                    txn.execute_unprepared(&format!("RELEASE SAVEPOINT {name}")).await
                }
                .await;
                let mut state = ledger.lock();
                match &answer {
                    Ok(_) => state.undone(id),
                    Err(error) => state.abort(error),
                }
                answer
            };
            self.run_bounded(turn, "a savepoint", undo).await.map_err(OutboxError::Aborted)?;
        }
    }
}
