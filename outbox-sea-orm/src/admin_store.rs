//! The outbox as the store of operators, over the framework's own connections.
//!
//! It locks in the same order as relays: partitions by number, then rows.

mod resolutions;
pub(crate) mod filter;
mod plans;
mod planning;
mod acts;
mod plan_states;
mod erasure;

use crate::{
    chunks::{RESULT_BYTES, fitting_count},
    error::database,
    outbox::Outbox,
    schema::{
        Audit, AuditedAct, OLDEST_EVENT,
        letter_rows::{self, id_and_size, letter},
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use filter::condition;
use outbox_core::{
    admin::{
        Act, AdminStore, DeadLetterFilter, OperatorNote, checked_reason, letter_by_id, safe_text,
    },
    event::{LetterId, Message, MessageId, NewEvent},
    failure::DeadLetter,
    outbox::{OutboxStats, StoreError},
};
use resolutions::marks;
use sea_orm::{ConnectionTrait, QueryResult, Value};
use std::time::Duration;

/// Most letters of one page, whatever the limit: each is a parameter, of which SQLite takes 32,766.
const LONGEST_PAGE: u32 = 10_000;
/// Longest type of a message in the audit, in bytes: the longest that is stored.
const LONGEST_TYPE: usize = 255;

#[async_trait]
impl AdminStore for Outbox {
    async fn stats(&self) -> Result<OutboxStats, StoreError> {
        let limit = OutboxStats::PENDING_LIMIT;
        let sql = self.schema().filled(&format!(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM {{events}} LIMIT {limit}) a) AS pending, \
             (SELECT count(*) FROM (SELECT 1 FROM {{retries}} WHERE state = 'waiting' LIMIT {limit}) b) AS retrying, \
             (SELECT count(*) FROM (SELECT 1 FROM {{letters}} WHERE resolution IS NULL LIMIT {limit}) c) AS dead, \
             {{now}} - ({OLDEST_EVENT}) AS age"
        ));
        let statement = self.schema().statement(&sql, Vec::new());
        let row = self.reads().query_one_raw(statement).await.map_err(database)?;
        let Some(row) = row else { return Ok(OutboxStats::default()) };
        let count = |i| column::<i64>(&row, i).map(i64::unsigned_abs);
        let age: Option<i64> = column(&row, 3)?;
        Ok(OutboxStats {
            pending: count(0)?,
            oldest_pending: age.map(|us| Duration::from_micros(u64::try_from(us).unwrap_or(0))),
            retrying: count(1)?,
            dead: count(2)?,
        })
    }

    async fn newest_letter(&self) -> Result<Option<LetterId>, StoreError> {
        let sql = self.schema().filled("SELECT max(letter_id) FROM {letters}");
        let row = self
            .reads()
            .query_one_raw(self.schema().statement(&sql, Vec::new()))
            .await
            .map_err(database)?;
        Ok(row.map(|row| column::<Option<i64>>(&row, 0)).transpose()?.flatten().map(LetterId))
    }

    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<LetterId>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        self.list_letters(filter, after, limit, true).await
    }

    async fn redrive(
        &self,
        ids: &[LetterId],
        note: &OperatorNote,
    ) -> Result<Vec<LetterId>, StoreError> {
        self.act_on_letters(Act::Redrive, ids, note).await
    }

    async fn discard(
        &self,
        ids: &[LetterId],
        note: &OperatorNote,
    ) -> Result<Vec<LetterId>, StoreError> {
        self.act_on_letters(Act::Discard, ids, note).await
    }

    async fn purge(
        &self,
        ids: &[LetterId],
        note: &OperatorNote,
    ) -> Result<Vec<LetterId>, StoreError> {
        self.act_on_letters(Act::Purge, ids, note).await
    }

    async fn resend(
        &self,
        letter: LetterId,
        payload: Bytes,
        note: &OperatorNote,
    ) -> Result<Option<MessageId>, StoreError> {
        let tx = self.begin_read_committed().await?;
        let Some(letter) = self.open_letters(&tx, &[letter]).await?.pop() else { return Ok(None) };
        let Some(message) = &letter.message else {
            return Err(StoreError::Mismatch(format!(
                "the event of letter {} does not decode",
                letter.id
            )));
        };
        if let Some(encoding) = message.encoding() {
            return Err(StoreError::Refused(
                format!(
                    "its content is encoded by {encoding}, and belongs to its own message id: emit the corrected event in the \
                     service, which has the codec, and discard the letter"
                )
                .into(),
            ));
        }
        let event = changed_copy(message, payload);
        self.check(&event).map_err(|error| StoreError::Refused(error.into()))?;
        if self.resolve(&tx, &[letter.id], "resent", note).await?.is_empty() {
            return Ok(None);
        }
        let target = in_words(&[letter.id]);
        let act = AuditedAct { act: "resend", target: &target, note, plan: None };
        Audit::new(self.schema(), act).count(&tx, 1, true).await.map_err(database)?;
        if let Some(by) = &letter.consumer_origin {
            let id = self
                .schema()
                .reinsert(&tx, &letter, by, Some(&event.payload))
                .await
                .map_err(database)?;
            tx.commit().await?;
            return Ok(id);
        }
        let id = event.message_id;
        self.schema().append(&tx, &message.source, &[event]).await.map_err(database)?;
        tx.commit().await?;
        self.wake();
        Ok(Some(id))
    }

    async fn show_content(
        &self,
        letter: LetterId,
        note: &OperatorNote,
    ) -> Result<Option<DeadLetter>, StoreError> {
        checked_reason(&note.reason).map_err(|fault| StoreError::Refused(fault.into()))?;
        let Some(shown) = letter_by_id(self, letter).await? else { return Ok(None) };
        let target = seen_of(&shown);
        let act = AuditedAct { act: "show content", target: &target, note, plan: None };
        let tx = self.begin_read_committed().await?;
        Audit::new(self.schema(), act).count(&tx, 1, true).await.map_err(database)?;
        // Only what is committed tells others who saw it: until then nobody is given the content.
        tx.commit().await?;
        Ok(Some(shown))
    }
}

