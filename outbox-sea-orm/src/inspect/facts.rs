//! The facts that explain why a subject stands still.

use super::{
    WINDOW, column, commands,
    events::{self, EventRow},
    instant, letters, lists, maybe_instant, name, now,
    overview::{controls, coordinators, instances, partition_owners, relays, running_parts},
    query, short, shown,
};
use crate::outbox::Outbox;
use outbox_core::{
    admin::{
        AheadFacts, Bounded, ConsumerView, Controls, EventFacts, Facts, InstanceFacts, RelayView,
        RouteFacts, SagaFacts, SagasLive, Subject, safe_text,
    },
    event::{MessageId, SagaId},
    outbox::{PartitionNo, RouteState, StoreError},
    saga::{Instance, Record},
};
use sea_orm::{QueryResult, Value};

/// Longest progress of a saga that is read, in bytes: the longest that is stored.
const LONGEST_PROGRESS: usize = 8 << 20;
/// Records at the end of a saga's log in which its last failure is searched.
const LAST_RECORDS: i64 = 100;

pub(super) async fn facts(outbox: &Outbox, subject: &Subject) -> Result<Option<Facts>, StoreError> {
    let mut facts = Facts::nothing(subject.clone(), now(outbox).await?);
    match subject {
        Subject::Message(id) => message(outbox, &mut facts, *id).await?,
        Subject::Key(key) => of_key(outbox, &mut facts, key).await?,
        Subject::Saga(id) => {
            facts.saga = saga(outbox, *id).await?;
        }
    }
    if facts.is_empty() && facts.not_searched.is_empty() {
        return Ok(None);
    }
    let with_parts = facts.saga.is_some() || !facts.deferred.is_empty();
    let around = Surroundings::read(outbox, with_parts).await?;
    around.put_into(&mut facts);
    for command in facts.awaited_commands() {
        facts.commands.push(commands::of(outbox, &command, &around).await?);
    }
    Ok(Some(facts))
}

/// What runs around a subject, and what operators have paused.
pub(super) struct Surroundings {
    controls: Controls,
    owners: Vec<(PartitionNo, Option<String>)>,
    relays: Vec<RelayView>,
    coordinators: Vec<ConsumerView<SagasLive>>,
    instances: Vec<InstanceFacts>,
}

impl Surroundings {
    /// Reads it; consumers and coordinators only `with_parts`.
    pub(super) async fn read(outbox: &Outbox, with_parts: bool) -> Result<Self, StoreError> {
        let controls = controls(outbox).await?;
        let owners = partition_owners(outbox).await?;
        let relays = relays(outbox, &owners).await?;
        let parts = if with_parts { running_parts(outbox).await? } else { Vec::new() };
        let instances = if with_parts { instances(outbox, &parts).await? } else { Vec::new() };
        Ok(Self { controls, owners, relays, coordinators: coordinators(&parts), instances })
    }

    /// Adds it to facts, with the owner of their event.
    pub(super) fn put_into(&self, facts: &mut Facts) {
        facts.controls.clone_from(&self.controls);
        facts.relays.clone_from(&self.relays);
        facts.coordinators.clone_from(&self.coordinators);
        facts.instances.clone_from(&self.instances);
        if let Some(event) = &mut facts.event {
            let owner = self.owners.iter().find(|(partition, _)| *partition == event.partition);
            event.owner = owner.and_then(|(_, owner)| owner.clone());
        }
    }
}

