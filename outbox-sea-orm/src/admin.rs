//! What an operator sees and does, over the application's pool and in its transactions.
//!
//! Locks are taken in the order of everybody: partitions by number, then rows.

mod decisions;
mod filter;

use crate::{
    cut::{ANSWER_BYTES, fitting},
    error::OutboxError,
    outbox::Outbox,
    store::letters,
};
use async_trait::async_trait;
use bytes::Bytes;
use decisions::marks;
use filter::condition;
use outbox_core::{
    admin::{AdminStore, Decision, LetterFilter},
    event::{LetterId, Message, MessageId, NewEvent},
    failure::DeadLetter,
    outbox::{OutboxStats, StoreError},
};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};
use std::time::Duration;

/// Most letters of one page, whatever was asked for: each is a parameter, of which SQLite takes 32,766.
const LONGEST_PAGE: u32 = 10_000;

#[async_trait]
impl AdminStore for Outbox {
    async fn stats(&self) -> Result<OutboxStats, StoreError> {
        let limit = OutboxStats::PENDING_LIMIT;
        let text = self.schema().filled(&format!(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM {{events}} LIMIT {limit}) a) AS pending, \
             (SELECT count(*) FROM (SELECT 1 FROM {{retries}} WHERE state = 'waiting' LIMIT {limit}) b) AS retrying, \
             (SELECT count(*) FROM (SELECT 1 FROM {{letters}} WHERE fate IS NULL LIMIT {limit}) c) AS dead, \
             {{now}} - (SELECT min(d.oldest) FROM (SELECT (SELECT e.created_at FROM {{events}} e \
             WHERE e.partition_no = p.partition_no ORDER BY e.event_id LIMIT 1) AS oldest FROM {{partitions}} p) d) AS age"
        ));
        let statement = self.schema().statement(&text, Vec::new());
        let row = self.work().query_one_raw(statement).await.map_err(database)?;
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
        let text = self.schema().filled("SELECT max(letter_id) FROM {letters}");
        let row = self
            .work()
            .query_one_raw(self.schema().statement(&text, Vec::new()))
            .await
            .map_err(database)?;
        Ok(row.map(|row| column::<Option<i64>>(&row, 0)).transpose()?.flatten().map(LetterId))
    }

    async fn dead_letters(
        &self,
        filter: &LetterFilter,
        after: Option<LetterId>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let (condition, mut values) = condition(filter, after);
        let sizes = letters::sizes(
            self.schema().dialect(),
            &format!("{condition} ORDER BY letter_id LIMIT ?"),
        );
        values.push(Value::from(i64::from(limit.min(LONGEST_PAGE))));
        let asked = self.schema().statement(&self.schema().filled(&sizes), values);
        let rows = self.work().query_all_raw(asked).await.map_err(database)?;
        let there: Vec<(i64, usize)> =
            rows.iter().map(letters::id_and_size).collect::<Result<_, _>>()?;
        let page = &there[..fitting(there.iter().map(|(_, size)| *size), ANSWER_BYTES)];
        let ids: Vec<LetterId> = page.iter().map(|(id, _)| LetterId(*id)).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let text = letters::select(&format!("letter_id IN ({}) ORDER BY letter_id", marks(&ids)));
        let asked = self
            .schema()
            .statement(&self.schema().filled(&text), decisions::values(&ids).collect());
        let rows = self.work().query_all_raw(asked).await.map_err(database)?;
        rows.iter().map(letters::letter).collect()
    }

    async fn redrive(
        &self,
        ids: &[LetterId],
        decision: &Decision,
    ) -> Result<Vec<LetterId>, StoreError> {
        let mut redriven = Vec::new();
        for chunk in self.short_transactions(ids).await? {
            let tx = self.operate().await?;
            redriven.extend(self.redrive_in(&tx, &chunk, decision).await?);
            tx.commit().await?;
        }
        if !redriven.is_empty() {
            self.wake();
        }
        Ok(redriven)
    }

    async fn discard(
        &self,
        ids: &[LetterId],
        decision: &Decision,
    ) -> Result<Vec<LetterId>, StoreError> {
        let mut discarded = Vec::new();
        for chunk in self.short_transactions(ids).await? {
            let tx = self.operate().await?;
            discarded.extend(self.decide(&tx, &chunk, "discarded", decision).await?);
            tx.commit().await?;
        }
        Ok(discarded)
    }

    async fn purge(
        &self,
        ids: &[LetterId],
        decision: &Decision,
    ) -> Result<Vec<LetterId>, StoreError> {
        let mut purged = Vec::new();
        for chunk in self.short_transactions(ids).await? {
            let tx = self.operate().await?;
            purged.extend(self.decide(&tx, &chunk, "discarded", decision).await?);
            self.delete_content(&tx, &chunk).await?;
            tx.commit().await?;
        }
        Ok(purged)
    }

    async fn resend(
        &self,
        letter: LetterId,
        payload: Bytes,
        decision: &Decision,
    ) -> Result<Option<MessageId>, StoreError> {
        let tx = self.operate().await?;
        let Some(letter) = self.open_letters(&tx, &[letter]).await?.pop() else { return Ok(None) };
        let Some(message) = &letter.message else {
            return Err(StoreError::Mismatch(format!(
                "the event of letter {} does not decode",
                letter.id
            )));
        };
        let event = again(message, payload);
        self.check(&event).map_err(|error| StoreError::Refused(error.into()))?;
        if self.decide(&tx, &[letter.id], "resent", decision).await?.is_empty() {
            return Ok(None);
        }
        if let Some(by) = &letter.received {
            let id = self
                .schema()
                .store_again(&tx, &letter, by, Some(&event.payload))
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
}

/// Makes a new event of an old one with other content, naming the old one as its cause.
fn again(message: &Message, payload: Bytes) -> NewEvent {
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

fn database(error: DbErr) -> StoreError {
    OutboxError::Database(error).into()
}

fn column<T: sea_orm::TryGetable>(row: &QueryResult, index: usize) -> Result<T, StoreError> {
    row.try_get_by_index(index).map_err(database_get)
}

fn database_get(error: impl Into<DbErr>) -> StoreError {
    database(error.into())
}
