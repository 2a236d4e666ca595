//! What the destination of a route has answered: its breaker, the failures that may be its own and
//! not the events', and what is logged of both. Whether an event may go for another reason is its
//! queue's to know.

use super::answers::RouteAnswers;
use crate::{
    event::EventId,
    failure::{Breaker, Failure, FailureClass, FailureReports, Report},
};
use std::{collections::BTreeSet, time::Instant};

/// The destination of one route.
#[derive(Debug, Default)]
pub(crate) struct Destination {
    breaker: Breaker,
    /// What it has answered lately.
    answers: RouteAnswers,
    /// Rejected events, until a confirmation of another event proves that the destination accepts
    /// events.
    unproven_rejections: BTreeSet<EventId>,
    /// The events of the present streak of failures.
    failure_streak: BTreeSet<EventId>,
    /// The instant at which a streak of failures opened the breaker last.
    opened_at: Option<Instant>,
    /// What to log about its failed attempts.
    failures_logged: FailureReports,
    /// What to log about its outages.
    outages_logged: FailureReports,
    /// The last failure.
    last_failure: Option<(FailureClass, String, Instant)>,
    /// Counted failures.
    retried: u64,
    /// Events that became dead letters.
    dead: u64,
}

/// What is to be logged of a destination whose failures were only counted so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DueReports {
    /// The failed attempts, if any are due.
    pub(super) failures: Option<Report>,
    /// Whether it is due that the destination is down.
    pub(super) is_down: bool,
    /// The class and the text of the last failure.
    pub(super) class: FailureClass,
    pub(super) text: String,
}

impl Destination {
    /// Gives its breaker, to be asked.
    pub(crate) const fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Gives its last answers.
    pub(crate) const fn answers(&self) -> &RouteAnswers {
        &self.answers
    }

    /// Gives the last failure: its class, its text and its instant.
    pub(crate) const fn last_failure(&self) -> Option<&(FailureClass, String, Instant)> {
        self.last_failure.as_ref()
    }

    /// Gives how many failures were counted.
    pub(crate) const fn retried(&self) -> u64 {
        self.retried
    }

    /// Gives how many events became dead letters.
    pub(crate) const fn dead(&self) -> u64 {
        self.dead
    }

    /// Gives the instant at which a streak of failures opened the breaker last.
    pub(super) const fn opened_at(&self) -> Option<Instant> {
        self.opened_at
    }

    /// Notes that a batch was handed to the publisher: it is the probe, if the breaker waits for
    /// one.
    pub(crate) fn batch_started(&mut self) {
        self.breaker.probe_started();
    }

    /// Notes that the last batch in flight has ended. If it was a probe without an outcome, its
    /// events were cancelled or another relay owns them: it tells nothing about the destination.
    pub(super) fn last_batch_ended(&mut self, now: Instant) {
        self.breaker.probe_inconclusive(now);
    }

    /// Notes an event that was not tried yet, with how many are ready then.
    pub(crate) fn event_queued(&mut self, ready: usize, now: Instant) {
        if self.breaker.is_open() {
            self.breaker.new_key(ready, now);
        }
    }

    /// Notes that events were confirmed: the breaker closes. Gives what is to be logged of an
    /// outage that is over.
    pub(super) fn confirmed(&mut self, events: usize, now: Instant) -> Option<Report> {
        self.answers.confirmed(events, now);
        self.breaker.succeeded();
        self.failure_streak.clear();
        self.outages_logged.succeeded(now)
    }

    /// Takes the events that were rejected before another one was confirmed.
    pub(super) fn take_unproven(&mut self) -> BTreeSet<EventId> {
        std::mem::take(&mut self.unproven_rejections)
    }

    /// Notes that an event failed.
    pub(super) fn failed(&mut self, id: EventId, now: Instant) {
        self.answers.failed(id, now);
    }

    /// Notes that the destination is down.
    pub(super) fn unavailable(&mut self, failure: Failure, now: Instant) {
        self.breaker.unavailable(failure, now);
    }

    /// Notes a failure of one event, with the hash of its key; tells whether it has opened the
    /// breaker, or kept it open.
    pub(super) fn event_failed(&mut self, key: u64, failure: Failure, now: Instant) -> bool {
        self.breaker.failed(key, failure, now)
    }

    /// Adds an event to the present streak of failures.
    pub(super) fn add_to_streak(&mut self, id: EventId) {
        self.failure_streak.insert(id);
    }

    /// Adds an event to the present streak of failures, whose rejection may be the destination's.
    pub(super) fn add_unproven(&mut self, id: EventId) {
        self.failure_streak.insert(id);
        self.unproven_rejections.insert(id);
    }

    /// Notes that the failures of the present streak were the destination's; takes their events.
    pub(super) fn take_streak(&mut self, now: Instant) -> BTreeSet<EventId> {
        self.opened_at = Some(now);
        std::mem::take(&mut self.failure_streak)
    }

    /// Counts a failed attempt.
    pub(super) fn count_retried(&mut self) {
        self.retried += 1;
    }

    /// Takes a counted attempt back: its failure was the destination's.
    pub(super) fn refund_retried(&mut self) {
        self.retried = self.retried.saturating_sub(1);
    }

    /// Counts a dead letter.
    pub(super) fn count_dead(&mut self) {
        self.dead += 1;
    }

    /// Keeps a failure for the log and for operators; gives what is to be logged of it.
    pub(super) fn report_failure(
        &mut self,
        class: FailureClass,
        text: &str,
        now: Instant,
    ) -> Option<Report> {
        self.last_failure = Some((class, text.to_owned(), now));
        self.failures_logged.failed(now)
    }

    /// Notes an outage; tells whether it is to be logged: at most once a minute if the destination
    /// keeps recovering.
    pub(super) fn report_down(&mut self, class: FailureClass, text: &str, now: Instant) -> bool {
        if self.outages_logged.is_failing() {
            return false;
        }
        self.last_failure = Some((class, text.to_owned(), now));
        self.outages_logged.failed(now).is_some()
    }

    /// Gives what is to be logged of failures that were only counted so far, if their minute is
    /// over.
    pub(super) fn due_reports(&mut self, now: Instant) -> Option<DueReports> {
        let failures = self.failures_logged.due(now);
        let is_down = self.outages_logged.due(now).is_some() && self.outages_logged.is_failing();
        let (class, text, _) = self.last_failure.as_ref()?;
        (is_down || failures.is_some()).then(|| DueReports {
            failures,
            is_down,
            class: *class,
            text: text.clone(),
        })
    }

    /// Gives the instant at which counted failures are logged next.
    pub(super) fn next_report(&self) -> Option<Instant> {
        [self.failures_logged.due_at(), self.outages_logged.due_at()].into_iter().flatten().min()
    }
}
