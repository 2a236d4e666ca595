//! The log lines of failed attempts and of destinations that are down.

use crate::relay::board::{
    Board, Notice, RouteNo,
    entries::{LegState, RouteLeg},
};
use crate::{
    event::EventId,
    failure::{FailureClass, Report},
};
use std::time::Instant;

impl Board {
    /// Logs a failed attempt when the event's next state is known. A first failure is not logged if
    /// a notice from `since` on says that the destination is down.
    pub(super) fn report_failure(
        &mut self,
        (id, route): (EventId, RouteNo),
        class: FailureClass,
        text: String,
        since: usize,
        now: Instant,
    ) {
        let is_reported = self
            .notices
            .iter()
            .skip(since)
            .any(|notice| matches!(notice, Notice::RouteDown { .. }));
        let queue = &mut self.queues[route];
        let report = queue.failures_logged.failed(now);
        queue.last_failure = Some((class, text.clone(), now));
        if let Some(report) = report.filter(|report| !is_reported || *report != Report::First) {
            let next = self.next_of(id, route, now);
            self.notices.push(Notice::PublishFailed { route, report, class, text, next });
        }
    }

    /// Logs failures that were only counted so far, if their minute is over.
    pub(crate) fn report_due(&mut self, now: Instant) {
        for (route, queue) in self.queues.iter_mut().enumerate() {
            let report = queue.failures_logged.due(now);
            let is_down =
                queue.outages_logged.due(now).is_some() && queue.outages_logged.is_failing();
            let Some((class, text, _)) = &queue.last_failure else { continue };
            let (class, text) = (*class, text.clone());
            if is_down {
                self.notices.push(Notice::RouteDown { route, class, text: text.clone() });
            }
            if let Some(report) = report {
                let next = match queue.breaker.is_open() {
                    true => "the relay probes the destination, and no attempt is counted",
                    false => "each event is tried again by its retry policy",
                };
                self.notices.push(Notice::PublishFailed {
                    route,
                    report,
                    class,
                    text,
                    next: next.to_owned(),
                });
            }
        }
    }

    /// Gives the instant at which counted failures are logged next.
    pub(crate) fn next_report(&self) -> Option<Instant> {
        let due = |queue: &crate::relay::board::queues::RouteQueue| {
            [queue.failures_logged.due_at(), queue.outages_logged.due_at()]
                .into_iter()
                .flatten()
                .min()
        };
        self.queues.iter().filter_map(due).min()
    }

    /// Logs that a destination is down; at most once a minute if it keeps recovering.
    pub(super) fn report_down(
        &mut self,
        route: RouteNo,
        class: FailureClass,
        text: &str,
        now: Instant,
    ) {
        let queue = &mut self.queues[route];
        if queue.outages_logged.is_failing() {
            return;
        }
        queue.last_failure = Some((class, text.to_owned(), now));
        if queue.outages_logged.failed(now).is_some() {
            self.notices.push(Notice::RouteDown { route, class, text: text.to_owned() });
        }
    }

    /// Logs that a destination confirms again.
    pub(super) fn report_up(&mut self, route: RouteNo, now: Instant) {
        if let Some(Report::Recovered { after, .. }) =
            self.queues[route].outages_logged.succeeded(now)
        {
            self.notices.push(Notice::RouteUp { route, after });
        }
    }

    fn next_of(&self, id: EventId, route: RouteNo, now: Instant) -> String {
        let leg = self.entries.leg(id, route);
        let due_at = leg.and_then(|leg| leg.history.as_ref()?.due_at);
        let wait = due_at.map(|at| at.saturating_duration_since(now)).unwrap_or_default();
        match leg.map(RouteLeg::state) {
            Some(LegState::Retrying) => format!("the event is tried again in {wait:.1?}"),
            Some(LegState::Unproven) => {
                format!(
                    "the event is tried again in {wait:.1?}, or when the destination has taken another one"
                )
            }
            Some(LegState::Dead | LegState::Confirmed) | None => {
                "the event becomes a dead letter".to_owned()
            }
            Some(
                LegState::Waiting | LegState::Starting | LegState::InFlight | LegState::Evicted,
            ) => "the event is tried again in its turn, and no attempt is counted".to_owned(),
        }
    }
}
