//! The state of one event on one route: a pure transition function. The same rule stands as a CHECK
//! in the migration.

use crate::failure::AttemptError;
use std::{fmt, str::FromStr, sync::Arc, time::Duration};

/// State of an event on one route, once the event has a row for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteState {
    /// To be published.
    Waiting,
    /// Confirmed.
    Done,
    /// Given up, with a dead letter.
    Dead,
}

impl RouteState {
    /// Gives the name that is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }

    /// Tells whether no attempt follows.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Waiting)
    }
}

impl fmt::Display for RouteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RouteState {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        [Self::Waiting, Self::Done, Self::Dead].into_iter().find(|v| v.as_str() == s).ok_or(())
    }
}

/// The row of one event on one route. An event has none until its first failure.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteRow {
    /// The route's stable name.
    pub route: Arc<str>,
    /// Its state.
    pub state: RouteState,
    /// Attempts whose start was written down first, because a former process may have died of the
    /// event.
    pub attempts_started: u32,
    /// Attempts that ended in a counted failure.
    pub attempts_finished: u32,
    /// Time until it is due, from now by the database's clock; `None` if the relay finds it by
    /// reading in order (the board had evicted it behind others of its key).
    pub due_in: Option<Duration>,
    /// For how long failures have been counted.
    pub failing_for: Duration,
    /// The first failure and the last nine.
    pub errors: Vec<AttemptError>,
    /// Whether an operator redrove it.
    pub redriven: bool,
}

/// How an event stands on a route, for its row.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteOutcome {
    /// The destination has confirmed.
    Confirmed,
    /// It becomes a dead letter.
    GivenUp {
        /// What went wrong, if the row does not have it yet.
        error: Option<AttemptError>,
    },
    /// It is still to be published.
    Open {
        /// Time until it is due, `None` if the relay finds it by reading in order.
        due_in: Option<Duration>,
    },
    /// An operator redrives it.
    Redriven,
}

impl RouteRow {
    /// The row of an event that was not tried yet.
    #[must_use]
    pub fn waiting(route: Arc<str>) -> Self {
        Self {
            route,
            state: RouteState::Waiting,
            attempts_started: 0,
            attempts_finished: 0,
            due_in: None,
            failing_for: Duration::ZERO,
            errors: Vec::new(),
            redriven: false,
        }
    }
}

/// Gives the row after an outcome. Final rows stay as they are, except that an operator may redrive
/// a dead one. Relays write no row that does not come from here; an operator's statement in the
/// store does the same as [`RouteOutcome::Redriven`].
#[must_use]
pub fn row_after(mut row: RouteRow, outcome: RouteOutcome) -> RouteRow {
    match (row.state, outcome) {
        (RouteState::Waiting, RouteOutcome::Confirmed) => {
            row.state = RouteState::Done;
            row.due_in = None;
        }
        (RouteState::Waiting, RouteOutcome::GivenUp { error }) => {
            if let Some(error) = error {
                AttemptError::push(&mut row.errors, error);
            }
            row.state = RouteState::Dead;
            row.due_in = None;
        }
        (RouteState::Waiting, RouteOutcome::Open { due_in }) => row.due_in = due_in,
        (RouteState::Dead, RouteOutcome::Redriven) => {
            row = RouteRow {
                due_in: Some(Duration::ZERO),
                redriven: true,
                ..RouteRow::waiting(row.route)
            };
        }
        (RouteState::Waiting | RouteState::Done, RouteOutcome::Redriven)
        | (
            RouteState::Done | RouteState::Dead,
            RouteOutcome::Confirmed | RouteOutcome::GivenUp { .. } | RouteOutcome::Open { .. },
        ) => {}
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureClass;

    #[test]
    fn every_state_with_every_outcome() {
        let error = || AttemptError::new(1, FailureClass::Transient, "503");
        let retry = || RouteOutcome::Open { due_in: Some(Duration::from_secs(1)) };
        let row = |state| RouteRow { state, ..RouteRow::waiting("a".into()) };
        use RouteState::{Dead, Done, Waiting};
        for (from, outcome, to) in [
            (Waiting, RouteOutcome::Confirmed, Done),
            (Waiting, retry(), Waiting),
            (Waiting, RouteOutcome::GivenUp { error: Some(error()) }, Dead),
            (Waiting, RouteOutcome::Open { due_in: None }, Waiting),
            (Waiting, RouteOutcome::Redriven, Waiting),
            (Done, RouteOutcome::Confirmed, Done),
            (Done, retry(), Done),
            (Done, RouteOutcome::GivenUp { error: None }, Done),
            (Done, RouteOutcome::Open { due_in: None }, Done),
            (Done, RouteOutcome::Redriven, Done),
            (Dead, RouteOutcome::Confirmed, Dead),
            (Dead, retry(), Dead),
            (Dead, RouteOutcome::GivenUp { error: None }, Dead),
            (Dead, RouteOutcome::Open { due_in: None }, Dead),
            (Dead, RouteOutcome::Redriven, Waiting),
        ] {
            let after = row_after(row(from), outcome.clone());
            assert_eq!(after.state, to, "{from} with {outcome:?}");
            assert!(after.due_in.is_none() || !to.is_final(), "the CHECK of the migration");
        }
    }
}
