//! At-most-once routes: an event counts as done before it is published, and is never published again.

use crate::relay::board::{Attempt, Board, RouteNo, held::LegState};
use crate::{
    event::EventId,
    failure::{AttemptError, DeadReason, FailureClass},
    outbox::{CarriedLetter, NewLetter},
    transport::Guarantee,
};
use std::time::Instant;

impl Board {
    pub(crate) fn is_once(&self, route: RouteNo) -> bool {
        self.routes[route].guarantee == Guarantee::AtMostOnce
    }

    /// Writes down that an event is done on the route; it is published when that has been confirmed.
    pub(crate) fn claim(&mut self, id: EventId, route: RouteNo, now: Instant) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let (lane, no, epoch) = (held.lane, held.partition, held.epoch);
        let others_done =
            held.legs.iter().all(|l| l.route == route || l.state == LegState::Confirmed);
        let Some(leg) = held.legs.iter_mut().find(|l| l.route == route) else { return };
        leg.state = LegState::Starting;
        leg.claimed = true;
        leg.written = false;
        if let Some(partition) = self.partitions.get_mut(&no) {
            partition.claims += 1;
        }
        if held.remembered || !others_done {
            self.record(id, now);
        } else if let Some(partition) = self.partitions.get_mut(&no).filter(|p| p.epoch == epoch) {
            partition.writing += 1;
            self.writes.finish.push((no, epoch, id));
            // Its row goes: there is nothing else to write.
            held.legs.iter_mut().for_each(|l| l.written = true);
        }
        self.hold_back(id, route, lane, no);
    }

    /// Its row is finished; `true` when it is to be published only now.
    pub(crate) fn claim_finished(&mut self, id: EventId) -> bool {
        let Some(held) = self.held.get_mut(&id) else { return false };
        let Some(route) =
            held.legs.iter().find(|l| l.claimed && l.state == LegState::Starting).map(|l| l.route)
        else {
            return false;
        };
        held.gone = true;
        self.start_written(id, route);
        true
    }

    /// Takes the one answer to an at-most-once publish. A failure is a dead letter.
    pub(crate) fn published_once(
        &mut self,
        id: EventId,
        route: RouteNo,
        answer: Attempt,
        now: Instant,
    ) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let (lane, no, bytes) = (held.lane, held.partition, held.bytes);
        let failure = match answer {
            Attempt::Confirmed => None,
            Attempt::Failed { class, text, answered, .. } => Some((class, text, answered)),
            Attempt::Unanswered { text, .. } | Attempt::Unclear { text } => {
                Some((FailureClass::Transient, text, false))
            }
            Attempt::Cancelled => {
                Some((FailureClass::Transient, "given up before an answer came".to_owned(), false))
            }
        };
        let failure = failure.map(|(class, text, answered)| {
            let permanent = class == FailureClass::Permanent;
            (class, text, self.failure(route, answered || permanent))
        });
        let Some(held) = self.held.get_mut(&id) else { return };
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
                let message = held.message.clone();
                self.writes.bury.push(CarriedLetter { partition: no, id, message, letter, errors });
                self.stats.dead += 1;
                let crossing = lane.unwrap_or(id.0.cast_unsigned());
                let breaker = &mut self.queues[route].breaker;
                let opened = match class {
                    FailureClass::Unavailable => {
                        breaker.unavailable(failure, now);
                        true
                    }
                    FailureClass::Transient | FailureClass::Permanent => {
                        breaker.failed(crossing, failure, now)
                    }
                };
                failed = Some((class, text, opened));
            }
        }
        if let Some(leg) = held.legs.iter_mut().find(|l| l.route == route) {
            leg.state = LegState::Confirmed;
            leg.written = true;
        }
        if let Some(partition) = self.partitions.get_mut(&no) {
            partition.claims = partition.claims.saturating_sub(1);
        }
        let over = held.gone
            || (held.writing == 0 && held.legs.iter().all(|l| l.state.is_final() && l.written));
        self.let_go(route, no, bytes);
        if let Some(hash) = lane {
            self.queues[route].landed(hash, id);
        }
        if over {
            self.drop_held(id);
        }
        if let Some((class, text, opened)) = failed {
            let notices = self.notices.len();
            if opened {
                self.note_down(route, class, &text, now);
            }
            self.report_failure((id, route), class, text, notices, now);
        }
    }
}
