//! Acts. The name of who is logged in and the document's `why` go to the audit.

use super::body::{Document, respond};
use crate::{
    access::Refusal,
    act::{
        self, Change, change_control, filter, on_letters, operate, permission_of,
        plans::{self, SOON},
        read_field, read_span, saga_id,
    },
    builder::{App, Shared},
    page::given::Asked,
    store::Database,
    visit::Visit,
};
use axum::{
    extract::{Path, State},
    response::Response,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::StatusCode;
use outbox_core::{
    admin::{Act, ActDone, Answer, Applied, AuditOutcome, ControlAction, ControlScope, PlanId},
    event::LetterId,
    saga::Operation,
};
use serde::{Deserialize, Serialize};

/// Most letters of one request by number.
const MOST_LETTERS: usize = 1_000;

/// Answers with the result of the one database.
fn answer(
    database: &Database,
    status: StatusCode,
    result: impl Serialize,
) -> Result<Response, Refusal> {
    respond(status, &Answer { database: &database.name, result })
}

fn database<'a>(app: &'a App, asked: &Asked) -> Result<&'a Database, Refusal> {
    act::database(app, asked.get("db"))
}

/// Plans an act; the conditions have the names of a query's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanRequest {
    act: String,
    #[serde(default)]
    all: bool,
    topic: Option<String>,
    r#type: Option<String>,
    key: Option<String>,
    route: Option<String>,
    consumer: Option<String>,
    handler: Option<String>,
    reason: Option<String>,
    #[serde(rename = "older-than")]
    older_than: Option<String>,
}

impl PlanRequest {
    fn condition(&self, name: &str) -> Option<&str> {
        let value = match name {
            "topic" => &self.topic,
            "type" => &self.r#type,
            "key" => &self.key,
            "route" => &self.route,
            "consumer" => &self.consumer,
            "handler" => &self.handler,
            "reason" => &self.reason,
            "older-than" => &self.older_than,
            _ => return None,
        };
        value.as_deref().filter(|value| !value.is_empty())
    }
}

pub(super) async fn plan(
    State(app): State<Shared>,
    visit: Visit,
    asked: Asked,
    Document(request): Document<PlanRequest>,
) -> Result<Response, Refusal> {
    let database = database(&app, &asked)?;
    let act: Act = read_field("act", &request.act, "`redrive`, `discard` or `purge`")?;
    visit.grant.check(permission_of(act))?;
    let filter = filter::from(|name| request.condition(name))?;
    answer(database, StatusCode::OK, database.store.plan(act, &filter, request.all).await?)
}

/// Applies a plan.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplyRequest {
    why: String,
    /// How long each step of a canary is watched; no canary without it.
    canary: Option<String>,
    #[serde(default)]
    force: bool,
}

pub(super) async fn apply(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    asked: Asked,
    Document(request): Document<ApplyRequest>,
) -> Result<Response, Refusal> {
    let (database, plan) = (database(&app, &asked)?, plans::plan_id(&id)?);
    let note = act::note(&visit.grant, Some(&request.why), request.force)?;
    let watch = request.canary.map(|watch| read_span("canary", &watch)).transpose()?;
    let canary = watch.map(|watch| plans::canary(true, watch)).transpose()?.flatten();
    let state = plans::state(database, plan).await?;
    visit.grant.check(permission_of(state.plan.act))?;
    let standing = app.running.start(database, plan, note, canary)?.begun(SOON).await;
    let outcome = standing.end.transpose()?.unwrap_or(AuditOutcome::Running);
    let goes_on = outcome == AuditOutcome::Running;
    let status = if goes_on { StatusCode::ACCEPTED } else { StatusCode::OK };
    let applied = standing.applied.unwrap_or_default();
    answer(database, status, ActDone { plan: Some(plan), outcome, applied })
}

