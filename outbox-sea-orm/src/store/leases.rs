//! Leases of partitions. All code locks in one order: a relay's row, then partitions by number.

use super::{
    SqlStore,
    bind::{bind_ids, bind_partitions, numbers},
    settler::partition,
};
use crate::{
    pool::{Arg, Tx},
    schema::{decode::column, micros, stored},
};
use async_trait::async_trait;
use outbox_core::{
    event::{EventId, LetterId, RelayId},
    outbox::{
        DUE_LIMIT, DueRetry, Epoch, LeaseStore, OutboxInfo, ParkStore, ParkedKey, PartitionNo,
        PartitionOwner, RelayRow, Renewal, StoreError, UNPARKED_LIMIT, UnparkedKey,
    },
};
use sea_orm::QueryResult;
use std::{sync::Arc, time::Duration};

#[async_trait]
impl LeaseStore for SqlStore {
    async fn info(&self) -> Result<OutboxInfo, StoreError> {
        let sql = self.sql("info", 1, || "SELECT partitions FROM {meta} WHERE id = 1".into());
        let rows = self.keeper.query(&sql, &[]).await?;
        let installed: i32 = rows.first().map_or(Ok(0), |row| column(row, 0))?;
        if installed != i32::from(self.schema.partitions()) {
            return Err(StoreError::Mismatch(format!(
                "it has {installed} partitions, and had {} when this program opened it",
                self.schema.partitions()
            )));
        }
        let ids_commit_out_of_order = self.dialect().ids_commit_out_of_order();
        Ok(OutboxInfo { partitions: self.schema.partitions(), ids_commit_out_of_order })
    }

    async fn renew(
        &self,
        relay: &RelayId,
        routes: u64,
        lease: Duration,
    ) -> Result<Renewal, StoreError> {
        // One statement by itself, and the next one sees what was committed before it: in one
        // transaction with one snapshot a takeover that came between would stay unseen.
        let sql = self.sql("renew", 1, || {
            "UPDATE {relays} SET lease_until = {now} + ?, routes = ? WHERE relay_id = ?".into()
        });
        let me = Arg::Text(Some(relay.as_str()));
        let args = [Arg::int(micros(lease)), Arg::int(routes.cast_signed()), me.clone()];
        let known = self.keeper.execute(&sql, &args).await? > 0;
        if !known {
            let mut tx = self.keeper.begin().await?;
            let registered = self.register(&mut tx, relay, routes, lease).await;
            tx.end(registered).await?;
        }
        // One snapshot, bounded in all its parts: a renewal that read every decision and every
        // parked key grew with them, and the lease ran out during its own renewal.
        let rows = self.keeper.query(&self.sql("view", 1, view), &[me.clone(), me]).await?;
        let mut renewal = Renewal { known, ..Renewal::default() };
        let mut urgent = 0;
        for row in &rows {
            read_view_row(row, &mut renewal, &mut urgent)?;
        }
        renewal.unparked.sort_by_key(|park| park.letter);
        renewal.view.relays.sort_by(|a, b| a.id.cmp(&b.id));
        renewal.view.partitions.sort_by_key(|p| p.partition);
        Ok(renewal)
    }

    async fn take(
        &self,
        relay: &RelayId,
        from: Option<&RelayId>,
        partitions: &[PartitionNo],
    ) -> Result<Vec<(PartitionNo, Epoch)>, StoreError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.keeper.begin().await?;
        let taken = self.take_in(&mut tx, relay, from, partitions).await;
        tx.end(taken).await
    }

    async fn release(
        &self,
        relay: &RelayId,
        partitions: &[(PartitionNo, Epoch)],
    ) -> Result<(), StoreError> {
        if partitions.is_empty() {
            return Ok(());
        }
        let mut tx = self.keeper.begin().await?;
        let released = self.release_in(&mut tx, relay, partitions).await;
        tx.end(released).await
    }

    async fn deregister(&self, relay: &RelayId) -> Result<(), StoreError> {
        let mut tx = self.keeper.begin().await?;
        let left = self.leave_in(&mut tx, relay).await;
        tx.end(left).await
    }
}

