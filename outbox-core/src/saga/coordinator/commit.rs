//! Writes and commits the transition of a saga.

use super::{
    hooks::AfterHook,
    transition::{LockPolls, Transition, transition},
    worker::{Advance, DriveOutcome, TestAction, TestPoint, Worker},
};
use crate::{
    outbox::{StoreError, roll_back},
    runtime::fault::{FaultPoint, fault_point},
    saga::{
        definition::Steps,
        record::Record,
        store::{Change, Due, OpenSaga, SagaClaim, SagaStore},
    },
};
use std::sync::Arc;

impl<S: SagaStore> Worker<S> {
    /// Writes records, with those that follow from them at once, runs the hook for the state after
    /// them, and commits. Where a hook fails, writes what follows from that instead.
    pub(super) async fn write(
        &self,
        tx: S::Tx,
        claim: &SagaClaim,
        steps: &Arc<dyn Steps<S::Tx>>,
        open: &OpenSaga,
        (records, polls): (Vec<Record>, LockPolls),
    ) -> Result<Advance, StoreError> {
        let Some(next) = self.transition(claim, steps, open, records, &polls) else {
            roll_back(&self.store, tx).await;
            return Ok(Advance::Done(DriveOutcome::Unreadable));
        };
        let data = next.records.iter().rev().find_map(Record::data);
        let change = (open, &next.instance, data);
        match self.run_hook(tx, claim, steps, change, &next.records).await {
            AfterHook::Continue(tx) => self.commit(tx, claim, open, &next).await,
            // In another transaction: an error inside the first one may have ended it, as every
            // error does at PostgreSQL, and what the hook has written must not stay.
            AfterHook::Failed(tx, records, polls) => {
                roll_back(&self.store, tx).await;
                let tx = self.store.begin().await?;
                let Some((tx, now)) = self.open(tx, claim).await? else {
                    return Ok(Advance::Done(DriveOutcome::Lost));
                };
                // Where a reply has come meanwhile, the coordinator plans again.
                let next = if now.seq == open.seq {
                    self.transition(claim, steps, &now, records, &polls)
                } else {
                    None
                };
                match next {
                    Some(next) => self.commit(tx, claim, &now, &next).await,
                    None => {
                        roll_back(&self.store, tx).await;
                        Ok(Advance::Continue)
                    }
                }
            }
        }
    }

    /// Applies records, and those that follow; `None` where one does not apply.
    fn transition(
        &self,
        claim: &SagaClaim,
        steps: &Arc<dyn Steps<S::Tx>>,
        open: &OpenSaga,
        records: Vec<Record>,
        polls: &LockPolls,
    ) -> Option<Transition> {
        let next =
            transition(steps.shape(), open, records, polls, self.lease, |hook| steps.has(hook));
        // Such a record would make the log invalid.
        next
            .inspect_err(|record| {
                tracing::error!(saga = %claim.id, record, "a record does not apply to the saga's state; nothing is written");
            })
            .ok()
    }

    /// Writes a transition and commits.
    async fn commit(
        &self,
        tx: S::Tx,
        claim: &SagaClaim,
        open: &OpenSaga,
        next: &Transition,
    ) -> Result<Advance, StoreError> {
        let Transition { instance, records, due } = next;
        let due = *due;
        let data = records.iter().rev().find_map(Record::data);
        let (before, seq) = (&open.instance, open.seq);
        let change = Change { id: claim.id, before, instance, data, seq, records, due };
        self.notify_if_stuck(&tx, (claim.id, &claim.definition), open, instance);
        self.count_change(&tx, &claim.definition.0, open, (instance, records.len()));
        if let Err(error) = self.store.record(&tx, &change).await {
            roll_back(&self.store, tx).await;
            return Err(error);
        }
        fault_point(FaultPoint::AfterStepRecord);
        if self.test_point(TestPoint::Written) == TestAction::Crash {
            return Ok(Advance::Done(DriveOutcome::Crashed));
        }
        self.store.commit(tx).await?;
        fault_point(FaultPoint::AfterStepCommit);
        if self.test_point(TestPoint::Committed(records)) == TestAction::Crash {
            return Ok(Advance::Done(DriveOutcome::Crashed));
        }
        for record in records {
            tracing::debug!(saga = %claim.id, record = record.kind(), step = record.step(), "a record of a saga was committed");
        }
        Ok(match due {
            Due::Leased(_) => Advance::Continue,
            Due::After(wait) => Advance::Done(DriveOutcome::Waiting(wait)),
            Due::Never => Advance::Done(DriveOutcome::Idle),
        })
    }
}
