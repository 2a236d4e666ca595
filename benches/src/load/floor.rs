//! The floor: a program of thirty lines for this one task, without leases, retries, late commits or
//! a second process. Every drain is reported as a share of it.

use super::{checker::Checker, fill::PARTITIONS};
use anyhow::Result;
use sea_orm::sqlx::{self, Connection, PgConnection, Row};
use std::time::{Duration, Instant};

const BATCH: i64 = 500;

/// Drains the outbox over one connection: partition after partition, plain SELECT past a position, DELETE by ids.
pub(crate) async fn drain(url: &str, checker: &Checker) -> Result<Duration> {
    let begun = Instant::now();
    let mut connection = PgConnection::connect(url).await?;
    let mut positions = [0_i64; PARTITIONS as usize];
    let mut ids = Vec::new();
    let mut found = true;
    while found {
        found = false;
        for (partition, position) in (0_i16..).zip(&mut positions) {
            let rows = sqlx::query(
                "SELECT event_id, message_id, source, topic, event_type, event_version, aggregate_type, message_key, \
                 content_type, payload, headers, created_at, expires_at FROM outbox_events \
                 WHERE partition_no = $1 AND event_id > $2 ORDER BY event_id LIMIT $3",
            )
            .bind(partition)
            .bind(*position)
            .bind(BATCH)
            .fetch_all(&mut connection)
            .await?;
            if rows.is_empty() {
                continue;
            }
            found = true;
            ids.clear();
            for row in &rows {
                let id: i64 = row.get(0);
                checker.record(id, row.get::<Option<&str>, _>(7), row.get::<&[u8], _>(9));
                ids.push(id);
                *position = id;
            }
            sqlx::query("DELETE FROM outbox_events WHERE partition_no = $1 AND event_id = ANY($2)")
                .bind(partition)
                .bind(&ids)
                .execute(&mut connection)
                .await?;
        }
    }
    let took = begun.elapsed();
    connection.close().await?;
    Ok(took)
}
