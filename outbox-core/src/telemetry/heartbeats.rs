//! Heartbeats: what the actors of a running part note for its health.

use super::health::{DatabaseFact, Health, LeaseFact, PartFacts, health};
use crate::runtime::now;
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// An instant that an actor notes and a handle reads: microseconds from the start, and one more; 0
/// for never.
#[derive(Debug, Default)]
struct Beat(AtomicU64);

/// The heartbeats of one part: its actors note them, its handle reads them.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    started: Instant,
    running: AtomicBool,
    /// Whether the database has ever answered.
    reached: AtomicBool,
    /// The first poll of those that have failed since the last answer.
    failing: Beat,
    renewed: Beat,
    polling: Beat,
    waits_for_turn: AtomicBool,
}

impl Default for Heartbeats {
    fn default() -> Self {
        Self {
            started: now(),
            running: AtomicBool::new(true),
            reached: AtomicBool::new(false),
            failing: Beat::default(),
            renewed: Beat::default(),
            polling: Beat::default(),
            waits_for_turn: AtomicBool::new(false),
        }
    }
}

impl Heartbeats {
    /// Runs a part; it counts as ended when the future has ended or was dropped.
    pub(crate) async fn while_running<F: Future>(&self, part: F) -> F::Output {
        let _ended = OnDrop(|| self.running.store(false, Relaxed));
        part.await
    }

    /// Waits for the database's answer to a poll, and notes both.
    pub(crate) async fn polled<T, E>(
        &self,
        poll: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.note(&self.polling);
        let _ended = OnDrop(|| self.polling.0.store(0, Relaxed));
        self.noted(poll.await)
    }

    /// Notes whether the database has answered.
    pub(crate) fn noted<T, E>(&self, answer: Result<T, E>) -> Result<T, E> {
        if answer.is_ok() {
            self.reached.store(true, Relaxed);
            self.failing.0.store(0, Relaxed);
        } else if self.failing.0.load(Relaxed) == 0 {
            self.note(&self.failing);
        }
        answer
    }

    /// Notes that the lease was renewed, and whether the part waits for its turn.
    pub(crate) fn renewed(&self, waits_for_turn: bool) {
        self.waits_for_turn.store(waits_for_turn, Relaxed);
        self.note(&self.renewed);
    }

    fn note(&self, beat: &Beat) {
        let micros = now().saturating_duration_since(self.started).as_micros();
        beat.0.store(u64::try_from(micros).unwrap_or(u64::MAX).saturating_add(1), Relaxed);
    }

    fn since(&self, beat: &Beat) -> Option<Duration> {
        let at = beat.0.load(Relaxed).checked_sub(1)?;
        let age = now().saturating_duration_since(self.started);
        Some(age.saturating_sub(Duration::from_micros(at)))
    }
}

/// Gives the health of one running part, as long as anybody asks: it outlives the part's handle.
/// Cloning is cheap.
#[derive(Debug, Clone)]
pub struct HealthCheck {
    part: Arc<str>,
    heartbeats: Arc<Heartbeats>,
    /// How long the database may fail, and a poll may last.
    limit: Duration,
    /// How long a lease lasts, where the part needs one.
    lease: Option<Duration>,
}

impl HealthCheck {
    /// Makes the check of a part that needs no lease.
    pub(crate) fn new(
        part: impl Into<Arc<str>>,
        heartbeats: Arc<Heartbeats>,
        limit: Duration,
    ) -> Self {
        Self { part: part.into(), heartbeats, limit, lease: None }
    }

    /// Makes the check of a part that needs a lease.
    pub(crate) fn with_lease(self, lease: Duration) -> Self {
        Self { lease: Some(lease), ..self }
    }

