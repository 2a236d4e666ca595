//! Connections to the database that steps lose: one that is lost again, though a transaction could begin between, is the
//! step's own failure.
//!
//! A step may end its connection each time, by a value that is larger than a packet or by a fault of the server, and its saga
//! would go on with it for ever.

use super::{attempt::Task, held::Fell};
use crate::{
    failure::{FailureClass, full_text},
    outbox::StoreError,
    saga::plan::Failed,
};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// Which steps of one saga, doing or undoing, lost their connection when they were tried last.
#[derive(Debug, Default)]
pub(super) struct Losses(Mutex<BTreeSet<(usize, bool)>>);

impl Losses {
    /// Says what a step came to, after what it came to before.
    pub(super) fn judge(&self, task: Task, fell: Fell) -> Fell {
        let mut lost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (task.step, task.undo);
        match fell {
            Fell::Store(error) if error.class() == FailureClass::Unavailable => {
                if lost.insert(place) {
                    return Fell::Store(error);
                }
                lost.remove(&place);
                Fell::Failed(Failed::Retry(format!(
                    "it lost its connection to the database twice: {}",
                    full_text(&error)
                )))
            }
            fell => {
                lost.remove(&place);
                fell
            }
        }
    }

    /// Forgets all: steps succeeded, or the database was away.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Says what a failure to write down what a step did comes to: what is refused is the step's work.
pub(super) fn refused(error: StoreError) -> Fell {
    match error.class() {
        FailureClass::Permanent => Fell::Failed(Failed::Retry(full_text(&error))),
        FailureClass::Transient | FailureClass::Unavailable => Fell::Store(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Then {
        /// A step loses its connection; whether that is its failure.
        Lost(usize, bool),
        /// The database is busy.
        Busy(usize),
        /// The database was away, or a step succeeded.
        Forgets,
    }
    use Then::{Busy, Forgets, Lost};

    #[test]
    fn a_connection_that_a_step_loses_twice_in_a_row_is_its_failure() {
        for steps in [
            &[Lost(0, false), Lost(0, true), Lost(0, false), Lost(0, true)][..],
            &[Lost(0, false), Lost(1, false), Lost(1, true), Lost(0, true)],
            &[Lost(0, false), Busy(0), Lost(0, false)],
            &[Lost(0, false), Forgets, Lost(0, false)],
        ] {
            let losses = Losses::default();
            for (at, then) in steps.iter().enumerate() {
                let task = |step| Task { step, undo: false, beside: false };
                match *then {
                    Lost(step, expected) => {
                        let fell = losses
                            .judge(task(step), Fell::Store(StoreError::Unavailable("gone".into())));
                        assert_eq!(
                            matches!(fell, Fell::Failed(Failed::Retry(_))),
                            expected,
                            "{steps:?} at {at}"
                        );
                    }
                    Busy(step) => {
                        _ = losses
                            .judge(task(step), Fell::Store(StoreError::Busy("in the way".into())))
                    }
                    Forgets => losses.forget(),
                }
            }
        }
    }
}
