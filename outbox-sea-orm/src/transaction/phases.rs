//! The phases of a transaction's end, and the hooks that run in them.

use super::OutboxTransaction;
use crate::error::BoxError;
use futures_util::future::BoxFuture;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Data and events are in the database.
    Committed,
    /// Nothing is.
    RolledBack,
    /// COMMIT was sent, and the response was lost.
    Unknown,
}

/// A phase in which listeners of an event type run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Inside the transaction; an error rolls it back.
    BeforeCommit,
    /// After the data and the events are in the database.
    AfterCommit,
    /// After nothing was saved: an error, a panic, a dropped future.
    AfterRollback,
    /// After either, and when the outcome is unknown.
    AfterCompletion,
}

impl Phase {
    /// Tells whether the phase runs after an outcome.
    pub(crate) const fn runs_after(self, outcome: Outcome) -> bool {
        matches!(
            (self, outcome),
            (Self::AfterCompletion, _)
                | (Self::AfterCommit, Outcome::Committed)
                | (Self::AfterRollback, Outcome::RolledBack)
        )
    }
}

pub(super) type BeforeHook =
    Box<dyn for<'t> FnOnce(&'t OutboxTransaction) -> BoxFuture<'t, Result<(), BoxError>> + Send>;

/// The hooks of one transaction, or of one savepoint of it.
#[derive(Default)]
pub(super) struct Hooks {
    pub(super) before_commit: Vec<BeforeHook>,
    after: Vec<After>,
}

enum After {
    Commit(Box<dyn FnOnce() + Send>),
    Rollback(Box<dyn FnOnce() + Send>),
    Completion(Box<dyn FnOnce(Outcome) + Send>),
}

impl Hooks {
    pub(super) fn after_commit(&mut self, hook: impl FnOnce() + Send + 'static) {
        self.after.push(After::Commit(Box::new(hook)));
    }

    pub(super) fn after_rollback(&mut self, hook: impl FnOnce() + Send + 'static) {
        self.after.push(After::Rollback(Box::new(hook)));
    }

    pub(super) fn after_completion(&mut self, hook: impl FnOnce(Outcome) + Send + 'static) {
        self.after.push(After::Completion(Box::new(hook)));
    }

    /// Adds the hooks of an inner transaction that has committed.
    pub(super) fn absorb(&mut self, inner: Self) {
        self.before_commit.extend(inner.before_commit);
        self.after.extend(inner.after);
    }

    /// Runs the hooks after the end: first those of the commit or rollback, then those of
    /// completion, each in the order of registration. A hook that panics is logged, and the others
    /// run.
    pub(super) fn run(self, outcome: Outcome) {
        let (completion, own): (Vec<_>, Vec<_>) =
            self.after.into_iter().partition(|hook| matches!(hook, After::Completion(_)));
        for hook in own.into_iter().chain(completion) {
            let ran = catch_unwind(AssertUnwindSafe(|| match (hook, outcome) {
                (After::Commit(hook), Outcome::Committed)
                | (After::Rollback(hook), Outcome::RolledBack) => hook(),
                (After::Completion(hook), outcome) => hook(outcome),
                _ => {}
            }));
            if ran.is_err() {
                tracing::error!(?outcome, "a hook after the end of a transaction has panicked");
            }
        }
    }
}