    /// Gives what is known of the part.
    #[must_use]
    pub fn facts(&self) -> PartFacts {
        let beats = &*self.heartbeats;
        let renewed = beats.since(&beats.renewed);
        let lease = match self.lease {
            None => LeaseFact::NotNeeded,
            Some(lease) if renewed.is_none_or(|ago| ago > lease) => LeaseFact::Missing,
            Some(_) if beats.waits_for_turn.load(Relaxed) => LeaseFact::WaitsForTurn,
            Some(_) => LeaseFact::Held,
        };
        let database = match beats.since(&beats.failing) {
            _ if !beats.reached.load(Relaxed) => DatabaseFact::NotReached,
            Some(time) => DatabaseFact::FailsFor(time),
            None => DatabaseFact::Answers,
        };
        PartFacts {
            part: self.part.clone(),
            running: beats.running.load(Relaxed),
            database,
            lease,
            polling: beats.since(&beats.polling),
            limit: self.limit,
        }
    }

    /// Gives the health of the part alone. See [`health`] for a process of several.
    #[must_use]
    pub fn health(&self) -> Health {
        health(&[self.facts()])
    }
}

/// Does something at the end of a scope, also where a future is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::future::{pending, ready};
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);

    fn check(heartbeats: &Arc<Heartbeats>) -> HealthCheck {
        HealthCheck::new("relay", heartbeats.clone(), 10 * SECOND).with_lease(10 * SECOND)
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_is_ready_while_its_database_answers_and_its_lease_is_renewed() {
        let heartbeats = Arc::new(Heartbeats::default());
        let check = check(&heartbeats);
        let lacks = || -> Vec<&str> { check.health().reasons.iter().map(|it| it.lacks).collect() };
        assert_eq!((lacks(), check.health().live), (vec!["database", "lease"], true));
        assert_eq!(heartbeats.polled(ready(Ok::<_, ()>(1))).await, Ok(1));
        assert_eq!(lacks(), ["lease"]);
        heartbeats.renewed(false);
        assert_eq!((check.facts().lease, lacks()), (LeaseFact::Held, Vec::new()));
        heartbeats.renewed(true);
        assert_eq!((check.facts().lease, lacks()), (LeaseFact::WaitsForTurn, Vec::new()));

        advance(9 * SECOND).await;
        assert_eq!(heartbeats.noted(Err::<(), _>("down")), Err("down"));
        advance(2 * SECOND).await;
        assert_eq!(lacks(), ["lease"], "the database has failed for a moment only");
        assert_eq!(heartbeats.noted(Err::<(), _>("down")), Err("down"));
        advance(9 * SECOND).await;
        assert_eq!(check.facts().database, DatabaseFact::FailsFor(11 * SECOND));
        assert_eq!(lacks(), ["database", "lease"]);
        assert_eq!(heartbeats.noted(Ok::<_, ()>(2)), Ok(2));
        heartbeats.renewed(false);
        assert!(check.health().ready, "{:?}", check.health());
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_that_does_not_end_is_seen_and_one_that_is_dropped_is_not() {
        let heartbeats = Arc::new(Heartbeats::default());
        let check = check(&heartbeats);
        let mut poll = Box::pin(heartbeats.polled(pending::<Result<(), ()>>()));
        assert!((&mut poll).now_or_never().is_none());
        advance(12 * SECOND).await;
        assert_eq!(check.facts().polling, Some(12 * SECOND));
        drop(poll);
        assert_eq!(check.facts().polling, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_has_ended_when_its_future_has_ended_or_was_dropped() {
        for is_dropped in [false, true] {
            let heartbeats = Arc::new(Heartbeats::default());
            let check = check(&heartbeats);
            assert!(check.facts().running);
            if is_dropped {
                let mut part = Box::pin(heartbeats.while_running(pending::<()>()));
                assert!((&mut part).now_or_never().is_none());
                assert!(check.facts().running);
                drop(part);
            } else {
                heartbeats.while_running(ready(())).await;
            }
            assert!(!check.facts().running && !check.health().live);
        }
    }
}