#[async_trait]
impl ParkStore for SqlStore {
    async fn parked_keys(
        &self,
        partition: PartitionNo,
        after: LetterId,
        limit: u32,
    ) -> Result<Vec<ParkedKey>, StoreError> {
        let sql = self.sql("parks", 1, || self.dialect().parks());
        let args = [Arg::Small(stored(partition)), Arg::int(after.0), Arg::int(i64::from(limit))];
        let park = |row: &QueryResult| {
            let route: String = column(row, 0)?;
            Ok(ParkedKey {
                partition,
                route: route.into(),
                key: column(row, 1)?,
                letter: LetterId(column(row, 2)?),
            })
        };
        self.keeper.query(&sql, &args).await?.iter().map(park).collect()
    }

    async fn unparked_keys(&self, relay: &RelayId) -> Result<Vec<UnparkedKey>, StoreError> {
        let sql = self.sql("unparked", 1, || {
            format!(
                "SELECT s.partition_no, s.event_id, s.route, s.message_key, s.letter_id, \
                 CASE WHEN s.redriven THEN 1 ELSE 0 END FROM {{unparked}} s \
                 JOIN {{partitions}} q ON q.partition_no = s.partition_no \
                 WHERE q.owner = ? ORDER BY s.letter_id LIMIT {UNPARKED_LIMIT}"
            )
        });
        let key = |row: &QueryResult| {
            let route: String = column(row, 2)?;
            Ok(UnparkedKey {
                partition: partition(column(row, 0)?),
                event: EventId(column(row, 1)?),
                route: route.into(),
                key: column(row, 3)?,
                letter: LetterId(column(row, 4)?),
                redriven: column::<i32>(row, 5)? != 0,
            })
        };
        // Not the keeper's connection: it delays no renewal.
        let rows = self.janitor.query(&sql, &[Arg::Text(Some(relay.as_str()))]).await?;
        rows.iter().map(key).collect()
    }

    async fn delete_unparked(&self, letters: &[LetterId]) -> Result<(), StoreError> {
        if letters.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = letters.iter().map(|letter| letter.0).collect();
        let sql = self.list_sql("delete unparked", ids.len(), |dialect, n| {
            format!("DELETE FROM {{unparked}} WHERE {}", dialect.any("letter_id", n))
        });
        let mut args = Vec::new();
        bind_ids(self.dialect(), &mut args, &ids);
        self.keeper.execute(&sql, &args).await.map(|_| ())
    }
}

/// Writes the read of a renewal, in one snapshot: partitions, relays that are alive or own one, due
/// retries, unparked keys. The columns are the kind of row, two strings, three numbers.
fn view() -> String {
    format!(
        "SELECT 0 AS kind, r.relay_id AS a, '' AS b, r.routes AS n, \
         CASE WHEN r.lease_until >= {{now}} THEN 1 ELSE 0 END AS m, 0 AS k FROM {{relays}} r \
         WHERE r.lease_until >= {{now}} OR EXISTS (SELECT 1 FROM {{partitions}} w WHERE w.owner = r.relay_id) \
         UNION ALL SELECT 1, p.owner, '', p.partition_no, p.epoch, 0 FROM {{partitions}} p \
         UNION ALL SELECT 2, d.route, '', d.partition_no, d.event_id, d.urgent FROM (\
         SELECT t.route, t.partition_no, t.event_id, CASE WHEN t.redriven THEN 1 ELSE 0 END AS urgent \
         FROM {{retries}} t JOIN {{partitions}} o ON o.partition_no = t.partition_no \
         WHERE o.owner = ? AND t.state = 'waiting' AND t.due_at <= {{now}} \
         ORDER BY urgent DESC, t.due_at, t.event_id LIMIT {DUE_LIMIT}) d \
         UNION ALL SELECT CASE WHEN c.redriven THEN 4 ELSE 3 END, c.route, c.message_key, c.partition_no, c.event_id, \
         c.letter_id FROM (SELECT s.* FROM {{unparked}} s JOIN {{partitions}} q ON q.partition_no = s.partition_no \
         WHERE q.owner = ? ORDER BY s.letter_id LIMIT {UNPARKED_LIMIT}) c"
    )
}

