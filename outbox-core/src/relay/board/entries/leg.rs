//! An event on one route: its state, a pure transition function, and its failed attempts.
//!
//! ```text
//!             .--- StartToRecord --> Starting --- StartRecorded ---.
//!             |                                                    |
//!             |.-- Published ------> InFlight --- PublishEnded ---.|
//!             ||                                                  ||
//! read --> Waiting <----------------------------------------------''
//!             |||| ^
//!             |||| '---- RetryDue --------.
//!             |||'------ ToRetry, RejectedUnproven --> Retrying, Unproven
//!             ||'------- Evicted --> Evicted --- ReadAgain --> Waiting
//!             |'-------- Confirmed --> Confirmed
//!             '--------- GivenUp ----> Dead
//! ```
//!
//! A leg that is starting or is retried may be evicted too. A dead event that an operator redrives
//! is a new leg, made of its row. The database knows three of the states, by
//! [`row_after`](crate::outbox::row_after): all that are not final are waiting there.

use crate::relay::board::RouteNo;
use crate::{
    failure::{AttemptError, DeadReason, FailureClass, Rejection},
    outbox::{RouteOutcome, RouteRow, RouteState, row_after},
    transport::Route,
};
use std::time::{Duration, Instant};

/// The state of an event on one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LegState {
    /// In its key queue.
    Waiting,
    /// Not published before the database has recorded its start or, on an at-most-once route, its
    /// end.
    Starting,
    /// Handed to the publisher.
    InFlight,
    /// Failed; retried when its timer fires.
    Retrying,
    /// Rejected, but the destination may reject every event.
    Unproven,
    /// Not in memory for this route: a rescan reads it again.
    Evicted,
    /// Confirmed.
    Confirmed,
    /// Given up, with a dead letter.
    Dead,
}

impl LegState {
    pub(crate) const fn is_final(self) -> bool {
        matches!(self, Self::Confirmed | Self::Dead)
    }

    /// Gives the state after something that happened; `None` if it cannot happen in this state.
    pub(crate) const fn after(self, event: LegEvent) -> Option<Self> {
        match (self, event) {
            (Self::Waiting, LegEvent::StartToRecord) => Some(Self::Starting),
            (Self::Waiting, LegEvent::Published) => Some(Self::InFlight),
            (Self::Waiting, LegEvent::ToRetry) => Some(Self::Retrying),
            (Self::Waiting, LegEvent::RejectedUnproven) => Some(Self::Unproven),
            (Self::Waiting, LegEvent::Confirmed) => Some(Self::Confirmed),
            (Self::Waiting, LegEvent::GivenUp) => Some(Self::Dead),
            (Self::Starting, LegEvent::StartRecorded)
            | (Self::InFlight, LegEvent::PublishEnded)
            | (Self::Retrying | Self::Unproven, LegEvent::RetryDue)
            | (Self::Evicted, LegEvent::ReadAgain) => Some(Self::Waiting),
            (
                Self::Waiting | Self::Starting | Self::Retrying | Self::Unproven,
                LegEvent::Evicted,
            ) => Some(Self::Evicted),
            (
                Self::Waiting
                | Self::Starting
                | Self::InFlight
                | Self::Retrying
                | Self::Unproven
                | Self::Evicted
                | Self::Confirmed
                | Self::Dead,
                _,
            ) => None,
        }
    }
}

/// What happens to an event on one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LegEvent {
    /// The settler is to record its start or, on an at-most-once route, its end.
    StartToRecord,
    /// That is recorded.
    StartRecorded,
    /// It is handed to the publisher.
    Published,
    /// Its publish has ended. What the destination answered follows as an event of its own.
    PublishEnded,
    /// It is retried when its timer fires.
    ToRetry,
    /// It was rejected, and the destination may reject every event.
    RejectedUnproven,
    /// Its timer has fired, or it is retried earlier.
    RetryDue,
    /// There is no room for it.
    Evicted,
    /// It was read again.
    ReadAgain,
    /// The destination has confirmed it.
    Confirmed,
    /// It becomes a dead letter.
    GivenUp,
}

/// An event on one route.
#[derive(Debug)]
pub(crate) struct RouteLeg {
    pub(crate) route: RouteNo,
    state: LegState,
    /// Whether the state is recorded in the database, or does not have to be.
    pub(crate) written: bool,
    /// Whether it is marked as done before it is published: at most once.
    pub(crate) done_first: bool,
    pub(crate) history: Option<Box<AttemptHistory>>,
}

/// The failed attempts of an event on one route.
#[derive(Debug, Default, Clone)]
pub(crate) struct AttemptHistory {
    pub(crate) attempts_started: u32,
    pub(crate) attempts_finished: u32,
    pub(crate) failing_for: Duration,
    pub(crate) errors: Vec<AttemptError>,
    pub(crate) redriven: bool,
    /// The instant of the last counted failure in this process.
    pub(crate) failed_at: Option<Instant>,
    /// The instant of its retry, while it waits for one.
    pub(crate) due_at: Option<Instant>,
    /// Its rejections, of which the destination may be the cause.
    pub(crate) rejection: Option<Rejection>,
    /// The start of its first publish that got no answer.
    pub(crate) hangs_since: Option<Instant>,
    /// Whether [`Notice::StaysRejected`](crate::relay::board::Notice::StaysRejected) was given for
    /// it.
    pub(crate) stay_reported: bool,
    /// How often its destination was down for it, with confirmations of other events in between.
    pub(crate) unavailable_count: u8,
    /// The route's successes at the last of these.
    pub(crate) successes_seen: u64,
    /// Whether the database has recorded the start of the present attempt.
    pub(crate) start_recorded: bool,
    /// Why it was given up, until the dead letter is recorded.
    pub(crate) reason: Option<DeadReason>,
}

