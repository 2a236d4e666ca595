//! Reading events.

use super::{
    SqlStore,
    bind::{bind_ids, place_lists},
    decode::{self, Row},
    recheck::{self, MAX_RECHECKS},
};
use crate::{
    dialect::{Dialect, ROWS_SLACK},
    pool::Arg,
    schema::{decode::get, stored},
};
use async_trait::async_trait;
use outbox_core::{
    event::EventId,
    outbox::{
        EventReader, PartitionNo, PartitionRead, PartitionRows, ReadPlan, RouteRow, StoreError,
        StoredEvent,
    },
};
use sea_orm::QueryResult;

/// Ids of one fetch, where each is a parameter of its own.
const FETCH_CHUNK: usize = 1_024;

/// Rows of `outbox_retries`, by partition and event.
type RouteRows = Vec<(PartitionNo, EventId, RouteRow)>;

#[async_trait]
impl EventReader for SqlStore {
    async fn read(&self, plan: &ReadPlan) -> Result<Vec<PartitionRows>, StoreError> {
        let reads = &plan.partitions;
        if reads.is_empty() {
            return Ok(Vec::new());
        }
        let dialect = self.dialect();
        let window = plan.window > 0;
        let name = if window { "read and look back" } else { "read" };
        let n = if dialect.binds_lists() { 1 } else { reads.len() };
        let sql = self.sql(name, n, || dialect.read(n, window));
        let rows = if dialect.binds_lists() {
            let numbers: Vec<i16> = reads.iter().map(|r| stored(r.partition)).collect();
            let after: Vec<i64> = reads.iter().map(|r| r.after.0).collect();
            let limits: Vec<i64> = reads.iter().map(|r| i64::from(r.limit)).collect();
            let look_back: Vec<bool> = reads.iter().map(|r| r.look_back).collect();
            let (window, most) =
                (Arg::int(i64::from(plan.window)), Arg::int(i64::from(plan.payload_limit)));
            let lists = [
                Arg::Smalls(&numbers),
                Arg::Ints(&after),
                Arg::Ints(&limits),
                Arg::Flags(&look_back),
            ];
            let [numbers, after, limits, look_back] = lists;
            let args =
                [numbers, after, limits, look_back, most.clone(), most, window.clone(), window];
            self.reader.query(&sql, &args).await?
        } else {
            let mut args = Vec::with_capacity(reads.len() * 16);
            for read in reads {
                bind_read(&mut args, read, plan);
            }
            self.reader.query(&sql, &args).await?
        };
        let mut read = in_plan_order(&rows, plan)?;
        if window && !dialect.snapshot_keeps_causes() {
            self.recheck_ids(plan, &mut read).await?;
        }
        Ok(read)
    }

    async fn fetch(
        &self,
        ids: &[(PartitionNo, EventId)],
        payload_limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let dialect = self.dialect();
        let most = Arg::int(i64::from(payload_limit));
        let mut found = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(FETCH_CHUNK) {
            let (partitions, ids) = place_lists(chunk);
            let sql = self.list_sql("fetch", ids.len(), Dialect::fetch);
            let mut args = Vec::new();
            if dialect.binds_lists() {
                args.extend([
                    Arg::Smalls(&partitions),
                    Arg::Ints(&ids),
                    most.clone(),
                    most.clone(),
                ]);
            } else {
                args.extend([most.clone(), most.clone()]);
                bind_ids(dialect, &mut args, &ids);
                bind_ids(dialect, &mut args, &ids);
            }
            let rows = self.reader.query(&sql, &args).await?;
            let (events, route_rows, _) = split_rows(&rows)?;
            found.extend(
                joined(events, route_rows)
                    .into_iter()
                    .filter(|e| chunk.contains(&(e.partition, e.id))),
            );
        }
        Ok(found)
    }

