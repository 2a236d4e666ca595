//! All databases at a glance, what stands still, and the last day.

mod day;

pub(crate) use day::Days;

use super::{
    Body, Layout, Notice, Tab, View,
    frame::asking::ask_each,
    given::Asked,
    shell,
    text::{Markup, Tone, bounded, cell, escaped, query, state, up_to},
};
use crate::{
    access::Refusal,
    builder::{App, Shared},
    visit::Visit,
};
use askama::Template;
use axum::{extract::State, response::Response};
use day::Figure;
use outbox_core::{
    admin::{ControlAction, Overview, RouteLive, span_text},
    event::Timestamp,
    outbox::OutboxStats,
    saga::SagaCounts,
};
use std::{sync::Arc, time::Duration};

/// Longest error in a line, in characters.
const LONGEST_ERROR: usize = 120;

/// Something that stands still, or will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) tone: Tone,
    /// One word: `dead`, `stuck`, `cut off`.
    pub(crate) word: Markup,
    pub(crate) text: Markup,
    /// Where more is said of it, from the root on.
    pub(crate) href: String,
    pub(crate) database: String,
}

/// A row of the table of databases.
struct Row {
    name: String,
    source: Markup,
    waiting: String,
    oldest: String,
    retrying: Markup,
    dead: Markup,
    running: Markup,
    compensating: Markup,
    stuck: Markup,
    deferred: Markup,
    scheduled: Markup,
    relays: Markup,
    /// The query that selects the database.
    db: String,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewBody<'a> {
    view: &'a View,
    notices: Vec<Notice>,
    standing: Vec<Standing>,
    rows: Vec<Row>,
    days: Vec<(String, Arc<[Figure]>)>,
}

/// Shows the page.
pub(crate) async fn page(
    State(app): State<Shared>,
    visit: Visit,
    asked: Asked,
) -> Result<Response, Refusal> {
    let body = body(&app, &View::of(&visit), &asked).await?;
    let layout = Layout::new(&app, &visit, Tab::Overview, body.title.clone())
        .choose_db(&app, asked.get("db"), &[])
        .live("overview", &asked.parts(&["db"]));
    Ok(shell(&layout, &body))
}

/// Draws the body.
pub(crate) async fn body(app: &App, view: &View, asked: &Asked) -> Result<Body, Refusal> {
    let databases = asked.databases(app)?;
    let answers = ask_each(&databases, |database| async move {
        let overview = database.store.overview().await?;
        let day = app.days.of(&database, overview.now).await?;
        Ok((overview, day))
    });
    let answers = answers.await;
    let overviews = || answers.list.iter().map(|(db, (overview, _))| (&*db.name, overview));
    let body = OverviewBody {
        view,
        standing: overviews().flat_map(|(name, overview)| standing(name, overview)).collect(),
        rows: overviews().map(|(name, overview)| row(view, name, overview)).collect(),
        days: answers
            .list
            .iter()
            .map(|(db, (_, day))| (db.name.to_string(), Arc::clone(day)))
            .collect(),
        notices: answers.notices,
    };
    Ok(Body::draw("Overview", &body))
}

fn row(view: &View, name: &str, overview: &Overview) -> Row {
    let Overview { events, sagas, .. } = overview;
    let live = overview.relays.iter().filter(|relay| relay.live).count();
    let relays = match (live, overview.unowned) {
        (0, _) => state(Tone::Bad, "none is live"),
        (live, 0) => state(Tone::Good, &format!("{live} live")),
        (live, unowned) => state(Tone::Warn, &format!("{live} live, {unowned} partitions unowned")),
    };
    let event = |count| up_to(count, OutboxStats::PENDING_LIMIT);
    // What is zero leads nowhere.
    let link = |count: &str, path: &str, rest: &[(&str, Option<&str>)], class: &str| {
        if count == "0" {
            return Markup::escaped("<span class=\"zero\">0</span>".to_owned());
        }
        let mut parts = vec![("db", Some(name))];
        parts.extend_from_slice(rest);
        let href = format!("{}{path}{}", view.root, query(&parts));
        Markup::escaped(format!("<a class=\"{class}\" href=\"{}\">{count}</a>", escaped(&href)))
    };
    let sagas_in = |count, state: &str, class: &str| {
        let count = up_to(count, SagaCounts::LIMIT);
        link(&count, "sagas", &[("state", Some(state))], class)
    };
    Row {
        name: name.to_owned(),
        source: cell(&overview.source, 40),
        waiting: event(events.pending),
        oldest: events.oldest_pending.map(span_text).unwrap_or_default(),
        retrying: link(&event(events.retrying), "routes", &[], "warned"),
        dead: link(&event(events.dead), "letters", &[], "badly"),
        running: sagas_in(sagas.running, "running", ""),
        compensating: sagas_in(sagas.compensating, "compensating", "warned"),
        stuck: sagas_in(sagas.stuck, "stuck", "badly"),
        deferred: link(&bounded(overview.deferred), "waiting", &[], ""),
        scheduled: link(&bounded(overview.scheduled), "waiting", &[], ""),
        relays,
        db: query(&[("db", Some(name))]),
    }
}

