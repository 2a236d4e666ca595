//! Waiting for something to become true, with a deadline.

use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// The first pause between two looks; most waits end within a few of them.
const SHORTEST_STEP: Duration = Duration::from_millis(2);

/// The longest pause between two looks: what a wait may come late by.
const LONGEST_STEP: Duration = Duration::from_millis(50);

/// Waits until a condition holds, looking again in small steps.
///
/// # Panics
/// When it does not hold within the deadline; the message is `what`. A look that hangs counts as one that says no.
pub async fn wait_until(deadline: Duration, what: &str, condition: impl AsyncFnMut() -> bool) {
    assert!(holds_within(deadline, condition).await, "not within {deadline:?}: {what}");
}

/// Tells whether a condition comes to hold within a time, looking again in small steps.
///
/// # Cancel safety
/// The look that is under way is dropped at the deadline.
pub async fn holds_within(deadline: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let mut steps = Steps::until(deadline);
    loop {
        match timeout(steps.left(), condition()).await {
            Ok(true) => return true,
            Ok(false) if steps.next().await => (),
            Ok(false) | Err(_) => return false,
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
