//! Names of spans, attributes and metrics, in one place.

/// The header that carries the W3C trace context of the business transaction.
pub const TRACEPARENT: &str = "traceparent";
/// The header that carries what vendors add to it.
pub const TRACESTATE: &str = "tracestate";
/// What [`attribute::SYSTEM`] says where no broker is known.
pub const SYSTEM: &str = "outbox";

/// The operations, as [`attribute::OPERATION_NAME`] names them.
pub(crate) const CREATE: &str = "create";
pub(crate) const SEND: &str = "send";
pub(crate) const RECEIVE: &str = "receive";
pub(crate) const PROCESS: &str = "process";

/// Names of attributes of spans and of labels of metrics.
pub mod attribute {
    /// Which messaging system.
    pub const SYSTEM: &str = "messaging.system";
    /// What was done, in the system's words.
    pub const OPERATION_NAME: &str = "messaging.operation.name";
    /// What was done, in the convention's words: `create`, `send`, `process`.
    pub const OPERATION_TYPE: &str = "messaging.operation.type";
    /// The topic.
    pub const DESTINATION: &str = "messaging.destination.name";
    /// The consumer's stable name.
    pub const CONSUMER_GROUP: &str = "messaging.consumer.group.name";
    /// The public identity of a message; on spans only.
    pub const MESSAGE_ID: &str = "messaging.message.id";
    /// How many messages a batch has; on spans only.
    pub const BATCH_SIZE: &str = "messaging.batch.message_count";
    /// The class of a failure.
    pub const ERROR_TYPE: &str = "error.type";
    /// The event's type name; on spans only.
    pub const EVENT_TYPE: &str = "cloudevents.event_type";
    /// The trace contexts to which a span links, separated by spaces; on spans only.
    pub const LINKS: &str = "outbox.links";
    /// How long the handlers took with one delivery, s; on spans only.
    pub const PROCESS_SECONDS: &str = "outbox.process.duration";
    /// The route's stable name.
    pub const ROUTE: &str = "outbox.route";
    /// The handler's stable name.
    pub const HANDLER: &str = "outbox.handler";
    /// The name that the process gives to one of its databases.
    pub const DATABASE: &str = "outbox.database";
    /// Why an event became a dead letter.
    pub const REASON: &str = "outbox.reason";
    /// The name of a saga's definition.
    pub const SAGA: &str = "outbox.saga";
    /// How a saga ended: `completed` or `compensated`.
    pub const OUTCOME: &str = "outbox.outcome";
}

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A number that only grows.
    Counter,
    /// A number that rises and falls.
    Gauge,
    /// Durations, counted by their length.
    Histogram,
}

impl MetricKind {
    /// Gives its name, as Prometheus writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The unit of durations. The registry keeps them as integers: microseconds in a gauge, nanoseconds
/// in a histogram.
pub(crate) const SECONDS: &str = "s";

/// What a metric is.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Description {
    /// Its name, with dots.
    pub name: &'static str,
    /// Its kind.
    pub kind: MetricKind,
    /// Its unit: `s`, or what is counted, in braces.
    pub unit: &'static str,
    /// What it says, in a sentence.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
}

/// A counter with its labels; values are given in their order.
#[derive(Debug)]
pub struct CounterMetric<const LABELS: usize>(pub(super) Description);

/// A gauge with its labels; values are given in their order.
#[derive(Debug)]
pub struct GaugeMetric<const LABELS: usize>(pub(super) Description);

/// A histogram of durations with its labels; values are given in their order.
#[derive(Debug)]
pub struct HistogramMetric<const LABELS: usize>(pub(super) Description);

impl<const LABELS: usize> CounterMetric<LABELS> {
    const fn new(
        name: &'static str,
        unit: &'static str,
        help: &'static str,
        labels: &'static [&'static str; LABELS],
    ) -> Self {
        Self(Description { name, kind: MetricKind::Counter, unit, help, labels })
    }

    /// Gives what it is.
    #[must_use]
    pub const fn description(&'static self) -> &'static Description {
        &self.0
    }
}

