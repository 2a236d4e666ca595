//! Promotes scheduled events that are due, and deletes old rows.

use super::{
    Retention, SqlStore,
    bind::{bind_ids, bind_partitions, numbers},
};
use crate::{
    chunks::{RESULT_BYTES, fitting_count},
    dialect::{Dialect, EVENT_COLUMNS},
    pool::{Arg, Tx},
    schema::{Pruned, decode::column, letter_rows::id_and_size, live, micros, resolved_before},
};
use async_trait::async_trait;
use outbox_core::outbox::{Fence, JanitorStore, StoreError};
use sea_orm::QueryResult;

/// Rows of one INSERT or DELETE where each id is a parameter.
const CHUNK: usize = 200;
/// The row of a relay without partitions is deleted so long after its lease expired: an hour.
const STALE_RELAY: i64 = HOUR;
/// An hour, in microseconds.
const HOUR: i64 = 3_600_000_000;
/// Samples are kept for the overview of a day, and the hour in which it begins.
const SAMPLES: i64 = 25 * HOUR;
/// A plan that has ended is kept for a day, so that applying it again is refused with what it did.
const ENDED_PLAN: i64 = 24 * HOUR;

#[async_trait]
impl JanitorStore for SqlStore {
    async fn promote_scheduled(&self, fence: &Fence, limit: u32) -> Result<u64, StoreError> {
        if fence.partitions.is_empty() || limit == 0 {
            return Ok(0);
        }
        // Mostly no event is due, which a read without a transaction tells.
        let partitions = numbers(fence.partitions.iter().map(|(p, _)| *p));
        let mut args = Vec::new();
        bind_partitions(self.dialect(), &mut args, &partitions);
        args.push(Arg::int(1));
        let due = self.list_sql("due", partitions.len(), |dialect, n| due(dialect, n, ""));
        if self.janitor.query(&due, &args).await?.is_empty() {
            return Ok(0);
        }
        let mut tx = self.janitor.begin().await?;
        let moved = self.promote_in(&mut tx, fence, limit).await;
        tx.end(moved).await
    }

    async fn prune(&self, limit: u32) -> Result<u64, StoreError> {
        let mut deleted = 0;
        if let Retention::Keep(keep) = self.options.retention {
            let old = format!("finished_at < {{now}} - {}", micros(keep));
            deleted += self.delete_content(limit, &Pruned::archive(&old)).await?;
        }
        let resolved = resolved_before(self.options.letter_retention);
        deleted += self.delete_content(limit, &Pruned::letters(&resolved)).await?;
        deleted +=
            self.delete("prune dedup", limit, "{dedup}", "dedup_key", "until < {now}").await?;
        deleted += self.delete_content(limit, &Pruned::responses()).await?;
        let key = "consumer, handler, source, message_id";
        deleted += self.delete("prune inbox", limit, "{inbox}", key, "keep_until < {now}").await?;
        deleted += self.delete_content(limit, &Pruned::barrier()).await?;
        let stale = format!(
            "lease_until < {{now}} - {STALE_RELAY} AND NOT EXISTS \
             (SELECT 1 FROM {{partitions}} p WHERE p.owner = relay_id)"
        );
        // Not counted: the rows of relays are no data of the application.
        self.delete("prune relays", limit, "{relays}", "relay_id", &stale).await?;
        Ok(deleted + self.prune_operators_rows(limit).await?)
    }
}

/// Writes the read of what is due in `n` partitions: takes them and a limit.
fn due(dialect: Dialect, n: usize, lock: &str) -> String {
    let any = dialect.any("partition_no", n);
    format!(
        "SELECT scheduled_id, {} FROM {{scheduled}} WHERE {any} AND deliver_at <= {{now}} \
         ORDER BY deliver_at, scheduled_id LIMIT ?{lock}",
        dialect.bytes_of(&["payload", "headers"])
    )
}

