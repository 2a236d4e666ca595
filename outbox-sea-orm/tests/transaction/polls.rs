//! Dropping a future after so many polls.

use std::{future::poll_fn, pin::pin, task::Poll};

/// Polls a future at most so many times, each time when it asks to be, and drops it; gives what it
/// made, if it did.
pub(crate) async fn polled<F: Future>(future: F, mut times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if times == 0 {
            return Poll::Ready(None);
        }
        times -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if times == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
