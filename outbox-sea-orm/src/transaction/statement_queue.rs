//! The statements of one transaction, one after the other, each to its end even when its caller is
//! dropped.
//!
//! When a driver's future is dropped half-way, nobody knows whether the statement was done or
//! failed, or whether its response is still on the wire. So the queue keeps such a future, and the
//! next caller drives it to its end, or a task where there is none: its result is always known, and
//! no response is mistaken for that of another statement.

use crate::pool::ResponseDeadline;
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

/// The work of the statement that runs; empty when none does.
type Slot = Option<BoxFuture<'static, ()>>;

/// The statement queue of one transaction.
pub(super) struct StatementQueue {
    slot: Mutex<Slot>,
    runtime: Handle,
    deadline: ResponseDeadline,
    /// Whether a response was overdue: no work is driven on.
    severed: AtomicBool,
    /// Whether a stream has the turn, which lasts as long as its reader likes.
    streaming: AtomicBool,
    /// Wakes the callers that wait for their turn when a stream takes it.
    stream_began: Notify,
    /// The work that comes last, whatever becomes of the transaction.
    last: SyncMutex<Option<Last>>,
}

/// What a session needs before another transaction gets its connection.
type Last = BoxFuture<'static, Result<(), DbErr>>;

/// The right to run statements; others wait.
pub(super) struct Turn<'a>(MutexGuard<'a, Slot>);

/// Why there is no turn.
#[derive(Debug)]
pub(super) enum NoTurn {
    /// A stream of rows is open. Its reader may be the calling task, which would wait for itself.
    Streaming,
    /// The statement before got no response; the connection is closed.
    Lost(DbErr),
}

/// Marks a turn as a stream's; dropped before the turn is.
pub(super) struct Streaming<'a>(&'a StatementQueue);

impl Drop for Streaming<'_> {
    fn drop(&mut self) {
        self.0.streaming.store(false, Ordering::Relaxed);
    }
}

impl StatementQueue {
    /// Makes an empty queue. Called inside a runtime.
    pub(super) fn new(deadline: ResponseDeadline) -> Self {
        Self {
            slot: Mutex::new(None),
            runtime: Handle::current(),
            deadline,
            severed: AtomicBool::new(false),
            streaming: AtomicBool::new(false),
            stream_began: Notify::new(),
            last: SyncMutex::new(None),
        }
    }

    /// Sets the work that comes last on the connection: by [`run_last`](Self::run_last), or on a
    /// task when the queue is dropped before.
    pub(super) fn end_with(
        &mut self,
        work: impl Future<Output = Result<(), DbErr>> + Send + 'static,
    ) {
        *self.last() = Some(Box::pin(work));
    }

    fn last(&mut self) -> &mut Option<Last> {
        self.last.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the work that comes last, where there is some. Where it fails the connection is closed.
    ///
    /// # Cancel safety
    /// None: it is driven to its end.
    pub(super) async fn run_last(&mut self) -> Result<(), DbErr> {
        let Some(last) = self.last().take() else { return Ok(()) };
        end(last, &self.deadline).await
    }

    /// How long the process waits for responses.
    pub(super) const fn deadline(&self) -> &ResponseDeadline {
        &self.deadline
    }

    /// The runtime that the transaction lives on.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Waits for the turn and finishes the work of a dropped caller; where that gets no response,
    /// closes the connection.
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
            return Err(NoTurn::Lost(self.deadline.close("the transaction")));
        }
        if slot.is_some() {
            let ended = async {
                finish(&mut slot).await;
                Ok(())
            };
            if let Err(error) =
                self.deadline.wait_for("a statement whose caller is gone", ended).await
            {
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
        // Enabled before the flag is read, so that no stream that begins later is missed.
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

    /// Marks the caller's turn as a stream's.
    pub(super) fn stream(&self) -> Streaming<'_> {
        self.streaming.store(true, Ordering::Relaxed);
        self.stream_began.notify_waiters();
        Streaming(self)
    }

    /// Gives a turn where no work runs and no caller waits for a turn.
    pub(super) fn idle_turn(&self) -> Option<Turn<'_>> {
        let slot = self.slot.try_lock().ok().filter(|slot| slot.is_none())?;
        Some(Turn(slot)).filter(|_| !self.severed.load(Ordering::Relaxed))
    }

    /// Closes the connection, since a response is overdue: the work that runs is not driven on.
    pub(super) fn sever(&self, what: &'static str) -> DbErr {
        self.severed.store(true, Ordering::Relaxed);
        self.deadline.close(what)
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
    /// When this is dropped, the next turn drives the work on, or a task when the queue is dropped.
    pub(super) async fn run<T: Send + 'static>(
        &mut self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let place = Arc::new(SyncMutex::new(None));
        let result = Arc::clone(&place);
        self.start(async move {
            let value = work.await;
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        });
        finish(&mut self.0).await;
        let value = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        value.expect("the work has ended and left its value")
    }
}

/// Runs the work that comes last; closes the connection where that fails, also for another reason
/// than an overdue response: the next transaction on it would work under limits of this one.
async fn end(last: Last, deadline: &ResponseDeadline) -> Result<(), DbErr> {
    const WHAT: &str = "the limits of a connection";
    let ended = deadline.wait_for(WHAT, last).await;
    if ended.is_err() {
        drop(deadline.close(WHAT));
    }
    ended
}

/// Drives the work in the slot to its end.
async fn finish(slot: &mut Slot) {
    poll_fn(|cx| poll(slot, cx)).await;
}

/// Drives the work in the slot. A panic of the work empties the slot and reaches the caller.
fn poll(slot: &mut Slot, cx: &mut Context<'_>) -> Poll<()> {
    let Some(mut work) = slot.take() else { return Poll::Ready(()) };
    let poll = work.as_mut().poll(cx);
    if poll.is_pending() {
        *slot = Some(work);
    }
    poll
}

