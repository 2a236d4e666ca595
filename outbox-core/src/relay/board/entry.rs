//! One event in memory.

use super::RouteNo;
use crate::{
    event::Message,
    failure::{AttemptError, DeadReason, Rejection},
    outbox::{Epoch, PartitionNo, RouteRow, RouteState},
    transport::Route,
};
use std::time::{Duration, Instant};

/// An event in memory, with its state on each of its routes.
#[derive(Debug)]
pub(crate) struct EventEntry {
    pub(crate) message: Message,
    /// Whether it came without its payload, and so can only be evicted.
    pub(crate) left_out: bool,
    /// Its bytes in the memory of each of its routes.
    pub(crate) bytes: usize,
    pub(crate) partition: PartitionNo,
    pub(crate) epoch: Epoch,
    /// Hash of the key; `None` without one.
    pub(crate) key_hash: Option<u64>,
    pub(crate) expires_at: Option<Instant>,
    pub(crate) legs: Vec<RouteLeg>,
    /// Whether the database has route rows of it, or the settler is about to write them.
    pub(crate) has_rows: bool,
    /// Records that the settler has not confirmed yet.
    pub(crate) pending_writes: u32,
    /// Whether the settler has deleted the event although an at-most-once publish of it has not
    /// ended.
    pub(crate) row_finished: bool,
}

impl EventEntry {
    /// Tells whether some of its routes have ended and others not, and an ended one is not
    /// recorded.
    pub(crate) fn is_partially_confirmed(&self) -> bool {
        self.legs.iter().any(|l| l.state.is_final() && !l.written)
            && !self.legs.iter().all(|l| l.state.is_final())
    }
}

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
}

/// An event on one route.
#[derive(Debug)]
pub(crate) struct RouteLeg {
    pub(crate) route: RouteNo,
    pub(crate) state: LegState,
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
    /// Whether [`Notice::StaysRejected`](super::Notice::StaysRejected) was given for it.
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

    pub(crate) fn history(&mut self) -> &mut AttemptHistory {
        self.history.get_or_insert_default()
    }

    /// Gives the row to record.
    pub(crate) fn row(&self, routes: &[Route], now: Instant) -> RouteRow {
        let state = match self.state {
            _ if self.done_first => RouteState::Done,
            LegState::Confirmed => RouteState::Done,
            LegState::Dead => RouteState::Dead,
            LegState::Waiting
            | LegState::Starting
            | LegState::InFlight
            | LegState::Retrying
            | LegState::Unproven
            | LegState::Evicted => RouteState::Waiting,
        };
        let mut row = RouteRow { state, ..RouteRow::waiting(routes[self.route].name.clone()) };
        if let Some(history) = &self.history {
            row.attempts_started = history.attempts_started;
            row.attempts_finished = history.attempts_finished;
            row.failing_for = history.failing_for;
            row.errors.clone_from(&history.errors);
            row.redriven = history.redriven;
            if state == RouteState::Waiting {
                row.due_in = history.due_at.map(|at| at.saturating_duration_since(now));
            }
        }
        row
    }
}
