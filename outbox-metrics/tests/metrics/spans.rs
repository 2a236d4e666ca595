//! The spans of a message's life, as a subscriber sees them.

use crate::world::{OrderLost, OrderPlaced, SOON, World};
use outbox_core::telemetry::{SeriesValue, TRACEPARENT, attribute, metric};
use outbox_sea_orm::prelude::*;
use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
};
use tests::{equals, wait_until};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
};

const CONTEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A span with its fields.
#[derive(Debug, Clone)]
struct Opened {
    name: &'static str,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Opened {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

impl Opened {
    fn has(&self, fields: &[(&str, &str)]) -> bool {
        fields.iter().all(|(name, value)| self.fields.get(name).is_some_and(|is| is == value))
    }
}

/// Keeps the framework's spans, each with its id, which a later one may have again.
#[derive(Debug, Clone, Default)]
struct Spans(Arc<Mutex<Vec<(Id, Opened)>>>);

impl Spans {
    fn all(&self, name: &str) -> Vec<Opened> {
        let spans = self.0.lock().unwrap();
        spans.iter().map(|(_, span)| span).filter(|span| span.name == name).cloned().collect()
    }
}

impl<S: Subscriber> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        if attributes.metadata().target().starts_with("outbox_core") {
            let mut span = Opened { name: attributes.metadata().name(), fields: BTreeMap::new() };
            attributes.record(&mut span);
            self.0.lock().unwrap().push((id.clone(), span));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut spans = self.0.lock().unwrap();
        if let Some((_, span)) = spans.iter_mut().rev().find(|(known, _)| known == id) {
            values.record(span);
        }
    }
}

#[tokio::test]
async fn a_message_is_created_sent_and_processed_in_spans_and_an_empty_read_makes_none() {
    let spans = Spans::default();
    let _listens =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    let world = World::open().await;
    let tx = world.outbox.begin().await.unwrap();
    let traced = EnqueueOptions::new().header(TRACEPARENT, CONTEXT);
    tx.emit_with(OrderPlaced { order_id: 1 }, traced).unwrap();
    tx.emit(OrderLost { order_id: 2 }).unwrap();
    tx.commit().await.unwrap();
    let settled = || async {
        let relay = *world.relay.stats().borrow();
        let acked = world.consumer.stats().borrow().acked;
        equals((relay.delivered, relay.dead, acked), (2, 1, 2))
    };
    wait_until(SOON, "the events have ended", settled).await;
    // The last batch has ended when its span has its outcome, which is after the dead letter.
    world.relay.shutdown(SOON).await.unwrap();

    let create = [("otel.name", "create orders"), ("otel.kind", "producer")];
    assert!(spans.all("create").iter().any(|span| span.has(&create)), "{spans:?}");
    let sent = spans.all("send");
    check_sent(&sent);
    let snapshot = world.metrics.snapshot();
    let timed = snapshot
        .metrics
        .iter()
        .filter(|it| it.description.name == metric::CLIENT_DURATION.description().name)
        .flat_map(|it| &it.series)
        .map(|series| match series.value {
            SeriesValue::Histogram { count, .. } => count,
            _ => 0,
        });
    assert_eq!(sent.len() as u64, timed.sum::<u64>(), "one span a batch: {sent:?}");

    let process = [
        ("otel.name", "process orders"),
        ("otel.kind", "consumer"),
        (attribute::CONSUMER_GROUP, "mails"),
        (TRACEPARENT, CONTEXT),
    ];
    let processed = spans.all("process");
    let span = processed.iter().find(|span| span.has(&process));
    let span = span.unwrap_or_else(|| panic!("{process:?} in {processed:?}"));
    assert!(span.fields.contains_key(attribute::PROCESS_SECONDS), "{span:?}");
    assert!(!span.fields.contains_key(attribute::ERROR_TYPE), "{span:?}");
}

/// Checks the spans of published batches: of one that was confirmed, and of one that failed.
fn check_sent(sent: &[Opened]) {
    for expected in [
        [
            ("otel.name", "send orders"),
            ("otel.kind", "client"),
            (attribute::ROUTE, "mails"),
            (attribute::SYSTEM, "outbox"),
            (attribute::BATCH_SIZE, "1"),
            (attribute::LINKS, CONTEXT),
        ],
        [
            ("otel.name", "send losses"),
            ("otel.kind", "client"),
            (attribute::ROUTE, "losses"),
            (attribute::OPERATION_TYPE, "send"),
            (attribute::DESTINATION, "losses"),
            (attribute::ERROR_TYPE, "transient"),
        ],
    ] {
        assert!(sent.iter().any(|span| span.has(&expected)), "{expected:?} in {sent:?}");
    }
}
