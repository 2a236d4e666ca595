//! What the destination of a route has answered lately: evidence about a failed publish.

use crate::{event::EventId, failure::OtherMessages};
use std::time::Instant;

/// The last answers of a destination.
#[derive(Debug, Default)]
pub(crate) struct RouteAnswers {
    /// Confirmed events so far.
    successes: u64,
    /// The instant of the last confirmation.
    confirmed_at: Option<Instant>,
    /// The last two different events that failed, with the instants.
    failures: [Option<(EventId, Instant)>; 2],
}

impl RouteAnswers {
    /// Notes that events were confirmed.
    pub(crate) fn confirmed(&mut self, events: usize, now: Instant) {
        self.successes += events as u64;
        self.confirmed_at = Some(now);
    }

    /// Notes that an event failed.
    pub(crate) fn failed(&mut self, id: EventId, now: Instant) {
        let [last, before] = &mut self.failures;
        if last.is_some_and(|(other, _)| other != id) {
            *before = *last;
        }
        *last = Some((id, now));
    }

    /// Gives how many events were confirmed so far.
    pub(crate) fn successes(&self) -> u64 {
        self.successes
    }

    /// Gives the instant of the last confirmation.
    pub(crate) fn confirmed_at(&self) -> Option<Instant> {
        self.confirmed_at
    }

    /// Gives the last confirmation of the route, and the last failure of another event.
    pub(crate) fn others_than(&self, id: EventId) -> OtherMessages {
        let failed =
            self.failures.iter().flatten().find(|(other, _)| *other != id).map(|(_, at)| *at);
        OtherMessages { confirmed: self.confirmed_at, failed }
    }
}
