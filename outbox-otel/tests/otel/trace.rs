//! An order from its request to its parcel, read back with its parents and links.

use crate::{
    collector::{Collector, Span},
    services::Services,
    world::SOON,
};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use outbox_core::telemetry::{Metrics, TRACEPARENT, attribute};
use outbox_otel::Otlp;
use tests::{equals, wait_until};
use tracing_subscriber::layer::SubscriberExt;

/// Those of the request, of two events that are created, sent, processed and handled.
const SPANS: usize = 9;
const CLIENT_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

/// Gives trace and span of a `traceparent`.
fn context(traceparent: &str) -> String {
    let parts: Vec<&str> = traceparent.split('-').collect();
    let ["00", trace, span, "01"] = parts[..] else { panic!("{traceparent}") };
    format!("{trace}-{span}")
}

#[tokio::test]
async fn an_order_is_followed_from_its_request_over_http_and_rabbitmq_to_its_parcel() {
    let collector = Collector::start().await;
    let metrics = Metrics::new();
    let otlp = Otlp::builder("shop").endpoint(&collector.url).metrics(metrics).start().unwrap();
    let subscriber = tracing_subscriber::registry().with(otlp.layer());
    // Of the process: SQLite's threads may drop the last reference to the span of a handler, and only a
    // subscriber that they know closes the span around it.
    tracing::subscriber::set_global_default(subscriber).expect("this process has no other one");
    let services = Services::open().await;
    services.order(&format!("00-{CLIENT_TRACE}-{CLIENT_SPAN}-01")).await;
    let (request, message) = (services.request(), services.message().await);
    let (paid, shipped) = (services.handled("payments"), services.handled("shipping"));
    services.stop().await;
    // A span ends with the last task that has it, which may be after its consumer.
    wait_until(SOON, "the spans have arrived", async || {
        otlp.flush().await.unwrap();
        equals(collector.spans().len(), SPANS)
    })
    .await;

    // The business transaction: in the trace of the client, and kept with the event.
    let posted = collector.span("POST /orders", |_| true);
    assert_eq!((posted.kind, &*posted.trace), (SpanKind::Server, CLIENT_TRACE));
    assert_eq!((&*posted.parent, &*posted.service), (CLIENT_SPAN, "shop"));
    let created = collector.span("create orders", |_| true);
    assert_eq!((created.kind, &created.trace), (SpanKind::Producer, &posted.trace));
    assert_eq!((&created.parent, &created.links), (&posted.id, &vec![]));

    // The first hop: the relay's span is a trace of its own, and its context is that of the request.
    let sent = collector.span("send orders", |_| true);
    check_sent(&sent, &created, "http");
    assert_eq!(context(&request[TRACEPARENT]), sent.context());
    assert_eq!(context(&request["ce-traceparent"]), created.context());
    assert_eq!(paid.iter().map(|it| context(it)).collect::<Vec<_>>(), [created.context()]);
    let processed = collector.span("process orders", |_| true);
    check_processed(&processed, &created, "payments");
    let handled = collector.span("handle", |span| span.parent == processed.id);

    // The second event starts in the span of the first one's handler.
    let created = collector.span("create payments", |_| true);
    assert_eq!((&created.trace, &created.parent), (&handled.trace, &handled.id));
    let sent = collector.span("send payments", |_| true);
    check_sent(&sent, &created, "rabbitmq");
    assert_eq!(context(&message[TRACEPARENT]), sent.context());
    assert_eq!(context(&message["cloudEvents_traceparent"]), created.context());
    assert_eq!(shipped.iter().map(|it| context(it)).collect::<Vec<_>>(), [created.context()]);
    let processed = collector.span("process payments", |_| true);
    check_processed(&processed, &created, "shipping");

    // Nothing else: a read that finds nothing, a renewed lease or a statement makes no span.
    let names: Vec<String> = collector.spans().into_iter().map(|span| span.name).collect();
    assert_eq!(names.len(), SPANS, "{names:?}");
    otlp.shutdown().await.unwrap();
}

fn check_sent(sent: &Span, created: &Span, system: &str) {
    assert_eq!((sent.kind, &*sent.parent), (SpanKind::Client, ""), "a root");
    assert_ne!(sent.trace, created.trace);
    assert_eq!(sent.links, [created.context()]);
    assert_eq!(sent.attributes[attribute::SYSTEM], system);
    assert_eq!(sent.attributes[attribute::BATCH_SIZE], "1");
    assert!(!sent.attributes.contains_key(attribute::LINKS), "{sent:?}");
    assert!(!sent.failed);
}

fn check_processed(processed: &Span, created: &Span, consumer: &str) {
    assert_eq!((processed.kind, &*processed.parent), (SpanKind::Consumer, ""), "a root");
    assert_ne!(processed.trace, created.trace);
    assert_eq!(processed.links, [created.context()]);
    assert_eq!(processed.attributes[attribute::CONSUMER_GROUP], consumer);
    assert!(!processed.failed);
}
