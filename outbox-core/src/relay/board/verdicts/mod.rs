//! What publishers answer, and what becomes of an event by it.

mod dispatch;
mod failed;
mod once;
mod reports;
mod settled;

pub(crate) use dispatch::RouteBatch;

use crate::relay::board::{
    Board, RouteNo, Timer,
    held::{Held, LegState},
    lanes::Parked,
};
use crate::{
    event::EventId,
    failure::{AttemptError, DeadReason, FailureClass},
    outbox::{NewLetter, Verdict},
    transport::WhenDead,
};
use failed::Failed;
use std::time::{Duration, Instant};

/// How long an event may be confirmed on some of its routes and untried on others until that is written down: it
/// bounds what a crash repeats on the confirmed ones.
const HALFWAY: Duration = Duration::from_millis(250);
/// How one publish ended.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// The destination confirmed.
    Confirmed,
    /// It did not.
    Failed {
        /// What that means.
        class: FailureClass,
        /// What was said.
        text: String,
        /// How long the destination asks to wait.
        retry_after: Option<Duration>,
        /// Whether the destination lives and has answered.
        answered: bool,
    },
    /// Nothing was said of it by the deadline, which came so long after the publish had begun.
    Unanswered {
        /// What is told of that.
        text: String,
        /// How long it was under way.
        after: Duration,
    },
    /// The publisher failed for several messages at once, and this one may have had no part in it.
    Unclear {
        /// What is told of that.
        text: String,
    },
    /// It was given up before an answer, for reasons of ours.
    Cancelled,
}

impl Board {
    /// Takes answers to a batch, in the order in which they came; `over` says that they are its last.
    pub(crate) fn published(
        &mut self,
        route: RouteNo,
        answers: Vec<(EventId, Attempt)>,
        over: bool,
        now: Instant,
    ) {
        let queue = &mut self.queues[route];
        queue.batches = queue.batches.saturating_sub(usize::from(over));
        let confirmed = answers.iter().filter(|(_, a)| matches!(a, Attempt::Confirmed)).count();
        if confirmed > 0 {
            queue.successes += confirmed as u64;
            queue.confirmed_at = Some(now);
            self.route_works(route, now);
        }
        for (id, answer) in answers {
            if !self.landed(id, route) {
                continue;
            }
            match answer {
                answer if self.is_once(route) => self.published_once(id, route, answer, now),
                Attempt::Confirmed => {
                    self.others_take(route, now);
                    self.confirmed(id, route, now);
                }
                Attempt::Cancelled => self.put_back(id, route, now),
                Attempt::Unclear { text } => {
                    self.isolate(id, route);
                    self.put_back(id, route, now);
                    self.report_failure(
                        (id, route),
                        FailureClass::Transient,
                        text,
                        self.notices.len(),
                        now,
                    );
                }
                Attempt::Unanswered { text, after } => self.unanswered(id, route, text, after, now),
                Attempt::Failed { class, text, retry_after, answered } => {
                    self.answered_after_all(id, route);
                    let failed = Failed {
                        class,
                        text,
                        retry_after,
                        answered,
                        others_succeeded: confirmed > 0,
                    };
                    self.failed(id, route, failed, now);
                }
            }
        }
        if self.queues[route].batches == 0 {
            // A probe whose events were cancelled or lost to another relay has said nothing.
            self.queues[route].breaker.probe_void(now);
        }
        if confirmed > 0 {
            self.let_one_go();
        }
    }

    /// Ends the flight; `false` when the event is no longer ours.
    fn landed(&mut self, id: EventId, route: RouteNo) -> bool {
        let Some(held) = self.held.get_mut(&id) else { return false };
        let Some(leg) =
            held.legs.iter_mut().find(|l| l.route == route && l.state == LegState::InFlight)
        else {
            return false;
        };
        leg.state = LegState::Waiting;
        if let Some(partition) = self.partitions.get_mut(&held.partition) {
            partition.in_flight = partition.in_flight.saturating_sub(1);
        }
        self.answered(id, route);
        self.queues[route].loners.landed(id);
        true
    }

    fn confirmed(&mut self, id: EventId, route: RouteNo, now: Instant) {
        self.stats.delivered += 1;
        self.conclude(id, route, LegState::Confirmed, now);
    }

