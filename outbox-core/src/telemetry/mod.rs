//! Telemetry: spans, metrics and health, without any SDK.
//!
//! Spans go to [`tracing`]; a [`TraceBackend`] puts them in traces that go on in other processes.
//! Metrics go to a registry of this crate, [`Metrics`]: relays, consumers
//! and sagas count into it, and a program reads its [`Snapshot`], as [Prometheus
//! text](prometheus::render) or otherwise. Health is a pure function of facts that the running parts
//! show.
//!
//! No identity of an event and no key is ever a label of a metric, and no metric costs a statement
//! for each event.
//!
//! # Source
//! OpenTelemetry semantic conventions for messaging; W3C Trace Context.

mod cache;
mod health;
mod heartbeats;
mod metrics;
mod names;
pub mod prometheus;
mod snapshot;
mod spans;
mod traces;

pub(crate) use cache::HandleCache;
pub use health::{DatabaseFact, Health, HealthReason, LeaseFact, PartFacts, health};
pub use heartbeats::HealthCheck;
pub(crate) use heartbeats::Heartbeats;
pub use metrics::{Counter, DurationSink, Gauge, Histogram, Metrics};
pub use names::{
    CounterMetric, Description, GaugeMetric, HistogramMetric, MetricKind, SYSTEM, TRACEPARENT,
    TRACESTATE, attribute, metric,
};
pub(crate) use names::{PROCESS, RECEIVE, SEND};
pub use snapshot::{MetricSnapshot, Series, SeriesValue, Snapshot};
pub(crate) use spans::single_topic;
pub use spans::{create_span, handle_span, process_span, record_error, send_span};
pub use traces::{TraceBackend, TraceContext, current_context, install_traces, keep_context};
