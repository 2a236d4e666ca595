//! Failed publishes: whether the event or its destination is the cause.

use crate::relay::board::{
    Board, Notice, RouteNo,
    entries::{AttemptHistory, EventEntry, LegEvent, RouteLeg},
};
use crate::{
    event::EventId,
    failure::{AttemptError, DeadReason, Decision, Failure, FailureClass, Rejected, loggable_text},
};
use std::time::{Duration, Instant};

/// Pause after a connection broke under one event while others were confirmed.
const SHORT_RETRY: Duration = Duration::from_millis(200);
/// Longest wait that a destination may ask for: one that needs more asks again.
const LONGEST_ASKED: Duration = Duration::from_hours(24);
/// How often a destination may be down for an event, with confirmations of others in between,
/// before that counts as the event's own failure.
const MAX_UNAVAILABLE: u8 = 3;
/// How long a confirmation of another event proves that a publish which hangs is the event's own
/// failure.
const EVIDENCE_AGE: Duration = Duration::from_mins(1);

/// A publish that failed, with all that decides about it.
pub(super) struct FailedPublish {
    pub(super) id: EventId,
    pub(super) route: RouteNo,
    pub(super) class: FailureClass,
    pub(super) text: String,
    /// The text for log lines and live rows.
    pub(super) loggable: String,
    pub(super) retry_after: Option<Duration>,
    pub(super) responded: bool,
    /// Whether other events of the same results were confirmed.
    pub(super) others_succeeded: bool,
    pub(super) now: Instant,
}

impl Board {
    /// Takes a failed publish.
    pub(super) fn failed(&mut self, failed: FailedPublish) {
        let (id, route, now) = (failed.id, failed.route, failed.now);
        self.destinations[route].failed(id, now);
        let Some(class) = self.own_class(&failed) else { return };
        let (text, notices) = (failed.loggable.clone(), self.notices.len());
        match class {
            FailureClass::Unavailable => self.failed_as_unavailable(failed),
            FailureClass::Transient => self.failed_transiently(failed),
            FailureClass::Permanent => self.rejected(failed),
        }
        self.report_failure((id, route), class, text, notices, now);
    }

    /// Gives the class of a failure. A destination that is down for one event again and again, and
    /// confirms others in between, is not down: the failure is the event's own. `None` if the relay
    /// no longer has the event.
    fn own_class(&mut self, failed: &FailedPublish) -> Option<FailureClass> {
        let successes = self.destinations[failed.route].answers().successes();
        let history = self.history(failed.id, failed.route)?;
        if failed.class != FailureClass::Unavailable {
            return Some(failed.class);
        }
        Some(match history.unavailable(successes, MAX_UNAVAILABLE) {
            true => FailureClass::Transient,
            false => FailureClass::Unavailable,
        })
    }

    /// The destination is down, or claims so for this event only.
    fn failed_as_unavailable(&mut self, failed: FailedPublish) {
        let FailedPublish { id, route, now, .. } = failed;
        // A connection broke while others went on: the breaker stays closed, since it would stop
        // events that get through.
        if failed.others_succeeded {
            self.retry_in(id, route, LegEvent::ToRetry, SHORT_RETRY, now);
            return;
        }
        if failed.responded {
            let limit = self.give_up_rejected(id, route);
            let others = self.destinations[route].answers().others_than(id);
            let Some(history) = self.history(id, route) else { return };
            let rejection = history.rejection(now);
            if limit.is_some_and(|limit| rejection.is_over(limit, others, now)) {
                let error = AttemptError::new(history.attempt(), failed.class, failed.text);
                self.give_up(id, route, DeadReason::Rejected, Some(error), now);
                return;
            }
        }
        let failure = self.failure(route, failed.responded);
        self.report_down(route, failed.class, &failed.loggable, now);
        self.destinations[route].unavailable(failure, now);
        self.requeue(id, route, now);
    }

