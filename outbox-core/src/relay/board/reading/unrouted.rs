//! Events that wait for a route which this relay does not have: no route of it takes them, or they
//! have rows of routes of another version. In a rolling deployment the relay with that route waits
//! for its turn. So the events wait too, in memory by their ids only, before they become dead
//! letters.

use crate::{
    event::EventId,
    failure::{AttemptError, DeadReason, FailureClass},
    outbox::{
        Epoch, NewLetter, PartitionNo, RouteOutcome, RouteRow, RouteState, RouteUpdate, row_after,
    },
    relay::board::{Board, Notice, entries::RouteLeg},
    transport::Route,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration, time::Instant};

/// Longest wait for a relay with other routes that waits for its turn.
const MAX_WAIT: Duration = Duration::from_hours(1);
/// Shortest wait that is recorded.
const MIN_WAIT: Duration = Duration::from_secs(1);
/// Different texts of this warning that are kept, so that each is logged once.
const MAX_REPORTED: usize = 100;

/// The decision about an event that waits for a missing route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unrouted {
    /// It waits for `next` from now on, and for `total` since a relay first saw it; that has to be
    /// recorded.
    WaitsFor { next: Duration, total: Duration },
    /// It waits, as recorded.
    Waits,
    /// It becomes a dead letter.
    GivenUp,
}

/// Decides about an event. `wait_row` is the row that the first relay wrote which saw the event:
/// its `due_in` is the end of the wait, and its `failing_for` how long the wait will have lasted
/// then. So every relay knows the instant of the first sight, the difference of both, by the
/// database's clock.
pub(crate) fn unrouted(
    wait_row: Option<&RouteRow>,
    other_routes_wait: bool,
    after: Duration,
) -> Unrouted {
    match wait_row {
        None if after.is_zero() && !other_routes_wait => Unrouted::GivenUp,
        None => {
            let next = after.max(MIN_WAIT);
            Unrouted::WaitsFor { next, total: next }
        }
        Some(row) if row.due_in.is_some_and(|left| !left.is_zero()) => Unrouted::Waits,
        Some(row) => {
            let next = after.max(MIN_WAIT).min(MAX_WAIT.saturating_sub(row.failing_for));
            if other_routes_wait && !next.is_zero() {
                Unrouted::WaitsFor { next, total: row.failing_for + next }
            } else {
                Unrouted::GivenUp
            }
        }
    }
}

/// Gives the row in the name of no route when the wait is over.
fn ended_wait() -> RouteRow {
    row_after(RouteRow::waiting(Arc::from("")), RouteOutcome::GivenUp { error: None })
}

/// The texts of the [`Notice::Unrouted`] that were given.
#[derive(Debug, Default)]
pub(crate) struct UnroutedReports(BTreeSet<String>);

impl UnroutedReports {
    /// Tells whether a text was not reported yet; it counts as reported from here on.
    fn is_new(&mut self, text: &str) -> bool {
        if self.0.contains(text) {
            return false;
        }
        if self.0.len() >= MAX_REPORTED {
            self.0.clear();
        }
        self.0.insert(text.to_owned())
    }
}

/// The rows of an event, split by the routes of this relay.
pub(super) struct SplitRows {
    /// Rows of its routes.
    pub(super) legs: Vec<RouteLeg>,
    /// Waiting rows of routes that it does not have.
    pub(super) orphans: Vec<RouteRow>,
    /// The row in the name of no route, which says since when the event waits for a missing one.
    pub(super) wait_row: Option<RouteRow>,
}

/// Tells whether the selectors choose the event's routes: it has no row of a route yet.
pub(super) fn is_to_be_routed(rows: &[RouteRow]) -> bool {
    rows.iter().all(|row| row.route.is_empty() && row.state == RouteState::Waiting)
}

/// Splits the rows of an event.
pub(super) fn split_rows(routes: &[Route], rows: Vec<RouteRow>, now: Instant) -> SplitRows {
    let mut split = SplitRows { legs: Vec::new(), orphans: Vec::new(), wait_row: None };
    for row in rows {
        match routes.iter().position(|route| route.name == row.route) {
            Some(route) => split.legs.push(RouteLeg::from_row(route, row, now)),
            None if row.state != RouteState::Waiting => {}
            None if row.route.is_empty() => split.wait_row = Some(row),
            None => split.orphans.push(row),
        }
    }
    split
}

/// The routes that an event waits for and that this relay does not have.
pub(super) struct MissingRoutes {
    /// Its waiting rows; empty if no route takes the event.
    pub(super) orphans: Vec<RouteRow>,
    pub(super) wait_row: Option<RouteRow>,
    /// The missing routes, for logs and dead letters.
    pub(super) text: String,
}

impl MissingRoutes {
    /// Describes an event by its waiting rows of missing routes.
    pub(super) fn routes(orphans: Vec<RouteRow>, wait_row: Option<RouteRow>) -> Self {
        let names: Vec<String> = orphans.iter().map(|row| format!("`{}`", row.route)).collect();
        Self {
            text: format!("this relay does not have the route {}", names.join(", ")),
            orphans,
            wait_row,
        }
    }

