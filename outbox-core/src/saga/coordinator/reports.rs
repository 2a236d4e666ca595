//! What the coordinator logs of sagas: failed attempts, the first at once and further ones once a
//! minute; each saga that starts compensating or waits for a lock.

use super::worker::Worker;
use crate::{
    event::SagaId,
    failure::{BackgroundWork, Report, ReportBook},
    runtime::now,
    saga::{
        plan::StepFailure,
        state::Instance,
        store::{DefinitionId, OpenSaga, SagaClaim, SagaStore},
    },
};
use std::{sync::Arc, time::Duration};

/// A step of a definition, or its compensation.
type StepKey = (Arc<str>, Arc<str>, bool);

/// The reports of failed and slow steps.
#[derive(Debug, Default)]
pub(crate) struct SagaReports {
    steps: ReportBook<StepKey>,
    /// Attempts that take long.
    slow: ReportBook<StepKey>,
    /// The coordinator's own work.
    pub(super) work: BackgroundWork,
}

impl<S: SagaStore> Worker<S> {
    /// Logs a failed attempt.
    pub(super) fn report_failure(
        &self,
        claim: &SagaClaim,
        open: &OpenSaga,
        step: &Arc<str>,
        undo: bool,
        failure: &StepFailure,
    ) {
        let (name, correlation) = (&claim.definition.0, &*open.correlation);
        let (next, error) = match failure {
            StepFailure::Retry(error) => ("the coordinator retries the step by its policy", error),
            StepFailure::Abort(reason) => ("the coordinator does not retry the step", reason),
            StepFailure::Stop(reason) => ("the saga is stuck", reason),
        };
        let report = match failure {
            // An abort is no fault of the step; another line says that the saga compensates or is
            // stuck. Where branches of a group abort at once, it names the first.
            StepFailure::Abort(_) => None,
            _ => self.reports.steps.failed((name.clone(), step.clone(), undo), error, now()),
        };
        match report {
            Some(Report::Repeated { failures, within }) => {
                tracing::warn!(
                    name = &**name,
                    step = &**step,
                    undo,
                    failures,
                    ?within,
                    error,
                    "further attempts of a step have failed"
                );
            }
            Some(_) => tracing::warn!(
                saga = %claim.id,
                name = &**name,
                correlation,
                step = &**step,
                undo,
                error,
                next,
                "a step has failed; further failures of it are summed up once a minute"
            ),
            None => tracing::debug!(
                saga = %claim.id,
                name = &**name,
                correlation,
                step = &**step,
                undo,
                error,
                next,
                "a step has failed"
            ),
        }
    }

    /// Tells whether the caller logs now that a step takes long: the first time at once; further
    /// times are summed up once a minute.
    pub(super) fn should_report_slow(
        &self,
        claim: &SagaClaim,
        step: &str,
        undo: bool,
        what: &str,
    ) -> bool {
        let key = (claim.definition.0.clone(), step.into(), undo);
        match self.reports.slow.failed(key.clone(), what, now()) {
            Some(Report::Repeated { failures, within }) => {
                report_slow(&key, failures, within, what);
                false
            }
            report => report.is_some(),
        }
    }

    /// Logs the failures that were only counted so far, where their minute is over.
    pub(super) fn report_due(&self) {
        for (key, report, what) in self.reports.slow.due(now()) {
            if let Report::Repeated { failures, within } = report {
                report_slow(&key, failures, within, &what);
            }
        }
        for ((name, step, undo), report, error) in self.reports.steps.due(now()) {
            if let Report::Repeated { failures, within } = report {
                tracing::warn!(
                    name = &*name,
                    step = &*step,
                    undo,
                    failures,
                    ?within,
                    error,
                    "further attempts of a step have failed"
                );
            }
        }
    }

    /// Logs after the transaction's commit that a saga starts compensating, or waits for an entity
    /// that another saga has locked.
    pub(super) fn report_change(
        &self,
        tx: &S::Tx,
        (id, definition): (SagaId, &DefinitionId),
        open: &OpenSaga,
        after: &Instance,
    ) {
        let (before, name, correlation) =
            (&open.instance, definition.0.clone(), open.correlation.clone());
        if after.backward && !before.backward {
            let reason = after.reason.clone().unwrap_or_default();
            let (name, correlation) = (name.clone(), correlation.clone());
            let log = move || {
                let (name, correlation) = (&*name, &*correlation);
                tracing::info!(saga = %id, name, correlation, reason, "a saga starts compensating");
            };
            self.store.after_commit(tx, Box::new(log));
        }
        for progress in &after.steps {
            let Some(blocked_on) = progress.blocked_on.clone() else { continue };
            let known = before.step(&progress.step).and_then(|known| known.blocked_on.as_ref());
            if known.is_some_and(|known| known.entity == blocked_on.entity) {
                continue;
            }
            let (name, correlation, step) =
                (name.clone(), correlation.clone(), progress.step.clone());
            let log = move || {
                let (name, correlation, holder) = (&*name, &*correlation, &*blocked_on.holder);
                tracing::info!(saga = %id, name, correlation, step, holder, "a saga waits for an entity that another saga has locked");
            };
            self.store.after_commit(tx, Box::new(log));
        }
    }
}

fn report_slow((name, step, undo): &StepKey, times: u64, within: Duration, what: &str) {
    tracing::warn!(
        name = &**name,
        step = &**step,
        undo,
        times,
        ?within,
        what,
        "further attempts of a step take long"
    );
}
