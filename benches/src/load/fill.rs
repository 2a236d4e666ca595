//! Fills the outbox with waiting events.

use crate::environment::Environment;
use anyhow::Result;
use outbox_core::{event::MessageId, outbox::partition_of};
use sea_orm::sqlx;

/// Keys of the waiting events, numbered.
pub(crate) const KEYS: usize = 10_000;
pub(crate) const PARTITIONS: u16 = 16;
/// Bytes of a payload.
pub(crate) const PAYLOAD: usize = 200;

/// Names a key.
pub(crate) fn key(number: usize) -> String {
    format!("k{number}")
}

/// Reads the number of a key.
pub(crate) fn number_of(key: &str) -> Option<usize> {
    key.strip_prefix('k')?.parse().ok()
}

/// Empties the outbox and inserts events, spread over all keys, with ids from 1, then vacuums and
/// analyzes.
pub(crate) async fn fill(environment: &Environment, events: u32) -> Result<()> {
    environment.empty().await?;
    let (mut numbers, mut keys, mut partitions) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..KEYS {
        let key = key(number);
        // With a key the partition does not depend on the message id.
        let partition = partition_of(Some(&key), MessageId::generate(), PARTITIONS);
        numbers.push(i64::try_from(number)?);
        partitions.push(i16::try_from(partition.0)?);
        keys.push(key);
    }
    let mut tx = environment.pool.begin().await?;
    // 7,919 has no divisor in common with the number of keys: each comes once in every 10,000 events.
    let insert = "INSERT INTO outbox_events (partition_no, message_id, source, topic, event_type, event_version, \
                  aggregate_type, message_key, content_type, payload, headers, created_at) \
                  SELECT k.partition_no, gen_random_uuid(), 'bench', 'orders', 'order.placed', 1, 'order', k.key, \
                  'application/json', convert_to(rpad('{\"order_id\":' || g || ',\"note\":\"', $4 - 2, 'x') || '\"}', 'UTF8'), \
                  '{}', (extract(epoch FROM statement_timestamp()) * 1000000)::bigint \
                  FROM generate_series(1, $5::bigint) g \
                  JOIN unnest($1::bigint[], $2::text[], $3::smallint[]) AS k(number, key, partition_no) \
                  ON k.number = g * 7919 % 10000 ORDER BY g";
    sqlx::query(insert)
        .bind(numbers)
        .bind(keys)
        .bind(partitions)
        .bind(i32::try_from(PAYLOAD)?)
        .bind(i64::from(events))
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    sqlx::raw_sql("VACUUM (ANALYZE) outbox_events").execute(&environment.pool).await?;
    Ok(())
}