    /// Gives the rows and dead letters to write for a decision.
    fn written(self, decision: Unrouted) -> (Vec<RouteRow>, Vec<NewLetter>) {
        let no_route = || RouteRow::waiting(Arc::from(""));
        let letter = |route: &Arc<str>| NewLetter {
            route: route.clone(),
            reason: DeadReason::Unroutable,
            parks: false,
        };
        let error = |attempt, class| AttemptError::new(attempt, class, self.text.clone());
        match decision {
            Unrouted::WaitsFor { .. } | Unrouted::Waits => {
                // The rows lose their due time: with it they would be due at each renewal, before
                // all others, until the wait is over. A relay that has the route publishes the
                // event at once.
                let due = self.orphans.into_iter().filter(|row| row.due_in.is_some());
                let mut rows: Vec<RouteRow> =
                    due.map(|row| RouteRow { due_in: None, ..row }).collect();
                if let Unrouted::WaitsFor { next, total } = decision {
                    let errors = match self.wait_row {
                        Some(row) => row.errors,
                        None => vec![AttemptError::new(0, FailureClass::Transient, self.text)],
                    };
                    rows.push(RouteRow {
                        due_in: Some(next),
                        failing_for: total,
                        errors,
                        ..no_route()
                    });
                }
                (rows, Vec::new())
            }
            Unrouted::GivenUp if self.orphans.is_empty() => {
                let errors = self.wait_row.map_or_else(Vec::new, |row| row.errors);
                let row = RouteRow { errors, ..no_route() };
                let error = error(0, FailureClass::Permanent);
                let row = row_after(row, RouteOutcome::GivenUp { error: Some(error) });
                let letters = vec![letter(&row.route)];
                (vec![row], letters)
            }
            Unrouted::GivenUp => {
                let letters = self.orphans.iter().map(|row| letter(&row.route)).collect();
                let dead = |row: &RouteRow| {
                    let error = error(row.attempts_finished, FailureClass::Permanent);
                    row_after(row.clone(), RouteOutcome::GivenUp { error: Some(error) })
                };
                let mut rows: Vec<RouteRow> = self.orphans.iter().map(dead).collect();
                rows.extend(self.wait_row.map(|_| ended_wait()));
                (rows, letters)
            }
        }
    }
}

impl Board {
    /// Lets an event wait for missing routes, or gives it up there. Tells whether a record of it is
    /// being written, and whether it goes on waiting.
    pub(super) fn wait_for_route(
        &mut self,
        (partition, epoch, id): (PartitionNo, Epoch, EventId),
        missing: MissingRoutes,
    ) -> (bool, bool) {
        let Some(owned) = self.partitions.get_mut(&partition) else { return (false, false) };
        let decision = unrouted(
            missing.wait_row.as_ref(),
            self.other_routes_wait,
            self.config.unroutable_after,
        );
        let waits = decision != Unrouted::GivenUp;
        if waits {
            owned.wait_for_route(id);
        } else {
            owned.end_wait_for_route(id);
        }
        if let (Unrouted::WaitsFor { next, .. }, None) = (decision, &missing.wait_row) {
            self.report_unrouted(id, &missing.text, next);
        }
        let (rows, letters) = missing.written(decision);
        self.stats.dead += letters.len() as u64;
        if rows.is_empty() {
            return (false, waits);
        }
        self.push_record(epoch, RouteUpdate { partition, id, rows, letters });
        (true, waits)
    }

    /// Ends the wait of an event whose routes this relay has. One record ends the wait and writes
    /// the rows of all its routes: before that the event could be finished beside a row of the wait
    /// that no relay deletes.
    pub(super) fn routes_found(
        &mut self,
        (partition, epoch, id): (PartitionNo, Epoch, EventId),
        legs: &mut [RouteLeg],
        now: Instant,
    ) {
        if let Some(owned) = self.partitions.get_mut(&partition) {
            owned.end_wait_for_route(id);
        }
        let mut rows = vec![ended_wait()];
        for leg in legs.iter_mut().filter(|leg| !leg.is_written()) {
            rows.push(leg.take_row(&self.routes, now));
        }
        self.push_record(epoch, RouteUpdate { partition, id, rows, letters: Vec::new() });
    }

    fn report_unrouted(&mut self, id: EventId, text: &str, wait: Duration) {
        if !self.unrouted_reports.is_new(text) {
            return;
        }
        self.notices.push(Notice::Unrouted { id, text: text.to_owned(), wait });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_without_a_route_waits_ten_minutes_and_an_hour_for_a_relay_that_waits_for_its_turn()
    {
        const MINUTE: Duration = Duration::from_mins(1);
        let wait_row = |due_in, waited: u32| {
            Some(RouteRow {
                due_in: Some(due_in),
                failing_for: waited * MINUTE,
                ..RouteRow::waiting("".into())
            })
        };
        let waits = |next: u32, total: u32| Unrouted::WaitsFor {
            next: next * MINUTE,
            total: total * MINUTE,
        };
        let none = Duration::ZERO;
        for (wait_row, other_routes_wait, after, expected) in [
            (None, false, 10 * MINUTE, waits(10, 10)),
            (None, true, 10 * MINUTE, waits(10, 10)),
            (None, false, none, Unrouted::GivenUp),
            (None, true, none, Unrouted::WaitsFor { next: MIN_WAIT, total: MIN_WAIT }),
            (wait_row(MINUTE, 10), false, 10 * MINUTE, Unrouted::Waits),
            (wait_row(none, 10), false, 10 * MINUTE, Unrouted::GivenUp),
            (wait_row(none, 10), true, 10 * MINUTE, waits(10, 20)),
            (wait_row(none, 55), true, 10 * MINUTE, waits(5, 60)),
            (wait_row(none, 60), true, 10 * MINUTE, Unrouted::GivenUp),
            (wait_row(none, 90), true, 90 * MINUTE, Unrouted::GivenUp),
            (wait_row(MINUTE, 90), false, 90 * MINUTE, Unrouted::Waits),
        ] {
            let decision = unrouted(wait_row.as_ref(), other_routes_wait, after);
            assert_eq!(
                decision, expected,
                "{wait_row:?}, others wait: {other_routes_wait}, after {after:?}"
            );
        }
    }
}
