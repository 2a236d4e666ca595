//! A process of several parts, which run until a signal stops the process or until one of them ends
//! by itself.

use super::{
    Shutdown, catch_unwind,
    full_text::{BoxError, full_text},
    later, now,
};
use futures_util::{
    FutureExt, Stream, StreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use std::{
    future::Future,
    time::{Duration, Instant},
};

/// How long a part may exceed its deadline: the framework's own close their connections in that
/// time, for which they take 1 s.
const GRACE: Duration = Duration::from_secs(2);

/// A running part of a process, for [`run_until_signal`]: a relay, a consumer or a coordinator of
/// sagas (by `into()`), or a part of your own.
pub struct Running {
    name: String,
    shutdown: Shutdown,
    finished: BoxFuture<'static, Result<(), BoxError>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Running {
    /// Describes a part of your own: its name for logs, the signal that asks it to stop, and the
    /// future that ends when it has stopped. A panic of that future counts as an error.
    ///
    /// ```
    /// # use outbox_core::runtime::{Running, Shutdown};
    /// # async fn serve(_: Shutdown) -> Result<(), std::io::Error> { Ok(()) }
    /// let shutdown = Shutdown::default();
    /// let server = Running::new("the HTTP server", shutdown.clone(), serve(shutdown));
    /// ```
    pub fn new<E: Into<BoxError>>(
        name: impl Into<String>,
        shutdown: Shutdown,
        finished: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> Self {
        let finished = catch_unwind(finished).map(|outcome| match outcome {
            Ok(result) => result.map_err(Into::into),
            Err(panic) => Err(format!("a panic: {panic}").into()),
        });
        Self { name: name.into(), shutdown, finished: finished.boxed() }
    }
}

/// Why [`run_until_signal`] did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The process cannot listen for signals.
    #[error("the process cannot listen for signals")]
    Signals(#[source] std::io::Error),
    /// A part gave up before any signal came; the others were shut down.
    #[error("{part} gave up")]
    GaveUp {
        /// The part's name.
        part: String,
        /// Why the part gave up.
        source: BoxError,
    },
    /// A part ended before any signal came, without an error; the others were shut down.
    #[error("{part} ended before a signal stopped the process")]
    EndedEarly {
        /// The part's name.
        part: String,
    },
    /// A part did not end well after the signal.
    #[error("{part} did not end well")]
    Unclean {
        /// The part's name.
        part: String,
        /// What went wrong.
        source: BoxError,
    },
    /// Parts had not ended 2 s after their deadline; they run until the process exits.
    #[error("not ended within the time for the shutdown: {parts}")]
    Overdue {
        /// The names of the parts, separated by commas.
        parts: String,
    },
}

/// Runs until SIGTERM or Ctrl-C, then shuts the parts down in the order given.
///
/// All parts share the time. A part is asked to stop when the parts before it have ended, or have
/// taken half of the time that was left. Give consumers first, then sagas, relays last: so the relay
/// still publishes what the last handlers emit. A second signal ends the time for all parts. 2 s
/// after the time is up the call returns, whatever still runs.
///
/// # Errors
/// [`ProcessError::GaveUp`] or [`ProcessError::EndedEarly`] when a part ends by itself: the others
/// are shut down in the same way first. [`ProcessError::Unclean`] for a part that does not end well,
/// [`ProcessError::Overdue`] for parts that do not end in time. Of several errors the first is
/// returned, and all are logged. [`ProcessError::Signals`] when the system refuses the listener for
/// signals; nothing is shut down then.
///
/// # Cancel safety
/// A call that is dropped leaves the parts running.
///
/// # Example
/// ```
/// # use outbox_core::runtime::{Running, Shutdown, run_until_signal};
/// # use std::{io, time::Duration};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let shutdown = Shutdown::default();
/// let server = Running::new("server", shutdown, async { Err(io::Error::other("the port is taken")) });
/// let ended = run_until_signal([server], Duration::from_secs(20)).await;
/// assert_eq!(ended.unwrap_err().to_string(), "server gave up");
/// # }
/// ```
pub async fn run_until_signal(
    parts: impl IntoIterator<Item = Running>,
    within: Duration,
) -> Result<(), ProcessError> {
    let signals = signals().map_err(ProcessError::Signals)?;
    run_until(signals, parts.into_iter().collect(), within).await
}

/// The signals that stop a process, by name.
#[cfg(unix)]
fn signals() -> std::io::Result<impl Stream<Item = &'static str> + Unpin> {
    use tokio::signal::unix::{SignalKind, signal};
    let (terminate, interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let streams = (terminate, interrupt);
    Ok(Box::pin(stream::unfold(streams, |(mut terminate, mut interrupt)| async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        Some((name, (terminate, interrupt)))
    })))
}

/// The signals that stop a process, by name.
#[cfg(not(unix))]
fn signals() -> std::io::Result<impl Stream<Item = &'static str> + Unpin> {
    Ok(Box::pin(stream::unfold((), |()| async {
        tokio::signal::ctrl_c().await.ok().map(|()| ("Ctrl-C", ()))
    })))
}

