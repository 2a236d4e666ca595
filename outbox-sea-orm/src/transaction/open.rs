//! The transactions that are open in a task: what a function joins that is given none.
//!
//! Code that runs inside a transaction which the framework opened (an attribute, [`Outbox::transaction`], a handler, a step, a
//! hook before commit) finds it by a task-local value. It is not handed to spawned tasks: their end is not waited for, so they
//! could not be part of it. A transaction that the application itself opened and holds cannot be found so; that its task has
//! one is counted, so that a function which would pass it by is refused.

use super::{OutboxTransaction, Seat, Shared, state::FrameId};
use crate::Outbox;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread::{self, ThreadId},
};
use tokio::task;

tokio::task_local! {
    /// The innermost transaction that the present work runs in.
    static HERE: Arc<Here>;
}

/// A transaction around the work that is polled, and those around it.
struct Here {
    shared: Weak<Shared>,
    frame: FrameId,
    outer: Option<Arc<Here>>,
}

/// Runs work in which the transaction is found by functions that are given none.
pub(crate) async fn within<F: Future>(tx: &OutboxTransaction, work: F) -> F::Output {
    let outer = HERE.try_with(Arc::clone).ok();
    let here = Here { shared: Arc::downgrade(&tx.shared), frame: tx.seat.id, outer };
    HERE.scope(Arc::new(here), work).await
}

/// Gives a further handle on the innermost transaction of an outbox that the present work runs in. Dropped, it gives up
/// nothing.
pub(super) fn joinable(outbox: &Outbox) -> Option<OutboxTransaction> {
    let mut next = HERE.try_with(Arc::clone).ok();
    while let Some(here) = next.take() {
        if let Some(shared) = here.shared.upgrade().filter(|shared| shared.outbox.is_same(outbox)) {
            let (ledger, runtime) = (shared.ledger.clone(), shared.lane.runtime().clone());
            let seat = Seat { id: here.frame, ledger, runtime, taken: false };
            return Some(OutboxTransaction { shared, seat });
        }
        next.clone_from(&here.outer);
    }
    None
}

/// What runs one after the other: a task, or the work that a thread waits for outside of any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Strand {
    Task(task::Id),
    Thread(ThreadId),
}

impl Strand {
    fn present() -> Self {
        task::try_id().map_or_else(|| Self::Thread(thread::current().id()), Self::Task)
    }
}

/// Who holds transactions that they opened themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holders(Arc<Mutex<HashMap<Strand, u32>>>);

impl Holders {
    fn lock(&self) -> MutexGuard<'_, HashMap<Strand, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the present task holds one more, until what this gives is dropped.
    pub(super) fn hold(&self) -> Held {
        let strand = Strand::present();
        *self.lock().entry(strand).or_insert(0) += 1;
        Held { holders: self.clone(), strand }
    }

    /// Tells whether the present task holds one.
    pub(super) fn holds(&self) -> bool {
        self.lock().contains_key(&Strand::present())
    }
}

/// A transaction that its task has opened itself and holds.
#[derive(Debug)]
pub(super) struct Held {
    holders: Holders,
    strand: Strand,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut holders = self.holders.lock();
        if let Some(count) = holders.get_mut(&self.strand) {
            *count -= 1;
            if *count == 0 {
                holders.remove(&self.strand);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_holds_is_known_by_task_until_all_are_gone() {
        let holders = Holders::default();
        let (first, second) = (holders.hold(), holders.hold());
        let other = holders.clone();
        assert!(
            !tokio::spawn(async move { other.holds() }).await.unwrap(),
            "another task holds none"
        );
        drop(first);
        assert!(holders.holds());
        // It may end elsewhere.
        tokio::spawn(async move { drop(second) }).await.unwrap();
        assert!(!holders.holds() && holders.lock().is_empty());
    }
}
