//! Finishes events, and locks the partitions of every fenced write.

use super::{
    Retention, SqlStore,
    bind::{bind_ids, bind_partitions, fence_lists, numbers, place_lists},
    letters, record,
};
use crate::{
    dialect::Dialect,
    pool::{Arg, Tx},
    schema::{decode::column, stored},
};
use async_trait::async_trait;
use outbox_core::{
    event::{EventId, LetterId},
    failure::DeadLetter,
    outbox::{
        DetachedLetter, Epoch, Fence, PartitionNo, RouteUpdate, SettleStore, Settled, StoreError,
    },
};

/// The partitions that a fenced transaction has locked.
pub(super) struct HeldPartitions {
    /// The relay's own partitions, in order; no relay takes them over before the transaction ends.
    pub(super) partitions: Vec<PartitionNo>,
    /// The database's time.
    pub(super) now: i64,
}

impl HeldPartitions {
    pub(super) fn has(&self, partition: PartitionNo) -> bool {
        self.partitions.binary_search(&partition).is_ok()
    }
}

#[async_trait]
impl SettleStore for SqlStore {
    async fn finish(
        &self,
        fence: &Fence,
        ids: &[(PartitionNo, EventId)],
    ) -> Result<Settled, StoreError> {
        // One statement where the database can write it: it locks, checks the fence and deletes in
        // one round trip, and nearly every event ends here.
        let keep = self.options.retention != Retention::Delete;
        match self.dialect().finish_at_once(keep) {
            Some(sql) => {
                self.finish_at_once(&self.sql("finish", usize::from(keep), || sql), fence, ids)
                    .await
            }
            None => {
                let mut tx = self.settler.begin().await?;
                let settled = self.finish_in(&mut tx, fence, ids).await;
                tx.end(settled).await
            }
        }
    }

    async fn record(&self, fence: &Fence, updates: &[RouteUpdate]) -> Result<Settled, StoreError> {
        let mut tx = self.settler.begin().await?;
        let settled = record::record(self, &mut tx, fence, updates).await;
        tx.end(settled).await
    }

    async fn write_detached_letters(
        &self,
        letters: &[DetachedLetter],
    ) -> Result<Vec<LetterId>, StoreError> {
        letters::write(self, letters).await
    }

    async fn letters(&self, ids: &[LetterId]) -> Result<Vec<DeadLetter>, StoreError> {
        letters::read(self, ids).await
    }
}

impl SqlStore {
    async fn finish_at_once(
        &self,
        sql: &std::sync::Arc<str>,
        fence: &Fence,
        ids: &[(PartitionNo, EventId)],
    ) -> Result<Settled, StoreError> {
        let ((partitions, epochs), (places, ids)) = (fence_lists(fence), place_lists(ids));
        let owner = Arg::Text(Some(fence.relay.as_str()));
        let args = [
            Arg::Smalls(&partitions),
            Arg::Ints(&epochs),
            owner,
            Arg::Smalls(&places),
            Arg::Ints(&ids),
        ];
        let rows = self.settler.query(sql, &args).await?;
        let Some(row) = rows.first() else { return Ok(Settled::default()) };
        // As a string: an array would need PostgreSQL's driver where it is not wanted.
        let held: Option<String> = column(row, 1)?;
        let held = held.iter().flat_map(|list| list.split(',')).filter_map(|no| no.parse().ok());
        Ok(Settled {
            held: held.map(partition).collect(),
            deleted: column::<i64>(row, 0)?.unsigned_abs(),
            letters: Vec::new(),
        })
    }

    async fn finish_in(
        &self,
        tx: &mut Tx<'_>,
        fence: &Fence,
        ids: &[(PartitionNo, EventId)],
    ) -> Result<Settled, StoreError> {
        let held = self.lock_partitions(tx, fence).await?;
        let ids: Vec<i64> = ids.iter().filter(|(p, _)| held.has(*p)).map(|(_, id)| id.0).collect();
        let mut settled = Settled { held: held.partitions, ..Settled::default() };
        for chunk in ids.chunks(self.dialect().delete_chunk()) {
            let mut args = Vec::new();
            bind_ids(self.dialect(), &mut args, chunk);
            if self.options.retention != Retention::Delete {
                tx.execute(&self.list_sql("archive ids", chunk.len(), Dialect::archive_ids), &args)
                    .await?;
            }
            settled.deleted += tx
                .execute(&self.list_sql("delete ids", chunk.len(), Dialect::delete_ids), &args)
                .await?;
        }
        Ok(settled)
    }

    /// Locks the partitions of a fence, in order, and gives those that the relay owns under the
    /// fence's epochs.
    pub(super) async fn lock_partitions(
        &self,
        tx: &mut Tx<'_>,
        fence: &Fence,
    ) -> Result<HeldPartitions, StoreError> {
        let mut held =
            HeldPartitions { partitions: Vec::with_capacity(fence.partitions.len()), now: 0 };
        if fence.partitions.is_empty() {
            return Ok(held);
        }
        let partitions = numbers(fence.partitions.iter().map(|(p, _)| *p));
        let mut args = vec![Arg::Text(Some(fence.relay.as_str()))];
        bind_partitions(self.dialect(), &mut args, &partitions);
        // Before any other row and in one order, as every writer of these rows does, operators
        // included: so no two of them can wait for each other.
        for row in tx
            .query(&self.list_sql("lock owned", partitions.len(), Dialect::lock_owned), &args)
            .await?
        {
            held.now = column(&row, 2)?;
            let (number, epoch) = (partition(column(&row, 0)?), Epoch(column(&row, 1)?));
            if fence.partitions.contains(&(number, epoch)) {
                held.partitions.push(number);
            }
        }
        held.partitions.sort_unstable();
        Ok(held)
    }
}

/// Reads a partition's number.
pub(super) fn partition(number: i16) -> PartitionNo {
    PartitionNo(number.unsigned_abs())
}

/// Binds a partition and ids of it.
pub(super) fn in_partition<'a>(
    dialect: Dialect,
    partition: PartitionNo,
    ids: &'a [i64],
) -> Vec<Arg<'a>> {
    let mut args = vec![Arg::Small(stored(partition))];
    bind_ids(dialect, &mut args, ids);
    args
}