async fn message(outbox: &Outbox, facts: &mut Facts, id: MessageId) -> Result<(), StoreError> {
    let found = events::event(outbox, id).await?;
    let place = found.rows.as_ref().map(|event| event.id);
    if let Some(event) = found.rows {
        facts.behind = events::behind(outbox, &event).await?;
        facts.event = Some(event_facts(outbox, event).await?);
    } else {
        facts.scheduled = lists::scheduled_message(outbox, id).await?;
        let archived = events::archived(outbox, id).await?;
        facts.finished_at = archived.rows.and_then(|event| event.finished_at);
        if !found.whole || !archived.whole {
            facts.not_searched.push(
                "The outbox and the archive were searched around the time that the id carries."
                    .to_owned(),
            );
        }
    }
    let letters = letters::of_message(outbox, id, place).await?;
    if !letters.whole {
        facts
            .not_searched
            .push("Dead letters before the newest 10,000 were not searched.".to_owned());
    }
    facts.letters = letters.rows.into_iter().map(|letter| letter.facts).collect();
    let deferred = lists::deferred_message(outbox, id).await?;
    let inbox = lists::inbox(outbox, id).await?;
    if !deferred.whole || !inbox.whole {
        facts
            .not_searched
            .push("More than 200 handlers and senders: not all were searched.".to_owned());
    }
    facts.deferred = deferred.rows.into_iter().map(|delivery| delivery.facts).collect();
    facts.received = inbox.rows;
    // An open letter that parks its key holds up what is in the outbox.
    let parking = facts.letters.iter().find(|l| l.resolution.is_none() && l.parks);
    if let (None, Some(key)) = (&facts.event, parking.and_then(|letter| letter.key.clone())) {
        facts.behind = waiting_of(outbox, &key).await?;
    }
    Ok(())
}

/// Counts the events of a key that wait in the outbox.
async fn waiting_of(outbox: &Outbox, key: &str) -> Result<Bounded, StoreError> {
    let found = events::of_this_key(outbox, key, WINDOW).await?;
    let count = found.rows.len() as u64;
    Ok(Bounded { count, or_more: !found.whole })
}

async fn of_key(outbox: &Outbox, facts: &mut Facts, key: &str) -> Result<(), StoreError> {
    let found = events::of_this_key(outbox, key, 1).await?;
    if !found.whole {
        facts.not_searched.push(
            "Events behind the first 10,000 of the key's partition were not searched.".to_owned(),
        );
    }
    let letters = letters::of_key(outbox, key).await?;
    if !letters.whole {
        facts
            .not_searched
            .push("Dead letters before the newest 10,000 were not searched.".to_owned());
    }
    let open = letters.rows.into_iter().map(|letter| letter.facts);
    facts.letters = open.filter(|letter| letter.resolution.is_none()).collect();
    let deferred = lists::deferred_key(outbox, key).await?;
    if !deferred.whole {
        facts
            .not_searched
            .push("Deferred deliveries behind the first 10,000 were not searched.".to_owned());
    }
    facts.deferred = deferred.rows.into_iter().map(|delivery| delivery.facts).collect();
    if let Some(event) = found.rows.into_iter().next() {
        facts.behind = events::behind(outbox, &event).await?;
        facts.event = Some(event_facts(outbox, event).await?);
    }
    Ok(())
}

/// Reads what holds an event up; its owner follows.
pub(super) async fn event_facts(
    outbox: &Outbox,
    event: EventRow,
) -> Result<EventFacts, StoreError> {
    let routes = events::routes(outbox, event.partition, event.id).await?;
    let routes: Vec<RouteFacts> = routes.into_iter().map(|route| route.facts).collect();
    let (mut ahead, mut parked_by) = (None, None);
    if let Some(key) = &event.key {
        let first = events::of_this_key(outbox, key, 1).await?.rows.into_iter().next();
        if let Some(first) = first.filter(|first| first.id < event.id) {
            let rows = events::routes(outbox, first.partition, first.id).await?;
            let rows: Vec<RouteFacts> = rows.into_iter().map(|route| route.facts).collect();
            if holds_up(&rows, &routes) {
                let (message, event_type) = (first.message, first.event_type);
                ahead = Some(AheadFacts { message, event_type, routes: rows });
            }
        }
        let letter = letters::parking(outbox, event.partition, key, event.id).await?;
        // A route that has confirmed the event, or given it up, is not held up by its key.
        let waits = |route: &str| {
            let row = routes.iter().find(|row| row.route == route);
            row.is_none_or(|row| row.state == RouteState::Waiting)
        };
        parked_by = letter.map(|letter| letter.facts).filter(|letter| waits(&letter.route));
    }
    Ok(EventFacts {
        message: event.message,
        partition: event.partition,
        owner: None,
        topic: event.topic,
        event_type: event.event_type,
        key: event.key,
        created_at: event.created_at,
        expires_at: event.expires_at,
        routes,
        ahead,
        parked_by,
    })
}