/// Reads one row of [`view`].
fn read_view_row(
    row: &QueryResult,
    renewal: &mut Renewal,
    urgent: &mut usize,
) -> Result<(), StoreError> {
    let (kind, id): (i32, Option<String>) = (column(row, 0)?, column(row, 1)?);
    let (n, m): (i64, i64) = (column(row, 3)?, column(row, 4)?);
    let partition = || {
        u16::try_from(n)
            .map(PartitionNo)
            .map_err(|_| StoreError::Mismatch(format!("no partition: {n}")))
    };
    match (kind, id) {
        (0, Some(id)) => {
            let id = RelayId::from_stored(&id);
            renewal.view.relays.push(RelayRow { id, routes: n.cast_unsigned(), live: m != 0 });
        }
        (1, owner) => {
            let owner = owner.as_deref().map(RelayId::from_stored);
            renewal.view.partitions.push(PartitionOwner {
                partition: partition()?,
                owner,
                epoch: Epoch(m),
            });
        }
        (2, Some(route)) => {
            let due = DueRetry { partition: partition()?, id: EventId(m), route: Arc::from(route) };
            if column::<i64>(row, 5)? == 0 {
                renewal.due.push(due);
            } else {
                renewal.due.insert(*urgent, due);
                *urgent += 1;
            }
        }
        (3 | 4, Some(route)) => renewal.unparked.push(UnparkedKey {
            partition: partition()?,
            event: EventId(m),
            route: route.into(),
            key: column(row, 2)?,
            letter: LetterId(column(row, 5)?),
            redriven: kind == 4,
        }),
        (kind, _) => return Err(StoreError::Mismatch(format!("no kind of row: {kind}"))),
    }
    Ok(())
}

impl SqlStore {
    /// Inserts the relay's row, and releases the partitions that it owned before its former row was
    /// deleted.
    async fn register(
        &self,
        tx: &mut Tx<'_>,
        relay: &RelayId,
        routes: u64,
        lease: Duration,
    ) -> Result<(), StoreError> {
        let sql = self.sql("register", 1, || {
            "INSERT INTO {relays} (relay_id, lease_until, routes, started_at) VALUES (?, {now} + ?, ?, {now})".into()
        });
        let me = Arg::Text(Some(relay.as_str()));
        tx.execute(&sql, &[me, Arg::int(micros(lease)), Arg::int(routes.cast_signed())]).await?;
        self.release_all(tx, relay).await
    }

    async fn take_in(
        &self,
        tx: &mut Tx<'_>,
        relay: &RelayId,
        from: Option<&RelayId>,
        partitions: &[PartitionNo],
    ) -> Result<Vec<(PartitionNo, Epoch)>, StoreError> {
        // Locked, so that a take whose response came too late ends before the relay deregisters, or
        // takes nothing after that.
        let sql = self.sql("me", 1, || {
            "SELECT relay_id FROM {relays} WHERE relay_id = ? AND lease_until >= {now}{for_update}".into()
        });
        if tx.query(&sql, &[Arg::Text(Some(relay.as_str()))]).await?.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(old) = from
            && !self.is_dead(tx, old).await?
        {
            return Ok(Vec::new());
        }
        let dialect = self.dialect();
        let (me, old) =
            (Arg::Text(Some(relay.as_str())), from.map(|old| Arg::Text(Some(old.as_str()))));
        let name = if from.is_some() { "take from" } else { "take free" };
        let sql = self.list_sql(name, partitions.len(), |dialect, n| {
            format!(
                "SELECT p.partition_no, p.epoch FROM {{partitions}} p WHERE {} AND {} \
                 ORDER BY p.partition_no{{for_update}}{{skip_locked}}",
                dialect.any("p.partition_no", n),
                if from.is_some() { "p.owner = ?" } else { "p.owner IS NULL" },
            )
        });
        let wanted = numbers(partitions.iter().copied());
        let mut args = Vec::new();
        bind_partitions(dialect, &mut args, &wanted);
        args.extend(old.clone());
        let free: Vec<(i16, i64)> = tx
            .query(&sql, &args)
            .await?
            .iter()
            .map(|row| Ok((column(row, 0)?, column(row, 1)?)))
            .collect::<Result<_, StoreError>>()?;
        if !free.is_empty() {
            let sql = self.list_sql("own", free.len(), |dialect, n| {
                let any = dialect.any("partition_no", n);
                format!("UPDATE {{partitions}} SET owner = ?, epoch = epoch + 1 WHERE {any}")
            });
            let numbers: Vec<i16> = free.iter().map(|(p, _)| *p).collect();
            let mut args = vec![me];
            bind_partitions(dialect, &mut args, &numbers);
            tx.execute(&sql, &args).await?;
        }
        if let Some(old) = old {
            // No relay will take partitions from a dead one that owns none.
            let sql = self.sql("remove", 1, || {
                "DELETE FROM {relays} WHERE relay_id = ? AND NOT EXISTS \
                 (SELECT 1 FROM {partitions} p WHERE p.owner = ?)"
                    .into()
            });
            tx.execute(&sql, &[old.clone(), old]).await?;
        }
        Ok(free.into_iter().map(|(p, epoch)| (partition(p), Epoch(epoch + 1))).collect())
    }