impl Outbox {
    /// Lists letters, as many as fit one result by the bytes of what is read of them.
    pub(crate) async fn list_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<LetterId>,
        limit: u32,
        with_payload: bool,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let (schema, dialect) = (self.schema(), self.schema().dialect());
        let (condition, mut values) = condition(filter, after);
        let condition = format!("{condition} ORDER BY letter_id LIMIT ?");
        values.push(Value::from(i64::from(limit.min(LONGEST_PAGE))));
        let sizes = match with_payload {
            true => letter_rows::sizes(dialect, &condition),
            false => letter_rows::sizes_without_payload(dialect, &condition),
        };
        let query = schema.statement(&schema.filled(&sizes), values);
        let rows = self.reads().query_all_raw(query).await.map_err(database)?;
        let there: Vec<(i64, usize)> = rows.iter().map(id_and_size).collect::<Result<_, _>>()?;
        let page = &there[..fitting_count(there.iter().map(|(_, size)| *size), RESULT_BYTES)];
        let ids: Vec<LetterId> = page.iter().map(|(id, _)| LetterId(*id)).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let these = format!("letter_id IN ({}) ORDER BY letter_id", marks(&ids));
        let sql = match with_payload {
            true => letter_rows::select(&these),
            false => letter_rows::select_without_payload(dialect, &these),
        };
        let query = schema.statement(&schema.filled(&sql), resolutions::values(&ids).collect());
        let rows = self.reads().query_all_raw(query).await.map_err(database)?;
        rows.iter().map(letter).collect()
    }

    /// Acts on letters in short transactions, with one row of the audit. Gives the letters that it
    /// has resolved.
    async fn act_on_letters(
        &self,
        act: Act,
        ids: &[LetterId],
        note: &OperatorNote,
    ) -> Result<Vec<LetterId>, StoreError> {
        let target = in_words(ids);
        let audited = AuditedAct { act: act.as_str(), target: &target, note, plan: None };
        let mut audit = Audit::new(self.schema(), audited);
        let (mut resolved, chunks) = (Vec::new(), self.short_transactions(ids).await?);
        let mut outcome = Ok(());
        for (at, chunk) in chunks.iter().enumerate() {
            let is_last = at + 1 == chunks.len();
            match self.act_on_chunk(act, chunk, note, (&mut audit, is_last)).await {
                Ok(these) => resolved.extend(these),
                Err(error) => {
                    audit.cancelled(&**self.work()).await;
                    outcome = Err(error);
                    break;
                }
            }
        }
        if act == Act::Redrive && !resolved.is_empty() {
            self.wake();
        }
        outcome.map(|()| resolved)
    }

    async fn act_on_chunk(
        &self,
        act: Act,
        chunk: &[LetterId],
        note: &OperatorNote,
        (audit, is_last): (&mut Audit<'_>, bool),
    ) -> Result<Vec<LetterId>, StoreError> {
        let tx = self.begin_read_committed().await?;
        let these = self.act_in(&tx, act, chunk, note).await?;
        let mut done = these.len();
        if act == Act::Purge {
            self.delete_content(&tx, &these).await?;
            // Also of letters that were resolved before: a repeat finds nothing of them, and is not
            // audited.
            let before: Vec<LetterId> =
                chunk.iter().copied().filter(|id| !these.contains(id)).collect();
            done += self.delete_left_content(&tx, &before).await?;
        }
        audit.count(&tx, done, is_last).await.map_err(database)?;
        tx.commit().await?;
        Ok(these)
    }
}

