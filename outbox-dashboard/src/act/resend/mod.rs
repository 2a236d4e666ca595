//! Edit and resend: a form with the content, the comparison of both, and then a new event that names
//! the old one as its cause.

mod difference;
mod content;

use super::{
    fields::Fields,
    letters::{find, path, why_not},
    plans::letter_id,
    see,
};
use crate::{
    access::Refusal,
    builder::{App, Shared},
    page::{
        Notice,
        layout::{Body, Layout, Tab, View, shell},
        text::{Markup, escaped, query, text},
    },
    visit::Visit,
};
use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use content::{editable, restored};
use difference::{Row, rows};
use outbox_core::{event::MessageId, failure::DeadLetter};

/// Shows the form with the content of a letter.
pub(crate) async fn edit(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Refusal> {
    let database = fields.database(&app)?;
    let letter = open(&fields, &app, &id).await?;
    let body = EditBody {
        view: &View::of(&visit),
        db: &database.name,
        id: letter.id.to_string(),
        event: of_letter(&letter),
        content: shown(&app, &letter)?.to_owned(),
    };
    let title = format!("Edit and resend letter {}", letter.id);
    let layout = Layout::new(&app, &visit, Tab::Letters, &title);
    Ok(shell(&layout, &Body::draw(title, &body)))
}

/// Compares the new content with the old one, and sends it once that is confirmed.
pub(crate) async fn resend(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Refusal> {
    let database = fields.database(&app)?;
    let note = fields.note(&visit.grant)?;
    let letter = open(&fields, &app, &id).await?;
    let old = shown(&app, &letter)?;
    let new = restored(old, fields.get("payload").unwrap_or_default());
    let back =
        |refusal: Refusal| refusal.link(path(database, letter.id), "The letter as it is now");
    if new == old {
        let same = "the content is the one that the letter has";
        return Err(back(
            Refusal::conflict(same).advising("Redrive it: that sends the same event."),
        ));
    }
    if !fields.is_set("confirm") {
        let body = CompareBody {
            view: &View::of(&visit),
            db: &database.name,
            id: letter.id.to_string(),
            event: of_letter(&letter),
            why: text(&note.reason),
            reason: note.reason.clone(),
            bytes: (old.len(), new.len()),
            rows: rows(old, &new),
            content: new,
        };
        let title = format!("Resend letter {} with other content", letter.id);
        let layout = Layout::new(&app, &visit, Tab::Letters, &title);
        return Ok(shell(&layout, &Body::draw(title, &body)));
    }
    let sent = database.store.resend(letter.id, new.into_bytes().into(), &note).await;
    match sent.map_err(|error| back(Refusal::from(error)))? {
        // The page of the letter has the link to the new event.
        Some(id) => {
            let parts = [("db", Some(&*database.name)), ("sent", Some(&*id.to_string()))];
            Ok(see(&visit, &format!("letters/{}{}", letter.id, query(&parts))))
        }
        None => Err(back(Refusal::conflict(why_not(&find(database, letter.id).await?)))),
    }
}

/// Gives the content of a letter, where its type may be shown and a form can edit it.
fn shown<'a>(app: &App, letter: &'a DeadLetter) -> Result<&'a str, Refusal> {
    if app.sensitive.hides(letter) {
        return Err(Refusal::conflict("the content of this type of event is not shown here")
            .advising("Use `outbox dead-letters resend NUMBER --payload FILE`."));
    }
    editable(letter)
}

/// Says on the page of a letter under which id it was sent again, after it was. What the address
/// says of a letter that was not sent again is nothing.
pub(crate) fn sent(view: &View, letter: &DeadLetter, id: Option<&str>) -> Option<Notice> {
    let id: MessageId = id?.parse().ok()?;
    letter.resolution.as_ref().filter(|resolution| resolution.action == "resent")?;
    let plain = format!("Its new content goes as event {id}.");
    // A UUID needs no escapes.
    let link = format!(
        "Its new content goes as event <a href=\"{}follow?q={id}\">{id}</a>.",
        escaped(&view.root)
    );
    Some(Notice { text: Markup::escaped(link), plain, bad: false })
}

/// Reads the letter, which must be open.
async fn open(fields: &Fields, app: &App, id: &str) -> Result<DeadLetter, Refusal> {
    let database = fields.database(app)?;
    let letter = find(database, letter_id(id)?).await?;
    match letter.resolution {
        None => Ok(letter),
        Some(_) => Err(Refusal::conflict(why_not(&letter))
            .link(path(database, letter.id), "The letter as it is now")),
    }
}

fn of_letter(letter: &DeadLetter) -> Markup {
    let event_type = letter.message.as_ref().map(|message| message.event_type.as_str());
    text(&format!("{}, given up by {}", event_type.unwrap_or_default(), letter.given_up_by()))
}

/// The form.
#[derive(Template)]
#[template(path = "act/edit.html")]
struct EditBody<'a> {
    view: &'a View,
    db: &'a str,
    id: String,
    event: Markup,
    content: String,
}

/// The comparison.
#[derive(Template)]
#[template(path = "act/compare.html")]
struct CompareBody<'a> {
    view: &'a View,
    db: &'a str,
    id: String,
    event: Markup,
    why: Markup,
    reason: String,
    bytes: (usize, usize),
    rows: Vec<Row>,
    content: String,
}
