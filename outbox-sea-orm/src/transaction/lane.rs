//! The lane: statements of one transaction, one after the other, each to its end even when its caller is gone.
//!
//! A driver's future that is dropped half-way leaves a question behind: was the statement done, did it fail, is its
//! answer still on the wire? Here such a future is kept and driven to its end by the next caller, or by a task when there
//! is none. So what happened is always known, and answers are never mistaken for those of another statement.

use crate::pool::Bound;
use futures_util::future::BoxFuture;
use sea_orm::DbErr;
use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex as SyncMutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, MutexGuard, Notify},
};

/// One statement's work on its way; empty when nothing is under way.
type Slot = Option<BoxFuture<'static, ()>>;

/// The lane of one transaction.
pub(super) struct Lane {
    slot: Mutex<Slot>,
    runtime: Handle,
    bound: Bound,
    /// Whether an answer was overdue: nothing is driven on.
    severed: AtomicBool,
    /// Whether the turn is that of a stream, which lasts as long as its reader likes.
    streaming: AtomicBool,
    /// Tells those who wait for their turn that it has become that of a stream.
    stream_began: Notify,
}

/// The right to run statements; others wait.
pub(super) struct Turn<'a>(MutexGuard<'a, Slot>);

/// Why there is no turn.
#[derive(Debug)]
pub(super) enum NoTurn {
    /// A stream of rows is open. Its reader may be the very task that asks, which would wait for itself.
    Streaming,
    /// What was under way got no answer; the connection is closed.
    Lost(DbErr),
}

/// Says that a turn is a stream's; dropped before the turn is.
pub(super) struct Streaming<'a>(&'a Lane);

impl Drop for Streaming<'_> {
    fn drop(&mut self) {
        self.0.streaming.store(false, Ordering::Relaxed);
    }
}

impl Lane {
    /// Makes an empty lane. Called inside a runtime.
    pub(super) fn new(bound: Bound) -> Self {
        Self {
            slot: Mutex::new(None),
            runtime: Handle::current(),
            bound,
            severed: AtomicBool::new(false),
            streaming: AtomicBool::new(false),
            stream_began: Notify::new(),
        }
    }

    /// How long answers are waited for.
    pub(super) const fn bound(&self) -> &Bound {
        &self.bound
    }

