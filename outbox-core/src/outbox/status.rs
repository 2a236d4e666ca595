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

/// How one attempt ended, for the row.
#[derive(Debug, Clone, PartialEq)]
pub enum AttemptOutcome {
    /// The destination confirmed.
    Confirmed,
    /// It failed and is retried.
    RetryIn {
        /// The wait.
        wait: Duration,
        /// Time that is added to [`failing_for`](RouteRow::failing_for).
        failing: Duration,
        /// What went wrong.
        error: AttemptError,
    },
    /// It becomes a dead letter.
    GaveUp {
        /// What went wrong last, if an attempt was made.
        error: Option<AttemptError>,
    },
    /// It was not tried, or the failure is the destination's: no attempt counts.
    Requeued {
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

/// Gives the row after an attempt. Final rows stay as they are, except that an operator may redrive
/// a dead one.
#[must_use]
pub fn row_after(mut row: RouteRow, outcome: AttemptOutcome) -> RouteRow {
    match (row.state, outcome) {
        (RouteState::Waiting, AttemptOutcome::Confirmed) => {
            row.state = RouteState::Done;
            row.due_in = None;
        }
        (RouteState::Waiting, AttemptOutcome::RetryIn { wait, failing, error }) => {
            row.attempts_finished += 1;
            row.failing_for += failing;
            row.due_in = Some(wait);
            AttemptError::push(&mut row.errors, error);
        }
        (RouteState::Waiting, AttemptOutcome::GaveUp { error }) => {
            if let Some(error) = error {
                row.attempts_finished += 1;
                AttemptError::push(&mut row.errors, error);
            }
            row.state = RouteState::Dead;
            row.due_in = None;
        }
        (RouteState::Waiting, AttemptOutcome::Requeued { due_in }) => row.due_in = due_in,
        (RouteState::Dead, AttemptOutcome::Redriven) => {
            row = RouteRow {
                due_in: Some(Duration::ZERO),
                redriven: true,
                ..RouteRow::waiting(row.route)
            };
        }
        (RouteState::Waiting | RouteState::Done, AttemptOutcome::Redriven)
        | (
            RouteState::Done | RouteState::Dead,
            AttemptOutcome::Confirmed
            | AttemptOutcome::RetryIn { .. }
            | AttemptOutcome::GaveUp { .. }
            | AttemptOutcome::Requeued { .. },
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
        let retry = || AttemptOutcome::RetryIn {
            wait: Duration::from_secs(1),
            failing: Duration::from_secs(2),
            error: error(),
        };
        let row = |state| RouteRow { state, ..RouteRow::waiting("a".into()) };
        use RouteState::{Dead, Done, Waiting};
        for (from, outcome, to) in [
            (Waiting, AttemptOutcome::Confirmed, Done),
            (Waiting, retry(), Waiting),
            (Waiting, AttemptOutcome::GaveUp { error: Some(error()) }, Dead),
            (Waiting, AttemptOutcome::Requeued { due_in: None }, Waiting),
            (Waiting, AttemptOutcome::Redriven, Waiting),
            (Done, AttemptOutcome::Confirmed, Done),
            (Done, retry(), Done),
            (Done, AttemptOutcome::GaveUp { error: None }, Done),
            (Done, AttemptOutcome::Requeued { due_in: None }, Done),
            (Done, AttemptOutcome::Redriven, Done),
            (Dead, AttemptOutcome::Confirmed, Dead),
            (Dead, retry(), Dead),
            (Dead, AttemptOutcome::GaveUp { error: None }, Dead),
            (Dead, AttemptOutcome::Requeued { due_in: None }, Dead),
            (Dead, AttemptOutcome::Redriven, Waiting),
        ] {
            assert_eq!(row_after(row(from), outcome.clone()).state, to, "{from} with {outcome:?}");
        }
    }

    #[test]
    fn a_retry_counts_and_keeps_its_errors() {
        let mut row = RouteRow::waiting("a".into());
        for attempt in 1..=20 {
            let error =
                AttemptError::new(attempt, FailureClass::Transient, format!("no {attempt}"));
            row = row_after(
                row,
                AttemptOutcome::RetryIn {
                    wait: Duration::from_secs(1),
                    failing: Duration::from_secs(3),
                    error,
                },
            );
        }
        assert_eq!((row.attempts_finished, row.failing_for), (20, Duration::from_secs(60)));
        let kept: Vec<u32> = row.errors.iter().map(|e| e.attempt).collect();
        assert_eq!(kept, [1, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
    }
}