impl<const LABELS: usize> GaugeMetric<LABELS> {
    const fn new(
        name: &'static str,
        unit: &'static str,
        help: &'static str,
        labels: &'static [&'static str; LABELS],
    ) -> Self {
        Self(Description { name, kind: MetricKind::Gauge, unit, help, labels })
    }

    /// Gives what it is.
    #[must_use]
    pub const fn description(&'static self) -> &'static Description {
        &self.0
    }
}

impl<const LABELS: usize> HistogramMetric<LABELS> {
    const fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str; LABELS],
    ) -> Self {
        Self(Description { name, kind: MetricKind::Histogram, unit: SECONDS, help, labels })
    }

    /// Gives what it is.
    #[must_use]
    pub const fn description(&'static self) -> &'static Description {
        &self.0
    }
}

/// The metrics. `docs/metrics.md` says when each of them changes.
pub mod metric {
    use super::{
        CounterMetric as Counter, Description, GaugeMetric as Gauge, HistogramMetric as Histogram,
        SECONDS, attribute as by,
    };

    /// How long publishing a batch took.
    pub static CLIENT_DURATION: Histogram<6> = Histogram::new(
        "messaging.client.operation.duration",
        "How long publishing a batch took, from its start to the last confirmation.",
        &[
            by::SYSTEM,
            by::OPERATION_NAME,
            by::OPERATION_TYPE,
            by::DESTINATION,
            by::ROUTE,
            by::ERROR_TYPE,
        ],
    );
    /// Messages that were published or failed.
    pub static SENT: Counter<5> = Counter::new(
        "messaging.client.sent.messages",
        "{message}",
        "Messages that a relay tried to publish, by outcome.",
        &[by::SYSTEM, by::OPERATION_NAME, by::DESTINATION, by::ROUTE, by::ERROR_TYPE],
    );
    /// Messages that were received.
    pub static CONSUMED: Counter<5> = Counter::new(
        "messaging.client.consumed.messages",
        "{message}",
        "Deliveries that a consumer received.",
        &[by::SYSTEM, by::OPERATION_NAME, by::DESTINATION, by::CONSUMER_GROUP, by::ERROR_TYPE],
    );
    /// How long one run of a handler took.
    pub static PROCESS_DURATION: Histogram<6> = Histogram::new(
        "messaging.process.duration",
        "How long one run of a handler took, with its transaction.",
        &[
            by::SYSTEM,
            by::OPERATION_NAME,
            by::DESTINATION,
            by::CONSUMER_GROUP,
            by::HANDLER,
            by::ERROR_TYPE,
        ],
    );

