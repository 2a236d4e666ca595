//! Log lines, and with the feature `otel` spans and metrics in OpenTelemetry.

use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// The variable that names the collector.
#[cfg(feature = "otel")]
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// What runs beside the shop to tell of it.
#[derive(Default)]
pub struct Telemetry {
    #[cfg(feature = "otel")]
    otlp: Option<outbox_otel::Otlp>,
}

impl Telemetry {
    /// Starts it. `RUST_LOG=debug` shows the log lines of the outbox, and
    /// `OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318` exports spans and metrics.
    pub fn start() -> anyhow::Result<Self> {
        let lines = std::env::var_os("RUST_LOG").map(|_| {
            tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_filter(EnvFilter::from_default_env())
        });
        let subscriber = tracing_subscriber::registry().with(lines);
        #[cfg(feature = "otel")]
        if std::env::var_os(ENDPOINT).is_some() {
            let otlp = outbox_otel::Otlp::builder("shop").start()?;
            subscriber.with(otlp.layer()).init();
            return Ok(Self { otlp: Some(otlp) });
        }
        subscriber.init();
        Ok(Self::default())
    }

    /// Adds the gauges of a service's database.
    #[cfg_attr(not(feature = "otel"), expect(unused_variables, reason = "nothing exports them"))]
    pub fn database(&self, service: &str, outbox: &outbox_sea_orm::Outbox) {
        #[cfg(feature = "otel")]
        if let Some(otlp) = &self.otlp {
            otlp.database(service, outbox.clone());
        }
    }

    /// Exports what was not exported yet.
    pub async fn stop(self) -> anyhow::Result<()> {
        #[cfg(feature = "otel")]
        if let Some(otlp) = self.otlp {
            otlp.shutdown().await?;
        }
        Ok(())
    }
}

/// Runs the handler of a request in the span of a server, which goes on in the trace of its caller.
#[cfg(feature = "otel")]
pub async fn traced(
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    use tracing::Instrument;
    let name = format!("{} {}", request.method(), request.uri().path());
    let span = tracing::info_span!("request", otel.name = name, otel.kind = "server");
    outbox_otel::continue_from(&span, |name| request.headers().get(name)?.to_str().ok());
    next.run(request).instrument(span).await
}
