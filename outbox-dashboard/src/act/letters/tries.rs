//! A try of the handler of a letter, in a transaction that is rolled back: what a redrive would do.

use super::{find, path, why_not};
use crate::{
    access::Refusal,
    act::{fields::Fields, forms, plans::letter_id},
    builder::{App, Shared},
    page::{
        View,
        layout::{Body, Layout, Tab, shell},
        text::{Markup, text},
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
    consumer::{HandlerTrials, Trial, TrialRefusal, TrialResult},
    event::LetterId,
    failure::DeadLetter,
};

/// Tries the handler of a letter, and shows what it did.
pub(crate) async fn try_letter(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Refusal> {
    let (database, id) = (fields.database(&app)?, letter_id(&id)?);
    let letter = find(database, id).await?;
    let page = path(database, id);
    let trial = run(&app, database, &letter).await;
    let trial = trial.map_err(|refusal| refusal.link(page.clone(), "The letter"))?;
    let view = View::of(&visit);
    let body = TrialBody {
        view: &view,
        id,
        page,
        handler: text(&format!("{}/{}", trial.consumer, trial.handler)),
        sentence: sentence(trial.result),
        is_good: trial.result == TrialResult::Done,
        said: text(&trial.text),
        tables: trial
            .tables
            .iter()
            .map(|change| (table(change.table.as_deref()), rows(change.rows)))
            .collect(),
        events: trial.events.iter().map(event).collect(),
        emitted: trial.emitted,
        refused: trial.refused.iter().map(|call| text(call)).collect(),
        notes: trial.notes.iter().map(|note| text(note)).collect(),
        took_ms: trial.took_ms,
        acts: forms::letter(&view, &database.name, &letter, false),
    };
    let title = format!("A try of letter {id}");
    let layout = Layout::new(&app, &visit, Tab::Letters, &title);
    Ok(shell(&layout, &Body::draw(title, &body)))
}

/// Tries the handler of a letter.
pub(crate) async fn run(
    app: &App,
    database: &Database,
    letter: &DeadLetter,
) -> Result<Trial, Refusal> {
    if letter.resolution.is_some() {
        return Err(Refusal::conflict(why_not(letter)));
    }
    let Some(trials) = trials(app, &database.name, letter) else {
        return Err(not_here(letter));
    };
    let tried = trials.try_handle(letter).await.map_err(|refused| match refused {
        TrialRefusal::Store(error) => Refusal::from(error),
        refused => Refusal::conflict(refused.to_string()),
    });
    tried.map(|trial| app.sensitive.trial(letter, trial))
}

/// Finds what tries the letters of a consumer of a database.
pub(crate) fn trials<'a>(
    app: &'a App,
    database: &str,
    letter: &DeadLetter,
) -> Option<&'a HandlerTrials> {
    let consumer = &letter.consumer_origin.as_ref()?.consumer;
    let mut all = app.tries.iter();
    let found = all.find(|(name, trials)| name == database && trials.consumer() == consumer);
    found.map(|(_, trials)| trials)
}

fn not_here(letter: &DeadLetter) -> Refusal {
    match &letter.consumer_origin {
        Some(origin) => Refusal::conflict(format!(
            "the handlers of consumer {} do not run in this process",
            origin.consumer
        ))
        .advising("Nest the dashboard in the service, and give it `consumer.trials()` by `tries`."),
        None => Refusal::conflict("a route gave this event up: there is no handler to try"),
    }
}

fn sentence(result: TrialResult) -> &'static str {
    match result {
        TrialResult::Done => "It would succeed.",
        TrialResult::Failed => "It would fail again.",
        TrialResult::TimedOut => "It did not end within its time.",
        TrialResult::Rejected => {
            "It would reject the message: a redrive writes another dead letter."
        }
        TrialResult::Undecodable => "The message does not decode as its event.",
        TrialResult::Snoozed => "It would ask to run again later.",
        TrialResult::Unknown => "Only an instance of another version knows the message.",
        _ => "It ended in a way that this page does not know.",
    }
}

fn table(name: Option<&str>) -> Markup {
    text(name.unwrap_or("unknown"))
}

fn rows(rows: Option<u64>) -> String {
    rows.map_or_else(|| "unknown".to_owned(), |rows| rows.to_string())
}

fn event(event: &outbox_core::consumer::TrialEvent) -> Markup {
    let key = event.key.as_deref().map(|key| format!(", key {key}"));
    text(&format!("{} on {}{}", event.event_type, event.topic, key.unwrap_or_default()))
}

#[derive(Template)]
#[template(path = "act/trial.html")]
struct TrialBody<'a> {
    view: &'a View,
    id: LetterId,
    page: String,
    handler: Markup,
    sentence: &'static str,
    is_good: bool,
    said: Markup,
    tables: Vec<(Markup, String)>,
    events: Vec<Markup>,
    emitted: u64,
    refused: Vec<Markup>,
    notes: Vec<Markup>,
    took_ms: u64,
    acts: Markup,
}