async fn run_until(
    mut signals: impl Stream<Item = &'static str> + Unpin,
    parts: Vec<Running>,
    within: Duration,
) -> Result<(), ProcessError> {
    let mut stops = StopOrder::default();
    let mut running = FuturesUnordered::new();
    for (no, Running { name, shutdown, finished }) in parts.into_iter().enumerate() {
        stops.parts.push(Part { name, shutdown, ended: false });
        running.push(finished.map(move |outcome| (no, outcome)));
    }
    let (mut first_error, mut signalled) = (None, false);
    tokio::select! {
        // A part that listens to the same signal has not ended by itself.
        biased;
        Some(signal) = signals.next() => {
            signalled = true;
            tracing::info!(signal, ?within, "a signal stops the process: its parts are shut down");
        }
        Some((no, outcome)) = running.next() => {
            let part = stops.ended(no);
            first_error = Some(logged(match outcome {
                Ok(()) => ProcessError::EndedEarly { part },
                Err(source) => ProcessError::GaveUp { part, source },
            }));
        }
    }
    stops.begin(within);
    while !running.is_empty() {
        tokio::select! {
            Some((no, outcome)) = running.next() => {
                let part = stops.ended(no);
                if let Err(source) = outcome {
                    let error = logged(ProcessError::Unclean { part, source });
                    first_error = first_error.or(Some(error));
                }
            }
            () = tokio::time::sleep_until(stops.wake_at().into()) => {
                if stops.is_overdue(now()) {
                    let error = logged(ProcessError::Overdue { parts: stops.unended() });
                    return Err(first_error.unwrap_or(error));
                }
            }
            Some(signal) = signals.next() => {
                if signalled {
                    tracing::warn!(signal, "a second signal ends the time for the shutdown");
                    stops.end_time();
                }
                signalled = true;
            }
        }
        stops.ask(now());
    }
    first_error.map_or(Ok(()), Err)
}

/// Logs an error with its causes.
fn logged(error: ProcessError) -> ProcessError {
    let cause = std::error::Error::source(&error).map(full_text).unwrap_or_default();
    tracing::error!(cause, "{error}");
    error
}

struct Part {
    name: String,
    shutdown: Shutdown,
    ended: bool,
}

/// Which part is asked to stop next, and when.
struct StopOrder {
    parts: Vec<Part>,
    /// How many of the parts were asked.
    asked: usize,
    deadline: Instant,
    /// When the next part is asked although earlier ones have not ended.
    next_at: Instant,
}

impl Default for StopOrder {
    fn default() -> Self {
        let now = now();
        Self { parts: Vec::new(), asked: 0, deadline: now, next_at: now }
    }
}

impl StopOrder {
    fn begin(&mut self, within: Duration) {
        let now = now();
        self.deadline = later(now, within);
        self.ask(now);
    }

