//! What the store has of a message, a key or a saga, in order of time; and what is gone.

use super::{
    column, events,
    events::{EventRow, RouteHistory, RoutesByEvent, Searched},
    instant, letters,
    letters::LetterHistory,
    lists,
    lists::DeferredHistory,
    maybe_name, query, safe_text, short, shown,
};
use crate::outbox::Outbox;
use outbox_core::{
    admin::{History, HistoryEntry, HistoryKind, Subject},
    event::{EventId, MessageId, SagaId, Timestamp},
    failure::AttemptError,
    outbox::{ConsumerStore, RouteState, StoreError},
    saga::Record,
};
use sea_orm::Value;
use std::time::Duration;

/// Records of a saga of one read, each with up to 64 KiB.
const RECORDS: u32 = 60;
/// Most entries of a history, whatever the caller asks for.
const MOST: u32 = 1_000;

pub(super) async fn history(
    outbox: &Outbox,
    subject: &Subject,
    limit: u32,
) -> Result<History, StoreError> {
    let limit = limit.min(MOST);
    let mut history = match subject {
        Subject::Message(id) => message(outbox, *id).await?,
        Subject::Key(key) => of_key(outbox, key, limit).await?,
        Subject::Saga(id) => return saga(outbox, *id, limit).await,
    };
    // What has no time comes last.
    history.entries.sort_by_key(|entry| (entry.at.is_none(), entry.at));
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    if history.entries.len() > most {
        history.gone.push(format!("{} later entries are left out.", history.entries.len() - most));
        history.entries.truncate(most);
    }
    Ok(history)
}

/// Writes a retention in days, or hours.
fn retention(kept: Duration) -> String {
    match kept.as_secs() / 3_600 {
        hours @ 0..48 => format!("{hours} hours"),
        hours => format!("{} days", hours / 24),
    }
}

async fn message(outbox: &Outbox, id: MessageId) -> Result<History, StoreError> {
    let mut history = History::default();
    let event = events::event(outbox, id).await?;
    let archived = events::archived(outbox, id).await?;
    for row in event.rows.iter().chain(&archived.rows) {
        let routes = match row.finished_at {
            Some(_) => Vec::new(),
            None => events::routes(outbox, row.partition, row.id).await?,
        };
        add_event(&mut history, row, &routes);
    }
    if let Some(scheduled) = lists::scheduled_message(outbox, id).await? {
        let text =
            format!("It is scheduled for {} on topic `{}`.", scheduled.deliver_at, scheduled.topic);
        let (at, service) = (Some(scheduled.deliver_at), outbox.source().to_owned());
        let about = (id, Some(&*scheduled.event_type));
        history.entries.push(entry(at, service, about, HistoryKind::Scheduled, text));
    }
    let letters = letters::of_message(outbox, id, event.rows.as_ref().map(|row| row.id)).await?;
    if let (None, None, Some(letter)) = (&event.rows, &archived.rows, letters.rows.first()) {
        let event_type = &letter.facts.event_type;
        let text = format!("It was saved as `{event_type}` on topic `{}`.", letter.topic);
        let (at, service) = (Some(letter.created_at), letter.source.clone());
        let about = (id, Some(&**event_type));
        history.entries.push(entry(at, service, about, HistoryKind::Created, text));
    }
    letters.rows.iter().for_each(|letter| add_letter(&mut history, letter));
    let deferred = lists::deferred_message(outbox, id).await?;
    deferred.rows.iter().for_each(|delivery| add_delivery(&mut history, delivery));
    let inbox = lists::inbox(outbox, id).await?;
    for row in &inbox.rows {
        let text = format!(
            "Handler `{}` has handled it; a repeat is recognised until {}.",
            row.handler, row.keep_until
        );
        let about = (id, None);
        history.entries.push(entry(None, row.consumer.clone(), about, HistoryKind::Received, text));
    }

    let found = Found {
        outbox: event.rows.is_some() || archived.rows.is_some(),
        outbox_whole: event.whole,
        archive_whole: archived.whole,
        letters_whole: letters.whole,
        inbox: !inbox.rows.is_empty(),
        inbox_whole: inbox.whole && deferred.whole,
    };
    add_gone(outbox, &mut history.gone, &found);
    Ok(history)
}

/// What of a message was found, and which tables were searched whole.
struct Found {
    outbox: bool,
    outbox_whole: bool,
    archive_whole: bool,
    letters_whole: bool,
    inbox: bool,
    inbox_whole: bool,
}

