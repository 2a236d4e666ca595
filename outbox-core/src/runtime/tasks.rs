//! The only place that spawns tasks. A task keeps the tracing span of its spawner; its panic is
//! caught and reported.

use futures_util::FutureExt;
use std::{
    any::Any,
    collections::HashMap,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
    thread::JoinHandle as JoinThread,
};
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tracing::Instrument;

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit<T = ()> {
    /// It returned.
    Finished(T),
    /// It panicked, with this text.
    Panicked(String),
    /// It was aborted, or the runtime is shutting down.
    Cancelled,
}

/// A running task. As a future it gives the task's [`Exit`]; dropped, the task runs on.
#[derive(Debug)]
#[must_use = "await it for its exit, or say `detach`"]
pub struct Task<T>(JoinHandle<T>);

/// Starts a task in the current span.
///
/// # Panics
/// Outside a tokio runtime.
pub fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    Task(tokio::spawn(future.in_current_span()))
}

/// Starts a thread in the current span, for broker clients that block or call back instead of
/// giving futures.
///
/// # Errors
/// That of the system, when it has no thread to give.
pub fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinThread<()>> {
    let span = tracing::Span::current();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || span.in_scope(work))
}

/// Runs a future on the caller's own task and gives the text of a panic in place of unwinding.
///
/// Values that the future had borrowed may be left half changed; throw them away.
///
/// # Errors
/// The panic's text.
///
/// # Cancel safety
/// That of the future.
pub async fn catch_unwind<F: Future>(future: F) -> Result<F::Output, String> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| panic_text(&*panic))
}

impl<T> Task<T> {
    /// Asks the task to stop at its next await.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Lets the task run on without being awaited.
    pub fn detach(self) {}
}

impl<T> Future for Task<T> {
    type Output = Exit<T>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Exit<T>> {
        Pin::new(&mut self.0).poll(cx).map(Exit::from)
    }
}

impl<T> From<Result<T, JoinError>> for Exit<T> {
    fn from(joined: Result<T, JoinError>) -> Self {
        match joined.map_err(JoinError::try_into_panic) {
            Ok(value) => Self::Finished(value),
            Err(Ok(panic)) => Self::Panicked(panic_text(&*panic)),
            Err(Err(_)) => Self::Cancelled,
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a text").to_owned()
}

/// Running tasks, each with a label that comes with its exit. Dropped, it aborts all of them.
#[derive(Debug)]
pub struct Tasks<K, T> {
    set: JoinSet<T>,
    labels: HashMap<Id, K>,
}

impl<K, T> Default for Tasks<K, T> {
    fn default() -> Self {
        Self { set: JoinSet::new(), labels: HashMap::new() }
    }
}

impl<K, T: Send + 'static> Tasks<K, T> {
    /// Starts one more in the current span.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(&mut self, label: K, future: impl Future<Output = T> + Send + 'static) {
        let id = self.set.spawn(future.in_current_span()).id();
        self.labels.insert(id, label);
    }

    /// Waits for the next one to end; `None` when none is running. In a `select!`, write `Some(..)
    /// = tasks.next()`.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no exit.
    pub async fn next(&mut self) -> Option<(K, Exit<T>)> {
        loop {
            let joined = self.set.join_next_with_id().await?;
            let id = joined.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            let exit = Exit::from(joined.map(|(_, value)| value));
            // Every task of the set was labelled when it was started.
            if let Some(label) = self.labels.remove(&id) {
                return Some((label, exit));
            }
        }
    }

    /// Goes through the labels of the running tasks, in no order.
    pub fn labels(&self) -> impl Iterator<Item = &K> {
        self.labels.values()
    }

    /// Tells how many tasks run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Tells whether no task runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Asks all of them to stop at their next await; [`next`](Self::next) still gives their exits.
    pub fn abort_all(&mut self) {
        self.set.abort_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_exit_tells_value_panic_and_abort_apart() {
        assert_eq!(spawn(async { 7 }).await, Exit::Finished(7));
        let number = 3;
        assert_eq!(
            spawn(async move { panic!("number {number}") }).await,
            Exit::<()>::Panicked("number 3".into())
        );
        let endless = spawn(std::future::pending::<()>());
        endless.abort();
        assert_eq!(endless.await, Exit::Cancelled);
    }

    #[tokio::test]
    async fn a_caught_panic_is_an_error_with_its_text() {
        assert_eq!(catch_unwind(async { 1 }).await, Ok(1));
        assert_eq!(catch_unwind(async { panic!("no") }).await, Err::<(), _>("no".to_owned()));
    }

    #[tokio::test]
    async fn exits_come_with_the_label_of_their_task() {
        let mut tasks = Tasks::default();
        tasks.spawn("good", async { 1 });
        tasks.spawn("bad", async { panic!("bad luck") });
        assert_eq!(tasks.len(), 2);
        let mut exits = vec![tasks.next().await, tasks.next().await];
        exits.sort_by_key(|e| e.as_ref().map(|(label, _)| *label));
        assert_eq!(
            exits,
            [Some(("bad", Exit::Panicked("bad luck".into()))), Some(("good", Exit::Finished(1)))]
        );
        assert_eq!(tasks.next().await, None);
        assert_eq!(tasks.labels().count(), 0);
    }

    #[tokio::test]
    async fn dropping_the_set_aborts_the_running_tasks() {
        let (alive, mut ended) = tokio::sync::mpsc::channel::<()>(1);
        let mut tasks = Tasks::default();
        tasks.spawn((), async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        drop(tasks);
        assert_eq!(ended.recv().await, None);
    }
}
