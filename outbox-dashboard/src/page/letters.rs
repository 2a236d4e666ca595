//! Dead letters: groups first; with a condition, the letters.

use super::{
    Body, Layout, Notice, Tab, View, ask_all, cut_to_page,
    given::Asked,
    shell,
    text::{CELL, Markup, Tone, ago, bounded, cell, host_now, query, state},
};
use crate::{
    access::Refusal,
    act::{filter, forms},
    builder::{App, Shared},
    store::{DashboardStore, Database},
    visit::Visit,
};
use askama::Template;
use axum::{extract::State, response::Response};
use outbox_core::{
    admin::{DeadLetterFilter, LetterGroup},
    event::{LetterId, Timestamp},
    failure::DeadLetter,
    outbox::StoreError,
};

/// Letters of one page and database.
const SHOWN: u32 = 50;
/// Longest value of a condition in its label, in characters.
const LONGEST_VALUE: usize = 60;

/// A group of letters.
struct GroupRow {
    count: String,
    by: Markup,
    reason: Markup,
    error: Markup,
    first: Markup,
    last: Markup,
    /// The list of its letters, from the root on.
    href: String,
}

/// A letter of the list.
struct LetterRow {
    id: LetterId,
    dead: Markup,
    by: Markup,
    event_type: Markup,
    key: Option<(Markup, String)>,
    reason: Markup,
    attempts: u32,
    error: Markup,
}

/// What one database has.
struct Part {
    name: String,
    db: String,
    groups: Vec<GroupRow>,
    letters: Vec<LetterRow>,
    /// The letters after these.
    next: Option<String>,
    /// Plans acts on all that the conditions select.
    plan: Markup,
}

#[derive(Template)]
#[template(path = "letters.html")]
struct LettersBody<'a> {
    view: &'a View,
    notices: Vec<Notice>,
    parts: Vec<Part>,
    is_list: bool,
    /// The conditions: name, value, and the page without it.
    conditions: Vec<(&'static str, Markup, String)>,
    /// The list of all letters.
    list: String,
    includes_resolved: bool,
    with_resolved: String,
}

/// Which letters are asked for, and how they are shown.
struct Wanted {
    filter: DeadLetterFilter,
    is_list: bool,
    after: Option<LetterId>,
}

fn wanted(asked: &Asked) -> Result<Wanted, Refusal> {
    let mut filter = filter::from(|name| asked.get(name))?;
    filter.include_resolved = asked.get("resolved").is_some();
    let after = asked.read::<i64>("after", "the number of a letter")?.map(LetterId);
    let is_list = !filter.is_empty() || asked.get("list").is_some() || after.is_some();
    Ok(Wanted { filter, is_list, after })
}

/// Tells whether letters are asked for one by one: groups read thousands of them, and are not read
/// again every other second.
pub(crate) fn is_list(asked: &Asked) -> Result<bool, Refusal> {
    Ok(wanted(asked)?.is_list)
}

/// The parts of the query that say which letters.
const KEPT: [&str; 10] = [
    "topic",
    "type",
    "key",
    "route",
    "consumer",
    "handler",
    "reason",
    "older-than",
    "resolved",
    "list",
];

/// Shows the page.
pub(crate) async fn page(
    State(app): State<Shared>,
    visit: Visit,
    asked: Asked,
) -> Result<Response, Refusal> {
    let body = body(&app, &View::of(&visit), &asked).await?;
    let layout = Layout::new(&app, &visit, Tab::Letters, body.title.clone());
    let layout = layout.choose_db(&app, asked.get("db"), &asked.parts(&KEPT));
    let layout = match is_list(&asked)? {
        true => {
            let mut parts = asked.parts(&KEPT);
            parts.extend(asked.parts(&["db", "after"]));
            layout.live("letters", &parts)
        }
        false => layout,
    };
    Ok(shell(&layout, &body))
}

/// Draws the body.
pub(crate) async fn body(app: &App, view: &View, asked: &Asked) -> Result<Body, Refusal> {
    let (databases, wanted) = (asked.databases(app)?, wanted(asked)?);
    let (parts, notices) = if wanted.is_list {
        lists(app, view, &databases, asked, &wanted).await
    } else {
        groups(app, view, &databases, &wanted.filter).await
    };
    let conditions = filter::conditions(&wanted.filter);
    let mut with_resolved = kept(asked, None);
    with_resolved.push(("resolved", Some("1")));
    let body = LettersBody {
        view,
        notices,
        parts,
        is_list: wanted.is_list,
        conditions: conditions
            .iter()
            .map(|(name, value)| {
                (*name, cell(value, LONGEST_VALUE), query(&kept(asked, Some(name))))
            })
            .collect(),
        list: query(&[("db", asked.get("db")), ("list", Some("1"))]),
        includes_resolved: wanted.filter.include_resolved,
        with_resolved: query(&with_resolved),
    };
    Ok(Body::draw("Dead letters", &body))
}

