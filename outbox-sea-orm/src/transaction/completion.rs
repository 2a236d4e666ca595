//! The end of a transaction: COMMIT or ROLLBACK, then the phases after it, which run to their end
//! also without a caller.

use super::{
    OutboxTransaction, Outcome, Shared, SharedState, bounded::Bounded, open::within,
    savepoint::nested_still_open, state::FrameId,
};
use crate::{
    Outbox,
    dialect::TxEffect,
    error::OutboxError,
    listener::{QueuedNotification, TIME_LIMIT, limited},
    pool::{ResponseDeadline, RunToCompletion},
};
use outbox_core::{
    event::CorrelationContext,
    runtime::fault::{FaultPoint, fault_point},
};
use sea_orm::DatabaseTransaction;
use std::{sync::Arc, time::Duration};
use tokio::runtime::Handle;
use tracing::Instrument;

impl OutboxTransaction {
    /// Commits: runs the phase before commit, writes the events, sends COMMIT, wakes the relay,
    /// runs the phases after it.
    ///
    /// On a nested transaction it only merges into the transaction around it.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # async fn example(tx: OutboxTransaction) -> Result<(), OutboxError> {
    /// match tx.commit().await {
    ///     Err(error @ OutboxError::OutcomeUnknown(_)) => {
    ///         println!("{error}: repeat with the same dedup key");
    ///         Err(error)
    ///     }
    ///     other => other, // an error: nothing was saved
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// On every error everything is rolled back; only after [`OutboxError::OutcomeUnknown`] it may
    /// be committed.
    ///
    /// # Cancel safety
    /// Dropped before COMMIT is sent, everything is rolled back; after that, commit and phases go
    /// on without the caller.
    pub async fn commit(self) -> Result<(), OutboxError> {
        if self.is_nested() {
            return self.release().await;
        }
        let prepared = self.prepare().await;
        self.commit_prepared(prepared).await
    }

    /// Commits as [`commit`](Self::commit) does, where what comes before COMMIT ends within a limit;
    /// else rolls back, behind a statement that is under way.
    pub(crate) async fn commit_within(self, limit: Duration) -> Result<(), OutboxError> {
        let prepared = self.prepare_within(limit).await;
        self.commit_prepared(prepared).await
    }

    /// Sends COMMIT, or rolls back where what comes before it has failed.
    async fn commit_prepared(self, prepared: Result<(), OutboxError>) -> Result<(), OutboxError> {
        if let Err(error) = prepared {
            self.rollback_quietly().await;
            return Err(nested_still_open(error));
        }
        let runtime = self.frame.runtime.clone();
        let Some(shared) = self.into_shared() else { return Err(OutboxError::NestedStillOpen) };
        RunToCompletion::new(send_commit(shared), runtime).await
    }

    /// Rolls back: data and events are gone.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # async fn example(tx: OutboxTransaction) -> Result<(), OutboxError> {
    /// tx.rollback().await // as dropping it does, but waits for the database
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`OutboxError::Database`] when the database did not respond; it rolls back by itself then.
    ///
    /// # Cancel safety
    /// Dropped, it rolls back all the same.
    pub async fn rollback(self) -> Result<(), OutboxError> {
        if self.is_nested() {
            return self.undo().await;
        }
        let runtime = self.frame.runtime.clone();
        let Some(shared) = self.into_shared() else { return Ok(()) };
        RunToCompletion::new(send_rollback(shared), runtime).await
    }

    /// Rolls back, and only logs an error of the rollback: the caller returns an error that says
    /// more.
    pub(crate) async fn rollback_quietly(self) {
        if let Err(error) = self.rollback().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "a rollback failed");
        }
    }

    /// Does what [`prepare`](Self::prepare) does, within a limit.
    pub(super) async fn prepare_within(&self, limit: Duration) -> Result<(), OutboxError> {
        match tokio::time::timeout(limit, self.prepare()).await {
            Ok(prepared) => prepared,
            Err(_) => {
                let text = format!("what comes before the commit did not end within {limit:?}");
                Err(OutboxError::BeforeCommit(text.into()))
            }
        }
    }

    /// Does everything that comes before COMMIT and may still fail.
    pub(super) async fn prepare(&self) -> Result<(), OutboxError> {
        let shared = &self.shared;
        let mut notified = 0;
        loop {
            // In a loop, since a hook may emit events and register hooks, and listeners may emit
            // too: each round takes what the last one added, until there is nothing new.
            drop(shared.turn(0).await?);
            let (hooks, (notifications, next)) = {
                let mut state = shared.state.lock();
                let frame = state.frame(0)?;
                frame.check()?;
                (std::mem::take(&mut frame.hooks.before_commit), frame.notifications_from(notified))
            };
            if hooks.is_empty() && notifications.is_empty() {
                break;
            }
            for (correlation, hook) in hooks {
                self.correlate_as(correlation);
                let ran =
                    limited("a hook before commit", Some(TIME_LIMIT), within(self, hook(self)))
                        .await;
                ran.map_err(OutboxError::BeforeCommit)?;
            }
            notified = next;
            for (correlation, notification) in notifications {
                self.correlate_as(correlation);
                within(self, notification.before_commit())
                    .await
                    .map_err(OutboxError::BeforeCommit)?;
            }
        }
        // After the hooks, whose statements may have failed, and before the events, which are
        // written last: so writers of one key that `emit` are in order by their row locks.
        self.verify().await?;
        let events = {
            let mut state = shared.state.lock();
            let frame = state.frame(0)?;
            frame.check()?;
            frame.take_events()
        };
        if !events.is_empty() {
            shared.outbox.write(&Bounded(self), events).await?;
            shared.state.lock().note_written();
        }
        fault_point(FaultPoint::BeforeCommit);
        Ok(())
    }

    /// Sets the correlation that was kept for a hook or a listener.
    fn correlate_as(&self, kept: Option<CorrelationContext>) {
        if let Some(correlation) = kept {
            self.correlate(correlation);
        }
    }

    /// Takes the state that handles share; `None` while a nested handle is alive, whose drop rolls
    /// back.
    fn into_shared(self) -> Option<Shared> {
        let Self { shared, mut frame } = self;
        let shared = Arc::into_inner(shared)?;
        frame.owned = false;
        Some(shared)
    }
}

