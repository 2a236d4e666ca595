//! Dedup keys, with which a whole transaction may be repeated safely.

use super::{Schema, micros, rows};
use crate::chunks::{STATEMENT_BYTES, chunks_by_size};
use outbox_core::event::MessageId;
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

/// Keys of one statement.
const CHUNK: usize = 500;
/// Bytes of a reservation beside its key.
const RESERVATION: usize = 64;
/// Tries to reserve a key that was pruned between the INSERT and the read.
const TRIES: usize = 3;

/// A key that an event reserves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DedupReservation {
    /// The key, 1 to 255 bytes.
    pub key: String,
    /// The event that reserves it.
    pub message_id: MessageId,
    /// Hash of the event's payload, to tell a repeat from another event under the same key.
    pub payload_hash: i64,
    /// How long the key is kept.
    pub keep: Duration,
}

/// A key that another event holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupConflict {
    /// Index of the reservation that failed; the lowest, if several did.
    pub index: usize,
    /// The event that holds the key.
    pub message_id: MessageId,
    /// Whether its payload has the same hash.
    pub same_bytes: bool,
}

/// The event that holds a key, and the hash of its payload.
type Holder = (MessageId, i64);

#[doc(hidden)]
impl Schema {
    /// Reserves keys for events; a key whose retention has passed is free, and one that the same
    /// event holds stays its own.
    ///
    /// Gives the reservation that failed, if one did: the transaction holds the other keys then,
    /// until it is rolled back. Waits for another transaction that reserves the same key.
    ///
    /// # Errors
    /// The database's error.
    pub async fn reserve_dedup_keys<C: ConnectionTrait>(
        &self,
        conn: &C,
        reservations: &[DedupReservation],
    ) -> Result<Option<DedupConflict>, DbErr> {
        // Sorted, so that two transactions with the same keys wait for each other in the same
        // order.
        let mut sorted: Vec<(usize, &DedupReservation)> = reservations.iter().enumerate().collect();
        sorted.sort_by(|(i, a), (j, b)| (&a.key, i).cmp(&(&b.key, j)));
        let mut first: Vec<(usize, &DedupReservation)> = Vec::with_capacity(sorted.len());
        let mut conflicts: Vec<DedupConflict> = Vec::new();
        for (index, reservation) in sorted {
            match first.last() {
                Some((_, held)) if held.key == reservation.key => {
                    conflicts.extend(conflict(
                        index,
                        reservation,
                        (held.message_id, held.payload_hash),
                    ));
                }
                _ => first.push((index, reservation)),
            }
        }
        for chunk in chunks_by_size(&first, CHUNK, STATEMENT_BYTES, |(_, reservation)| {
            reservation.key.len() + RESERVATION
        }) {
            let holders = if self.dialect.upserts_by_condition() {
                self.reserve_returning(conn, chunk).await?
            } else {
                self.reserve_and_lock(conn, chunk).await?
            };
            for (index, reservation) in chunk {
                conflicts.extend(
                    holders
                        .get(&reservation.key)
                        .and_then(|holder| conflict(*index, reservation, *holder)),
                );
            }
        }
        Ok(conflicts.into_iter().min_by_key(|c| c.index))
    }

    /// Reserves keys where an upsert can have a condition and a RETURNING clause. Gives the holders
    /// of the other keys.
    async fn reserve_returning<C: ConnectionTrait>(
        &self,
        conn: &C,
        reservations: &[(usize, &DedupReservation)],
    ) -> Result<HashMap<String, Holder>, DbErr> {
        let mut holders = HashMap::new();
        let mut left: Vec<&DedupReservation> = reservations.iter().map(|(_, c)| *c).collect();
        for _ in 0..TRIES {
            let sql =
                self.filled(&self.dialect.reserve_keys(&rows("(?, ?, ?, {now} + ?)", left.len())));
            let reserved = conn.query_all_raw(self.statement(&sql, insert_values(&left))).await?;
            let reserved = holders_of(&reserved)?;
            left.retain(|c| !reserved.contains_key(&c.key));
            if left.is_empty() {
                break;
            }
            let sql = self.filled(&format!(
                "SELECT dedup_key, message_id, payload_hash FROM {{dedup}} WHERE dedup_key IN ({})",
                rows("?", left.len())
            ));
            let keys = left.iter().map(|c| Value::from(c.key.as_str())).collect();
            holders.extend(holders_of(&conn.query_all_raw(self.statement(&sql, keys)).await?)?);
            left.retain(|c| !holders.contains_key(&c.key));
            if left.is_empty() {
                break;
            }
        }
        Ok(holders)
    }

    /// Reserves keys where it cannot: an INSERT that leaves an existing key as it is takes the
    /// lock, then a locking read gives the holders.
    async fn reserve_and_lock<C: ConnectionTrait>(
        &self,
        conn: &C,
        reservations: &[(usize, &DedupReservation)],
    ) -> Result<HashMap<String, Holder>, DbErr> {
        let reservations: Vec<&DedupReservation> = reservations.iter().map(|(_, c)| *c).collect();
        let sql = self
            .filled(&self.dialect.reserve_keys(&rows("(?, ?, ?, {now} + ?)", reservations.len())));
        conn.execute_raw(self.statement(&sql, insert_values(&reservations))).await?;
        let sql = self.filled(&format!(
            "SELECT dedup_key, message_id, payload_hash, CASE WHEN until < {{now}} THEN 1 ELSE 0 END FROM {{dedup}} \
             WHERE dedup_key IN ({}) ORDER BY dedup_key{{for_update}}",
            rows("?", reservations.len())
        ));
        let keys = reservations.iter().map(|c| Value::from(c.key.as_str())).collect();
        let found = conn.query_all_raw(self.statement(&sql, keys)).await?;
        let mut holders = holders_of(&found)?;
        for row in found {
            let (key, expired): (String, i64) =
                (row.try_get_by_index(0)?, row.try_get_by_index(3)?);
            let Some(reservation) = reservations.iter().find(|c| expired != 0 && c.key == key)
            else {
                continue;
            };
            let sql = self
                .filled("UPDATE {dedup} SET message_id = ?, payload_hash = ?, until = {now} + ? WHERE dedup_key = ?");
            let mut bound = insert_values(&[*reservation]);
            bound.rotate_left(1);
            conn.execute_raw(self.statement(&sql, bound)).await?;
            holders.remove(&key);
        }
        Ok(holders)
    }
}

fn insert_values(reservations: &[&DedupReservation]) -> Vec<Value> {
    let values = |c: &&DedupReservation| {
        [
            Value::from(c.key.as_str()),
            Value::from(*c.message_id.as_uuid()),
            Value::from(c.payload_hash),
            Value::from(micros(c.keep)),
        ]
    };
    reservations.iter().flat_map(values).collect()
}

fn holders_of(rows: &[QueryResult]) -> Result<HashMap<String, Holder>, DbErr> {
    let holder = |row: &QueryResult| {
        let message = MessageId::from_uuid(row.try_get_by_index::<Uuid>(1)?);
        Ok((row.try_get_by_index(0)?, (message, row.try_get_by_index(2)?)))
    };
    rows.iter().map(holder).collect()
}

fn conflict(
    index: usize,
    reservation: &DedupReservation,
    (message_id, hash): Holder,
) -> Option<DedupConflict> {
    (message_id != reservation.message_id).then_some(DedupConflict {
        index,
        message_id,
        same_bytes: hash == reservation.payload_hash,
    })
}
