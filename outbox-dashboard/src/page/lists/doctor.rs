//! What is wrong around an outbox, and what to do.

use crate::{
    access::Refusal,
    builder::Shared,
    page::{
        Body, Layout, Notice, Tab, ask_all,
        given::Asked,
        shell,
        text::{Markup, Tone, sentence, state, text},
    },
    store::Database,
    visit::Visit,
};
use askama::Template;
use axum::{extract::State, response::Response};
use outbox_core::admin::{Finding, Severity};

struct Row {
    severity: Markup,
    check: &'static str,
    what: Markup,
    to_do: Markup,
    seen_by: Markup,
}

struct Part {
    name: String,
    wrong: Vec<Row>,
    fine: Vec<Row>,
}

#[derive(Template)]
#[template(path = "doctor.html")]
struct DoctorBody {
    notices: Vec<Notice>,
    parts: Vec<Part>,
}

/// Shows the page. It is not live: its checks read settings and statistics, which change slowly.
pub(crate) async fn page(
    State(app): State<Shared>,
    visit: Visit,
    asked: Asked,
) -> Result<Response, Refusal> {
    let databases = asked.databases(&app)?;
    let answers = ask_all(&databases, |store| async move { store.findings().await }).await;
    let part = |(database, findings): (Database, Vec<Finding>)| {
        let (fine, wrong): (Vec<Finding>, Vec<Finding>) =
            findings.into_iter().partition(|finding| finding.severity == Severity::Ok);
        Part {
            name: database.name.to_string(),
            wrong: wrong.iter().map(row).collect(),
            fine: fine.iter().map(row).collect(),
        }
    };
    let body = DoctorBody {
        parts: answers.list.into_iter().map(part).collect(),
        notices: answers.notices,
    };
    let body = Body::draw("Doctor", &body);
    let layout = Layout::new(&app, &visit, Tab::Doctor, body.title.clone());
    Ok(shell(&layout.choose_db(&app, asked.get("db"), &[]), &body))
}

fn row(finding: &Finding) -> Row {
    let tone = match finding.severity {
        Severity::Ok => Tone::Good,
        Severity::Info => Tone::Idle,
        Severity::Warning => Tone::Warn,
        Severity::Critical => Tone::Bad,
    };
    Row {
        severity: state(tone, &finding.severity.to_string()),
        check: finding.check,
        what: sentence(&finding.what),
        to_do: sentence(&finding.to_do),
        seen_by: text(&finding.seen_by),
    }
}