    /// The runtime that the transaction lives on.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Waits for one's turn, finishing what a dropped caller left. Where that gets no answer, the connection is closed.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, NoTurn> {
        let mut slot = match self.slot.try_lock() {
            Ok(slot) => slot,
            Err(_) => self.wait().await?,
        };
        if self.severed.load(Ordering::Relaxed) {
            *slot = None;
            return Err(NoTurn::Lost(self.bound.close("the transaction")));
        }
        if slot.is_some() {
            let ended = async {
                finish(&mut slot).await;
                Ok(())
            };
            if let Err(error) = self.bound.answer("a statement whose caller is gone", ended).await {
                self.severed.store(true, Ordering::Relaxed);
                *slot = None;
                return Err(NoTurn::Lost(error));
            }
        }
        Ok(Turn(slot))
    }

    /// Waits behind other statements, though not behind a stream.
    async fn wait(&self) -> Result<MutexGuard<'_, Slot>, NoTurn> {
        let mut stream_began = pin!(self.stream_began.notified());
        // From here on a beginning is noticed.
        stream_began.as_mut().enable();
        if self.streaming.load(Ordering::Relaxed) {
            return Err(NoTurn::Streaming);
        }
        tokio::select! {
            biased;
            slot = self.slot.lock() => Ok(slot),
            () = stream_began => Err(NoTurn::Streaming),
        }
    }

    /// Makes the turn, which the caller has, that of a stream.
    pub(super) fn stream(&self) -> Streaming<'_> {
        self.streaming.store(true, Ordering::Relaxed);
        self.stream_began.notify_waiters();
        Streaming(self)
    }

    /// Gives a turn where nothing is under way and nobody waits for one.
    pub(super) fn idle_turn(&self) -> Option<Turn<'_>> {
        let slot = self.slot.try_lock().ok().filter(|slot| slot.is_none())?;
        Some(Turn(slot)).filter(|_| !self.severed.load(Ordering::Relaxed))
    }

    /// Closes the connection, since an answer is overdue: what is under way is not driven on.
    pub(super) fn sever(&self, what: &'static str) -> DbErr {
        self.severed.store(true, Ordering::Relaxed);
        self.bound.close(what)
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
    pub(super) async fn run<T: Send + 'static>(
        &mut self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
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
        let Some(work) = self.slot.get_mut().take().filter(|_| !*self.severed.get_mut()) else {
            return;
        };
        let bound = self.bound.clone();
        self.runtime.spawn(async move {
            let ended = async {
                work.await;
                Ok(())
            };
            if let Err(error) = bound.answer("a statement whose caller is gone", ended).await {
                tracing::warn!(%error, "a transaction was given up while a statement of it was under way");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;
    use tokio::sync::Notify;

    fn lane() -> Lane {
        Lane::new(Bound::of_application(Duration::from_secs(5)))
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_gets_no_answer_after_its_caller_is_gone_is_given_up() {
        let (lane, held) = (lane(), Arc::new(()));
        let (there, mut turn) = (held.clone(), lane.turn().await.unwrap());
        let left = turn.run(async move {
            std::future::pending::<()>().await;
            drop(there);
        });
        assert!(left.now_or_never().is_none(), "its caller goes");
        drop(turn);
        let next = tokio::time::timeout(Duration::from_secs(60), lane.turn()).await;
        let Err(NoTurn::Lost(late)) = next.expect("it is given up after 5 s") else {
            panic!("it gets no answer")
        };
        let late = late.to_string();
        assert!(late.contains("gave no answer within 5s, and is given up"), "{late}");
        assert_eq!(Arc::strong_count(&held), 1, "it is not driven on");
        assert!(
            lane.turn().await.is_err() && lane.idle_turn().is_none(),
            "nothing more runs on it"
        );
    }

    #[tokio::test]
    async fn work_whose_caller_is_gone_ends_before_the_next_begins() {
        let (lane, gate, order) =
            (lane(), Arc::new(Notify::new()), Arc::new(SyncMutex::new(Vec::new())));
        {
            let mut turn = lane.turn().await.unwrap();
            let (gate, order) = (gate.clone(), order.clone());
            let first = turn.run(async move {
                gate.notified().await;
                order.lock().unwrap().push("first");
            });
            assert!(first.now_or_never().is_none(), "it waits for the gate, and its caller goes");
        }
        gate.notify_one();
        let seen = order.clone();
        let length =
            lane.turn().await.unwrap().run(async move { seen.lock().unwrap().len() }).await;
        assert_eq!(length, 1);
    }

    #[tokio::test]
    async fn whoever_asks_for_a_turn_while_it_is_a_stream_s_is_told_so_at_once() {
        let lane = lane();
        let turn = lane.turn().await.unwrap();
        let mut waiting = pin!(lane.turn());
        assert!(waiting.as_mut().now_or_never().is_none(), "a statement is under way, which ends");
        let stream = lane.stream();
        let told = waiting.as_mut().now_or_never().expect("it does not wait for a stream");
        assert!(matches!(told, Err(NoTurn::Streaming)));
        let next = lane.turn().now_or_never().expect("nor does whoever comes later");
        assert!(matches!(next, Err(NoTurn::Streaming)));
        assert!(lane.idle_turn().is_none());
        drop(stream);
        drop(turn);
        assert!(lane.turn().now_or_never().is_some_and(|turn| turn.is_ok()), "the stream is gone");
    }

    #[tokio::test]
    async fn work_left_in_a_dropped_lane_ends_on_a_task() {
        let (lane, gate, done) = (lane(), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (wait, say) = (gate.clone(), done.clone());
        let mut turn = lane.turn().await.unwrap();
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
        let (lane, ran) = (lane(), Arc::new(AtomicU32::new(0)));
        let panic = std::panic::AssertUnwindSafe(async {
            lane.turn().await.unwrap().run(async { assert_eq!(1, 2, "on purpose") }).await;
        });
        assert!(panic.catch_unwind().await.is_err());
        let count = ran.clone();
        lane.turn().await.unwrap().run(async move { count.fetch_add(1, Ordering::Relaxed) }).await;
        assert_eq!(ran.load(Ordering::Relaxed), 1);
    }
}
