//! At-most-once routes: the database marks an event as done before it is published, and it is never
//! published again.

use crate::relay::board::{Attempt, Board, RouteNo};
use crate::{
    event::EventId,
    failure::{AttemptError, DeadReason, FailureClass},
    outbox::{DetachedLetter, NewLetter},
    transport::Guarantee,
};
use std::time::Instant;

impl Board {
    pub(crate) fn is_at_most_once(&self, route: RouteNo) -> bool {
        self.routes[route].guarantee == Guarantee::AtMostOnce
    }

    /// Takes the result of an at-most-once publish. A failure makes a dead letter.
    pub(crate) fn published_at_most_once(
        &mut self,
        id: EventId,
        route: RouteNo,
        attempt: Attempt,
        now: Instant,
    ) {
        if !self.entries.contains(id) {
            return;
        }
        let failed = failure_of(attempt).map(|(class, text, responded)| {
            let opened = self.not_retried((id, route), class, &text, responded, now);
            (class, self.loggable(id, class, responded, &text), opened)
        });
        self.stats.delivered += u64::from(failed.is_none());
        let Some(entry) = self.entries.get_mut(id) else { return };
        let (key_hash, no, bytes) = (entry.key_hash(), entry.partition(), entry.bytes());
        if let Some(leg) = entry.leg_mut(route) {
            leg.end_at_most_once();
        }
        if let Some(partition) = self.partitions.get_mut(&no) {
            partition.done_published();
        }
        let is_settled = entry.is_settled();
        self.release_capacity(route, no, bytes);
        if let Some(hash) = key_hash {
            self.queues[route].clear_in_flight(hash, id);
        }
        if is_settled {
            self.drop_entry(id);
        }
        if let Some((class, text, opened)) = failed {
            let notices = self.notices.len();
            if opened {
                self.report_down(route, class, &text, now);
            }
            self.report_failure((id, route), class, text, notices, now);
        }
    }

    /// Makes a dead letter of an event whose publish has failed; tells whether that has opened the
    /// breaker of its route, or kept it open.
    fn not_retried(
        &mut self,
        (id, route): (EventId, RouteNo),
        class: FailureClass,
        text: &str,
        responded: bool,
        now: Instant,
    ) -> bool {
        let failure = self.failure(route, responded || class == FailureClass::Permanent);
        let Some(entry) = self.entries.get(id) else { return false };
        let letter = NewLetter {
            route: self.routes[route].name.clone(),
            reason: DeadReason::NotRetried,
            parks: false,
        };
        self.writes.letters.push(DetachedLetter {
            partition: entry.partition(),
            id,
            message: entry.message().clone(),
            letter,
            errors: vec![AttemptError::new(1, class, text.to_owned())],
        });
        self.stats.dead += 1;
        let breaker_key = entry.key_hash().unwrap_or(id.0.cast_unsigned());
        let destination = &mut self.destinations[route];
        destination.count_dead();
        match class {
            FailureClass::Unavailable => {
                destination.unavailable(failure, now);
                true
            }
            FailureClass::Transient | FailureClass::Permanent => {
                destination.event_failed(breaker_key, failure, now)
            }
        }
    }
}

/// Gives the class of a failed attempt, its text, and whether the destination has responded.
fn failure_of(attempt: Attempt) -> Option<(FailureClass, String, bool)> {
    match attempt {
        Attempt::Confirmed => None,
        Attempt::Failed { class, text, responded, .. } => Some((class, text, responded)),
        // The mark of the attempt is written, and forbids another one.
        Attempt::Busy { .. } => {
            Some((FailureClass::Transient, "the destination was busy".to_owned(), true))
        }
        Attempt::Unanswered { text, .. } | Attempt::Unclear { text } => {
            Some((FailureClass::Transient, text, false))
        }
        // It may have reached the destination, and the mark forbids another attempt: the letter
        // tells the operator.
        Attempt::Cancelled => {
            Some((FailureClass::Transient, "given up before an answer came".to_owned(), false))
        }
    }
}
