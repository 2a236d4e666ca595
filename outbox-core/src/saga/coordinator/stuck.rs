//! Notifies of sagas that are stuck.

use super::worker::Worker;
use crate::{
    event::SagaId,
    saga::{
        state::{Instance, SagaState},
        store::{DefinitionId, OpenSaga, SagaStore},
    },
};
use std::sync::Arc;

/// A saga that waits for an operator's decision.
///
/// ```
/// # use outbox_core::saga::StuckSaga;
/// fn alert(saga: &StuckSaga) -> String {
///     let doing = if saga.backward { "undo" } else { "do" };
///     format!("{} cannot {doing} {:?}: {}", saga.correlation, saga.step, saga.reason)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StuckSaga {
    /// The saga.
    pub id: SagaId,
    /// Its definition.
    pub definition: DefinitionId,
    /// Its correlation id.
    pub correlation: Arc<str>,
    /// The step at which it is stuck, or whose compensation failed, where a step is the cause.
    pub step: Option<String>,
    /// Whether it was compensating.
    pub backward: bool,
    /// Why.
    pub reason: String,
}

/// A listener for stuck sagas.
pub(crate) type StuckListener = Arc<dyn Fn(&StuckSaga) + Send + Sync>;

impl<S: SagaStore> Worker<S> {
    /// Logs after the transaction's commit that the saga is stuck, compensates, or waits for a
    /// lock; calls the listeners where it is stuck.
    pub(super) fn notify_if_stuck(
        &self,
        tx: &S::Tx,
        (id, definition): (SagaId, &DefinitionId),
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
        let logged = Arc::clone(&stuck);
        let log = move || {
            let StuckSaga { id, definition: (name, version), correlation, step, reason, .. } =
                &*logged;
            let (name, correlation) = (&**name, &**correlation);
            tracing::error!(saga = %id, name, version, correlation, step, reason, "a saga is stuck until an operator decides");
        };
        self.store.after_commit(tx, Box::new(log));
        // A hook for each listener, so that the panic of one leaves the others alone.
        for listener in &self.on_stuck {
            let (listener, stuck) = (Arc::clone(listener), Arc::clone(&stuck));
            self.store.after_commit(tx, Box::new(move || listener(&stuck)));
        }
    }
}
