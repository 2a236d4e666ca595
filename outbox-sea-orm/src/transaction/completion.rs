//! The end of a transaction: COMMIT or ROLLBACK, then the phases after it, to their end whoever waits for them.

use super::{
    Ledger, OutboxTransaction, Outcome, Shared, onward::Onward, open::within, prompt::Prompt,
    savepoint::still_nested, state::FrameId,
};
use crate::{
    Outbox,
    error::{Effect, OutboxError},
    listener::{Heard, TIME_LIMIT, limited},
    pool::Bound,
};
use outbox_core::runtime::fault::{FaultPoint, reach};
use sea_orm::DatabaseTransaction;
use std::sync::Arc;
use tokio::runtime::Handle;
use tracing::Instrument;

impl OutboxTransaction {
    /// Commits: runs the phase before commit, writes the events, sends COMMIT, wakes the relay, runs the phases after it.
    ///
    /// On a nested transaction it only merges into the transaction around it.
    ///
    /// # Errors
    /// Whatever hinders it, everything is rolled back then; only after [`OutboxError::OutcomeUnknown`] it may be committed.
    ///
    /// # Cancel safety
    /// Dropped before COMMIT is sent, everything is rolled back; after that, commit and phases go on without the caller.
    pub async fn commit(self) -> Result<(), OutboxError> {
        if self.is_nested() {
            return self.release().await;
        }
        if let Err(error) = self.prepare().await {
            self.end_unsaved().await;
            return Err(still_nested(error));
        }
        let runtime = self.seat.runtime.clone();
        let Some(shared) = self.dissolve() else { return Err(OutboxError::StillNested) };
        Onward::new(send_commit(shared), runtime).await
    }

    /// Rolls back: data and events are gone.
    ///
    /// # Errors
    /// [`OutboxError::Database`] when the database did not answer; it rolls back by itself then.
    ///
    /// # Cancel safety
    /// Dropped, it rolls back all the same.
    pub async fn rollback(self) -> Result<(), OutboxError> {
        if self.is_nested() {
            return self.undo().await;
        }
        let runtime = self.seat.runtime.clone();
        let Some(shared) = self.dissolve() else { return Ok(()) };
        Onward::new(send_rollback(shared), runtime).await
    }

    /// Rolls back on the way out with an error that says more than the rollback's own.
    pub(crate) async fn end_unsaved(self) {
        if let Err(error) = self.rollback().await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a rollback was not answered"
            );
        }
    }

    /// Everything that comes before COMMIT and may still fail.
    async fn prepare(&self) -> Result<(), OutboxError> {
        let shared = &self.shared;
        let mut told = 0;
        loop {
            drop(shared.turn(0).await?);
            let (hooks, (news, behind)) = {
                let mut state = shared.ledger.lock();
                let frame = state.frame(0)?;
                frame.check()?;
                (std::mem::take(&mut frame.hooks.before_commit), frame.heard_from(told))
            };
            if hooks.is_empty() && news.is_empty() {
                break;
            }
            for hook in hooks {
                let ran =
                    limited("a hook before commit", Some(TIME_LIMIT), within(self, hook(self)))
                        .await;
                ran.map_err(OutboxError::BeforeCommit)?;
            }
            told = behind;
            for heard in news {
                within(self, heard.before_commit()).await.map_err(OutboxError::BeforeCommit)?;
            }
        }
        self.verify().await?;
        let events = {
            let mut state = shared.ledger.lock();
            let frame = state.frame(0)?;
            frame.check()?;
            frame.take_events()
        };
        if !events.is_empty() {
            shared.outbox.write(&Prompt(self), events).await?;
            shared.ledger.lock().note_written();
        }
        reach(FaultPoint::BeforeCommit);
        Ok(())
    }

    /// Takes what the handle shared with others; `None` while a nested handle is alive, whose drop rolls back.
    fn dissolve(self) -> Option<Shared> {
        let Self { shared, mut seat } = self;
        let shared = Arc::into_inner(shared)?;
        seat.taken = false;
        Some(shared)
    }
}

async fn send_commit(shared: Shared) -> Result<(), OutboxError> {
    let (txn, ledger, outbox, bound) = shared.part().await?;
    let answer = bound.answer("COMMIT", txn.commit()).await;
    let outcome = match answer.as_ref().map_err(Effect::of) {
        Ok(()) => Outcome::Committed,
        Err(Effect::Lost) => Outcome::Unknown,
        Err(_) => Outcome::RolledBack,
    };
    if outcome == Outcome::Committed {
        reach(FaultPoint::AfterCommit);
    }
    if let Err(error) = &answer {
        ledger.lock().note(Err(error));
    }
    if outcome != Outcome::RolledBack && ledger.lock().wrote() {
        outbox.wake();
    }
    conclude(&ledger, outcome).await;
    answer.map_err(if outcome == Outcome::Unknown {
        OutboxError::OutcomeUnknown
    } else {
        OutboxError::Commit
    })
}

async fn send_rollback(shared: Shared) -> Result<(), OutboxError> {
    let (txn, ledger, _, bound) = shared.part().await?;
    let answer = bound.answer("ROLLBACK", txn.rollback()).await;
    conclude(&ledger, Outcome::RolledBack).await;
    Ok(answer?)
}

/// Runs what follows the end: hooks, then listeners in the order of the events.
async fn conclude(ledger: &Ledger, outcome: Outcome) {
    let left = ledger.lock().end();
    for heard in left.run_hooks(outcome) {
        heard.after(outcome).await;
    }
}

/// Gives up a frame whose handle is gone. Its listeners run on a task, for a drop cannot wait.
pub(super) fn give_up(id: FrameId, ledger: &Ledger, runtime: &Handle) {
    let left = ledger.lock().abandon(id);
    let heard: Vec<Heard> = left
        .run_hooks(Outcome::RolledBack)
        .into_iter()
        .filter(|heard| heard.follows(Outcome::RolledBack))
        .collect();
    if heard.is_empty() {
        return;
    }
    let tell = async move {
        for heard in heard {
            heard.after(Outcome::RolledBack).await;
        }
    };
    runtime.spawn(tell.in_current_span());
}

impl Shared {
    /// Waits for the last statement and gives the driver's transaction.
    async fn part(self) -> Result<(DatabaseTransaction, Ledger, Outbox, Bound), OutboxError> {
        if let Err(error) = self.take_turn().await.map(drop) {
            conclude(&self.ledger, Outcome::RolledBack).await;
            return Err(error);
        }
        let Self { lane, txn, ledger, outbox, held } = self;
        drop(held);
        let bound = lane.bound().clone();
        drop(lane);
        // Only statements hold it, and the last one has ended.
        Ok((Arc::into_inner(txn).ok_or(OutboxError::StillNested)?, ledger, outbox, bound))
    }
}
