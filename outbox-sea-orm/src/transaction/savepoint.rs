//! Nested transactions: savepoints of our own.
//!
//! SeaORM's nested `begin` is never used: when its future is dropped, the driver rolls back the
//! transaction around it.

use super::{FrameHandle, OutboxTransaction, Shared, state::FrameId, statement_queue::Turn};
use crate::error::OutboxError;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr};
use std::{mem, sync::Arc};

fn name(id: FrameId) -> String {
    format!("outbox_{id}")
}

/// Savepoint that is set before the driver's own transaction is exposed. When it is gone, the code
/// that got that transaction has ended more than it began.
fn exposed_name(id: FrameId) -> String {
    format!("outbox_exposed_{id}")
}

impl OutboxTransaction {
    /// Opens a nested transaction: a savepoint. Rolled back or dropped, it undoes its own
    /// statements and events; committed, it leaves them to this transaction. While it is open this
    /// handle takes no statements.
    ///
    /// ```
    /// # use outbox_sea_orm::{admin::AdminStore, prelude::*};
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, OutboxEvent)]
    /// # #[outbox(type = "order.placed", topic = "orders")]
    /// # struct OrderPlaced { #[outbox(key)] order_id: i64 }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let outbox = Outbox::builder(sea_orm::Database::connect("sqlite::memory:").await?).install().await?;
    /// let tx = outbox.begin().await?;
    /// tx.emit(OrderPlaced { order_id: 7 })?;
    /// let bonus = tx.begin().await?; // a savepoint
    /// bonus.emit(OrderPlaced { order_id: 8 })?;
    /// bonus.rollback().await?; // takes back what was done since
    /// tx.commit().await?;
    /// assert_eq!(outbox.stats().await?.pending, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`OutboxError::NestedOpen`] when one is open already, and the errors of [`emit`](Self::emit)
    /// and the database.
    ///
    /// # Cancel safety
    /// Dropped, it leaves this transaction as it was.
    pub async fn begin(&self) -> Result<Self, OutboxError> {
        let mut turn = self.shared.turn(self.frame.id).await?;
        let state = self.shared.state.clone();
        // In the bookkeeping before the statement: a caller that is dropped meanwhile leaves an
        // abandoned frame, and the next turn undoes its savepoint.
        let id = state.lock().open(self.frame.id)?;
        let frame = FrameHandle {
            id,
            state: state.clone(),
            runtime: self.frame.runtime.clone(),
            owned: true,
        };
        let nested = Self { shared: Arc::clone(&self.shared), frame };
        let set = move |txn: Arc<DatabaseTransaction>| async move {
            let result = txn.execute_unprepared(&format!("SAVEPOINT {}", name(id))).await;
            if result.is_err() {
                state.lock().never_opened(id);
            }
            result
        };
        self.shared.run_bounded(&mut turn, "a savepoint", set).await?;
        Ok(nested)
    }

    /// Gives the driver's own transaction, for code that names the concrete type.
    ///
    /// The outbox does not see its statements: if they end the transaction, by a dropped nested
    /// `begin` or a deadlock whose error is swallowed, the commit is refused.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # use sea_orm::{DatabaseTransaction, DbErr};
    /// async fn audit(txn: &DatabaseTransaction, text: &str) -> Result<(), DbErr> {
    ///     // .. older code that names the concrete type ..
    /// #   let _ = (txn, text);
    ///     Ok(())
    /// }
    /// # async fn example(tx: &OutboxTransaction) -> Result<(), OutboxError> {
    /// audit(tx.sea_orm().await?, "an order is placed").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`OutboxError::NestedOpen`], [`OutboxError::Ended`] and [`OutboxError::Aborted`] when the
    /// handle is not usable.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the transaction as it was.
    pub async fn sea_orm(&self) -> Result<&DatabaseTransaction, OutboxError> {
        let mut turn = self.shared.turn(self.frame.id).await?;
        let (id, state) = (self.frame.id, self.shared.state.clone());
        if let Some(effects) = state.lock().effects(id) {
            effects.changed(None, None);
        }
        if !*state.lock().frame(id)?.driver_exposed() {
            let set = move |txn: Arc<DatabaseTransaction>| async move {
                txn.execute_unprepared(&format!("SAVEPOINT {}", exposed_name(id))).await?;
                if let Ok(frame) = state.lock().frame(id) {
                    *frame.driver_exposed() = true;
                }
                Ok(())
            };
            self.shared.run_bounded(&mut turn, "a savepoint", set).await?;
        }
        Ok(&self.shared.txn)
    }

    /// Makes sure that no code has ended the transaction through the driver's own, and that the
    /// database would commit.
    pub(super) async fn verify(&self) -> Result<(), OutboxError> {
        let mut turn = self.shared.turn(self.frame.id).await?;
        let (id, state) = (self.frame.id, self.shared.state.clone());
        // Code that has the driver's transaction may have ended more than it began: this savepoint,
        // set before, is gone then, and nothing is committed in parts.
        if mem::take(state.lock().frame(id)?.driver_exposed()) {
            let release = format!("RELEASE SAVEPOINT {}", exposed_name(id));
            let released = self
                .shared
                .run_bounded(&mut turn, "a savepoint", |txn| async move {
                    txn.execute_unprepared(&release).await
                })
                .await;
            if let Err(error) = released {
                state.lock().abort(&error);
                return Err(OutboxError::Aborted(error));
            }
        }
        let commit_unverified = state.lock().commit_unverified();
        let dialect = self.shared.outbox.schema().dialect();
        // PostgreSQL answers the COMMIT of a failed transaction with ROLLBACK and no error. Any
        // statement before it fails instead; it is sent only where one has failed or has not ended.
        if commit_unverified && dialect.commit_may_silently_roll_back() {
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
        let id = self.frame.id;
        self.verify().await.map_err(nested_still_open)?;
        let mut turn = self.shared.turn(id).await?;
        let state = self.shared.state.clone();
        state.lock().frame(id).and_then(|frame| frame.check())?;
        // From here on a dropped caller changes nothing: the savepoint is released, with all that
        // belongs to it.
        self.frame.owned = false;
        let release = move |txn: Arc<DatabaseTransaction>| async move {
            let result = txn.execute_unprepared(&format!("RELEASE SAVEPOINT {}", name(id))).await;
            let mut locked = state.lock();
            match &result {
                Ok(_) => locked.released(id),
                Err(error) => locked.abort(error),
            }
            drop(locked);
            result
        };
        let result = self.shared.run_bounded(&mut turn, "a savepoint", release).await;
        drop(turn);
        result.map(|_| ()).map_err(|error| {
            self.frame.owned = true;
            OutboxError::Aborted(error)
        })
    }

    /// Rolls a savepoint back.
    pub(super) async fn undo(mut self) -> Result<(), OutboxError> {
        self.frame.abandon();
        let mut turn = self.shared.take_turn().await?;
        self.shared.undo_abandoned(&mut turn).await
    }
}

