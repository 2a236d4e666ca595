//! What a database has of a command of a saga, and of the reply to it: where it waits, and how it was
//! handled.

use super::{
    column,
    events::{self, AROUND, EventRow, FIRST, Place, WindowEdge},
    facts::{Surroundings, event_facts},
    instant, letters, lists, now, query,
};
use crate::{outbox::Outbox, schema::stored};
use outbox_core::{
    admin::{CommandFacts, Facts, HandledCommand, Subject},
    event::{Headers, SagaId},
    outbox::{CommandOutcome, PartitionNo, StoreError},
    saga::{CommandId, is_reply, saga_in_json},
};
use sea_orm::Value;

/// Most events of one saga among which a command or a reply is searched.
const MOST: i64 = 50;
/// Most consumers among whose commands one is searched.
const MOST_CONSUMERS: usize = 100;

/// Reads what the database has of a command, with what runs there.
pub(super) async fn command_facts(
    outbox: &Outbox,
    command: &CommandId,
) -> Result<CommandFacts, StoreError> {
    let around = Surroundings::read(outbox, true).await?;
    of(outbox, command, &around).await
}

/// Reads what the database has of a command.
pub(super) async fn of(
    outbox: &Outbox,
    command: &CommandId,
    around: &Surroundings,
) -> Result<CommandFacts, StoreError> {
    let nothing = Facts::nothing(Subject::Saga(command.saga), now(outbox).await?);
    let handled = handled(outbox, command).await?;
    let (sent, reply) = (nothing.clone(), nothing);
    let mut known = CommandFacts { command: command.clone(), sent, handled, reply };
    if is_sender(outbox, command.saga).await? {
        sent_event(outbox, &mut known).await?;
    }
    reply_event(outbox, &mut known).await?;
    stored_elsewhere(outbox, &mut known).await?;
    around.put_into(&mut known.sent);
    around.put_into(&mut known.reply);
    Ok(known)
}

/// Tells by stored headers whether a message is a command or the reply to it: `true` for the reply.
fn is_its_reply(headers: &str, command: &CommandId) -> Option<bool> {
    let headers = Headers::from_json(headers).ok()?;
    let of = CommandId::read(&headers).ok().flatten()?;
    (of == *command).then(|| is_reply(&headers))
}

/// Tells whether the saga is here: then its commands were written to this outbox.
async fn is_sender(outbox: &Outbox, saga: SagaId) -> Result<bool, StoreError> {
    let sql = "SELECT saga_id FROM {sagas} WHERE saga_id = ?";
    Ok(!query(outbox, sql, vec![Value::from(*saga.as_uuid())]).await?.is_empty())
}

/// Finds the event of the command. Its key is the application's, so that it may be in any partition: it
/// is searched at the beginning of each, then around the time at which the saga sent it.
async fn sent_event(outbox: &Outbox, known: &mut CommandFacts) -> Result<(), StoreError> {
    let mut long = Vec::new();
    for number in 0..outbox.schema().partitions() {
        let place = Place::Partition(stored(PartitionNo(number)));
        let number = stored(PartitionNo(number));
        let window = (WindowEdge::From, 0, FIRST);
        if let Some(event) = in_window(outbox, number, window, &known.command).await? {
            known.sent.event = Some(event_facts(outbox, event).await?);
            return Ok(());
        }
        if place.is_longer(outbox, FIRST).await? {
            long.push((number, place));
        }
    }
    let Some(sent_at) = sent_at(outbox, &known.command).await? else { return Ok(()) };
    for (number, place) in &long {
        let begin = place.begin_of(outbox, sent_at).await?;
        for window in [(WindowEdge::From, begin, AROUND.1), (WindowEdge::Before, begin, AROUND.0)] {
            if let Some(event) = in_window(outbox, *number, window, &known.command).await? {
                known.sent.event = Some(event_facts(outbox, event).await?);
                return Ok(());
            }
        }
    }
    if !long.is_empty() {
        known.sent.not_searched.push(
            "The outbox was searched for the command at the beginning of each partition and around the \
             time at which it was sent."
                .to_owned(),
        );
    }
    Ok(())
}

/// Gives the time at which the saga sent the command last, in microseconds.
async fn sent_at(outbox: &Outbox, command: &CommandId) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT at_us FROM {saga_log} WHERE saga_id = ? AND kind = 'command_sent' AND step = ? \
               ORDER BY seq DESC LIMIT 1";
    let values = vec![Value::from(*command.saga.as_uuid()), Value::from(command.step.as_str())];
    query(outbox, sql, values).await?.first().map(|row| column(row, 0)).transpose()
}