    async fn page(
        &self,
        partition: PartitionNo,
        from: EventId,
        to: EventId,
        limit: u32,
        payload_limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let mut reads = MAX_RECHECKS;
        loop {
            let events = self.page_once(partition, from, to, limit, payload_limit).await?;
            reads -= 1;
            let recheck = reads > 0 && !self.dialect().snapshot_keeps_causes();
            let Some(last) = events.last().filter(|_| recheck) else { return Ok(events) };
            // The whole page is read again: its length tells whether there is more.
            let most = u32::try_from(events.len()).unwrap_or(limit).saturating_add(1);
            let ids = self.ids(partition, from, last.id, most).await?;
            if !recheck::missed_any(&events, &ids) {
                return Ok(events);
            }
        }
    }

    async fn ids(
        &self,
        partition: PartitionNo,
        from: EventId,
        to: EventId,
        limit: u32,
    ) -> Result<Vec<EventId>, StoreError> {
        let sql = self.sql("ids", 1, || self.dialect().ids());
        let args = [
            Arg::Small(stored(partition)),
            Arg::int(from.0),
            Arg::int(to.0),
            Arg::int(i64::from(limit)),
        ];
        let rows = self.reader.query(&sql, &args).await?;
        rows.iter().map(|row| get(row, 0, "event_id").map(EventId).map_err(decode_error)).collect()
    }
}

impl SqlStore {
    /// Reads a page in one snapshot.
    async fn page_once(
        &self,
        partition: PartitionNo,
        from: EventId,
        to: EventId,
        limit: u32,
        payload_limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let most = Arg::int(i64::from(payload_limit));
        let sql = self.sql("page", 1, || self.dialect().page());
        let stretch = [
            Arg::Small(stored(partition)),
            Arg::int(from.0),
            Arg::int(to.0),
            Arg::int(i64::from(limit)),
        ];
        let mut args = vec![most.clone(), most];
        args.extend_from_slice(&stretch);
        args.extend_from_slice(&stretch[..2]);
        args.extend_from_slice(&stretch);
        let rows = self.reader.query(&sql, &args).await?;
        let (events, route_rows, _) = split_rows(&rows)?;
        Ok(joined(events, route_rows))
    }

    /// Reads the ids of the windows again, until no window has a new one.
    async fn recheck_ids(
        &self,
        plan: &ReadPlan,
        read: &mut [PartitionRows],
    ) -> Result<(), StoreError> {
        let mut open: Vec<usize> =
            (0..read.len()).filter(|i| recheck::found_any(&read[*i])).collect();
        for _ in 0..MAX_RECHECKS {
            if open.is_empty() {
                break;
            }
            let mut args = Vec::with_capacity(open.len() * 5);
            for &i in &open {
                let asked = &plan.partitions[i];
                let partition = Arg::Small(stored(asked.partition));
                let to = Arg::int(recheck::last_id_read(asked, &read[i]).0);
                let (after, window) = (Arg::int(asked.after.0), Arg::int(i64::from(plan.window)));
                args.extend([partition.clone(), partition, to, after, window]);
            }
            let sql = self.sql("recheck", open.len(), || self.dialect().recheck_ids(open.len()));
            let (_, _, rechecks) = split_rows(&self.reader.query(&sql, &args).await?)?;
            let mut grew = Vec::new();
            for (partition, ids) in rechecks {
                let found =
                    open.iter().copied().find(|i| plan.partitions[*i].partition == partition);
                if let Some(i) = found
                    && recheck::merge_recheck(&plan.partitions[i], &mut read[i], &ids)
                {
                    grew.push(i);
                }
            }
            open = grew;
        }
        Ok(())
    }
}

/// Binds one partition of a read that names each.
fn bind_read(args: &mut Vec<Arg<'_>>, read: &PartitionRead, plan: &ReadPlan) {
    let (partition, after) = (Arg::Small(stored(read.partition)), Arg::int(read.after.0));
    let (window, most) = (plan.window, Arg::int(i64::from(plan.payload_limit)));
    args.extend([most.clone(), most]);
    args.extend([partition.clone(), after.clone(), Arg::int(i64::from(read.limit))]);
    if window > 0 {
        let (window, look_back) =
            (Arg::int(i64::from(window)), Arg::int(i64::from(read.look_back)));
        args.extend([
            partition.clone(),
            partition.clone(),
            after.clone(),
            after.clone(),
            window,
            look_back,
        ]);
        args.extend([partition.clone(), after.clone()]);
    }
    args.extend([partition, after, Arg::int(rows_limit(read))]);
}

