//! Questions. A database that cannot be asked makes the answer an error: a program would take what
//! is left for the whole.

use super::body::respond;
use crate::{
    access::Refusal,
    act::{filter, plans, read_text},
    builder::{App, Shared},
    page::{ask_all, given::Asked, participants},
    store::{DashboardStore, Database},
};
use axum::{
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use outbox_core::{
    admin::{
        Answer, DatabaseEntry, ExplainedSubject, Facts, History, Page, SagaHistory, Subject,
        awaited_commands, explain as explain_facts, history_of, letter_by_id, messages_of,
        named_subjects, sagas_named, subjects_everywhere,
    },
    event::{LetterId, MessageId, SagaId},
    failure::DeadLetter,
    outbox::StoreError,
    saga::{CommandId, SagaFilter, SagaState},
};
use serde::Serialize;
use std::sync::Arc;

/// Rows of a page, unless asked otherwise; as the command line.
const ROWS: u32 = 50;
/// Most rows of a page.
const MOST_ROWS: u32 = 1_000;
/// Entries of one history at most.
const MOST_ENTRIES: u32 = 1_000;

type Store = Arc<dyn DashboardStore>;

/// Asks the databases of a request; all have to answer.
async fn ask<T, F>(
    databases: &[Database],
    ask: impl Fn(Store) -> F,
) -> Result<Vec<(Database, T)>, Refusal>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let answers = ask_all(databases, ask).await;
    answers.refusal().map_or(Ok(answers.list), Err)
}

/// Asks, and answers with a list of databases and their answers.
async fn each<T, F>(
    app: &Shared,
    asked: &Asked,
    question: impl Fn(Store) -> F,
) -> Result<Response, Refusal>
where
    T: Serialize,
    F: Future<Output = Result<T, StoreError>>,
{
    let answers = ask(&asked.databases(app)?, question).await?;
    let answers: Vec<Answer<'_, &T>> = answers
        .iter()
        .map(|(database, result)| Answer { database: &database.name, result })
        .collect();
    respond(StatusCode::OK, &answers)
}

fn text(asked: &Asked) -> Result<&str, Refusal> {
    asked.get("q").ok_or_else(|| Refusal::bad("`q` is missing: say what is looked for"))
}

fn message(asked: &Asked) -> Result<MessageId, Refusal> {
    text(asked)?.parse().map_err(|_| Refusal::bad("`q` is the id of a message, a UUID"))
}

fn limit(asked: &Asked) -> Result<u32, Refusal> {
    match asked.read::<u32>("limit", "a number of rows")? {
        None => Ok(ROWS),
        Some(limit) if (1..=MOST_ROWS).contains(&limit) => Ok(limit),
        Some(_) => Err(Refusal::bad(format!("`limit` is a number from 1 to {MOST_ROWS}"))),
    }
}

fn page(asked: &Asked) -> Result<Page, Refusal> {
    Ok(Page { after: asked.read("after", "the number of a row")?, limit: limit(asked)? })
}

/// Takes out of letters what is not to be shown.
fn hide(app: &App, letters: impl IntoIterator<Item = DeadLetter>) -> Vec<DeadLetter> {
    letters.into_iter().map(|letter| app.sensitive.without_content(letter)).collect()
}

pub(super) async fn overview(State(app): State<Shared>, asked: Asked) -> Result<Response, Refusal> {
    each(&app, &asked, |store| async move { store.overview().await }).await
}

pub(super) async fn find(State(app): State<Shared>, asked: Asked) -> Result<Response, Refusal> {
    let text = text(&asked)?;
    each(&app, &asked, |store| async move { store.find(text).await }).await
}

pub(super) async fn life(State(app): State<Shared>, asked: Asked) -> Result<Response, Refusal> {
    let subjects = [Subject::Message(message(&asked)?)];
    by_time(&app, &asked.databases(&app)?, &subjects).await
}

pub(super) async fn follow(State(app): State<Shared>, asked: Asked) -> Result<Response, Refusal> {
    let (databases, text) = (asked.databases(&app)?, text(&asked)?);
    let named = ask(&databases, |store| async move { named_subjects(&*store, text).await }).await?;
    let mut subjects = subjects_everywhere(named.into_iter().flat_map(|(_, named)| named));
    let sagas = subjects.as_slice();
    let question = |store: Store| async move { awaited_commands(&*store, sagas).await };
    let awaited: Vec<(Database, Vec<CommandId>)> = ask(&databases, question).await?;
    let awaited: Vec<CommandId> = awaited.into_iter().flat_map(|(_, commands)| commands).collect();
    let known = participants::ask(&app, &databases, &awaited).await;
    if let Some(refusal) = known.refusal() {
        return Err(refusal);
    }
    let known = known.list.iter().flat_map(|(_, commands)| commands);
    let messages = messages_of(known, &subjects);
    subjects.extend(messages);
    by_time(&app, &databases, &subjects).await
}

/// Answers with the histories of all databases, in order of time.
async fn by_time(
    app: &App,
    databases: &[Database],
    subjects: &[Subject],
) -> Result<Response, Refusal> {
    let question = |store: Store| async move {
        Ok(app.sensitive.history(history_of(&*store, subjects, MOST_ENTRIES).await?))
    };
    let histories: Vec<(Database, History)> = ask(databases, question).await?;
    let mut entries: Vec<DatabaseEntry<'_>> = Vec::new();
    for (database, history) in &histories {
        let of_database = |entry| DatabaseEntry { database: &database.name, entry };
        entries.extend(history.entries.iter().map(of_database));
    }
    // As each store has them: those without an instant come last. Stable, so that entries of one
    // instant stay as they are.
    entries.sort_by_key(|entry| (entry.entry.at.is_none(), entry.entry.at));
    respond(StatusCode::OK, &entries)
}

