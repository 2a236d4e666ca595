//! Events of which something waits for a route that this relay does not have: those that no route takes, and what is
//! written down for routes of another version. In a rolling deployment the relay that has the route waits for its turn,
//! so they wait too, held by their ids only, before they become dead letters.

use crate::{
    event::EventId,
    failure::{AttemptError, DeadReason, FailureClass},
    outbox::{Epoch, NewLetter, PartitionNo, RouteRow, RouteState, Verdict},
    relay::board::{Board, Notice, held::Leg},
    transport::Route,
};
use std::{sync::Arc, time::Duration, time::Instant};

/// Longest wait for a relay with other routes that waits for its turn.
const LONGEST: Duration = Duration::from_hours(1);
/// Shortest wait that is written down.
const SHORTEST: Duration = Duration::from_secs(1);
/// Different warnings of this kind that are remembered, so that each is given once.
const TOLD: usize = 100;

/// What becomes of an event of which something waits for a route that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unrouted {
    /// It waits for so long from now on, and `total` since it was first seen, which is to be written down.
    WaitsFor { next: Duration, total: Duration },
    /// It waits, as is written down.
    Waits,
    /// It becomes a dead letter.
    GivenUp,
}

/// Decides it. `sight` is what was written down when the event was first seen: when the wait is over, and in `failing_for`
/// how long it will have lasted then. So the instant of the first sight is the difference of both, on every relay.
pub(crate) fn unrouted(sight: Option<&RouteRow>, others_wait: bool, after: Duration) -> Unrouted {
    match sight {
        None if after.is_zero() && !others_wait => Unrouted::GivenUp,
        None => {
            let next = after.max(SHORTEST);
            Unrouted::WaitsFor { next, total: next }
        }
        Some(row) if row.due_in.is_some_and(|left| !left.is_zero()) => Unrouted::Waits,
        Some(row) => {
            let next = after.max(SHORTEST).min(LONGEST.saturating_sub(row.failing_for));
            if others_wait && !next.is_zero() {
                Unrouted::WaitsFor { next, total: row.failing_for + next }
            } else {
                Unrouted::GivenUp
            }
        }
    }
}

/// What is written down of an event, by what this relay knows of it.
pub(super) struct Sorted {
    /// On routes of this relay.
    pub(super) legs: Vec<Leg>,
    /// What waits for routes that it does not have.
    pub(super) orphans: Vec<RouteRow>,
    /// That it was seen to wait for such a route.
    pub(super) sight: Option<RouteRow>,
}

/// Tells whether routes are to be chosen by what they take: nothing is written down but that the event waits for one.
pub(super) fn is_to_be_routed(rows: &[RouteRow]) -> bool {
    rows.iter().all(|row| row.route.is_empty() && row.state == RouteState::Waiting)
}

/// Sorts what is written down of an event.
pub(super) fn sorted(routes: &[Route], rows: Vec<RouteRow>, now: Instant) -> Sorted {
    let mut sorted = Sorted { legs: Vec::new(), orphans: Vec::new(), sight: None };
    for row in rows {
        match routes.iter().position(|route| route.name == row.route) {
            Some(route) => sorted.legs.push(Leg::from_row(route, row, now)),
            None if row.state != RouteState::Waiting => {}
            None if row.route.is_empty() => sorted.sight = Some(row),
            None => sorted.orphans.push(row),
        }
    }
    sorted
}

/// Something that waits for routes that are not there.
pub(super) struct Missing {
    /// By route; empty where none takes the event.
    pub(super) orphans: Vec<RouteRow>,
    pub(super) sight: Option<RouteRow>,
    /// What is missing, in words.
    pub(super) text: String,
}

impl Missing {
    /// What waits for routes that a relay does not have.
    pub(super) fn routes(orphans: Vec<RouteRow>, sight: Option<RouteRow>) -> Self {
        let names: Vec<String> = orphans.iter().map(|row| format!("`{}`", row.route)).collect();
        Self {
            text: format!("this relay does not have the route {}", names.join(", ")),
            orphans,
            sight,
        }
    }