    /// Ends a leg for good and lets the next of its key go.
    fn conclude(&mut self, id: EventId, route: RouteNo, state: LegState, now: Instant) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let Some(leg) = held.legs.iter_mut().find(|l| l.route == route) else { return };
        leg.state = state;
        leg.written = false;
        if let Some(past) = leg.past.as_mut() {
            past.due_at = None;
        }
        let (lane, no, bytes) = (held.lane, held.partition, held.bytes);
        self.queues[route].loners.remove(id);
        self.let_go(route, no, bytes);
        if let Some(hash) = lane {
            self.queues[route].landed(hash, id);
        }
        self.resolve(id, now);
    }

    /// Counts an event out of a route, and asks for forgotten ones where that makes room.
    pub(crate) fn let_go(&mut self, route: RouteNo, no: crate::outbox::PartitionNo, bytes: usize) {
        let queue = &mut self.queues[route];
        queue.let_go(bytes);
        if !queue.closed.is_empty()
            && queue.has_room(self.config.per_route, self.routes[route].max_in_memory)
        {
            // Each partition in turn as its events leave; when the queue runs dry, all of them.
            for (closed_no, closed) in &queue.closed {
                if (*closed_no == no || queue.held < 64)
                    && let Some(p) = self.partitions.get_mut(closed_no)
                {
                    p.reread_from(closed.first);
                }
            }
        }
    }

    /// Decides what is to be written after a leg ended.
    fn resolve(&mut self, id: EventId, now: Instant) {
        let Some(held) = self.held.get(&id) else { return };
        if held.legs.iter().all(|l| l.state.is_final()) {
            if held.remembered || held.legs.iter().any(|l| l.state == LegState::Dead) {
                self.record(id, now);
            } else {
                let (no, epoch) = (held.partition, held.epoch);
                if let Some(partition) = self.partitions.get_mut(&no).filter(|p| p.epoch == epoch) {
                    partition.writing += 1;
                    self.writes.finish.push((no, epoch, id));
                }
            }
        } else if held.remembered || held.legs.iter().any(|l| self.is_stuck(held, l.route, l.state))
        {
            self.record(id, now);
        } else {
            self.halfway.push_back((now + HALFWAY, id));
        }
    }

    fn is_stuck(&self, held: &Held, route: RouteNo, state: LegState) -> bool {
        match state {
            LegState::Retrying | LegState::Unproven | LegState::Forgotten => true,
            LegState::Starting | LegState::InFlight | LegState::Confirmed | LegState::Dead => false,
            LegState::Waiting => {
                let queue = &self.queues[route];
                let lane = held.lane.and_then(|hash| queue.lanes.get(&hash));
                queue.breaker.is_open()
                    || lane.is_some_and(|l| l.blocked.is_some() || l.parked.is_some())
            }
        }
    }

    /// Writes down the events that have been halfway for too long.
    pub(crate) fn write_halfway(&mut self, now: Instant) {
        while let Some((_, id)) = self.halfway.pop_front_if(|(at, _)| *at <= now) {
            if self.held.get(&id).is_some_and(Held::is_halfway) {
                self.record(id, now);
            }
        }
    }

    /// Writes what is to be remembered of an event: all its legs the first time, then those that changed.
    pub(crate) fn record(&mut self, id: EventId, now: Instant) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let mut verdict =
            Verdict { partition: held.partition, id, rows: Vec::new(), letters: Vec::new() };
        for leg in held.legs.iter_mut().filter(|l| !held.remembered || !l.written) {
            verdict.rows.push(leg.row(&self.routes, now));
            if leg.state == LegState::Dead
                && let Some(reason) = leg.past.as_mut().and_then(|p| p.reason.take())
            {
                let route = &self.routes[leg.route];
                let parks = route.when_dead == WhenDead::Park
                    && held.lane.is_some()
                    && reason != DeadReason::Expired;
                verdict.letters.push(NewLetter { route: route.name.clone(), reason, parks });
            }
            leg.written = true;
        }
        held.remembered = true;
        held.writing += 1;
        let epoch = held.epoch;
        self.push_record(epoch, verdict);
    }

    /// Lets an event wait for a time, in its place.
    fn wait(&mut self, id: EventId, route: RouteNo, state: LegState, wait: Duration, now: Instant) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let (lane, no) = (held.lane, held.partition);
        let Some(leg) = held.legs.iter_mut().find(|l| l.route == route) else { return };
        let at = now + wait;
        leg.state = state;
        leg.written = false;
        leg.past().due_at = Some(at);
        self.timers.push(Timer { at, id, route });
        if let Some(hash) = lane {
            let lane = self.queues[route].lane(hash, no);
            lane.current = None;
            lane.insert(id);
            lane.blocked = lane.queue.front().copied().filter(|head| *head == id);
            self.queues[route].make_ready(hash);
            self.waits_from_now(route, hash);
        }
    }

    /// Puts an event back in its place as if it had not been tried, behind the other keys.
    fn put_back(&mut self, id: EventId, route: RouteNo, now: Instant) {
        let Some(held) = self.held.get(&id) else { return };
        let (lane, no) = (held.lane, held.partition);
        if let Some(hash) = lane {
            let lane = self.queues[route].lane(hash, no);
            lane.current = None;
            lane.insert(id);
        }
        if held.remembered && held.legs.iter().any(|l| l.route == route && !l.written) {
            // A start that had been written down has ended well.
            self.record(id, now);
        }
        self.back_in_line(id, route, lane);
    }

    /// Puts an event aside on one route.
    pub(crate) fn give_up(
        &mut self,
        id: EventId,
        route: RouteNo,
        reason: DeadReason,
        error: Option<AttemptError>,
        now: Instant,
    ) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let (lane, no) = (held.lane, held.partition);
        let Some(leg) = held.legs.iter_mut().find(|l| l.route == route && !l.state.is_final())
        else {
            return;
        };
        let was = leg.state;
        let past = leg.past();
        past.reason = Some(reason);
        if reason == DeadReason::Rejected {
            past.attempts_finished += 1;
        }
        if let Some(error) = error {
            AttemptError::push(&mut past.errors, error);
        }
        self.stats.dead += 1;
        if let Some(hash) = lane {
            let parks =
                self.routes[route].when_dead == WhenDead::Park && reason != DeadReason::Expired;
            let lane = self.queues[route].lane(hash, no);
            if let Ok(at) = lane.queue.binary_search(&id) {
                lane.queue.remove(at);
            }
            if lane.blocked == Some(id) {
                lane.blocked = None;
            }
            lane.parked = Some(Parked { head: Some(id), letter: None, until_written: !parks });
            self.waits_from_now(route, hash);
        }
        debug_assert_ne!(was, LegState::InFlight, "landed before");
        self.conclude(id, route, LegState::Dead, now);
    }
}
