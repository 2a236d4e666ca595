//! The attempts of an event on one route: what its row says of them, and what only this process
//! remembers.

use crate::{
    failure::{AttemptError, DeadReason, FailureClass, Rejection},
    outbox::RouteRow,
};
use std::time::{Duration, Instant};

/// The failed attempts of an event on one route.
#[derive(Debug, Default, Clone)]
pub(crate) struct AttemptHistory {
    attempts_started: u32,
    attempts_finished: u32,
    failing_for: Duration,
    errors: Vec<AttemptError>,
    redriven: bool,
    /// The instant of the last counted failure in this process.
    failed_at: Option<Instant>,
    /// The instant of its retry, while it waits for one.
    due_at: Option<Instant>,
    /// Its rejections, of which the destination may be the cause.
    rejection: Option<Rejection>,
    /// The start of its first publish that got no answer.
    hangs_since: Option<Instant>,
    /// Whether [`Notice::StaysRejected`](crate::relay::board::Notice::StaysRejected) was given for
    /// it.
    stay_reported: bool,
    /// How often its destination was down for it, with confirmations of other events in between.
    unavailable_count: u8,
    /// The route's successes at the last of these.
    successes_seen: u64,
    /// Whether the database has recorded the start of the present attempt.
    start_recorded: bool,
    /// Why it was given up, until the dead letter is recorded.
    reason: Option<DeadReason>,
}

impl AttemptHistory {
    pub(super) fn from_row(row: RouteRow, now: Instant) -> Self {
        Self {
            attempts_started: row.attempts_started,
            attempts_finished: row.attempts_finished,
            failing_for: row.failing_for,
            errors: row.errors,
            redriven: row.redriven,
            due_at: row.due_in.map(|d| now + d),
            ..Self::default()
        }
    }

    /// Writes what the database keeps of it to a row; gives the time until its retry.
    pub(super) fn fill(&self, row: &mut RouteRow, now: Instant) -> Option<Duration> {
        row.attempts_started = self.attempts_started;
        row.attempts_finished = self.attempts_finished;
        row.failing_for = self.failing_for;
        row.errors.clone_from(&self.errors);
        row.redriven = self.redriven;
        self.due_at.map(|at| at.saturating_duration_since(now))
    }

    /// Gives the number of the present attempt, from 1.
    pub(crate) const fn attempt(&self) -> u32 {
        self.attempts_finished + 1
    }

    /// Tells whether an operator redrove the event.
    pub(super) const fn is_redriven(&self) -> bool {
        self.redriven
    }

    /// Counts a failed attempt; gives how many have failed, and for how long. Time with the breaker
    /// open, from `opened` on, is the destination's failure, not the event's.
    pub(crate) fn count_failure(
        &mut self,
        text: String,
        opened: Option<Instant>,
        now: Instant,
    ) -> (u32, Duration) {
        self.attempts_finished += 1;
        self.add_error(AttemptError::new(self.attempts_finished, FailureClass::Transient, text));
        if let Some(before) = self.failed_at.replace(now)
            && opened.is_none_or(|opened| opened < before)
        {
            self.failing_for += now.saturating_duration_since(before);
        }
        (self.attempts_finished, self.failing_for)
    }

    /// Takes a counted attempt back: its failure was the destination's.
    pub(super) fn refund(&mut self) {
        self.attempts_finished = self.attempts_finished.saturating_sub(1);
    }

    /// Keeps an error of an attempt.
    pub(crate) fn add_error(&mut self, error: AttemptError) {
        AttemptError::push(&mut self.errors, error);
    }

    /// Notes that the destination is down for the event, with how many events it had confirmed by
    /// then. Tells whether that happened more often than `most` times, with confirmations of other
    /// events in between; it is counted from the beginning then.
    pub(crate) fn unavailable(&mut self, successes: u64, most: u8) -> bool {
        if self.successes_seen != successes || self.unavailable_count == 0 {
            self.unavailable_count += 1;
        }
        self.successes_seen = successes;
        let is_too_often = self.unavailable_count > most;
        if is_too_often {
            self.unavailable_count = 0;
        }
        is_too_often
    }