    /// Events that wait in a database.
    pub static PENDING: Gauge<1> = Gauge::new(
        "outbox.pending",
        "{event}",
        "Events that wait to be published, counted up to 100,000.",
        &[by::DATABASE],
    );
    /// Routes of events that wait for a retry.
    pub static RETRYING: Gauge<1> = Gauge::new(
        "outbox.retrying",
        "{event}",
        "Routes of events that wait for a retry, counted up to 100,000.",
        &[by::DATABASE],
    );
    /// Open dead letters.
    pub static DEAD: Gauge<1> = Gauge::new(
        "outbox.dead",
        "{letter}",
        "Dead letters that no operator has resolved.",
        &[by::DATABASE],
    );
    /// Age of the oldest event that waits.
    pub static OLDEST_PENDING_AGE: Gauge<1> = Gauge::new(
        "outbox.oldest_pending.age",
        SECONDS,
        "Age of the oldest event that waits to be published.",
        &[by::DATABASE],
    );
    /// Events that publishers have and have not settled.
    pub static IN_FLIGHT: Gauge<1> = Gauge::new(
        "outbox.in_flight",
        "{event}",
        "Events of batches whose publish has not ended.",
        &[by::ROUTE],
    );
    /// Relays of the process in which a route's breaker is not closed.
    pub static BREAKER_OPEN: Gauge<1> = Gauge::new(
        "outbox.breaker.open",
        "{breaker}",
        "Relays of the process in which the route's breaker is not closed.",
        &[by::ROUTE],
    );
    /// Partitions that were lost to another relay.
    pub static LEASES_LOST: Counter<0> = Counter::new(
        "outbox.leases.lost",
        "{partition}",
        "Partitions that relays of the process have lost to others.",
        &[],
    );
    /// Messages that a destination had already.
    pub static SENT_REPEATS: Counter<1> = Counter::new(
        "outbox.sent.repeats",
        "{message}",
        "Confirmed messages that the destination had already, as it says.",
        &[by::ROUTE],
    );
    /// Dead letters that were written.
    pub static DEAD_LETTERS: Counter<3> = Counter::new(
        "outbox.dead_letters",
        "{letter}",
        "Dead letters that routes and consumers have written, by reason.",
        &[by::ROUTE, by::CONSUMER_GROUP, by::REASON],
    );
    /// Repeats that an inbox recognised.
    pub static DUPLICATES_SUPPRESSED: Counter<1> = Counter::new(
        "outbox.duplicates.suppressed",
        "{message}",
        "Runs of handlers that were left out, because the inbox knew the message.",
        &[by::CONSUMER_GROUP],
    );
    /// Deliveries that were stored to run later.
    pub static DEFERRED: Counter<1> = Counter::new(
        "outbox.deliveries.deferred",
        "{delivery}",
        "Deliveries that were stored for one of their handlers, to run later.",
        &[by::CONSUMER_GROUP],
    );
    /// Deliveries that were handed over to another instance.
    pub static HANDED_OVER: Counter<1> = Counter::new(
        "outbox.deliveries.handed_over",
        "{delivery}",
        "Deliveries that were handed over to another instance, each time.",
        &[by::CONSUMER_GROUP],
    );
    /// Deliveries that are being handled now.
    pub static DELIVERIES_IN_FLIGHT: Gauge<1> = Gauge::new(
        "outbox.deliveries.in_flight",
        "{delivery}",
        "Deliveries that are being handled now.",
        &[by::CONSUMER_GROUP],
    );
    /// Sagas that began to run.
    pub static SAGAS_STARTED: Counter<1> = Counter::new(
        "outbox.sagas.started",
        "{saga}",
        "Sagas of which a coordinator has recorded the first step.",
        &[by::SAGA],
    );
    /// Sagas that ended.
    pub static SAGAS_ENDED: Counter<2> = Counter::new(
        "outbox.sagas.ended",
        "{saga}",
        "Sagas that have ended, by outcome.",
        &[by::SAGA, by::OUTCOME],
    );
    /// Sagas that got stuck.
    pub static SAGAS_STUCK: Counter<1> = Counter::new(
        "outbox.sagas.stuck",
        "{saga}",
        "Sagas that got stuck, each time.",
        &[by::SAGA],
    );

    /// What all metrics are, in the order of `docs/metrics.md`.
    pub static ALL: [&Description; 20] = [
        CLIENT_DURATION.description(),
        SENT.description(),
        CONSUMED.description(),
        PROCESS_DURATION.description(),
        PENDING.description(),
        RETRYING.description(),
        DEAD.description(),
        OLDEST_PENDING_AGE.description(),
        IN_FLIGHT.description(),
        BREAKER_OPEN.description(),
        LEASES_LOST.description(),
        SENT_REPEATS.description(),
        DEAD_LETTERS.description(),
        DUPLICATES_SUPPRESSED.description(),
        DEFERRED.description(),
        HANDED_OVER.description(),
        DELIVERIES_IN_FLIGHT.description(),
        SAGAS_STARTED.description(),
        SAGAS_ENDED.description(),
        SAGAS_STUCK.description(),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_no_identity_is_a_label() {
        let names: BTreeSet<&str> = metric::ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), metric::ALL.len());
        for metric in metric::ALL {
            for never in [attribute::MESSAGE_ID, attribute::EVENT_TYPE, attribute::LINKS] {
                assert!(!metric.labels.contains(&never), "{}: {never}", metric.name);
            }
            assert!(metric.help.ends_with('.') && !metric.unit.is_empty(), "{}", metric.name);
        }
    }
}