/// How many rows of `outbox_retries` a read takes of a partition.
fn rows_limit(read: &PartitionRead) -> i64 {
    i64::from(read.limit) * 4 + ROWS_SLACK
}

/// Puts the rows of a read into the order of its plan.
fn in_plan_order(rows: &[QueryResult], plan: &ReadPlan) -> Result<Vec<PartitionRows>, StoreError> {
    let (events, route_rows, windows) = split_rows(rows)?;
    let mut read: Vec<PartitionRows> =
        plan.partitions.iter().map(|_| PartitionRows::default()).collect();
    let place = |partition| plan.partitions.binary_search_by_key(&partition, |r| r.partition).ok();
    for (partition, ids) in windows {
        if let Some(i) = place(partition) {
            read[i].window = ids;
        }
    }
    let mut route_rows_of: Vec<RouteRows> = plan.partitions.iter().map(|_| Vec::new()).collect();
    for row in route_rows {
        if let Some(i) = place(row.0) {
            route_rows_of[i].push(row);
        }
    }
    for event in events {
        if let Some(i) = place(event.partition) {
            read[i].past.push(event);
        }
    }
    for ((part, route_rows), asked) in read.iter_mut().zip(route_rows_of).zip(&plan.partitions) {
        part.full = part.past.len() >= asked.limit as usize;
        if i64::try_from(route_rows.len()).is_ok_and(|n| n >= rows_limit(asked))
            && let Some((_, last, _)) = route_rows.last()
        {
            // The limit may have cut the rows of this event; it and those behind it are read again.
            let covered = part.past.partition_point(|e| e.id < *last);
            part.full |= covered < part.past.len();
            part.past.truncate(covered);
        }
        part.past = joined(std::mem::take(&mut part.past), route_rows);
    }
    Ok(read)
}

/// Decodes rows and splits them by kind, each kind in order.
#[expect(clippy::type_complexity, reason = "three lists, taken apart at once")]
fn split_rows(
    rows: &[QueryResult],
) -> Result<(Vec<StoredEvent>, RouteRows, Vec<(PartitionNo, Vec<EventId>)>), StoreError> {
    let (mut events, mut route_rows, mut windows) =
        (Vec::with_capacity(rows.len()), Vec::new(), Vec::new());
    for row in rows {
        match decode::row(row).map_err(decode_error)? {
            Row::Event(event) => events.push(event),
            Row::Route(partition, id, row) => route_rows.push((partition, id, row)),
            Row::Window(partition, mut ids) => {
                ids.sort_unstable();
                windows.push((partition, ids));
            }
        }
    }
    // They come in order; that a UNION ALL keeps it is custom, not a promise.
    if !events.is_sorted_by_key(|e| (e.partition, e.id)) {
        events.sort_by_key(|e| (e.partition, e.id));
    }
    if !route_rows.is_sorted_by_key(|(p, id, _)| (*p, *id)) {
        route_rows.sort_by_key(|(p, id, _)| (*p, *id));
    }
    Ok((events, route_rows, windows))
}

/// Joins events with their route rows; both are in order.
fn joined(mut events: Vec<StoredEvent>, route_rows: RouteRows) -> Vec<StoredEvent> {
    let mut route_rows = route_rows.into_iter().peekable();
    if route_rows.peek().is_none() {
        return events;
    }
    for event in &mut events {
        let place = (event.partition, event.id);
        while route_rows.next_if(|(p, id, _)| (*p, *id) < place).is_some() {}
        while let Some((_, _, row)) = route_rows.next_if(|(p, id, _)| (*p, *id) == place) {
            event.rows.push(row);
        }
    }
    events
}

fn decode_error(reason: String) -> StoreError {
    StoreError::Mismatch(format!("a row that a relay wrote does not decode: {reason}"))
}
