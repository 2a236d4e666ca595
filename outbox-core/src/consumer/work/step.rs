//! What follows from a handler's verdict: pure.

use crate::{
    failure::{DeadReason, Decision, RetryPolicy},
    outbox::Awaited,
};
use std::time::Duration;

/// What became of one run of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It did its work, and the work is committed.
    Done,
    /// It failed, with this text; all was rolled back.
    Failed(String),
    /// It said that it never will, and why; all was rolled back.
    Rejected(String),
    /// The message does not decode as the event that it takes.
    Undecodable(String),
    /// It asked to be run again after this time; all was rolled back.
    Snoozed(Duration),
    /// It did not run: it takes an instance that knows this.
    Unknown(Awaited),
}

/// Runs of one handler with one message so far, the last one included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runs {
    /// How many failed.
    pub failures: u32,
    /// Time since the first of them failed.
    pub failing_for: Duration,
    /// For how long the delivery may be held from here on; zero for one that is stored already.
    pub hold_left: Duration,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing; the next handler's turn.
    Finish,
    /// Hold the delivery, and run the handler again after this wait.
    Hold(Wait),
    /// Store the delivery, to be handled after this wait.
    Store(Wait),
    /// Leave it to an instance that knows it.
    Leave,
    /// Give it up.
    Bury(DeadReason),
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Up to this; the caller adds jitter.
    Within(Duration),
    /// Exactly this.
    Exactly(Duration),
}

/// Shortest snooze: a handler that is asked again at once will not know more.
const SHORTEST_SNOOZE: Duration = Duration::from_millis(100);

/// Says what follows from a handler's verdict.
///
/// Waits are spent while the delivery is unacknowledged as long as their sum stays within the hold time; what would take
/// longer is stored.
#[must_use]
pub fn next_step(verdict: &Verdict, runs: Runs, policy: &RetryPolicy) -> Step {
    let (wait, longest) = match verdict {
        Verdict::Done => return Step::Finish,
        Verdict::Rejected(_) => return Step::Bury(DeadReason::Rejected),
        Verdict::Undecodable(_) => return Step::Bury(DeadReason::Undecodable),
        Verdict::Unknown(_) => return Step::Leave,
        Verdict::Failed(_) => match policy.decide(runs.failures, runs.failing_for) {
            Decision::RetryWithin(wait) => (Wait::Within(wait), wait),
            Decision::GiveUp => return Step::Bury(DeadReason::Exhausted),
        },
        Verdict::Snoozed(wait) => {
            let wait = (*wait).max(SHORTEST_SNOOZE);
            (Wait::Exactly(wait), wait)
        }
    };
    if longest < runs.hold_left { Step::Hold(wait) } else { Step::Store(wait) }
}

/// What the transport is told. Ordered: of several handlers' answers the greatest counts, because a returned delivery
/// gives every handler its chance again, and those that are done are recognised by the inbox.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::consumer) enum Answer {
    Ack,
    Reject(String),
    Nack,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> RetryPolicy {
        RetryPolicy::attempts(3, SECOND).max_backoff(2 * SECOND)
    }

    fn runs(failures: u32, hold_left: u32) -> Runs {
        Runs { failures, failing_for: Duration::ZERO, hold_left: hold_left * SECOND }
    }

    #[test]
    fn a_failure_is_retried_until_the_policy_ends_and_then_given_up() {
        let failed = Verdict::Failed("no".into());
        let steps: Vec<Step> =
            (1..=4).map(|n| next_step(&failed, runs(n, 10), &policy())).collect();
        let hold = |seconds: u32| Step::Hold(Wait::Within(seconds * SECOND));
        let end = Step::Bury(DeadReason::Exhausted);
        assert_eq!(steps, [hold(1), hold(2), end.clone(), end]);
    }

    #[test]
    fn what_would_be_held_too_long_is_stored() {
        let failed = Verdict::Failed("no".into());
        for (left, n, expected) in [
            (3, 2, Step::Hold(Wait::Within(2 * SECOND))),
            (2, 2, Step::Store(Wait::Within(2 * SECOND))),
            (2, 1, Step::Hold(Wait::Within(SECOND))),
            (0, 1, Step::Store(Wait::Within(SECOND))),
            (0, 3, Step::Bury(DeadReason::Exhausted)),
        ] {
            assert_eq!(next_step(&failed, runs(n, left), &policy()), expected, "{left} {n}");
        }
    }

    #[test]
    fn the_policy_also_ends_by_time() {
        let (policy, failed) =
            (policy().endless().give_up_after(SECOND), Verdict::Failed(String::new()));
        let late = Runs { failing_for: SECOND, ..runs(1, 10) };
        assert_eq!(next_step(&failed, late, &policy), Step::Bury(DeadReason::Exhausted));
        assert_eq!(next_step(&failed, runs(99, 10), &policy), Step::Hold(Wait::Within(2 * SECOND)));
    }

    #[test]
    fn what_is_final_is_final_at_any_run() {
        for n in [1, 3, 99] {
            for (verdict, step) in [
                (Verdict::Done, Step::Finish),
                (Verdict::Rejected("x".into()), Step::Bury(DeadReason::Rejected)),
                (Verdict::Undecodable("x".into()), Step::Bury(DeadReason::Undecodable)),
                (Verdict::Unknown(Awaited::Saga { name: "x".into(), version: 2 }), Step::Leave),
            ] {
                assert_eq!(next_step(&verdict, runs(n, 0), &policy()), step);
            }
        }
    }

    #[test]
    fn a_short_snooze_is_waited_for_a_long_one_stored_and_none_is_a_failure() {
        let snoozed = |seconds: u32| Verdict::Snoozed(seconds * SECOND);
        assert_eq!(
            next_step(&snoozed(1), runs(2, 10), &policy()),
            Step::Hold(Wait::Exactly(SECOND))
        );
        assert_eq!(
            next_step(&snoozed(30), runs(0, 10), &policy()),
            Step::Store(Wait::Exactly(30 * SECOND))
        );
        assert_eq!(
            next_step(&snoozed(1), runs(9, 10), &policy()),
            Step::Hold(Wait::Exactly(SECOND))
        );
        assert_eq!(
            next_step(&snoozed(0), runs(0, 10), &policy()),
            Step::Hold(Wait::Exactly(SHORTEST_SNOOZE))
        );
    }

    #[test]
    fn of_several_answers_the_one_that_gives_another_chance_counts() {
        let reject = || Answer::Reject("x".into());
        assert_eq!(Answer::Ack.max(reject()), reject());
        assert_eq!(reject().max(Answer::Nack), Answer::Nack);
        assert_eq!(Answer::Ack.max(Answer::Ack), Answer::Ack);
    }
}
