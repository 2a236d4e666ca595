//! Deferred deliveries and scheduled events.

use crate::{
    access::Refusal,
    builder::{App, Shared},
    page::{
        Body, Layout, Notice, Tab, View, ask_all,
        given::Asked,
        shell,
        text::{CELL, Markup, Tone, ago, cell, host_now, query, state},
    },
    store::Database,
    visit::Visit,
};
use askama::Template;
use axum::{extract::State, response::Response};
use outbox_core::{
    admin::{DeferredView, Page, ScheduledView},
    event::Timestamp,
};

/// Rows of one list and database.
const SHOWN: u32 = 50;

struct DeferredRow {
    message: String,
    follow: String,
    handler: Markup,
    event_type: Markup,
    key: Markup,
    due: Markup,
    failures: u32,
    why: Markup,
}

struct ScheduledRow {
    message: String,
    follow: String,
    due: Markup,
    topic: Markup,
    event_type: Markup,
    key: Markup,
}

struct Part {
    name: String,
    deferred: Vec<DeferredRow>,
    more_deferred: Option<String>,
    scheduled: Vec<ScheduledRow>,
    more_scheduled: Option<String>,
}

#[derive(Template)]
#[template(path = "waiting.html")]
struct WaitingBody<'a> {
    view: &'a View,
    notices: Vec<Notice>,
    parts: Vec<Part>,
    consumer: &'a str,
    db: Option<&'a str>,
}

/// Shows the page.
pub(crate) async fn page(
    State(app): State<Shared>,
    visit: Visit,
    asked: Asked,
) -> Result<Response, Refusal> {
    let body = body(&app, &View::of(&visit), &asked).await?;
    let layout = Layout::new(&app, &visit, Tab::Waiting, body.title.clone())
        .choose_db(&app, asked.get("db"), &asked.parts(&["consumer"]))
        .live("waiting", &asked.parts(&["db", "consumer", "deferred", "scheduled"]));
    Ok(shell(&layout, &body))
}

/// Draws the body.
pub(crate) async fn body(app: &App, view: &View, asked: &Asked) -> Result<Body, Refusal> {
    let databases = asked.databases(app)?;
    let page = |name| {
        let after = asked.read::<i64>(name, "the number of a row")?;
        Ok::<Page, Refusal>(Page { after, limit: SHOWN })
    };
    let (deferred, scheduled) = (page("deferred")?, page("scheduled")?);
    let consumer = asked.get("consumer");
    let answers = ask_all(&databases, |store| {
        let consumer = consumer.map(str::to_owned);
        async move {
            let deferred = store.deferred(consumer.as_deref(), deferred).await?;
            Ok((app.sensitive.deferred(deferred), store.scheduled(scheduled).await?))
        }
    });
    let (answers, now) = (answers.await, host_now());
    let parts = answers.list.iter().map(|(database, lists)| part(asked, database, lists, now));
    let body = WaitingBody {
        view,
        parts: parts.collect(),
        notices: answers.notices,
        consumer: consumer.unwrap_or_default(),
        db: asked.get("db"),
    };
    Ok(Body::draw("Waiting", &body))
}

fn part(
    asked: &Asked,
    database: &Database,
    (deferred, scheduled): &(Vec<DeferredView>, Vec<ScheduledView>),
    now: Timestamp,
) -> Part {
    let more = |list: &'static str, rows: usize, last: Option<i64>| {
        let last = last.filter(|_| rows >= SHOWN as usize)?.to_string();
        let mut parts = vec![("db", Some(&*database.name))];
        parts.extend(asked.parts(&["consumer"]));
        parts.push((list, Some(&last)));
        Some(query(&parts))
    };
    Part {
        name: database.name.to_string(),
        more_deferred: more("deferred", deferred.len(), deferred.last().map(|row| row.id)),
        more_scheduled: more("scheduled", scheduled.len(), scheduled.last().map(|row| row.id)),
        deferred: deferred.iter().map(|row| deferred_row(row, now)).collect(),
        scheduled: scheduled.iter().map(|row| scheduled_row(row, now)).collect(),
    }
}

/// Gives the end of a message's id, and where the message is followed.
fn follow(message: &str) -> (String, String) {
    let tail = message.rsplit('-').next().unwrap_or_default();
    (format!("…{tail}"), query(&[("q", Some(message))]))
}

fn deferred_row(row: &DeferredView, now: Timestamp) -> DeferredRow {
    let (message, follow) = follow(&row.message.to_string());
    let why = row.awaits.as_ref().map(|awaits| format!("awaits {awaits}"));
    let why = why.or_else(|| row.last_error.clone()).unwrap_or_default();
    DeferredRow {
        message,
        follow,
        handler: cell(&format!("{}/{}", row.consumer, row.handler), CELL),
        event_type: cell(&row.event_type, 60),
        key: row.key.as_deref().map(|key| cell(key, 40)).unwrap_or_default(),
        due: match row.due_at {
            Some(at) => ago(at, now),
            None => state(Tone::Idle, "behind its key"),
        },
        failures: row.failures,
        why: cell(&why, CELL),
    }
}

fn scheduled_row(row: &ScheduledView, now: Timestamp) -> ScheduledRow {
    let (message, follow) = follow(&row.message.to_string());
    ScheduledRow {
        message,
        follow,
        due: ago(row.deliver_at, now),
        topic: cell(&row.topic, 60),
        event_type: cell(&row.event_type, 60),
        key: row.key.as_deref().map(|key| cell(key, 40)).unwrap_or_default(),
    }
}
