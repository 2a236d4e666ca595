//! Time limits of user code: of a handler, of a saga's step.

use super::{later, now};
use std::{
    pin::pin,
    time::{Duration, Instant},
};

/// How long a handler or step may run unless set: far longer than any should, so that only one that
/// hangs is ended.
pub(crate) const TIME_LIMIT: Duration = Duration::from_mins(5);

/// The limits of a handler or step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    /// After which time the work is dropped.
    pub(crate) limit: Option<Duration>,
    /// How often the idle transaction of the work is kept alive.
    pub(crate) keep_alive_every: Option<Duration>,
}

/// Work that was dropped at its time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeLimitExceeded(pub(crate) Duration);

impl std::fmt::Display for TimeLimitExceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it did not end within its time limit of {:?}, and was dropped", self.0)
    }
}

impl Watch {
    /// After which time the work is slow: a tenth of its limit, or of the usual one.
    pub(crate) fn slow_after(&self) -> Duration {
        self.limit.unwrap_or(TIME_LIMIT) / 10
    }
}

/// Runs work within its limits. When the work is slow, `slow` is called; its value is dropped when
/// the work ends or is dropped.
///
/// # Errors
/// [`TimeLimitExceeded`] when the work was dropped at its limit.
///
/// # Cancel safety
/// That of the work.
pub(crate) async fn watched<T, G, F>(
    work: impl Future<Output = T>,
    watch: Watch,
    slow: impl FnOnce(Duration) -> G,
    keep_alive: impl Fn() -> F,
) -> Result<T, TimeLimitExceeded>
where
    F: Future<Output = ()>,
{
    let mut work = pin!(work);
    let begun = now();
    let after = |time: Option<Duration>| time.and_then(|time| begun.checked_add(time));
    let end = after(watch.limit);
    let (mut slow_at, mut keep_alive_at) =
        (after(Some(watch.slow_after())), after(watch.keep_alive_every));
    let (mut slow, mut kept) = (Some(slow), None);
    loop {
        let next = [end, slow_at, keep_alive_at].into_iter().flatten().min();
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            () = until(next) => {}
        }
        let at = now();
        if let Some(limit) = watch.limit.filter(|_| is_past(end, at)) {
            return Err(TimeLimitExceeded(limit));
        }
        if is_past(slow_at, at) {
            slow_at = None;
            kept = slow.take().map(|slow| slow(at.duration_since(begun)));
        }
        if is_past(keep_alive_at, at) {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = keep_alive() => {}
                () = until(end) => {}
            }
            keep_alive_at = watch.keep_alive_every.map(|every| later(now(), every));
        }
        let _ = &kept;
    }
}

fn is_past(instant: Option<Instant>, at: Instant) -> bool {
    instant.is_some_and(|instant| instant <= at)
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::{pending, ready},
        sync::atomic::{AtomicU32, Ordering},
    };
    use tokio::time::sleep;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn work_is_slow_at_a_tenth_of_its_limit_kept_alive_and_dropped_at_the_limit() {
        let (sent, begun) = (AtomicU32::new(0), now());
        let watch = Watch { limit: Some(100 * SECOND), keep_alive_every: Some(30 * SECOND) };
        let keep_alive = || {
            sent.fetch_add(1, Ordering::Relaxed);
            ready(())
        };
        let mut slow_after = Duration::ZERO;
        let ended = watched(pending::<()>(), watch, |after| slow_after = after, keep_alive).await;
        assert_eq!((ended, slow_after), (Err(TimeLimitExceeded(100 * SECOND)), 10 * SECOND));
        assert_eq!((sent.load(Ordering::Relaxed), now().duration_since(begun)), (3, 100 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_keep_alive_that_gets_no_answer_delays_neither_the_work_nor_its_limit() {
        let watch = Watch { limit: Some(10 * SECOND), keep_alive_every: Some(SECOND) };
        let done = watched(sleep(5 * SECOND), watch, |_| (), pending).await;
        assert_eq!(done, Ok(()), "it ends while the keep-alive is under way");
        let begun = now();
        assert_eq!(
            watched(pending::<()>(), watch, |_| (), pending).await,
            Err(TimeLimitExceeded(10 * SECOND))
        );
        assert_eq!(now().duration_since(begun), 10 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn work_without_a_limit_is_slow_after_a_tenth_of_the_usual_one() {
        let watch = Watch { limit: None, keep_alive_every: None };
        let mut slow_after = None;
        let done =
            watched(sleep(3600 * SECOND), watch, |after| slow_after = Some(after), || ready(()))
                .await;
        assert_eq!((done, slow_after), (Ok(()), Some(TIME_LIMIT / 10)));
    }
}
