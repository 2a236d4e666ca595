//! Names on the wire: a crate writes each in one file, so that no two files can differ.

use super::tree::{File, libraries, none};
use std::collections::{BTreeMap, BTreeSet};

/// Names on the wire, of standards and of our own. A crate spells each in one place, and the rest of it takes it from
/// there.
const WIRE_NAMES: [&str; 46] = [
    "specversion",
    "datacontenttype",
    "dataschema",
    "data_base64",
    "partitionkey",
    "expirytime",
    "traceparent",
    "tracestate",
    "correlationid",
    "causationid",
    "sagaid",
    "sagastep",
    "replyto",
    "sagaconsumer",
    "sagacommand",
    "outboxretry",
    "payloadcodec",
    "payloadkey",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "outbox-signature",
    "whsec_",
    "ce-",
    "ce_",
    "cloudEvents_",
    "cloudEvents:",
    "Nats-Msg-Id",
    "x-death",
    "__connect.errors.topic",
    "__connect.errors.partition",
    "__connect.errors.offset",
    "__connect.errors.exception.class.name",
    "__connect.errors.exception.message",
    "messaging.client.operation.duration",
    "messaging.client.sent.messages",
    "messaging.client.consumed.messages",
    "messaging.process.duration",
    "messaging.system",
    "messaging.operation.name",
    "messaging.operation.type",
    "messaging.destination.name",
    "messaging.consumer.group.name",
    "error.type",
];

/// One place of several files: the attributes of CloudEvents, and the list of what no header may be called.
const CLOUDEVENTS: [&str; 2] =
    ["outbox-core/src/event/cloudevents/", "outbox-core/src/event/headers.rs"];

/// Tells what a text says, without its quotes and marks.
fn said(text: &str) -> &str {
    text.trim_start_matches(['b', 'c', 'r', '#']).trim_end_matches('#').trim_matches('"')
}

/// The place that a file belongs to.
fn place(file: &'static File) -> &'static str {
    if file.is_in(&CLOUDEVENTS) { CLOUDEVENTS[0] } else { &file.path }
}

/// The crate of a file.
fn member(file: &File) -> &str {
    file.path.split_once("/src/").map_or("", |(member, _)| member)
}

#[test]
fn every_wire_name_is_written_in_one_place_of_a_crate() {
    let mut written: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for file in libraries() {
        let code = file.shipped();
        let here: BTreeSet<&str> = code.texts().map(|text| said(&text.text)).collect();
        for name in WIRE_NAMES.into_iter().filter(|name| here.contains(name)) {
            written.entry((member(file), name)).or_default().insert(place(file));
        }
    }
    assert!(written.len() > 5, "the names were found where they are");
    let twice = written.into_iter().filter(|(_, places)| places.len() > 1);
    none(
        "a name is written twice",
        twice.map(|((_, name), places)| format!("{name}: {places:?}")).collect(),
    );
}

#[test]
fn spans_and_metrics_are_named_by_telemetry() {
    const TELEMETRY: &str = "outbox-core/src/telemetry/";
    let named = |file: &File| {
        let code = file.shipped();
        let names = code.texts().filter(|text| {
            text.text.starts_with("\"messaging.") || text.text.starts_with("\"outbox.")
        });
        // Types of events that the framework writes itself.
        let names = names.filter(|text| !text.text.starts_with("\"outbox.saga."));
        names.map(|text| format!("{}:{}: {}", file.path, text.line, text.text)).collect::<Vec<_>>()
    };
    assert!(
        libraries().filter(|file| file.path.starts_with(TELEMETRY)).flat_map(named).count() > 5,
        "telemetry names them"
    );
    none(
        "a name of telemetry elsewhere",
        libraries().filter(|file| !file.path.starts_with(TELEMETRY)).flat_map(named).collect(),
    );
}
