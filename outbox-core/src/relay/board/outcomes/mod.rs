//! Outcomes of publishes: the next state of the event, of its key and of its route.

mod destination;
mod answers;
mod at_most_once;
mod failed;
mod reports;
mod settled;

use crate::relay::board::{
    Board, RouteNo, Timer,
    entries::{EventEntry, LegEvent, LegState, RouteLeg},
};
use crate::{
    event::EventId,
    failure::{AttemptError, DeadReason, FailureClass},
    outbox::PartitionNo,
    runtime::later,
    transport::WhenDead,
};
pub(crate) use destination::Destination;
use failed::FailedPublish;
use std::time::{Duration, Instant};

/// How long an event may be confirmed on some of its routes and untried on others before that is
/// recorded: it bounds what a crash repeats on the confirmed ones.
const PARTIAL_RECORD_DELAY: Duration = Duration::from_millis(250);

/// How one publish ended.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// The destination confirmed.
    Confirmed,
    /// The publish failed.
    Failed {
        /// The class of the failure.
        class: FailureClass,
        /// The error.
        text: String,
        /// How long the destination asks to wait.
        retry_after: Option<Duration>,
        /// Whether the destination has responded.
        responded: bool,
    },
    /// The destination has not begun with the message.
    Busy {
        /// How long it asks to wait.
        wait: Duration,
    },
    /// The destination gave no answer by the deadline.
    Unanswered {
        /// The error.
        text: String,
        /// How long the publish was under way.
        after: Duration,
    },
    /// The publisher failed for several messages at once, and this one may not be the cause.
    Unclear {
        /// The error.
        text: String,
    },
    /// The relay gave the publish up before an answer came.
    Cancelled,
}

impl Board {
    /// Takes results of a batch, in the order in which they came; `is_last` says that no more of it
    /// follow.
    pub(crate) fn published(
        &mut self,
        route: RouteNo,
        results: Vec<(EventId, Attempt)>,
        is_last: bool,
        now: Instant,
    ) {
        if is_last {
            self.queues[route].batch_ended();
        }
        // The confirmations first, whatever their place in the results: they are the evidence by
        // which the failures beside them are judged.
        let confirmed = results.iter().filter(|(_, a)| matches!(a, Attempt::Confirmed)).count();
        if confirmed > 0 {
            self.route_confirms(route, confirmed, now);
        }
        for (id, attempt) in results {
            if self.clear_in_flight(id, route) {
                self.publish_ended((id, route), attempt, confirmed > 0, now);
            }
        }
        if self.queues[route].batches() == 0 {
            self.destinations[route].last_batch_ended(now);
        }
        // This process gets through to the destination: the next suspected event may have its turn.
        if confirmed > 0 {
            self.release_next();
        }
    }

    /// Takes the result of one publish.
    fn publish_ended(
        &mut self,
        (id, route): (EventId, RouteNo),
        attempt: Attempt,
        others_succeeded: bool,
        now: Instant,
    ) {
        match attempt {
            attempt if self.is_at_most_once(route) => {
                self.published_at_most_once(id, route, attempt, now)
            }
            Attempt::Confirmed => {
                self.retry_unproven(route, now);
                self.confirmed(id, route, now);
            }
            Attempt::Cancelled => self.requeue(id, route, now),
            Attempt::Unclear { text } => {
                let text = self.loggable(id, FailureClass::Transient, false, &text);
                self.publish_singly(id, route);
                self.requeue(id, route, now);
                self.report_failure(
                    (id, route),
                    FailureClass::Transient,
                    text,
                    self.notices.len(),
                    now,
                );
            }
            Attempt::Busy { wait } => self.busy(id, route, wait, now),
            Attempt::Unanswered { text, after } => self.unanswered(id, route, text, after, now),
            Attempt::Failed { class, text, retry_after, responded } => {
                self.clear_hang(id, route);
                let loggable = self.loggable(id, class, responded, &text);
                let failed = FailedPublish {
                    id,
                    route,
                    class,
                    text,
                    loggable,
                    retry_after,
                    responded,
                    others_succeeded,
                    now,
                };
                self.failed(failed);
            }
        }
    }

    /// Notes that a publish has ended; `false` if the relay no longer owns the event.
    fn clear_in_flight(&mut self, id: EventId, route: RouteNo) -> bool {
        let Some(entry) = self.entries.get_mut(id) else { return false };
        let in_flight = entry.leg_mut(route).filter(|leg| leg.state() == LegState::InFlight);
        let Some(leg) = in_flight else { return false };
        leg.apply(LegEvent::PublishEnded);
        if let Some(partition) = self.partitions.get_mut(&entry.partition()) {
            partition.publish_ended();
        }
        self.survived(id, route);
        self.queues[route].solo_ended(id);
        true
    }

    fn confirmed(&mut self, id: EventId, route: RouteNo, now: Instant) {
        self.stats.delivered += 1;
        self.finish_leg(id, route, LegEvent::Confirmed, now);
    }

