//! The transactions that are open in a task, which a function without a transaction parameter
//! joins.
//!
//! Code inside a transaction that the framework opened (an attribute, [`Outbox::transaction`], a
//! handler, a step, a hook before commit) finds it by a task-local value. A spawned task does not:
//! the transaction does not wait for its end. A transaction that the application opened itself and
//! holds cannot be found by a task-local value. So the outbox counts those of each task, and
//! refuses a function that would open a second one beside it.

use super::{FrameHandle, OutboxTransaction, Shared, state::FrameId};
use crate::Outbox;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread::{self, ThreadId},
};
use tokio::task;

tokio::task_local! {
    /// The innermost transaction that the current task runs in.
    static CURRENT: Arc<OpenTransaction>;
}

/// A transaction around the polled future, and those around that transaction.
struct OpenTransaction {
    shared: Weak<Shared>,
    frame: FrameId,
    outer: Option<Arc<OpenTransaction>>,
}

/// Runs work in which functions without a transaction parameter join the transaction.
pub(crate) async fn within<F: Future>(tx: &OutboxTransaction, work: F) -> F::Output {
    let outer = CURRENT.try_with(Arc::clone).ok();
    // Weak: a future that is kept beyond the end must not keep the transaction, and with it a
    // connection, alive.
    let current = OpenTransaction { shared: Arc::downgrade(&tx.shared), frame: tx.frame.id, outer };
    CURRENT.scope(Arc::new(current), work).await
}

/// Gives a further handle on the innermost transaction of an outbox that the current task runs in.
/// Dropping it changes nothing.
pub(super) fn joinable(outbox: &Outbox) -> Option<OutboxTransaction> {
    let mut next = CURRENT.try_with(Arc::clone).ok();
    while let Some(open) = next.take() {
        if let Some(shared) = open.shared.upgrade().filter(|shared| shared.outbox.is_same(outbox)) {
            let (state, runtime) = (shared.state.clone(), shared.queue.runtime().clone());
            let frame = FrameHandle { id: open.frame, state, runtime, owned: false };
            return Some(OutboxTransaction { shared, frame });
        }
        next.clone_from(&open.outer);
    }
    None
}

/// Tells whether the current task runs in a transaction of the outbox that the framework opened for
/// a handler, a step or an operator.
pub(crate) fn is_in_work(outbox: &Outbox) -> bool {
    joinable(outbox).is_some_and(|tx| tx.shared.is_work)
}

/// A task, or a thread that blocks on a future outside of any task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum TaskOrThread {
    Task(task::Id),
    Thread(ThreadId),
}

impl TaskOrThread {
    fn current() -> Self {
        task::try_id().map_or_else(|| Self::Thread(thread::current().id()), Self::Task)
    }
}

/// Counts, by task, the transactions that the application opened itself and holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct TransactionTasks(Arc<Mutex<HashMap<TaskOrThread, u32>>>);

impl TransactionTasks {
    fn lock(&self) -> MutexGuard<'_, HashMap<TaskOrThread, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more for the current task, until the returned registration is dropped.
    pub(super) fn register_current(&self) -> TaskRegistration {
        let runner = TaskOrThread::current();
        *self.lock().entry(runner).or_insert(0) += 1;
        TaskRegistration { tasks: self.clone(), runner }
    }

    /// Tells whether the current task holds one.
    pub(super) fn has_current(&self) -> bool {
        self.lock().contains_key(&TaskOrThread::current())
    }
}

/// One transaction in the count of its task.
#[derive(Debug)]
pub(super) struct TaskRegistration {
    tasks: TransactionTasks,
    runner: TaskOrThread,
}

impl Drop for TaskRegistration {
    fn drop(&mut self) {
        let mut counts = self.tasks.lock();
        if let Some(count) = counts.get_mut(&self.runner) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.runner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn held_transactions_are_counted_by_task_until_all_are_dropped() {
        let tasks = TransactionTasks::default();
        let (first, second) = (tasks.register_current(), tasks.register_current());
        let other = tasks.clone();
        assert!(
            !tokio::spawn(async move { other.has_current() }).await.unwrap(),
            "another task holds none"
        );
        drop(first);
        assert!(tasks.has_current());
        // A transaction may end in another task.
        tokio::spawn(async move { drop(second) }).await.unwrap();
        assert!(!tasks.has_current() && tasks.lock().is_empty());
    }
}
