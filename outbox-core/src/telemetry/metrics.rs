//! The registry of metrics: counters, gauges and histograms by fixed names and label sets.
//!
//! An actor looks the handle of a label set up once, and keeps it: a change is an atomic addition.

use super::{
    names::{CounterMetric, Description, GaugeMetric, HistogramMetric, SECONDS},
    snapshot::{MetricSnapshot, Series, SeriesValue, Snapshot, exact},
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Label sets of one metric at most: enough for some hundred topics, small enough for a scrape every
/// few seconds. Topics of received messages come from outside.
pub(super) const MAX_SERIES: usize = 400;
/// What all labels say of what is counted beyond [`MAX_SERIES`].
const OTHER: &str = "_other";
/// Bytes of a label's value at most.
const MAX_VALUE: usize = 255;
/// Upper bounds of a histogram's buckets, s, and in nanoseconds.
///
/// # Source
/// OpenTelemetry semantic conventions for messaging, advice for durations. Handlers may run for
/// minutes, so two were added.
const BOUNDS: [(f64, u64); 16] = [
    (0.005, 5_000_000),
    (0.01, 10_000_000),
    (0.025, 25_000_000),
    (0.05, 50_000_000),
    (0.075, 75_000_000),
    (0.1, 100_000_000),
    (0.25, 250_000_000),
    (0.5, 500_000_000),
    (0.75, 750_000_000),
    (1.0, 1_000_000_000),
    (2.5, 2_500_000_000),
    (5.0, 5_000_000_000),
    (7.5, 7_500_000_000),
    (10.0, 10_000_000_000),
    (60.0, 60_000_000_000),
    (300.0, 300_000_000_000),
];
/// Buckets with that above the last bound.
const BUCKETS: usize = BOUNDS.len() + 1;

/// The metrics of a process, or of a part of it. Clones share them.
///
/// Relays, consumers and sagas count into [`global`](Self::global) unless they are given another
/// registry. Each metric has 400 label sets at most; further ones are counted under `_other`.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

#[derive(Debug, Default)]
struct Registry {
    families: BTreeMap<&'static str, Family>,
    sink: Option<Box<dyn DurationSink>>,
}

/// Takes the durations of histograms one by one, as they are recorded: for a system of metrics that
/// keeps histograms of its own. Counters and gauges it reads from the [`Snapshot`].
pub trait DurationSink: fmt::Debug + Send + Sync + 'static {
    /// Gives what takes the durations of one label set. It is called by those that record, and has to
    /// be fast.
    fn series(
        &self,
        metric: &'static Description,
        labels: &[(&'static str, String)],
    ) -> Box<dyn Fn(Duration) + Send + Sync>;
}

type Labels = Box<[Box<str>]>;

#[derive(Debug)]
struct Family {
    description: &'static Description,
    series: BTreeMap<Labels, Cell>,
}

/// The value of one label set.
#[derive(Debug, Clone)]
enum Cell {
    Counter(Arc<AtomicU64>),
    Gauge(Arc<AtomicI64>),
    Histogram(Arc<Buckets>),
}

#[derive(Default)]
struct Buckets {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
    forward: OnceLock<Box<dyn Fn(Duration) + Send + Sync>>,
}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buckets").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Metrics {
    /// Makes an empty registry, for a program that keeps its parts apart, and for tests.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the registry of the process.
    #[must_use]
    pub fn global() -> Self {
        static GLOBAL: LazyLock<Metrics> = LazyLock::new(Metrics::new);
        GLOBAL.clone()
    }

    /// Gives the counter of a label set. An empty value leaves its label out.
    #[must_use]
    pub fn counter<const N: usize>(
        &self,
        metric: &'static CounterMetric<N>,
        values: [&str; N],
    ) -> Counter {
        match self.cell(&metric.0, values, || Cell::Counter(Arc::default())) {
            Cell::Counter(count) => Counter(count),
            Cell::Gauge(_) | Cell::Histogram(_) => Counter::default(),
        }
    }

    /// Gives a gauge of a label set. Several gauges of one set are added up.
    #[must_use]
    pub fn gauge<const N: usize>(
        &self,
        metric: &'static GaugeMetric<N>,
        values: [&str; N],
    ) -> Gauge {
        match self.cell(&metric.0, values, || Cell::Gauge(Arc::default())) {
            Cell::Gauge(sum) => Gauge { sum, own: AtomicI64::new(0) },
            Cell::Counter(_) | Cell::Histogram(_) => Gauge::default(),
        }
    }

    /// Gives the histogram of a label set.
    #[must_use]
    pub fn histogram<const N: usize>(
        &self,
        metric: &'static HistogramMetric<N>,
        values: [&str; N],
    ) -> Histogram {
        match self.cell(&metric.0, values, || Cell::Histogram(Arc::default())) {
            Cell::Histogram(buckets) => Histogram(buckets),
            Cell::Counter(_) | Cell::Gauge(_) => Histogram::default(),
        }
    }

    /// Reads all metrics of which a value is known. A gauge that nobody keeps any more is left out.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut registry = self.lock();
        let read = |family: &mut Family| MetricSnapshot {
            description: family.description,
            series: family.read(),
        };
        let metrics = registry.families.values_mut().map(read);
        Snapshot { metrics: metrics.filter(|metric| !metric.series.is_empty()).collect() }
    }

    /// Reads one metric, of which [`snapshot`](Self::snapshot) would have the same.
    #[must_use]
    pub fn read(&self, metric: &Description) -> Vec<Series> {
        self.lock().families.get_mut(metric.name).map(Family::read).unwrap_or_default()
    }

    /// Gives the durations of all histograms to a sink as well, from now on. `false` where the registry
    /// has one already, which stays.
    #[must_use = "a registry has one sink"]
    pub fn forward_durations(&self, sink: impl DurationSink) -> bool {
        let mut registry = self.lock();
        if registry.sink.is_some() {
            return false;
        }
        for Family { description, series } in registry.families.values() {
            for (values, cell) in series {
                cell.forward(description, values, &sink);
            }
        }
        registry.sink = Some(Box::new(sink));
        true
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cell<const N: usize>(
        &self,
        description: &'static Description,
        values: [&str; N],
        new: impl FnOnce() -> Cell,
    ) -> Cell {
        let key: Labels = values.map(|value| cut(value).into()).into();
        let mut registry = self.lock();
        let Registry { families, sink } = &mut *registry;
        let family = families
            .entry(description.name)
            .or_insert_with(|| Family { description, series: BTreeMap::new() });
        // The last set is for all further ones.
        let is_beyond = |family: &Family| {
            family.series.len() + 1 >= MAX_SERIES && !family.series.contains_key(&key)
        };
        if is_beyond(family) {
            family.series.retain(|_, cell| cell.is_kept());
        }
        let is_full = is_beyond(family);
        let key = if is_full { [OTHER; N].map(Box::from).into() } else { key };
        let cell = family.series.entry(key.clone()).or_insert_with(new);
        if let Some(sink) = sink {
            cell.forward(description, &key, &**sink);
        }
        cell.clone()
    }
}

impl Family {
    fn read(&mut self) -> Vec<Series> {
        self.series.retain(|_, cell| cell.is_kept());
        let read = |(values, cell): (&Labels, &Cell)| Series {
            labels: labels(self.description, values),
            value: cell.read(self.description),
        };
        self.series.iter().map(read).collect()
    }
}

impl Cell {
    /// Tells whether the value still counts: of a gauge, whether anybody keeps it.
    fn is_kept(&self) -> bool {
        match self {
            Self::Gauge(sum) => Arc::strong_count(sum) > 1,
            Self::Counter(_) | Self::Histogram(_) => true,
        }
    }

    /// Gives the durations of a histogram to a sink as well, unless they go there already.
    fn forward(
        &self,
        description: &'static Description,
        values: &Labels,
        sink: &(impl DurationSink + ?Sized),
    ) {
        if let Self::Histogram(buckets) = self {
            buckets.forward.get_or_init(|| sink.series(description, &labels(description, values)));
        }
    }

    fn read(&self, description: &Description) -> SeriesValue {
        match self {
            Self::Counter(count) => SeriesValue::Counter(count.load(Relaxed)),
            Self::Gauge(sum) => {
                let micros = description.unit == SECONDS;
                let value = exact(sum.load(Relaxed));
                SeriesValue::Gauge(if micros { value / 1e6 } else { value })
            }
            Self::Histogram(buckets) => buckets.read(),
        }
    }
}

impl Buckets {
    fn read(&self) -> SeriesValue {
        let mut count = 0;
        let counts: Vec<u64> = self
            .counts
            .iter()
            .map(|bucket| {
                count += bucket.load(Relaxed);
                count
            })
            .collect();
        let buckets = BOUNDS.iter().zip(counts).map(|((bound, _), count)| (*bound, count));
        let sum = Duration::from_nanos(self.sum_ns.load(Relaxed)).as_secs_f64();
        SeriesValue::Histogram { buckets: buckets.collect(), count, sum }
    }
}

/// A counter of one label set. Clones count into one value.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds to it.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }
}