impl Drop for StatementQueue {
    fn drop(&mut self) {
        if *self.severed.get_mut() {
            return;
        }
        let (work, last) = (self.slot.get_mut().take(), self.last().take());
        if work.is_none() && last.is_none() {
            return;
        }
        let deadline = self.deadline.clone();
        self.runtime.spawn(async move {
            if let Some(work) = work {
                let ended = async {
                    work.await;
                    Ok(())
                };
                if let Err(error) =
                    deadline.wait_for("a statement whose caller is gone", ended).await
                {
                    tracing::warn!(%error, "a transaction was dropped while a statement of it was under way, and the statement got no response");
                    return;
                }
            }
            if let Some(last) = last
                && let Err(error) = end(last, &deadline).await
            {
                tracing::debug!(%error, "the limits of a connection could not be set back");
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

    fn queue() -> StatementQueue {
        StatementQueue::new(ResponseDeadline::of_application(Duration::from_secs(5)))
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_gets_no_response_after_its_caller_is_gone_is_dropped() {
        let (queue, held) = (queue(), Arc::new(()));
        let (there, mut turn) = (held.clone(), queue.turn().await.unwrap());
        let left = turn.run(async move {
            std::future::pending::<()>().await;
            drop(there);
        });
        assert!(left.now_or_never().is_none(), "its caller goes");
        drop(turn);
        let next = tokio::time::timeout(Duration::from_secs(60), queue.turn()).await;
        let Err(NoTurn::Lost(late)) = next.expect("it is dropped after 5 s") else {
            panic!("it gets no response")
        };
        let late = late.to_string();
        assert!(late.contains("gave no response within 5s, and is given up"), "{late}");
        assert_eq!(Arc::strong_count(&held), 1, "it is not driven on");
        assert!(
            queue.turn().await.is_err() && queue.idle_turn().is_none(),
            "nothing more runs on it"
        );
    }

    #[tokio::test]
    async fn work_whose_caller_is_gone_ends_before_the_next_begins() {
        let (queue, gate, order) =
            (queue(), Arc::new(Notify::new()), Arc::new(SyncMutex::new(Vec::new())));
        {
            let mut turn = queue.turn().await.unwrap();
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
            queue.turn().await.unwrap().run(async move { seen.lock().unwrap().len() }).await;
        assert_eq!(length, 1);
    }

    #[tokio::test]
    async fn a_caller_that_wants_a_turn_while_a_stream_has_it_is_refused_at_once() {
        let queue = queue();
        let turn = queue.turn().await.unwrap();
        let mut waiting = pin!(queue.turn());
        assert!(waiting.as_mut().now_or_never().is_none(), "a statement is under way, which ends");
        let stream = queue.stream();
        let told = waiting.as_mut().now_or_never().expect("it does not wait for a stream");
        assert!(matches!(told, Err(NoTurn::Streaming)));
        let next = queue.turn().now_or_never().expect("nor does a later caller");
        assert!(matches!(next, Err(NoTurn::Streaming)));
        assert!(queue.idle_turn().is_none());
        drop(stream);
        drop(turn);
        assert!(queue.turn().now_or_never().is_some_and(|turn| turn.is_ok()), "the stream is gone");
    }

    #[tokio::test]
    async fn work_left_in_a_dropped_queue_ends_on_a_task() {
        let (queue, gate, done) = (queue(), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (wait, say) = (gate.clone(), done.clone());
        let mut turn = queue.turn().await.unwrap();
        let left = turn.run(async move {
            wait.notified().await;
            say.notify_one();
        });
        assert!(left.now_or_never().is_none());
        drop(turn);
        drop(queue);
        gate.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn the_last_work_of_a_dropped_queue_runs_once_and_behind_what_is_under_way() {
        let (mut queue, gate, done) = (queue(), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let order = Arc::new(SyncMutex::new(Vec::new()));
        let (say, log) = (done.clone(), order.clone());
        queue.end_with(async move {
            log.lock().unwrap().push("last");
            say.notify_one();
            Ok(())
        });
        let (wait, log) = (gate.clone(), order.clone());
        let mut turn = queue.turn().await.unwrap();
        let left = turn.run(async move {
            wait.notified().await;
            log.lock().unwrap().push("statement");
        });
        assert!(left.now_or_never().is_none());
        drop(turn);
        drop(queue);
        gate.notify_one();
        done.notified().await;
        assert_eq!(*order.lock().unwrap(), ["statement", "last"]);
    }

    #[tokio::test]
    async fn the_last_work_that_was_run_is_not_run_again_and_its_failure_reaches_the_caller() {
        let (mut queue, runs) = (queue(), Arc::new(AtomicU32::new(0)));
        let count = runs.clone();
        queue.end_with(async move {
            count.fetch_add(1, Ordering::Relaxed);
            Err(DbErr::Custom("refused".to_owned()))
        });
        assert!(queue.run_last().await.is_err());
        assert!(queue.run_last().await.is_ok(), "nothing is left of it");
        drop(queue);
        tokio::task::yield_now().await;
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_panic_of_the_work_reaches_its_caller_and_leaves_the_queue_usable() {
        let (queue, ran) = (queue(), Arc::new(AtomicU32::new(0)));
        let panic = std::panic::AssertUnwindSafe(async {
            queue.turn().await.unwrap().run(async { assert_eq!(1, 2, "on purpose") }).await;
        });
        assert!(panic.catch_unwind().await.is_err());
        let count = ran.clone();
        queue.turn().await.unwrap().run(async move { count.fetch_add(1, Ordering::Relaxed) }).await;
        assert_eq!(ran.load(Ordering::Relaxed), 1);
    }
}
