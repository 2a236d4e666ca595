//! Connections to the database that steps lose: where a step loses one again, though a transaction
//! could begin in between, that is a failure of the step.
//!
//! A step may end its connection each time, by a value that is larger than a packet or by a fault
//! of the server. Without this its saga would attempt the step for ever.

use super::{attempt::Task, blocked::AttemptFailure};
use crate::{
    failure::{FailureClass, full_text},
    outbox::StoreError,
    saga::plan::StepFailure,
};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// The steps and compensations of one saga whose last attempts lost their connections.
#[derive(Debug, Default)]
pub(super) struct LostConnections(Mutex<BTreeSet<(usize, bool)>>);

impl LostConnections {
    /// Classifies a failed attempt by the one before it: a second lost connection in a row is a
    /// failure of the step.
    pub(super) fn classify(&self, task: Task, failure: AttemptFailure) -> AttemptFailure {
        let mut lost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (task.step, task.undo);
        match failure {
            AttemptFailure::Store(error) if error.class() == FailureClass::Unavailable => {
                if lost.insert(key) {
                    return AttemptFailure::Store(error);
                }
                lost.remove(&key);
                AttemptFailure::Failed(StepFailure::Retry(format!(
                    "it lost its connection to the database twice: {}",
                    full_text(&error)
                )))
            }
            failure => {
                lost.remove(&key);
                failure
            }
        }
    }

    /// Clears all: an attempt has succeeded, or the database was unavailable.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Classifies a failure to write a step's records: what the database rejects is a failure of the
/// step.
pub(super) fn write_failure(error: StoreError) -> AttemptFailure {
    match error.class() {
        FailureClass::Permanent => AttemptFailure::Failed(StepFailure::Retry(full_text(&error))),
        FailureClass::Transient | FailureClass::Unavailable => AttemptFailure::Store(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Event {
        /// A step loses its connection; whether that is a failure of the step.
        Lost(usize, bool),
        /// The database is busy.
        Busy(usize),
        /// The database was unavailable, or a step succeeded.
        Cleared,
    }
    use Event::{Busy, Cleared, Lost};

    #[test]
    fn a_connection_that_a_step_loses_twice_in_a_row_is_its_failure() {
        for steps in [
            &[Lost(0, false), Lost(0, true), Lost(0, false), Lost(0, true)][..],
            &[Lost(0, false), Lost(1, false), Lost(1, true), Lost(0, true)],
            &[Lost(0, false), Busy(0), Lost(0, false)],
            &[Lost(0, false), Cleared, Lost(0, false)],
        ] {
            let connections = LostConnections::default();
            for (at, event) in steps.iter().enumerate() {
                let task = |step| Task { step, undo: false, parallel: false };
                match *event {
                    Lost(step, expected) => {
                        let failure = connections.classify(
                            task(step),
                            AttemptFailure::Store(StoreError::Unavailable("gone".into())),
                        );
                        assert_eq!(
                            matches!(failure, AttemptFailure::Failed(StepFailure::Retry(_))),
                            expected,
                            "{steps:?} at {at}"
                        );
                    }
                    Busy(step) => {
                        _ = connections.classify(
                            task(step),
                            AttemptFailure::Store(StoreError::Busy("in the way".into())),
                        )
                    }
                    Cleared => connections.clear(),
                }
            }
        }
    }
}
