//! The content of a letter whose type is sensitive, shown once to an operator who may see it and has
//! said why.

use super::{find, missing, path};
use crate::{
    access::Refusal,
    act::{fields::Fields, plans::letter_id},
    builder::{App, Shared},
    page::{
        View,
        layout::{Body, Layout, Tab, shell},
        letter::{Content, Failure, headers},
        text::{Markup, cell, host_now, text},
    },
    store::Database,
    visit::Visit,
};
use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use http::{HeaderValue, header};
use outbox_core::{admin::OperatorNote, event::LetterId, failure::DeadLetter};

/// Shows the content of a letter, on a page that nobody keeps.
pub(crate) async fn show_content(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Refusal> {
    let (database, id) = (fields.database(&app)?, letter_id(&id)?);
    let note = fields.note(&visit.grant)?;
    let page = path(database, id);
    let letter = show(&app, database, id, &note).await;
    let letter = letter.map_err(|refusal| refusal.link(page.clone(), "The letter"))?;
    let message = letter.message.as_ref();
    let body = ContentBody {
        view: &View::of(&visit),
        id,
        db: cell(&database.name, 60),
        page,
        event_type: message.map(|message| cell(&message.event_type, 255)).unwrap_or_default(),
        who: cell(&note.by, 60),
        why: text(&note.reason),
        headers: message.map(headers).unwrap_or_default(),
        failures: Failure::of(&letter, host_now()),
        content: message.map(|message| Content::of(message, false)),
    };
    let title = format!("The content of letter {id}");
    let layout = Layout::new(&app, &visit, Tab::Letters, &title);
    let mut response = shell(&layout, &Body::draw(title, &body));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Gives a letter with its content, once the audit says who sees it and why.
pub(crate) async fn show(
    app: &App,
    database: &Database,
    id: LetterId,
    note: &OperatorNote,
) -> Result<DeadLetter, Refusal> {
    if !app.sensitive.hides(&find(database, id).await?) {
        return Err(Refusal::conflict(format!("the content of letter {id} is not hidden"))
            .advising("Load the letter: who may read it sees its content."));
    }
    let shown = database.store.show_content(id, note).await?;
    shown.ok_or_else(|| missing(database, id))
}

#[derive(Template)]
#[template(path = "act/content.html")]
struct ContentBody<'a> {
    view: &'a View,
    id: LetterId,
    db: Markup,
    page: String,
    event_type: Markup,
    who: Markup,
    why: Markup,
    headers: Vec<(Markup, Markup)>,
    failures: Vec<Failure>,
    content: Option<Content>,
}
