//! One event in memory.

use super::RouteNo;
use crate::{
    event::Message,
    failure::{AttemptError, DeadReason, Rejection},
    outbox::{Epoch, PartitionNo, RouteRow, RouteState},
    transport::Route,
};
use std::time::{Duration, Instant};

/// An event that is held, with what becomes of it on each of its routes.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) message: Message,
    /// Whether it came without its payload, and so can only be forgotten.
    pub(crate) left_out: bool,
    /// What it takes of the memory of each of its routes.
    pub(crate) bytes: usize,
    pub(crate) partition: PartitionNo,
    pub(crate) epoch: Epoch,
    /// Hash of the key; `None` without one.
    pub(crate) lane: Option<u64>,
    pub(crate) expires_at: Option<Instant>,
    pub(crate) legs: Vec<Leg>,
    /// Whether rows of it are in the database, or on their way there.
    pub(crate) remembered: bool,
    /// Writes on their way.
    pub(crate) writing: u32,
    /// Whether its row is finished while a publish of it is still to come or under way: at most once.
    pub(crate) gone: bool,
}

impl Held {
    /// Tells whether it is done on some of its routes and not on others, and that is not written down.
    pub(crate) fn is_halfway(&self) -> bool {
        self.legs.iter().any(|l| l.state.is_final() && !l.written)
            && !self.legs.iter().all(|l| l.state.is_final())
    }
}

/// Where an event stands on one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LegState {
    /// In its lane.
    Waiting,
    /// To be published once it is written down that it was started, or, on an at-most-once route, that it is done.
    Starting,
    /// Handed to the publisher.
    InFlight,
    /// Failed; the timer will ring.
    Retrying,
    /// Rejected, though perhaps the destination rejects everything.
    Unproven,
    /// Not held for this route: found again by reading.
    Forgotten,
    /// Confirmed.
    Confirmed,
    /// Put aside.
    Dead,
}

impl LegState {
    pub(crate) const fn is_final(self) -> bool {
        matches!(self, Self::Confirmed | Self::Dead)
    }
}

/// An event on one route.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(crate) route: RouteNo,
    pub(crate) state: LegState,
    /// Whether the database knows this state (as far as it is to be known there).
    pub(crate) written: bool,
    /// Whether it counts as done before it is published: at most once.
    pub(crate) claimed: bool,
    pub(crate) past: Option<Box<Past>>,
}

/// What has gone wrong so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Past {
    pub(crate) attempts_started: u32,
    pub(crate) attempts_finished: u32,
    pub(crate) failing_for: Duration,
    pub(crate) errors: Vec<AttemptError>,
    pub(crate) redriven: bool,
    /// When the last counted failure was, in this process.
    pub(crate) failed_at: Option<Instant>,
    /// When it is due, while it waits for that.
    pub(crate) due_at: Option<Instant>,
    /// Its rejections, which may have spoken of the destination.
    pub(crate) rejection: Option<Rejection>,
    /// Since when its publishes are left unanswered.
    pub(crate) hangs_since: Option<Instant>,
    /// Whether it was told that it stays, rejected as it is.
    pub(crate) told: bool,
    /// Times it met a destination that was down, others having succeeded between.
    pub(crate) unavailable: u8,
    /// The route's successes when it last did.
    pub(crate) successes_seen: u64,
    /// Whether the present start is written down.
    pub(crate) cleared: bool,
    /// Why it was put aside.
    pub(crate) reason: Option<DeadReason>,
}

impl Leg {
    pub(crate) fn new(route: RouteNo) -> Self {
        Self { route, state: LegState::Waiting, written: false, claimed: false, past: None }
    }

    pub(crate) fn from_row(route: RouteNo, row: RouteRow, now: Instant) -> Self {
        let state = match row.state {
            RouteState::Waiting => LegState::Waiting,
            RouteState::Done => LegState::Confirmed,
            RouteState::Dead => LegState::Dead,
        };
        let past = Past {
            attempts_started: row.attempts_started,
            attempts_finished: row.attempts_finished,
            failing_for: row.failing_for,
            errors: row.errors,
            redriven: row.redriven,
            due_at: row.due_in.map(|d| now + d),
            ..Past::default()
        };
        Self { route, state, written: true, claimed: false, past: Some(Box::new(past)) }
    }

    pub(crate) fn past(&mut self) -> &mut Past {
        self.past.get_or_insert_default()
    }

    /// The row as it should stand in the database.
    pub(crate) fn row(&self, routes: &[Route], now: Instant) -> RouteRow {
        let state = match self.state {
            _ if self.claimed => RouteState::Done,
            LegState::Confirmed => RouteState::Done,
            LegState::Dead => RouteState::Dead,
            LegState::Waiting
            | LegState::Starting
            | LegState::InFlight
            | LegState::Retrying
            | LegState::Unproven
            | LegState::Forgotten => RouteState::Waiting,
        };
        let mut row = RouteRow { state, ..RouteRow::waiting(routes[self.route].name.clone()) };
        if let Some(past) = &self.past {
            row.attempts_started = past.attempts_started;
            row.attempts_finished = past.attempts_finished;
            row.failing_for = past.failing_for;
            row.errors.clone_from(&past.errors);
            row.redriven = past.redriven;
            if state == RouteState::Waiting {
                row.due_in = past.due_at.map(|at| at.saturating_duration_since(now));
            }
        }
        row
    }
}
