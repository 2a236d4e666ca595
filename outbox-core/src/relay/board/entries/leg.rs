//! An event on one route: its state, a pure transition function, and whether that is recorded.
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

use super::AttemptHistory;
use crate::relay::board::RouteNo;
use crate::{
    failure::{AttemptError, DeadReason},
    outbox::{RouteOutcome, RouteRow, RouteState, row_after},
    transport::Route,
};
use std::time::Instant;

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
    route: RouteNo,
    state: LegState,
    /// Whether the state is recorded in the database, or does not have to be.
    written: bool,
    /// Whether it is marked as done before it is published: at most once.
    done_first: bool,
    history: Option<Box<AttemptHistory>>,
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
        let history = Some(Box::new(AttemptHistory::from_row(row, now)));
        Self { route, state, written: true, done_first: false, history }
    }

    pub(crate) const fn route(&self) -> RouteNo {
        self.route
    }

    pub(crate) const fn state(&self) -> LegState {
        self.state
    }

    /// Tells whether the state is recorded in the database, or does not have to be.
    pub(crate) const fn is_written(&self) -> bool {
        self.written
    }

    /// Tells whether it has ended, and that is recorded.
    pub(crate) const fn is_settled(&self) -> bool {
        self.state.is_final() && self.written
    }

    /// Tells whether it is marked as done before it is published: at most once.
    pub(crate) const fn is_done_first(&self) -> bool {
        self.done_first
    }

    /// Changes the state by what has happened.
    pub(crate) fn apply(&mut self, event: LegEvent) {
        match self.state.after(event) {
            Some(state) => self.state = state,
            None => debug_assert!(false, "{event:?} of an event that is {:?}", self.state),
        }
    }

    /// Tells whether the database knows the start of the event: recorded after a crash, or marked
    /// as done on an at-most-once route.
    pub(crate) fn has_begun(&self) -> bool {
        self.done_first || self.is_start_recorded()
    }

    /// Tells whether the database has recorded the start of the present attempt.
    pub(crate) fn is_start_recorded(&self) -> bool {
        self.history.as_ref().is_some_and(|history| history.is_start_recorded())
    }

    /// Gives how many of its attempts may have ended their process.
    pub(crate) fn attempts_started(&self) -> u32 {
        self.history.as_ref().map_or(0, |history| history.attempts_started())
    }

    /// Gives the number of its present attempt, from 1.
    pub(crate) fn attempt(&self) -> u32 {
        self.history.as_ref().map_or(1, |history| history.attempt())
    }

    /// Tells whether an operator redrove it.
    pub(crate) fn is_redriven(&self) -> bool {
        self.history.as_ref().is_some_and(|history| history.is_redriven())
    }

    /// Gives the instant of its retry, while it waits for one.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.history.as_ref()?.due_at()
    }

    /// Gives its attempts, to note what a failure says of it.
    pub(crate) fn history(&mut self) -> &mut AttemptHistory {
        self.history.get_or_insert_default()
    }

    /// Notes that it is to be marked as done before it is published: at most once.
    pub(crate) fn mark_done_first(&mut self) {
        self.apply(LegEvent::StartToRecord);
        self.done_first = true;
        self.written = false;
    }

    /// Notes that its start is to be recorded before it is published.
    pub(crate) fn record_start(&mut self) {
        self.apply(LegEvent::StartToRecord);
        self.history().count_start();
        self.written = false;
    }

    /// Notes that its start is recorded.
    pub(crate) fn start_recorded(&mut self) {
        self.apply(LegEvent::StartRecorded);
        self.history().start_recorded();
    }

    /// Notes that a publish has ended, with whatever outcome: it did not end the process. Tells
    /// whether its start was recorded because it might have.
    pub(crate) fn survived(&mut self) -> bool {
        let Some(history) = &mut self.history else { return false };
        if !history.end_start() || self.done_first {
            return false;
        }
        history.forget_starts();
        self.written = false;
        true
    }

    /// Notes when it is retried.
    pub(crate) fn retry_at(&mut self, at: Instant) {
        self.written = false;
        self.history().set_due(Some(at));
    }

    /// Notes that another event was confirmed; tells whether it is retried now.
    pub(crate) fn other_confirmed(&mut self, now: Instant) -> bool {
        let is_unproven = self.state == LegState::Unproven;
        self.history().other_confirmed(now);
        if is_unproven {
            self.history().set_due(None);
            self.apply(LegEvent::RetryDue);
        }
        is_unproven
    }

    /// Notes that its failure was the destination's: it is retried when the breaker lets it. Tells
    /// whether its attempt was counted; `None` if it waits for no retry.
    pub(crate) fn refund(&mut self) -> Option<bool> {
        let is_counted = match self.state {
            LegState::Retrying => true,
            LegState::Unproven => false,
            LegState::Waiting
            | LegState::Starting
            | LegState::InFlight
            | LegState::Evicted
            | LegState::Confirmed
            | LegState::Dead => return None,
        };
        self.apply(LegEvent::RetryDue);
        self.history().set_due(None);
        if is_counted {
            self.history().refund();
            self.written = false;
        }
        Some(is_counted)
    }

    /// Notes why it is given up.
    pub(crate) fn give_up(&mut self, reason: DeadReason, error: Option<AttemptError>) {
        self.history().give_up(reason, error);
    }

    /// Ends it for good.
    pub(crate) fn end(&mut self, end: LegEvent) {
        self.apply(end);
        self.written = false;
        if let Some(history) = &mut self.history {
            history.set_due(None);
        }
    }

    /// Ends it on an at-most-once route, which has recorded its end before the publish.
    pub(crate) fn end_at_most_once(&mut self) {
        self.apply(LegEvent::Confirmed);
        self.written = true;
    }

    /// Notes that its state is recorded, or does not have to be.
    pub(super) fn recorded(&mut self) {
        self.written = true;
    }

    /// Takes why it was given up, for its dead letter.
    pub(super) fn take_reason(&mut self) -> Option<DeadReason> {
        let history = self.history.as_mut().filter(|_| self.state == LegState::Dead)?;
        history.take_reason()
    }

    /// Gives the row to record, and counts as recorded.
    pub(crate) fn take_row(&mut self, routes: &[Route], now: Instant) -> RouteRow {
        self.written = true;
        self.row(routes, now)
    }

    fn row(&self, routes: &[Route], now: Instant) -> RouteRow {
        let mut row = RouteRow::waiting(routes[self.route].name.clone());
        let due_in = self.history.as_ref().and_then(|history| history.fill(&mut row, now));
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
}
