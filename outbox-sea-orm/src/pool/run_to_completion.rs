//! Work that runs to its end even when its caller is dropped: the driver forgets a BEGIN or a
//! COMMIT that is dropped half-way. The caller drives the work, which costs no task; when the
//! caller is dropped half-way, a task drives it on.

use futures_util::future::BoxFuture;
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tokio::runtime::Handle;
use tracing::Instrument;

/// Such work, as a future of its result.
pub(crate) struct RunToCompletion<T: Send + 'static> {
    /// The work; `None` when it has ended or panicked.
    work: Option<BoxFuture<'static, T>>,
    /// Whether it was polled.
    begun: bool,
    runtime: Handle,
}

impl<T: Send + 'static> RunToCompletion<T> {
    /// Wraps a future, which may be driven to its end on the runtime.
    pub(crate) fn new(work: impl Future<Output = T> + Send + 'static, runtime: Handle) -> Self {
        Self { work: Some(Box::pin(work.in_current_span())), begun: false, runtime }
    }

    /// Wraps a future, which may be driven to its end on the runtime that this is called in.
    pub(crate) fn on_current(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self::new(work, Handle::current())
    }
}

impl<T: Send + 'static> Future for RunToCompletion<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.begun = true;
        let mut work = self.work.take().expect("not polled after its end");
        let poll = work.as_mut().poll(cx);
        if poll.is_pending() {
            self.work = Some(work);
        }
        poll
    }
}

impl<T: Send + 'static> Drop for RunToCompletion<T> {
    fn drop(&mut self) {
        // Work that was never polled has sent nothing: dropping it does nothing at all.
        if let Some(work) = self.work.take().filter(|_| self.begun) {
            self.runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::sync::Arc;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn work_that_is_dropped_half_way_comes_to_its_end() {
        let (gate, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (wait, say) = (gate.clone(), done.clone());
        let work = async move {
            wait.notified().await;
            say.notify_one();
        };
        assert!(
            RunToCompletion::new(work, Handle::current()).now_or_never().is_none(),
            "it waits for the gate"
        );
        gate.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn work_that_was_never_begun_is_not_done() {
        let done = Arc::new(Notify::new());
        let say = done.clone();
        drop(RunToCompletion::new(async move { say.notify_one() }, Handle::current()));
        tokio::task::yield_now().await;
        assert!(done.notified().now_or_never().is_none());
    }
}
