//! What a consumer counts: received messages, runs of handlers, and what its statistics count.

use super::handle::ConsumerStats;
use crate::{
    event::Message,
    failure::DeadReason,
    runtime::now,
    telemetry::{
        Counter, Gauge, HandleCache, Histogram, Metrics, PROCESS, RECEIVE, SYSTEM, metric,
    },
    transport::Delivery,
};
use std::{sync::Arc, time::Instant};

/// The metrics of one consumer.
pub(super) struct ConsumerMetrics {
    metrics: Metrics,
    consumer: Arc<str>,
    duplicates: Counter,
    deferred: Counter,
    handed_over: Counter,
    in_flight: Gauge,
    /// By system, topic and failure.
    consumed: HandleCache<3, Counter>,
    /// By topic, handler and outcome.
    runs: HandleCache<3, Histogram>,
}

impl ConsumerMetrics {
    pub(super) fn new(metrics: Metrics, consumer: &Arc<str>) -> Self {
        let name: [&str; 1] = [consumer];
        Self {
            duplicates: metrics.counter(&metric::DUPLICATES_SUPPRESSED, name),
            deferred: metrics.counter(&metric::DEFERRED, name),
            handed_over: metrics.counter(&metric::HANDED_OVER, name),
            in_flight: metrics.gauge(&metric::DELIVERIES_IN_FLIGHT, name),
            consumed: HandleCache::default(),
            runs: HandleCache::default(),
            metrics,
            consumer: consumer.clone(),
        }
    }

    /// Counts what has changed in the consumer's statistics.
    pub(super) fn changed(&self, before: &ConsumerStats, after: &ConsumerStats) {
        self.duplicates.add(after.duplicates.saturating_sub(before.duplicates));
        self.deferred.add(after.stored.saturating_sub(before.stored));
        self.handed_over.add(after.handed_over.saturating_sub(before.handed_over));
        if after.in_flight != before.in_flight {
            self.in_flight.set_count(after.in_flight as u64);
        }
    }

    /// Counts a delivery that was received.
    pub(super) fn received(&self, delivery: &Delivery) {
        let (topic, failure) = match &delivery.message {
            Ok(message) => (message.topic.as_str(), ""),
            Err(_) => ("", "unreadable"),
        };
        let labels = [delivery.system, RECEIVE, topic, &*self.consumer, failure];
        let make = || self.metrics.counter(&metric::CONSUMED, labels);
        self.consumed.get([delivery.system, topic, failure], make).add(1);
    }

    /// Counts a run of a handler that began at an instant, by what `error.type` says of it.
    pub(super) fn ran(&self, handler: &str, message: &Message, outcome: &str, begun: Instant) {
        let topic = message.topic.as_str();
        let labels = [SYSTEM, PROCESS, topic, &*self.consumer, handler, outcome];
        let make = || self.metrics.histogram(&metric::PROCESS_DURATION, labels);
        let time = now().saturating_duration_since(begun);
        self.runs.get([topic, handler, outcome], make).record(time);
    }

    /// Counts a dead letter that was written.
    pub(super) fn dead_letter(&self, reason: DeadReason) {
        self.metrics.counter(&metric::DEAD_LETTERS, ["", &self.consumer, reason.as_str()]).add(1);
    }
}
