//! The hooks that run in the phases of a transaction's end.

use super::OutboxTransaction;
use crate::{error::BoxError, listener::phase::Outcome};
use futures_util::future::BoxFuture;
use outbox_core::event::CorrelationContext;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(super) type BeforeHook =
    Box<dyn for<'t> FnOnce(&'t OutboxTransaction) -> BoxFuture<'t, Result<(), BoxError>> + Send>;

/// The hooks of one transaction, or of one savepoint of it.
#[derive(Default)]
pub(super) struct Hooks {
    /// With the correlation that was kept for each.
    pub(super) before_commit: Vec<(Option<CorrelationContext>, BeforeHook)>,
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

    /// Keeps a correlation for the hooks before commit that have none.
    pub(super) fn seal(&mut self, correlation: &CorrelationContext) {
        for (kept, _) in &mut self.before_commit {
            kept.get_or_insert_with(|| correlation.clone());
        }
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