fn add_gone(outbox: &Outbox, gone: &mut Vec<String>, found: &Found) {
    if !found.outbox_whole {
        gone.push(
            "The outbox was searched at the beginning of each partition and around the time that the id carries."
                .to_owned(),
        );
    }
    if !found.outbox {
        gone.push(
            "Its event is not in the outbox: a relay deletes an event that every route has confirmed or given up, \
             unless it keeps finished events in the archive."
                .to_owned(),
        );
    }
    if !found.archive_whole {
        gone.push("The archive was searched around the time that the id carries.".to_owned());
    }
    letters_gone(gone, found.letters_whole);
    if !found.inbox {
        gone.push(format!(
            "No inbox of this database has it; rows of the inbox are deleted after {}.",
            retention(outbox.inbox_retention())
        ));
    }
    if !found.inbox_whole {
        gone.push(
            "More than 200 handlers and senders: the inbox was not searched for all of them."
                .to_owned(),
        );
    }
    gone.push(
        "The events that its handlers emitted were not searched: no index has the cause."
            .to_owned(),
    );
}

async fn of_key(outbox: &Outbox, key: &str, limit: u32) -> Result<History, StoreError> {
    let mut history = History::default();
    let found = events::of_this_key(outbox, key, i64::from(limit)).await?;
    // A key has one partition.
    let ids: Vec<EventId> = found.rows.iter().map(|row| row.id).collect();
    let routes = match found.rows.first() {
        Some(first) => events::routes_of(outbox, first.partition, &ids).await?,
        None => Searched { rows: RoutesByEvent::new(), whole: true },
    };
    for row in &found.rows {
        let none = Vec::new();
        add_event(&mut history, row, routes.rows.get(&row.id).unwrap_or(&none));
    }
    let letters = letters::of_key(outbox, key).await?;
    letters.rows.iter().for_each(|letter| add_letter(&mut history, letter));
    let deferred = lists::deferred_key(outbox, key).await?;
    deferred.rows.iter().for_each(|delivery| add_delivery(&mut history, delivery));

    let gone = &mut history.gone;
    if !found.whole {
        gone.push(
            "Events behind the first 10,000 of the key's partition were not searched.".to_owned(),
        );
    }
    if !routes.whole {
        gone.push("Of the attempts of these events, not all were read.".to_owned());
    }
    letters_gone(gone, letters.whole);
    if !deferred.whole {
        gone.push("Deferred deliveries behind the first 10,000 were not searched.".to_owned());
    }
    gone.push(
        "Finished events of the key are not searched: they are deleted, or in the archive, which has no index of keys."
            .to_owned(),
    );
    Ok(history)
}

fn letters_gone(gone: &mut Vec<String>, whole: bool) {
    if !whole {
        gone.push("Dead letters before the newest 10,000 were not searched.".to_owned());
    }
}

/// Makes an entry about a message, whose type may be known.
fn entry(
    at: Option<Timestamp>,
    service: String,
    (message, event_type): (MessageId, Option<&str>),
    kind: HistoryKind,
    text: String,
) -> HistoryEntry {
    let event_type = event_type.map(str::to_owned);
    HistoryEntry { at, service, message: Some(message), event_type, kind, text }
}

fn add_event(history: &mut History, row: &EventRow, routes: &[RouteHistory]) {
    let (topic, about) =
        (safe_text(&row.topic, super::LONGEST_NAME), (row.message, Some(&*row.event_type)));
    let text = format!("It was saved as `{}` on topic `{topic}`.", row.event_type);
    let service = || row.source.clone();
    history.entries.push(entry(Some(row.created_at), service(), about, HistoryKind::Created, text));
    if let Some(at) = row.finished_at {
        let text = "Every route has confirmed it, and it is in the archive.".to_owned();
        history.entries.push(entry(Some(at), service(), about, HistoryKind::Archived, text));
        return;
    }
    for RouteHistory { facts, errors } in routes {
        let by = format!("route `{}`", facts.route);
        add_errors(history, &row.source, about, &by, errors);
        if facts.state == RouteState::Done {
            let text = format!("Route `{}` has confirmed it.", facts.route);
            history.entries.push(entry(None, service(), about, HistoryKind::Confirmed, text));
        }
    }
}

fn add_errors(
    history: &mut History,
    service: &str,
    about: (MessageId, Option<&str>),
    by: &str,
    errors: &[AttemptError],
) {
    for error in errors {
        let at = Some(error.at()).filter(|_| error.at != 0);
        let text = format!(
            "Attempt {} on {by} failed ({}): {}",
            error.attempt,
            error.class,
            shown(&error.text)
        );
        let failed = entry(at, service.to_owned(), about, HistoryKind::Failed, text);
        // A letter repeats the history of its route.
        if !history.entries.contains(&failed) {
            history.entries.push(failed);
        }
    }
}

