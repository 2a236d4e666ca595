//! The lane: statements of one transaction, one after the other, each to its end even when its caller is gone.
//!
//! A driver's future that is dropped half-way leaves a question behind: was the statement done, did it fail, is its
//! answer still on the wire? Here such a future is kept and driven to its end by the next caller, or by a task when there
//! is none. So what happened is always known, and answers are never mistaken for those of another statement.

use futures_util::future::BoxFuture;
use std::{
    future::poll_fn,
    sync::{Arc, Mutex as SyncMutex, PoisonError},
    task::{Context, Poll},
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, MutexGuard},
};

/// One statement's work on its way; empty when nothing is under way.
type Slot = Option<BoxFuture<'static, ()>>;

/// The lane of one transaction.
pub(super) struct Lane {
    slot: Mutex<Slot>,
    runtime: Handle,
}

/// The right to run statements; others wait.
pub(super) struct Turn<'a>(MutexGuard<'a, Slot>);

impl Lane {
    /// Makes an empty lane. Called inside a runtime.
    pub(super) fn new() -> Self {
        Self { slot: Mutex::new(None), runtime: Handle::current() }
    }

    /// The runtime that the transaction lives on.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Waits for one's turn, finishing what a dropped caller left.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub(super) async fn turn(&self) -> Turn<'_> {
        let mut slot = self.slot.lock().await;
        finish(&mut slot).await;
        Turn(slot)
    }
}

impl Turn<'_> {
    /// Starts work that is driven by [`poll`](Self::poll), or by the next turn.
    pub(super) fn start(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        *self.0 = Some(Box::pin(work));
    }

    /// Drives the work; ready when it has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        poll(&mut self.0, cx)
    }

    /// Runs one piece of work to its end.
    ///
    /// # Cancel safety
    /// When dropped, the work goes on at the next turn, or on a task when the lane is dropped.
    pub(super) async fn run<T: Send + 'static>(&mut self, work: impl Future<Output = T> + Send + 'static) -> T {
        let place = Arc::new(SyncMutex::new(None));
        let answer = Arc::clone(&place);
        self.start(async move {
            let value = work.await;
            *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        });
        finish(&mut self.0).await;
        let value = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        value.expect("the work has ended and left its value")
    }
}

/// Drives what is in the slot to its end.
async fn finish(slot: &mut Slot) {
    poll_fn(|cx| poll(slot, cx)).await;
}

/// Drives what is in the slot. A panic of the work empties the slot and goes on to the caller.
fn poll(slot: &mut Slot, cx: &mut Context<'_>) -> Poll<()> {
    let Some(mut work) = slot.take() else { return Poll::Ready(()) };
    let poll = work.as_mut().poll(cx);
    if poll.is_pending() {
        *slot = Some(work);
    }
    poll
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(work) = self.slot.get_mut().take() {
            self.runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn work_whose_caller_is_gone_ends_before_the_next_begins() {
        let (lane, gate, order) = (Lane::new(), Arc::new(Notify::new()), Arc::new(SyncMutex::new(Vec::new())));
        {
            let mut turn = lane.turn().await;
            let (gate, order) = (gate.clone(), order.clone());
            let first = turn.run(async move {
                gate.notified().await;
                order.lock().unwrap().push("first");
            });
            assert!(first.now_or_never().is_none(), "it waits for the gate, and its caller goes");
        }
        gate.notify_one();
        let seen = order.clone();
        let length = lane.turn().await.run(async move { seen.lock().unwrap().len() }).await;
        assert_eq!(length, 1);
    }

    #[tokio::test]
    async fn work_left_in_a_dropped_lane_ends_on_a_task() {
        let (lane, gate, done) = (Lane::new(), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (wait, say) = (gate.clone(), done.clone());
        let mut turn = lane.turn().await;
        let left = turn.run(async move {
            wait.notified().await;
            say.notify_one();
        });
        assert!(left.now_or_never().is_none());
        drop(turn);
        drop(lane);
        gate.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn a_panic_of_the_work_reaches_its_caller_and_leaves_the_lane_usable() {
        let (lane, ran) = (Lane::new(), Arc::new(AtomicU32::new(0)));
        let panic = std::panic::AssertUnwindSafe(async {
            lane.turn().await.run(async { assert_eq!(1, 2, "on purpose") }).await;
        });
        assert!(panic.catch_unwind().await.is_err());
        let count = ran.clone();
        lane.turn().await.run(async move { count.fetch_add(1, Ordering::Relaxed) }).await;
        assert_eq!(ran.load(Ordering::Relaxed), 1);
    }
}
