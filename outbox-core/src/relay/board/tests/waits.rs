//! Waits that a destination asks for, and those of retry policies, of any length.

use super::{
    controls::{Paused, SECOND},
    *,
};
use crate::failure::RetryPolicy;

/// Gives for how long the event of a failed attempt waits.
fn waits(policy: Option<RetryPolicy>, attempt: Attempt) -> Duration {
    let mut route = Route::new("billing", everything(), Nowhere);
    if let Some(policy) = policy {
        route = route.retry(policy);
    }
    let mut one = Paused::new(RelaySettings::default(), vec![route]);
    one.read(&[("orders", Some("7"))]);
    assert_eq!(one.starts(), [1]);
    one.board.published(0, vec![(EventId(1), attempt)], true, one.now);
    let timers = one.board.take_timers();
    assert_eq!(timers.len(), 1, "{timers:?}");
    timers[0].at.duration_since(one.now)
}

#[test]
fn a_wait_of_any_length_has_a_floor_and_a_ceiling_and_ends_no_relay() {
    const DAY: Duration = Duration::from_hours(24);
    const CENTURY: Duration = Duration::from_hours(24 * 36_525);
    let busy = |wait| Attempt::Busy { wait };
    let asked = |retry_after| Attempt::Failed {
        class: FailureClass::Transient,
        text: "later".to_owned(),
        retry_after,
        responded: true,
    };
    let patient = RetryPolicy::default().backoff(Duration::MAX).max_backoff(Duration::MAX);
    // The jitter of the board is a half here.
    for (policy, attempt, expected) in [
        (None, busy(Duration::ZERO), SECOND / 5),
        (None, busy(Duration::from_nanos(1)), SECOND / 5),
        (None, busy(4 * SECOND), 3 * SECOND),
        (None, busy(Duration::MAX), DAY / 4 * 3),
        (None, asked(None), SECOND / 2),
        (None, asked(Some(Duration::ZERO)), SECOND / 2),
        (None, asked(Some(40 * SECOND)), 40 * SECOND),
        (None, asked(Some(Duration::MAX)), DAY),
        (Some(patient), asked(None), CENTURY),
    ] {
        let text = format!("{attempt:?}");
        assert_eq!(waits(policy, attempt), expected, "{text}");
    }
}
