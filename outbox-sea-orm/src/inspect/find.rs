//! What a text names: by keys, indexes and windows, never by a scan.

use super::{LONGEST_NAME, column, events, instant, letters, lists, name, query, safe_text};
use crate::{chunks::one_of, outbox::Outbox, saga::definition_names};
use outbox_core::{
    admin::{Found, Subject},
    event::{MessageId, SagaId},
    outbox::StoreError,
};
use sea_orm::{QueryResult, Value};
use uuid::Uuid;

/// Most things that are found.
const MOST: usize = 20;
/// Most names of definitions under which a correlation id is searched.
const MOST_NAMES: usize = 100;
/// Longest key or correlation id, in characters; nothing longer is stored.
const LONGEST: usize = 255;

pub(super) async fn find(outbox: &Outbox, text: &str) -> Result<Vec<Found>, StoreError> {
    let text = text.trim();
    // PostgreSQL takes no NUL, and no name has one.
    if text.is_empty() || text.contains('\0') || text.chars().count() > LONGEST {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    if let Ok(id) = text.parse::<Uuid>() {
        found.extend(sagas(outbox, "saga_id = ?", vec![Value::from(id)]).await?);
        found.extend(message(outbox, MessageId::from_uuid(id)).await?);
    }
    if let Ok(number) = text.parse::<i64>()
        && let Some(letter) = letters::by_number(outbox, number).await?
    {
        found.push(of_letter(&letter, "dead letter"));
    }
    found.extend(by_correlation(outbox, text).await?);
    found.extend(key(outbox, text, None).await?);
    if let Some((kind, rest)) = text.split_once('/')
        && !rest.is_empty()
    {
        found.extend(key(outbox, rest, Some(kind)).await?);
    }
    found.truncate(MOST);
    Ok(found)
}

/// Finds a message wherever it is.
async fn message(outbox: &Outbox, id: MessageId) -> Result<Vec<Found>, StoreError> {
    let subject = || Subject::Message(id);
    let mut found = Vec::new();
    let mut add = |what: &str, name: String, at| {
        found.push(Found { subject: subject(), what: what.to_owned(), name, at });
    };
    let event = events::event(outbox, id).await?.rows;
    if let Some(event) = &event {
        add(
            "an event in the outbox",
            named(&event.topic, &event.event_type),
            Some(event.created_at),
        );
    }
    if let Some(scheduled) = lists::scheduled_message(outbox, id).await? {
        let name = named(&scheduled.topic, &scheduled.event_type);
        add("a scheduled event", name, Some(scheduled.deliver_at));
    }
    if let Some(event) = events::archived(outbox, id).await?.rows {
        add("an event in the archive", named(&event.topic, &event.event_type), event.finished_at);
    }
    for delivery in lists::deferred_message(outbox, id).await?.rows {
        let view = delivery.facts.view;
        add(
            "a deferred delivery",
            named(&view.topic, &view.event_type),
            Some(delivery.facts.stored_at),
        );
    }
    if !lists::inbox(outbox, id).await?.rows.is_empty() {
        add("a message in the inbox", String::new(), None);
    }
    let place = event.map(|event| event.id);
    let letters = letters::of_message(outbox, id, place).await?.rows;
    found.extend(letters.iter().map(|letter| of_letter(letter, "dead letter")));
    Ok(found)
}

fn of_letter(letter: &letters::LetterHistory, what: &str) -> Found {
    let facts = &letter.facts;
    let state = if facts.resolution.is_none() { "an open" } else { "a resolved" };
    Found {
        subject: Subject::Message(facts.message),
        what: format!("{state} {what}, {}", facts.id),
        name: named(&letter.topic, &facts.event_type),
        at: Some(facts.dead_at),
    }
}

fn named(topic: &str, event_type: &str) -> String {
    let (topic, event_type) = (safe_text(topic, LONGEST_NAME), safe_text(event_type, LONGEST_NAME));
    format!("{topic} {event_type}")
}

/// Finds a key by its events, its deferred deliveries and its dead letters. A kind is the topic or
/// the kind of aggregate that somebody wrote before it.
async fn key(outbox: &Outbox, key: &str, kind: Option<&str>) -> Result<Vec<Found>, StoreError> {
    let subject = || Subject::Key(key.to_owned());
    let is_kind = |topic: &str, event_type: &str| {
        // `orders/7` and `order/7` both name the key 7 of the type `order.placed` on `orders`.
        kind.is_none_or(|kind| {
            let singular = kind.trim_end_matches('s');
            topic == kind
                || event_type
                    .split('.')
                    .next()
                    .is_some_and(|first| first == singular || first == kind)
        })
    };
    let mut found = Vec::new();
    let events = events::of_this_key(outbox, key, 1).await?.rows;
    if let Some(event) = events.iter().find(|event| is_kind(&event.topic, &event.event_type)) {
        found.push(Found {
            subject: subject(),
            what: "a key with events in the outbox".to_owned(),
            name: named(&event.topic, &event.event_type),
            at: Some(event.created_at),
        });
    }
    let deferred = lists::deferred_key(outbox, key).await?.rows;
    if let Some(first) =
        deferred.iter().find(|row| is_kind(&row.facts.view.topic, &row.facts.view.event_type))
    {
        let view = &first.facts.view;
        found.push(Found {
            subject: subject(),
            what: "a key with deferred deliveries".to_owned(),
            name: named(&view.topic, &view.event_type),
            at: Some(first.facts.stored_at),
        });
    }
    let letters = letters::of_key(outbox, key).await?.rows;
    if let Some(letter) = letters.iter().find(|l| is_kind(&l.topic, &l.facts.event_type)) {
        found.push(Found {
            subject: subject(),
            what: "a key with dead letters".to_owned(),
            name: named(&letter.topic, &letter.facts.event_type),
            at: Some(letter.facts.dead_at),
        });
    }
    Ok(found)
}

/// Finds sagas by their correlation id, under each name that there is.
async fn by_correlation(outbox: &Outbox, text: &str) -> Result<Vec<Found>, StoreError> {
    let names = definition_names(outbox, MOST_NAMES).await?;
    let mut found = Vec::new();
    for some in names.chunks(MOST) {
        let names = some.iter().map(|name| Value::from(name.as_str()));
        let (under_these, mut values) = one_of("name", names.collect());
        values.push(Value::from(text));
        let condition = format!("{under_these} AND correlation_id = ?");
        found.extend(sagas(outbox, &condition, values).await?);
    }
    Ok(found)
}

async fn sagas(
    outbox: &Outbox,
    condition: &str,
    mut values: Vec<Value>,
) -> Result<Vec<Found>, StoreError> {
    let sql = format!(
        "SELECT saga_id, name, state, started_at FROM {{sagas}} WHERE {condition} ORDER BY name LIMIT ?"
    );
    values.push(Value::from(i64::try_from(MOST).unwrap_or(i64::MAX)));
    let saga = |row: &QueryResult| {
        Ok(Found {
            subject: Subject::Saga(column(row, 0).map(SagaId::from_uuid)?),
            what: format!("a saga that is {}", name(row, 2)?),
            name: name(row, 1)?,
            at: Some(instant(row, 3)?),
        })
    };
    query(outbox, &sql, values).await?.iter().map(saga).collect()
}
