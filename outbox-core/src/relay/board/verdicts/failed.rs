//! What a failed publish means: for the event, and for its destination.

use crate::relay::board::{
    Board, Notice, RouteNo,
    held::{LegState, Past},
};
use crate::{
    event::EventId,
    failure::{
        AttemptError, DeadReason, Decision, Failure, FailureClass, Others, Rejected, Rejection,
    },
};
use std::time::{Duration, Instant};

/// Pause after a connection broke under one event while others succeeded.
const SOON: Duration = Duration::from_millis(200);
/// Times an event may meet a destination that was down, others succeeding between, before that counts as its failure.
const UNAVAILABLE: u8 = 3;
/// For how long a confirmation of others shows that an event which hangs does so alone.
const EVIDENCE: Duration = Duration::from_mins(1);

/// A publish that failed.
pub(super) struct Failed {
    pub(super) class: FailureClass,
    pub(super) text: String,
    pub(super) retry_after: Option<Duration>,
    pub(super) answered: bool,
    /// Whether others of the same answers were confirmed.
    pub(super) others_succeeded: bool,
}

impl Board {
    pub(super) fn failed(&mut self, id: EventId, route: RouteNo, failed: Failed, now: Instant) {
        let queue = &mut self.queues[route];
        queue.failed(id, now);
        let Some(held) = self.held.get_mut(&id) else { return };
        let Some(leg) = held.legs.iter_mut().find(|l| l.route == route) else { return };
        let past = leg.past();
        let mut class = failed.class;
        if class == FailureClass::Unavailable {
            if past.successes_seen != queue.successes || past.unavailable == 0 {
                past.unavailable += 1;
            }
            past.successes_seen = queue.successes;
            if past.unavailable > UNAVAILABLE {
                class = FailureClass::Transient;
                past.unavailable = 0;
            }
        }
        let (text, notices) = (failed.text.clone(), self.notices.len());
        match class {
            FailureClass::Unavailable => self.failed_as_unavailable(id, route, failed, now),
            FailureClass::Transient => self.failed_for_now(id, route, failed, now),
            FailureClass::Permanent => self.rejected(id, route, failed, now),
        }
        self.report_failure((id, route), class, text, notices, now);
    }

    /// The destination is down, or says so to this one only.
    fn failed_as_unavailable(&mut self, id: EventId, route: RouteNo, failed: Failed, now: Instant) {
        if failed.others_succeeded {
            self.wait(id, route, LegState::Retrying, SOON, now);
            return;
        }
        if failed.answered {
            let limit = self.give_up_rejected(id, route);
            let others = self.queues[route].others_than(id);
            let Some(past) = self.past(id, route) else { return };
            let rejection = past.rejection.get_or_insert_with(|| Rejection::starting(now));
            if limit.is_some_and(|limit| rejection.is_over(limit, others, now)) {
                let error =
                    AttemptError::new(past.attempts_finished + 1, failed.class, failed.text);
                self.give_up(id, route, DeadReason::Rejected, Some(error), now);
                return;
            }
        }
        let failure = self.failure(route, failed.answered);
        self.note_down(route, failed.class, &failed.text, now);
        self.queues[route].breaker.unavailable(failure, now);
        self.put_back(id, route, now);
    }

