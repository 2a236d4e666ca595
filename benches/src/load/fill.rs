//! Fills the outbox with waiting events.

use super::checker::Checker;
use crate::environment::Environment;
use anyhow::{Context, Result};
use outbox_core::{event::MessageId, outbox::partition_of};
use sea_orm::sqlx;

/// Keys of the waiting events, numbered.
pub(crate) const KEYS: usize = 10_000;
pub(crate) const PARTITIONS: u16 = 16;
/// Bytes of a payload.
pub(crate) const PAYLOAD: usize = 200;

/// The step from the number of an event's key to that of the next event: it is prime and divides no
/// number of keys here, so that each key comes once in as many events as there are keys.
const STEP: usize = 7_919;
/// Payloads of more bytes than this are filled with characters that a server cannot compress: it
/// would store a MiB of one letter in a few KiB.
const COMPRESSED: usize = 1_000;
/// Bytes after which the characters repeat: more than the window of the server's compression.
const NOISE: usize = 128 << 10;

/// The waiting events of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) events: u32,
    /// Keys, numbered from 0.
    pub(crate) keys: usize,
    /// Partitions of the outbox, as it was installed.
    pub(crate) partitions: u16,
    /// Topics, in turn: one is `orders`, of several each is [named](topic_name) by its number.
    pub(crate) topics: u16,
    /// Bytes of a payload.
    pub(crate) payload: usize,
}

impl Waiting {
    /// So many events with the usual keys, partitions, topic and payloads.
    pub(crate) const fn usual(events: u32) -> Self {
        Self { events, keys: KEYS, partitions: PARTITIONS, topics: 1, payload: PAYLOAD }
    }
}

/// Names a key.
pub(crate) fn key(number: usize) -> String {
    format!("k{number}")
}

/// Reads the number of a key.
pub(crate) fn number_of(key: &str) -> Option<usize> {
    key.strip_prefix('k')?.parse().ok()
}

/// Names one of several topics.
pub(crate) fn topic_name(number: u16) -> String {
    format!("orders-{number}")
}

/// Records an event that is known by its payload alone, as a broker has it.
pub(crate) fn record(checker: &Checker, payload: &[u8]) -> Result<()> {
    let id = id_of(payload).context("a payload without number")?;
    checker.record(id, Some(&key(usize::try_from(id)? * STEP % KEYS)), payload);
    Ok(())
}

fn id_of(payload: &[u8]) -> Option<i64> {
    let digits = payload.strip_prefix(br#"{"order_id":"#)?.split(|byte| *byte == b',').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Empties the outbox and inserts events, spread over all keys, with ids from 1, then vacuums and
/// analyzes.
pub(crate) async fn fill(environment: &Environment, events: u32) -> Result<()> {
    fill_with(environment, Waiting::usual(events)).await
}

/// Does the same with other keys, partitions, topics and payloads.
pub(crate) async fn fill_with(environment: &Environment, waiting: Waiting) -> Result<()> {
    environment.empty().await?;
    let (mut numbers, mut keys, mut partitions) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..waiting.keys {
        let key = key(number);
        // With a key the partition does not depend on the message id.
        let partition = partition_of(Some(&key), MessageId::generate(), waiting.partitions);
        numbers.push(i64::try_from(number)?);
        partitions.push(i16::try_from(partition.0)?);
        keys.push(key);
    }
    let mut tx = environment.pool.begin().await?;
    let insert = "INSERT INTO outbox_events (partition_no, message_id, source, topic, event_type, event_version, \
                  aggregate_type, message_key, content_type, payload, headers, created_at) \
                  SELECT k.partition_no, gen_random_uuid(), 'bench', \
                  CASE WHEN $8::bigint = 1 THEN 'orders' ELSE 'orders-' || (g % $8::bigint) END, \
                  'order.placed', 1, 'order', k.key, 'application/json', \
                  convert_to(rpad('{\"order_id\":' || g || ',\"note\":\"', $4 - 2, $6::text) || '\"}', 'UTF8'), \
                  '{}', (extract(epoch FROM statement_timestamp()) * 1000000)::bigint \
                  FROM generate_series(1, $5::bigint) g \
                  JOIN unnest($1::bigint[], $2::text[], $3::smallint[]) AS k(number, key, partition_no) \
                  ON k.number = g * $9::bigint % $7::bigint ORDER BY g";
    sqlx::query(insert)
        .bind(numbers)
        .bind(keys)
        .bind(partitions)
        .bind(i32::try_from(waiting.payload)?)
        .bind(i64::from(waiting.events))
        .bind(filling(waiting.payload))
        .bind(i64::try_from(waiting.keys)?)
        .bind(i64::from(waiting.topics))
        .bind(i64::try_from(STEP)?)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    sqlx::raw_sql("VACUUM (ANALYZE) outbox_events").execute(&environment.pool).await?;
    Ok(())
}

/// What fills payloads of so many bytes.
fn filling(payload: usize) -> String {
    if payload <= COMPRESSED {
        return "x".to_owned();
    }
    let letters: Vec<char> = ('a'..='z').chain('A'..='Z').chain('0'..='9').collect();
    // Xorshift: the same characters in every run.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        letters[(state % letters.len() as u64) as usize]
    };
    (0..payload.min(NOISE)).map(next).collect()
}

/// Puts an empty table in the place of the waiting events, so that relays can start and share the
/// partitions before there is anything to do.
pub(crate) async fn hide(environment: &Environment) -> Result<()> {
    let hide = "CREATE TABLE IF NOT EXISTS events_none (LIKE outbox_events INCLUDING ALL); \
                BEGIN; ALTER TABLE outbox_events RENAME TO events_waiting; \
                ALTER TABLE events_none RENAME TO outbox_events; COMMIT";
    sqlx::raw_sql(hide).execute(&environment.pool).await?;
    Ok(())
}

/// Puts the waiting events back, all at one instant.
pub(crate) async fn reveal(environment: &Environment) -> Result<()> {
    let reveal = "BEGIN; ALTER TABLE outbox_events RENAME TO events_none; \
                  ALTER TABLE events_waiting RENAME TO outbox_events; COMMIT";
    sqlx::raw_sql(reveal).execute(&environment.pool).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_by_its_payload() {
        assert_eq!(id_of(br#"{"order_id":17,"note":"xx"}"#), Some(17));
        assert_eq!(id_of(b"{}"), None);
        let payload = format!(r#"{{"order_id":3,"note":"{}"}}"#, "x".repeat(PAYLOAD - 24));
        assert_eq!(payload.len(), PAYLOAD);
        let checker = Checker::new(3);
        record(&checker, payload.as_bytes()).unwrap();
        let faults = checker.faults();
        assert_eq!((faults.lost, faults.damaged, checker.distinct()), (2, 0, 1));
    }

    #[test]
    fn large_payloads_are_filled_with_characters_that_differ() {
        assert_eq!(filling(PAYLOAD), "x");
        let noise = filling(1 << 20);
        assert_eq!(noise.len(), NOISE);
        assert_ne!(noise[..1_000], noise[1_000..2_000]);
    }
}