    /// Gives the rows and letters to write by a decision.
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
                // Nothing of it is due before the wait is over. Under a route that is there again, it goes at once.
                let due = self.orphans.into_iter().filter(|row| row.due_in.is_some());
                let mut rows: Vec<RouteRow> =
                    due.map(|row| RouteRow { due_in: None, ..row }).collect();
                if let Unrouted::WaitsFor { next, total } = decision {
                    let errors = match self.sight {
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
                let mut errors = self.sight.map_or_else(Vec::new, |row| row.errors);
                AttemptError::push(&mut errors, error(0, FailureClass::Permanent));
                let row = RouteRow { state: RouteState::Dead, errors, ..no_route() };
                let letters = vec![letter(&row.route)];
                (vec![row], letters)
            }
            Unrouted::GivenUp => {
                let letters = self.orphans.iter().map(|row| letter(&row.route)).collect();
                let dead = |row: &RouteRow| {
                    let mut row = RouteRow { state: RouteState::Dead, due_in: None, ..row.clone() };
                    AttemptError::push(
                        &mut row.errors,
                        error(row.attempts_finished, FailureClass::Permanent),
                    );
                    row
                };
                let mut rows: Vec<RouteRow> = self.orphans.iter().map(dead).collect();
                rows.extend(self.sight.map(|_| RouteRow { state: RouteState::Dead, ..no_route() }));
                (rows, letters)
            }
        }
    }
}

impl Board {
    /// Takes what waits for routes that this relay does not have. Tells whether something is being written of the event, and
    /// whether it goes on waiting.
    pub(super) fn wait_for_route(
        &mut self,
        (partition, epoch, id): (PartitionNo, Epoch, EventId),
        missing: Missing,
    ) -> (bool, bool) {
        let Some(owned) = self.partitions.get_mut(&partition) else { return (false, false) };
        let decision =
            unrouted(missing.sight.as_ref(), self.others_wait, self.config.unroutable_after);
        let waits = decision != Unrouted::GivenUp;
        if waits {
            owned.unrouted.insert(id, ());
        } else {
            owned.unrouted.remove(&id);
        }
        if let (Unrouted::WaitsFor { next, .. }, None) = (decision, &missing.sight) {
            self.tell_of_unrouted(id, &missing.text, next);
        }
        let (rows, letters) = missing.written(decision);
        self.stats.dead += letters.len() as u64;
        if rows.is_empty() {
            return (false, waits);
        }
        self.push_record(epoch, Verdict { partition, id, rows, letters });
        (true, waits)
    }

    /// Routes that an event waited for are there: that it waits is over, and what waits on these routes is written down
    /// with that, so that it is finished by them alone.
    pub(super) fn routes_found(
        &mut self,
        (partition, epoch, id): (PartitionNo, Epoch, EventId),
        legs: &mut [Leg],
        now: Instant,
    ) {
        if let Some(owned) = self.partitions.get_mut(&partition) {
            owned.unrouted.remove(&id);
        }
        let mut rows =
            vec![RouteRow { state: RouteState::Dead, ..RouteRow::waiting(Arc::from("")) }];
        for leg in legs.iter_mut().filter(|leg| !leg.written) {
            rows.push(leg.row(&self.routes, now));
            leg.written = true;
        }
        self.push_record(epoch, Verdict { partition, id, rows, letters: Vec::new() });
    }

    fn tell_of_unrouted(&mut self, id: EventId, text: &str, wait: Duration) {
        if self.told_unrouted.contains(text) {
            return;
        }
        if self.told_unrouted.len() >= TOLD {
            self.told_unrouted.clear();
        }
        self.told_unrouted.insert(text.to_owned());
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
        let sight = |due_in, waited: u32| {
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
        for (sight, others_wait, after, expected) in [
            (None, false, 10 * MINUTE, waits(10, 10)),
            (None, true, 10 * MINUTE, waits(10, 10)),
            (None, false, none, Unrouted::GivenUp),
            (None, true, none, Unrouted::WaitsFor { next: SHORTEST, total: SHORTEST }),
            (sight(MINUTE, 10), false, 10 * MINUTE, Unrouted::Waits),
            (sight(none, 10), false, 10 * MINUTE, Unrouted::GivenUp),
            (sight(none, 10), true, 10 * MINUTE, waits(10, 20)),
            (sight(none, 55), true, 10 * MINUTE, waits(5, 60)),
            (sight(none, 60), true, 10 * MINUTE, Unrouted::GivenUp),
            (sight(none, 90), true, 90 * MINUTE, Unrouted::GivenUp),
            (sight(MINUTE, 90), false, 90 * MINUTE, Unrouted::Waits),
        ] {
            let decided = unrouted(sight.as_ref(), others_wait, after);
            assert_eq!(decided, expected, "{sight:?}, others wait: {others_wait}, after {after:?}");
        }
    }
}
