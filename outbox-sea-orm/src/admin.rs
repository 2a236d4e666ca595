//! What an operator sees and does, over the application's pool and in its transactions.
//!
//! Locks are taken in the order of everybody: partitions by number, then rows.

use crate::{
    OutboxTransaction,
    error::OutboxError,
    outbox::Outbox,
    schema::{EVENT_COLUMNS, micros, origin, stored},
    store::letters::{self, RECEIVED},
};
use async_trait::async_trait;
use bytes::Bytes;
use outbox_core::{
    admin::{AdminStore, Decision, LetterFilter},
    event::{LetterId, Message, MessageId, NewEvent},
    failure::DeadLetter,
    outbox::{ConsumerStore, OutboxStats, PartitionNo, StoreError, partition_of},
};
use sea_orm::{ConnectionTrait, DbErr, IsolationLevel, QueryResult, TransactionOptions, Value};
use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

/// Letters of one transaction, so that relays and producers go on.
const CHUNK: usize = 200;

#[async_trait]
impl AdminStore for Outbox {
    async fn stats(&self) -> Result<OutboxStats, StoreError> {
        let limit = OutboxStats::PENDING_LIMIT;
        let text = self.schema().sql(&format!(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM {{events}} LIMIT {limit}) a) AS pending, \
             (SELECT count(*) FROM (SELECT 1 FROM {{retries}} WHERE state = 'waiting' LIMIT {limit}) b) AS retrying, \
             (SELECT count(*) FROM (SELECT 1 FROM {{letters}} WHERE fate IS NULL LIMIT {limit}) c) AS dead, \
             {{now}} - (SELECT min(d.oldest) FROM (SELECT (SELECT e.created_at FROM {{events}} e \
             WHERE e.partition_no = p.partition_no ORDER BY e.event_id LIMIT 1) AS oldest FROM {{partitions}} p) d) AS age"
        ));
        let statement = self.schema().statement(&text, Vec::new());
        let row = self.connection().query_one_raw(statement).await.map_err(database)?;
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

    async fn dead_letters(
        &self,
        filter: &LetterFilter,
        after: Option<LetterId>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let (condition, mut values) = condition(filter, after);
        let text = self.schema().sql(&letters::select(&format!("{condition} ORDER BY letter_id LIMIT ?")));
        values.push(Value::from(i64::from(limit)));
        let rows = self.connection().query_all_raw(self.schema().statement(&text, values)).await.map_err(database)?;
        rows.iter().map(letters::letter).collect()
    }

    async fn redrive(&self, ids: &[LetterId], decision: &Decision) -> Result<Vec<LetterId>, StoreError> {
        let mut redriven = Vec::new();
        for chunk in ids.chunks(CHUNK) {
            let tx = self.operate().await?;
            redriven.extend(self.redrive_in(&tx, chunk, decision).await?);
            tx.commit().await?;
        }
        if !redriven.is_empty() {
            self.wake();
        }
        Ok(redriven)
    }

    async fn discard(&self, ids: &[LetterId], decision: &Decision) -> Result<Vec<LetterId>, StoreError> {
        let mut discarded = Vec::new();
        for chunk in ids.chunks(CHUNK) {
            let tx = self.operate().await?;
            discarded.extend(self.decide(&tx, chunk, "discarded", decision).await?);
            tx.commit().await?;
        }
        Ok(discarded)
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
            return Err(StoreError::Mismatch(format!("the event of letter {} does not decode", letter.id)));
        };
        if self.decide(&tx, &[letter.id], "resent", decision).await?.is_empty() {
            return Ok(None);
        }
        if let Some(by) = &letter.received {
            let id = self.schema().store_again(&tx, &letter, by, Some(&payload)).await.map_err(database)?;
            tx.commit().await?;
            return Ok(id);
        }
        let event = again(message, payload);
        let id = event.message_id;
        self.schema().append(&tx, &message.source, &[event]).await.map_err(database)?;
        tx.commit().await?;
        self.wake();
        Ok(Some(id))
    }
}

impl Outbox {
    /// Opens an operator's transaction: READ COMMITTED, so that it sees what others have decided meanwhile.
    async fn operate(&self) -> Result<OutboxTransaction, StoreError> {
        let isolation_level = Some(IsolationLevel::ReadCommitted);
        Ok(self.begin_with(TransactionOptions { isolation_level, ..TransactionOptions::default() }).await?)
    }

