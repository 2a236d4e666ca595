//! What follows from a handler's outcome: pure.

use crate::{
    failure::{DeadReason, Decision, RetryPolicy},
    outbox::Awaited,
};
use std::time::Duration;

/// How one run of a handler ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerOutcome {
    /// The handler succeeded, and its work is committed.
    Done,
    /// The handler failed, with this text; its transaction was rolled back.
    Failed(String),
    /// The handler rejected the message, for this reason; its transaction was rolled back.
    Rejected(String),
    /// The message does not decode as the handler's event.
    Undecodable(String),
    /// The handler asked to run again after this time; its transaction was rolled back.
    Snoozed(Duration),
    /// The handler did not run: only an instance that knows this can run it.
    Unknown(Awaited),
}

impl HandlerOutcome {
    /// Gives what `error.type` says of the run: nothing of one that succeeded; `None` where the handler did not
    /// run.
    pub(super) const fn error_type(&self) -> Option<&'static str> {
        match self {
            Self::Done => Some(""),
            Self::Failed(_) => Some("failed"),
            Self::Rejected(_) => Some("rejected"),
            Self::Undecodable(_) => Some("undecodable"),
            Self::Snoozed(_) => Some("snoozed"),
            Self::Unknown(_) => None,
        }
    }
}

/// The runs of one handler with one message so far, the last one included, as the retry policy sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryState {
    /// How many failed.
    pub failures: u32,
    /// Time since the first of them failed.
    pub failing_for: Duration,
    /// For how long the delivery may stay unacknowledged from here on; zero for a stored one.
    pub unacked_time_left: Duration,
}

/// What the consumer does after a run of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextAction {
    /// Goes on with the next handler.
    Done,
    /// Runs the handler again after this wait, while the delivery stays unacknowledged.
    RetryInline(Wait),
    /// Stores the delivery, to run the handler after this wait.
    Defer(Wait),
    /// Hands the delivery over to an instance that knows it.
    HandOver,
    /// Writes a dead letter.
    DeadLetter(DeadReason),
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Up to this; the caller adds jitter.
    Within(Duration),
    /// Exactly this.
    Exactly(Duration),
}

/// Shortest snooze: a handler that runs again at once would snooze again.
const SHORTEST_SNOOZE: Duration = Duration::from_millis(100);

