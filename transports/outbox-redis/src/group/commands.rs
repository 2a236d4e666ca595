//! The commands of a consumer, each sent over a connection that the caller chooses.

use super::replies::{self, Claimed, EntryId, PendingEntry, StreamEntry};
use crate::{
    classify::{Failure, Kind},
    connection::RedisConnection,
    headers::Field,
};
use redis::{Cmd, Value, cmd};
use std::time::Duration;

/// Entries of one XPENDING.
const PAGE: usize = 500;

/// A consumer of a consumer group that reads streams.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) consumer: String,
    pub(crate) streams: Vec<String>,
    /// Whether a group that does not exist is made at the end of its stream.
    pub(crate) starts_at_end: bool,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Group {
    /// Makes the group on each stream that does not have it, and the streams that do not exist.
    /// `last_seen` gives the last entry that was read of a stream: a group that is made again at
    /// the end of its stream goes on there.
    pub(crate) async fn create(
        &self,
        connection: &RedisConnection,
        last_seen: &[Option<EntryId>],
    ) -> Result<bool, Failure> {
        let mut is_new = false;
        for (at, stream) in self.streams.iter().enumerate() {
            let seen = last_seen.get(at).copied().flatten();
            let start = match (self.starts_at_end, seen) {
                (false, _) => "0".to_owned(),
                (true, Some(seen)) => seen.to_string(),
                (true, None) => "$".to_owned(),
            };
            let mut create = cmd("XGROUP");
            create.arg("CREATE").arg(stream).arg(&self.name).arg(start).arg("MKSTREAM");
            match connection.send(&create).await {
                Ok(_) => is_new = true,
                Err(failure) if failure.kind == Kind::GroupExists => {}
                Err(failure) => return Err(failure.on_stream(stream)),
            }
        }
        Ok(is_new)
    }

    /// Reads up to so many new entries of each stream, and waits for the first one. Gives each with
    /// the place of its stream.
    pub(crate) async fn read(
        &self,
        connection: &RedisConnection,
        count: usize,
        block: Duration,
    ) -> Result<Vec<(usize, Vec<StreamEntry>)>, Failure> {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.name).arg(&self.consumer);
        read.arg("COUNT").arg(count).arg("BLOCK").arg(millis(block)).arg("STREAMS");
        self.streams.iter().for_each(|stream| _ = read.arg(stream));
        self.streams.iter().for_each(|_| _ = read.arg(">"));
        let streams = replies::read(connection.send(&read).await?)?;
        let place = |name: &[u8]| self.streams.iter().position(|stream| stream.as_bytes() == name);
        Ok(streams
            .into_iter()
            .filter_map(|(name, entries)| Some((place(&name)?, entries)))
            .collect())
    }

    /// Lists the entries of a stream that are pending with this consumer.
    pub(crate) async fn own_pending(
        &self,
        connection: &RedisConnection,
        stream: usize,
    ) -> Result<Vec<PendingEntry>, Failure> {
        let (mut all, mut from) = (Vec::new(), "-".to_owned());
        loop {
            let mut list = cmd("XPENDING");
            list.arg(&self.streams[stream]).arg(&self.name).arg(&from).arg("+");
            list.arg(PAGE).arg(&self.consumer);
            let page = replies::pending(self.send(connection, stream, &list).await?)?;
            let last = page.last().map(|entry| entry.id);
            let is_full = page.len() >= PAGE;
            all.extend(page);
            match last {
                Some(last) if is_full && last != EntryId::LAST => from = last.next().to_string(),
                _ => return Ok(all),
            }
        }
    }

    /// Claims entries that are pending with this consumer already, and gives them with their
    /// fields. Each claim counts as a delivery.
    pub(crate) async fn claim(
        &self,
        connection: &RedisConnection,
        stream: usize,
        ids: &[EntryId],
    ) -> Result<Vec<StreamEntry>, Failure> {
        let claim = self.claiming(stream, ids);
        replies::claimed(self.send(connection, stream, &claim).await?)
    }

    /// Claims up to so many entries that were delivered to any consumer longer ago than `idle`.
    pub(crate) async fn claim_abandoned(
        &self,
        connection: &RedisConnection,
        stream: usize,
        idle: Duration,
        cursor: &str,
        count: usize,
    ) -> Result<Claimed, Failure> {
        let mut claim = cmd("XAUTOCLAIM");
        claim.arg(&self.streams[stream]).arg(&self.name).arg(&self.consumer);
        claim.arg(millis(idle)).arg(cursor).arg("COUNT").arg(count);
        replies::auto_claimed(self.send(connection, stream, &claim).await?)
    }

    /// Tells how often entries were delivered that are pending with this consumer; `ids` is in
    /// order.
    pub(crate) async fn deliveries(
        &self,
        connection: &RedisConnection,
        stream: usize,
        ids: &[EntryId],
    ) -> Result<Vec<PendingEntry>, Failure> {
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(Vec::new()) };
        let mut list = cmd("XPENDING");
        list.arg(&self.streams[stream]).arg(&self.name);
        list.arg(first.to_string()).arg(last.to_string());
        list.arg(ids.len().max(PAGE)).arg(&self.consumer);
        replies::pending(self.send(connection, stream, &list).await?)
    }

    /// Begins the leases of entries anew, and gives those that are still pending.
    pub(crate) async fn renew(
        &self,
        connection: &RedisConnection,
        stream: usize,
        ids: &[EntryId],
    ) -> Result<Vec<EntryId>, Failure> {
        let mut claim = self.claiming(stream, ids);
        claim.arg("JUSTID");
        replies::claimed_ids(self.send(connection, stream, &claim).await?)
    }

    /// Lets other consumers claim entries at once: they count as delivered that long ago.
    pub(crate) async fn release(
        &self,
        connection: &RedisConnection,
        stream: usize,
        ids: &[EntryId],
        idle: Duration,
    ) -> Result<(), Failure> {
        let mut claim = self.claiming(stream, ids);
        claim.arg("IDLE").arg(millis(idle)).arg("JUSTID");
        self.send(connection, stream, &claim).await.map(drop)
    }

    /// Removes entries from those that are pending, and gives how many there were.
    pub(crate) async fn acknowledge(
        &self,
        connection: &RedisConnection,
        stream: usize,
        ids: &[EntryId],
    ) -> Result<u64, Failure> {
        let mut ack = cmd("XACK");
        ack.arg(&self.streams[stream]).arg(&self.name);
        ids.iter().for_each(|id| _ = ack.arg(id.to_string()));
        replies::acknowledged(&self.send(connection, stream, &ack).await?)
    }

    /// Deletes an entry from its stream.
    pub(crate) async fn delete(
        &self,
        connection: &RedisConnection,
        stream: usize,
        id: EntryId,
    ) -> Result<(), Failure> {
        let mut delete = cmd("XDEL");
        delete.arg(&self.streams[stream]).arg(id.to_string());
        self.send(connection, stream, &delete).await.map(drop)
    }

    fn claiming(&self, stream: usize, ids: &[EntryId]) -> Cmd {
        let mut claim = cmd("XCLAIM");
        claim.arg(&self.streams[stream]).arg(&self.name).arg(&self.consumer).arg(0);
        ids.iter().for_each(|id| _ = claim.arg(id.to_string()));
        claim
    }

    async fn send(
        &self,
        connection: &RedisConnection,
        stream: usize,
        command: &Cmd,
    ) -> Result<Value, Failure> {
        let reply = connection.send(command).await;
        reply.map_err(|failure| failure.on_stream(&self.streams[stream]))
    }
}

/// Adds an entry to a stream as it is, and gives its id.
pub(crate) async fn add(
    connection: &RedisConnection,
    stream: &str,
    fields: &[Field],
) -> Result<EntryId, Failure> {
    let mut add = cmd("XADD");
    add.arg(stream).arg("*");
    fields.iter().for_each(|(name, value)| _ = add.arg(&name[..]).arg(&value[..]));
    let reply = connection.send(&add).await.map_err(|failure| failure.on_stream(stream))?;
    replies::added(reply)
}
