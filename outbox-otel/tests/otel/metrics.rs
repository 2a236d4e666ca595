//! Metrics arrive as the registry has them.

use crate::{
    collector::{Attributes, Collector, Exported, Point},
    world::{SOON, World},
};
use outbox_core::telemetry::{MetricSnapshot, Metrics, SeriesValue, attribute, metric};
use outbox_otel::{Otlp, OtlpError};
use std::{collections::BTreeSet, fs, path::PathBuf};
use tests::{databases::Database, equals, wait_until};

/// Reads the names of the table of `docs/metrics.md`.
fn documented() -> BTreeSet<String> {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = fs::read_to_string(page).unwrap();
    let table = page.lines().skip_while(|line| !line.starts_with("| name | Prometheus |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| row.split('`').nth(1)).map(str::to_owned).collect()
}

/// Tells what is wrong with an exported metric, compared with the registry's.
fn compare(metric: &MetricSnapshot, exported: &Exported) -> Result<(), String> {
    equals(&*exported.unit, metric.description.unit)?;
    for series in &metric.series {
        let labels: Attributes =
            series.labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let found = exported.points.iter().find(|(attributes, _)| *attributes == labels);
        let (_, point) = found.ok_or_else(|| format!("{labels:?} is missing"))?;
        match (&series.value, point) {
            (SeriesValue::Counter(count), Point::Counter(value)) => equals(*value, *count as f64)?,
            (SeriesValue::Gauge(gauge), Point::Gauge(value)) => equals(value, gauge)?,
            (SeriesValue::Histogram { buckets, count, sum }, Point::Histogram(counts, total)) => {
                equals(counts.iter().sum::<u64>(), *count)?;
                let bounds: Vec<f64> = buckets.iter().map(|(bound, _)| *bound).collect();
                equals(&exported.bounds, &bounds)?;
                let mut rising = 0;
                for ((_, known), exported) in buckets.iter().zip(counts) {
                    rising += exported;
                    equals(rising, *known)?;
                }
                equals((total - sum).abs() < 1e-6, true)?;
            }
            (known, other) => return Err(format!("{known:?} came as {other:?}")),
        }
    }
    equals(exported.points.len(), metric.series.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_the_page_arrives_with_its_labels_and_its_value() {
    let collector = Collector::start().await;
    let world = World::open().await;
    let otlp = Otlp::builder("shop")
        .endpoint(&collector.url)
        .metrics(world.metrics.clone())
        .start()
        .unwrap();
    world.work().await;
    // The router reads the gauges of the database into the same registry.
    assert_eq!(world.get("/metrics").await.0, 200);
    // A batch is counted a moment after its events are settled.
    wait_until(SOON, "all metrics have arrived", async || {
        let known = world.metrics.snapshot();
        otlp.flush().await.unwrap();
        let arrived = collector.metrics();
        for metric in &known.metrics {
            let name = metric.description.name;
            let exported = arrived.get(name).ok_or_else(|| format!("{name} is missing"))?;
            compare(metric, exported).map_err(|fault| format!("{name}: {fault}"))?;
        }
        Ok(())
    })
    .await;
    let arrived: BTreeSet<String> = collector.metrics().into_keys().collect();
    assert_eq!(arrived, documented());
    let sent = [
        (attribute::SYSTEM, "outbox"),
        (attribute::OPERATION_NAME, "send"),
        (attribute::DESTINATION, "orders"),
        (attribute::ROUTE, "mails"),
    ];
    assert_eq!(world.value(metric::SENT.description().name, &sent), Some(3.0), "as is known");
    let again = Otlp::builder("shop").endpoint(&collector.url).metrics(world.metrics.clone());
    let bound = again.start();
    assert!(matches!(bound, Err(OtlpError::AlreadyBound(_))), "{bound:?}");
    otlp.shutdown().await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn the_gauges_of_a_database_are_read_by_the_binding() {
    let collector = Collector::start().await;
    let database = tests::databases::TempDatabase::create(Database::Sqlite).await;
    let outbox = outbox_sea_orm::Outbox::builder(database.connect().await).source("idle");
    let outbox = outbox.install().await.unwrap();
    let tx = outbox.begin().await.unwrap();
    tx.emit(crate::world::OrderPlaced { order_id: 1 }).unwrap();
    tx.commit().await.unwrap();
    let otlp = Otlp::builder("idle").endpoint(&collector.url).metrics(Metrics::new());
    let otlp = otlp.start().unwrap();
    otlp.database("idle", outbox);
    otlp.flush().await.unwrap();
    let pending = &collector.metrics()[metric::PENDING.description().name];
    let labels = Attributes::from([(attribute::DATABASE.to_owned(), "idle".to_owned())]);
    assert_eq!(pending.points, [(labels, Point::Gauge(1.0))]);
    otlp.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_collector_that_is_down_is_an_error_of_the_flush_and_of_nothing_else() {
    // Nothing listens on the port of a collector that was dropped.
    let url = Collector::start().await.url.clone();
    let metrics = Metrics::new();
    let otlp = Otlp::builder("shop").endpoint(url).metrics(metrics.clone()).start().unwrap();
    metrics.counter(&metric::LEASES_LOST, []).add(1);
    let flushed = otlp.flush().await;
    assert!(matches!(flushed, Err(OtlpError::Export(_))), "{flushed:?}");
}
