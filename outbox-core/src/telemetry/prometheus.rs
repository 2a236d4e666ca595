//! A snapshot of the metrics as Prometheus text. Pure.
//!
//! # Source
//! Prometheus exposition formats, text format 0.0.4; OpenTelemetry compatibility with Prometheus,
//! for names and units.

use super::{
    names::{Description, MetricKind, SECONDS},
    snapshot::{MetricSnapshot, Series, SeriesValue, Snapshot},
};
use std::fmt::Write;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes a snapshot as text.
#[must_use]
pub fn render(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for MetricSnapshot { description, series } in &snapshot.metrics {
        let name = metric_name(description);
        let help = escape(description.help, false);
        let _ = writeln!(text, "# HELP {name} {help}");
        let _ = writeln!(text, "# TYPE {name} {}", description.kind.as_str());
        for series in series {
            write_series(&mut text, &name, series);
        }
    }
    text
}

/// Gives the name of a metric: without dots, with its unit, and of a counter with `_total`.
#[must_use]
pub fn metric_name(description: &Description) -> String {
    let mut name = label_name(description.name);
    if description.unit == SECONDS {
        name.push_str("_seconds");
    }
    if description.kind == MetricKind::Counter {
        name.push_str("_total");
    }
    name
}

/// Gives the name of a label: without dots.
#[must_use]
pub fn label_name(name: &str) -> String {
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

fn write_series(text: &mut String, name: &str, Series { labels, value }: &Series) {
    let labels: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{}=\"{}\"", label_name(name), escape(value, true)))
        .collect();
    match value {
        SeriesValue::Counter(count) => write_sample(text, name, &labels, None, count),
        SeriesValue::Gauge(value) => write_sample(text, name, &labels, None, value),
        SeriesValue::Histogram { buckets, count, sum } => {
            let bucket = format!("{name}_bucket");
            for (bound, count) in buckets {
                write_sample(text, &bucket, &labels, Some(&bound.to_string()), count);
            }
            write_sample(text, &bucket, &labels, Some("+Inf"), count);
            write_sample(text, &format!("{name}_sum"), &labels, None, sum);
            write_sample(text, &format!("{name}_count"), &labels, None, count);
        }
    }
}

/// Writes one line; `bound` is a bucket's.
fn write_sample(
    text: &mut String,
    name: &str,
    labels: &[String],
    bound: Option<&str>,
    value: impl std::fmt::Display,
) {
    let bound = bound.map(|bound| format!("le=\"{bound}\""));
    let labels: Vec<&str> = labels.iter().chain(&bound).map(String::as_str).collect();
    let _ = match labels.is_empty() {
        true => writeln!(text, "{name} {value}"),
        false => writeln!(text, "{name}{{{}}} {value}", labels.join(",")),
    };
}

/// Escapes a text; a quoted one also its quotes.
fn escape(text: &str, quoted: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quoted { text.replace('"', "\\\"") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Metrics, metric};
    use std::time::Duration;

    #[test]
    fn a_snapshot_is_written_with_help_and_type_by_name() {
        let metrics = Metrics::new();
        metrics.counter(&metric::LEASES_LOST, []).add(3);
        let (mails, other) = (
            metrics.gauge(&metric::BREAKER_OPEN, ["mails"]),
            metrics.gauge(&metric::BREAKER_OPEN, ["a\\b \"c\"\nd"]),
        );
        mails.set(1);
        let age = metrics.gauge(&metric::OLDEST_PENDING_AGE, ["shop"]);
        age.set_duration(Duration::from_millis(2_500));
        assert_eq!(
            render(&metrics.snapshot()),
            "# HELP outbox_breaker_open Relays of the process in which the route's breaker is not closed.\n\
             # TYPE outbox_breaker_open gauge\n\
             outbox_breaker_open{outbox_route=\"a\\\\b \\\"c\\\"\\nd\"} 0\n\
             outbox_breaker_open{outbox_route=\"mails\"} 1\n\
             # HELP outbox_leases_lost_total Partitions that relays of the process have lost to others.\n\
             # TYPE outbox_leases_lost_total counter\n\
             outbox_leases_lost_total 3\n\
             # HELP outbox_oldest_pending_age_seconds Age of the oldest event that waits to be published.\n\
             # TYPE outbox_oldest_pending_age_seconds gauge\n\
             outbox_oldest_pending_age_seconds{outbox_database=\"shop\"} 2.5\n"
        );
        drop(other);
    }

    #[test]
    fn a_histogram_has_rising_buckets_a_sum_and_a_count() {
        let metrics = Metrics::new();
        let labels = ["outbox", "process", "orders", "mails", "send-mail", "failed"];
        let histogram = metrics.histogram(&metric::PROCESS_DURATION, labels);
        histogram.record(Duration::from_millis(20));
        histogram.record(Duration::from_mins(20));
        let text = render(&metrics.snapshot());
        let labels = "messaging_system=\"outbox\",messaging_operation_name=\"process\",\
                      messaging_destination_name=\"orders\",messaging_consumer_group_name=\"mails\",\
                      outbox_handler=\"send-mail\",error_type=\"failed\"";
        let name = "messaging_process_duration_seconds";
        for line in [
            format!("# TYPE {name} histogram"),
            format!("{name}_bucket{{{labels},le=\"0.01\"}} 0"),
            format!("{name}_bucket{{{labels},le=\"0.025\"}} 1"),
            format!("{name}_bucket{{{labels},le=\"300\"}} 1"),
            format!("{name}_bucket{{{labels},le=\"+Inf\"}} 2"),
            format!("{name}_sum{{{labels}}} 1200.02"),
            format!("{name}_count{{{labels}}} 2"),
        ] {
            assert!(text.lines().any(|is| is == line), "{line} is missing:\n{text}");
        }
        assert!(
            Metrics::new().snapshot().metrics.is_empty()
                && render(&Metrics::new().snapshot()).is_empty()
        );
    }
}