fn add_letter(history: &mut History, letter: &LetterHistory) {
    let facts = &letter.facts;
    let (service, by) = match &facts.consumer {
        Some(by) => (by.consumer.clone(), format!("handler `{}`", by.handler)),
        None => (letter.source.clone(), format!("route `{}`", facts.route)),
    };
    let about = (facts.message, Some(&*facts.event_type));
    add_errors(history, &service, about, &by, &letter.errors);
    let text = format!(
        "It became dead letter {} of {by}: {}, {} attempts.",
        facts.id, facts.reason, facts.attempts
    );
    let dead = entry(Some(facts.dead_at), service.clone(), about, HistoryKind::DeadLetter, text);
    history.entries.push(dead);
    if let Some(resolution) = &facts.resolution {
        let text = format!(
            "Dead letter {} was {} by {}: {}",
            facts.id,
            shown(&resolution.action),
            resolution.by,
            resolution.reason
        );
        let at = Some(resolution.at);
        history.entries.push(entry(at, service, about, HistoryKind::Resolved, text));
    }
}

fn add_delivery(history: &mut History, delivery: &DeferredHistory) {
    let (facts, view) = (&delivery.facts, &delivery.facts.view);
    let by = format!("handler `{}`", view.handler);
    let about = (view.message, Some(&*view.event_type));
    add_errors(history, &view.consumer, about, &by, &delivery.errors);
    let due = view
        .due_at
        .map_or_else(|| "behind others of its key".to_owned(), |at| format!("due at {at}"));
    let text = format!("It was deferred for {by}, {due}, after {} failures.", view.failures);
    let at = Some(facts.stored_at);
    history.entries.push(entry(at, view.consumer.clone(), about, HistoryKind::Deferred, text));
}

/// Reads the newest records of a saga.
async fn saga(outbox: &Outbox, id: SagaId, limit: u32) -> Result<History, StoreError> {
    let sql = format!(
        "SELECT seq, kind, step, at_us, {} FROM {{saga_log}} WHERE saga_id = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
        short(outbox, "body")
    );
    let (mut before, mut left) = (i64::MAX, limit);
    let mut history = History::default();
    while left > 0 {
        let some = left.min(RECORDS);
        let values =
            vec![Value::from(*id.as_uuid()), Value::from(before), Value::from(i64::from(some))];
        let rows = query(outbox, &sql, values).await?;
        for row in &rows {
            before = column(row, 0)?;
            let body: Option<String> = column(row, 4)?;
            let record = body.and_then(|body| serde_json::from_str::<Record>(&body).ok());
            let (kind, step) = (maybe_name(row, 1)?.unwrap_or_default(), maybe_name(row, 2)?);
            history.entries.push(HistoryEntry {
                at: Some(instant(row, 3)?),
                service: outbox.source().to_owned(),
                message: None,
                event_type: None,
                kind: kind_of(&kind),
                text: told(&kind, step.as_deref(), record.as_ref()),
            });
        }
        let read = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        if read < some {
            break;
        }
        left -= read;
    }
    history.entries.reverse();
    if history.entries.is_empty() {
        history.gone.push(
            "No record of it is stored: it was never started here, or it has ended and its retention has removed it."
                .to_owned(),
        );
    } else if before > 1 {
        history.gone.push(format!("Records before number {before} are left out."));
    }
    Ok(history)
}

fn kind_of(kind: &str) -> HistoryKind {
    match kind {
        "started" => HistoryKind::SagaStarted,
        "completed" | "compensated" => HistoryKind::SagaEnded,
        "failed" => HistoryKind::Failed,
        _ => HistoryKind::SagaRecord,
    }
}

/// Writes a record in words.
fn told(kind: &str, step: Option<&str>, record: Option<&Record>) -> String {
    let at = step.map_or_else(String::new, |step| format!(" step `{step}`"));
    let what = kind.replace('_', " ");
    let detail = match record {
        Some(Record::Failed { error, attempt, .. }) => format!(": attempt {attempt}: {error}"),
        Some(Record::Rejected { reason, .. } | Record::Stuck { reason, .. }) => {
            format!(": {reason}")
        }
        Some(Record::CompensationStarted { reason, by }) => {
            let by = by.as_ref().map_or_else(String::new, |by| format!(" by {}", by.name));
            format!("{by}: {reason}")
        }
        Some(Record::BlockedOnLock { entity, holder, .. }) => {
            format!(": `{entity}` is locked by saga {holder}")
        }
        Some(
            Record::Resumed { by }
            | Record::RetriedFrom { by, .. }
            | Record::SkippedByOperator { by, .. },
        ) => format!(" by {}: {}", by.name, by.reason),
        _ => String::new(),
    };
    shown(&format!("{what}{at}{detail}"))
}