/// Tells whether an event with the first rows holds up one of its key with the second ones: both wait
/// for one route. An event without a row waits for all of its routes.
fn holds_up(first: &[RouteFacts], second: &[RouteFacts]) -> bool {
    let waits = |row: &&RouteFacts| row.state == RouteState::Waiting;
    let shared =
        |row: &RouteFacts| second.iter().filter(waits).any(|other| other.route == row.route);
    first.is_empty() || second.is_empty() || first.iter().filter(waits).any(shared)
}

async fn saga(outbox: &Outbox, id: SagaId) -> Result<Option<SagaFacts>, StoreError> {
    let bytes = outbox.schema().dialect().bytes_of(&["progress"]);
    let sql = format!(
        "SELECT name, version, correlation_id, state, CASE WHEN {bytes} <= {LONGEST_PROGRESS} THEN progress END, \
         due_at, epoch, deadline_at, changed_at, ended_at, seq FROM {{sagas}} WHERE saga_id = ?"
    );
    let rows = query(outbox, &sql, vec![Value::from(*id.as_uuid())]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let version: i32 = column(row, 1)?;
    let last_error = last_error(outbox, id, column(row, 10)?).await?;
    Ok(Some(SagaFacts {
        id,
        definition: (column::<String>(row, 0)?.into(), version.unsigned_abs()),
        correlation: name(row, 2)?,
        instance: progress(row)?,
        due_at: maybe_instant(row, 5)?,
        // A claimed saga has an odd epoch.
        claimed: column::<i64>(row, 6)? % 2 != 0,
        deadline_at: maybe_instant(row, 7)?,
        changed_at: instant(row, 8)?,
        ended_at: maybe_instant(row, 9)?,
        last_error,
    }))
}

/// Reads a saga's state. Where its progress cannot be read, the reason says so.
fn progress(row: &QueryResult) -> Result<Instance, StoreError> {
    let text: Option<String> = column(row, 4)?;
    if let Some(instance) = text.and_then(|text| serde_json::from_str::<Instance>(&text).ok()) {
        return Ok(Instance { reason: instance.reason.map(|r| safe_text(&r, 1_024)), ..instance });
    }
    let state: String = column(row, 3)?;
    let mismatch = |()| StoreError::Mismatch(format!("a saga's state is `{}`", shown(&state)));
    Ok(Instance {
        state: state.parse().map_err(mismatch)?,
        reason: Some("its progress cannot be read".to_owned()),
        ..Instance::default()
    })
}

/// Reads the last failure among the last records of a saga.
async fn last_error(outbox: &Outbox, id: SagaId, last: i64) -> Result<Option<String>, StoreError> {
    let sql = format!(
        "SELECT {} FROM {{saga_log}} WHERE saga_id = ? AND seq > ? AND kind = 'failed' ORDER BY seq DESC LIMIT 1",
        short(outbox, "body")
    );
    let values = vec![Value::from(*id.as_uuid()), Value::from(last - LAST_RECORDS)];
    let rows = query(outbox, &sql, values).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let body: Option<String> = column(row, 0)?;
    Ok(match body.and_then(|body| serde_json::from_str(&body).ok()) {
        Some(Record::Failed { error, .. }) => Some(shown(&error)),
        _ => None,
    })
}
