//! What operators have done.

use crate::{
    access::Refusal,
    builder::{App, Shared},
    page::{
        Body, Layout, Notice, Tab, View, ask_all,
        given::Asked,
        shell,
        text::{Markup, Tone, ago, cell, host_now, number, query, state},
    },
    store::Database,
    visit::Visit,
};
use askama::Template;
use axum::{extract::State, response::Response};
use outbox_core::{
    admin::{AuditEntry, AuditOutcome},
    event::Timestamp,
};

/// Acts of one page and database.
const SHOWN: u32 = 50;

struct Row {
    at: Markup,
    by: Markup,
    act: Markup,
    target: Markup,
    done: String,
    left: String,
    outcome: Markup,
    why: Markup,
    /// The plan that it applied, and its page.
    plan: Option<(i64, String)>,
}

struct Part {
    name: String,
    rows: Vec<Row>,
    earlier: Option<String>,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditBody<'a> {
    view: &'a View,
    notices: Vec<Notice>,
    parts: Vec<Part>,
}

/// Shows the page.
pub(crate) async fn page(
    State(app): State<Shared>,
    visit: Visit,
    asked: Asked,
) -> Result<Response, Refusal> {
    let body = body(&app, &View::of(&visit), &asked).await?;
    let layout = Layout::new(&app, &visit, Tab::Audit, body.title.clone())
        .choose_db(&app, asked.get("db"), &[])
        .live("audit", &asked.parts(&["db", "before"]));
    Ok(shell(&layout, &body))
}

/// Draws the body.
pub(crate) async fn body(app: &App, view: &View, asked: &Asked) -> Result<Body, Refusal> {
    let databases = asked.databases(app)?;
    let before = asked.read::<i64>("before", "the number of an act")?;
    let answers =
        ask_all(&databases, |store| async move { store.audit(before, SHOWN).await }).await;
    let now = host_now();
    let part = |(database, acts): &(Database, Vec<AuditEntry>)| {
        let last = acts.last().map(|act| act.id.to_string());
        let earlier = [("db", Some(&*database.name)), ("before", last.as_deref())];
        Part {
            name: database.name.to_string(),
            rows: acts.iter().map(|act| row(&database.name, act, now)).collect(),
            earlier: (acts.len() >= SHOWN as usize).then(|| query(&earlier)),
        }
    };
    let body = AuditBody {
        view,
        parts: answers.list.iter().map(part).collect(),
        notices: answers.notices,
    };
    Ok(Body::draw("Audit", &body))
}

fn row(db: &str, act: &AuditEntry, now: Timestamp) -> Row {
    let tone = match act.outcome {
        AuditOutcome::Running => Tone::Busy,
        AuditOutcome::Done => Tone::Good,
        AuditOutcome::Cancelled => Tone::Idle,
        AuditOutcome::Stopped => Tone::Warn,
    };
    Row {
        at: ago(act.at, now),
        by: cell(&act.by, 40),
        act: cell(&act.act, 40),
        target: cell(&act.target, 120),
        done: number(act.done),
        left: number(act.skipped + act.refused),
        outcome: state(tone, act.outcome.as_str()),
        why: cell(&act.reason, 160),
        plan: act.plan.map(|plan| (plan.0, query(&[("db", Some(db))]))),
    }
}
