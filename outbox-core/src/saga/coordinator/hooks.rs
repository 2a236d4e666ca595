//! Hooks of a definition, in the transaction that writes down how a saga has ended or that it is stuck.

use super::{worker::Worker, writing::Looks};
use crate::{
    event::Trail,
    runtime::{Watch, caught, watched},
    saga::{
        definition::{Hook, StepContext, Steps},
        json::Json,
        lock::Marker,
        plan::Failed,
        record::Record,
        state::Instance,
        store::{Claim, OpenSaga, SagaStore},
    },
};
use std::{sync::Arc, time::Duration};

/// How long a saga waits whose hook has failed, before it is run again.
const AGAIN: Duration = Duration::from_secs(5);

/// What follows from a hook.
pub(super) enum AfterHook<Tx> {
    /// The transaction goes on, with what the hook has written.
    Goes(Tx),
    /// It has failed, and the transaction is to be rolled back; then these are written in another one.
    Failed(Tx, Vec<Record>, Looks),
}

impl<S: SagaStore> Worker<S> {
    /// Runs the hook for what a saga comes to by these records, where there is one.
    pub(super) async fn run_hook(
        &self,
        tx: S::Tx,
        claim: &Claim,
        steps: &Arc<dyn Steps<S::Tx>>,
        (open, after, data): (&OpenSaga, &Instance, Option<&Json>),
        records: &[Record],
    ) -> AfterHook<S::Tx> {
        let Some(hook) =
            Hook::between(open.instance.state, after.state).filter(|hook| steps.has(*hook))
        else {
            return AfterHook::Goes(tx);
        };
        let (name, correlation) = (hook.name(), Arc::clone(&open.correlation));
        if let Ok(trail) = Trail::new(Arc::clone(&correlation)) {
            self.store.follow(&tx, trail);
        }
        let (marker, reason) = (Marker::new(Arc::new(self.store.clone())), after.reason.clone());
        let cx = StepContext::new(
            tx,
            claim.id,
            (correlation, Arc::clone(&name)),
            1,
            false,
            reason,
            marker,
        );
        let data = data.unwrap_or(&open.data);
        let work = self.store.within(&cx.tx, Box::pin(steps.call(hook, data, &cx)));
        let limit = self.step_timeout;
        let watch = Watch { limit, awake_every: self.store.idle_limit().map(|limit| limit / 3) };
        let slow = |after| self.slow(claim, &name, false, after, limit);
        let ended = watched(caught(work), watch, slow, || self.store.keep_awake(&cx.tx)).await;
        let (tx, locked) = cx.into_parts();
        let failed = match ended {
            Ok(Ok(Ok(()))) if locked.is_empty() => return AfterHook::Goes(tx),
            Ok(Ok(Ok(()))) => {
                format!(
                    "a hook locks nothing: the saga has ended, and nobody would unlock `{}`",
                    locked[0]
                )
            }
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(panic)) => format!("a panic: {panic}"),
            Err(limit) => limit.to_string(),
        };
        if hook == Hook::Stuck {
            let (name, correlation) = (&*claim.definition.0, &*open.correlation);
            tracing::error!(
                saga = %claim.id,
                name,
                correlation,
                error = failed,
                "the hook `on_stuck` of a saga has failed: the saga is stuck all the same, and the hook is not run again"
            );
            return AfterHook::Failed(tx, records.to_vec(), Looks::default());
        }
        self.report_failure(claim, open, &name, false, &Failed::Retry(failed));
        AfterHook::Failed(tx, Vec::new(), Looks::after(AGAIN))
    }
}
