//! The hooks of a definition: they run in the transaction that records that a saga has ended, or
//! that it is stuck.

use super::{
    step::{BranchFn, StepContext, StepError},
    step_fns::ParallelFn,
};
use crate::saga::{record::Record, state::SagaState};
use futures_util::future::BoxFuture;
use std::{fmt, sync::Arc};

/// The event for which a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::saga) enum Hook {
    Completed,
    Compensated,
    Stuck,
}

impl Hook {
    /// Finds the hook for a record that is written next.
    pub(in crate::saga) const fn of(record: &Record) -> Option<Self> {
        match record {
            Record::Completed => Some(Self::Completed),
            Record::Compensated => Some(Self::Compensated),
            Record::Stuck { .. } => Some(Self::Stuck),
            _ => None,
        }
    }

    /// Finds the hook for a saga that goes from one state to another.
    pub(in crate::saga) fn between(before: SagaState, after: SagaState) -> Option<Self> {
        match after {
            _ if before == after => None,
            SagaState::Completed => Some(Self::Completed),
            SagaState::Compensated => Some(Self::Compensated),
            SagaState::Stuck => Some(Self::Stuck),
            SagaState::Running | SagaState::Compensating => None,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "on_completed",
            Self::Compensated => "on_compensated",
            Self::Stuck => "on_stuck",
        }
    }

    /// Gives the name that its context has as the step's name.
    pub(in crate::saga) fn name(self) -> Arc<str> {
        self.as_str().into()
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The hooks of a definition.
pub(super) struct Hooks<D, Tx> {
    completed: Option<ParallelFn<D, (), StepContext<Tx>>>,
    compensated: Option<ParallelFn<D, (), StepContext<Tx>>>,
    stuck: Option<ParallelFn<D, (), StepContext<Tx>>>,
}

impl<D, Tx> Default for Hooks<D, Tx> {
    fn default() -> Self {
        Self { completed: None, compensated: None, stuck: None }
    }
}

impl<D, Tx> Hooks<D, Tx> {
    pub(super) const fn get(&self, hook: Hook) -> Option<&ParallelFn<D, (), StepContext<Tx>>> {
        match hook {
            Hook::Completed => self.completed.as_ref(),
            Hook::Compensated => self.compensated.as_ref(),
            Hook::Stuck => self.stuck.as_ref(),
        }
    }
}

impl<D: 'static, Tx: 'static> Hooks<D, Tx> {
    pub(super) fn set<F>(&mut self, hook: Hook, work: F)
    where
        F: for<'a> BranchFn<'a, D, (), StepContext<Tx>>,
    {
        fn boxed<D, Cx>(
            f: impl for<'a> Fn(&'a D, &'a Cx) -> BoxFuture<'a, Result<(), StepError>>
            + Send
            + Sync
            + 'static,
        ) -> ParallelFn<D, (), Cx> {
            Box::new(f)
        }
        let work = Some(boxed(move |data, cx| Box::pin(work.call(data, cx))));
        match hook {
            Hook::Completed => self.completed = work,
            Hook::Compensated => self.compensated = work,
            Hook::Stuck => self.stuck = work,
        }
    }
}
