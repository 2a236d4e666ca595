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
        let Some(entry) = self.entries.get_mut(id) else { return };
        let (key_hash, no, bytes) = (entry.key_hash(), entry.partition(), entry.bytes());
        let failure = failure_of(attempt).map(|(class, text, responded)| {
            let permanent = class == FailureClass::Permanent;
            (class, text, self.failure(route, responded || permanent))
        });
        let Some(entry) = self.entries.get_mut(id) else { return };
        let mut failed = None;
        match failure {
            None => self.stats.delivered += 1,
            Some((class, text, failure)) => {
                let letter = NewLetter {
                    route: self.routes[route].name.clone(),
                    reason: DeadReason::NotRetried,
                    parks: false,
                };
                let errors = vec![AttemptError::new(1, class, text.clone())];
                let message = entry.message().clone();
                let letter = DetachedLetter { partition: no, id, message, letter, errors };
                self.writes.letters.push(letter);
                self.stats.dead += 1;
                let destination = &mut self.destinations[route];
                destination.count_dead();
                let breaker_key = key_hash.unwrap_or(id.0.cast_unsigned());
                let opened = match class {
                    FailureClass::Unavailable => {
                        destination.unavailable(failure, now);
                        true
                    }
                    FailureClass::Transient | FailureClass::Permanent => {
                        destination.event_failed(breaker_key, failure, now)
                    }
                };
                failed = Some((class, text, opened));
            }
        }
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
