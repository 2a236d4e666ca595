//! What the documents are, as JSON Schema. A test compares them with documents that were answered.

use outbox_core::{
    admin::{AuditOutcome, ControlScope, Severity},
    failure::DeadReason,
    saga::SagaState,
};
use serde_json::{Map, Value, json};

/// A JSON Schema, of the dialect of OpenAPI 3.1.
pub(super) type Schema = Value;

pub(super) fn text() -> Schema {
    json!({ "type": "string" })
}

pub(super) fn integer() -> Schema {
    json!({ "type": "integer" })
}

fn number() -> Schema {
    json!({ "type": "number" })
}

fn boolean() -> Schema {
    json!({ "type": "boolean" })
}

fn instant() -> Schema {
    json!({ "type": "string", "format": "date-time" })
}

/// An object whose names are not told here: what running parts write about themselves, and what
/// users store.
fn open() -> Schema {
    json!({ "type": "object" })
}

fn any() -> Schema {
    json!(true)
}

fn one_of(words: &[&str]) -> Schema {
    json!({ "type": "string", "enum": words })
}

fn or_null(schema: Schema) -> Schema {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

pub(super) fn array(of: Schema) -> Schema {
    json!({ "type": "array", "items": of })
}

pub(super) fn named(name: &str) -> Schema {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An object with these names and no others. A name that begins with `?` may be missing.
pub(super) fn object(fields: &[(&str, Schema)]) -> Schema {
    let is_required = |(name, _): &&(&str, Schema)| !name.starts_with('?');
    let required: Vec<&str> = fields.iter().filter(is_required).map(|(name, _)| *name).collect();
    let property =
        |(name, schema): &(&str, Schema)| (name.trim_start_matches('?').to_owned(), schema.clone());
    let properties: Map<String, Value> = fields.iter().map(property).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The answer of one database.
pub(super) fn answer(result: Schema) -> Schema {
    object(&[("database", text()), ("result", result)])
}

/// The answers of databases.
pub(super) fn answers(result: Schema) -> Schema {
    array(answer(result))
}

/// Entries of histories, each with its database.
pub(super) fn entries_of_databases() -> Schema {
    array(named("DatabaseEntry"))
}

/// The schemas that have a name.
pub(super) fn components() -> Map<String, Value> {
    let all = questions().into_iter().chain(listed()).chain(acts()).chain(requests());
    all.map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn questions() -> Vec<(&'static str, Schema)> {
    let bounded = || object(&[("count", integer()), ("or_more", boolean())]);
    let age = object(&[("secs", integer()), ("nanos", integer())]);
    let events = object(&[
        ("pending", integer()),
        ("oldest_pending", or_null(age)),
        ("retrying", integer()),
        ("dead", integer()),
    ]);
    let sagas =
        object(&[("running", integer()), ("compensating", integer()), ("stuck", integer())]);
    let subject = || object(&[("kind", one_of(&["message", "key", "saga"])), ("id", text())]);
    let overview = object(&[
        ("now", instant()),
        ("source", text()),
        ("events", events),
        ("deferred", bounded()),
        ("scheduled", bounded()),
        ("sagas", sagas),
        ("relays", array(open())),
        ("unowned", integer()),
        ("consumers", array(open())),
        ("coordinators", array(open())),
        ("controls", array(named("Control"))),
    ]);
    let found = object(&[
        ("subject", subject()),
        ("what", text()),
        ("name", text()),
        ("at", or_null(instant())),
    ]);
    let entry = object(&[
        ("database", text()),
        ("at", or_null(instant())),
        ("service", text()),
        ("message", or_null(text())),
        ("kind", text()),
        ("text", text()),
    ]);
    let explained = object(&[
        ("subject", subject()),
        ("sentence", text()),
        ("facts", array(array(text()))),
        ("commands", array(text())),
        ("?database", text()),
    ]);
    let group = object(&[
        ("route", text()),
        ("reason", reason()),
        ("error", text()),
        ("count", bounded()),
        ("first_at", instant()),
        ("last_at", instant()),
    ]);
    vec![
        ("Overview", overview),
        ("Found", found),
        ("DatabaseEntry", entry),
        ("ExplainedSubject", explained),
        ("LetterGroup", group),
    ]
}

fn reason() -> Schema {
    use DeadReason::{
        Crashed, Exhausted, Expired, NotRetried, Rejected, Undecodable, UnknownType, Unroutable,
    };
    let all =
        [Rejected, Exhausted, Expired, Unroutable, Crashed, Undecodable, NotRetried, UnknownType];
    one_of(&all.map(DeadReason::as_str))
}

fn listed() -> Vec<(&'static str, Schema)> {
    let error =
        object(&[("attempt", integer()), ("class", text()), ("text", text()), ("at", integer())]);
    let resolution =
        object(&[("action", text()), ("at", instant()), ("by", text()), ("reason", text())]);
    let consumer = object(&[("consumer", text()), ("handler", text())]);
    let letter = object(&[
        ("id", integer()),
        ("event_id", integer()),
        ("message", or_null(open())),
        ("route", text()),
        ("consumer_origin", or_null(consumer)),
        ("reason", reason()),
        ("attempts", integer()),
        ("errors", array(error)),
        ("parks", boolean()),
        ("dead_at", instant()),
        ("resolution", or_null(resolution)),
        ("previous", or_null(integer())),
    ]);
    let deferred = object(&[
        ("id", integer()),
        ("consumer", text()),
        ("handler", text()),
        ("message", text()),
        ("topic", text()),
        ("event_type", text()),
        ("key", or_null(text())),
        ("due_at", or_null(instant())),
        ("failures", integer()),
        ("last_error", or_null(text())),
        ("awaits", or_null(text())),
    ]);
    let scheduled = object(&[
        ("id", integer()),
        ("message", text()),
        ("topic", text()),
        ("event_type", text()),
        ("key", or_null(text())),
        ("deliver_at", instant()),
    ]);
    let inbox = object(&[
        ("consumer", text()),
        ("handler", text()),
        ("source", text()),
        ("message", text()),
        ("keep_until", instant()),
    ]);
    let saga = object(&[
        ("id", text()),
        ("definition", array(any())),
        ("correlation", text()),
        ("instance", named("SagaInstance")),
        ("started_at", instant()),
        ("changed_at", instant()),
    ]);
    let instance = object(&[
        ("state", one_of(&SagaState::ALL.map(SagaState::as_str))),
        ("backward", boolean()),
        ("steps", array(open())),
        ("forward_only", boolean()),
        ("?reason", text()),
        ("?stuck_at", text()),
        ("?locks", array(text())),
    ]);
    let record = object(&[("seq", integer()), ("record", open()), ("at", instant())]);
    let severities = [Severity::Ok, Severity::Info, Severity::Warning, Severity::Critical]
        .map(|s| s.to_string());
    let severities: Vec<&str> = severities.iter().map(String::as_str).collect();
    let finding = object(&[
        ("check", text()),
        ("severity", one_of(&severities)),
        ("what", text()),
        ("to_do", text()),
        ("seen_by", text()),
    ]);
    vec![
        ("DeadLetter", letter),
        ("Deferred", deferred),
        ("Scheduled", scheduled),
        ("Inbox", inbox),
        ("Saga", saga),
        ("SagaInstance", instance),
        ("SagaHistory", object(&[("saga", named("Saga")), ("log", array(record))])),
        ("Finding", finding),
    ]
}

fn outcome() -> Schema {
    use AuditOutcome::{Cancelled, Done, Running, Stopped};
    one_of(&[Running, Done, Cancelled, Stopped].map(AuditOutcome::as_str))
}

fn act() -> Schema {
    one_of(&["redrive", "discard", "purge"])
}

fn scope() -> Schema {
    use ControlScope::{Consumer, Key, Route, Saga, Topic};
    one_of(&[Route, Topic, Key, Consumer, Saga].map(ControlScope::as_str))
}

fn acts() -> Vec<(&'static str, Schema)> {
    let plan = vec![
        ("id", integer()),
        ("act", act()),
        ("selection", text()),
        ("count", object(&[("count", integer()), ("or_more", boolean())])),
        ("first", array(integer())),
        ("notes", array(text())),
        ("expires_at", instant()),
    ];
    let mut state = plan.clone();
    state.extend([("expired", boolean()), ("audit", or_null(named("AuditEntry")))]);
    let counts = [("done", integer()), ("skipped", integer()), ("refused", integer())];
    let mut done = vec![("plan", or_null(integer())), ("outcome", outcome())];
    done.extend(counts.clone());
    done.extend([("after", or_null(integer())), ("complete", boolean())]);
    let mut audit = vec![
        ("id", integer()),
        ("at", instant()),
        ("by", text()),
        ("reason", text()),
        ("act", text()),
        ("target", text()),
    ];
    audit.extend(counts);
    audit.extend([("outcome", outcome()), ("plan", or_null(integer()))]);
    let action = json!({ "anyOf": [one_of(&["pause"]), object(&[("rate", number())])] });
    let control = object(&[
        ("scope", scope()),
        ("name", text()),
        ("action", action),
        ("by", text()),
        ("reason", text()),
        ("set_at", instant()),
        ("until", or_null(instant())),
        ("ends_in", or_null(number())),
    ]);
    let problem = object(&[
        ("type", text()),
        ("title", text()),
        ("status", integer()),
        ("?detail", text()),
        ("?to_do", text()),
    ]);
    let trial = object(&[
        ("consumer", text()),
        ("handler", text()),
        ("result", text()),
        ("text", text()),
        ("tables", array(object(&[("table", or_null(text())), ("rows", or_null(integer()))]))),
        (
            "events",
            array(object(&[("topic", text()), ("event_type", text()), ("key", or_null(text()))])),
        ),
        ("emitted", integer()),
        ("refused", array(text())),
        ("took_ms", integer()),
        ("notes", array(text())),
    ]);
    vec![
        ("Trial", trial),
        ("Plan", object(&plan)),
        ("PlanState", object(&state)),
        ("ActDone", object(&done)),
        ("AuditEntry", object(&audit)),
        ("Control", control),
        ("Problem", problem),
    ]
}

fn requests() -> Vec<(&'static str, Schema)> {
    let plan = object(&[
        ("act", act()),
        ("?all", boolean()),
        ("?topic", or_null(text())),
        ("?type", or_null(text())),
        ("?key", or_null(text())),
        ("?route", or_null(text())),
        ("?consumer", or_null(text())),
        ("?handler", or_null(text())),
        ("?reason", or_null(reason())),
        ("?older-than", or_null(text())),
    ]);
    let apply = object(&[("why", text()), ("?canary", or_null(text())), ("?force", boolean())]);
    let letters = object(&[
        (
            "letters",
            json!({ "type": "array", "items": integer(), "minItems": 1, "maxItems": 1_000 }),
        ),
        ("why", text()),
        ("?force", boolean()),
    ]);
    let resend = object(&[
        ("why", text()),
        ("?payload", or_null(text())),
        ("?payload_base64", or_null(text())),
    ]);
    let (lasts, why) = (("?lasts", or_null(text())), ("why", text()));
    let pause = object(&[("scope", scope()), ("name", text()), why.clone(), lasts.clone()]);
    let rate = object(&[("route", text()), ("per_second", number()), why.clone(), lasts]);
    let resume = object(&[("scope", scope()), ("name", text()), why]);
    vec![
        ("PlanRequest", plan),
        ("ApplyRequest", apply),
        ("ActOnLetters", letters),
        ("ResendRequest", resend),
        ("PauseRequest", pause),
        ("RateRequest", rate),
        ("ResumeRequest", resume),
    ]
}