/// Names a letter whose content somebody sees, with its message: the audit is kept for longer.
fn seen_of(letter: &DeadLetter) -> String {
    let what = letter.message.as_ref().map_or_else(String::new, |message| {
        let event_type = safe_text(&message.event_type, LONGEST_TYPE);
        format!(", message {} of type {event_type}", message.id)
    });
    format!("letter {}{what}", letter.id)
}

/// Names letters in words, the first ten of them by their ids.
fn in_words(ids: &[LetterId]) -> String {
    let first: Vec<String> = ids.iter().take(10).map(LetterId::to_string).collect();
    let (first, more) = (first.join(", "), if ids.len() > 10 { ", .." } else { "" });
    match ids {
        [id] => format!("letter {id}"),
        ids => format!("{} letters: {first}{more}", ids.len()),
    }
}

/// Makes a new event of an old one with other content, naming the old one as its cause.
fn changed_copy(message: &Message, payload: Bytes) -> NewEvent {
    let mut headers = message.headers.clone();
    // An id is digits and hyphens: always a legal value.
    let _ = headers.insert("causationid", message.id.to_string());
    NewEvent {
        message_id: MessageId::generate(),
        event_type: message.event_type.clone(),
        event_version: message.event_version,
        topic: message.topic.clone(),
        aggregate_type: message.aggregate_type.clone(),
        key: message.key.clone(),
        content_type: message.content_type.clone(),
        payload,
        headers,
        ttl: None,
        retry: message.retry,
    }
}

fn column<T: sea_orm::TryGetable>(row: &QueryResult, index: usize) -> Result<T, StoreError> {
    row.try_get_by_index(index).map_err(database)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_named_in_words() {
        let words = |n: i64| in_words(&(1..=n).map(LetterId).collect::<Vec<_>>());
        assert_eq!(words(1), "letter 1");
        assert_eq!(words(3), "3 letters: 1, 2, 3");
        assert_eq!(words(10), "10 letters: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10");
        assert_eq!(words(11), "11 letters: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ..");
    }
}
