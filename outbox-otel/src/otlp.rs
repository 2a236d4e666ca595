//! A pipeline for a program that has none: spans and metrics by OTLP over HTTP, with protobuf.

mod client;

use crate::metrics::{AlreadyBound, BoundMetrics, bind};
use client::Client;
use opentelemetry::{metrics::MeterProvider, trace::TracerProvider};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkError,
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::SdkTracerProvider,
};
use outbox_core::{admin::AdminStore, runtime::thread, telemetry::Metrics};
use std::io;
use tokio::sync::oneshot;
use tracing::Subscriber;
use tracing_subscriber::{Layer, registry::LookupSpan};

/// The name of the scope under which spans and metrics are exported.
const SCOPE: &str = "outbox";
/// The variable with the service's name.
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

/// Exports spans and metrics to a collector, over HTTP with protobuf.
///
/// The standard variables configure it: `OTEL_EXPORTER_OTLP_ENDPOINT` (`http://localhost:4318` unless
/// set), `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
/// `OTEL_TRACES_SAMPLER`, `OTEL_METRIC_EXPORT_INTERVAL` and their kin. TLS is rustls with the system's
/// trust store.
///
/// ```no_run
/// # async fn example(outbox: impl outbox_core::admin::AdminStore) -> Result<(), Box<dyn std::error::Error>> {
/// use outbox_otel::Otlp;
/// use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};
///
/// let otlp = Otlp::builder("shop").start()?;
/// tracing_subscriber::registry().with(otlp.layer()).init();
/// // .. the program opens its outbox ..
/// otlp.database("shop", outbox);
/// // .. and runs ..
/// otlp.shutdown().await?; // what is not exported yet
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "`layer` gives spans to it, and `shutdown` exports the last of them"]
pub struct Otlp {
    tracers: SdkTracerProvider,
    meters: SdkMeterProvider,
    metrics: BoundMetrics,
}

/// Why a pipeline does not start, or did not export.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The exporter cannot be built: a variable `OTEL_..` may be wrong.
    #[error("the exporter cannot be built; check the variables OTEL_..")]
    Exporter(#[from] ExporterBuildError),
    /// The metrics are bound to a meter already.
    #[error(transparent)]
    AlreadyBound(#[from] AlreadyBound),
    /// The collector did not take everything.
    #[error("not everything was exported")]
    Export(#[from] OTelSdkError),
    /// The system has no thread to give.
    #[error("the system gives no thread for the export")]
    Thread(#[from] io::Error),
    /// The thread that exports has ended without an answer.
    #[error("the export ended without an answer")]
    NoAnswer,
}

/// Configures the pipeline of a service.
#[derive(Debug)]
#[must_use = "`start` starts it"]
pub struct OtlpBuilder {
    service: String,
    endpoint: Option<String>,
    metrics: Metrics,
}

impl OtlpBuilder {
    /// Exports to the collector at this URL, to which `/v1/traces` and `/v1/metrics` are added, in
    /// place of what the variables say.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Exports the metrics of another registry than that of the process.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Starts the pipeline and binds the metrics to it. Opens no connection yet.
    ///
    /// # Errors
    /// [`OtlpError`] when a URL or variable has a value that cannot be used, or when the metrics are
    /// bound already.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, on which the requests run.
    pub fn start(self) -> Result<Otlp, OtlpError> {
        let client = Client::start().map_err(OtlpError::Client)?;
        let resource = Resource::builder();
        let resource = match std::env::var_os(SERVICE_NAME) {
            Some(_) => resource.build(),
            None => resource.with_service_name(self.service).build(),
        };
        let mut spans = SpanExporter::builder()
            .with_http()
            .with_http_client(client.clone())
            .with_protocol(Protocol::HttpBinary);
        let mut metrics = MetricExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary);
        if let Some(url) = self.endpoint {
            let url = url.trim_end_matches('/');
            spans = spans.with_endpoint(format!("{url}/v1/traces"));
            metrics = metrics.with_endpoint(format!("{url}/v1/metrics"));
        }
        let tracers = SdkTracerProvider::builder()
            .with_batch_exporter(spans.build()?)
            .with_resource(resource.clone())
            .build();
        let meters = SdkMeterProvider::builder()
            .with_reader(PeriodicReader::builder(metrics.build()?).build())
            .with_resource(resource)
            .build();
        let metrics = bind(&self.metrics, &meters.meter(SCOPE))?;
        Ok(Otlp { tracers, meters, metrics })
    }
}

impl Otlp {
    /// Begins the configuration of a service, whose name is used unless `OTEL_SERVICE_NAME` gives one.
    pub fn builder(service: impl Into<String>) -> OtlpBuilder {
        OtlpBuilder { service: service.into(), endpoint: None, metrics: Metrics::global() }
    }

    /// Gives the layer that takes the program's spans to the collector; see [`layer`](crate::layer).
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        crate::layer(self.tracers.tracer(SCOPE))
    }

    /// Adds the gauges of a database under a name; see [`BoundMetrics::database`].
    ///
    /// # Panics
    /// Outside of a Tokio runtime, on which they are read.
    pub fn database(&self, name: impl Into<String>, store: impl AdminStore) {
        self.metrics.database(name, store);
    }

    /// Exports what was not exported yet.
    ///
    /// # Errors
    /// [`OtlpError`] when the collector does not answer or refuses it.
    ///
    /// # Cancel safety
    /// Dropped, the export goes on.
    pub async fn flush(&self) -> Result<(), OtlpError> {
        self.metrics.refresh().await;
        let (tracers, meters) = (self.tracers.clone(), self.meters.clone());
        apart(move || tracers.force_flush().and(meters.force_flush())).await
    }

    /// Exports what was not exported yet, and stops. Call it last: what comes later is lost.
    ///
    /// # Errors
    /// [`OtlpError`] when the collector does not answer or refuses it.
    ///
    /// # Cancel safety
    /// Dropped, the export goes on.
    pub async fn shutdown(self) -> Result<(), OtlpError> {
        self.metrics.refresh().await;
        let (tracers, meters) = (self.tracers.clone(), self.meters.clone());
        apart(move || tracers.shutdown().and(meters.shutdown())).await
    }
}

/// Runs what blocks on a thread of its own: the requests of the export run on the caller's runtime,
/// which may have one thread only.
async fn apart(
    work: impl FnOnce() -> Result<(), OTelSdkError> + Send + 'static,
) -> Result<(), OtlpError> {
    let (sender, ended) = oneshot::channel();
    let work = move || {
        // A caller that is gone asks for no answer.
        let _ = sender.send(work());
    };
    drop(thread("otlp-flush", work)?);
    Ok(ended.await.map_err(|_| OtlpError::NoAnswer)??)
}
