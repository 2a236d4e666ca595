//! Plans: made from a form, shown, applied with their progress, and cancelled.

use super::{
    fields::{Fields, database, note_of_cancel, read},
    filter, permission_of, see,
};
use crate::{
    access::Refusal,
    builder::{App, Shared},
    page::{
        layout::{Body, Layout, Tab, View, shell},
        text::{Markup, ago, bounded, host_now, number, query, text},
    },
    store::Database,
    visit::Visit,
};
use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use outbox_core::{
    admin::{Act, Applied, AuditEntry, AuditOutcome, Canary, OperatorNote, PlanId, PlanState},
    event::LetterId,
};
use std::time::Duration;

/// How long a request waits for the first chunk, or for the end of one that was cancelled, before
/// the page shows how far it is.
pub(crate) const SOON: Duration = Duration::from_secs(2);
/// How long a canary watches each of its steps, unless the form says otherwise; as the command line.
const WATCH: Duration = Duration::from_secs(10);
/// Longest watch: a page that nobody closes should end.
const LONGEST_WATCH: Duration = Duration::from_hours(1);

/// Plans an act on the letters of a filter.
pub(crate) async fn plan(
    State(app): State<Shared>,
    visit: Visit,
    fields: Fields,
) -> Result<Response, Refusal> {
    let database = fields.database(&app)?;
    let act = fields.read("act", "`redrive`, `discard` or `purge`")?;
    let act: Act = act.ok_or_else(|| Refusal::bad("the field `act` is missing"))?;
    visit.grant.check(permission_of(act))?;
    let filter = filter::from_fields(&fields)?;
    let plan = database.store.plan(act, &filter, fields.is_set("all")).await?;
    Ok(see(&visit, &path(database, plan.id)))
}

/// Shows a plan, and its progress once it is applied.
pub(crate) async fn page(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Refusal> {
    let (database, plan) = (fields.database(&app)?, plan_id(&id)?);
    let view = View::of(&visit);
    let shown = draw(&app, database, plan, &view).await?;
    let layout = Layout::new(&app, &visit, Tab::Letters, shown.body.title.clone());
    let layout = match shown.goes_on {
        true => layout.live("plan", &[("db", Some(&*database.name)), ("id", Some(&id))]),
        false => layout,
    };
    Ok(shell(&layout, &shown.body))
}

/// Applies a plan, and shows how far it is.
pub(crate) async fn apply(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Refusal> {
    let (database, plan) = (fields.database(&app)?, plan_id(&id)?);
    let note = fields.note(&visit.grant)?;
    let watch = fields.read("watch", "a number of seconds")?.map_or(WATCH, Duration::from_secs);
    let canary = canary(fields.is_set("canary"), watch)?;
    let state = state(database, plan).await?;
    visit.grant.check(permission_of(state.plan.act))?;
    let application = app.running.start(database, plan, note, canary)?;
    if let Some(Err(refusal)) = application.begun(SOON).await.end {
        return Err(refusal.link(path(database, plan), "The plan as it stands"));
    }
    Ok(see(&visit, &path(database, plan)))
}

/// Cancels the application of a plan after its present chunk, in whichever process it runs.
pub(crate) async fn cancel(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Refusal> {
    let (database, plan) = (fields.database(&app)?, plan_id(&id)?);
    let state = state(database, plan).await?;
    visit.grant.check(permission_of(state.plan.act))?;
    let note = note_of_cancel(&visit.grant, fields.get("why"))?;
    stop(&app, database, plan, &note)
        .await
        .map_err(|refusal| refusal.link(path(database, plan), "The plan as it stands"))?;
    Ok(see(&visit, &path(database, plan)))
}

/// Makes the canary of an application.
pub(crate) fn canary(wanted: bool, watch: Duration) -> Result<Option<Canary>, Refusal> {
    if watch > LONGEST_WATCH {
        return Err(Refusal::bad(format!(
            "a canary watches each step for {} s at most",
            LONGEST_WATCH.as_secs()
        )));
    }
    Ok(wanted.then_some(Canary { watch }))
}

/// Reads a plan that must exist.
pub(crate) async fn state(database: &Database, plan: PlanId) -> Result<PlanState, Refusal> {
    database.store.plan_state(plan).await?.ok_or_else(|| {
        Refusal::not_found(format!("There is no plan {plan}"))
            .because("it does not exist, or has expired and was deleted")
            .advising("Plan again: that counts the letters as they are now.")
            .link(format!("letters{}", query(&[("db", Some(&database.name))])), "Dead letters")
    })
}

/// Ends a plan that is applied: here after its present chunk, elsewhere before the next one. The
/// audit says who has.
pub(crate) async fn stop(
    app: &App,
    database: &Database,
    plan: PlanId,
    note: &OperatorNote,
) -> Result<(), Refusal> {
    let here = app.running.get(database, plan).filter(|here| here.is_running());
    if let Some(here) = &here {
        // A cancellation ends the row of the audit that comes with the first chunk.
        here.begun(SOON).await;
    }
    // Before it ends here: of a plan that has ended the audit does not say who has cancelled it.
    let written = database.store.cancel_plan(plan, note).await;
    if let Some(here) = &here {
        // Also where the database refuses that row: the letters that are left stay as they are.
        here.cancel();
        here.ended(SOON).await;
    }
    if written? {
        return Ok(());
    }
    match database.store.plan_audit(plan).await? {
        Some(audit) => {
            Err(Refusal::conflict(format!("plan {plan} has ended as {}", audit.outcome.as_str())))
        }
        // It ends before its first chunk.
        None if here.is_some() => Ok(()),
        None => {
            Err(Refusal::conflict(format!("plan {plan} has not begun: there is nothing to cancel")))
        }
    }
}

/// Reads the number of a plan.
pub(crate) fn plan_id(text: &str) -> Result<PlanId, Refusal> {
    text.parse().map(PlanId).map_err(|_| Refusal::not_found("A plan has a number"))
}

/// Gives the path of a plan's page.
fn path(database: &Database, plan: PlanId) -> String {
    format!("plans/{plan}{}", query(&[("db", Some(&database.name))]))
}

/// Draws the body of a plan for its live updates.
pub(crate) async fn live_body(app: &App, view: &View, db: &str, id: &str) -> Result<Body, Refusal> {
    Ok(draw(app, database(app, Some(db))?, plan_id(id)?, view).await?.body)
}

/// A plan as it is shown.
struct Shown {
    body: Body,
    /// Whether it changes by itself.
    goes_on: bool,
}

/// Where a plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing of it was done.
    Planned,
    /// It has expired before its first chunk.
    Void,
    /// This process applies it.
    Here,
    /// Another process applies it, or its process has ended.
    Elsewhere,
    /// It has ended.
    Ended(AuditOutcome),
}

/// The body of the page.
#[derive(Template)]
#[template(path = "act/plan.html")]
struct PlanBody<'a> {
    view: &'a View,
    db: &'a str,
    id: PlanId,
    act: Act,
    selection: Markup,
    stage: Stage,
    /// Letters that are open and that no chunk has looked at.
    left: String,
    is_empty: bool,
    first: Vec<LetterId>,
    notes: Vec<Markup>,
    expires: Markup,
    began: Option<Began>,
    done: String,
    skipped: u64,
    refused: u64,
    seen: u64,
    all: u64,
    /// Why this process could not go on.
    failure: Option<Markup>,
    /// The list of the letters with the same conditions.
    letters: String,
    again: Vec<(&'static str, String)>,
    /// Whether a form can plan the same again.
    can_repeat: bool,
    has_conditions: bool,
    watch: u64,
    may: bool,
}

/// Who began it, and why.
struct Began {
    by: Markup,
    why: Markup,
    at: Markup,
}

impl PlanBody<'_> {
    fn is(&self, stage: Stage) -> bool {
        self.stage == stage
    }

    fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended(_))
    }

    fn verb(&self) -> &'static str {
        match self.act {
            Act::Redrive => "Redrive",
            Act::Discard => "Discard",
            Act::Purge => "Purge",
            _ => "Change",
        }
    }

    fn past(&self) -> &'static str {
        match self.act {
            Act::Redrive => "redriven",
            Act::Discard => "discarded",
            Act::Purge => "purged",
            _ => "changed",
        }
    }

    fn is_redrive(&self) -> bool {
        self.act == Act::Redrive
    }
}

