//! The home: one search box; then a sentence why something stands still, its lanes over all
//! databases, and what a click would do.

pub(crate) mod acts;
mod found;

use super::{
    Body, Layout, Notice, Tab, View, ask_all,
    given::Asked,
    overview::{Standing, standing},
    shell,
    text::Markup,
};
use crate::{
    access::Refusal,
    builder::{App, Shared},
    visit::Visit,
};
use acts::Step;
use askama::Template;
use axum::{extract::State, response::Response};
use found::{Entry, Sentence};

/// The home without a search: what stands still.
#[derive(Template)]
#[template(path = "home.html")]
struct HomeBody<'a> {
    view: &'a View,
    notices: Vec<Notice>,
    standing: Vec<Standing>,
    databases: usize,
}

/// What was found.
#[derive(Template)]
#[template(path = "follow.html")]
struct FollowBody<'a> {
    view: &'a View,
    notices: Vec<Notice>,
    text: Markup,
    /// Where it is explained, the most urgent first.
    sentences: Vec<Sentence>,
    /// What would move it.
    steps: Vec<Step>,
    lanes: Markup,
    entries: Vec<Entry>,
    /// Entries before those that are shown.
    left_out: usize,
    /// The same page with all of them.
    all: String,
    gone: Vec<Markup>,
}

/// Shows the page.
pub(crate) async fn page(
    State(app): State<Shared>,
    visit: Visit,
    asked: Asked,
) -> Result<Response, Refusal> {
    let body = body(&app, &View::of(&visit), &asked).await?;
    let (db, q) = (asked.get("db"), asked.get("q"));
    let mut layout = Layout::new(&app, &visit, Tab::Follow, body.title.clone())
        .choose_db(&app, db, &[("q", q)])
        .live("follow", &asked.parts(&["q", "db", "rows"]));
    layout.q = q.unwrap_or_default().to_owned();
    Ok(shell(&layout, &body))
}

/// Draws the body.
pub(crate) async fn body(app: &App, view: &View, asked: &Asked) -> Result<Body, Refusal> {
    let databases = asked.databases(app)?;
    let Some(text) = asked.get("q") else {
        let answers = ask_all(&databases, |store| async move { store.overview().await }).await;
        let body = HomeBody {
            view,
            standing: answers.list.iter().flat_map(|(db, o)| standing(&db.name, o)).collect(),
            databases: answers.list.len(),
            notices: answers.notices,
        };
        return Ok(Body::draw("Follow", &body));
    };
    let rows = asked.read::<usize>("rows", "a number")?;
    let found = found::find(app, &databases, text, rows).await;
    let parts = [("q", Some(text)), ("db", asked.get("db")), ("rows", Some("1000"))];
    let body = FollowBody {
        view,
        text: super::text::cell(text, 120),
        steps: acts::steps(&found.sentences),
        sentences: found.sentences,
        lanes: found.lanes,
        entries: found.entries,
        left_out: found.left_out,
        all: super::text::query(&parts),
        gone: found.gone,
        notices: found.notices,
    };
    Ok(Body::draw(format!("Follow {}", outbox_core::admin::cut_text(text, 60)), &body))
}
