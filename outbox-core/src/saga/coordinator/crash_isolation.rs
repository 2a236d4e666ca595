//! Isolation of a saga whose last coordinator never released its claim: its last attempt may have
//! ended that process, and may end this one.
//!
//! The coordinator records the next attempt before it makes it. From the second such attempt on it
//! runs no other step at the same time, so that a step that only ran beside the cause of a crash
//! succeeds, and its saga is cleared.

use crate::saga::{definition::Shape, state::Instance, store::SagaClaim};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// How the coordinator runs the attempts of a saga.
pub(super) enum IsolationMode {
    /// Attempts are not recorded before, and run beside those of other sagas.
    Normal,
    /// The next attempt is recorded before it is made.
    RecordFirst,
    /// The next attempt is recorded before it is made, and no other step runs.
    Exclusive(ExclusivePermit),
    /// The attempt at this step is recorded.
    Recorded { step: usize, _permit: Option<ExclusivePermit> },
}

/// What the coordinator does next with a saga.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextAction {
    /// Run, or undo, these steps.
    Run(Vec<usize>),
    /// Record that the attempt at this step starts.
    RecordAttempt(usize),
    /// Wait for the exclusive permit.
    WaitForPermit,
}

impl IsolationMode {
    pub(super) const fn of(claim: &SagaClaim) -> Self {
        if claim.taken_over { Self::RecordFirst } else { Self::Normal }
    }

    /// Decides what the coordinator does next where these steps are planned. Of a group only one
    /// step is attempted in isolation.
    pub(super) fn next(
        &self,
        shape: &Shape,
        instance: &Instance,
        planned: Vec<usize>,
    ) -> NextAction {
        let unfinished = |step: &usize| instance.unfinished_attempts(&shape.steps[*step].name) > 0;
        // Of a group the step with an unfinished attempt comes first: it is the one in which the
        // process may have crashed.
        let isolated = planned.iter().copied().find(unfinished);
        match (self, isolated.or(planned.first().copied())) {
            (Self::Recorded { step, .. }, _) if planned.contains(step) => {
                NextAction::Run(vec![*step])
            }
            (Self::Exclusive(_), Some(step)) => NextAction::RecordAttempt(step),
            _ if isolated.is_some() => NextAction::WaitForPermit,
            (Self::RecordFirst, Some(step)) => NextAction::RecordAttempt(step),
            _ => NextAction::Run(planned),
        }
    }

    /// Tells whether it has the exclusive permit.
    pub(super) const fn is_exclusive(&self) -> bool {
        matches!(self, Self::Exclusive(_) | Self::Recorded { _permit: Some(_), .. })
    }

    pub(super) fn permit_acquired(&mut self, permit: ExclusivePermit) {
        *self = Self::Exclusive(permit);
    }

    pub(super) fn attempt_recorded(&mut self, step: usize) {
        *self = match std::mem::replace(self, Self::Normal) {
            Self::Exclusive(permit) => Self::Recorded { step, _permit: Some(permit) },
            _ => Self::Recorded { step, _permit: None },
        };
    }
}

/// Lets a coordinator run the attempt of one suspect saga, or those of all others at the same time.
#[derive(Debug, Clone, Default)]
pub(crate) struct IsolationGate(Arc<RwLock<()>>);

/// While this is held, the coordinator runs no other attempt.
pub(super) struct ExclusivePermit {
    _held: OwnedRwLockWriteGuard<()>,
}

/// While this is held, the coordinator runs no attempt in isolation.
pub(super) struct SharedPermit {
    _held: OwnedRwLockReadGuard<()>,
}

impl IsolationGate {
    /// Waits for the exclusive permit; `None` where it is not free within the time.
    pub(super) async fn exclusive(&self, within: Duration) -> Option<ExclusivePermit> {
        let permit = tokio::time::timeout(within, Arc::clone(&self.0).write_owned()).await;
        permit.ok().map(|held| ExclusivePermit { _held: held })
    }

    /// Waits until the exclusive permit is free. Called before the caller takes anything that an
    /// isolated attempt may need.
    pub(super) async fn shared(&self) -> SharedPermit {
        SharedPermit { _held: Arc::clone(&self.0).read_owned().await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::SagaId,
        saga::{Record, Saga, StepContext, StepError},
    };

    async fn branch(_: &(), _: &StepContext<()>) -> Result<(), StepError> {
        Ok(())
    }

    #[tokio::test]
    async fn a_suspect_step_is_recorded_and_attempted_alone() {
        let saga = Saga::<(), ()>::builder("s", 1)
            .parallel("g")
            .branch("a", branch)
            .branch("b", branch)
            .build();
        let started = Record::AttemptStarted { step: "b".into(), unfinished_attempts: 1 };
        let (fresh, isolated) = (Instance::default(), Instance::default().after(&started).unwrap());
        let claim = |taken_over| SagaClaim {
            id: SagaId::generate(),
            epoch: 1,
            definition: ("s".into(), 1),
            taken_over,
        };
        let next = |mode: &IsolationMode, instance| mode.next(saga.shape(), instance, vec![0, 1]);
        let gate = IsolationGate::default();
        let [normal, mut mode] =
            [false, true].map(|taken_over| IsolationMode::of(&claim(taken_over)));
        assert_eq!(next(&normal, &fresh), NextAction::Run(vec![0, 1]));
        assert_eq!(
            next(&normal, &isolated),
            NextAction::WaitForPermit,
            "whichever coordinator has it"
        );
        assert_eq!(next(&mode, &fresh), NextAction::RecordAttempt(0));
        assert_eq!(next(&mode, &isolated), NextAction::WaitForPermit);
        let permit = gate.exclusive(Duration::ZERO).await.unwrap();
        assert!(gate.exclusive(Duration::ZERO).await.is_none(), "one after the other");
        assert!(
            tokio::time::timeout(Duration::ZERO, gate.shared()).await.is_err(),
            "and no other attempt beside it"
        );
        mode.permit_acquired(permit);
        assert_eq!(next(&mode, &isolated), NextAction::RecordAttempt(1), "the suspect first");
        mode.attempt_recorded(1);
        assert_eq!(next(&mode, &isolated), NextAction::Run(vec![1]));
        assert_eq!(
            mode.next(saga.shape(), &fresh, vec![0]),
            NextAction::Run(vec![0]),
            "it was cancelled meanwhile"
        );
        drop(mode);
        let shared = [gate.shared().await, gate.shared().await];
        assert!(gate.exclusive(Duration::ZERO).await.is_none(), "other attempts run");
        drop(shared);
        assert!(gate.exclusive(Duration::ZERO).await.is_some());
    }
}