    /// An attempt that counts.
    fn failed_for_now(&mut self, id: EventId, route: RouteNo, failed: Failed, now: Instant) {
        let failure = self.failure(route, false);
        let queue = &mut self.queues[route];
        let Some(held) = self.held.get_mut(&id) else { return };
        let crossing = held.lane.unwrap_or(id.0.cast_unsigned());
        let Some(leg) = held.legs.iter_mut().find(|l| l.route == route) else { return };
        let past = leg.past();
        past.attempts_finished += 1;
        let error =
            AttemptError::new(past.attempts_finished, FailureClass::Transient, failed.text.clone());
        AttemptError::push(&mut past.errors, error);
        // Time in which the breaker was open speaks of the destination, not of the event.
        if let Some(before) = past.failed_at.replace(now)
            && queue.opened_at.is_none_or(|opened| opened < before)
        {
            past.failing_for += now.saturating_duration_since(before);
        }
        self.stats.retried += 1;
        let policy = self.routes[route].policy_for(&held.message);
        let decision = policy.decide(past.attempts_finished, past.failing_for);
        let opened = !failed.others_succeeded && queue.breaker.failed(crossing, failure, now);
        queue.run.insert(id);
        match decision {
            Decision::GiveUp if !opened => {
                self.give_up(id, route, DeadReason::Exhausted, None, now)
            }
            Decision::GiveUp => self.wait(id, route, LegState::Retrying, SOON, now),
            Decision::RetryWithin(longest) => {
                let wait = (self.jitter)(longest).max(failed.retry_after.unwrap_or_default());
                self.wait(id, route, LegState::Retrying, wait, now);
                self.record(id, now);
            }
        }
        if opened {
            self.note_down(route, FailureClass::Transient, &failed.text, now);
            self.give_attempts_back(route, now);
        }
    }

    /// A permanent answer buries the event only where the destination is known to take others.
    fn rejected(&mut self, id: EventId, route: RouteNo, failed: Failed, now: Instant) {
        let (limit, usual) =
            (self.give_up_rejected(id, route), self.routes[route].give_up_rejected);
        let failure = self.failure(route, true);
        let others = self.queues[route].others_than(id);
        let Some(past) = self.past(id, route) else { return };
        let error = AttemptError::new(
            past.attempts_finished + 1,
            FailureClass::Permanent,
            failed.text.clone(),
        );
        let rejection = past.rejection.get_or_insert_with(|| Rejection::starting(now));
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
        AttemptError::push(&mut past.errors, error);
        if stays && !std::mem::replace(&mut past.told, true) {
            self.notices.push(Notice::StaysRejected { route, id, text: failed.text.clone() });
        }
        let Some(held) = self.held.get(&id) else { return };
        let crossing = held.lane.unwrap_or(id.0.cast_unsigned());
        let queue = &mut self.queues[route];
        queue.run.insert(id);
        queue.unproven_rejections.insert(id);
        let opened = !failed.others_succeeded && queue.breaker.failed(crossing, failure, now);
        self.wait(id, route, LegState::Unproven, pause, now);
        if opened {
            self.note_down(route, FailureClass::Permanent, &failed.text, now);
            self.give_attempts_back(route, now);
        }
    }

    /// The destination said nothing by the deadline. That is the event's own failure where others were confirmed meanwhile,
    /// or since it began to hang and not long ago; else the destination is down. The event is tried alone from now on.
    pub(super) fn unanswered(
        &mut self,
        id: EventId,
        route: RouteNo,
        text: String,
        after: Duration,
        now: Instant,
    ) {
        let begun = now.checked_sub(after).unwrap_or(now);
        self.isolate(id, route);
        let confirmed = self.queues[route].confirmed_at;
        let is_down = self.queues[route].breaker.is_open();
        let Some(past) = self.past(id, route) else { return };
        let since = *past.hangs_since.get_or_insert(begun);
        let is_fresh = |at: Instant| at >= since && now.saturating_duration_since(at) < EVIDENCE;
        let is_own = !is_down && confirmed.is_some_and(|at| at >= begun || is_fresh(at));
        let class = if is_own { FailureClass::Transient } else { FailureClass::Unavailable };
        self.failed(
            id,
            route,
            Failed { class, text, retry_after: None, answered: false, others_succeeded: false },
            now,
        );
    }

    /// From now on the event is published in no batch with others.
    pub(super) fn isolate(&mut self, id: EventId, route: RouteNo) {
        if self.past(id, route).is_some() {
            self.queues[route].loners.add(id);
        }
    }

    /// The destination said something of an event that it had left unanswered before.
    pub(super) fn answered_after_all(&mut self, id: EventId, route: RouteNo) {
        if self.queues[route].loners.remove(id)
            && let Some(past) = self.past(id, route)
        {
            past.hangs_since = None;
        }
    }

