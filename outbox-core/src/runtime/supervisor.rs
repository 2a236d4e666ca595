//! Starts actors, restarts those that fail, and stops the group when one fails too often.

use super::{
    Exit, Shutdown, Tasks,
    full_text::{BoxError, full_text},
    now,
    retry::RetryPolicy,
};
use futures_util::future::BoxFuture;
use std::{
    collections::BTreeSet,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

type Start = Box<dyn FnMut() -> BoxFuture<'static, Result<(), BoxError>> + Send>;

/// How often a failed actor is started again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Restarts {
    /// Failures in a row that are followed by a restart; the next one stops the group.
    pub limit: u32,
    /// An actor that ran for this long starts counting anew.
    pub forgiven_after: Duration,
    /// Waits between failure and restart.
    pub backoff: RetryPolicy,
    /// Time in which the other actors have to stop when the group gives up.
    pub grace: Duration,
}

impl Default for Restarts {
    /// Five failures in a row, a run of a minute resets the count, 100 ms doubling to 5 s, 10 s to
    /// stop.
    fn default() -> Self {
        Self {
            limit: 5,
            forgiven_after: Duration::from_mins(1),
            backoff: RetryPolicy::default()
                .endless()
                .backoff(Duration::from_millis(100))
                .max_backoff(MAX_BACKOFF),
            grace: Duration::from_secs(10),
        }
    }
}

/// Long enough for a database to come back between two tries, short enough for people who watch.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Exits of all actors, counted by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExitCounts {
    /// Returned without an error.
    pub finished: u64,
    /// Returned an error.
    pub failed: u64,
    /// Panicked.
    pub panicked: u64,
    /// Aborted at the deadline.
    pub aborted: u64,
    /// Started again after a failure.
    pub restarted: u64,
}

/// Why the group did not end well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// An actor failed once more than it may.
    #[error("the actor `{actor}` failed {failures} times in a row, at last with: {cause}")]
    GaveUp {
        /// Its name.
        actor: &'static str,
        /// Failures in a row.
        failures: u32,
        /// The last error with its causes, or the panic's text.
        cause: String,
    },
    /// Actors were still running at the deadline and were aborted.
    #[error("aborted at the deadline: {}", actors.join(", "))]
    Deadline {
        /// Their names.
        actors: Vec<&'static str>,
    },
}

struct Actor {
    name: &'static str,
    start: Start,
    failures: u32,
    started_at: Instant,
}

/// Runs a group of actors until all of them have ended.
pub struct Supervisor {
    shutdown: Shutdown,
    restarts: Restarts,
    actors: Vec<Actor>,
    exits: Arc<watch::Sender<ExitCounts>>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.actors.iter().map(|a| a.name).collect();
        f.debug_struct("Supervisor")
            .field("actors", &names)
            .field("restarts", &self.restarts)
            .finish_non_exhaustive()
    }
}

impl Supervisor {
    /// Makes a group without actors that stops when `shutdown` asks.
    #[must_use]
    pub fn new(shutdown: Shutdown, restarts: Restarts) -> Self {
        Self { shutdown, restarts, actors: Vec::new(), exits: Arc::new(watch::Sender::default()) }
    }

    /// Adds an actor. `start` makes one run of it and is called again for each restart.
    ///
    /// An actor that returns `Ok` is done. One that returns an error or panics is started again
    /// with backoff, up to the limit, unless the group is stopping.
    #[must_use]
    pub fn actor<F, E>(
        mut self,
        name: &'static str,
        mut start: impl FnMut() -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let start: Start = Box::new(move || {
            let run = start();
            Box::pin(async move { run.await.map_err(Into::into) })
        });
        self.actors.push(Actor { name, start, failures: 0, started_at: now() });
        self
    }

    /// Shows the exits, counted.
    #[must_use]
    pub fn exits(&self) -> watch::Receiver<ExitCounts> {
        self.exits.subscribe()
    }

    /// Starts all actors and returns when all have ended; at the deadline those that still run are
    /// aborted.
    ///
    /// # Errors
    /// [`SupervisorError`] with the first cause.
    ///
    /// # Cancel safety
    /// Dropping the call aborts all actors.
    pub async fn run(self) -> Result<(), SupervisorError> {
        let Self { shutdown, restarts, mut actors, exits } = self;
        let mut running = Tasks::default();
        // The actors to start, with their instants; at first all of them now.
        let mut due: BTreeSet<(Instant, usize)> = (0..actors.len()).map(|n| (now(), n)).collect();
        let mut outcome = Ok(());
        while !(running.is_empty() && due.is_empty()) {
            let next_start = due.first().map(|(at, _)| *at);
            tokio::select! {
                biased;
                () = shutdown.expired() => {
                    let mut left: Vec<_> = running.labels().map(|&n: &usize| actors[n].name).collect();
                    left.sort_unstable();
                    exits.send_modify(|c| c.aborted += left.len() as u64);
                    if outcome.is_ok() && !left.is_empty() {
                        outcome = Err(SupervisorError::Deadline { actors: left });
                    }
                    return outcome;
                }
                () = shutdown.requested(), if !due.is_empty() => due.clear(),
                Some((n, exit)) = running.next() => {
                    let actor = &mut actors[n];
                    count(&exits, &exit);
                    let Some(cause) = cause_of(exit) else { continue };
                    tracing::warn!(actor = actor.name, cause, "an actor failed");
                    match after_failure(actor, &restarts, now()) {
                        Some(wait) if !shutdown.is_requested() => { due.insert((now() + wait, n)); }
                        Some(_) => {}
                        None => {
                            if outcome.is_ok() {
                                outcome = Err(SupervisorError::GaveUp { actor: actor.name, failures: actor.failures, cause });
                            }
                            shutdown.request(restarts.grace);
                        }
                    }
                }
                () = tokio::time::sleep_until(next_start.unwrap_or_else(now).into()), if next_start.is_some() => {
                    if let Some((_, n)) = due.pop_first() {
                        let actor = &mut actors[n];
                        if actor.failures > 0 {
                            exits.send_modify(|c| c.restarted += 1);
                        }
                        actor.started_at = now();
                        let run = (actor.start)();
                        running.spawn(n, run);
                    }
                }
            }
        }
        outcome
    }
}