    /// Counts the failed attempt.
    fn failed_transiently(&mut self, failed: FailedPublish) {
        let FailedPublish { id, route, now, .. } = failed;
        let failure = self.failure(route, false);
        let destination = &mut self.destinations[route];
        let Some(entry) = self.entries.get_mut(id) else { return };
        let breaker_key = entry.key_hash().unwrap_or(id.0.cast_unsigned());
        let policy = self.routes[route].policy_for(entry.message());
        let Some(leg) = entry.leg_mut(route) else { return };
        let (text, opened_at) = (failed.text.clone(), destination.opened_at());
        let (attempts, failing_for) = leg.history().count_failure(text, opened_at, now);
        self.stats.retried += 1;
        destination.count_retried();
        let decision = policy.decide(attempts, failing_for);
        let opened =
            !failed.others_succeeded && destination.event_failed(breaker_key, failure, now);
        destination.add_to_streak(id);
        match decision {
            Decision::GiveUp if !opened => {
                self.give_up(id, route, DeadReason::Exhausted, None, now)
            }
            // The failure that opens the breaker proves an outage, and its attempt is refunded: a
            // dead letter would be one of the outage.
            Decision::GiveUp => self.retry_in(id, route, LegEvent::ToRetry, SHORT_RETRY, now),
            Decision::RetryWithin(longest) => {
                let asked = failed.retry_after.unwrap_or_default().min(LONGEST_ASKED);
                let wait = (self.jitter)(longest).max(asked);
                self.retry_in(id, route, LegEvent::ToRetry, wait, now);
                self.record(id, now);
            }
        }
        if opened {
            self.report_down(route, FailureClass::Transient, &failed.loggable, now);
            self.refund_attempts(route, now);
        }
    }

    /// The destination has not begun with the event, which is tried again after a wait. Nothing is
    /// counted: a consumer that is paused for a day would make dead letters otherwise. There is a
    /// wait in any case, so that the publish is not repeated without a pause.
    pub(super) fn busy(&mut self, id: EventId, route: RouteNo, wait: Duration, now: Instant) {
        self.clear_hang(id, route);
        let wait = wait.min(LONGEST_ASKED);
        let wait = (wait / 2 + (self.jitter)(wait / 2)).max(SHORT_RETRY);
        self.retry_in(id, route, LegEvent::ToRetry, wait, now);
        if self.entries.get(id).is_some_and(EventEntry::has_rows) {
            // The recorded start has ended without a crash.
            self.record(id, now);
        }
    }

    /// The destination has rejected the event: that makes a dead letter only if the destination is
    /// proven to accept others.
    fn rejected(&mut self, failed: FailedPublish) {
        let FailedPublish { id, route, now, .. } = failed;
        let (limit, usual) =
            (self.give_up_rejected(id, route), self.routes[route].give_up_rejected);
        let failure = self.failure(route, true);
        let others = self.destinations[route].answers().others_than(id);
        let Some(history) = self.history(id, route) else { return };
        let error =
            AttemptError::new(history.attempt(), FailureClass::Permanent, failed.text.clone());
        let rejection = history.rejection(now);
        // By the answers to other events, not by a number of attempts: when the third rejection
        // made a dead letter, an address that answered 404 to everything buried 60 events of 60.
        let pause = match rejection.rejected(others, now) {
            Rejected::Unproven(pause)
                if limit.is_none_or(|limit| !rejection.is_over(limit, others, now)) =>
            {
                pause
            }
            Rejected::Unproven(_) | Rejected::Proven => {
                self.give_up(id, route, DeadReason::Rejected, Some(error), now);
                return;
            }
        };
        let stays = limit.is_none() && rejection.is_over(usual, others, now);
        history.add_error(error);
        if stays && history.report_stay() {
            let text = failed.loggable.clone();
            self.notices.push(Notice::StaysRejected { route, id, text });
        }
        let Some(entry) = self.entries.get(id) else { return };
        let breaker_key = entry.key_hash().unwrap_or(id.0.cast_unsigned());
        let destination = &mut self.destinations[route];
        destination.add_unproven(id);
        let opened =
            !failed.others_succeeded && destination.event_failed(breaker_key, failure, now);
        self.retry_in(id, route, LegEvent::RejectedUnproven, pause, now);
        if opened {
            self.report_down(route, FailureClass::Permanent, &failed.loggable, now);
            self.refund_attempts(route, now);
        }
    }

