//! Keys that make the repeat of a whole transaction harmless.

use super::{Schema, micros, rows};
use crate::cut::{STATEMENT_BYTES, stretches};
use outbox_core::event::MessageId;
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

/// Keys of one statement.
const CHUNK: usize = 500;
/// Bytes of a claim beside its key.
const CLAIM: usize = 64;
/// How often a key is claimed again that was pruned while it was looked at.
const TRIES: usize = 3;

/// A key that an event claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DedupClaim {
    /// The key, 1 to 255 bytes.
    pub key: String,
    /// The event that claims it.
    pub message_id: MessageId,
    /// Hash of the event's payload, to tell a repeat from another event under the same key.
    pub payload_hash: i64,
    /// How long the key is kept.
    pub keep: Duration,
}

/// A key that another event holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupConflict {
    /// Index of the claim that failed; the lowest, if several did.
    pub index: usize,
    /// The event that holds the key.
    pub message_id: MessageId,
    /// Whether its payload has the same hash.
    pub same_bytes: bool,
}

/// Who holds a key, and with which payload.
type Holder = (MessageId, i64);

impl Schema {
    /// Claims keys for events; a key whose time has passed is free, and one that the same event holds stays its own.
    ///
    /// Says which claim failed, if one did: the others are held then, until the transaction is rolled back. Waits for
    /// another transaction that claims the same key.
    ///
    /// # Errors
    /// What the database said.
    pub async fn claim_dedup<C: ConnectionTrait>(
        &self,
        conn: &C,
        claims: &[DedupClaim],
    ) -> Result<Option<DedupConflict>, DbErr> {
        // Sorted, so that two transactions with the same keys wait for each other in the same order.
        let mut sorted: Vec<(usize, &DedupClaim)> = claims.iter().enumerate().collect();
        sorted.sort_by(|(i, a), (j, b)| (&a.key, i).cmp(&(&b.key, j)));
        let mut first: Vec<(usize, &DedupClaim)> = Vec::with_capacity(sorted.len());
        let mut conflicts: Vec<DedupConflict> = Vec::new();
        for (index, claim) in sorted {
            match first.last() {
                Some((_, held)) if held.key == claim.key => {
                    conflicts.extend(conflict(index, claim, (held.message_id, held.payload_hash)));
                }
                _ => first.push((index, claim)),
            }
        }
        for chunk in stretches(&first, CHUNK, STATEMENT_BYTES, |(_, claim)| claim.key.len() + CLAIM)
        {
            let holders = if self.dialect.is_mysql() {
                self.claim_and_lock(conn, chunk).await?
            } else {
                self.claim_returning(conn, chunk).await?
            };
            for (index, claim) in chunk {
                conflicts.extend(
                    holders.get(&claim.key).and_then(|holder| conflict(*index, claim, *holder)),
                );
            }
        }
        Ok(conflicts.into_iter().min_by_key(|c| c.index))
    }

    /// Where an upsert can be conditional and say what it did. Gives the holders of the keys that were not free.
    async fn claim_returning<C: ConnectionTrait>(
        &self,
        conn: &C,
        claims: &[(usize, &DedupClaim)],
    ) -> Result<HashMap<String, Holder>, DbErr> {
        let mut holders = HashMap::new();
        let mut left: Vec<&DedupClaim> = claims.iter().map(|(_, c)| *c).collect();
        for _ in 0..TRIES {
            let text =
                self.filled(&self.dialect.claim_keys(&rows("(?, ?, ?, {now} + ?)", left.len())));
            let claimed = conn.query_all_raw(self.statement(&text, insert_values(&left))).await?;
            let claimed = holders_of(&claimed)?;
            left.retain(|c| !claimed.contains_key(&c.key));
            if left.is_empty() {
                break;
            }
            let text = self.filled(&format!(
                "SELECT dedup_key, message_id, payload_hash FROM {{dedup}} WHERE dedup_key IN ({})",
                rows("?", left.len())
            ));
            let keys = left.iter().map(|c| Value::from(c.key.as_str())).collect();
            holders.extend(holders_of(&conn.query_all_raw(self.statement(&text, keys)).await?)?);
            left.retain(|c| !holders.contains_key(&c.key));
            if left.is_empty() {
                break;
            }
        }
        Ok(holders)
    }

    /// Where it cannot: an insert that changes nothing where the key is there takes the lock, a locking read tells.
    async fn claim_and_lock<C: ConnectionTrait>(
        &self,
        conn: &C,
        claims: &[(usize, &DedupClaim)],
    ) -> Result<HashMap<String, Holder>, DbErr> {
        let claims: Vec<&DedupClaim> = claims.iter().map(|(_, c)| *c).collect();
        let text =
            self.filled(&self.dialect.claim_keys(&rows("(?, ?, ?, {now} + ?)", claims.len())));
        conn.execute_raw(self.statement(&text, insert_values(&claims))).await?;
        let text = self.filled(&format!(
            "SELECT dedup_key, message_id, payload_hash, CASE WHEN until < {{now}} THEN 1 ELSE 0 END FROM {{dedup}} \
             WHERE dedup_key IN ({}) ORDER BY dedup_key{{for_update}}",
            rows("?", claims.len())
        ));
        let keys = claims.iter().map(|c| Value::from(c.key.as_str())).collect();
        let found = conn.query_all_raw(self.statement(&text, keys)).await?;
        let mut holders = holders_of(&found)?;
        for row in found {
            let (key, expired): (String, i64) =
                (row.try_get_by_index(0)?, row.try_get_by_index(3)?);
            let Some(claim) = claims.iter().find(|c| expired != 0 && c.key == key) else {
                continue;
            };
            let text = self
                .filled("UPDATE {dedup} SET message_id = ?, payload_hash = ?, until = {now} + ? WHERE dedup_key = ?");
            let mut bound = insert_values(&[*claim]);
            bound.rotate_left(1);
            conn.execute_raw(self.statement(&text, bound)).await?;
            holders.remove(&key);
        }
        Ok(holders)
    }
}

fn insert_values(claims: &[&DedupClaim]) -> Vec<Value> {
    let values = |c: &&DedupClaim| {
        [
            Value::from(c.key.as_str()),
            Value::from(*c.message_id.as_uuid()),
            Value::from(c.payload_hash),
            Value::from(micros(c.keep)),
        ]
    };
    claims.iter().flat_map(values).collect()
}

fn holders_of(rows: &[QueryResult]) -> Result<HashMap<String, Holder>, DbErr> {
    let holder = |row: &QueryResult| {
        let message = MessageId::from_uuid(row.try_get_by_index::<Uuid>(1)?);
        Ok((row.try_get_by_index(0)?, (message, row.try_get_by_index(2)?)))
    };
    rows.iter().map(holder).collect()
}

fn conflict(index: usize, claim: &DedupClaim, (message_id, hash): Holder) -> Option<DedupConflict> {
    (message_id != claim.message_id).then_some(DedupConflict {
        index,
        message_id,
        same_bytes: hash == claim.payload_hash,
    })
}