/// Says what the consumer does after a run of a handler.
///
/// The delivery stays unacknowledged during waits whose sum fits the limit for that; for a longer wait the
/// delivery is stored.
#[must_use]
pub fn next_action(
    outcome: &HandlerOutcome,
    state: RetryState,
    policy: &RetryPolicy,
) -> NextAction {
    let (wait, longest) = match outcome {
        HandlerOutcome::Done => return NextAction::Done,
        HandlerOutcome::Rejected(_) => return NextAction::DeadLetter(DeadReason::Rejected),
        HandlerOutcome::Undecodable(_) => return NextAction::DeadLetter(DeadReason::Undecodable),
        HandlerOutcome::Unknown(_) => return NextAction::HandOver,
        HandlerOutcome::Failed(_) => match policy.decide(state.failures, state.failing_for) {
            Decision::RetryWithin(wait) => (Wait::Within(wait), wait),
            Decision::GiveUp => return NextAction::DeadLetter(DeadReason::Exhausted),
        },
        HandlerOutcome::Snoozed(wait) => {
            let wait = (*wait).max(SHORTEST_SNOOZE);
            (Wait::Exactly(wait), wait)
        }
    };
    if longest < state.unacked_time_left {
        NextAction::RetryInline(wait)
    } else {
        NextAction::Defer(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::AckDecision;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> RetryPolicy {
        RetryPolicy::attempts(3, SECOND).max_backoff(2 * SECOND)
    }

    fn runs(failures: u32, unacked_time_left: u32) -> RetryState {
        RetryState {
            failures,
            failing_for: Duration::ZERO,
            unacked_time_left: unacked_time_left * SECOND,
        }
    }

    #[test]
    fn a_failure_is_retried_until_the_policy_ends_and_then_given_up() {
        let failed = HandlerOutcome::Failed("no".into());
        let steps: Vec<NextAction> =
            (1..=4).map(|n| next_action(&failed, runs(n, 10), &policy())).collect();
        let hold = |seconds: u32| NextAction::RetryInline(Wait::Within(seconds * SECOND));
        let end = NextAction::DeadLetter(DeadReason::Exhausted);
        assert_eq!(steps, [hold(1), hold(2), end.clone(), end]);
    }

    #[test]
    fn a_delivery_that_would_stay_unacknowledged_too_long_is_stored() {
        let failed = HandlerOutcome::Failed("no".into());
        for (left, n, expected) in [
            (3, 2, NextAction::RetryInline(Wait::Within(2 * SECOND))),
            (2, 2, NextAction::Defer(Wait::Within(2 * SECOND))),
            (2, 1, NextAction::RetryInline(Wait::Within(SECOND))),
            (0, 1, NextAction::Defer(Wait::Within(SECOND))),
            (0, 3, NextAction::DeadLetter(DeadReason::Exhausted)),
        ] {
            assert_eq!(next_action(&failed, runs(n, left), &policy()), expected, "{left} {n}");
        }
    }

    #[test]
    fn the_policy_also_ends_by_time() {
        let (policy, failed) =
            (policy().endless().give_up_after(SECOND), HandlerOutcome::Failed(String::new()));
        let late = RetryState { failing_for: SECOND, ..runs(1, 10) };
        assert_eq!(
            next_action(&failed, late, &policy),
            NextAction::DeadLetter(DeadReason::Exhausted)
        );
        assert_eq!(
            next_action(&failed, runs(99, 10), &policy),
            NextAction::RetryInline(Wait::Within(2 * SECOND))
        );
    }

    #[test]
    fn a_final_outcome_is_final_at_any_run() {
        for n in [1, 3, 99] {
            for (outcome, step) in [
                (HandlerOutcome::Done, NextAction::Done),
                (
                    HandlerOutcome::Rejected("x".into()),
                    NextAction::DeadLetter(DeadReason::Rejected),
                ),
                (
                    HandlerOutcome::Undecodable("x".into()),
                    NextAction::DeadLetter(DeadReason::Undecodable),
                ),
                (
                    HandlerOutcome::Unknown(Awaited::Saga { name: "x".into(), version: 2 }),
                    NextAction::HandOver,
                ),
            ] {
                assert_eq!(next_action(&outcome, runs(n, 0), &policy()), step);
            }
        }
    }

    #[test]
    fn a_short_snooze_is_waited_for_a_long_one_stored_and_none_is_a_failure() {
        let snoozed = |seconds: u32| HandlerOutcome::Snoozed(seconds * SECOND);
        assert_eq!(
            next_action(&snoozed(1), runs(2, 10), &policy()),
            NextAction::RetryInline(Wait::Exactly(SECOND))
        );
        assert_eq!(
            next_action(&snoozed(30), runs(0, 10), &policy()),
            NextAction::Defer(Wait::Exactly(30 * SECOND))
        );
        assert_eq!(
            next_action(&snoozed(1), runs(9, 10), &policy()),
            NextAction::RetryInline(Wait::Exactly(SECOND))
        );
        assert_eq!(
            next_action(&snoozed(0), runs(0, 10), &policy()),
            NextAction::RetryInline(Wait::Exactly(SHORTEST_SNOOZE))
        );
    }

    #[test]
    fn a_wait_without_end_is_stored_whatever_the_delivery_may_wait_for() {
        let endless = policy().backoff(Duration::MAX).max_backoff(Duration::MAX).endless();
        let failed = HandlerOutcome::Failed(String::new());
        for left in [Duration::ZERO, SECOND, Duration::MAX] {
            let state = RetryState { unacked_time_left: left, ..runs(1, 0) };
            for (outcome, wait) in [
                (HandlerOutcome::Snoozed(Duration::MAX), Wait::Exactly(Duration::MAX)),
                (failed.clone(), Wait::Within(Duration::MAX)),
            ] {
                assert_eq!(next_action(&outcome, state, &endless), NextAction::Defer(wait));
                assert!(wait.spread() <= Duration::MAX, "it has a jitter");
            }
        }
    }

    #[test]
    fn of_several_ack_decisions_the_one_that_gives_another_attempt_counts() {
        let reject = || AckDecision::Reject("x".into());
        assert_eq!(AckDecision::Ack.max(reject()), reject());
        assert_eq!(reject().max(AckDecision::Nack), AckDecision::Nack);
        assert_eq!(AckDecision::Ack.max(AckDecision::Ack), AckDecision::Ack);
    }
}
