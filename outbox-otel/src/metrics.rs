//! The registry's metrics as instruments of a meter.
//!
//! Counters and gauges are observable instruments: the SDK asks for their values when it exports.
//! OpenTelemetry has no observable histogram, so each duration is recorded as it comes.

use opentelemetry::{KeyValue, metrics::Meter};
use outbox_core::{
    admin::{AdminStore, DatabaseGauges},
    runtime::{Task, spawn},
    telemetry::{
        Description, DurationSink, Histogram, MetricKind, Metrics, Series, SeriesValue, metric,
    },
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Pause between two reads of the databases' gauges, which are not read more often anyway.
const REFRESH_INTERVAL: Duration = Duration::from_secs(15);

/// The metrics are bound to a meter already: each would be counted twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these metrics are bound to a meter already")]
pub struct AlreadyBound;

/// Metrics that are bound to a meter. Dropped, the gauges of databases are read no more; the other
/// metrics stay bound.
#[derive(Debug)]
#[must_use = "dropped, the gauges of databases are read no more"]
pub struct BoundMetrics {
    metrics: Metrics,
    databases: Mutex<Vec<Database>>,
}

#[derive(Debug)]
struct Database {
    gauges: Arc<DatabaseGauges>,
    refresh: Task<()>,
}

impl Drop for Database {
    fn drop(&mut self) {
        self.refresh.abort();
    }
}

/// Binds the metrics of a process, or of a part of it, to a meter: each metric of `docs/metrics.md`,
/// under its name there. Durations that were recorded before are not exported.
///
/// ```no_run
/// # fn example(provider: &opentelemetry_sdk::metrics::SdkMeterProvider, outbox: impl outbox_core::admin::AdminStore) {
/// use opentelemetry::metrics::MeterProvider;
/// use outbox_core::telemetry::Metrics;
///
/// let bound = outbox_otel::bind(&Metrics::global(), &provider.meter("outbox"))
///     .expect("nobody has bound them before");
/// bound.database("shop", outbox); // how much waits there, read every 15 s
/// # }
/// ```
///
/// # Errors
/// [`AlreadyBound`] when the registry is bound to a meter already.
pub fn bind(metrics: &Metrics, meter: &Meter) -> Result<BoundMetrics, AlreadyBound> {
    if !metrics.forward_durations(Histograms(meter.clone())) {
        return Err(AlreadyBound);
    }
    for description in metric::ALL {
        observe(metrics, meter, description);
    }
    Ok(BoundMetrics { metrics: metrics.clone(), databases: Mutex::default() })
}

impl BoundMetrics {
    /// Adds the gauges of a database under a name. They are read every 15 s, and left out while the
    /// database does not answer. One process is enough for each database.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, on which they are read.
    pub fn database(&self, name: impl Into<String>, store: impl AdminStore) {
        let gauges = Arc::new(DatabaseGauges::new(name, store));
        let (read, metrics) = (gauges.clone(), self.metrics.clone());
        let refresh = spawn(async move {
            loop {
                read.refresh(&metrics).await;
                tokio::time::sleep(REFRESH_INTERVAL).await;
            }
        });
        self.lock().push(Database { gauges, refresh });
    }

    /// Reads the gauges of the databases, unless that was done less than 15 s ago.
    pub async fn refresh(&self) {
        let all: Vec<_> = self.lock().iter().map(|database| database.gauges.clone()).collect();
        for gauges in all {
            gauges.refresh(&self.metrics).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Database>> {
        self.databases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the observable instrument of a metric. Histograms have none.
fn observe(metrics: &Metrics, meter: &Meter, description: &'static Description) {
    let metrics = metrics.clone();
    match description.kind {
        MetricKind::Counter => drop(
            meter
                .u64_observable_counter(description.name)
                .with_unit(description.unit)
                .with_description(description.help)
                .with_callback(move |observer| {
                    for Series { labels, value, .. } in metrics.read(description) {
                        if let SeriesValue::Counter(count) = value {
                            observer.observe(count, &attributes(&labels));
                        }
                    }
                })
                .build(),
        ),
        MetricKind::Gauge => drop(
            meter
                .f64_observable_gauge(description.name)
                .with_unit(description.unit)
                .with_description(description.help)
                .with_callback(move |observer| {
                    for Series { labels, value, .. } in metrics.read(description) {
                        if let SeriesValue::Gauge(value) = value {
                            observer.observe(value, &attributes(&labels));
                        }
                    }
                })
                .build(),
        ),
        MetricKind::Histogram => {}
    }
}

/// Records the durations of the registry's histograms in histograms of a meter.
#[derive(Debug)]
struct Histograms(Meter);

impl DurationSink for Histograms {
    fn series(
        &self,
        metric: &'static Description,
        labels: &[(&'static str, String)],
    ) -> Box<dyn Fn(Duration) + Send + Sync> {
        let builder = self.0.f64_histogram(metric.name).with_unit(metric.unit);
        let builder = builder.with_description(metric.help);
        // A meter gives one instrument for one name.
        let histogram = builder.with_boundaries(Histogram::bounds().collect()).build();
        let attributes = attributes(labels);
        Box::new(move |time| histogram.record(time.as_secs_f64(), &attributes))
    }
}

fn attributes(labels: &[(&'static str, String)]) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| KeyValue::new(*name, value.clone())).collect()
}