    /// Gives its rejections, which begin now if there were none.
    pub(crate) fn rejection(&mut self, now: Instant) -> &mut Rejection {
        self.rejection.get_or_insert_with(|| Rejection::starting(now))
    }

    /// Notes that another event was confirmed.
    pub(super) fn other_confirmed(&mut self, now: Instant) {
        if let Some(rejection) = &mut self.rejection {
            rejection.other_confirmed(now);
        }
    }

    /// Tells whether it was not reported yet that the event stays rejected; it counts as reported
    /// from here on.
    pub(crate) fn report_stay(&mut self) -> bool {
        !std::mem::replace(&mut self.stay_reported, true)
    }

    /// Notes that a publish that began at an instant got no answer; gives the start of the first
    /// such publish.
    pub(crate) fn hangs_since(&mut self, begun: Instant) -> Instant {
        *self.hangs_since.get_or_insert(begun)
    }

    /// Notes that the destination has responded.
    pub(crate) fn end_hang(&mut self) {
        self.hangs_since = None;
    }

    /// Gives the instant of its retry, while it waits for one.
    pub(super) const fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// Sets the instant of its retry, or that it waits for none.
    pub(super) fn set_due(&mut self, at: Option<Instant>) {
        self.due_at = at;
    }

    /// Gives how many attempts had their start recorded and have not ended.
    pub(super) const fn attempts_started(&self) -> u32 {
        self.attempts_started
    }

    /// Counts the start of an attempt, which is recorded before it.
    pub(super) fn count_start(&mut self) {
        self.attempts_started += 1;
    }

    /// Notes that the start of the present attempt is recorded.
    pub(super) fn start_recorded(&mut self) {
        self.start_recorded = true;
    }

    /// Tells whether the database has recorded the start of the present attempt.
    pub(super) const fn is_start_recorded(&self) -> bool {
        self.start_recorded
    }

    /// Notes that the present attempt has ended; tells whether its start was recorded.
    pub(super) fn end_start(&mut self) -> bool {
        std::mem::take(&mut self.start_recorded)
    }

    /// Forgets the recorded starts: none of them has ended the process.
    pub(super) fn forget_starts(&mut self) {
        self.attempts_started = 0;
    }

    /// Notes why the event is given up. The attempt that was rejected counts.
    pub(super) fn give_up(&mut self, reason: DeadReason, error: Option<AttemptError>) {
        self.reason = Some(reason);
        if reason == DeadReason::Rejected {
            self.attempts_finished += 1;
        }
        if let Some(error) = error {
            self.add_error(error);
        }
    }

    /// Takes why the event was given up, for its dead letter.
    pub(super) fn take_reason(&mut self) -> Option<DeadReason> {
        self.reason.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_counts_and_keeps_its_errors() {
        let (mut history, start) = (AttemptHistory::default(), Instant::now());
        for attempt in 0..=20 {
            let now = start + Duration::from_secs(3) * attempt;
            history.count_failure(format!("no {attempt}"), None, now);
        }
        assert_eq!(
            (history.attempts_finished, history.failing_for),
            (21, Duration::from_secs(60)),
            "the first failure begins the time"
        );
        let kept: Vec<u32> = history.errors.iter().map(|e| e.attempt).collect();
        assert_eq!(kept, [1, 13, 14, 15, 16, 17, 18, 19, 20, 21]);
    }

    #[test]
    fn a_destination_that_is_down_for_one_event_counts_where_others_are_confirmed_between() {
        for (successes, expected) in [
            (vec![0, 0, 0, 0, 0], vec![false; 5]),
            (vec![1, 2, 3, 4, 5], vec![false, false, false, true, false]),
            (vec![1, 1, 2, 2, 3, 3, 4], vec![false, false, false, false, false, false, true]),
        ] {
            let mut history = AttemptHistory::default();
            let seen: Vec<bool> = successes.iter().map(|n| history.unavailable(*n, 3)).collect();
            assert_eq!(seen, expected, "{successes:?}");
        }
    }
}
