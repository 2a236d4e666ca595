use super::*;
use crate::telemetry::{attribute, metric};

fn sent(metrics: &Metrics, topic: &str) -> Counter {
    metrics.counter(&metric::SENT, ["outbox", "send", topic, "mails", ""])
}

fn topics(snapshot: &Snapshot) -> Vec<(String, f64)> {
    let topic = |series: &Series| {
        let label = series.labels.iter().find(|(name, _)| *name == attribute::DESTINATION);
        label.map_or_else(String::new, |(_, topic)| topic.clone())
    };
    let series = snapshot.metrics.iter().flat_map(|metric| &metric.series);
    series.map(|series| (topic(series), series.value.number())).collect()
}

#[test]
fn handles_of_one_label_set_count_into_one_value_and_an_empty_label_is_left_out() {
    let metrics = Metrics::new();
    sent(&metrics, "orders").add(2);
    sent(&metrics.clone(), "orders").add(1);
    sent(&metrics, "payments").add(5);
    let labels = [
        (attribute::SYSTEM, "outbox"),
        (attribute::DESTINATION, "orders"),
        (attribute::ROUTE, "mails"),
        (attribute::OPERATION_NAME, "send"),
    ];
    let snapshot = metrics.snapshot();
    assert_eq!(snapshot.value(metric::SENT.0.name, &labels), Some(&SeriesValue::Counter(3)));
    assert_eq!(snapshot.value(metric::SENT.0.name, &labels[1..]), None);
    assert_eq!(topics(&snapshot), [("orders".to_owned(), 3.0), ("payments".to_owned(), 5.0)]);
    assert!(Metrics::new().snapshot().metrics.is_empty());
}

#[test]
fn label_sets_are_bounded_and_further_ones_are_counted_as_others() {
    let metrics = Metrics::new();
    for number in 0..10_000 {
        sent(&metrics, &format!("topic-{number:05}")).add(1);
    }
    sent(&metrics, "topic-00000").add(1);
    let topics = topics(&metrics.snapshot());
    assert_eq!(topics.len(), MAX_SERIES);
    assert_eq!(topics.iter().map(|(_, count)| count).sum::<f64>(), 10_001.0);
    let of = |topic: &str| topics.iter().find(|(known, _)| known == topic).map(|(_, n)| *n);
    assert_eq!((of(OTHER), of("topic-00000")), (Some(10_001.0 - 400.0), Some(2.0)));
}

#[test]
fn a_value_that_is_too_long_is_cut_between_characters() {
    let metrics = Metrics::new();
    sent(&metrics, &"ä".repeat(200)).add(1);
    assert_eq!(topics(&metrics.snapshot()), [("ä".repeat(127), 1.0)]);
}

#[test]
fn gauges_of_one_label_set_are_added_up_and_a_dropped_one_is_taken_away() {
    let (metrics, name) = (Metrics::new(), metric::IN_FLIGHT.0.name);
    let value = || metrics.snapshot().value(name, &[(attribute::ROUTE, "mails")]).cloned();
    let [first, second] = [(), ()].map(|()| metrics.gauge(&metric::IN_FLIGHT, ["mails"]));
    first.set(5);
    second.add(3);
    second.add(-1);
    assert_eq!(value(), Some(SeriesValue::Gauge(7.0)));
    first.set_count(1);
    assert_eq!(value(), Some(SeriesValue::Gauge(3.0)));
    drop(second);
    assert_eq!(value(), Some(SeriesValue::Gauge(1.0)));
    drop(first);
    assert_eq!(value(), None, "nobody keeps it");
    let age = metrics.gauge(&metric::OLDEST_PENDING_AGE, ["shop"]);
    age.set_duration(Duration::from_millis(1_500));
    let age = metrics.snapshot();
    let age = age.value(metric::OLDEST_PENDING_AGE.0.name, &[(attribute::DATABASE, "shop")]);
    assert_eq!(age, Some(&SeriesValue::Gauge(1.5)));
}

#[test]
fn a_histogram_counts_each_duration_in_the_bucket_of_its_length() {
    let metrics = Metrics::new();
    let labels = ["outbox", "process", "orders", "mails", "send", ""];
    let histogram = metrics.histogram(&metric::PROCESS_DURATION, labels);
    for millis in [1, 5, 6, 700, 3_600_000] {
        histogram.record(Duration::from_millis(millis));
    }
    let snapshot = metrics.snapshot();
    let SeriesValue::Histogram { buckets, count, sum } = &snapshot.metrics[0].series[0].value
    else {
        panic!("it is a histogram: {snapshot:?}");
    };
    assert_eq!((*count, (sum * 1_000.0).round()), (5, 3_600_712.0));
    let at_most = |bound: f64| buckets.iter().find(|(known, _)| *known == bound).unwrap().1;
    let counted = [0.005, 0.01, 0.5, 0.75, 300.0].map(at_most);
    assert_eq!(counted, [2, 3, 3, 4, 4]);
    assert!(BOUNDS.iter().all(|(s, ns)| Duration::from_nanos(*ns).as_secs_f64() == *s));
}