pub(super) async fn explain(State(app): State<Shared>, asked: Asked) -> Result<Response, Refusal> {
    let (databases, text, sensitive) = (asked.databases(&app)?, text(&asked)?, &app.sensitive);
    let question = |store: Store| async move {
        let mut known = Vec::new();
        for subject in named_subjects(&*store, text).await? {
            known.extend(store.facts(&subject).await?.map(|facts| sensitive.facts(facts)));
        }
        Ok(known)
    };
    let mut known: Vec<(Database, Vec<Facts>)> = ask(&databases, question).await?;
    let commands = participants::awaited(known.iter().flat_map(|(_, facts)| facts));
    let elsewhere = participants::ask(&app, &databases, &commands).await;
    if let Some(refusal) = elsewhere.refusal() {
        return Err(refusal);
    }
    let mut answers = Vec::new();
    for (database, facts) in &mut known {
        facts.iter_mut().for_each(|facts| participants::add(database, facts, &elsewhere));
        let explained = facts.iter().map(|facts| ExplainedSubject {
            subject: facts.subject.clone(),
            explanation: explain_facts(facts),
        });
        let result: Vec<ExplainedSubject> = explained.collect();
        answers.push(Answer { database: &database.name, result });
    }
    respond(StatusCode::OK, &answers)
}

pub(super) async fn letters(State(app): State<Shared>, asked: Asked) -> Result<Response, Refusal> {
    let (filter, page) = (filter::from(|name| asked.get(name))?, page(&asked)?);
    let (filter, after) = (&filter, page.after.map(LetterId));
    let app = &app;
    each(app, &asked, |store| async move {
        Ok(hide(app, store.dead_letters(filter, after, page.limit).await?))
    })
    .await
}

pub(super) async fn groups(State(app): State<Shared>, asked: Asked) -> Result<Response, Refusal> {
    let (filter, sensitive) = (&filter::from(|name| asked.get(name))?, &app.sensitive);
    each(
        &app,
        &asked,
        |store| async move { Ok(sensitive.groups(store.letter_groups(filter).await?)) },
    )
    .await
}

pub(super) async fn letter(
    State(app): State<Shared>,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Response, Refusal> {
    let id = plans::letter_id(&id)?;
    let app = &app;
    each(app, &asked, |store| async move { Ok(hide(app, letter_by_id(&*store, id).await?)) }).await
}

pub(super) async fn deferred(State(app): State<Shared>, asked: Asked) -> Result<Response, Refusal> {
    let (consumer, page, sensitive) = (asked.get("consumer"), page(&asked)?, &app.sensitive);
    each(&app, &asked, |store| async move {
        Ok(sensitive.deferred(store.deferred(consumer, page).await?))
    })
    .await
}

pub(super) async fn scheduled(
    State(app): State<Shared>,
    asked: Asked,
) -> Result<Response, Refusal> {
    let page = page(&asked)?;
    each(&app, &asked, |store| async move { store.scheduled(page).await }).await
}

pub(super) async fn inbox(State(app): State<Shared>, asked: Asked) -> Result<Response, Refusal> {
    let message = message(&asked)?;
    each(&app, &asked, |store| async move { store.inbox(message).await }).await
}

pub(super) async fn sagas(State(app): State<Shared>, asked: Asked) -> Result<Response, Refusal> {
    let state = asked.get("state").map(|state| {
        let known = SagaState::ALL.into_iter().find(|known| known.as_str() == state);
        known.ok_or_else(|| {
            Refusal::bad("`state` is running, compensating, stuck, completed or compensated")
        })
    });
    let filter = &SagaFilter {
        name: asked.get("name").map(str::to_owned),
        state: state.transpose()?,
        correlation: asked.get("correlation").map(str::to_owned),
    };
    let after: Option<SagaId> = asked.read("after", "the id of a saga")?;
    let limit = limit(&asked)?;
    each(&app, &asked, |store| async move { store.sagas(filter, after, limit).await }).await
}

pub(super) async fn saga(
    State(app): State<Shared>,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Response, Refusal> {
    let id = read_text("id", &id)?;
    each(&app, &asked, |store| async move {
        let mut all = Vec::new();
        for saga in sagas_named(&*store, id).await? {
            let log = store.saga_log(saga.id).await?;
            all.push(SagaHistory { saga, log });
        }
        Ok(all)
    })
    .await
}

pub(super) async fn controls(State(app): State<Shared>, asked: Asked) -> Result<Response, Refusal> {
    each(&app, &asked, |store| async move { Ok(store.controls().await?.0) }).await
}

pub(super) async fn doctor(State(app): State<Shared>, asked: Asked) -> Result<Response, Refusal> {
    each(&app, &asked, |store| async move { store.findings().await }).await
}

pub(super) async fn audit(State(app): State<Shared>, asked: Asked) -> Result<Response, Refusal> {
    let page = page(&asked)?;
    each(&app, &asked, |store| async move { store.audit(page.after, page.limit).await }).await
}

pub(super) async fn plan(
    State(app): State<Shared>,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Response, Refusal> {
    let database = crate::act::database(&app, asked.get("db"))?;
    let result = plans::state(database, plans::plan_id(&id)?).await?;
    respond(StatusCode::OK, &Answer { database: &database.name, result })
}
