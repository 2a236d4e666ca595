//! What a saga comes to, written and committed.

use super::{
    hooks::AfterHook,
    worker::{Advance, Moment, Strike, Worker, WorkerEnd},
    writing::{Composed, Looks, compose},
};
use crate::{
    outbox::StoreError,
    runtime::fault::{FaultPoint, reach},
    saga::{
        definition::Steps,
        record::Record,
        store::{Change, Claim, Due, OpenSaga, SagaStore},
    },
};
use std::sync::Arc;

impl<S: SagaStore> Worker<S> {
    /// Writes records, with those that follow from them at once, runs the hook for what they come to, and commits. Where a
    /// hook fails, what follows from that is written in its place.
    pub(super) async fn write(
        &self,
        tx: S::Tx,
        claim: &Claim,
        steps: &Arc<dyn Steps<S::Tx>>,
        open: &OpenSaga,
        (records, looks): (Vec<Record>, Looks),
    ) -> Result<Advance, StoreError> {
        let Some(composed) = self.compose(claim, steps, open, records, &looks) else {
            self.roll_back(tx).await;
            return Ok(Advance::Ends(WorkerEnd::Broken));
        };
        let data = composed.records.iter().rev().find_map(Record::data);
        let comes_to = (open, &composed.instance, data);
        match self.run_hook(tx, claim, steps, comes_to, &composed.records).await {
            AfterHook::Goes(tx) => self.put(tx, claim, open, &composed).await,
            AfterHook::Failed(tx, records, looks) => {
                self.roll_back(tx).await;
                let tx = self.store.begin().await?;
                let Some((tx, now)) = self.open(tx, claim).await? else {
                    return Ok(Advance::Ends(WorkerEnd::Lost));
                };
                // An answer has come meanwhile: what follows is planned anew.
                let composed = if now.seq == open.seq {
                    self.compose(claim, steps, &now, records, &looks)
                } else {
                    None
                };
                match composed {
                    Some(composed) => self.put(tx, claim, &now, &composed).await,
                    None => {
                        self.roll_back(tx).await;
                        Ok(Advance::Goes)
                    }
                }
            }
        }
    }

    /// Puts records together with those that follow; `None` where one does not fit.
    fn compose(
        &self,
        claim: &Claim,
        steps: &Arc<dyn Steps<S::Tx>>,
        open: &OpenSaga,
        records: Vec<Record>,
        looks: &Looks,
    ) -> Option<Composed> {
        let composed =
            compose(steps.shape(), open, records, looks, self.lease, |hook| steps.has(hook));
        // Written, it would break the log.
        composed
            .inspect_err(|record| {
                tracing::error!(saga = %claim.id, record, "a record does not fit where the saga stands; nothing is written");
            })
            .ok()
    }

    /// Writes and commits.
    async fn put(
        &self,
        tx: S::Tx,
        claim: &Claim,
        open: &OpenSaga,
        composed: &Composed,
    ) -> Result<Advance, StoreError> {
        let Composed { instance, records, due } = composed;
        let due = *due;
        let data = records.iter().rev().find_map(Record::data);
        let (before, seq) = (&open.instance, open.seq);
        let change = Change { id: claim.id, before, instance, data, seq, records, due };
        self.tell_if_stuck(&tx, (claim.id, &claim.definition), open, instance);
        if let Err(error) = self.store.record(&tx, &change).await {
            self.roll_back(tx).await;
            return Err(error);
        }
        reach(FaultPoint::AfterStepRecord);
        if self.strike(Moment::Written) == Strike::Cut {
            return Ok(Advance::Ends(WorkerEnd::Cut));
        }
        self.store.commit(tx).await?;
        reach(FaultPoint::AfterStepCommit);
        if self.strike(Moment::Committed(records)) == Strike::Cut {
            return Ok(Advance::Ends(WorkerEnd::Cut));
        }
        for record in records {
            tracing::debug!(saga = %claim.id, record = record.kind(), step = record.step(), "a saga went on");
        }
        Ok(match due {
            Due::Held(_) => Advance::Goes,
            Due::After(wait) => Advance::Ends(WorkerEnd::Waits(wait)),
            Due::Never => Advance::Ends(WorkerEnd::Rests),
        })
    }
}