/// A part of the gauge of one label set: what all parts say is added up. Dropped, its part is taken
/// away.
#[derive(Debug, Default)]
pub struct Gauge {
    sum: Arc<AtomicI64>,
    own: AtomicI64,
}

impl Gauge {
    /// Sets the part.
    pub fn set(&self, value: i64) {
        let before = self.own.swap(value, Relaxed);
        self.sum.fetch_add(value.wrapping_sub(before), Relaxed);
    }

    /// Sets the part to a count.
    pub fn set_count(&self, count: u64) {
        self.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets the part to a time, of a gauge in seconds.
    pub fn set_duration(&self, time: Duration) {
        self.set(i64::try_from(time.as_micros()).unwrap_or(i64::MAX));
    }

    /// Adds to the part; a negative number is taken away.
    pub fn add(&self, change: i64) {
        self.own.fetch_add(change, Relaxed);
        self.sum.fetch_add(change, Relaxed);
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A histogram of one label set. Clones count into one value.
#[derive(Debug, Clone, Default)]
pub struct Histogram(Arc<Buckets>);

impl Histogram {
    /// Lists the upper bounds of the buckets of all histograms, s. What is longer than the last one is
    /// counted in a bucket without a bound.
    pub fn bounds() -> impl Iterator<Item = f64> {
        BOUNDS.iter().map(|(bound, _)| *bound)
    }

    /// Counts a duration.
    pub fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|(_, bound)| *bound < nanos);
        self.0.counts[bucket].fetch_add(1, Relaxed);
        self.0.sum_ns.fetch_add(nanos, Relaxed);
        if let Some(forward) = self.0.forward.get() {
            forward(time);
        }
    }
}

/// Lists the labels that are set.
fn labels(description: &Description, values: &Labels) -> Vec<(&'static str, String)> {
    let all = description.labels.iter().zip(values);
    all.filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (*name, value.to_string()))
        .collect()
}

/// Cuts a value that is too long.
fn cut(value: &str) -> &str {
    &value[..value.floor_char_boundary(MAX_VALUE)]
}

#[cfg(test)]
mod tests;
