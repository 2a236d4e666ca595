//! What a consumer of a group does with its entries: it takes them, renews their leases, claims
//! those of consumers that died, and releases its own.

use super::{
    commands::Group,
    handoff::{Handoff, Received},
    pending::DeliveryTag,
    replies::{EntryId, PendingEntry, StreamEntry},
};
use crate::{
    classify::Failure,
    connection::RedisConnection,
    headers::{self, ReadOptions},
};
use outbox_core::{
    event::Timestamp,
    runtime::{now, spawn, wall_clock},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

/// The share of a lease after which it is renewed: two renewals may fail.
const RENEWALS: u32 = 3;
/// Most entries of one command that names each.
const CHUNK: usize = 256;
/// Most claims of abandoned entries of a stream in one upkeep.
const MAX_CLAIMS: usize = 16;
/// What released entries count as: idle for longer than any lease, so that the others claim them.
const RELEASED: Duration = Duration::from_hours(24 * 365);
/// Where XAUTOCLAIM begins.
pub(super) const FIRST: &str = "0-0";

/// How a member receives.
#[derive(Debug, Clone)]
pub(crate) struct MemberOptions {
    /// Entries that may wait for a caller.
    pub(crate) prefetch: usize,
    /// How long an entry belongs to a consumer that does not renew its claim.
    pub(crate) lease: Duration,
    pub(crate) max_payload: usize,
    pub(crate) read_options: ReadOptions,
}

/// What the member's task, its callers and their deliveries share.
pub(crate) struct Membership {
    pub(crate) group: Group,
    pub(crate) handoff: Handoff,
    pub(super) options: MemberOptions,
}

impl Membership {
    /// Returns an entry, to be delivered again: from memory, or by another consumer where this
    /// subscriber is closed.
    pub(crate) fn requeue(self: &Arc<Self>, tag: DeliveryTag) {
        let Some(connection) = self.handoff.requeue(&tag) else { return };
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let membership = self.clone();
        let release = async move {
            let ids = [tag.id];
            let released = membership.group.release(&connection, tag.stream, &ids, RELEASED).await;
            if let Err(failure) = released {
                tracing::debug!(error = failure.text, "releasing an entry failed");
            }
        };
        spawn(release).detach();
    }

    /// Takes entries that were given to this consumer, each with how often it was delivered. Gives
    /// the ids of those that are no longer in the stream.
    pub(super) fn accept(
        &self,
        stream: usize,
        entries: Vec<(StreamEntry, u32)>,
        lease_begun: Instant,
    ) -> Vec<EntryId> {
        let (mut gone, mut received) = (Vec::new(), Vec::with_capacity(entries.len()));
        for (entry, deliveries) in entries {
            let (id, size) = (entry.id, entry.bytes());
            match entry.fields {
                Some(fields) => {
                    received.push((id, deliveries, self.receive(stream, id, fields.into(), size)));
                }
                None => gone.push(id),
            }
        }
        let largest = received.iter().map(|(_, _, (_, received))| received.size).max();
        let mut state = self.handoff.state();
        state.note_largest(largest.unwrap_or_default());
        for (id, deliveries, (key, received)) in received {
            state.pending.insert(stream, id, key, deliveries, lease_begun, received);
        }
        drop(state);
        self.handoff.wake_caller();
        gone
    }

    fn receive(
        &self,
        stream: usize,
        id: EntryId,
        fields: Arc<[headers::Field]>,
        size: usize,
    ) -> (Option<u64>, Received) {
        let (limit, payload) = (self.options.max_payload, headers::payload(&fields).len());
        let message = if payload > limit {
            Err(format!("the message has {payload} bytes, of at most {limit}"))
        } else {
            let added_at = id.added_at().unwrap_or_else(|| Timestamp::from(wall_clock()));
            let stream = &self.group.streams[stream];
            headers::read(&self.options.read_options, stream, &fields, added_at)
        };
        let key = message.as_ref().ok().and_then(|message| message.key.as_deref()).map(|key| {
            let mut hasher = DefaultHasher::new();
            hasher.write(key.as_bytes());
            hasher.finish()
        });
        (key, Received { message, fields, size })
    }

    /// Takes the entries that are pending with this consumer and that it does not have in memory:
    /// those of a reply that was lost, and those of a predecessor with the same name. Renews the
    /// leases of the others, and forgets those that are another consumer's now.
    pub(super) async fn recover(&self, connection: &RedisConnection) -> Result<(), Failure> {
        for stream in 0..self.group.streams.len() {
            let own = self.group.own_pending(connection, stream).await?;
            let (known, unknown): (Vec<&PendingEntry>, Vec<&PendingEntry>) = {
                let state = self.handoff.state();
                own.iter().partition(|entry| state.pending.contains(stream, entry.id))
            };
            let known: Vec<EntryId> = known.iter().map(|entry| entry.id).collect();
            for chunk in known.chunks(CHUNK) {
                self.renew(connection, stream, chunk).await?;
            }
            for chunk in unknown.chunks(CHUNK) {
                let begun = now();
                let ids: Vec<EntryId> = chunk.iter().map(|entry| entry.id).collect();
                let claimed = self.group.claim(connection, stream, &ids).await?;
                let deliveries: BTreeMap<EntryId, u32> =
                    chunk.iter().map(|entry| (entry.id, entry.deliveries)).collect();
                let still_there: BTreeSet<EntryId> = claimed
                    .iter()
                    .filter(|entry| entry.fields.is_some())
                    .map(|entry| entry.id)
                    .collect();
                let counted = claimed.into_iter().map(|entry| {
                    let before = deliveries.get(&entry.id).copied().unwrap_or(1);
                    (entry, before.saturating_add(1))
                });
                self.accept(stream, counted.collect(), begun);
                // Redis 6.2 keeps them pending for ever.
                let gone = ids.into_iter().filter(|id| !still_there.contains(id));
                self.forget_trimmed(connection, stream, &gone.collect::<Vec<_>>()).await?;
            }
        }
        let expired = self.handoff.state().pending.expire(now(), self.options.lease);
        if expired > 0 {
            tracing::warn!(
                entries = expired,
                "claims expired; other consumers may have the entries"
            );
        }
        Ok(())
    }

    async fn renew(
        &self,
        connection: &RedisConnection,
        stream: usize,
        ids: &[EntryId],
    ) -> Result<(), Failure> {
        let begun = now();
        let renewed = self.group.renew(connection, stream, ids).await?.into_iter().collect();
        self.handoff.state().pending.renewed(stream, ids, &renewed, begun);
        Ok(())
    }

    /// Acknowledges entries that were trimmed from their stream before they were handled.
    pub(super) async fn forget_trimmed(
        &self,
        connection: &RedisConnection,
        stream: usize,
        ids: &[EntryId],
    ) -> Result<(), Failure> {
        if ids.is_empty() {
            return Ok(());
        }
        self.warn_of_trimmed(stream, ids.len());
        self.group.acknowledge(connection, stream, ids).await.map(drop)
    }

    fn warn_of_trimmed(&self, stream: usize, entries: usize) {
        let stream = self.group.streams[stream].as_str();
        tracing::warn!(stream, entries, "entries were trimmed or deleted before they were handled");
    }

    /// Renews leases, and claims entries of consumers that do not renew theirs.
    pub(super) async fn upkeep(
        self: Arc<Self>,
        connection: Arc<RedisConnection>,
        mut cursors: Vec<String>,
    ) -> Result<Vec<String>, Failure> {
        let lease = self.options.lease;
        let is_late = !self.handoff.state().pending.to_renew(now(), lease).is_empty();
        if is_late {
            // The process stood still, or the server was silent.
            self.recover(&connection).await?;
        }
        let due = self.handoff.state().pending.to_renew(now(), lease / RENEWALS);
        for (stream, ids) in due {
            for chunk in ids.chunks(CHUNK) {
                self.renew(&connection, stream, chunk).await?;
            }
        }
        for (stream, cursor) in cursors.iter_mut().enumerate() {
            for _ in 0..MAX_CLAIMS {
                let Some(count) = self.handoff.state().room(1) else { break };
                *cursor = self.claim_abandoned(&connection, stream, cursor, count).await?;
                if cursor == FIRST {
                    break;
                }
            }
        }
        Ok(cursors)
    }

    async fn claim_abandoned(
        &self,
        connection: &RedisConnection,
        stream: usize,
        cursor: &str,
        count: usize,
    ) -> Result<String, Failure> {
        let (group, lease, begun) = (&self.group, self.options.lease, now());
        let claimed = group.claim_abandoned(connection, stream, lease, cursor, count).await?;
        if claimed.deleted > 0 {
            self.warn_of_trimmed(stream, claimed.deleted);
        }
        if claimed.entries.is_empty() {
            return Ok(claimed.cursor);
        }
        let mut ids: Vec<EntryId> = claimed.entries.iter().map(|entry| entry.id).collect();
        ids.sort_unstable();
        let counts = group.deliveries(connection, stream, &ids).await?;
        let counts: BTreeMap<EntryId, u32> =
            counts.iter().map(|entry| (entry.id, entry.deliveries)).collect();
        // An entry that is claimed was delivered before.
        let counted = claimed.entries.into_iter().map(|entry| {
            let deliveries = counts.get(&entry.id).copied().unwrap_or(2);
            (entry, deliveries)
        });
        let gone = self.accept(stream, counted.collect(), begun);
        self.forget_trimmed(connection, stream, &gone).await?;
        Ok(claimed.cursor)
    }

    /// Lets other consumers claim at once all entries that are pending with this one and not in
    /// flight.
    pub(super) async fn release(&self, connection: &RedisConnection) -> Result<(), Failure> {
        self.handoff.state().pending.forget_waiting();
        for stream in 0..self.group.streams.len() {
            let own = self.group.own_pending(connection, stream).await?;
            let ids: Vec<EntryId> = {
                let state = self.handoff.state();
                let idle = own.iter().filter(|entry| !state.pending.contains(stream, entry.id));
                idle.map(|entry| entry.id).collect()
            };
            for chunk in ids.chunks(CHUNK) {
                self.group.release(connection, stream, chunk, RELEASED).await?;
            }
        }
        Ok(())
    }
}
