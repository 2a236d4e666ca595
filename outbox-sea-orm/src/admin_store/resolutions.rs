//! Resolves dead letters, each chunk in a short transaction.

use super::column;
use crate::{
    OutboxTransaction,
    chunks::{RESULT_BYTES, chunks_by_size},
    dialect::EVENT_COLUMNS,
    error::database,
    outbox::Outbox,
    schema::{
        letter_rows::{self, id_and_size, letter},
        micros, stored,
    },
};
use outbox_core::{
    admin::{Act, OperatorNote},
    event::LetterId,
    failure::DeadLetter,
    outbox::{ConsumerStore, PartitionNo, StoreError, partition_of},
};
use sea_orm::{ConnectionTrait, DbErr, Value};
use std::collections::{BTreeSet, HashSet};

/// Letters of one transaction, so that relays and producers go on.
const CHUNK: usize = 200;

impl Outbox {
    /// Cuts letters into chunks of one transaction each, by number and by the bytes that it copies.
    pub(super) async fn short_transactions(
        &self,
        ids: &[LetterId],
    ) -> Result<Vec<Vec<LetterId>>, StoreError> {
        let mut cut = Vec::new();
        for chunk in ids.chunks(CHUNK) {
            let sql = letter_rows::sizes(
                self.schema().dialect(),
                &format!("letter_id IN ({}) ORDER BY letter_id", marks(chunk)),
            );
            let query =
                self.schema().statement(&self.schema().filled(&sql), values(chunk).collect());
            let rows = self.work().query_all_raw(query).await.map_err(database)?;
            let there: Vec<(i64, usize)> =
                rows.iter().map(id_and_size).collect::<Result<_, _>>()?;
            let chunks = chunks_by_size(&there, CHUNK, RESULT_BYTES, |(_, size)| *size);
            cut.extend(chunks.map(|these| these.iter().map(|(id, _)| LetterId(*id)).collect()));
        }
        Ok(cut)
    }

    /// Acts on open letters; a purge deletes no content here. Gives those that no other operator has
    /// resolved before.
    pub(super) async fn act_in(
        &self,
        tx: &OutboxTransaction,
        act: Act,
        ids: &[LetterId],
        note: &OperatorNote,
    ) -> Result<Vec<LetterId>, StoreError> {
        match act {
            Act::Redrive => self.redrive_in(tx, ids, note).await,
            Act::Discard | Act::Purge => self.resolve(tx, ids, "discarded", note).await,
            _ => Err(StoreError::Refused(format!("this store cannot {act} letters").into())),
        }
    }

    /// Deletes the content of resolved letters. Gives how many of these letters are resolved.
    pub(super) async fn delete_content(
        &self,
        tx: &OutboxTransaction,
        ids: &[LetterId],
    ) -> Result<usize, StoreError> {
        self.delete_content_where(tx, ids, "").await
    }

    /// Deletes the content of resolved letters that still have some. Gives how many had.
    pub(super) async fn delete_left_content(
        &self,
        tx: &OutboxTransaction,
        ids: &[LetterId],
    ) -> Result<usize, StoreError> {
        let bytes = self.schema().dialect().bytes_of(&["payload"]);
        let left = format!(" AND ({bytes} > 0 OR headers <> '{{}}' OR errors <> '[]')");
        self.delete_content_where(tx, ids, &left).await
    }

