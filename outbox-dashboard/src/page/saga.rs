//! One saga: why it stands still, its definition with the instance on it, its timeline, and what can
//! be done.

use super::{
    Body, Layout, Notice, Tab, View, ask_all,
    follow::acts::{Step, steps_of},
    given::Asked,
    participants, shell,
    text::{Markup, Tone, cell, clock, number, query, sentence, state, text},
};
use crate::{
    access::Refusal,
    act::forms,
    builder::{App, Shared},
    draw::saga::{draw, saga_state},
    store::{DashboardStore, Database},
    visit::Visit,
};
use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use outbox_core::{
    admin::{Explanation, Facts, Subject, explain, saga_by_id},
    event::{SagaId, Timestamp},
    outbox::StoreError,
    saga::{LogEntry, Record, SagaView},
};

/// Records that the page shows, the last ones: some 40 KiB.
const SHOWN: usize = 150;
/// Longest details of a record, in characters.
const LONGEST_DETAILS: usize = 200;

struct RecordRow {
    seq: u64,
    at: Markup,
    kind: Markup,
    step: Markup,
    details: Markup,
}

#[derive(Template)]
#[template(path = "saga.html")]
struct SagaBody<'a> {
    view: &'a View,
    notices: Vec<Notice>,
    definition: Markup,
    db: Markup,
    state: Markup,
    sentence: Option<Markup>,
    is_urgent: bool,
    /// What moves it in another database, where its command or the reply waits.
    steps: Vec<Step>,
    graph: Markup,
    has_shape: bool,
    facts: Vec<(&'static str, Markup)>,
    records: Vec<RecordRow>,
    left_out: String,
    follow: String,
    acts: Markup,
}

/// Shows the page.
pub(crate) async fn page(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Response, Refusal> {
    let body = body(&app, &View::of(&visit), &id, &asked).await?;
    let layout = Layout::new(&app, &visit, Tab::Sagas, body.title.clone())
        .live("saga", &[("id", Some(&*id)), ("db", asked.get("db"))]);
    Ok(shell(&layout, &body))
}

/// What a database knows of a saga.
#[derive(Debug)]
struct Known {
    saga: SagaView,
    log: Vec<LogEntry>,
    facts: Option<Facts>,
    now: Timestamp,
}

async fn known(
    app: &App,
    store: &dyn DashboardStore,
    id: SagaId,
) -> Result<Option<Known>, StoreError> {
    let Some(saga) = saga_by_id(store, id).await? else { return Ok(None) };
    let log = store.saga_log(id).await?;
    let facts = store.facts(&Subject::Saga(id)).await?.map(|facts| app.sensitive.facts(facts));
    let now = facts.as_ref().map_or_else(super::text::host_now, |facts| facts.now);
    Ok(Some(Known { saga, log, facts, now }))
}

/// Explains a saga of a database, with what the other databases have of the commands whose replies it
/// awaits; tells which of them did not answer.
async fn explained(app: &App, own: &Database, facts: &mut Facts) -> (Explanation, Vec<Notice>) {
    let others = app.databases.iter().filter(|database| database.name != own.name);
    let others: Vec<Database> = others.cloned().collect();
    let commands = participants::awaited([&*facts]);
    let known = participants::ask(app, &others, &commands).await;
    participants::add(own, facts, &known);
    (explain(facts), known.notices)
}

/// Draws the body.
pub(crate) async fn body(app: &App, view: &View, id: &str, asked: &Asked) -> Result<Body, Refusal> {
    let none = |why: &str| {
        Refusal::not_found("There is no such saga").because(why).link("sagas", "All sagas")
    };
    let id: SagaId = id.parse().map_err(|_| none("the id of a saga is a UUID"))?;
    let databases = asked.databases(app)?;
    let answers = ask_all(&databases, |store| async move { known(app, &*store, id).await }).await;
    let missing = answers.refusal();
    let found = answers.list.into_iter().find_map(|(db, known)| Some((db, known?)));
    let Some((database, mut known)) = found else {
        let gone = "it was never started here, or it has ended and its retention is over";
        return Err(missing.unwrap_or_else(|| none(gone)));
    };
    let (mut explanation, mut notices) = (None, answers.notices);
    if let Some(facts) = &mut known.facts {
        let (told, missing) = explained(app, &database, facts).await;
        notices.extend(missing);
        explanation = Some(told);
    }
    let Known { saga, log, now, .. } = &known;
    let (name, version) = &saga.definition;
    let shape = app.shapes.iter().find(|shape| shape.name == *name && shape.version == *version);
    let (tone, word) = saga_state(saga.instance.state);
    let left_out = log.len().saturating_sub(SHOWN);
    let body = SagaBody {
        view,
        notices,
        definition: cell(&format!("{name} v{version}"), 80),
        db: cell(&database.name, 60),
        state: state(tone, word),
        sentence: explanation.as_ref().map(|explanation| sentence(&explanation.sentence)),
        is_urgent: explanation.as_ref().is_some_and(|e| !e.commands.is_empty()),
        steps: explanation.as_ref().map(steps_elsewhere).unwrap_or_default(),
        graph: draw(shape, &saga.instance),
        has_shape: shape.is_some(),
        facts: facts(saga, *now),
        records: log[left_out..].iter().map(|entry| record_row(entry, *now)).collect(),
        left_out: if left_out > 0 { number(left_out as u64) } else { String::new() },
        follow: query(&[("q", Some(&saga.id.to_string()))]),
        acts: forms::saga(view, &database.name, saga),
    };
    Ok(Body::draw(format!("Saga {name}"), &body))
}

/// Gives what moves a saga in another database; what moves it in its own, its own forms do.
fn steps_elsewhere(explanation: &Explanation) -> Vec<Step> {
    let database = explanation.database.as_deref();
    database.map(|database| steps_of(&explanation.commands, database)).unwrap_or_default()
}

fn facts(saga: &SagaView, now: Timestamp) -> Vec<(&'static str, Markup)> {
    let mut all = vec![
        ("id", text(&saga.id.to_string())),
        ("correlation id", cell(&saga.correlation, 255)),
        ("started", super::text::ago(saga.started_at, now)),
        ("last record", super::text::ago(saga.changed_at, now)),
    ];
    if let Some(reason) = &saga.instance.reason {
        all.push(("why", text(reason)));
    }
    if !saga.instance.locks.is_empty() {
        all.push(("locks", cell(&saga.instance.locks.join(", "), 300)));
    }
    all
}

fn record_row(entry: &LogEntry, now: Timestamp) -> RecordRow {
    let tone = match &entry.record {
        Record::Done { .. } | Record::Completed => Tone::Good,
        Record::Stuck { .. } | Record::Rejected { .. } => Tone::Bad,
        Record::Failed { .. }
        | Record::TimedOut { .. }
        | Record::BlockedOnLock { .. }
        | Record::CompensationStarted { .. }
        | Record::LateReply { .. } => Tone::Warn,
        Record::Started { .. }
        | Record::CommandSent { .. }
        | Record::AttemptStarted { .. }
        | Record::Resumed { .. }
        | Record::RetriedFrom { .. } => Tone::Busy,
        Record::SkippedByCondition { .. }
        | Record::SkippedByOperator { .. }
        | Record::Locked { .. }
        | Record::Undone { .. }
        | Record::Compensated => Tone::Idle,
    };
    RecordRow {
        seq: entry.seq,
        at: clock(entry.at, now),
        kind: state(tone, &entry.record.kind().replace('_', " ")),
        step: entry.record.step().map(|step| cell(step, 60)).unwrap_or_default(),
        details: cell(&entry.details(), LONGEST_DETAILS),
    }
}
