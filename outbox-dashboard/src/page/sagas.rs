//! The list of sagas.

use super::{
    Body, Layout, Notice, Tab, View, ask_all, cut_to_page,
    given::Asked,
    shell,
    text::{CELL, Markup, ago, cell, host_now, query, state},
};
use crate::{
    access::Refusal,
    builder::{App, Shared},
    draw::saga::saga_state,
    store::{DashboardStore, Database},
    visit::Visit,
};
use askama::Template;
use axum::{extract::State, response::Response};
use outbox_core::{
    event::SagaId,
    outbox::StoreError,
    saga::{SagaFilter, SagaState, SagaView},
};

/// Sagas of one page and database.
const SHOWN: u32 = 50;

/// A saga of the list.
struct Row {
    id: String,
    definition: Markup,
    correlation: Markup,
    state: Markup,
    step: Markup,
    started: Markup,
    changed: Markup,
    why: Markup,
}

/// The sagas of one database.
struct Part {
    name: String,
    db: String,
    rows: Vec<Row>,
    /// The rows after these.
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "sagas.html")]
struct SagasBody<'a> {
    view: &'a View,
    notices: Vec<Notice>,
    parts: Vec<Part>,
    states: Vec<(&'static str, bool)>,
    name: &'a str,
    correlation: &'a str,
    db: Option<&'a str>,
    is_narrowed: bool,
}

/// Shows the page.
pub(crate) async fn page(
    State(app): State<Shared>,
    visit: Visit,
    asked: Asked,
) -> Result<Response, Refusal> {
    let body = body(&app, &View::of(&visit), &asked).await?;
    let rest = asked.parts(&["state", "name", "correlation"]);
    let layout = Layout::new(&app, &visit, Tab::Sagas, body.title.clone())
        .choose_db(&app, asked.get("db"), &rest)
        .live("sagas", &asked.parts(&["db", "state", "name", "correlation", "after"]));
    Ok(shell(&layout, &body))
}

/// Draws the body.
pub(crate) async fn body(app: &App, view: &View, asked: &Asked) -> Result<Body, Refusal> {
    let databases = asked.databases(app)?;
    let wanted = asked.read::<SagaState>("state", "a state of sagas")?;
    let after = asked.read::<SagaId>("after", "the id of a saga")?;
    let filter = SagaFilter {
        name: asked.get("name").map(str::to_owned),
        state: wanted,
        correlation: asked.get("correlation").map(str::to_owned),
    };
    let answers = ask_all(&databases, |store| {
        let filter = filter.clone();
        async move { listed(&*store, &filter, after).await }
    });
    let answers = answers.await;
    let part = |(database, (sagas, has_more)): &(Database, (Vec<SagaView>, bool))| {
        let name = database.name.to_string();
        let mut next = vec![("db", Some(name.as_str()))];
        next.extend(asked.parts(&["state", "name", "correlation"]));
        let last = sagas.last().map(|saga| saga.id.to_string());
        next.push(("after", last.as_deref()));
        Part {
            next: has_more.then(|| query(&next)),
            db: query(&[("db", Some(&name))]),
            rows: sagas.iter().map(row).collect(),
            name,
        }
    };
    let body = SagasBody {
        view,
        parts: answers.list.iter().map(part).collect(),
        notices: answers.notices,
        states: SagaState::ALL
            .into_iter()
            .map(|state| (state.as_str(), wanted == Some(state)))
            .collect(),
        name: asked.get("name").unwrap_or_default(),
        correlation: asked.get("correlation").unwrap_or_default(),
        db: asked.get("db"),
        is_narrowed: filter != SagaFilter::default(),
    };
    Ok(Body::draw("Sagas", &body))
}

/// Reads the sagas of a page, and tells whether there are more.
async fn listed(
    store: &dyn DashboardStore,
    filter: &SagaFilter,
    after: Option<SagaId>,
) -> Result<(Vec<SagaView>, bool), StoreError> {
    let sagas = store.sagas(filter, after, SHOWN + 1).await?;
    let last = sagas.last().map(|saga| saga.id);
    cut_to_page(sagas, SHOWN, store.sagas(filter, last, 1)).await
}

fn row(saga: &SagaView) -> Row {
    let (instance, now) = (&saga.instance, host_now());
    let step = instance.stuck_at.as_deref().or(instance.steps.last().map(|last| &*last.step));
    let (tone, word) = saga_state(instance.state);
    Row {
        id: saga.id.to_string(),
        definition: cell(&format!("{} v{}", saga.definition.0, saga.definition.1), 60),
        correlation: cell(&saga.correlation, 40),
        state: state(tone, word),
        step: step.map(|step| cell(step, 40)).unwrap_or_default(),
        started: ago(saga.started_at, now),
        changed: ago(saga.changed_at, now),
        why: instance.reason.as_deref().map(|why| cell(why, CELL)).unwrap_or_default(),
    }
}