    /// Ends a leg for good, and makes the next event of the key ready.
    fn finish_leg(&mut self, id: EventId, route: RouteNo, end: LegEvent, now: Instant) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let Some(leg) = entry.leg_mut(route) else { return };
        leg.end(end);
        let (key_hash, no, bytes) = (entry.key_hash(), entry.partition(), entry.bytes());
        self.queues[route].publish_shared(id);
        self.release_capacity(route, no, bytes);
        if let Some(hash) = key_hash {
            self.queues[route].clear_in_flight(hash, id);
        }
        self.resolve(id, now);
    }

    /// Counts an event out of a route, and asks for a rescan if that makes room for evicted events.
    pub(crate) fn release_capacity(&mut self, route: RouteNo, no: PartitionNo, bytes: usize) {
        let queue = &mut self.queues[route];
        queue.release_capacity(bytes);
        for (partition, first) in queue.rescans_after(no) {
            if let Some(p) = self.partitions.get_mut(&partition) {
                p.rescan_from(first);
            }
        }
    }

    /// Records or finishes an event after one of its legs has ended.
    ///
    /// An event that its other routes are about to confirm is not recorded yet, so that it costs
    /// one DELETE and no row. It is recorded at once if a leg is delayed, and after
    /// [`PARTIAL_RECORD_DELAY`] in any case.
    fn resolve(&mut self, id: EventId, now: Instant) {
        let Some(entry) = self.entries.get(id) else { return };
        if entry.is_over() {
            if entry.has_rows() || entry.legs().iter().any(|l| l.state() == LegState::Dead) {
                self.record(id, now);
            } else {
                let (no, epoch) = (entry.partition(), entry.epoch());
                if let Some(partition) = self.partitions.get_mut(&no).filter(|p| p.epoch() == epoch)
                {
                    partition.write_pending();
                    self.writes.finish.push((no, epoch, id));
                }
            }
        } else if entry.has_rows() || entry.legs().iter().any(|l| self.is_delayed(entry, l)) {
            self.record(id, now);
        } else {
            self.entries.record_at(now + PARTIAL_RECORD_DELAY, id);
        }
    }

    /// Tells whether a leg waits for a retry, for its key, for a breaker or for a rescan.
    fn is_delayed(&self, entry: &EventEntry, leg: &RouteLeg) -> bool {
        let route = leg.route();
        match leg.state() {
            LegState::Retrying | LegState::Unproven | LegState::Evicted => true,
            LegState::Starting | LegState::InFlight | LegState::Confirmed | LegState::Dead => false,
            LegState::Waiting => {
                self.destinations[route].breaker().is_open()
                    || self.controls.is_paused(route)
                    || entry.key_hash().is_some_and(|hash| self.queues[route].is_blocked(hash))
            }
        }
    }

    /// Records the events that have been partially confirmed for too long.
    pub(crate) fn record_partially_confirmed(&mut self, now: Instant) {
        while let Some(id) = self.entries.take_record_due(now) {
            self.record(id, now);
        }
    }

    /// Records the route rows of an event: all its legs the first time, then those that changed.
    pub(crate) fn record(&mut self, id: EventId, now: Instant) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let (epoch, update) = (entry.epoch(), entry.take_record(id, &self.routes, now));
        self.push_record(epoch, update);
    }

    /// Retries an event after a time; meanwhile it blocks its key.
    fn retry_in(
        &mut self,
        id: EventId,
        route: RouteNo,
        pause: LegEvent,
        wait: Duration,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let (key_hash, no) = (entry.key_hash(), entry.partition());
        let Some(leg) = entry.leg_mut(route) else { return };
        let at = later(now, wait);
        leg.apply(pause);
        leg.retry_at(at);
        self.timers.push(Timer { at, id, route });
        if let Some(hash) = key_hash {
            self.queues[route].wait_for_retry(hash, no, id);
        }
    }

    /// Puts an event back at the head of its key as if it had not been tried; the other ready keys
    /// have their turn first.
    fn requeue(&mut self, id: EventId, route: RouteNo, now: Instant) {
        let Some(entry) = self.entries.get(id) else { return };
        let (key_hash, no) = (entry.key_hash(), entry.partition());
        if entry.has_rows() && entry.leg(route).is_some_and(|leg| !leg.is_written()) {
            // The recorded start has ended without a crash.
            self.record(id, now);
        }
        self.queues[route].requeue(id, no, key_hash);
    }

    /// Gives an event up on one route, with a dead letter. Its key is parked until the letter is
    /// written, and on a route that parks until an operator has decided about it.
    pub(crate) fn give_up(
        &mut self,
        id: EventId,
        route: RouteNo,
        reason: DeadReason,
        error: Option<AttemptError>,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let (key_hash, no) = (entry.key_hash(), entry.partition());
        let has_key = entry.message().key.is_some();
        let open = entry.leg_mut(route).filter(|leg| !leg.state().is_final());
        let Some(leg) = open else { return };
        leg.give_up(reason, error);
        self.stats.dead += 1;
        self.destinations[route].count_dead();
        if let Some(hash) = key_hash {
            let parks = has_key
                && self.routes[route].when_dead == WhenDead::Park
                && reason != DeadReason::Expired;
            // Until the letter is written in any case: after a crash before that, the next relay
            // would publish this event behind the next one of its key.
            self.queues[route].park(hash, no, id, !parks);
        }
        self.finish_leg(id, route, LegEvent::GivenUp, now);
    }
}
