//! The log lines of failed attempts and of destinations that are down.

use super::destination::{Destination, DueReports};
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
        let report = self.destinations[route].report_failure(class, &text, now);
        if let Some(report) = report.filter(|report| !is_reported || *report != Report::First) {
            let next = self.next_of(id, route, now);
            self.notices.push(Notice::PublishFailed { route, report, class, text, next });
        }
    }

    /// Logs failures that were only counted so far, if their minute is over.
    pub(crate) fn report_due(&mut self, now: Instant) {
        for (route, destination) in self.destinations.iter_mut().enumerate() {
            let Some(due) = destination.due_reports(now) else { continue };
            let DueReports { failures, is_down, class, text } = due;
            if is_down {
                self.notices.push(Notice::RouteDown { route, class, text: text.clone() });
            }
            if let Some(report) = failures {
                let next = match destination.breaker().is_open() {
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
        self.destinations.iter().filter_map(Destination::next_report).min()
    }

    /// Logs that a destination is down; at most once a minute if it keeps recovering.
    pub(super) fn report_down(
        &mut self,
        route: RouteNo,
        class: FailureClass,
        text: &str,
        now: Instant,
    ) {
        if self.destinations[route].report_down(class, text, now) {
            self.notices.push(Notice::RouteDown { route, class, text: text.to_owned() });
        }
    }

    /// Takes confirmations of a destination, and logs that it confirms again.
    pub(super) fn route_confirms(&mut self, route: RouteNo, events: usize, now: Instant) {
        let report = self.destinations[route].confirmed(events, now);
        if let Some(Report::Recovered { after, .. }) = report {
            self.notices.push(Notice::RouteUp { route, after });
        }
    }

    fn next_of(&self, id: EventId, route: RouteNo, now: Instant) -> String {
        let leg = self.entries.leg(id, route);
        let due_at = leg.and_then(RouteLeg::due_at);
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
