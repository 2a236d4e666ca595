//! Moving what is due, and deleting what is old.

use super::{
    Retention, SqlStore,
    bind::{bind_ids, bind_partitions, numbers},
    letters::id_and_size,
    settler::column,
};
use crate::{
    cut::{ANSWER_BYTES, fitting},
    dialect::Dialect,
    pool::{Arg, Tx},
    schema::{EVENT_COLUMNS, Pruned, decided_before, micros},
};
use async_trait::async_trait;
use outbox_core::outbox::{Fence, JanitorStore, StoreError};
use sea_orm::QueryResult;

/// Rows of one INSERT or DELETE where each id is a parameter.
const CHUNK: usize = 200;
/// A relay that owns nothing and whose lease ran out so long ago (an hour) is forgotten.
const STALE_RELAY: i64 = 3_600_000_000;

#[async_trait]
impl JanitorStore for SqlStore {
    async fn promote_scheduled(&self, fence: &Fence, limit: u32) -> Result<u64, StoreError> {
        if fence.partitions.is_empty() || limit == 0 {
            return Ok(0);
        }
        // Mostly there is nothing; that is seen without a transaction.
        let partitions = numbers(fence.partitions.iter().map(|(p, _)| *p));
        let mut args = Vec::new();
        bind_partitions(self.dialect(), &mut args, &partitions);
        args.push(Arg::int(1));
        let due = self.list_text("due", partitions.len(), |dialect, n| due(dialect, n, ""));
        if self.janitor.query(&due, &args).await?.is_empty() {
            return Ok(0);
        }
        let mut tx = self.janitor.begin().await?;
        let moved = self.promote_in(&mut tx, fence, limit).await;
        tx.end(moved).await
    }

    async fn prune(&self, limit: u32) -> Result<u64, StoreError> {
        let mut gone = 0;
        if let Retention::Keep(keep) = self.options.retention {
            let old = format!("finished_at < {{now}} - {}", micros(keep));
            gone += self.delete_content(limit, &Pruned::done(&old)).await?;
        }
        let decided = decided_before(self.options.letter_retention);
        gone += self.delete_content(limit, &Pruned::letters(&decided)).await?;
        gone += self.delete("prune dedup", limit, "{dedup}", "dedup_key", "until < {now}").await?;
        gone += self.delete_content(limit, &Pruned::answers()).await?;
        let key = "consumer, handler, source, message_id";
        gone += self.delete("prune inbox", limit, "{inbox}", key, "keep_until < {now}").await?;
        gone += self.delete_content(limit, &Pruned::barrier()).await?;
        let stale = format!(
            "lease_until < {{now}} - {STALE_RELAY} AND NOT EXISTS \
             (SELECT 1 FROM {{partitions}} p WHERE p.owner = relay_id)"
        );
        // Not counted: no row of anybody's.
        self.delete("prune relays", limit, "{relays}", "relay_id", &stale).await?;
        Ok(gone)
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
    async fn promote_in(
        &self,
        tx: &mut Tx<'_>,
        fence: &Fence,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let dialect = self.dialect();
        let held = numbers(self.hold(tx, fence).await?.partitions);
        if held.is_empty() {
            return Ok(0);
        }
        let text = self.list_text("due, locked", held.len(), |dialect, n| {
            due(dialect, n, "{for_update}{skip_locked}")
        });
        let mut args = Vec::new();
        bind_partitions(dialect, &mut args, &held);
        args.push(Arg::int(i64::from(limit)));
        let due: Vec<(i64, usize)> =
            tx.query(&text, &args).await?.iter().map(id_and_size).collect::<Result<_, _>>()?;
        let mut moved = 0;
        // In order of their due time, so that the ids they are given now are in it too.
        let due = &due[..fitting(due.iter().map(|(_, bytes)| *bytes), ANSWER_BYTES)];
        let ids: Vec<i64> = due.iter().map(|(id, _)| *id).collect();
        for chunk in ids.chunks(CHUNK) {
            let insert = self.list_text("promote", chunk.len(), |dialect, n| {
                format!(
                    "INSERT INTO {{events}} (partition_no, {EVENT_COLUMNS}, created_at, expires_at) \
                     SELECT partition_no, {EVENT_COLUMNS}, {{now}}, {{now}} + ttl_us FROM {{scheduled}} WHERE {} \
                     ORDER BY deliver_at, scheduled_id",
                    dialect.any("scheduled_id", n)
                )
            });
            let delete = self.list_text("promoted", chunk.len(), |dialect, n| {
                format!("DELETE FROM {{scheduled}} WHERE {}", dialect.any("scheduled_id", n))
            });
            let mut args = Vec::new();
            bind_ids(dialect, &mut args, chunk);
            moved += tx.execute(&insert, &args).await?;
            tx.execute(&delete, &args).await?;
        }
        Ok(moved)
    }

    /// Deletes rows that have content: as many of the first `limit` as a transaction may delete by their bytes.
    async fn delete_content(&self, limit: u32, pruned: &Pruned<'_>) -> Result<u64, StoreError> {
        let text = self.text(pruned.sizes, 1, || pruned.sizes_text(self.dialect()));
        let rows = self.janitor.query(&text, &[Arg::int(i64::from(limit))]).await?;
        let sizes: Vec<usize> = rows.iter().map(size).collect::<Result<_, _>>()?;
        let n = fitting(sizes, ANSWER_BYTES);
        if n == 0 {
            return Ok(0);
        }
        let text = self.text(pruned.name, 1, || pruned.text(self.dialect()));
        self.janitor.execute(&text, &[Arg::int(i64::try_from(n).unwrap_or(1))]).await
    }

    async fn delete(
        &self,
        name: &'static str,
        limit: u32,
        table: &str,
        key: &str,
        condition: &str,
    ) -> Result<u64, StoreError> {
        let text = self.text(name, 1, || self.dialect().prune(table, key, condition));
        self.janitor.execute(&text, &[Arg::int(i64::from(limit))]).await
    }
}

/// Reads how many bytes a row has.
fn size(row: &QueryResult) -> Result<usize, StoreError> {
    Ok(usize::try_from(column::<i64>(row, 0)?).unwrap_or(0))
}