async fn send_commit(shared: Shared) -> Result<(), OutboxError> {
    let (txn, state, outbox, deadline) = shared.into_parts().await?;
    let result = deadline.wait_for("COMMIT", txn.commit()).await;
    let outcome = match result.as_ref().map_err(TxEffect::of) {
        Ok(()) => Outcome::Committed,
        // COMMIT was sent, so a lost connection tells nothing: neither the phase after a commit nor
        // that after a rollback may run.
        Err(TxEffect::Lost) => Outcome::Unknown,
        Err(_) => Outcome::RolledBack,
    };
    if outcome == Outcome::Committed {
        fault_point(FaultPoint::AfterCommit);
    }
    if let Err(error) = &result {
        state.lock().note(Err(error));
    }
    // Also when the outcome is unknown: a wake in vain costs one read, and a missing one the wait
    // for the next poll.
    if outcome != Outcome::RolledBack && state.lock().wrote() {
        outbox.wake();
    }
    run_after_phases(&state, outcome).await;
    result.map_err(if outcome == Outcome::Unknown {
        OutboxError::OutcomeUnknown
    } else {
        OutboxError::Commit
    })
}

async fn send_rollback(shared: Shared) -> Result<(), OutboxError> {
    let (txn, state, _, deadline) = shared.into_parts().await?;
    let result = deadline.wait_for("ROLLBACK", txn.rollback()).await;
    run_after_phases(&state, Outcome::RolledBack).await;
    Ok(result?)
}

/// Runs the phases after the end: hooks, then listeners in the order of the events.
async fn run_after_phases(state: &SharedState, outcome: Outcome) {
    let ended = state.lock().end();
    let notifications = ended.run_hooks(outcome);
    if !notifications.is_empty() {
        // Apart, since few transactions have listeners: every commit would allocate room for them.
        Box::pin(notify(notifications, outcome)).await;
    }
}

async fn notify(notifications: Vec<QueuedNotification>, outcome: Outcome) {
    for notification in notifications {
        notification.after(outcome).await;
    }
}

/// Abandons a frame whose handle was dropped. Its listeners run on a task, for a drop cannot wait.
pub(super) fn abandon(id: FrameId, state: &SharedState, runtime: &Handle) {
    let ended = state.lock().abandon(id);
    let notifications: Vec<QueuedNotification> = ended
        .run_hooks(Outcome::RolledBack)
        .into_iter()
        .filter(|notification| notification.has_listener_after(Outcome::RolledBack))
        .collect();
    if notifications.is_empty() {
        return;
    }
    runtime.spawn(notify(notifications, Outcome::RolledBack).in_current_span());
}

impl Shared {
    /// Waits for the last statement, puts the session's limits back, and gives the driver's
    /// transaction with what its end needs.
    async fn into_parts(
        self,
    ) -> Result<(DatabaseTransaction, SharedState, Outbox, ResponseDeadline), OutboxError> {
        if let Err(error) = self.take_turn().await.map(drop) {
            run_after_phases(&self.state, Outcome::RolledBack).await;
            return Err(error);
        }
        let Self { mut queue, txn, state, outbox, is_work: _, registration } = self;
        drop(registration);
        if let Err(error) = queue.run_last().await {
            // The connection is closed, and COMMIT was not sent.
            state.lock().abort(&error);
            run_after_phases(&state, Outcome::RolledBack).await;
            return Err(OutboxError::Aborted(error));
        }
        let deadline = queue.deadline().clone();
        drop(queue);
        // Only statements share `txn`, and the last one has ended.
        Ok((Arc::into_inner(txn).ok_or(OutboxError::NestedStillOpen)?, state, outbox, deadline))
    }
}
