//! Waiting for a condition, with a deadline. A wait that fails names the condition and the last
//! value.

use std::{fmt::Debug, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// The first pause between two polls; most waits end within a few of them.
const SHORTEST_STEP: Duration = Duration::from_millis(2);

/// The longest pause between two polls: the delay of a wait's end.
const LONGEST_STEP: Duration = Duration::from_millis(50);

/// A poll that hung for less when the deadline came is not reported.
const HANGS: Duration = Duration::from_millis(500);

/// The result of one poll of a condition: whether it holds, and if not, the value instead.
pub trait Condition {
    /// Gives the value where the condition does not hold.
    ///
    /// # Errors
    /// The condition does not hold.
    fn holds(self) -> Result<(), String>;
}

impl Condition for bool {
    fn holds(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("it did not hold".to_owned()) }
    }
}

impl Condition for Result<(), String> {
    fn holds(self) -> Result<(), String> {
        self
    }
}

/// A condition that holds when a value equals another.
///
/// # Errors
/// It does not; the text shows both.
pub fn equals<S: PartialEq<W> + Debug, W: Debug>(seen: S, wanted: W) -> Result<(), String> {
    if seen == wanted { Ok(()) } else { Err(format!("{seen:?} in place of {wanted:?}")) }
}

/// A condition that holds when a value exceeds a bound.
///
/// # Errors
/// It does not; the text shows both.
pub fn above<S: PartialOrd<W> + Debug, W: Debug>(seen: S, bound: W) -> Result<(), String> {
    if seen > bound { Ok(()) } else { Err(format!("{seen:?}, not above {bound:?}")) }
}

/// Waits until a condition holds, polling in small steps.
///
/// # Panics
/// When it does not hold within the deadline; the message has `what` and the last value. A poll that
/// hangs counts as one that does not hold.
pub async fn wait_until<L: Condition>(
    deadline: Duration,
    what: &str,
    condition: impl AsyncFnMut() -> L,
) {
    if let Err(seen) = poll_until(deadline, condition).await {
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

/// Tells whether a condition comes to hold within a time, polling in small steps.
///
/// # Cancel safety
/// The running poll is dropped at the deadline.
#[must_use = "a test fails by what this tells; else take `wait_until`"]
pub async fn holds_within<L: Condition>(
    deadline: Duration,
    condition: impl AsyncFnMut() -> L,
) -> bool {
    poll_until(deadline, condition).await.is_ok()
}

/// Polls until a condition holds, or gives the last value at the deadline.
async fn poll_until<L: Condition>(
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> L,
) -> Result<(), String> {
    let mut steps = Steps::until(deadline);
    let (mut polls, mut seen) = (0_u32, "nothing".to_owned());
    loop {
        let begun = Instant::now();
        match timeout(steps.left(), condition()).await.map(Condition::holds) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(instead)) => (polls, seen) = (polls + 1, instead),
            Err(_) if begun.elapsed() < HANGS => {
                return Err(format!("seen last of {polls} times: {seen}"));
            }
            Err(_) => {
                let hung = begun.elapsed();
                return Err(format!(
                    "seen last of {polls} times: {seen}; the next poll took over {hung:?}"
                ));
            }
        }
        if !steps.next().await {
            return Err(format!("seen last of {polls} times: {seen}"));
        }
    }
}

/// Growing pauses between polls, up to a deadline. For loops whose futures must be `Send`, which
/// the compiler cannot see of those that hold an async closure.
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

    /// Pauses, and tells whether there is time for another poll.
    pub(crate) async fn next(&mut self) -> bool {
        let left = self.left();
        sleep(self.step.min(left)).await;
        self.step = (self.step * 2).min(LONGEST_STEP);
        !left.is_zero()
    }
}
