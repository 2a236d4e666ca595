//! A saga whose last holder went without a word: what that one was at may have ended its process, and may end this one.
//!
//! The next attempt is written down before it is made. From the second such attempt on it is made while nothing else is
//! done by the coordinator, so that an innocent one that stood beside the culprit is cleared: whoever else might end the
//! process, suspected or not, waits.

use crate::saga::{definition::Shape, state::Instance, store::Claim};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// How a saga is to be carried.
pub(super) enum Care {
    /// As usual.
    Usual,
    /// What is tried next is written down before.
    Needed,
    /// The same, and nothing else is at work.
    Alone(Turn),
    /// The attempt at this step is written down.
    WrittenDown { step: usize, _turn: Option<Turn> },
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Do, or undo, these steps.
    Do(Vec<usize>),
    /// Write down that this step is about to be tried.
    WriteDown(usize),
    /// Wait until nothing else is at work.
    WaitForTurn,
}

impl Care {
    pub(super) const fn of(claim: &Claim) -> Self {
        if claim.taken_over { Self::Needed } else { Self::Usual }
    }

    /// Says what comes next where these steps are planned. Of a group one alone is tried with care.
    pub(super) fn next(&self, shape: &Shape, instance: &Instance, planned: Vec<usize>) -> Next {
        let begun = |step: &usize| instance.begun(&shape.steps[*step].name) > 0;
        let suspect = planned.iter().copied().find(begun);
        match (self, suspect.or(planned.first().copied())) {
            (Self::WrittenDown { step, .. }, _) if planned.contains(step) => Next::Do(vec![*step]),
            (Self::Alone(_), Some(step)) => Next::WriteDown(step),
            _ if suspect.is_some() => Next::WaitForTurn,
            (Self::Needed, Some(step)) => Next::WriteDown(step),
            _ => Next::Do(planned),
        }
    }

    /// Tells whether nothing else is at work.
    pub(super) const fn is_alone(&self) -> bool {
        matches!(self, Self::Alone(_) | Self::WrittenDown { _turn: Some(_), .. })
    }

    pub(super) fn has_turn(&mut self, turn: Turn) {
        *self = Self::Alone(turn);
    }

    pub(super) fn written_down(&mut self, step: usize) {
        *self = match std::mem::replace(self, Self::Usual) {
            Self::Alone(turn) => Self::WrittenDown { step, _turn: Some(turn) },
            _ => Self::WrittenDown { step, _turn: None },
        };
    }
}

/// Those of a coordinator that are at work: one suspect, or all others beside each other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Suspects(Arc<RwLock<()>>);

/// While this is held, nothing else is at work.
pub(super) struct Turn {
    _held: OwnedRwLockWriteGuard<()>,
}

/// While this is held, no suspect has its turn.
pub(super) struct Beside {
    _held: OwnedRwLockReadGuard<()>,
}

impl Suspects {
    /// Waits for a turn; `None` when it does not come within the time.
    pub(super) async fn turn(&self, within: Duration) -> Option<Turn> {
        let turn = tokio::time::timeout(within, Arc::clone(&self.0).write_owned()).await;
        turn.ok().map(|held| Turn { _held: held })
    }

    /// Waits until no suspect has its turn. To be called before anything is held that a suspect may need.
    pub(super) async fn beside(&self) -> Beside {
        Beside { _held: Arc::clone(&self.0).read_owned().await }
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
    async fn what_comes_next_where_two_steps_are_planned() {
        let saga = Saga::<(), ()>::builder("s", 1)
            .parallel("g")
            .branch("a", branch)
            .branch("b", branch)
            .build();
        let begun = Record::Begun { step: "b".into(), times: 1 };
        let (fresh, suspect) = (Instance::default(), Instance::default().after(&begun).unwrap());
        let claim = |taken_over| Claim {
            id: SagaId::generate(),
            epoch: 1,
            definition: ("s".into(), 1),
            taken_over,
        };
        let next = |care: &Care, instance| care.next(saga.shape(), instance, vec![0, 1]);
        let suspects = Suspects::default();
        let [usual, mut needed] = [false, true].map(|taken_over| Care::of(&claim(taken_over)));
        assert_eq!(next(&usual, &fresh), Next::Do(vec![0, 1]));
        assert_eq!(next(&usual, &suspect), Next::WaitForTurn, "whoever has it");
        assert_eq!(next(&needed, &fresh), Next::WriteDown(0));
        assert_eq!(next(&needed, &suspect), Next::WaitForTurn);
        let turn = suspects.turn(Duration::ZERO).await.unwrap();
        assert!(suspects.turn(Duration::ZERO).await.is_none(), "one after the other");
        assert!(
            tokio::time::timeout(Duration::ZERO, suspects.beside()).await.is_err(),
            "and nothing beside it"
        );
        needed.has_turn(turn);
        assert_eq!(next(&needed, &suspect), Next::WriteDown(1), "the suspect first");
        needed.written_down(1);
        assert_eq!(next(&needed, &suspect), Next::Do(vec![1]));
        assert_eq!(
            needed.next(saga.shape(), &fresh, vec![0]),
            Next::Do(vec![0]),
            "it was cancelled meanwhile"
        );
        drop(needed);
        let beside = [suspects.beside().await, suspects.beside().await];
        assert!(suspects.turn(Duration::ZERO).await.is_none(), "others are at work");
        drop(beside);
        assert!(suspects.turn(Duration::ZERO).await.is_some());
    }
}