/// Counts the failure; gives the wait before the restart, or `None` when it was one too many.
fn after_failure(actor: &mut Actor, restarts: &Restarts, now: Instant) -> Option<Duration> {
    if now.saturating_duration_since(actor.started_at) >= restarts.forgiven_after {
        actor.failures = 0;
    }
    actor.failures += 1;
    (actor.failures <= restarts.limit).then(|| restarts.backoff.wait_after(actor.failures))
}

fn count(exits: &watch::Sender<ExitCounts>, exit: &Exit<Result<(), BoxError>>) {
    exits.send_modify(|c| match exit {
        Exit::Finished(Ok(())) => c.finished += 1,
        Exit::Finished(Err(_)) => c.failed += 1,
        Exit::Panicked(_) => c.panicked += 1,
        Exit::Cancelled => c.aborted += 1,
    });
}

fn cause_of(exit: Exit<Result<(), BoxError>>) -> Option<String> {
    match exit {
        Exit::Finished(Ok(())) => None,
        Exit::Finished(Err(error)) => Some(full_text(&*error)),
        Exit::Panicked(text) => Some(format!("a panic: {text}")),
        Exit::Cancelled => Some("cancelled".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn counter() -> (Arc<AtomicU32>, Arc<AtomicU32>) {
        let n = Arc::new(AtomicU32::new(0));
        (n.clone(), n)
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_actor_is_started_again_with_backoff() {
        let (runs, seen) = counter();
        let begun = now();
        let supervisor =
            Supervisor::new(Shutdown::default(), Restarts::default()).actor("reader", move || {
                let run = runs.fetch_add(1, Ordering::Relaxed);
                async move {
                    match run {
                        0 => Err("lost"),
                        1 => panic!("odd"),
                        _ => Ok(()),
                    }
                }
            });
        let exits = supervisor.exits();
        assert_eq!(supervisor.run().await, Ok(()));
        assert_eq!(seen.load(Ordering::Relaxed), 3);
        let expected = ExitCounts { finished: 1, failed: 1, panicked: 1, aborted: 0, restarted: 2 };
        assert_eq!(*exits.borrow(), expected);
        assert_eq!(now().duration_since(begun).as_millis() / 100, 3, "100 ms and then 200 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn one_failure_too_many_stops_the_group_with_its_cause() {
        let shutdown = Shutdown::default();
        let other = shutdown.clone();
        let restarts = Restarts { limit: 2, ..Restarts::default() };
        let outcome = Supervisor::new(shutdown, restarts)
            .actor("keeper", move || {
                let other = other.clone();
                async move {
                    other.requested().await;
                    Ok::<_, BoxError>(())
                }
            })
            .actor("reader", || async { Err("the table is gone") })
            .run()
            .await;
        let expected = SupervisorError::GaveUp {
            actor: "reader",
            failures: 3,
            cause: "the table is gone".into(),
        };
        assert_eq!(outcome, Err(expected));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_far_apart_are_forgiven() {
        let (runs, seen) = counter();
        let restarts = Restarts { limit: 1, ..Restarts::default() };
        let outcome = Supervisor::new(Shutdown::default(), restarts)
            .actor("reader", move || {
                let run = runs.fetch_add(1, Ordering::Relaxed);
                async move {
                    tokio::time::sleep(Duration::from_mins(2)).await;
                    if run < 4 { Err("lost") } else { Ok(()) }
                }
            })
            .run()
            .await;
        assert_eq!((outcome, seen.load(Ordering::Relaxed)), (Ok(()), 5));
    }

    #[tokio::test(start_paused = true)]
    async fn an_actor_that_runs_past_the_deadline_is_aborted_and_named() {
        let shutdown = Shutdown::default();
        let asker = shutdown.clone();
        let begun = now();
        let supervisor =
            Supervisor::new(shutdown, Restarts::default()).actor("stubborn", move || {
                asker.request(Duration::from_secs(3));
                std::future::pending::<Result<(), BoxError>>()
            });
        let exits = supervisor.exits();
        assert_eq!(
            supervisor.run().await,
            Err(SupervisorError::Deadline { actors: vec!["stubborn"] })
        );
        assert_eq!((now().duration_since(begun).as_secs(), exits.borrow().aborted), (3, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_restarted_while_stopping() {
        let shutdown = Shutdown::default();
        let (runs, seen) = counter();
        let asker = shutdown.clone();
        let outcome = Supervisor::new(shutdown, Restarts::default())
            .actor("reader", move || {
                runs.fetch_add(1, Ordering::Relaxed);
                let asker = asker.clone();
                async move {
                    asker.request(Duration::from_secs(9));
                    Err("stopped in the middle")
                }
            })
            .run()
            .await;
        assert_eq!((outcome, seen.load(Ordering::Relaxed)), (Ok(()), 1));
    }
}
