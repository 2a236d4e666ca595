//! A collector of OTLP over HTTP with protobuf, on loopback.

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    metrics::v1::{Metric, metric::Data, number_data_point},
    trace::v1,
};
use prost::Message;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, task::JoinHandle};

pub(crate) type Attributes = BTreeMap<String, String>;

/// A span that was exported.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) kind: v1::span::SpanKind,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for a root.
    pub(crate) parent: String,
    /// Traces and spans, as `traceparent` writes them.
    pub(crate) links: Vec<String>,
    pub(crate) attributes: Attributes,
    /// Whether its status is an error.
    pub(crate) failed: bool,
}

impl Span {
    /// Gives trace and span as `traceparent` writes them.
    pub(crate) fn context(&self) -> String {
        format!("{}-{}", self.trace, self.id)
    }
}

/// The value of a metric's label set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Point {
    Counter(f64),
    Gauge(f64),
    /// Counts by bucket, and the sum.
    Histogram(Vec<u64>, f64),
}

/// A metric that was exported, as of the last export.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exported {
    pub(crate) unit: String,
    pub(crate) points: Vec<(Attributes, Point)>,
    /// Bounds of a histogram's buckets.
    pub(crate) bounds: Vec<f64>,
}

#[derive(Debug, Default)]
struct Collected {
    spans: Vec<Span>,
    metrics: BTreeMap<String, Exported>,
}

/// A running collector. Dropped, it stops.
#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) url: String,
    collected: Arc<Mutex<Collected>>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let collected = Arc::new(Mutex::new(Collected::default()));
        let router = Router::new()
            .route("/v1/traces", post(traces))
            .route("/v1/metrics", post(metrics))
            .with_state(collected.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, collected, server }
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.collected.lock().unwrap().spans.clone()
    }

    /// Gives the one span of a name that satisfies a condition.
    #[track_caller]
    pub(crate) fn span(&self, name: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        let all = self.spans();
        let found: Vec<&Span> =
            all.iter().filter(|span| span.name == name && is_it(span)).collect();
        let [only] = found[..] else { panic!("{} spans `{name}` in {all:#?}", found.len()) };
        only.clone()
    }

    pub(crate) fn metrics(&self) -> BTreeMap<String, Exported> {
        self.collected.lock().unwrap().metrics.clone()
    }
}

fn is_protobuf(headers: &HeaderMap) -> bool {
    headers.get("content-type").is_some_and(|media| media == "application/x-protobuf")
}

async fn traces(
    State(collected): State<Arc<Mutex<Collected>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Vec<u8> {
    assert!(is_protobuf(&headers), "{headers:?}");
    let request = ExportTraceServiceRequest::decode(body).expect("it is protobuf");
    let mut collected = collected.lock().unwrap();
    for resource in request.resource_spans {
        let described = resource.resource.map(|it| attributes(&it.attributes));
        let service = described.and_then(|mut all| all.remove("service.name"));
        let service = service.unwrap_or_default();
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            collected.spans.push(Span {
                service: service.clone(),
                kind: span.kind(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                links: span
                    .links
                    .iter()
                    .map(|link| format!("{}-{}", hex(&link.trace_id), hex(&link.span_id)))
                    .collect(),
                attributes: attributes(&span.attributes),
                failed: span
                    .status
                    .is_some_and(|status| status.code() == v1::status::StatusCode::Error),
                name: span.name,
            });
        }
    }
    Vec::new()
}

async fn metrics(
    State(collected): State<Arc<Mutex<Collected>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Vec<u8> {
    assert!(is_protobuf(&headers), "{headers:?}");
    let request = ExportMetricsServiceRequest::decode(body).expect("it is protobuf");
    let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
    let mut collected = collected.lock().unwrap();
    collected.metrics =
        scopes.flat_map(|scope| scope.metrics).map(|it| (it.name.clone(), exported(it))).collect();
    Vec::new()
}

fn exported(metric: Metric) -> Exported {
    let mut exported = Exported { unit: metric.unit, ..Exported::default() };
    let number = |value: Option<number_data_point::Value>| match value {
        Some(number_data_point::Value::AsDouble(value)) => value,
        Some(number_data_point::Value::AsInt(value)) => value as f64,
        None => panic!("a point has a value"),
    };
    match metric.data {
        Some(Data::Sum(sum)) => {
            assert!(sum.is_monotonic, "it is a counter");
            for point in sum.data_points {
                let value = Point::Counter(number(point.value));
                exported.points.push((attributes(&point.attributes), value));
            }
        }
        Some(Data::Gauge(gauge)) => {
            for point in gauge.data_points {
                let value = Point::Gauge(number(point.value));
                exported.points.push((attributes(&point.attributes), value));
            }
        }
        Some(Data::Histogram(histogram)) => {
            for point in histogram.data_points {
                exported.bounds = point.explicit_bounds;
                let value = Point::Histogram(point.bucket_counts, point.sum.unwrap_or_default());
                exported.points.push((attributes(&point.attributes), value));
            }
        }
        other => panic!("no such kind of metric: {other:?}"),
    }
    exported
}

fn attributes(list: &[KeyValue]) -> Attributes {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|it| it.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(value)) => value.to_string(),
        other => format!("{other:?}"),
    };
    list.iter().map(|it| (it.key.clone(), text(&it.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
