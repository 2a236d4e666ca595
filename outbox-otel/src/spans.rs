//! The framework's spans in traces: their contexts, parents and links.

use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::{SpanContext, TraceContextExt, Tracer},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use outbox_core::telemetry::{TRACEPARENT, TRACESTATE, TraceBackend, TraceContext, install_traces};
use tracing::{Level, Span, Subscriber, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

/// The core, and its module that opens the spans of messages.
const CORE: &str = "outbox_core";
const SPANS: &str = "outbox_core::telemetry";
/// Opens a span for each statement, also for those by which a relay polls.
const STATEMENTS: &str = "sea_orm";
/// Opens a span for each connection to RabbitMQ, which lasts as long as that.
const AMQP_CONNECTIONS: &str = "lapin";

/// Gives the layer that takes the spans of a program to a tracer, for
/// [`tracing_subscriber::registry`](fn@tracing_subscriber::registry), and installs OpenTelemetry as the tracing system of the process:
/// from then on events carry the context in which they were created.
///
/// It takes what [`span_filter`] says; other layers, such as one that prints log lines, have filters of
/// their own.
///
/// Install the subscriber for the whole process, as `init` does. A subscriber of one thread
/// ([`set_default`](tracing::subscriber::set_default)) loses spans: a database's driver may drop the last reference to a
/// handler's span on a thread of its own, where that subscriber is not known, and the span of the message around it
/// never ends.
///
/// ```no_run
/// # fn example(provider: &opentelemetry_sdk::trace::SdkTracerProvider) {
/// use opentelemetry::trace::TracerProvider;
/// use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};
///
/// tracing_subscriber::registry()
///     .with(outbox_otel::layer(provider.tracer("shop")))
///     .with(tracing_subscriber::fmt::layer().with_filter(EnvFilter::from_default_env()))
///     .init();
/// # }
/// ```
pub fn layer<S, T>(tracer: T) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    T: Tracer + Send + Sync + 'static,
    T::Span: Send + Sync,
{
    install();
    let layer = tracing_opentelemetry::layer().with_tracer(tracer);
    // Threads and lines of code tell an operator of a shop nothing, and cost in every span.
    layer.with_threads(false).with_location(false).with_filter(span_filter())
}

/// Says which spans go to OpenTelemetry: those of a message's life, which are at DEBUG, and what the
/// program itself opens at INFO or above. The framework's spans around its log lines, which last as long
/// as a relay or a consumer, stay out, and so do those of RabbitMQ's client, which last as long as a
/// connection, and SeaORM's: a relay that polls would make a trace of each read.
#[must_use]
pub fn span_filter() -> Targets {
    Targets::new()
        .with_default(Level::INFO)
        .with_target(CORE, LevelFilter::OFF)
        .with_target(STATEMENTS, LevelFilter::OFF)
        .with_target(AMQP_CONNECTIONS, LevelFilter::OFF)
        .with_target(SPANS, Level::DEBUG)
}

/// Installs OpenTelemetry as the tracing system of the process; [`layer`] does so too. `false` where
/// the process has one already, which stays.
pub fn install() -> bool {
    install_traces(OpenTelemetry(TraceContextPropagator::new()))
}

/// Makes a span that has not begun yet the child of the request's sender, whose context the headers of
/// the request have. For the server of a program without another instrumentation.
///
/// ```
/// # fn example(headers: &std::collections::HashMap<String, String>) {
/// let span = tracing::info_span!("request", otel.name = "POST /orders", otel.kind = "server");
/// outbox_otel::continue_from(&span, |name| headers.get(name).map(String::as_str));
/// # }
/// ```
pub fn continue_from<'h>(span: &Span, header: impl Fn(&str) -> Option<&'h str>) {
    let Some(traceparent) = header(TRACEPARENT) else { return };
    let tracestate = header(TRACESTATE).map(str::to_owned);
    let parent = TraceContext { traceparent: traceparent.to_owned(), tracestate };
    OpenTelemetry(TraceContextPropagator::new()).place(span, Some(&parent), &[]);
}

/// Puts the framework's spans in the traces of OpenTelemetry.
#[derive(Debug)]
struct OpenTelemetry(TraceContextPropagator);

impl OpenTelemetry {
    /// Reads a context; `None` where it is none.
    fn read(&self, context: &TraceContext) -> Option<Context> {
        let read = self.0.extract_with_context(&Context::new(), &Headers(context));
        read.span().span_context().is_valid().then_some(read)
    }
}

impl TraceBackend for OpenTelemetry {
    fn context(&self, span: &Span) -> Option<TraceContext> {
        let mut written = Written::default();
        self.0.inject_context(&span.context(), &mut written);
        Some(TraceContext { traceparent: written.traceparent?, tracestate: written.tracestate })
    }

    fn place(&self, span: &Span, parent: Option<&TraceContext>, links: &[TraceContext]) {
        let parent = parent.and_then(|parent| self.read(parent));
        // An error means that no layer of OpenTelemetry has the span.
        let _ = span.set_parent(parent.unwrap_or_default());
        for link in links.iter().filter_map(|link| self.read(link)) {
            span.add_link(span_context(&link));
        }
    }
}

fn span_context(context: &Context) -> SpanContext {
    context.span().span_context().clone()
}

/// A context as the propagator reads it.
struct Headers<'c>(&'c TraceContext);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.headers().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.headers().map(|(name, _)| name).collect()
    }
}

/// A context as the propagator writes it.
#[derive(Default)]
struct Written {
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl Injector for Written {
    fn set(&mut self, key: &str, value: String) {
        match key {
            TRACEPARENT => self.traceparent = Some(value),
            TRACESTATE => self.tracestate = Some(value).filter(|state| !state.is_empty()),
            _ => {}
        }
    }
}