    /// Locks a relay's row and tells whether its lease has run out; one without a row is dead too.
    /// `false` where another holds the row.
    async fn is_dead(&self, tx: &mut Tx<'_>, relay: &RelayId) -> Result<bool, StoreError> {
        let sql = self.sql("dead", 1, || {
            "SELECT CASE WHEN lease_until < {now} THEN 1 ELSE 0 END FROM {relays} \
             WHERE relay_id = ?{for_update}{skip_locked}"
                .into()
        });
        let id = Arg::Text(Some(relay.as_str()));
        if let Some(row) = tx.query(&sql, std::slice::from_ref(&id)).await?.first() {
            return Ok(column::<i32>(row, 0)? != 0);
        }
        let sql =
            self.sql("there", 1, || "SELECT relay_id FROM {relays} WHERE relay_id = ?".into());
        Ok(tx.query(&sql, &[id]).await?.is_empty())
    }

    async fn release_in(
        &self,
        tx: &mut Tx<'_>,
        relay: &RelayId,
        partitions: &[(PartitionNo, Epoch)],
    ) -> Result<(), StoreError> {
        let dialect = self.dialect();
        let sql = self.list_sql("lock released", partitions.len(), |dialect, n| {
            let any = dialect.any("partition_no", n);
            format!(
                "SELECT partition_no, epoch FROM {{partitions}} WHERE owner = ? AND {any} \
                 ORDER BY partition_no{{for_update}}"
            )
        });
        let wanted = numbers(partitions.iter().map(|(p, _)| *p));
        let mut args = vec![Arg::Text(Some(relay.as_str()))];
        bind_partitions(dialect, &mut args, &wanted);
        let mut held = Vec::new();
        for row in tx.query(&sql, &args).await? {
            let number: i16 = column(&row, 0)?;
            // By the epoch too: a partition that was lost and gained again meanwhile is not
            // released by a call that was made before.
            if partitions.contains(&(partition(number), Epoch(column(&row, 1)?))) {
                held.push(number);
            }
        }
        if held.is_empty() {
            return Ok(());
        }
        let sql = self.list_sql("free", held.len(), |dialect, n| {
            format!(
                "UPDATE {{partitions}} SET owner = NULL WHERE {}",
                dialect.any("partition_no", n)
            )
        });
        let mut args = Vec::new();
        bind_partitions(dialect, &mut args, &held);
        tx.execute(&sql, &args).await.map(|_| ())
    }

    async fn leave_in(&self, tx: &mut Tx<'_>, relay: &RelayId) -> Result<(), StoreError> {
        let me = [Arg::Text(Some(relay.as_str()))];
        let sql = self.sql("lock me", 1, || {
            "SELECT relay_id FROM {relays} WHERE relay_id = ?{for_update}".into()
        });
        tx.query(&sql, &me).await?;
        self.release_all(tx, relay).await?;
        let sql = self.sql("unregister", 1, || "DELETE FROM {relays} WHERE relay_id = ?".into());
        tx.execute(&sql, &me).await.map(|_| ())
    }

    /// Releases all partitions of a relay.
    async fn release_all(&self, tx: &mut Tx<'_>, relay: &RelayId) -> Result<(), StoreError> {
        let me = [Arg::Text(Some(relay.as_str()))];
        let sql = self.sql("lock mine", 1, || {
            "SELECT partition_no FROM {partitions} WHERE owner = ? ORDER BY partition_no{for_update}".into()
        });
        if tx.query(&sql, &me).await?.is_empty() {
            return Ok(());
        }
        let sql = self.sql("release all", 1, || {
            "UPDATE {partitions} SET owner = NULL WHERE owner = ?".into()
        });
        tx.execute(&sql, &me).await.map(|_| ())
    }
}