    /// The destination gave no answer by the deadline. That is the event's own failure if others
    /// were confirmed during the publish, or lately and since the event began to hang; else the
    /// destination is down. The event is published in a batch of its own from now on.
    pub(super) fn unanswered(
        &mut self,
        id: EventId,
        route: RouteNo,
        text: String,
        after: Duration,
        now: Instant,
    ) {
        let begun = now.checked_sub(after).unwrap_or(now);
        // In any case, before it is known whose failure it is: events that shared their batches
        // with one that hung were repeated with it, 40 times in one test.
        self.publish_singly(id, route);
        let confirmed = self.destinations[route].answers().confirmed_at();
        let is_down = self.destinations[route].breaker().is_open();
        let Some(history) = self.history(id, route) else { return };
        let since = history.hangs_since(begun);
        let is_fresh =
            |at: Instant| at >= since && now.saturating_duration_since(at) < EVIDENCE_AGE;
        let is_own = !is_down && confirmed.is_some_and(|at| at >= begun || is_fresh(at));
        let class = if is_own { FailureClass::Transient } else { FailureClass::Unavailable };
        let loggable = self.loggable(id, class, false, &text);
        self.failed(FailedPublish {
            id,
            route,
            class,
            text,
            loggable,
            retry_after: None,
            responded: false,
            others_succeeded: false,
            now,
        });
    }

    /// Gives the text of an event's failure for log lines and live rows; before the event is given
    /// up, which may be the end of its entry. Where nobody has responded the text is about the
    /// connection, and quotes no event.
    pub(super) fn loggable(
        &self,
        id: EventId,
        class: FailureClass,
        responded: bool,
        text: &str,
    ) -> String {
        if class == FailureClass::Unavailable && !responded {
            return text.to_owned();
        }
        loggable_text(text, class, self.entries.get(id).map(EventEntry::message))
    }

    /// Publishes the event in batches of its own from now on.
    pub(super) fn publish_singly(&mut self, id: EventId, route: RouteNo) {
        if self.history(id, route).is_some() {
            self.queues[route].publish_singly(id);
        }
    }

    /// The destination has responded for an event whose publishes hung before.
    pub(super) fn clear_hang(&mut self, id: EventId, route: RouteNo) {
        if self.queues[route].publish_shared(id)
            && let Some(history) = self.history(id, route)
        {
            history.end_hang();
        }
    }

    /// Another event was confirmed: events that were rejected meanwhile are tried once more.
    pub(super) fn retry_unproven(&mut self, route: RouteNo, now: Instant) {
        for id in self.destinations[route].take_unproven() {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            let key_hash = entry.key_hash();
            if entry.leg_mut(route).is_some_and(|leg| leg.other_confirmed(now)) {
                self.queues[route].make_ready(id, key_hash);
            }
        }
    }

    /// Opens the breaker of a destination that is down when the relay starts.
    pub(crate) fn start_with_outage(&mut self, route: RouteNo, text: &str, now: Instant) {
        let failure = self.failure(route, false);
        self.report_down(route, FailureClass::Unavailable, text, now);
        self.destinations[route].unavailable(failure, now);
    }

    /// The failures of the streak were the destination's: their attempts do not count, and the
    /// events wait for the breaker instead of their own retry.
    fn refund_attempts(&mut self, route: RouteNo, now: Instant) {
        for id in self.destinations[route].take_streak(now) {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            let (key_hash, has_rows) = (entry.key_hash(), entry.has_rows());
            let refunded = entry.leg_mut(route).and_then(RouteLeg::refund);
            let Some(is_counted) = refunded else { continue };
            if is_counted {
                self.stats.retried = self.stats.retried.saturating_sub(1);
                self.destinations[route].refund_retried();
                if has_rows {
                    self.record(id, now);
                }
            }
            self.queues[route].make_ready(id, key_hash);
        }
    }

    /// Describes a failure for the breaker of a route.
    pub(super) fn failure(&self, route: RouteNo, responded: bool) -> Failure {
        let jitter = (self.jitter)(Duration::from_secs(1)).as_secs_f64();
        Failure { responded, waiting: self.queues[route].ready_len() + 1, jitter }
    }

    /// Gives after how long an event is given up if only it is rejected; `None` if its retry policy
    /// has no end.
    fn give_up_rejected(&self, id: EventId, route: RouteNo) -> Option<Duration> {
        let entry = self.entries.get(id)?;
        let policy = self.routes[route].policy_for(entry.message());
        let is_endless = policy.max_attempts.is_none() && policy.give_up_after.is_none();
        (!is_endless).then_some(self.routes[route].give_up_rejected)
    }

    /// Gives the attempt history of an event on a route.
    fn history(&mut self, id: EventId, route: RouteNo) -> Option<&mut AttemptHistory> {
        self.entries.leg_mut(id, route).map(RouteLeg::history)
    }
}
