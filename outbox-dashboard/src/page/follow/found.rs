//! What all databases know of a text.

use crate::{
    builder::App,
    draw::lanes::{self, Mark},
    page::{
        Notice, ask_all, participants,
        text::{Markup, Tone, clock, host_now, query, sentence, state, text},
    },
    store::{DashboardStore, Database},
};
use outbox_core::{
    admin::{
        Facts, History, HistoryEntry, HistoryKind, Subject, cut_text, explain, history_of,
        messages_of, named_subjects, subjects_everywhere,
    },
    event::Timestamp,
    outbox::StoreError,
};
use std::sync::Arc;

/// Most subjects that are followed: a text should name one thing, and a saga's id two.
const MOST_SUBJECTS: usize = 12;
/// Entries of one history at most.
const MOST_ENTRIES: u32 = 1_000;
/// Entries that a page shows unless it is asked for more: some 40 KiB.
const SHOWN: usize = 120;
/// Longest line of a history, in characters.
const LONGEST_LINE: usize = 400;
/// Longest value of a fact, in characters.
const LONGEST_FACT: usize = 300;

/// Why something stands still, as one database explains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sentence {
    pub(crate) database: String,
    pub(crate) text: Markup,
    /// Whether something has to be done.
    pub(crate) is_urgent: bool,
    pub(crate) facts: Vec<(Markup, Markup)>,
    pub(crate) commands: Vec<String>,
    /// The database that the commands are for.
    pub(crate) acts_on: String,
    /// An id for the part of the page that is opened.
    pub(crate) id: usize,
}

/// An entry of the lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at: Markup,
    pub(crate) service: Markup,
    pub(crate) kind: Markup,
    pub(crate) text: Markup,
    /// The message, shortened, and where it is followed alone.
    pub(crate) message: Option<(String, String)>,
}

/// All that was found.
#[derive(Debug)]
pub(crate) struct FoundEverywhere {
    pub(crate) sentences: Vec<Sentence>,
    pub(crate) lanes: Markup,
    pub(crate) entries: Vec<Entry>,
    pub(crate) left_out: usize,
    pub(crate) gone: Vec<Markup>,
    pub(crate) notices: Vec<Notice>,
}