    async fn redrive_in(
        &self,
        tx: &OutboxTransaction,
        ids: &[LetterId],
        decision: &Decision,
    ) -> Result<Vec<LetterId>, StoreError> {
        let letters = self.open_letters(tx, ids).await?;
        let (received, letters): (Vec<_>, Vec<_>) = letters.into_iter().partition(|letter| letter.received.is_some());
        let received = self.redrive_received(tx, &received, decision).await?;
        // First all partitions, by number: no settle of a relay is between its lock and its end then.
        let places: BTreeSet<PartitionNo> = letters.iter().map(|l| self.partition(l)).collect();
        let lock = self.schema().sql("SELECT partition_no FROM {partitions} WHERE partition_no = ?{for_update}");
        for place in &places {
            let args = vec![Value::SmallInt(Some(stored(*place)))];
            tx.query_all_raw(self.schema().statement(&lock, args)).await.map_err(database)?;
        }
        let ids: Vec<LetterId> = letters.iter().map(|letter| letter.id).collect();
        let decided: HashSet<LetterId> = self.decide(tx, &ids, "redriven", decision).await?.into_iter().collect();
        let letters: Vec<DeadLetter> = letters.into_iter().filter(|letter| decided.contains(&letter.id)).collect();
        for place in places {
            let here: Vec<&DeadLetter> = letters.iter().filter(|letter| self.partition(letter) == place).collect();
            self.put_back(tx, place, &here).await.map_err(database)?;
        }
        Ok(received.into_iter().chain(letters.iter().map(|letter| letter.id)).collect())
    }

    /// Stores the messages of consumers' letters for their handlers again.
    async fn redrive_received(
        &self,
        tx: &OutboxTransaction,
        letters: &[DeadLetter],
        decision: &Decision,
    ) -> Result<Vec<LetterId>, StoreError> {
        if !decision.force && !letters.is_empty() {
            self.refuse_forgotten(tx, letters).await?;
        }
        let ids: Vec<LetterId> = letters.iter().filter(|l| l.message.is_some()).map(|letter| letter.id).collect();
        let decided = self.decide(tx, &ids, "redriven", decision).await?;
        for letter in letters.iter().filter(|letter| decided.contains(&letter.id)) {
            let Some(by) = &letter.received else { continue };
            self.schema().store_again(tx, letter, by, None).await.map_err(database)?;
        }
        Ok(decided)
    }

    /// Refuses letters that are older than what the inbox remembers.
    async fn refuse_forgotten(&self, tx: &OutboxTransaction, letters: &[DeadLetter]) -> Result<(), StoreError> {
        let keep = micros(self.inbox_retention());
        let ids: Vec<LetterId> = letters.iter().map(|letter| letter.id).collect();
        let text = self.schema().sql(&format!(
            "SELECT min(letter_id) FROM {{letters}} WHERE letter_id IN ({}) AND dead_at < {{now}} - {keep}",
            marks(&ids)
        ));
        let statement = self.schema().statement(&text, values(&ids).collect());
        let row = tx.query_one_raw(statement).await.map_err(database)?;
        match row.map(|row| column::<Option<i64>>(&row, 0)).transpose()?.flatten() {
            None => Ok(()),
            Some(id) => Err(StoreError::Refused(
                format!("letter {id} is older than what the inbox remembers: redrive it with force").into(),
            )),
        }
    }

    /// Puts the events of letters of one partition back under their old ids, due now on their letters' routes.
    async fn put_back(&self, tx: &OutboxTransaction, at: PartitionNo, letters: &[&DeadLetter]) -> Result<(), DbErr> {
        let place = Value::SmallInt(Some(stored(at)));
        // An event has a letter for each route that gave it up, but comes back once.
        let mut seen = HashSet::new();
        let events: Vec<LetterId> = letters.iter().filter(|l| seen.insert(l.event_id)).map(|l| l.id).collect();
        if events.is_empty() {
            return Ok(());
        }
        let of_letter: Vec<String> = EVENT_COLUMNS.split(", ").map(|c| format!("l.{c}")).collect();
        // An operator who redrives an expired event wants it delivered all the same.
        let text = self.schema().sql(&format!(
            "INSERT INTO {{events}} (partition_no, event_id, {EVENT_COLUMNS}, created_at, expires_at) SELECT ?, \
             l.event_id, {}, l.created_at, CASE WHEN l.expires_at > {{now}} THEN l.expires_at END FROM {{letters}} l \
             WHERE l.letter_id IN ({}) AND NOT EXISTS (SELECT 1 FROM {{events}} e WHERE e.event_id = l.event_id \
             AND e.partition_no = ?)",
            of_letter.join(", "),
            marks(&events)
        ));
        let args = [place.clone()].into_iter().chain(values(&events)).chain([place.clone()]).collect();
        tx.execute_raw(self.schema().statement(&text, args)).await?;

        // What no route took is routed anew.
        let mut seen = HashSet::new();
        let legs = letters.iter().filter(|l| !l.route.is_empty() && seen.insert((l.event_id, l.route.as_str())));
        let legs: Vec<LetterId> = legs.map(|letter| letter.id).collect();
        if legs.is_empty() {
            return Ok(());
        }
        let replaced = self.schema().dialect().or_replace(
            "partition_no, event_id, route",
            &["state", "attempts_started", "attempts_finished", "due_at", "failing_us", "errors", "redriven"],
        );
        let text = self.schema().sql(&format!(
            "INSERT INTO {{retries}} (partition_no, event_id, route, message_key, state, attempts_started, \
             attempts_finished, due_at, failing_us, errors, redriven) \
             SELECT ?, l.event_id, l.route, l.message_key, 'waiting', 0, 0, {{now}}, 0, '[]', ? FROM {{letters}} l \
             WHERE l.letter_id IN ({}){replaced}",
            marks(&legs)
        ));
        let args = [place, Value::from(true)].into_iter().chain(values(&legs)).collect();
        tx.execute_raw(self.schema().statement(&text, args)).await?;
        Ok(())
    }