/// Finds the event of a command in a window of a partition.
async fn in_window(
    outbox: &Outbox,
    partition: i16,
    (edge, id, rows): (WindowEdge, i64, i64),
    command: &CommandId,
) -> Result<Option<EventRow>, StoreError> {
    let (compare, order) = match edge {
        WindowEdge::From => (">=", "ASC"),
        WindowEdge::Before => ("<", "DESC"),
    };
    let sql = format!(
        "SELECT w.event_id, w.headers FROM (SELECT e.event_id, e.headers FROM {{events}} e{} \
         WHERE e.partition_no = ? AND e.event_id {compare} ? ORDER BY e.event_id {order} LIMIT ?) w \
         WHERE w.headers LIKE ? ORDER BY w.event_id LIMIT {MOST}",
        outbox.schema().dialect().by_key()
    );
    let marked = format!("%{}%", saga_in_json(command.saga));
    let values =
        vec![Value::from(partition), Value::from(id), Value::from(rows), Value::from(marked)];
    for row in query(outbox, &sql, values).await? {
        if is_its_reply(&column::<String>(&row, 1)?, command) == Some(false) {
            let id: i64 = column(&row, 0)?;
            let is_it = ("w.event_id = ?", Value::from(id));
            let this = (WindowEdge::From, id, 1);
            let found = Place::Partition(partition).window(outbox, this, is_it, 1).await?;
            return Ok(found.into_iter().next());
        }
    }
    Ok(None)
}

/// Finds the event of the reply: its key is the saga's id.
async fn reply_event(outbox: &Outbox, known: &mut CommandFacts) -> Result<(), StoreError> {
    let key = known.command.saga.to_string();
    let found = events::of_this_key(outbox, &key, MOST).await?;
    for event in found.rows {
        let sql = "SELECT headers FROM {events} WHERE partition_no = ? AND event_id = ?";
        let values = vec![Value::from(stored(event.partition)), Value::from(event.id.0)];
        let rows = query(outbox, sql, values).await?;
        let headers: Option<String> = rows.first().map(|row| column(row, 0)).transpose()?;
        let headers = headers.unwrap_or_default();
        if is_its_reply(&headers, &known.command) == Some(true) {
            known.reply.event = Some(event_facts(outbox, event).await?);
            return Ok(());
        }
    }
    if !found.whole {
        known.reply.not_searched.push(
            "Events behind the first 10,000 of the reply's partition were not searched.".to_owned(),
        );
    }
    Ok(())
}

/// Finds open letters and deferred deliveries of the command and of the reply.
async fn stored_elsewhere(outbox: &Outbox, known: &mut CommandFacts) -> Result<(), StoreError> {
    let marked = saga_in_json(known.command.saga);
    let letters = letters::open_headed(outbox, &marked).await?;
    for (letter, headers) in letters.rows {
        match is_its_reply(&headers, &known.command) {
            Some(false) => known.sent.letters.push(letter.facts),
            Some(true) => known.reply.letters.push(letter.facts),
            None => {}
        }
    }
    let deferred = lists::deferred_headed(outbox, &marked).await?;
    for (delivery, headers) in deferred.rows {
        match is_its_reply(&headers, &known.command) {
            Some(false) => known.sent.deferred.push(delivery.facts),
            Some(true) => known.reply.deferred.push(delivery.facts),
            None => {}
        }
    }
    if !letters.whole || !deferred.whole {
        known.sent.not_searched.push(
            "Dead letters before the newest 10,000 and deferred deliveries behind the first 10,000 \
             were not searched."
                .to_owned(),
        );
    }
    Ok(())
}

/// Reads how a consumer has handled the command: by steps over the consumers of the barrier, whose key
/// begins with them.
async fn handled(
    outbox: &Outbox,
    command: &CommandId,
) -> Result<Option<HandledCommand>, StoreError> {
    let next = "SELECT consumer FROM {barrier} WHERE consumer > ? ORDER BY consumer LIMIT 1";
    let sql = "SELECT outcome, written_at FROM {barrier} \
               WHERE consumer = ? AND saga_id = ? AND step = ? AND round = ? AND phase = ?";
    let mut consumer = String::new();
    for _ in 0..MOST_CONSUMERS {
        let rows = query(outbox, next, vec![Value::from(consumer.as_str())]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        consumer = column(row, 0)?;
        let values = vec![
            Value::from(consumer.as_str()),
            Value::from(*command.saga.as_uuid()),
            Value::from(command.step.as_str()),
            Value::from(i64::from(command.round.get())),
            Value::from(command.phase.as_str()),
        ];
        let rows = query(outbox, sql, values).await?;
        let Some(row) = rows.first() else { continue };
        let outcome: String = column(row, 0)?;
        let Some(outcome) = CommandOutcome::from_stored(&outcome) else { continue };
        let at = instant(row, 1)?;
        return Ok(Some(HandledCommand { consumer, outcome, at }));
    }
    Ok(None)
}