/// Asks the databases what a text names, then all of them about what it names in any.
pub(super) async fn find(
    app: &App,
    databases: &[Database],
    searched: &str,
    rows: Option<usize>,
) -> FoundEverywhere {
    let named = ask_all(databases, |store| {
        let searched = searched.to_owned();
        async move { named_subjects(&*store, &searched).await }
    });
    let named = named.await;
    let mut notices = named.notices;
    // A database that is away is asked once.
    let there: Vec<Database> = named.list.iter().map(|(database, _)| database.clone()).collect();
    let mut subjects = subjects_everywhere(named.list.into_iter().flat_map(|(_, named)| named));
    if subjects.len() > MOST_SUBJECTS {
        notices.push(Notice::info(format!(
            "The text names {} things; the first {MOST_SUBJECTS} of them are followed.",
            subjects.len()
        )));
        subjects.truncate(MOST_SUBJECTS);
    }
    let subjects: Arc<[Subject]> = subjects.into();
    let known = ask_all(&there, |store| {
        let subjects = Arc::clone(&subjects);
        async move { known(app, &*store, &subjects).await }
    });
    let mut known = known.await;
    notices.append(&mut known.notices);
    notices.extend(add_participants(app, &there, &subjects, &mut known.list).await);
    let now = known.list.iter().flat_map(|(_, known)| &known.facts).map(|facts| facts.now).max();
    let now = now.unwrap_or_else(host_now);
    let mut sentences = sentences(&known.list);
    if sentences.is_empty() && notices.is_empty() {
        sentences.push(nothing(searched, now));
    }
    let gone = gone(&known.list);
    let mut entries: Vec<&HistoryEntry> = Vec::new();
    for entry in known.list.iter().flat_map(|(_, known)| &known.history.entries) {
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    // Stable: entries of one instant, and those without one, stay as their database has them.
    entries.sort_by_key(|entry| (entry.at.is_none(), entry.at));
    let left_out = entries.len().saturating_sub(rows.unwrap_or(SHOWN));
    let shown = &entries[left_out..];
    let marks: Vec<Mark> = shown.iter().map(|entry| mark(entry)).collect();
    FoundEverywhere {
        sentences,
        lanes: lanes::draw(&marks),
        entries: shown.iter().map(|entry| row(entry, now)).collect(),
        left_out,
        gone,
        notices,
    }
}

/// What one database knows.
#[derive(Debug)]
struct Known {
    facts: Vec<Facts>,
    history: History,
}

async fn known(
    app: &App,
    store: &dyn DashboardStore,
    subjects: &[Subject],
) -> Result<Known, StoreError> {
    let mut facts = Vec::new();
    for subject in subjects {
        facts.extend(store.facts(subject).await?.map(|facts| app.sensitive.facts(facts)));
    }
    let history = app.sensitive.history(history_of(store, subjects, MOST_ENTRIES).await?);
    Ok(Known { facts, history })
}

/// Adds what the databases have of the commands that sagas wait for: to the facts, for the sentences,
/// and the histories of their messages, which services that do not know the saga have under other
/// keys. Gives who did not answer.
async fn add_participants(
    app: &App,
    databases: &[Database],
    subjects: &[Subject],
    known: &mut [(Database, Known)],
) -> Vec<Notice> {
    let commands = participants::awaited(known.iter().flat_map(|(_, known)| &known.facts));
    if commands.is_empty() {
        return Vec::new();
    }
    let mut participants = participants::ask(app, databases, &commands).await;
    for (database, known) in known.iter_mut() {
        for facts in &mut known.facts {
            participants::add(database, facts, &participants);
        }
    }
    let of_commands = participants.list.iter().flat_map(|(_, commands)| commands);
    let mut messages = messages_of(of_commands, subjects);
    messages.truncate(MOST_SUBJECTS);
    let messages = messages.as_slice();
    let mut histories = ask_all(databases, |store| async move {
        Ok(app.sensitive.history(history_of(&*store, messages, MOST_ENTRIES).await?))
    })
    .await;
    for (database, history) in histories.list {
        let of_database = known.iter_mut().find(|(known, _)| known.name == database.name);
        if let Some((_, known)) = of_database {
            known.history.entries.extend(history.entries);
        }
    }
    participants.notices.append(&mut histories.notices);
    participants.notices
}

/// Explains what was found: what somebody has to do something about comes first, then sagas, keys
/// and messages.
fn sentences(known: &[(Database, Known)]) -> Vec<Sentence> {
    let mut ranked: Vec<(bool, u8, Sentence)> = Vec::new();
    for (database, known) in known {
        for facts in &known.facts {
            let explanation = explain(facts);
            let kind = match facts.subject {
                Subject::Saga(_) => 0,
                Subject::Key(_) => 1,
                Subject::Message(_) => 2,
            };
            let told = Sentence {
                database: database.name.to_string(),
                text: sentence(&explanation.sentence),
                is_urgent: !explanation.commands.is_empty(),
                facts: explanation
                    .facts
                    .iter()
                    .map(|(name, value)| (text(name), text(&cut_text(value, LONGEST_FACT))))
                    .collect(),
                acts_on: explanation.database.unwrap_or_else(|| database.name.to_string()),
                commands: explanation.commands,
                id: 0,
            };
            if !ranked.iter().any(|(_, _, before)| before.text == told.text) {
                ranked.push((!told.is_urgent, kind, told));
            }
        }
    }
    ranked.sort_by_key(|(is_calm, kind, _)| (*is_calm, *kind));
    let numbered = ranked.into_iter().enumerate();
    numbered.map(|(id, (_, _, sentence))| Sentence { id, ..sentence }).collect()
}

/// Gives what is gone, of the databases that know something; of all where none does.
fn gone(known: &[(Database, Known)]) -> Vec<Markup> {
    let is_known = |known: &Known| !known.history.entries.is_empty() || !known.facts.is_empty();
    let is_any = known.iter().any(|(_, known)| is_known(known));
    let those = known.iter().filter(|(_, known)| is_known(known) || !is_any);
    let mut gone: Vec<&str> =
        those.flat_map(|(_, known)| &known.history.gone).map(String::as_str).collect();
    gone.sort_unstable();
    gone.dedup();
    gone.into_iter().map(text).collect()
}

/// Says that nothing is known, and why that may be.
fn nothing(searched: &str, now: Timestamp) -> Sentence {
    let subject = searched
        .parse()
        .ok()
        .or_else(|| searched.parse().ok().map(Subject::Message))
        .unwrap_or_else(|| Subject::Key(searched.to_owned()));
    let explanation = explain(&Facts::nothing(subject, now));
    Sentence {
        database: String::new(),
        text: sentence(&explanation.sentence),
        is_urgent: false,
        facts: Vec::new(),
        commands: Vec::new(),
        acts_on: String::new(),
        id: 0,
    }
}

/// Gives what an entry means, and its word.
fn meaning(entry: &HistoryEntry) -> (Tone, &'static str) {
    match entry.kind {
        HistoryKind::Created => (Tone::Idle, "saved"),
        HistoryKind::Scheduled => (Tone::Idle, "scheduled"),
        HistoryKind::Failed => (Tone::Warn, "failed"),
        HistoryKind::Confirmed => (Tone::Good, "confirmed"),
        HistoryKind::Archived => (Tone::Good, "archived"),
        HistoryKind::DeadLetter => (Tone::Bad, "dead letter"),
        HistoryKind::Resolved => (Tone::Good, "resolved"),
        HistoryKind::Received => (Tone::Good, "handled"),
        HistoryKind::Deferred => (Tone::Warn, "deferred"),
        HistoryKind::SagaStarted => (Tone::Busy, "saga began"),
        HistoryKind::SagaRecord => (of_record(&entry.text), "saga"),
        HistoryKind::SagaEnded => (Tone::Good, "saga ended"),
        _ => (Tone::Idle, "noted"),
    }
}

/// Gives what a record of a saga means, by its kind, with which its text begins.
fn of_record(text: &str) -> Tone {
    match text.split(' ').next().unwrap_or_default() {
        "done" | "undone" | "resumed" => Tone::Good,
        "failed" | "timed_out" | "blocked_on_lock" | "compensation_started" => Tone::Warn,
        "stuck" | "rejected" => Tone::Bad,
        _ => Tone::Busy,
    }
}

fn mark(entry: &HistoryEntry) -> Mark {
    Mark {
        lane: entry.service.clone(),
        at: entry.at,
        tone: meaning(entry).0,
        message: entry.message.map(|message| message.to_string()),
        title: entry.text.clone(),
    }
}

fn row(entry: &HistoryEntry, now: Timestamp) -> Entry {
    let (tone, word) = meaning(entry);
    Entry {
        at: entry.at.map(|at| clock(at, now)).unwrap_or_default(),
        service: crate::page::text::cell(&entry.service, 40),
        kind: state(tone, word),
        text: sentence(&cut_text(&entry.text, LONGEST_LINE)),
        message: entry.message.map(|message| {
            let id = message.to_string();
            let tail = id.rsplit('-').next().unwrap_or_default().to_owned();
            (tail, query(&[("q", Some(&id))]))
        }),
    }
}