/// Gives what stands still in a database, the worst first.
pub(crate) fn standing(name: &str, overview: &Overview) -> Vec<Standing> {
    let mut all = Vec::new();
    let mut add = |tone: Tone, word: &str, text: String, href: String| {
        let (word, text) = (state(tone, word), super::text::text(&text));
        all.push(Standing { tone, word, text, href, database: name.to_owned() });
    };
    let here = |path: &str, rest: &[(&str, Option<&str>)]| {
        let mut parts = vec![("db", Some(name))];
        parts.extend_from_slice(rest);
        format!("{path}{}", query(&parts))
    };
    let events = &overview.events;
    if !overview.relays.iter().any(|relay| relay.live) {
        let waiting = match events.pending {
            0 => "nothing waits now".to_owned(),
            1 => "one event waits".to_owned(),
            n => format!("{} events wait", up_to(n, OutboxStats::PENDING_LIMIT)),
        };
        let text = format!("No relay is live: no event leaves this outbox ({waiting}). Start one.");
        add(Tone::Bad, "no relay", text, here("routes", &[]));
    } else if overview.unowned > 0 {
        let text = format!("{} partitions have no relay: their events wait.", overview.unowned);
        add(Tone::Warn, "unowned", text, here("routes", &[]));
    }
    for (route, written_ago) in routes(overview) {
        if let Some(text) = cut_off(route, written_ago) {
            add(Tone::Bad, "cut off", text, here("routes", &[]));
        }
    }
    if events.dead > 0 {
        let dead = up_to(events.dead, OutboxStats::PENDING_LIMIT);
        let (noun, verb) = if events.dead == 1 { ("letter", "waits") } else { ("letters", "wait") };
        let text = format!("{dead} dead {noun} {verb} for a decision: redrive, resend or discard.");
        add(Tone::Bad, "dead", text, here("letters", &[]));
    }
    if overview.sagas.stuck > 0 {
        let stuck = up_to(overview.sagas.stuck, SagaCounts::LIMIT);
        let (noun, verb) =
            if overview.sagas.stuck == 1 { ("saga", "is") } else { ("sagas", "are") };
        let text = format!("{stuck} {noun} {verb} stuck until somebody resumes, skips or cancels.");
        add(Tone::Bad, "stuck", text, here("sagas", &[("state", Some("stuck"))]));
    }
    for control in &overview.controls.0 {
        let (tone, word, does) = match control.action {
            ControlAction::Pause => (Tone::Warn, "paused", "is paused".to_owned()),
            ControlAction::Rate(rate) => {
                (Tone::Idle, "limited", format!("is limited to {rate} events a second"))
            }
        };
        let until = match control.ends_in {
            Some(left) => format!("for {} more", span_text(left)),
            None => "until somebody resumes it".to_owned(),
        };
        let text = format!(
            "{} {} {does} {until}, by {}: {}",
            capitalised(control.scope.as_str()),
            control.name,
            control.by,
            control.reason
        );
        add(tone, word, text, here("routes", &[]));
    }
    all
}

/// Begins a word with a capital letter.
fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

/// Gives the routes of live relays, with the age of what is known of them.
fn routes(overview: &Overview) -> impl Iterator<Item = (&RouteLive, Duration)> {
    overview.relays.iter().filter(|relay| relay.live).flat_map(|relay| {
        let age = age(relay.written_at, overview.now);
        relay.state.iter().flat_map(|state| &state.routes).map(move |route| (route, age))
    })
}

/// Gives how old something is.
pub(crate) fn age(written_at: Option<Timestamp>, now: Timestamp) -> Duration {
    written_at.map_or(Duration::ZERO, |at| now.since(at))
}

/// Says that a route's breaker keeps its events back, and until when; `None` where it does not.
fn cut_off(route: &RouteLive, written_ago: Duration) -> Option<String> {
    if matches!(&*route.breaker, "closed" | "") || route.paused {
        return None;
    }
    let since = route.open_for_ms.map_or_else(String::new, |ms| {
        format!(" for {}", span_text(Duration::from_millis(ms) + written_ago))
    });
    let probe = route.probe_in_ms.map_or_else(String::new, |ms| {
        let left = Duration::from_millis(ms).saturating_sub(written_ago);
        match left.is_zero() {
            true => ", next probe now".to_owned(),
            false => format!(", next probe in {}", span_text(left)),
        }
    });
    let why = route.last_failure.as_ref().map_or_else(String::new, |failure| {
        format!(": {}", outbox_core::admin::cut_text(&failure.text, LONGEST_ERROR))
    });
    Some(format!(
        "Route {} is cut off{since} by its breaker ({}){probe}; {} events in memory wait for it{why}",
        route.route, route.breaker, route.waiting
    ))
}