/// Gives the error of a commit that an open nested transaction refuses.
pub(super) fn nested_still_open(error: OutboxError) -> OutboxError {
    match error {
        OutboxError::NestedOpen => OutboxError::NestedStillOpen,
        other => other,
    }
}

impl FrameHandle {
    /// Abandons the frame now.
    fn abandon(&mut self) {
        if mem::take(&mut self.owned) {
            super::completion::abandon(self.id, &self.state, &self.runtime);
        }
    }
}

impl Shared {
    /// Undoes savepoints whose handles were dropped.
    ///
    /// # Cancel safety
    /// The next turn ends a statement that has begun.
    pub(super) async fn undo_abandoned(&self, turn: &mut Turn<'_>) -> Result<(), OutboxError> {
        loop {
            let Some(id) = self.state.lock().to_undo() else { return Ok(()) };
            let state = self.state.clone();
            let undo = move |txn: Arc<DatabaseTransaction>| async move {
                let name = name(id);
                let result: Result<_, DbErr> = async {
                    txn.execute_unprepared(&format!("ROLLBACK TO SAVEPOINT {name}")).await?;
                    txn.execute_unprepared(&format!("RELEASE SAVEPOINT {name}")).await
                }
                .await;
                let mut locked = state.lock();
                match &result {
                    Ok(_) => locked.undone(id),
                    Err(error) => locked.abort(error),
                }
                drop(locked);
                result
            };
            self.run_bounded(turn, "a savepoint", undo).await.map_err(OutboxError::Aborted)?;
        }
    }
}