pub(super) async fn cancel(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Response, Refusal> {
    let (database, plan) = (database(&app, &asked)?, plans::plan_id(&id)?);
    let state = plans::state(database, plan).await?;
    visit.grant.check(permission_of(state.plan.act))?;
    plans::stop(&app, database, plan, &act::note_of_cancel(&visit.grant, None)?).await?;
    let done = done(database, plan).await?;
    let goes_on = done.outcome == AuditOutcome::Running;
    answer(database, if goes_on { StatusCode::ACCEPTED } else { StatusCode::OK }, done)
}

/// Reads what a plan has done.
async fn done(database: &Database, plan: PlanId) -> Result<ActDone, Refusal> {
    let audit = database.store.plan_audit(plan).await?;
    let applied = audit.as_ref().map_or_else(Applied::default, |audit| Applied {
        done: audit.done,
        skipped: audit.skipped,
        refused: audit.refused,
        complete: audit.outcome == AuditOutcome::Done,
        ..Applied::default()
    });
    let outcome = audit.map_or(AuditOutcome::Running, |audit| audit.outcome);
    Ok(ActDone { plan: Some(plan), outcome, applied })
}

/// Acts on letters by number.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActOnLetters {
    letters: Vec<i64>,
    why: String,
    #[serde(default)]
    force: bool,
}

pub(super) async fn redrive(
    State(app): State<Shared>,
    visit: Visit,
    asked: Asked,
    Document(request): Document<ActOnLetters>,
) -> Result<Response, Refusal> {
    on_named(&app, &visit, &asked, request, Act::Redrive).await
}

pub(super) async fn discard(
    State(app): State<Shared>,
    visit: Visit,
    asked: Asked,
    Document(request): Document<ActOnLetters>,
) -> Result<Response, Refusal> {
    on_named(&app, &visit, &asked, request, Act::Discard).await
}

pub(super) async fn purge(
    State(app): State<Shared>,
    visit: Visit,
    asked: Asked,
    Document(request): Document<ActOnLetters>,
) -> Result<Response, Refusal> {
    on_named(&app, &visit, &asked, request, Act::Purge).await
}

async fn on_named(
    app: &App,
    visit: &Visit,
    asked: &Asked,
    request: ActOnLetters,
    act: Act,
) -> Result<Response, Refusal> {
    let database = database(app, asked)?;
    let note = act::note(&visit.grant, Some(&request.why), request.force)?;
    if !(1..=MOST_LETTERS).contains(&request.letters.len()) {
        return Err(Refusal::bad(format!(
            "`letters` has 1 to {MOST_LETTERS} numbers; plan an act on more"
        )));
    }
    let mut letters: Vec<LetterId> = request.letters.into_iter().map(LetterId).collect();
    letters.sort_unstable();
    letters.dedup();
    let named = letters.len();
    let resolved = on_letters(database, act, letters, note).await?;
    answer(database, StatusCode::OK, ActDone::on_letters(named, resolved.len()))
}

/// Sends a letter again; one of both contents.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResendRequest {
    why: String,
    payload: Option<String>,
    payload_base64: Option<String>,
}

pub(super) async fn resend(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    asked: Asked,
    Document(request): Document<ResendRequest>,
) -> Result<Response, Refusal> {
    let (database, id) = (database(&app, &asked)?, plans::letter_id(&id)?);
    let note = act::note(&visit.grant, Some(&request.why), false)?;
    let payload = match (request.payload, request.payload_base64) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(text)) => BASE64_STANDARD
            .decode(text)
            .map_err(|error| Refusal::bad(format!("`payload_base64` is no base64: {error}")))?,
        _ => return Err(Refusal::bad("one of `payload` and `payload_base64` is the content")),
    };
    match database.store.resend(id, payload.into(), &note).await? {
        Some(sent) => answer(database, StatusCode::OK, sent),
        None => Err(Refusal::conflict(act::why_not(&act::find_letter(database, id).await?))),
    }
}

/// Shows the content of a letter that is hidden.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContentRequest {
    why: String,
}

pub(super) async fn content(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    asked: Asked,
    Document(request): Document<ContentRequest>,
) -> Result<Response, Refusal> {
    let (database, id) = (database(&app, &asked)?, plans::letter_id(&id)?);
    let note = act::note(&visit.grant, Some(&request.why), false)?;
    answer(database, StatusCode::OK, act::show_content(&app, database, id, &note).await?)
}

/// Tries the handler of a letter in a transaction that is rolled back.
pub(super) async fn try_letter(
    State(app): State<Shared>,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Response, Refusal> {
    let (database, id) = (database(&app, &asked)?, plans::letter_id(&id)?);
    let letter = act::find_letter(database, id).await?;
    answer(database, StatusCode::OK, act::try_handler(&app, database, &letter).await?)
}

/// Pauses something.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PauseRequest {
    scope: String,
    name: String,
    why: String,
    lasts: Option<String>,
}

