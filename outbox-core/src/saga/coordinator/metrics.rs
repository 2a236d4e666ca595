//! What a coordinator counts: sagas that begin, end and get stuck.

use super::worker::Worker;
use crate::{
    saga::{
        state::{Instance, SagaState},
        store::{OpenSaga, SagaStore},
    },
    telemetry::{Counter, HandleCache, Metrics, metric},
};

/// The number of the record with which the log of a saga begins: that of its start.
const START: u64 = 1;

/// The metrics of the sagas of a service.
#[derive(Default)]
pub(crate) struct SagaMetrics {
    metrics: Metrics,
    started: HandleCache<1, Counter>,
    ended: HandleCache<2, Counter>,
    stuck: HandleCache<1, Counter>,
}

impl SagaMetrics {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { metrics, ..Self::default() }
    }

    fn started(&self, saga: &str) -> Counter {
        self.started.get([saga], || self.metrics.counter(&metric::SAGAS_STARTED, [saga]))
    }

    fn ended(&self, saga: &str, outcome: &str) -> Counter {
        let labels = [saga, outcome];
        self.ended.get(labels, || self.metrics.counter(&metric::SAGAS_ENDED, labels))
    }

    fn stuck(&self, saga: &str) -> Counter {
        self.stuck.get([saga], || self.metrics.counter(&metric::SAGAS_STUCK, [saga]))
    }
}

impl<S: SagaStore> Worker<S> {
    /// Counts after the transaction's commit that records have let a saga begin, end or get stuck.
    pub(super) fn count_change(
        &self,
        tx: &S::Tx,
        saga: &str,
        open: &OpenSaga,
        (after, records): (&Instance, usize),
    ) {
        let (before, state) = (open.instance.state, after.state);
        let begins = open.seq == START && records > 0;
        let begun = begins.then(|| self.metrics.started(saga));
        let changed = (state != before).then_some(state);
        let reached = changed.and_then(|state| match state {
            SagaState::Completed | SagaState::Compensated => {
                Some(self.metrics.ended(saga, state.as_str()))
            }
            SagaState::Stuck => Some(self.metrics.stuck(saga)),
            SagaState::Running | SagaState::Compensating => None,
        });
        for counter in begun.into_iter().chain(reached) {
            self.store.after_commit(tx, Box::new(move || counter.add(1)));
        }
    }
}
