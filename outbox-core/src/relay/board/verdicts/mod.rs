//! What publishers answer, and what becomes of an event by it.

mod dispatch;
mod once;
mod settled;

pub(crate) use dispatch::Batch;

use crate::relay::board::{
    Board, RouteNo, Timer,
    held::{Held, LegState},
    lanes::Parked,
};
use crate::{
    event::EventId,
    failure::{AttemptError, DeadReason, Decision, FailureClass},
    outbox::{NewLetter, Verdict},
    transport::WhenDead,
};
use std::time::{Duration, Instant};

/// How long an event may be confirmed on some of its routes and untried on others until that is written down: it
/// bounds what a crash repeats on the confirmed ones.
const HALFWAY: Duration = Duration::from_millis(250);
/// Pause after a connection broke under one event while others succeeded.
const SOON: Duration = Duration::from_millis(200);
/// Probes of a refused event before it is buried although nothing else could be tried.
const PROBES: u8 = 3;
/// Times an event may meet a destination that was down, others succeeding between, before that counts as its failure.
const UNAVAILABLE: u8 = 3;

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
    },
    /// It was given up before an answer, for reasons of ours.
    Cancelled,
}

impl Board {
    /// Takes the answers to one batch.
    pub(crate) fn published(&mut self, route: RouteNo, answers: Vec<(EventId, Attempt)>, now: Instant) {
        let queue = &mut self.queues[route];
        queue.batches = queue.batches.saturating_sub(1);
        let confirmed = answers.iter().filter(|(_, a)| matches!(a, Attempt::Confirmed)).count();
        if confirmed > 0 {
            queue.successes += confirmed as u64;
            queue.breaker.succeeded();
            queue.run.clear();
        }
        for (id, answer) in answers {
            if self.landed(id, route) {
                match answer {
                    answer if self.is_once(route) => self.published_once(id, route, answer, now),
                    Attempt::Confirmed => self.confirmed(id, route, now),
                    Attempt::Failed { class, text, retry_after } => {
                        self.failed(id, route, class, text, retry_after, confirmed > 0, now);
                    }
                    Attempt::Cancelled => self.put_back(id, route, now),
                }
            }
        }
        if self.queues[route].batches == 0 {
            // A probe whose events were cancelled or lost to another relay has said nothing.
            self.queues[route].breaker.probe_void(now);
        }
        if confirmed > 0 {
            self.let_one_go();
            // The destination works: what it refused meanwhile is its own fault.
            for id in std::mem::take(&mut self.queues[route].suspects) {
                let leg = self.held.get(&id).and_then(|h| h.legs.iter().find(|l| l.route == route));
                if leg.is_some_and(|l| l.state == LegState::Suspect) {
                    self.give_up(id, route, DeadReason::Rejected, None, now);
                }
            }
        }
    }

    /// Ends the flight; `false` when the event is no longer ours.
    fn landed(&mut self, id: EventId, route: RouteNo) -> bool {
        let Some(held) = self.held.get_mut(&id) else { return false };
        let Some(leg) = held.legs.iter_mut().find(|l| l.route == route && l.state == LegState::InFlight) else {
            return false;
        };
        leg.state = LegState::Waiting;
        if let Some(partition) = self.partitions.get_mut(&held.partition) {
            partition.in_flight = partition.in_flight.saturating_sub(1);
        }
        self.answered(id, route);
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
        let (lane, no, bytes) = (held.lane, held.partition, held.message.payload.len());
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
        if queue.held <= self.config.per_route / 2 && !queue.closed.is_empty() {
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
        } else if held.remembered || held.legs.iter().any(|l| self.is_stuck(held, l.route, l.state)) {
            self.record(id, now);
        } else {
            self.halfway.push_back((now + HALFWAY, id));
        }
    }

    fn is_stuck(&self, held: &Held, route: RouteNo, state: LegState) -> bool {
        match state {
            LegState::Retrying | LegState::Suspect | LegState::Forgotten => true,
            LegState::Starting | LegState::InFlight | LegState::Confirmed | LegState::Dead => false,
            LegState::Waiting => {
                let queue = &self.queues[route];
                let lane = held.lane.and_then(|hash| queue.lanes.get(&hash));
                queue.breaker.is_open() || lane.is_some_and(|l| l.blocked.is_some() || l.parked.is_some())
            }
        }
    }

    /// Writes down the events that have been halfway for too long.
    pub(crate) fn write_halfway(&mut self, now: Instant) {
        while let Some((_, id)) = self.halfway.pop_front_if(|(at, _)| *at <= now) {
            let still = self.held.get(&id).is_some_and(|h| {
                h.legs.iter().any(|l| l.state.is_final() && !l.written) && h.legs.iter().any(|l| !l.state.is_final())
            });
            if still {
                self.record(id, now);
            }
        }
    }

