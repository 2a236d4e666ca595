//! What is logged of sagas: steps that fail, the first time at once and further ones once a minute; sagas that turn back, and
//! sagas that wait for a lock, each.

use super::worker::Worker;
use crate::{
    event::SagaId,
    failure::{BackgroundWork, Report, ReportBook},
    runtime::now,
    saga::{
        plan::Failed,
        state::Instance,
        store::{Claim, Known, OpenSaga, SagaStore},
    },
};
use std::{sync::Arc, time::Duration};

/// A step of a definition, or its compensation.
type StepKey = (Arc<str>, Arc<str>, bool);

/// What was logged of what fails.
#[derive(Debug, Default)]
pub(crate) struct SagaReports {
    steps: ReportBook<StepKey>,
    /// Those that take long.
    slow: ReportBook<StepKey>,
    /// The coordinator's own work.
    pub(super) work: BackgroundWork,
}

impl<S: SagaStore> Worker<S> {
    /// Logs an attempt of a step that has failed.
    pub(super) fn report_failure(&self, claim: &Claim, open: &OpenSaga, step: &Arc<str>, undo: bool, failed: &Failed) {
        let (name, correlation) = (&claim.definition.0, &*open.correlation);
        let (next, error) = match failed {
            Failed::Retry(error) => ("it is tried again by its retry policy", error),
            Failed::Abort(reason) => ("it is not tried again", reason),
            Failed::Stop(reason) => ("the saga is stuck", reason),
        };
        let report = match failed {
            // What it says is no failure; that the saga turns back, or is stuck, is told for it: of branches that say so at
            // once, for the first.
            Failed::Abort(_) => None,
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
                    "a step goes on failing"
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

    /// Tells whether it is to be told now that a step takes long: once at once, and then summed up once a minute.
    pub(super) fn tells_slow(&self, claim: &Claim, step: &str, undo: bool, what: &str) -> bool {
        let key = (claim.definition.0.clone(), step.into(), undo);
        match self.reports.slow.failed(key.clone(), what, now()) {
            Some(Report::Repeated { failures, within }) => {
                report_slow(&key, failures, within, what);
                false
            }
            report => report.is_some(),
        }
    }

    /// Logs failures of steps that were only counted so far, where their minute is over.
    pub(super) fn report_due(&self) {
        for (key, report, what) in self.reports.slow.due(now()) {
            if let Report::Repeated { failures, within } = report {
                report_slow(&key, failures, within, &what);
            }
        }
        for ((name, step, undo), report, error) in self.reports.steps.due(now()) {
            if let Report::Repeated { failures, within } = report {
                tracing::warn!(name = &*name, step = &*step, undo, failures, ?within, error, "a step goes on failing");
            }
        }
    }

    /// Logs after the transaction's commit that a saga turns back, or waits for an entity that another one has locked.
    pub(super) fn report_change(&self, tx: &S::Tx, (id, known): (SagaId, &Known), open: &OpenSaga, after: &Instance) {
        let (before, name, correlation) = (&open.instance, known.0.clone(), open.correlation.clone());
        if after.backward && !before.backward {
            let reason = after.reason.clone().unwrap_or_default();
            let (name, correlation) = (name.clone(), correlation.clone());
            let log = move || {
                let (name, correlation) = (&*name, &*correlation);
                tracing::info!(saga = %id, name, correlation, reason, "a saga turns back: what it has done is undone");
            };
            self.store.after_commit(tx, Box::new(log));
        }
        for progress in &after.steps {
            let Some(held) = progress.held.clone() else { continue };
            let known = before.step(&progress.step).and_then(|known| known.held.as_ref());
            if known.is_some_and(|known| known.entity == held.entity) {
                continue;
            }
            let (name, correlation, step) = (name.clone(), correlation.clone(), progress.step.clone());
            let log = move || {
                let (name, correlation, holder) = (&*name, &*correlation, &*held.holder);
                tracing::info!(saga = %id, name, correlation, step, holder, "a saga waits for an entity that another one has locked");
            };
            self.store.after_commit(tx, Box::new(log));
        }
    }
}

fn report_slow((name, step, undo): &StepKey, times: u64, within: Duration, what: &str) {
    tracing::warn!(name = &**name, step = &**step, undo, times, ?within, what, "a step goes on taking long");
}
