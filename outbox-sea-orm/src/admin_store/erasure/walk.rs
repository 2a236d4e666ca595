//! Reads of what an erasure takes and leaves: tables in windows of ids, and counts.

use super::{Purpose, keys::Keys};
use crate::{
    admin_store::column,
    error::database,
    outbox::Outbox,
    schema::{CLAIMABLE, letter_rows, letter_rows::id_and_size, stored},
};
use outbox_core::{
    admin::Bounded,
    event::MessageId,
    outbox::{StoreError, partition_of},
};
use sea_orm::{ConnectionTrait, Value};
use std::collections::BTreeMap;

/// Rows of one transaction, so that relays and producers go on.
pub(super) const CHUNK: usize = 500;
/// Rows that one read walks over.
const WINDOW: u32 = 5_000;
/// Counting what is left stops here.
const MOST: u64 = 10_000;

/// A table whose rows have a key that no index has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyed {
    Scheduled,
    Deferred,
    Letters,
    Archive,
}

impl Keyed {
    /// Gives the name without prefix, the mark, and the column of ids.
    pub(super) const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Scheduled => ("outbox_scheduled", "{scheduled}", "scheduled_id"),
            Self::Deferred => ("outbox_deferred", "{deferred}", "stored_id"),
            Self::Letters => ("outbox_dead_letters", "{letters}", "letter_id"),
            Self::Archive => ("outbox_archive", "{archive}", "event_id"),
        }
    }

    const fn content(self) -> &'static [&'static str] {
        match self {
            Self::Archive | Self::Scheduled => &["payload", "headers"],
            Self::Letters | Self::Deferred => letter_rows::CONTENT,
        }
    }
}

/// Rows of some keys in one window of ids.
pub(super) struct Window {
    /// Their ids and bytes.
    pub(super) rows: Vec<(i64, usize)>,
    /// The last id that the read has walked over.
    pub(super) last: i64,
}

impl Outbox {
    /// Reads the rows of some keys that an erasure takes, in a window of ids after one; `None`
    /// where no row is behind it.
    pub(super) async fn window(
        &self,
        keyed: Keyed,
        keys: &[String],
        after: i64,
    ) -> Result<Option<Window>, StoreError> {
        let schema = self.schema();
        let (_, table, id) = keyed.names();
        let sql = schema.filled(&format!(
            "SELECT max(w.id) FROM (SELECT {id} AS id FROM {table} WHERE {id} > ? ORDER BY {id} LIMIT {WINDOW}) w"
        ));
        let statement = schema.statement(&sql, vec![Value::from(after)]);
        let row = self.work().query_one_raw(statement).await.map_err(database)?;
        let last = row.map(|row| column::<Option<i64>>(&row, 0)).transpose()?.flatten();
        let Some(last) = last else { return Ok(None) };
        let bytes = schema.dialect().bytes_of(keyed.content());
        let takes = match keyed {
            Keyed::Archive | Keyed::Scheduled => "1 = 1".to_owned(),
            Keyed::Letters => format!(
                "(resolution IS NULL OR headers <> '{{}}' OR errors <> '[]' OR {} > 0)",
                schema.dialect().bytes_of(&["payload"])
            ),
            Keyed::Deferred => CLAIMABLE.to_owned(),
        };
        let sql = schema.filled(&format!(
            "SELECT {id}, {bytes} FROM {table} WHERE {id} > ? AND {id} <= ? AND message_key IN ({}) \
             AND {takes} ORDER BY {id} LIMIT {CHUNK}",
            marks(keys)
        ));
        let mut bound = vec![Value::from(after), Value::from(last)];
        bound.extend(texts(keys));
        let rows =
            self.work().query_all_raw(schema.statement(&sql, bound)).await.map_err(database)?;
        let rows: Vec<(i64, usize)> = rows.iter().map(id_and_size).collect::<Result<_, _>>()?;
        let last = match rows.last() {
            Some((id, _)) if rows.len() == CHUNK => *id,
            _ => last,
        };
        Ok(Some(Window { rows, last }))
    }

    /// Counts the deferred deliveries that an erasure leaves, as an instance runs them. After the
    /// erasure these are all that are there: an instance may have run one during the walk, and put
    /// it back since.
    pub(super) async fn left_deferred(
        &self,
        keys: &Keys,
        purpose: Purpose<'_>,
    ) -> Result<Bounded, StoreError> {
        let is_left = match purpose {
            Purpose::Plan => "claimed_until >= {now}",
            Purpose::Erase { .. } => "1 = 1",
        };
        let mut left = 0;
        for keys in keys.chunks() {
            let sql = format!(
                "SELECT count(*) FROM (SELECT 1 FROM {{deferred}} WHERE message_key IN ({}) \
                 AND {is_left} LIMIT {}) c",
                marks(keys),
                MOST + 1
            );
            left += self.count(&sql, texts(keys).collect()).await?;
        }
        Ok(bounded(left))
    }

    /// Counts the events that wait to be delivered: those of a key are all in one partition.
    pub(super) async fn waiting_events(&self, keys: &Keys) -> Result<Bounded, StoreError> {
        let partitions = self.schema().partitions();
        let mut waiting = 0;
        for keys in keys.chunks() {
            let mut places: BTreeMap<i16, Vec<String>> = BTreeMap::new();
            for key in keys {
                let nil = MessageId::from_uuid(uuid::Uuid::nil());
                let place = partition_of(Some(key), nil, partitions);
                places.entry(stored(place)).or_default().push(key.clone());
            }
            for (place, keys) in places {
                let sql = format!(
                    "SELECT count(*) FROM (SELECT 1 FROM {{events}} WHERE partition_no = ? \
                     AND message_key IN ({}) LIMIT {}) e",
                    marks(&keys),
                    MOST + 1
                );
                let mut bound = vec![Value::SmallInt(Some(place))];
                bound.extend(texts(&keys));
                waiting += self.count(&sql, bound).await?;
            }
        }
        Ok(bounded(waiting))
    }

    pub(super) async fn count(&self, sql: &str, bound: Vec<Value>) -> Result<u64, StoreError> {
        let schema = self.schema();
        let statement = schema.statement(&schema.filled(sql), bound);
        let row = self.work().query_one_raw(statement).await.map_err(database)?;
        row.map_or(Ok(0), |row| column::<i64>(&row, 0).map(i64::unsigned_abs))
    }
}

fn marks(keys: &[String]) -> String {
    vec!["?"; keys.len()].join(", ")
}

fn texts(keys: &[String]) -> impl Iterator<Item = Value> {
    keys.iter().map(|key| Value::from(key.as_str()))
}

/// Gives a count that is known.
pub(super) fn exactly(count: u64) -> Bounded {
    Bounded { count, or_more: false }
}

/// Gives a count that stopped behind its limit.
fn bounded(count: u64) -> Bounded {
    Bounded { count: count.min(MOST), or_more: count > MOST }
}
