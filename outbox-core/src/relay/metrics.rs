//! What a relay counts: published messages by outcome, what is in flight, breakers, lost leases and
//! dead letters.

use super::RelayStats;
use crate::{
    event::Message,
    outbox::{DetachedLetter, HandoverTimes, RouteUpdate, Settled},
    runtime::now,
    telemetry::{
        Counter, Gauge, HandleCache, Histogram, Metrics, SEND, attribute, metric, send_span,
        single_topic,
    },
    transport::{PublishError, Receipt, Route},
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};
use tracing::Span;

/// Outcomes of messages, as `error.type` names them; others are the classes of failures.
const CONFIRMED: &str = "";
pub(super) const TIMEOUT: &str = "timeout";
pub(super) const CANCELLED: &str = "cancelled";

/// The metrics of a dispatcher: what its board shows.
pub(crate) struct BoardMetrics {
    leases_lost: Counter,
    /// Lost leases that were counted.
    counted: AtomicU64,
    breakers: Vec<Gauge>,
}

impl BoardMetrics {
    pub(crate) fn new(metrics: &Metrics, routes: &[Route]) -> Self {
        let breaker = |route: &Route| metrics.gauge(&metric::BREAKER_OPEN, [&*route.name]);
        Self {
            leases_lost: metrics.counter(&metric::LEASES_LOST, []),
            counted: AtomicU64::new(0),
            breakers: routes.iter().map(breaker).collect(),
        }
    }

    /// Takes the board's counters, and whether the breaker of each route is open.
    pub(crate) fn show(&self, stats: &RelayStats, is_open: impl Fn(usize) -> bool) {
        let counted = self.counted.swap(stats.leases_lost, Relaxed);
        self.leases_lost.add(stats.leases_lost.saturating_sub(counted));
        for (route, breaker) in self.breakers.iter().enumerate() {
            breaker.set(i64::from(is_open(route)));
        }
    }
}

/// The metrics of one route's publisher.
pub(crate) struct RouteMetrics {
    metrics: Metrics,
    system: &'static str,
    route: Arc<str>,
    in_flight: Gauge,
    repeats: Counter,
    /// By topic and outcome.
    sent: HandleCache<2, Counter>,
    durations: HandleCache<2, Histogram>,
    handovers: Mutex<HandoverTimes>,
}

impl RouteMetrics {
    pub(crate) fn new(metrics: &Metrics, route: &Route) -> Arc<Self> {
        let name = route.name.clone();
        Arc::new(Self {
            system: route.publisher.system(),
            in_flight: metrics.gauge(&metric::IN_FLIGHT, [&*name]),
            repeats: metrics.counter(&metric::SENT_REPEATS, [&*name]),
            sent: HandleCache::default(),
            durations: HandleCache::default(),
            handovers: Mutex::default(),
            metrics: metrics.clone(),
            route: name,
        })
    }

    /// Gives the confirmed events by the time that their handover took.
    pub(crate) fn handovers(&self) -> HandoverTimes {
        self.handovers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn confirmed(&self, begun: Instant, events: u64) {
        let time = now().saturating_duration_since(begun);
        self.handovers.lock().unwrap_or_else(PoisonError::into_inner).record(time, events);
    }

    fn sent(&self, topic: &str, outcome: &str, count: u64) {
        let labels = [self.system, SEND, topic, &*self.route, outcome];
        let make = || self.metrics.counter(&metric::SENT, labels);
        self.sent.get([topic, outcome], make).add(count);
    }

    fn took(&self, topic: &str, outcome: &str, begun: Instant) {
        let labels = [self.system, SEND, SEND, topic, &*self.route, outcome];
        let make = || self.metrics.histogram(&metric::CLIENT_DURATION, labels);
        let time = now().saturating_duration_since(begun);
        self.durations.get([topic, outcome], make).record(time);
    }
}

/// The metrics and the span of one batch. The last one that drops them ends both.
pub(crate) struct BatchMetrics {
    route: Arc<RouteMetrics>,
    messages: Arc<[Message]>,
    begun: Instant,
    span: Span,
    /// The outcome of the last message that failed.
    failure: Mutex<&'static str>,
}

impl BatchMetrics {
    pub(crate) fn start(route: &Arc<RouteMetrics>, messages: Arc<[Message]>) -> Arc<Self> {
        route.in_flight.add(count(&messages));
        let span = send_span(route.system, &route.route, &messages);
        let (route, failure) = (route.clone(), Mutex::new(CONFIRMED));
        Arc::new(Self { route, messages, begun: now(), span, failure })
    }