async fn draw(app: &App, database: &Database, plan: PlanId, view: &View) -> Result<Shown, Refusal> {
    let state = state(database, plan).await?;
    let application = app.running.get(database, plan);
    let standing = application.as_ref().map(|here| here.standing()).unwrap_or_default();
    let stage = match &state.audit {
        _ if application.as_ref().is_some_and(|here| here.is_running()) => Stage::Here,
        None if state.expired => Stage::Void,
        None => Stage::Planned,
        Some(AuditEntry { outcome: AuditOutcome::Running, .. }) => Stage::Elsewhere,
        Some(audit) => Stage::Ended(audit.outcome),
    };
    let failure = match standing.end {
        Some(Err(refusal)) if stage == Stage::Elsewhere => Some(text(&refusal.told())),
        _ => None,
    };
    let now = host_now();
    let counts = state.audit.as_ref().map_or_else(Applied::default, |audit| Applied {
        done: audit.done,
        skipped: audit.skipped,
        refused: audit.refused,
        ..Applied::default()
    });
    let Applied { done, skipped, refused, .. } = standing.applied.unwrap_or(counts);
    let (plan, seen) = (&state.plan, done + skipped + refused);
    let conditions = filter::conditions(&state.filter);
    let mut parts: Vec<(&str, Option<&str>)> = vec![("db", Some(&*database.name))];
    parts.extend(conditions.iter().map(|(name, value)| (*name, Some(value.as_str()))));
    let body = PlanBody {
        view,
        db: &database.name,
        id: plan.id,
        act: plan.act,
        selection: text(&plan.selection),
        stage,
        left: bounded(plan.count),
        is_empty: plan.count.count == 0,
        first: plan.first.clone(),
        notes: plan.notes.iter().map(|note| text(note)).collect(),
        expires: ago(plan.expires_at, now),
        began: state.audit.as_ref().map(|audit| Began {
            by: text(&audit.by),
            why: text(&audit.reason),
            at: ago(audit.at, now),
        }),
        done: number(done),
        skipped,
        refused,
        seen,
        all: seen + plan.count.count,
        failure,
        letters: format!("letters{}", query(&parts)),
        can_repeat: filter::is_whole(&state.filter),
        has_conditions: !conditions.is_empty(),
        again: conditions,
        watch: WATCH.as_secs(),
        may: view.allows(permission_of(plan.act)),
    };
    let title = format!("{} dead letters: plan {}", body.verb(), plan.id);
    let goes_on = matches!(stage, Stage::Here | Stage::Elsewhere);
    Ok(Shown { body: Body::draw(title, &body), goes_on })
}

/// Reads the number of a letter.
pub(crate) fn letter_id(text: &str) -> Result<LetterId, Refusal> {
    match read::<i64>("letter", text, "a number") {
        Ok(number) if number > 0 => Ok(LetterId(number)),
        Ok(_) | Err(_) => Err(Refusal::not_found("A dead letter has a number")),
    }
}
