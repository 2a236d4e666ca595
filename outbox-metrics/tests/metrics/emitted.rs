//! Each metric of the page is emitted, with its labels and the right value.

use crate::{page::rows, world::World};
use outbox_core::telemetry::{attribute, metric};
use std::collections::BTreeSet;

/// Gives the labels with which a metric was emitted.
fn emitted(world: &World, metric: &str) -> BTreeSet<String> {
    let snapshot = world.metrics.snapshot();
    let series = snapshot.metrics.iter().filter(|it| it.description.name == metric);
    let labels = series.flat_map(|it| &it.series).flat_map(|series| &series.labels);
    labels.map(|(name, _)| (*name).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_metric_of_the_page_is_emitted_with_its_labels_and_its_value() {
    let world = World::open().await;
    world.work().await;
    let (status, content_type, text) = world.get("/metrics").await;
    assert_eq!((status, &*content_type), (200, "text/plain; version=0.0.4; charset=utf-8"));

    let names: BTreeSet<String> = world
        .metrics
        .snapshot()
        .metrics
        .iter()
        .map(|metric| metric.description.name.to_owned())
        .collect();
    let page = rows();
    let written: BTreeSet<String> = page.iter().map(|row| row.name.clone()).collect();
    assert_eq!(names, written, "emitted, and on the page");
    for row in page {
        let labels: BTreeSet<String> = row.labels.into_iter().collect();
        assert_eq!(emitted(&world, &row.name), labels, "labels of {}", row.name);
        assert!(text.contains(&format!("# TYPE {} {}\n", row.prometheus, row.kind)), "{text}");
    }
    relay(&world);
    consumer(&world);
    sagas(&world);
    database(&text);
    world.stop().await;
}

fn relay(world: &World) {
    let sent = metric::SENT.description().name;
    let of = |route, topic, failure: Option<&'static str>| {
        let mut labels = vec![
            (attribute::SYSTEM, "outbox"),
            (attribute::OPERATION_NAME, "send"),
            (attribute::DESTINATION, topic),
            (attribute::ROUTE, route),
        ];
        labels.extend(failure.map(|class| (attribute::ERROR_TYPE, class)));
        world.value(sent, &labels)
    };
    assert_eq!(
        [
            of("mails", "orders", None),
            of("copies", "orders", None),
            of("losses", "losses", Some("transient")),
            of("losses", "losses", None),
        ],
        [Some(3.0), Some(3.0), Some(1.0), None]
    );
    let of_route = |name, route| world.value(name, &[(attribute::ROUTE, route)]);
    assert_eq!(of_route(metric::IN_FLIGHT.description().name, "mails"), Some(0.0));
    assert_eq!(of_route(metric::BREAKER_OPEN.description().name, "mails"), Some(0.0));
    assert_eq!(of_route(metric::SENT_REPEATS.description().name, "mails"), Some(0.0));
    assert_eq!(world.value(metric::LEASES_LOST.description().name, &[]), Some(0.0));
    let dead = [(attribute::ROUTE, "losses"), (attribute::REASON, "exhausted")];
    assert_eq!(world.value(metric::DEAD_LETTERS.description().name, &dead), Some(1.0));
}

fn consumer(world: &World) {
    let value = |name, further: &[(&str, &str)]| {
        let of_consumer = [(attribute::CONSUMER_GROUP, "mails")];
        let labels: Vec<_> = of_consumer.iter().chain(further).copied().collect();
        world.value(name, &labels)
    };
    let consumed = |system, label| {
        let labels = [(attribute::SYSTEM, system), (attribute::OPERATION_NAME, "receive"), label];
        value(metric::CONSUMED.description().name, &labels)
    };
    assert_eq!(consumed("outbox", (attribute::DESTINATION, "orders")), Some(4.0));
    assert_eq!(consumed("carrier", (attribute::ERROR_TYPE, "unreadable")), Some(1.0));
    let runs = |failure: Option<&'static str>| {
        let mut labels = vec![
            (attribute::SYSTEM, "outbox"),
            (attribute::OPERATION_NAME, "process"),
            (attribute::DESTINATION, "orders"),
            (attribute::HANDLER, "send-mail"),
        ];
        labels.extend(failure.map(|failure| (attribute::ERROR_TYPE, failure)));
        value(metric::PROCESS_DURATION.description().name, &labels)
    };
    assert_eq!(
        [runs(None), runs(Some("failed")), runs(Some("rejected"))],
        [Some(2.0), Some(1.0), Some(1.0)]
    );
    for (name, expected) in [
        (metric::DUPLICATES_SUPPRESSED.description().name, 1.0),
        (metric::DEFERRED.description().name, 1.0),
        (metric::HANDED_OVER.description().name, 0.0),
        (metric::DELIVERIES_IN_FLIGHT.description().name, 0.0),
    ] {
        assert_eq!(value(name, &[]), Some(expected), "{name}");
    }
    let dead =
        |reason| value(metric::DEAD_LETTERS.description().name, &[(attribute::REASON, reason)]);
    assert_eq!((dead("rejected"), dead("undecodable")), (Some(1.0), Some(1.0)));
}

fn sagas(world: &World) {
    let value = |name, further: &[(&str, &str)]| {
        let labels: Vec<_> =
            [(attribute::SAGA, "place-order")].iter().chain(further).copied().collect();
        world.value(name, &labels)
    };
    let ended =
        |outcome| value(metric::SAGAS_ENDED.description().name, &[(attribute::OUTCOME, outcome)]);
    assert_eq!(
        [
            value(metric::SAGAS_STARTED.description().name, &[]),
            ended("completed"),
            ended("compensated"),
            value(metric::SAGAS_STUCK.description().name, &[]),
        ],
        [Some(3.0), Some(1.0), Some(1.0), Some(1.0)]
    );
}

/// Checks the gauges of the database, which the request has read.
fn database(text: &str) {
    for line in [
        "outbox_pending{outbox_database=\"shop\"} 0",
        "outbox_retrying{outbox_database=\"shop\"} 0",
        "outbox_dead{outbox_database=\"shop\"} 3",
        "outbox_oldest_pending_age_seconds{outbox_database=\"shop\"} 0",
    ] {
        assert!(text.lines().any(|is| is == line), "{line} is missing:\n{text}");
    }
}