    /// Notes the end of a part and gives its name.
    fn ended(&mut self, no: usize) -> String {
        self.parts[no].ended = true;
        self.parts[no].name.clone()
    }

    /// Asks the next parts to stop, if the parts that were asked have ended or have taken half of
    /// the time that was left.
    fn ask(&mut self, now: Instant) {
        while self.asked < self.parts.len()
            && (self.parts[..self.asked].iter().all(|part| part.ended) || now >= self.next_at)
        {
            let left = self.deadline.saturating_duration_since(now);
            self.parts[self.asked].shutdown.request(left);
            self.next_at = now + left / 2;
            self.asked += 1;
        }
    }

    /// Gives when to ask the next part, or to give the last ones up.
    fn wake_at(&self) -> Instant {
        if self.asked < self.parts.len() { self.next_at } else { self.deadline + GRACE }
    }

    fn is_overdue(&self, now: Instant) -> bool {
        self.asked == self.parts.len() && now >= self.deadline + GRACE
    }

    fn unended(&self) -> String {
        let names = self.parts.iter().filter(|part| !part.ended).map(|part| &*part.name);
        names.collect::<Vec<_>>().join(", ")
    }

    /// Ends the time for all parts.
    fn end_time(&mut self) {
        self.deadline = now();
        self.parts.iter().for_each(|part| part.shutdown.request(Duration::ZERO));
        self.asked = self.parts.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    type Log = Arc<Mutex<Vec<String>>>;

    /// A part that needs some time for its end, and is cut off at its deadline.
    fn part(name: &'static str, needs: Duration, begun: Instant, log: &Log) -> Running {
        let (shutdown, log) = (Shutdown::default(), log.clone());
        let asked = shutdown.clone();
        Running::new(name, shutdown, async move {
            asked.requested().await;
            let at = begun.elapsed_by_clock();
            log.lock().unwrap().push(format!("{name} asked at {at}"));
            tokio::select! {
                () = tokio::time::sleep(needs) => Ok(()),
                () = asked.expired() => Err(std::io::Error::other("cut off")),
            }
        })
    }

    trait Elapsed {
        fn elapsed_by_clock(&self) -> u64;
    }

    impl Elapsed for Instant {
        fn elapsed_by_clock(&self) -> u64 {
            now().duration_since(*self).as_secs()
        }
    }

    /// Signals that come so many seconds after one another, and none after the last.
    fn after(seconds: &[u64]) -> impl Stream<Item = &'static str> + Unpin + use<> {
        let seconds = seconds.to_vec();
        let timed = stream::iter(seconds).then(|s| async move {
            tokio::time::sleep(Duration::from_secs(s)).await;
            "SIGTERM"
        });
        Box::pin(timed.chain(stream::pending()))
    }