impl SqlStore {
    /// Deletes old rows that are there for operators alone.
    async fn prune_operators_rows(&self, limit: u32) -> Result<u64, StoreError> {
        let audit = format!("began_at < {{now}} - {}", micros(self.options.audit_retention));
        let mut deleted = self.delete("prune audit", limit, "{audit}", "audit_id", &audit).await?;
        // One that is running can be applied again: its process may have ended in the middle.
        let plans = format!(
            "expires_at < {{now}} - {ENDED_PLAN} AND NOT EXISTS (SELECT 1 FROM {{audit}} a \
             WHERE a.audit_id = {{plans}}.audit_id AND a.outcome = 'running')"
        );
        deleted += self.delete("prune plans", limit, "{plans}", "plan_id", &plans).await?;
        // Not counted, as those of relays.
        self.delete("prune live", limit, "{live}", "id", &live::ended()).await?;
        let samples = format!("at_us < {{now}} - {SAMPLES}");
        deleted +=
            self.delete("prune samples", limit, "{samples}", "at_us, route", &samples).await?;
        Ok(deleted)
    }

    async fn promote_in(
        &self,
        tx: &mut Tx<'_>,
        fence: &Fence,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let dialect = self.dialect();
        let held = numbers(self.lock_partitions(tx, fence).await?.partitions);
        if held.is_empty() {
            return Ok(0);
        }
        let sql = self.list_sql("due, locked", held.len(), |dialect, n| {
            // Skipped: a producer that cancels a scheduled event holds its row.
            due(dialect, n, "{for_update}{skip_locked}")
        });
        let mut args = Vec::new();
        bind_partitions(dialect, &mut args, &held);
        args.push(Arg::int(i64::from(limit)));
        let due: Vec<(i64, usize)> =
            tx.query(&sql, &args).await?.iter().map(id_and_size).collect::<Result<_, _>>()?;
        let mut moved = 0;
        // In the order of their due time, so that their new ids are in that order too.
        let due = &due[..fitting_count(due.iter().map(|(_, bytes)| *bytes), RESULT_BYTES)];
        let ids: Vec<i64> = due.iter().map(|(id, _)| *id).collect();
        for chunk in ids.chunks(CHUNK) {
            let insert = self.list_sql("promote", chunk.len(), |dialect, n| {
                format!(
                    "INSERT INTO {{events}} (partition_no, {EVENT_COLUMNS}, created_at, expires_at) \
                     SELECT partition_no, {EVENT_COLUMNS}, {{now}}, {{now}} + ttl_us FROM {{scheduled}} WHERE {} \
                     ORDER BY deliver_at, scheduled_id",
                    dialect.any("scheduled_id", n)
                )
            });
            let delete = self.list_sql("promoted", chunk.len(), |dialect, n| {
                format!("DELETE FROM {{scheduled}} WHERE {}", dialect.any("scheduled_id", n))
            });
            let mut args = Vec::new();
            bind_ids(dialect, &mut args, chunk);
            moved += tx.execute(&insert, &args).await?;
            tx.execute(&delete, &args).await?;
        }
        Ok(moved)
    }

    /// Deletes rows that have content: as many of the first `limit` as a transaction may delete by
    /// their bytes.
    async fn delete_content(&self, limit: u32, pruned: &Pruned<'_>) -> Result<u64, StoreError> {
        let sql = self.sql(pruned.sizes, 1, || pruned.sizes_sql(self.dialect()));
        let rows = self.janitor.query(&sql, &[Arg::int(i64::from(limit))]).await?;
        let sizes: Vec<usize> = rows.iter().map(size).collect::<Result<_, _>>()?;
        let n = fitting_count(sizes, RESULT_BYTES);
        if n == 0 {
            return Ok(0);
        }
        let sql = self.sql(pruned.name, 1, || pruned.sql(self.dialect()));
        self.janitor.execute(&sql, &[Arg::int(i64::try_from(n).unwrap_or(1))]).await
    }

    async fn delete(
        &self,
        name: &'static str,
        limit: u32,
        table: &str,
        key: &str,
        condition: &str,
    ) -> Result<u64, StoreError> {
        let sql = self.sql(name, 1, || self.dialect().prune(table, key, condition));
        self.janitor.execute(&sql, &[Arg::int(i64::from(limit))]).await
    }
}

/// Reads how many bytes a row has.
fn size(row: &QueryResult) -> Result<usize, StoreError> {
    Ok(usize::try_from(column::<i64>(row, 0)?).unwrap_or(0))
}
