//! One dead letter: redriven, discarded, purged. Who comes second is told what the first one did.

mod content;
mod tries;

pub(crate) use content::{show, show_content};
pub(crate) use tries::{run as try_handler, trials, try_letter};

use super::{fields::Fields, plans::letter_id, running::to_its_end, see};
use crate::{
    access::Refusal,
    builder::{App, Shared},
    page::text::query,
    store::Database,
    visit::Visit,
};
use axum::{
    extract::{Path, State},
    response::Response,
};
use outbox_core::{
    admin::{Act, OperatorNote, letter_by_id},
    event::LetterId,
    failure::DeadLetter,
    outbox::StoreError,
};
use std::sync::Arc;

/// Redrives a letter.
pub(crate) async fn redrive(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Refusal> {
    on_one(&app, &visit, &id, &fields, Act::Redrive).await
}

/// Discards a letter.
pub(crate) async fn discard(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Refusal> {
    on_one(&app, &visit, &id, &fields, Act::Discard).await
}

/// Discards a letter and deletes its content, also of one that was resolved before.
pub(crate) async fn purge(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Refusal> {
    on_one(&app, &visit, &id, &fields, Act::Purge).await
}

async fn on_one(
    app: &App,
    visit: &Visit,
    id: &str,
    fields: &Fields,
    act: Act,
) -> Result<Response, Refusal> {
    let (database, id) = (fields.database(app)?, letter_id(id)?);
    let note = fields.note(&visit.grant)?;
    let to_page = |refusal: Refusal| refusal.link(path(database, id), "The letter as it is now");
    let done = on_letters(database, act, vec![id], note).await;
    if done.map_err(to_page)?.is_empty() {
        let letter = find(database, id).await?;
        let is_purged = act == Act::Purge && letter.resolution.is_some();
        if !is_purged {
            return Err(to_page(Refusal::conflict(why_not(&letter))));
        }
    }
    Ok(see(visit, &path(database, id)))
}

/// Acts on letters that are named, to the end. Gives those that it has resolved.
pub(crate) async fn on_letters(
    database: &Database,
    act: Act,
    letters: Vec<LetterId>,
    note: OperatorNote,
) -> Result<Vec<LetterId>, Refusal> {
    let store = Arc::clone(&database.store);
    let resolved = to_its_end(async move {
        match act {
            Act::Redrive => store.redrive(&letters, &note).await,
            Act::Discard => store.discard(&letters, &note).await,
            Act::Purge => store.purge(&letters, &note).await,
            other => Err(StoreError::Refused(format!("{other} takes no letters by number").into())),
        }
    });
    Ok(resolved.await??)
}

/// Reads a letter that must exist.
pub(crate) async fn find(database: &Database, id: LetterId) -> Result<DeadLetter, Refusal> {
    letter_by_id(&*database.store, id).await?.ok_or_else(|| missing(database, id))
}

/// Says that there is no such letter.
fn missing(database: &Database, id: LetterId) -> Refusal {
    Refusal::not_found(format!("There is no dead letter {id}"))
        .because(format!(
            "database {} has none of this number, or its retention has removed it",
            database.name
        ))
        .link(format!("letters{}", query(&[("db", Some(&database.name))])), "Dead letters")
}

/// Says why an act did nothing with a letter.
pub(crate) fn why_not(letter: &DeadLetter) -> String {
    let id = letter.id;
    match &letter.resolution {
        Some(by) => {
            format!("letter {id} was {} by {} at {}: {}", by.action, by.by, by.at, by.reason)
        }
        None if letter.message.is_none() => {
            format!("the message of letter {id} cannot be read, so that no handler could take it")
        }
        None => format!("letter {id} is open, and was not changed: try again"),
    }
}

/// Gives the path of a letter's page.
pub(super) fn path(database: &Database, letter: LetterId) -> String {
    format!("letters/{letter}{}", query(&[("db", Some(&database.name))]))
}