    /// Gives the span in which the batch is published.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Counts the outcomes that the publisher has reported.
    pub(crate) fn reported(&self, outcomes: &[(usize, Result<Receipt, PublishError>)]) {
        let is_repeat = |outcome: &Result<Receipt, PublishError>| {
            outcome.as_ref().is_ok_and(|receipt| receipt.duplicate)
        };
        let repeats = outcomes.iter().filter(|(_, outcome)| is_repeat(outcome)).count();
        self.route.repeats.add(repeats as u64);
        let confirmed = outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).count();
        if confirmed > 0 {
            self.route.confirmed(self.begun, confirmed as u64);
        }
        self.count(outcomes.iter().map(|(index, outcome)| (*index, error_type(outcome))));
    }

    /// Counts messages that have failed without an outcome.
    pub(crate) fn failed(&self, indexes: impl Iterator<Item = usize>, outcome: &'static str) {
        self.count(indexes.map(|index| (index, outcome)));
    }

    /// Counts outcomes, those in a row that have one topic at once.
    fn count(&self, outcomes: impl Iterator<Item = (usize, &'static str)>) {
        let mut run: Option<(&str, &'static str, u64)> = None;
        for (index, outcome) in outcomes {
            if outcome != CONFIRMED {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
            }
            let topic = self.messages[index].topic.as_str();
            match &mut run {
                Some((of, was, count)) if *of == topic && *was == outcome => *count += 1,
                _ => {
                    if let Some((topic, outcome, count)) = run.replace((topic, outcome, 1)) {
                        self.route.sent(topic, outcome, count);
                    }
                }
            }
        }
        if let Some((topic, outcome, count)) = run {
            self.route.sent(topic, outcome, count);
        }
    }
}

impl Drop for BatchMetrics {
    fn drop(&mut self) {
        self.route.in_flight.add(-count(&self.messages));
        let failure = *self.failure.get_mut().unwrap_or_else(PoisonError::into_inner);
        if failure != CONFIRMED {
            self.span.record(attribute::ERROR_TYPE, failure);
        }
        self.route.took(single_topic(&self.messages).unwrap_or_default(), failure, self.begun);
    }
}

fn count(messages: &[Message]) -> i64 {
    i64::try_from(messages.len()).unwrap_or(i64::MAX)
}

fn error_type(outcome: &Result<Receipt, PublishError>) -> &'static str {
    outcome.as_ref().err().map_or(CONFIRMED, |error| error.class().as_str())
}

/// Counts the dead letters that were written with route rows.
pub(super) fn count_letters(metrics: &Metrics, updates: &[RouteUpdate], settled: &Settled) {
    for (id, route, _) in &settled.letters {
        let update = updates.iter().find(|update| update.id == *id);
        let mut letters = update.into_iter().flat_map(|update| &update.letters);
        if let Some(letter) = letters.find(|letter| letter.route == *route) {
            metrics.counter(&metric::DEAD_LETTERS, [&**route, "", letter.reason.as_str()]).add(1);
        }
    }
}

/// Counts the dead letters that were written apart from route rows.
pub(super) fn count_detached(metrics: &Metrics, letters: &[DetachedLetter]) {
    for DetachedLetter { letter, .. } in letters {
        let labels = [&*letter.route, "", letter.reason.as_str()];
        metrics.counter(&metric::DEAD_LETTERS, labels).add(1);
    }
}

#[cfg(test)]
mod tests;