impl AttemptHistory {
    /// Counts a failed attempt. Time with the breaker open, from `opened` on, is the destination's
    /// failure, not the event's.
    pub(crate) fn count_failure(&mut self, text: String, opened: Option<Instant>, now: Instant) {
        self.attempts_finished += 1;
        let error = AttemptError::new(self.attempts_finished, FailureClass::Transient, text);
        AttemptError::push(&mut self.errors, error);
        if let Some(before) = self.failed_at.replace(now)
            && opened.is_none_or(|opened| opened < before)
        {
            self.failing_for += now.saturating_duration_since(before);
        }
    }
}

impl RouteLeg {
    pub(crate) fn new(route: RouteNo) -> Self {
        Self { route, state: LegState::Waiting, written: false, done_first: false, history: None }
    }

    pub(crate) fn from_row(route: RouteNo, row: RouteRow, now: Instant) -> Self {
        let state = match row.state {
            RouteState::Waiting => LegState::Waiting,
            RouteState::Done => LegState::Confirmed,
            RouteState::Dead => LegState::Dead,
        };
        let history = AttemptHistory {
            attempts_started: row.attempts_started,
            attempts_finished: row.attempts_finished,
            failing_for: row.failing_for,
            errors: row.errors,
            redriven: row.redriven,
            due_at: row.due_in.map(|d| now + d),
            ..AttemptHistory::default()
        };
        Self { route, state, written: true, done_first: false, history: Some(Box::new(history)) }
    }

    pub(crate) const fn state(&self) -> LegState {
        self.state
    }

    /// Changes the state by what has happened.
    pub(crate) fn apply(&mut self, event: LegEvent) {
        match self.state.after(event) {
            Some(state) => self.state = state,
            None => debug_assert!(false, "{event:?} of an event that is {:?}", self.state),
        }
    }

    /// Tells whether the database knows the start of the event: recorded after a crash, or marked as
    /// done on an at-most-once route.
    pub(crate) fn has_begun(&self) -> bool {
        self.done_first || self.history.as_ref().is_some_and(|history| history.start_recorded)
    }

    pub(crate) fn history(&mut self) -> &mut AttemptHistory {
        self.history.get_or_insert_default()
    }

    /// Gives the row to record.
    pub(crate) fn row(&self, routes: &[Route], now: Instant) -> RouteRow {
        let mut row = RouteRow::waiting(routes[self.route].name.clone());
        let mut due_in = None;
        if let Some(history) = &self.history {
            row.attempts_started = history.attempts_started;
            row.attempts_finished = history.attempts_finished;
            row.failing_for = history.failing_for;
            row.errors.clone_from(&history.errors);
            row.redriven = history.redriven;
            due_in = history.due_at.map(|at| at.saturating_duration_since(now));
        }
        let outcome = match self.state {
            _ if self.done_first => RouteOutcome::Confirmed,
            LegState::Confirmed => RouteOutcome::Confirmed,
            LegState::Dead => RouteOutcome::GivenUp { error: None },
            LegState::Waiting
            | LegState::Starting
            | LegState::InFlight
            | LegState::Retrying
            | LegState::Unproven
            | LegState::Evicted => RouteOutcome::Open { due_in },
        };
        row_after(row, outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_with_every_event() {
        use LegEvent::{
            Confirmed, Evicted, GivenUp, PublishEnded, Published, ReadAgain, RejectedUnproven,
            RetryDue, StartRecorded, StartToRecord, ToRetry,
        };
        const EVENTS: [LegEvent; 11] = [
            StartToRecord,
            StartRecorded,
            Published,
            PublishEnded,
            ToRetry,
            RejectedUnproven,
            RetryDue,
            Evicted,
            ReadAgain,
            Confirmed,
            GivenUp,
        ];
        use LegState as To;
        for (from, happens) in [
            (
                To::Waiting,
                vec![
                    (StartToRecord, To::Starting),
                    (Published, To::InFlight),
                    (ToRetry, To::Retrying),
                    (RejectedUnproven, To::Unproven),
                    (Evicted, To::Evicted),
                    (Confirmed, To::Confirmed),
                    (GivenUp, To::Dead),
                ],
            ),
            (To::Starting, vec![(StartRecorded, To::Waiting), (Evicted, To::Evicted)]),
            (To::InFlight, vec![(PublishEnded, To::Waiting)]),
            (To::Retrying, vec![(RetryDue, To::Waiting), (Evicted, To::Evicted)]),
            (To::Unproven, vec![(RetryDue, To::Waiting), (Evicted, To::Evicted)]),
            (To::Evicted, vec![(ReadAgain, To::Waiting)]),
            (To::Confirmed, vec![]),
            (To::Dead, vec![]),
        ] {
            for event in EVENTS {
                let to = happens.iter().find(|(happened, _)| *happened == event).map(|(_, to)| *to);
                assert_eq!(from.after(event), to, "{from:?} with {event:?}");
            }
        }
    }

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
}
