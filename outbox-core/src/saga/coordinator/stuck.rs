//! Telling of sagas that are stuck.

use super::worker::Worker;
use crate::{
    event::SagaId,
    saga::{
        state::{Instance, SagaState},
        store::{Known, OpenSaga, SagaStore},
    },
};
use std::sync::Arc;

/// A saga that waits for somebody to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StuckSaga {
    /// The saga.
    pub id: SagaId,
    /// Its definition.
    pub definition: Known,
    /// What it is known by.
    pub correlation: Arc<str>,
    /// The step at which it is stuck, or whose compensation is, where it is one.
    pub step: Option<String>,
    /// Whether it was going back.
    pub backward: bool,
    /// Why.
    pub reason: String,
}

/// Somebody who wants to be told.
pub(crate) type StuckListener = Arc<dyn Fn(&StuckSaga) + Send + Sync>;

impl<S: SagaStore> Worker<S> {
    /// Tells after the transaction's commit what a saga has come to by it, where people should know: that it is stuck, turns
    /// back, or waits for a lock.
    pub(super) fn tell_if_stuck(
        &self,
        tx: &S::Tx,
        (id, definition): (SagaId, &Known),
        open: &OpenSaga,
        after: &Instance,
    ) {
        self.report_change(tx, (id, definition), open, after);
        if after.state != SagaState::Stuck || open.instance.state == SagaState::Stuck {
            return;
        }
        let stuck = StuckSaga {
            id,
            definition: definition.clone(),
            correlation: Arc::clone(&open.correlation),
            step: after.stuck_at.clone(),
            backward: after.backward,
            reason: after.reason.clone().unwrap_or_default(),
        };
        let stuck = Arc::new(stuck);
        let said = Arc::clone(&stuck);
        let say = move || {
            let StuckSaga { id, definition: (name, version), correlation, step, reason, .. } =
                &*said;
            let (name, correlation) = (&**name, &**correlation);
            tracing::error!(saga = %id, name, version, correlation, step, reason, "a saga is stuck until an operator decides");
        };
        self.store.after_commit(tx, Box::new(say));
        // Each by itself, so that the panic of one is its own.
        for tell in &self.on_stuck {
            let (tell, stuck) = (Arc::clone(tell), Arc::clone(&stuck));
            self.store.after_commit(tx, Box::new(move || tell(&stuck)));
        }
    }
}