    /// Writes what is to be remembered of an event: all its legs the first time, then those that changed.
    pub(crate) fn record(&mut self, id: EventId, now: Instant) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let mut verdict = Verdict { partition: held.partition, id, rows: Vec::new(), letters: Vec::new() };
        for leg in held.legs.iter_mut().filter(|l| !held.remembered || !l.written) {
            verdict.rows.push(leg.row(&self.routes, now));
            if leg.state == LegState::Dead
                && let Some(reason) = leg.past.as_mut().and_then(|p| p.reason.take())
            {
                let route = &self.routes[leg.route];
                let parks = route.when_dead == WhenDead::Park && held.lane.is_some() && reason != DeadReason::Expired;
                verdict.letters.push(NewLetter { route: route.name.clone(), reason, parks });
            }
            leg.written = true;
        }
        held.remembered = true;
        held.writing += 1;
        let epoch = held.epoch;
        self.push_record(epoch, verdict);
    }

    #[expect(clippy::too_many_arguments, reason = "one failure, whole")]
    fn failed(
        &mut self,
        id: EventId,
        route: RouteNo,
        class: FailureClass,
        text: String,
        retry_after: Option<Duration>,
        others_succeeded: bool,
        now: Instant,
    ) {
        let spread = (self.jitter)(Duration::from_secs(1)).as_secs_f64();
        let queue = &mut self.queues[route];
        let Some(held) = self.held.get_mut(&id) else { return };
        let crossing = held.lane.unwrap_or(id.0.cast_unsigned());
        let Some(leg) = held.legs.iter_mut().find(|l| l.route == route) else { return };
        let past = leg.past();
        let mut class = class;
        if class == FailureClass::Unavailable {
            if past.successes_seen != queue.successes || past.unavailable == 0 {
                past.unavailable += 1;
            }
            past.successes_seen = queue.successes;
            if past.unavailable > UNAVAILABLE {
                class = FailureClass::Transient;
                past.unavailable = 0;
            }
        }
        match class {
            FailureClass::Unavailable => {
                if others_succeeded {
                    self.wait(id, route, LegState::Retrying, SOON, now);
                } else {
                    queue.breaker.unavailable(now, spread);
                    self.put_back(id, route, now);
                }
            }
            FailureClass::Transient => {
                past.attempts_finished += 1;
                AttemptError::push(&mut past.errors, AttemptError::new(past.attempts_finished, class, text));
                // Time in which the breaker was open speaks of the destination, not of the event.
                if let Some(before) = past.failed_at.replace(now)
                    && queue.opened_at.is_none_or(|opened| opened < before)
                {
                    past.failing_for += now.saturating_duration_since(before);
                }
                self.stats.retried += 1;
                let policy = self.routes[route].policy_for(&held.message);
                let decision = policy.decide(past.attempts_finished, past.failing_for);
                let opened = !others_succeeded && queue.breaker.failed(crossing, false, now, spread);
                queue.run.push(id);
                match decision {
                    Decision::GiveUp if !opened => self.give_up(id, route, DeadReason::Exhausted, None, now),
                    Decision::GiveUp => self.wait(id, route, LegState::Retrying, SOON, now),
                    Decision::RetryWithin(longest) => {
                        let wait = (self.jitter)(longest).max(retry_after.unwrap_or_default());
                        self.wait(id, route, LegState::Retrying, wait, now);
                        self.record(id, now);
                    }
                }
                if opened {
                    self.give_attempts_back(route, now);
                }
            }
            FailureClass::Permanent => {
                past.probes = past.probes.saturating_add(1);
                let error = AttemptError::new(past.attempts_finished + 1, class, text);
                let works = others_succeeded || (past.probes > 1 && past.successes_seen != queue.successes);
                past.successes_seen = queue.successes;
                if works || past.probes >= PROBES {
                    self.give_up(id, route, DeadReason::Rejected, Some(error), now);
                    return;
                }
                AttemptError::push(&mut past.errors, error);
                let pause = SOON * 2 * u32::from(past.probes);
                queue.run.push(id);
                queue.suspects.push(id);
                let opened = queue.breaker.failed(crossing, true, now, spread);
                self.wait(id, route, LegState::Suspect, pause, now);
                if opened {
                    self.give_attempts_back(route, now);
                }
            }
        }
    }

    /// The failures of the run spoke of the destination: their attempts do not count, and they wait for it, not for
    /// their own time.
    fn give_attempts_back(&mut self, route: RouteNo, now: Instant) {
        self.queues[route].opened_at = Some(now);
        self.queues[route].suspects.clear();
        for id in std::mem::take(&mut self.queues[route].run) {
            let Some(held) = self.held.get_mut(&id) else { continue };
            let lane = held.lane;
            let Some(leg) = held.legs.iter_mut().find(|l| l.route == route) else { continue };
            let counted = match leg.state {
                LegState::Retrying => true,
                LegState::Suspect => false,
                _ => continue,
            };
            leg.state = LegState::Waiting;
            let past = leg.past();
            past.due_at = None;
            if counted {
                past.attempts_finished = past.attempts_finished.saturating_sub(1);
                self.stats.retried = self.stats.retried.saturating_sub(1);
                leg.written = false;
                if held.remembered {
                    self.record(id, now);
                }
            }
            self.back_in_line(id, route, lane);
        }
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
        let Some(leg) = held.legs.iter_mut().find(|l| l.route == route && !l.state.is_final()) else { return };
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
            let parks = self.routes[route].when_dead == WhenDead::Park && reason != DeadReason::Expired;
            let lane = self.queues[route].lane(hash, no);
            if let Ok(at) = lane.queue.binary_search(&id) {
                lane.queue.remove(at);
            }
            if lane.blocked == Some(id) {
                lane.blocked = None;
            }
            lane.parked = Some(Parked { head: Some(id), written_at: None, until_written: !parks });
        }
        debug_assert_ne!(was, LegState::InFlight, "landed before");
        self.conclude(id, route, LegState::Dead, now);
    }
}