pub(super) async fn pause(
    State(app): State<Shared>,
    visit: Visit,
    asked: Asked,
    Document(request): Document<PauseRequest>,
) -> Result<Response, Refusal> {
    let what = Controlled {
        scope: scope(&request.scope)?,
        name: &request.name,
        why: &request.why,
        lasts: request.lasts.as_deref(),
    };
    set(&app, &visit, &asked, what, ControlAction::Pause).await
}

/// Limits a route.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateRequest {
    route: String,
    per_second: f64,
    why: String,
    lasts: Option<String>,
}

pub(super) async fn rate(
    State(app): State<Shared>,
    visit: Visit,
    asked: Asked,
    Document(request): Document<RateRequest>,
) -> Result<Response, Refusal> {
    let what = Controlled {
        scope: ControlScope::Route,
        name: &request.route,
        why: &request.why,
        lasts: request.lasts.as_deref(),
    };
    set(&app, &visit, &asked, what, ControlAction::Rate(request.per_second)).await
}

/// What is paused or limited.
struct Controlled<'a> {
    scope: ControlScope,
    name: &'a str,
    why: &'a str,
    lasts: Option<&'a str>,
}

async fn set(
    app: &App,
    visit: &Visit,
    asked: &Asked,
    what: Controlled<'_>,
    action: ControlAction,
) -> Result<Response, Refusal> {
    let database = database(app, asked)?;
    let note = act::note(&visit.grant, Some(what.why), false)?;
    let lasts = what.lasts.map(|lasts| read_span("lasts", lasts)).transpose()?;
    change_control(database, what.scope, what.name, Change::Set(action), lasts, &note).await?;
    answer(database, StatusCode::OK, database.store.controls().await?.0)
}

/// Ends pause and rate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResumeRequest {
    scope: String,
    name: String,
    why: String,
}

pub(super) async fn resume(
    State(app): State<Shared>,
    visit: Visit,
    asked: Asked,
    Document(request): Document<ResumeRequest>,
) -> Result<Response, Refusal> {
    let (database, scope) = (database(&app, &asked)?, scope(&request.scope)?);
    let note = act::note(&visit.grant, Some(&request.why), false)?;
    let ended = change_control(database, scope, &request.name, Change::Resume, None, &note).await?;
    answer(database, StatusCode::OK, ended)
}

fn scope(text: &str) -> Result<ControlScope, Refusal> {
    read_field("scope", text, "`route`, `topic`, `key`, `consumer` or `saga`")
}

/// Moves a saga.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SagaRequest {
    why: String,
}

/// Moves a saga at a step.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepRequest {
    why: String,
    step: String,
}

pub(super) async fn saga_resume(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    asked: Asked,
    Document(request): Document<SagaRequest>,
) -> Result<Response, Refusal> {
    on_saga(&app, &visit, (&id, &asked), Operation::Resume, &request.why).await
}

pub(super) async fn saga_cancel(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    asked: Asked,
    Document(request): Document<SagaRequest>,
) -> Result<Response, Refusal> {
    on_saga(&app, &visit, (&id, &asked), Operation::Cancel, &request.why).await
}

pub(super) async fn saga_retry_from(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    asked: Asked,
    Document(request): Document<StepRequest>,
) -> Result<Response, Refusal> {
    on_saga(&app, &visit, (&id, &asked), Operation::RetryFrom(request.step), &request.why).await
}

pub(super) async fn saga_skip(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    asked: Asked,
    Document(request): Document<StepRequest>,
) -> Result<Response, Refusal> {
    on_saga(&app, &visit, (&id, &asked), Operation::Skip(request.step), &request.why).await
}

async fn on_saga(
    app: &App,
    visit: &Visit,
    (id, asked): (&str, &Asked),
    operation: Operation,
    why: &str,
) -> Result<Response, Refusal> {
    let (database, saga) = (database(app, asked)?, saga_id(id)?);
    let note = act::note(&visit.grant, Some(why), false)?;
    operate(database, saga, &operation, &note).await?;
    answer(database, StatusCode::OK, saga)
}