    async fn delete_content_where(
        &self,
        tx: &OutboxTransaction,
        ids: &[LetterId],
        condition: &str,
    ) -> Result<usize, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let sql = self.schema().filled(&format!(
            "UPDATE {{letters}} SET payload = {}, headers = '{{}}', errors = '[]' \
             WHERE letter_id IN ({}) AND resolution IS NOT NULL{condition}",
            self.schema().dialect().no_bytes(),
            marks(ids)
        ));
        let done = tx
            .execute_raw(self.schema().statement(&sql, values(ids).collect()))
            .await
            .map_err(database)?;
        Ok(usize::try_from(done.rows_affected()).unwrap_or(ids.len()))
    }

    async fn redrive_in(
        &self,
        tx: &OutboxTransaction,
        ids: &[LetterId],
        note: &OperatorNote,
    ) -> Result<Vec<LetterId>, StoreError> {
        let letters = self.open_letters(tx, ids).await?;
        let (received, letters): (Vec<_>, Vec<_>) =
            letters.into_iter().partition(|letter| letter.consumer_origin.is_some());
        let received = self.redrive_received(tx, &received, note).await?;
        // Locks all partitions first, by number: then no relay is in the middle of a settle.
        let places: BTreeSet<PartitionNo> = letters.iter().map(|l| self.partition(l)).collect();
        let lock = self
            .schema()
            .filled("SELECT partition_no FROM {partitions} WHERE partition_no = ?{for_update}");
        for place in &places {
            let args = vec![Value::SmallInt(Some(stored(*place)))];
            tx.query_all_raw(self.schema().statement(&lock, args)).await.map_err(database)?;
        }
        let ids: Vec<LetterId> = letters.iter().map(|letter| letter.id).collect();
        let resolved: HashSet<LetterId> =
            self.resolve(tx, &ids, "redriven", note).await?.into_iter().collect();
        let letters: Vec<DeadLetter> =
            letters.into_iter().filter(|letter| resolved.contains(&letter.id)).collect();
        for place in places {
            let here: Vec<&DeadLetter> =
                letters.iter().filter(|letter| self.partition(letter) == place).collect();
            self.reinsert_events(tx, place, &here).await.map_err(database)?;
        }
        Ok(received.into_iter().chain(letters.iter().map(|letter| letter.id)).collect())
    }

    /// Inserts the messages of consumers' letters as deferred deliveries again.
    async fn redrive_received(
        &self,
        tx: &OutboxTransaction,
        letters: &[DeadLetter],
        note: &OperatorNote,
    ) -> Result<Vec<LetterId>, StoreError> {
        if !note.force && !letters.is_empty() {
            self.refuse_beyond_inbox_retention(tx, letters).await?;
        }
        let ids: Vec<LetterId> =
            letters.iter().filter(|l| l.message.is_some()).map(|letter| letter.id).collect();
        let resolved = self.resolve(tx, &ids, "redriven", note).await?;
        for letter in letters.iter().filter(|letter| resolved.contains(&letter.id)) {
            let Some(by) = &letter.consumer_origin else { continue };
            self.schema().reinsert(tx, letter, by, None).await.map_err(database)?;
        }
        Ok(resolved)
    }

    /// Refuses letters that are older than the retention of the inbox.
    async fn refuse_beyond_inbox_retention(
        &self,
        tx: &OutboxTransaction,
        letters: &[DeadLetter],
    ) -> Result<(), StoreError> {
        let keep = micros(self.inbox_retention());
        let ids: Vec<LetterId> = letters.iter().map(|letter| letter.id).collect();
        let sql = self.schema().filled(&format!(
            "SELECT min(letter_id) FROM {{letters}} WHERE letter_id IN ({}) AND dead_at < {{now}} - {keep}",
            marks(&ids)
        ));
        let statement = self.schema().statement(&sql, values(&ids).collect());
        let row = tx.query_one_raw(statement).await.map_err(database)?;
        match row.map(|row| column::<Option<i64>>(&row, 0)).transpose()?.flatten() {
            None => Ok(()),
            Some(id) => Err(StoreError::Refused(
                format!(
                    "letter {id} is older than what the inbox remembers: redrive it with force"
                )
                .into(),
            )),
        }
    }

    /// Inserts the events of letters of one partition again under their old ids, due now on their
    /// letters' routes.
    async fn reinsert_events(
        &self,
        tx: &OutboxTransaction,
        at: PartitionNo,
        letters: &[&DeadLetter],
    ) -> Result<(), DbErr> {
        let place = Value::SmallInt(Some(stored(at)));
        // An event has a letter for each route that gave it up, but is inserted once.
        let mut seen = HashSet::new();
        let events: Vec<LetterId> =
            letters.iter().filter(|l| seen.insert(l.event_id)).map(|l| l.id).collect();
        if events.is_empty() {
            return Ok(());
        }
        let of_letter: Vec<String> = EVENT_COLUMNS.split(", ").map(|c| format!("l.{c}")).collect();
        // A redriven event is delivered although it has expired.
        let sql = self.schema().filled(&format!(
            "INSERT INTO {{events}} (partition_no, event_id, {EVENT_COLUMNS}, created_at, expires_at) SELECT ?, \
             l.event_id, {}, l.created_at, CASE WHEN l.expires_at > {{now}} THEN l.expires_at END FROM {{letters}} l \
             WHERE l.letter_id IN ({}) AND NOT EXISTS (SELECT 1 FROM {{events}} e WHERE e.event_id = l.event_id \
             AND e.partition_no = ?)",
            of_letter.join(", "),
            marks(&events)
        ));
        let args =
            [place.clone()].into_iter().chain(values(&events)).chain([place.clone()]).collect();
        tx.execute_raw(self.schema().statement(&sql, args)).await?;

        // An event without a route is routed again.
        let mut seen = HashSet::new();
        let of_routes = letters
            .iter()
            .filter(|l| !l.route.is_empty() && seen.insert((l.event_id, l.route.as_str())));
        let of_routes: Vec<LetterId> = of_routes.map(|letter| letter.id).collect();
        if of_routes.is_empty() {
            return Ok(());
        }
        let replaced = self.schema().dialect().or_replace(
            "partition_no, event_id, route",
            &[
                "state",
                "attempts_started",
                "attempts_finished",
                "due_at",
                "failing_us",
                "errors",
                "redriven",
            ],
        );
        let sql = self.schema().filled(&format!(
            "INSERT INTO {{retries}} (partition_no, event_id, route, message_key, state, attempts_started, \
             attempts_finished, due_at, failing_us, errors, redriven) \
             SELECT ?, l.event_id, l.route, l.message_key, 'waiting', 0, 0, {{now}}, 0, '[]', ? FROM {{letters}} l \
             WHERE l.letter_id IN ({}){replaced}",
            marks(&of_routes)
        ));
        let args = [place, Value::from(true)].into_iter().chain(values(&of_routes)).collect();
        tx.execute_raw(self.schema().statement(&sql, args)).await?;
        Ok(())
    }

    /// Reads unresolved letters, without their payloads.
    pub(super) async fn open_letters(
        &self,
        tx: &OutboxTransaction,
        ids: &[LetterId],
    ) -> Result<Vec<DeadLetter>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let open =
            format!("letter_id IN ({}) AND resolution IS NULL ORDER BY letter_id", marks(ids));
        let sql = letter_rows::select_without_payload(self.schema().dialect(), &open);
        let statement = self.schema().statement(&self.schema().filled(&sql), values(ids).collect());
        let rows = tx.query_all_raw(statement).await.map_err(database)?;
        rows.iter().map(letter).collect()
    }

    /// Resolves letters. Gives those that no other operator has resolved before, in order.
    pub(super) async fn resolve(
        &self,
        tx: &OutboxTransaction,
        ids: &[LetterId],
        resolution: &str,
        note: &OperatorNote,
    ) -> Result<Vec<LetterId>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let sql = self.schema().filled(&format!(
            "SELECT letter_id FROM {{letters}} WHERE letter_id IN ({}) AND resolution IS NULL ORDER BY letter_id{{for_update}}",
            marks(ids)
        ));
        let rows = tx
            .query_all_raw(self.schema().statement(&sql, values(ids).collect()))
            .await
            .map_err(database)?;
        let open: Vec<LetterId> =
            rows.iter().map(|row| column(row, 0).map(LetterId)).collect::<Result<_, _>>()?;
        if open.is_empty() {
            return Ok(open);
        }
        let sql = self.schema().filled(&format!(
            "INSERT INTO {{unparked}} (letter_id, partition_no, event_id, route, message_key, redriven) \
             SELECT letter_id, partition_no, event_id, route, message_key, ? FROM {{letters}} \
             WHERE letter_id IN ({}) AND parks AND message_key IS NOT NULL",
            marks(&open)
        ));
        let args =
            [Value::from(resolution == "redriven")].into_iter().chain(values(&open)).collect();
        tx.execute_raw(self.schema().statement(&sql, args)).await.map_err(database)?;
        let sql = self.schema().filled(&format!(
            "UPDATE {{letters}} SET resolution = ?, resolved_at = {{now}}, resolved_by = ?, resolution_reason = ? \
             WHERE letter_id IN ({})",
            marks(&open)
        ));
        let by: String = note.by.chars().take(255).collect();
        let words = [Value::from(resolution), Value::from(by), Value::from(note.reason.as_str())];
        let args = words.into_iter().chain(values(&open)).collect();
        tx.execute_raw(self.schema().statement(&sql, args)).await.map_err(database)?;
        Ok(open)
    }

    /// Gives the partition of a letter's event, by the present number of partitions.
    fn partition(&self, letter: &DeadLetter) -> PartitionNo {
        let n = self.schema().partitions();
        match &letter.message {
            Some(message) => partition_of(message.key.as_deref(), message.id, n),
            None => {
                PartitionNo(u16::try_from(letter.event_id.0.rem_euclid(i64::from(n))).unwrap_or(0))
            }
        }
    }
}

/// Writes a placeholder for each letter.
pub(super) fn marks(ids: &[LetterId]) -> String {
    vec!["?"; ids.len()].join(", ")
}

pub(super) fn values(ids: &[LetterId]) -> impl Iterator<Item = Value> {
    ids.iter().map(|id| Value::from(id.0))
}