/// Gives the query without one of its conditions; a handler goes with its consumer.
fn kept<'a>(asked: &'a Asked, but: Option<&str>) -> Vec<(&'static str, Option<&'a str>)> {
    let mut kept = asked.parts(&["db"]);
    let goes = |name: &str| {
        but == Some(name) || (but == Some("consumer") && name == "handler") || name == "list"
    };
    kept.extend(asked.parts(&KEPT).into_iter().filter(|(name, _)| !goes(name)));
    // Without a condition too, it is the list that was asked for.
    kept.push(("list", Some("1")));
    kept
}

async fn groups(
    app: &App,
    view: &View,
    databases: &[Database],
    filter: &DeadLetterFilter,
) -> (Vec<Part>, Vec<Notice>) {
    let answers = ask_all(databases, |store| {
        let filter = filter.clone();
        async move { Ok(app.sensitive.groups(store.letter_groups(&filter).await?)) }
    });
    let (answers, now) = (answers.await, host_now());
    let part = |(database, groups): (Database, Vec<LetterGroup>)| Part {
        db: query(&[("db", Some(&database.name))]),
        groups: groups.iter().map(|group| group_row(&database.name, group, now)).collect(),
        letters: Vec::new(),
        next: None,
        plan: match groups.is_empty() {
            true => Markup::default(),
            false => forms::plan(view, &database.name, filter),
        },
        name: database.name.to_string(),
    };
    (answers.list.into_iter().map(part).collect(), answers.notices)
}

fn group_row(db: &str, group: &LetterGroup, now: Timestamp) -> GroupRow {
    let conditions = filter::conditions(&group.filter);
    let mut parts = vec![("db", Some(db))];
    parts.extend(conditions.iter().map(|(name, value)| (*name, Some(value.as_str()))));
    GroupRow {
        count: bounded(group.count),
        by: cell(&group.route, CELL),
        reason: state(Tone::Bad, &group.reason.as_str().replace('_', " ")),
        error: cell(&group.error, 160),
        first: ago(group.first_at, now),
        last: ago(group.last_at, now),
        href: format!("letters{}", query(&parts)),
    }
}

async fn lists(
    app: &App,
    view: &View,
    databases: &[Database],
    asked: &Asked,
    wanted: &Wanted,
) -> (Vec<Part>, Vec<Notice>) {
    let answers = ask_all(databases, |store| {
        let (filter, after) = (wanted.filter.clone(), wanted.after);
        async move { listed(app, &*store, &filter, after).await }
    });
    let (answers, now) = (answers.await, host_now());
    let part = |(database, (letters, has_more)): (Database, (Vec<DeadLetter>, bool))| {
        let last = letters.last().map(|letter| letter.id.to_string());
        let mut next = vec![("db", Some(&*database.name))];
        next.extend(asked.parts(&KEPT));
        next.push(("after", last.as_deref()));
        Part {
            db: query(&[("db", Some(&database.name))]),
            groups: Vec::new(),
            next: has_more.then(|| query(&next)),
            plan: match letters.is_empty() || wanted.filter.include_resolved {
                true => Markup::default(),
                false => forms::plan(view, &database.name, &wanted.filter),
            },
            letters: letters.iter().map(|letter| letter_row(letter, now)).collect(),
            name: database.name.to_string(),
        }
    };
    (answers.list.into_iter().map(part).collect(), answers.notices)
}

/// Reads the letters of a page, without what it does not show, and tells whether there are more.
async fn listed(
    app: &App,
    store: &dyn DashboardStore,
    filter: &DeadLetterFilter,
    after: Option<LetterId>,
) -> Result<(Vec<DeadLetter>, bool), StoreError> {
    let letters = store.letters_without_payload(filter, after, SHOWN + 1).await?;
    let last = letters.last().map(|letter| letter.id);
    let next = store.letters_without_payload(filter, last, 1);
    let (letters, has_more) = cut_to_page(letters, SHOWN, next).await?;
    let letters = letters.into_iter().map(|letter| app.sensitive.without_texts(letter));
    Ok((letters.collect(), has_more))
}

fn letter_row(letter: &DeadLetter, now: Timestamp) -> LetterRow {
    let message = letter.message.as_ref();
    let key = message.and_then(|message| message.key.as_deref());
    LetterRow {
        id: letter.id,
        dead: ago(letter.dead_at, now),
        by: cell(&letter.given_up_by(), CELL),
        event_type: message.map(|message| cell(&message.event_type, 60)).unwrap_or_default(),
        key: key.map(|key| (cell(key, 40), query(&[("q", Some(key))]))),
        reason: reason(letter),
        attempts: letter.attempts,
        error: letter.errors.last().map(|error| cell(&error.text, CELL)).unwrap_or_default(),
    }
}

/// Writes why a letter is open, or how it was resolved.
pub(crate) fn reason(letter: &DeadLetter) -> Markup {
    match &letter.resolution {
        Some(resolution) => state(Tone::Good, &resolution.action),
        None => state(Tone::Bad, &letter.reason.as_str().replace('_', " ")),
    }
}
