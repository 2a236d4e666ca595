//! Runs the hooks of a definition, in the transaction that records that a saga has ended or is
//! stuck.

use super::{transition::LockPolls, worker::Worker};
use crate::{
    event::CorrelationContext,
    runtime::{Watch, catch_unwind, watched},
    saga::{
        definition::{Hook, StepContext, Steps},
        json::Json,
        lock::AcquiredLocks,
        plan::StepFailure,
        record::Record,
        state::Instance,
        store::{OpenSaga, SagaClaim, SagaStore},
    },
};
use std::{sync::Arc, time::Duration};

/// The wait before a failed hook runs again.
const HOOK_RETRY: Duration = Duration::from_secs(5);

/// The outcome of a hook.
pub(super) enum AfterHook<Tx> {
    /// The transaction goes on, with what the hook has written.
    Continue(Tx),
    /// The hook has failed: the caller rolls the transaction back, and writes these records in
    /// another one.
    Failed(Tx, Vec<Record>, LockPolls),
}

impl<S: SagaStore> Worker<S> {
    /// Runs the hook for the state that a saga reaches by these records, where the definition has
    /// one.
    pub(super) async fn run_hook(
        &self,
        tx: S::Tx,
        claim: &SagaClaim,
        steps: &Arc<dyn Steps<S::Tx>>,
        (open, after, data): (&OpenSaga, &Instance, Option<&Json>),
        records: &[Record],
    ) -> AfterHook<S::Tx> {
        let Some(hook) =
            Hook::between(open.instance.state, after.state).filter(|hook| steps.has(*hook))
        else {
            return AfterHook::Continue(tx);
        };
        let (name, correlation) = (hook.name(), Arc::clone(&open.correlation));
        if let Ok(context) = CorrelationContext::new(Arc::clone(&correlation)) {
            self.store.correlate(&tx, context);
        }
        let (locks, reason) =
            (AcquiredLocks::new(Arc::new(self.store.clone())), after.reason.clone());
        let cx = StepContext::new(
            tx,
            claim.id,
            (correlation, Arc::clone(&name)),
            1,
            false,
            reason,
            locks,
        );
        let data = data.unwrap_or(&open.data);
        let work = self.store.within(&cx.tx, Box::pin(steps.call(hook, data, &cx)));
        let limit = self.step_timeout;
        let watch =
            Watch { limit, keep_alive_every: self.store.idle_limit().map(|limit| limit / 3) };
        let slow = |after| self.slow(claim, &name, false, after, limit);
        let ended =
            watched(catch_unwind(work), watch, slow, || self.store.keep_alive(&cx.tx)).await;
        let (tx, locked) = cx.into_parts();
        let failed = match ended {
            Ok(Ok(Ok(()))) if locked.is_empty() => return AfterHook::Continue(tx),
            Ok(Ok(Ok(()))) => {
                format!(
                    "a hook cannot lock: the saga has ended, and `{}` would stay locked",
                    locked[0]
                )
            }
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(panic)) => format!("a panic: {panic}"),
            Err(limit) => limit.to_string(),
        };
        // Stuck all the same: an operator has to see the saga, and a hook that is retried would
        // hide it from them for as long as it fails.
        if hook == Hook::Stuck {
            log_failed_stuck_hook(claim, open, &failed);
            return AfterHook::Failed(tx, records.to_vec(), LockPolls::default());
        }
        self.report_failure(claim, open, &name, false, &StepFailure::Retry(failed));
        AfterHook::Failed(tx, Vec::new(), LockPolls::after(HOOK_RETRY))
    }
}

/// Logs that the hook of a stuck saga has failed.
fn log_failed_stuck_hook(claim: &SagaClaim, open: &OpenSaga, error: &str) {
    let (name, correlation) = (&*claim.definition.0, &*open.correlation);
    tracing::error!(
        saga = %claim.id,
        name,
        correlation,
        error,
        "the hook `on_stuck` of a saga has failed: the saga is stuck all the same, and the hook is not run again"
    );
}