    /// Reads letters about which nothing was decided.
    async fn open_letters(&self, tx: &OutboxTransaction, ids: &[LetterId]) -> Result<Vec<DeadLetter>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let open = format!("letter_id IN ({}) AND fate IS NULL ORDER BY letter_id", marks(ids));
        let statement = self.schema().statement(&self.schema().sql(&letters::select(&open)), values(ids).collect());
        let rows = tx.query_all_raw(statement).await.map_err(database)?;
        rows.iter().map(letters::letter).collect()
    }

    /// Notes a decision about letters. Gives those of which nobody was faster, in order.
    async fn decide(
        &self,
        tx: &OutboxTransaction,
        ids: &[LetterId],
        fate: &str,
        decision: &Decision,
    ) -> Result<Vec<LetterId>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let text = self.schema().sql(&format!(
            "SELECT letter_id FROM {{letters}} WHERE letter_id IN ({}) AND fate IS NULL ORDER BY letter_id{{for_update}}",
            marks(ids)
        ));
        let rows = tx.query_all_raw(self.schema().statement(&text, values(ids).collect())).await.map_err(database)?;
        let open: Vec<LetterId> = rows.iter().map(|row| column(row, 0).map(LetterId)).collect::<Result<_, _>>()?;
        if open.is_empty() {
            return Ok(open);
        }
        let text = self.schema().sql(&format!(
            "UPDATE {{letters}} SET fate = ?, fate_at = {{now}}, fate_by = ?, fate_why = ? WHERE letter_id IN ({})",
            marks(&open)
        ));
        let by: String = decision.by.chars().take(255).collect();
        let words = [Value::from(fate), Value::from(by), Value::from(decision.why.as_str())];
        let args = words.into_iter().chain(values(&open)).collect();
        tx.execute_raw(self.schema().statement(&text, args)).await.map_err(database)?;
        Ok(open)
    }

    /// Where the event of a letter belongs, by the number of partitions of today.
    fn partition(&self, letter: &DeadLetter) -> PartitionNo {
        let n = self.schema().partitions();
        match &letter.message {
            Some(message) => partition_of(message.key.as_deref(), message.id, n),
            None => PartitionNo(u16::try_from(letter.event_id.0.rem_euclid(i64::from(n))).unwrap_or(0)),
        }
    }
}

/// Writes a mark for each letter.
fn marks(ids: &[LetterId]) -> String {
    vec!["?"; ids.len()].join(", ")
}

fn values(ids: &[LetterId]) -> impl Iterator<Item = Value> {
    ids.iter().map(|id| Value::from(id.0))
}

/// Writes the condition of a filter.
fn condition(filter: &LetterFilter, after: Option<LetterId>) -> (String, Vec<Value>) {
    let mut parts = vec!["1 = 1".to_owned()];
    let mut values = Vec::new();
    let texts = [
        ("topic", filter.topic.as_deref()),
        ("event_type", filter.event_type.as_deref()),
        ("message_key", filter.key.as_deref()),
        ("route", filter.route.as_deref()),
        ("reason", filter.reason.map(|r| r.as_str())),
    ];
    for (column, text) in texts {
        if let Some(text) = text {
            parts.push(format!("{column} = ?"));
            values.push(Value::from(text));
        }
    }
    if let Some(consumer) = &filter.consumer {
        let route = origin(consumer, filter.handler.as_deref().unwrap_or_default());
        parts.push(format!("partition_no = {RECEIVED}"));
        parts.push(match filter.handler {
            Some(_) => "route = ?".to_owned(),
            None => format!("substr(route, 1, {}) = ?", route.chars().count()),
        });
        values.push(Value::from(route));
    }
    if filter.route.is_some() {
        parts.push(format!("partition_no <> {RECEIVED}"));
    }
    if let Some(times) = &filter.dead_at {
        parts.push("dead_at >= ? AND dead_at < ?".to_owned());
        values.extend([Value::from(times.start.as_micros()), Value::from(times.end.as_micros())]);
    }
    if !filter.decided_too {
        parts.push("fate IS NULL".to_owned());
    }
    if let Some(after) = after {
        parts.push("letter_id > ?".to_owned());
        values.push(Value::from(after.0));
    }
    (parts.join(" AND "), values)
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
