//! Which span is whose child, and which is a root with links.

use crate::collector::Collector;
use outbox_core::{
    event::{Headers, Message, Timestamp},
    runtime::wall_clock,
    telemetry::{
        Metrics, TRACEPARENT, TraceContext, attribute, current_context, keep_context, process_span,
        record_error, send_span,
    },
    testing::transport::full,
};
use outbox_otel::Otlp;
use std::{collections::BTreeSet, time::Duration};
use tracing_subscriber::layer::SubscriberExt;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
/// What a command has in its headers, and its reply.
const COMMAND: [(&str, &str); 4] = [
    ("sagaid", "01890a5d-ac96-774b-bcce-b302099a8057"),
    ("sagastep", "charge"),
    ("sagaround", "1"),
    ("sagaphase", "do"),
];

/// Makes a message of an age with headers and a context.
fn message(age: Duration, headers: &[(&str, &str)], traceparent: &str) -> Message {
    let mut parts = full().into_parts();
    parts.created_at = Timestamp::from(wall_clock() - age);
    for (name, value) in headers {
        parts.headers.insert(*name, *value).unwrap();
    }
    parts.headers.insert(TRACEPARENT, traceparent).unwrap();
    parts.headers.insert("tracestate", "vendor=1").unwrap();
    Message::new(parts)
}

async fn traced() -> (Collector, Otlp, tracing::subscriber::DefaultGuard) {
    let collector = Collector::start().await;
    let metrics = Metrics::new();
    let otlp = Otlp::builder("shop").endpoint(&collector.url).metrics(metrics).start().unwrap();
    let subscriber = tracing_subscriber::registry().with(otlp.layer());
    let listens = tracing::subscriber::set_default(subscriber);
    (collector, otlp, listens)
}

#[tokio::test]
async fn a_first_young_command_or_reply_is_a_child_and_all_else_a_root_with_a_link() {
    let (collector, otlp, _listens) = traced().await;
    let (young, old) = (Duration::from_secs(5), Duration::from_secs(90));
    let command: Vec<(&str, &str)> =
        COMMAND.into_iter().chain([("replyto", "orders.replies")]).collect();
    let (command, reply, event) = (&command[..], &COMMAND[..], &[][..]);
    let cases = [
        ("event", young, event, None, false),
        ("event-again", young, event, Some(2), false),
        ("command", young, command, None, true),
        ("command-counted", young, command, Some(1), true),
        ("command-again", young, command, Some(2), false),
        ("command-late", old, command, Some(1), false),
        ("reply", young, reply, None, true),
        ("reply-late", old, reply, None, false),
    ];
    let traceparent = format!("00-{TRACE}-{SPAN}-01");
    // A span around it is nobody's parent.
    let around = tracing::info_span!("around").entered();
    for (consumer, age, headers, attempt, _) in cases {
        process_span(consumer, &message(age, headers, &traceparent), attempt).in_scope(|| {});
    }
    drop(around);
    otlp.flush().await.unwrap();
    for (consumer, _, _, _, is_child) in cases {
        let span = collector
            .span("process orders", |it| it.attributes[attribute::CONSUMER_GROUP] == consumer);
        let link = format!("{TRACE}-{SPAN}");
        let (parent, links) = if is_child { (SPAN, vec![]) } else { ("", vec![link]) };
        assert_eq!((&*span.parent, &span.links), (parent, &links), "{consumer}");
        assert_eq!(span.trace == TRACE, is_child, "{consumer}");
    }
    otlp.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_batch_links_to_each_context_once_and_to_64_at_most_and_its_error_is_its_status() {
    let (collector, otlp, _listens) = traced().await;
    let context = |n: usize| format!("00-{TRACE}-{:016x}-01", n + 1);
    let batch = |contexts: &[usize]| -> Vec<Message> {
        contexts.iter().map(|n| message(Duration::ZERO, &[], &context(*n))).collect()
    };
    let mixed = batch(&[0, 1, 0, 1, 2]);
    send_span("http", "mixed", &mixed).in_scope(|| {});
    let many: Vec<usize> = (0..100).collect();
    let span = send_span("http", "many", &batch(&many));
    record_error(&span, "transient");
    drop(span);
    let mut unreadable = batch(&[0]);
    unreadable.push(message(Duration::ZERO, &[], "not a context"));
    drop(send_span("http", "unreadable", &unreadable));
    otlp.flush().await.unwrap();
    let of = |route: &str| {
        collector.span("send orders", |span| span.attributes[attribute::ROUTE] == route)
    };
    let links: BTreeSet<String> = of("mixed").links.into_iter().collect();
    assert_eq!((of("mixed").links.len(), links.len(), of("mixed").failed), (3, 3, false));
    let many = of("many");
    assert_eq!((many.links.len(), many.failed), (64, true));
    assert_eq!(many.attributes[attribute::ERROR_TYPE], "transient");
    assert_eq!(of("unreadable").links, [format!("{TRACE}-{:016x}", 1)]);
    otlp.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_event_keeps_the_context_that_it_has_and_one_without_a_span_gets_none() {
    let (_collector, otlp, _listens) = traced().await;
    assert_eq!(current_context(), None);
    let mut headers = Headers::new();
    keep_context(&tracing::Span::none(), &mut headers);
    assert_eq!(TraceContext::read(&headers), None);
    let span = tracing::info_span!("business");
    span.in_scope(|| keep_context(&tracing::Span::none(), &mut headers));
    let kept = TraceContext::read(&headers).expect("that of the span around it");
    tracing::info_span!("other").in_scope(|| keep_context(&tracing::Span::none(), &mut headers));
    assert_eq!(TraceContext::read(&headers), Some(kept));
    otlp.shutdown().await.unwrap();
}
