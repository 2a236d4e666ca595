//! The inbox rows of several messages, in one statement.

use super::{
    Schema,
    inbox::{check, values},
    micros, rows,
};
use outbox_core::outbox::InboxKey;
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value, prelude::Uuid};
use std::collections::{BTreeSet, HashSet};

/// Rows of one INSERT: far below every limit of parameters, and more than a consumer asks for.
const CHUNK: usize = 256;

/// Handler, source and message of an inbox row; the consumer is one for all.
type RowKey = (String, String, Uuid);

/// A key with the order hash of its message.
type Key<'a> = (InboxKey<'a>, Option<i64>);

#[doc(hidden)]
impl Schema {
    /// Writes the inbox rows of messages in the order of the keys, except where a row is there
    /// already or deferred deliveries with the order hash come first. Tells of each key whether its
    /// row was written; of equal keys the first counts.
    ///
    /// Waits for other transactions that write the same rows at the same time.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub async fn admit_all<C: ConnectionTrait>(
        &self,
        conn: &C,
        keys: &[Key<'_>],
    ) -> Result<Vec<bool>, DbErr> {
        let mut admitted = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(CHUNK) {
            chunk.iter().try_for_each(|(key, _)| check(key))?;
            let mut written = if self.dialect.locks_gaps() {
                self.write_unless_deferred(conn, chunk).await?
            } else {
                self.write_all(conn, chunk).await?
            };
            admitted.extend(chunk.iter().map(|(key, _)| written.remove(&row_key(key))));
        }
        Ok(admitted)
    }

    /// Writes the rows where one statement can also look for deferred deliveries.
    async fn write_all<C: ConnectionTrait>(
        &self,
        conn: &C,
        keys: &[Key<'_>],
    ) -> Result<HashSet<RowKey>, DbErr> {
        let keys = padded(&keys.iter().collect::<Vec<_>>());
        let keep = micros(self.inbox_retention);
        let sql = self.filled(&self.dialect.insert_unless_deferred(keys.len(), keep));
        let mut bound = Vec::with_capacity(keys.len() * 5);
        for (key, order_hash) in keys {
            bound.extend(values(key));
            bound.push(Value::from(*order_hash));
        }
        written(&conn.query_all_raw(self.statement(&sql, bound)).await?)
    }

    /// Writes the rows where such a statement would lock the deferred deliveries that it reads, and
    /// the gaps where it finds none.
    async fn write_unless_deferred<C: ConnectionTrait>(
        &self,
        conn: &C,
        keys: &[Key<'_>],
    ) -> Result<HashSet<RowKey>, DbErr> {
        let deferred = self.deferred_orders(conn, keys).await?;
        let is_first = |(key, order_hash): &&Key<'_>| {
            order_hash.is_none_or(|hash| !deferred.contains(&(key.handler.to_owned(), hash)))
        };
        let mut keys: Vec<&Key<'_>> = keys.iter().filter(is_first).collect();
        if !self.dialect.returns_written() {
            let known = self.known(conn, &keys).await?;
            let mut seen = known.clone();
            keys.retain(|(key, _)| seen.insert(row_key(key)));
        }
        if keys.is_empty() {
            return Ok(HashSet::new());
        }
        let written_keys = padded(&keys);
        let mut bound = Vec::with_capacity(written_keys.len() * 4);
        written_keys.iter().for_each(|(key, _)| bound.extend(values(key)));
        let keep = micros(self.inbox_retention);
        let insert = self.filled(&self.dialect.insert_inbox_rows(written_keys.len(), keep));
        if !self.dialect.returns_written() {
            // It cannot return what it has written. So it has to write all that were unknown just before.
            let inserted = conn.execute_raw(self.statement(&insert, bound)).await?.rows_affected();
            if usize::try_from(inserted).ok() != Some(keys.len()) {
                return Err(DbErr::Custom(
                    "another transaction received some of these messages meanwhile".into(),
                ));
            }
            return Ok(keys.into_iter().map(|(key, _)| row_key(key)).collect());
        }
        written(&conn.query_all_raw(self.statement(&insert, bound)).await?)
    }

    /// Gives the handlers and order hashes, of these keys, with deferred deliveries.
    async fn deferred_orders<C: ConnectionTrait>(
        &self,
        conn: &C,
        keys: &[Key<'_>],
    ) -> Result<HashSet<(String, i64)>, DbErr> {
        let hashes: BTreeSet<i64> = keys.iter().filter_map(|(_, hash)| *hash).collect();
        let (Some((first, _)), false) = (keys.first(), hashes.is_empty()) else {
            return Ok(HashSet::new());
        };
        let handlers: BTreeSet<&str> = keys.iter().map(|(key, _)| key.handler).collect();
        let sql = self.filled(&format!(
            "SELECT handler, order_hash FROM {{deferred}} WHERE consumer = ? AND handler IN ({}) AND order_hash IN ({})",
            rows("?", handlers.len()),
            rows("?", hashes.len().next_power_of_two())
        ));
        let last = hashes.last().copied();
        let mut bound = vec![Value::from(first.consumer)];
        bound.extend(handlers.into_iter().map(Value::from));
        let repeated = hashes.len().next_power_of_two() - hashes.len();
        bound.extend(hashes.into_iter().map(Value::from));
        bound.extend(last.into_iter().cycle().take(repeated).map(Value::from));
        let found = conn.query_all_raw(self.statement(&sql, bound)).await?;
        found.iter().map(|row| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?))).collect()
    }

    /// Gives the rows of these keys that are there.
    async fn known<C: ConnectionTrait>(
        &self,
        conn: &C,
        keys: &[&Key<'_>],
    ) -> Result<HashSet<RowKey>, DbErr> {
        if keys.is_empty() {
            return Ok(HashSet::new());
        }
        let sql = self.filled(&format!(
            "SELECT handler, source, message_id FROM {{inbox}} WHERE (consumer, handler, source, message_id) IN ({})",
            rows("(?, ?, ?, ?)", keys.len())
        ));
        let bound = keys.iter().flat_map(|(key, _)| values(key)).collect();
        written(&conn.query_all_raw(self.statement(&sql, bound)).await?)
    }
}

/// Fills up to a power of two with the last key, whose row exists then: so that there are few
/// statements.
fn padded<'a, 'k>(keys: &[&'a Key<'k>]) -> Vec<&'a Key<'k>> {
    let missing = keys.len().next_power_of_two() - keys.len();
    keys.iter().chain(keys.last().into_iter().cycle().take(missing)).copied().collect()
}

fn row_key(key: &InboxKey<'_>) -> RowKey {
    (key.handler.to_owned(), key.source.to_owned(), *key.message_id.as_uuid())
}

fn written(rows: &[QueryResult]) -> Result<HashSet<RowKey>, DbErr> {
    let key = |row: &QueryResult| {
        Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?, row.try_get_by_index(2)?))
    };
    rows.iter().map(key).collect()
}
