//! Waiting for something to become true, with a deadline. A wait in vain says what it waited for, and what it saw.

use std::{fmt::Debug, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// The first pause between two looks; most waits end within a few of them.
const SHORTEST_STEP: Duration = Duration::from_millis(2);

/// The longest pause between two looks: what a wait may come late by.
const LONGEST_STEP: Duration = Duration::from_millis(50);

/// A look that the deadline cuts off after less is not worth a word.
const HANGS: Duration = Duration::from_millis(500);

/// What one look at a condition gives: whether it holds, and if not, what was seen in its place.
pub trait Look {
    /// Gives what was seen where the condition does not hold.
    ///
    /// # Errors
    /// The condition does not hold.
    fn holds(self) -> Result<(), String>;
}

impl Look for bool {
    fn holds(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("it did not hold".to_owned()) }
    }
}

impl Look for Result<(), String> {
    fn holds(self) -> Result<(), String> {
        self
    }
}

/// A look that holds when something is as wanted.
///
/// # Errors
/// It is not; the text shows both.
pub fn equals<S: PartialEq<W> + Debug, W: Debug>(seen: S, wanted: W) -> Result<(), String> {
    if seen == wanted { Ok(()) } else { Err(format!("{seen:?} in place of {wanted:?}")) }
}

/// A look that holds when something is more than a bound.
///
/// # Errors
/// It is not; the text shows both.
pub fn above<S: PartialOrd<W> + Debug, W: Debug>(seen: S, bound: W) -> Result<(), String> {
    if seen > bound { Ok(()) } else { Err(format!("{seen:?}, not above {bound:?}")) }
}

/// Waits until a condition holds, looking again in small steps.
///
/// # Panics
/// When it does not hold within the deadline; the message is `what`, and what was seen last. A look that hangs counts as one
/// that says no.
pub async fn wait_until<L: Look>(
    deadline: Duration,
    what: &str,
    condition: impl AsyncFnMut() -> L,
) {
    if let Err(seen) = watch(deadline, condition).await {
        panic!("not within {deadline:?}: {what}; {seen}");
    }
}

/// Waits for the end of something.
///
/// # Panics
/// When it does not end within the deadline; the message is `what`.
pub async fn in_time<T>(deadline: Duration, what: &str, work: impl Future<Output = T>) -> T {
    match timeout(deadline, work).await {
        Ok(done) => done,
        Err(_) => panic!("not within {deadline:?}: {what}"),
    }
}

/// Tells whether a condition comes to hold within a time, looking again in small steps.
///
/// # Cancel safety
/// The look that is under way is dropped at the deadline.
pub async fn holds_within<L: Look>(deadline: Duration, condition: impl AsyncFnMut() -> L) -> bool {
    watch(deadline, condition).await.is_ok()
}

/// Looks until a condition holds, or says what was seen until the deadline.
async fn watch<L: Look>(
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> L,
) -> Result<(), String> {
    let mut steps = Steps::until(deadline);
    let (mut looks, mut seen) = (0_u32, "nothing".to_owned());
    loop {
        let begun = Instant::now();
        match timeout(steps.left(), condition()).await.map(Look::holds) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(instead)) => (looks, seen) = (looks + 1, instead),
            Err(_) if begun.elapsed() < HANGS => {
                return Err(format!("seen last of {looks} times: {seen}"));
            }
            Err(_) => {
                let hung = begun.elapsed();
                return Err(format!(
                    "seen last of {looks} times: {seen}; the next look took over {hung:?}"
                ));
            }
        }
        if !steps.next().await {
            return Err(format!("seen last of {looks} times: {seen}"));
        }
    }
}

/// Pauses between looks, growing, up to a deadline. For loops whose futures must be `Send`, which the compiler cannot see
/// of those that hold an async closure.
pub(crate) struct Steps {
    end: Instant,
    step: Duration,
}

impl Steps {
    /// Begins now.
    pub(crate) fn until(deadline: Duration) -> Self {
        Self { end: Instant::now() + deadline, step: SHORTEST_STEP }
    }

    /// Tells how much time is left.
    fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Pauses, and tells whether there is time for another look.
    pub(crate) async fn next(&mut self) -> bool {
        let left = self.left();
        sleep(self.step.min(left)).await;
        self.step = (self.step * 2).min(LONGEST_STEP);
        !left.is_zero()
    }
}
