//! The metrics at one instant, as plain data.

use super::names::Description;

/// All metrics at one instant.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The metrics of which a value is known, by name.
    pub metrics: Vec<MetricSnapshot>,
}

/// One metric at one instant.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MetricSnapshot {
    /// What it is.
    pub description: &'static Description,
    /// Its label sets.
    pub series: Vec<Series>,
}

/// One label set at one instant.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Series {
    /// The labels that are set, with their values.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: SeriesValue,
}

/// The value of one label set.
#[derive(Debug, Clone, PartialEq)]
pub enum SeriesValue {
    /// Of a counter.
    Counter(u64),
    /// Of a gauge.
    Gauge(f64),
    /// Of a histogram.
    Histogram {
        /// How many durations were at most so long, s, by rising bounds.
        buckets: Vec<(f64, u64)>,
        /// How many there were.
        count: u64,
        /// Their sum, s.
        sum: f64,
    },
}

impl SeriesValue {
    /// Gives the value as one number: of a histogram, how many durations there were.
    #[must_use]
    pub fn number(&self) -> f64 {
        match self {
            Self::Counter(count) | Self::Histogram { count, .. } => exact(*count),
            Self::Gauge(value) => *value,
        }
    }
}

impl Snapshot {
    /// Gives the value of a metric's label set, given by the labels that are set, in any order.
    #[must_use]
    pub fn value(&self, metric: &str, labels: &[(&str, &str)]) -> Option<&SeriesValue> {
        let metric = self.metrics.iter().find(|it| it.description.name == metric)?;
        let is_it = |series: &&Series| {
            let has = |(name, value): &(&str, &str)| {
                series.labels.iter().any(|(known, is)| known == name && is == value)
            };
            series.labels.len() == labels.len() && labels.iter().all(has)
        };
        metric.series.iter().find(is_it).map(|series| &series.value)
    }
}

/// Gives a number as a float; beyond 2^53 it is rounded.
pub(super) fn exact(number: impl Into<i128>) -> f64 {
    number.into() as f64
}