    #[tokio::test(start_paused = true)]
    async fn parts_end_in_their_order() {
        let (log, begun) = (Log::default(), now());
        let parts = ["consumer", "sagas", "relay"];
        let parts = parts.map(|name| part(name, Duration::from_secs(2), begun, &log)).into();
        run_until(after(&[5]), parts, Duration::from_secs(20)).await.unwrap();
        let told = log.lock().unwrap().join(", ");
        assert_eq!(told, "consumer asked at 5, sagas asked at 7, relay asked at 9");
        assert_eq!(begun.elapsed_by_clock(), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_takes_long_leaves_time_to_those_behind_it() {
        let (log, begun) = (Log::default(), now());
        let parts = vec![
            part("consumer", Duration::from_secs(1000), begun, &log),
            part("sagas", Duration::from_secs(1000), begun, &log),
            part("relay", Duration::from_secs(1), begun, &log),
        ];
        let ended = run_until(after(&[0]), parts, Duration::from_secs(20)).await.unwrap_err();
        assert_eq!(ended.to_string(), "consumer did not end well");
        let told = log.lock().unwrap().join(", ");
        assert_eq!(told, "consumer asked at 0, sagas asked at 10, relay asked at 15");
        assert_eq!(begun.elapsed_by_clock(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_gives_up_ends_the_others_and_is_the_error() {
        let (log, begun) = (Log::default(), now());
        let broken = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Err(std::io::Error::other("the database is gone"))
        };
        let parts = vec![
            part("consumer", Duration::from_secs(2), begun, &log),
            Running::new("relay", Shutdown::default(), broken),
        ];
        let ended = run_until(after(&[100]), parts, Duration::from_secs(20)).await.unwrap_err();
        assert!(matches!(&ended, ProcessError::GaveUp { part, source }
            if part == "relay" && source.to_string() == "the database is gone"));
        assert_eq!(begun.elapsed_by_clock(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_ends_early_is_an_error_too() {
        let early = Running::new("consumer", Shutdown::default(), async { Ok::<_, BoxError>(()) });
        let ended =
            run_until(after(&[100]), vec![early], Duration::from_secs(20)).await.unwrap_err();
        assert_eq!(ended.to_string(), "consumer ended before a signal stopped the process");
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_takes_the_time_that_is_left() {
        let (log, begun) = (Log::default(), now());
        let names = ["consumer", "relay"];
        let parts = names.map(|name| part(name, Duration::from_secs(1000), begun, &log)).into();
        let ended = run_until(after(&[5, 1]), parts, Duration::from_secs(60)).await.unwrap_err();
        assert!(matches!(ended, ProcessError::Unclean { .. }), "{ended:?}");
        assert_eq!(begun.elapsed_by_clock(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_without_parts_waits_for_its_signal_and_any_time_is_a_time() {
        let begun = now();
        run_until(after(&[5]), vec![], Duration::MAX).await.unwrap();
        assert_eq!(begun.elapsed_by_clock(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_never_ends_is_named_two_seconds_after_the_time_or_a_second_signal() {
        for (signals, ends_at) in [(&[5][..], 5 + 20 + 2), (&[5, 1][..], 5 + 1 + 2)] {
            let (log, begun) = (Log::default(), now());
            let deaf = std::future::pending::<Result<(), BoxError>>();
            let parts = vec![
                part("consumer", Duration::ZERO, begun, &log),
                Running::new("server", Shutdown::default(), deaf),
            ];
            let ended = run_until(after(signals), parts, Duration::from_secs(20)).await;
            assert!(
                matches!(&ended, Err(ProcessError::Overdue { parts }) if parts == "server"),
                "{ended:?}"
            );
            assert_eq!(begun.elapsed_by_clock(), ends_at);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_signal_after_a_part_has_given_up_leaves_the_others_their_time() {
        let (log, begun) = (Log::default(), now());
        let broken = async { Err(std::io::Error::other("the database is gone")) };
        let parts = vec![
            Running::new("relay", Shutdown::default(), broken),
            part("consumer", Duration::from_secs(4), begun, &log),
        ];
        let ended = run_until(after(&[1]), parts, Duration::from_secs(20)).await.unwrap_err();
        assert_eq!(ended.to_string(), "relay gave up");
        assert_eq!(begun.elapsed_by_clock(), 4, "the consumer has ended by itself");
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_a_part_shuts_the_others_down() {
        let (log, begun) = (Log::default(), now());
        let panics = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            panic!("out of paper");
            #[expect(unreachable_code, reason = "gives the future its type")]
            Ok::<_, BoxError>(())
        };
        let parts = vec![
            part("consumer", Duration::from_secs(2), begun, &log),
            Running::new("printer", Shutdown::default(), panics),
        ];
        let ended = run_until(after(&[100]), parts, Duration::from_secs(20)).await.unwrap_err();
        assert!(matches!(&ended, ProcessError::GaveUp { part, source }
            if part == "printer" && source.to_string() == "a panic: out of paper"));
        assert_eq!(begun.elapsed_by_clock(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_listens_to_the_same_signal_has_not_ended_early() {
        let listens = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok::<_, BoxError>(())
        };
        let parts = vec![Running::new("server", Shutdown::default(), listens)];
        run_until(after(&[5]), parts, Duration::from_secs(20)).await.unwrap();
    }
}