    /// Others are taken: what was rejected meanwhile is tried once more.
    pub(super) fn others_take(&mut self, route: RouteNo, now: Instant) {
        if self.queues[route].unproven_rejections.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.queues[route].unproven_rejections) {
            let Some(held) = self.held.get_mut(&id) else { continue };
            let lane = held.lane;
            let Some(leg) = held.legs.iter_mut().find(|l| l.route == route) else { continue };
            let Some(past) = leg.past.as_mut() else { continue };
            if let Some(rejection) = past.rejection.as_mut() {
                rejection.other_confirmed(now);
            }
            if leg.state == LegState::Unproven {
                past.due_at = None;
                leg.state = LegState::Waiting;
                self.back_in_line(id, route, lane);
            }
        }
    }

    /// The destination confirms: all of the route goes.
    pub(super) fn route_works(&mut self, route: RouteNo, now: Instant) {
        self.report_up(route, now);
        let queue = &mut self.queues[route];
        queue.breaker.succeeded();
        queue.run.clear();
    }

    /// The destination is known to be down before anything was published there: it is probed from the beginning.
    pub(crate) fn begins_down(&mut self, route: RouteNo, text: &str, now: Instant) {
        let failure = self.failure(route, false);
        self.note_down(route, FailureClass::Unavailable, text, now);
        self.queues[route].breaker.unavailable(failure, now);
    }

    /// The failures of the run spoke of the destination: their attempts do not count, and they wait for it, not for
    /// their own time.
    fn give_attempts_back(&mut self, route: RouteNo, now: Instant) {
        self.queues[route].opened_at = Some(now);
        for id in std::mem::take(&mut self.queues[route].run) {
            let Some(held) = self.held.get_mut(&id) else { continue };
            let lane = held.lane;
            let Some(leg) = held.legs.iter_mut().find(|l| l.route == route) else { continue };
            let counted = match leg.state {
                LegState::Retrying => true,
                LegState::Unproven => false,
                _ => continue,
            };
            leg.state = LegState::Waiting;
            let past = leg.past();
            past.due_at = None;
            if counted {
                past.attempts_finished = past.attempts_finished.saturating_sub(1);
                self.stats.retried = self.stats.retried.saturating_sub(1);
                leg.written = false;
                if held.remembered {
                    self.record(id, now);
                }
            }
            self.back_in_line(id, route, lane);
        }
    }

    /// Says what a failure tells of the destination of a route.
    pub(super) fn failure(&self, route: RouteNo, answered: bool) -> Failure {
        let jitter = (self.jitter)(Duration::from_secs(1)).as_secs_f64();
        Failure { answered, waiting: self.queues[route].ready.len() + 1, jitter }
    }

    /// Gives after how long an event is given up that alone is rejected; `None` where its policy has no end.
    fn give_up_rejected(&self, id: EventId, route: RouteNo) -> Option<Duration> {
        let held = self.held.get(&id)?;
        let policy = self.routes[route].policy_for(&held.message);
        let is_endless = policy.max_attempts.is_none() && policy.give_up_after.is_none();
        (!is_endless).then_some(self.routes[route].give_up_rejected)
    }

    fn past(&mut self, id: EventId, route: RouteNo) -> Option<&mut Past> {
        let held = self.held.get_mut(&id)?;
        held.legs.iter_mut().find(|l| l.route == route).map(|leg| leg.past())
    }
}

impl crate::relay::board::lanes::RouteQueue {
    /// Notes that an event failed.
    fn failed(&mut self, id: EventId, now: Instant) {
        let [last, before] = &mut self.failures;
        if last.is_some_and(|(other, _)| other != id) {
            *before = *last;
        }
        *last = Some((id, now));
    }

    /// Gives what is known of the route beside one event.
    fn others_than(&self, id: EventId) -> Others {
        let failed =
            self.failures.iter().flatten().find(|(other, _)| *other != id).map(|(_, at)| *at);
        Others { confirmed: self.confirmed_at, failed }
    }
}
