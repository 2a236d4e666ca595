//! What a store must do, split by who calls it. All instants are the database's own.

use super::{Epoch, LeaseView, PartitionNo, RouteRow, StoreError};
use crate::{
    event::{EventId, LetterId, Message, MessageId, NewEvent, RelayId, Trail},
    failure::{AttemptError, DeadLetter, DeadReason},
    runtime::{Connections, Wake},
};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use serde::Serialize;
use std::{sync::Arc, time::Duration};

/// What a relay needs to know of an outbox before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxShape {
    /// Number of partitions, from 1.
    pub partitions: u16,
    /// Whether ids may commit out of order (several writers at once), so that reads must look back.
    pub ids_commit_out_of_order: bool,
}

/// One event row as a relay reads it.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Its partition.
    pub partition: PartitionNo,
    /// Its place in the order.
    pub id: EventId,
    /// The message, or why the row does not decode.
    pub body: Result<Message, String>,
    /// The payload's bytes where it was longer than the read took: the message is without it then.
    pub left_out: Option<u64>,
    /// Time until it expires, from now by the database's clock: zero when that is past, `None` when it never does.
    pub expires_in: Option<Duration>,
    /// What is remembered of it, by route; empty for an event of which nothing has to be remembered.
    pub rows: Vec<RouteRow>,
}

/// Whose write it is: refused for partitions that have another owner or epoch by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The relay.
    pub relay: RelayId,
    /// The partitions that are written to, with the epochs under which they are owned; sorted by number.
    pub partitions: Vec<(PartitionNo, Epoch)>,
}

/// How one read looks at one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRead {
    /// The partition.
    pub partition: PartitionNo,
    /// Rows past this id are read whole.
    pub after: EventId,
    /// At most so many, from 1.
    pub limit: u32,
    /// Whether to look back even where nothing is found past `after`.
    pub look_back: bool,
}

/// One read over all owned partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPlan {
    /// One entry a partition, sorted by number.
    pub partitions: Vec<PartitionRead>,
    /// Ids to look back over, counted from `after`; zero where ids commit in order.
    pub window: u32,
    /// Payloads of more bytes are [left out](StoredEvent::left_out), so that a read has no more bytes than this for
    /// each of its rows.
    pub whole_up_to: u32,
}

/// What one read found in one partition.
#[derive(Debug, Clone, Default)]
pub struct PartitionRows {
    /// Rows past the position, whole, by id, joined with what is remembered of them.
    pub past: Vec<StoredEvent>,
    /// Whether the limit cut them.
    pub full: bool,
    /// Ids in the window up to and including the position: all that exist there, in order.
    pub window: Vec<EventId>,
}

/// Reads events. Called by the reader; every method is one round trip and one snapshot, or gives what one would: never an
/// event without those of its key that had committed before its transaction got their lock.
#[async_trait]
pub trait EventReader: Send + Sync + 'static {
    /// Reads past the positions, and ids in the windows. One entry for each of the plan's partitions, in its order.
    async fn read(&self, plan: &ReadPlan) -> Result<Vec<PartitionRows>, StoreError>;

    /// Reads events by id, joined with what is remembered of them; absent ones are left out, and so are payloads of more
    /// than `whole_up_to` bytes.
    async fn fetch(
        &self,
        ids: &[(PartitionNo, EventId)],
        whole_up_to: u32,
    ) -> Result<Vec<StoredEvent>, StoreError>;

    /// Reads one partition from an id (inclusive) to an id (inclusive), joined, the first `limit` rows; payloads of more
    /// than `whole_up_to` bytes are left out.
    async fn page(
        &self,
        partition: PartitionNo,
        from: EventId,
        to: EventId,
        limit: u32,
        whole_up_to: u32,
    ) -> Result<Vec<StoredEvent>, StoreError>;

    /// Reads the ids of one partition from an id (inclusive) to an id (inclusive), the first `limit`.
    async fn ids(
        &self,
        partition: PartitionNo,
        from: EventId,
        to: EventId,
        limit: u32,
    ) -> Result<Vec<EventId>, StoreError>;
}

/// A letter to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct NewLetter {
    /// The route that gives up; empty where no route takes the event.
    pub route: Arc<str>,
    /// Why.
    pub reason: DeadReason,
    /// Whether the rest of the key waits for a decision.
    pub parks: bool,
}

/// A letter that brings its event along.
#[derive(Debug, Clone, PartialEq)]
pub struct CarriedLetter {
    /// The event's partition.
    pub partition: PartitionNo,
    /// Its place in the order.
    pub id: EventId,
    /// The event.
    pub message: Message,
    /// Route, reason, and whether the key is parked.
    pub letter: NewLetter,
    /// What went wrong.
    pub errors: Vec<AttemptError>,
}

/// What is to be remembered of one event.
///
/// The rows are written as they stand; each letter copies the event, and attempts and errors from its route's row. The
/// event is deleted with all its rows when every row of it in the database is final.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Its partition.
    pub partition: PartitionNo,
    /// Its place in the order.
    pub id: EventId,
    /// Rows to insert or replace, by route.
    pub rows: Vec<RouteRow>,
    /// Letters to write in the same transaction.
    pub letters: Vec<NewLetter>,
}

/// What a fenced write did.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    /// The partitions of the fence that were held; the others belong to somebody else, and nothing was written there.
    pub held: Vec<PartitionNo>,
    /// Events that were deleted, by count; fewer than asked for is normal after a repeated settle.
    pub deleted: u64,
    /// Letters that were written, with event, route and identity.
    pub letters: Vec<(EventId, Arc<str>, LetterId)>,
}

/// Finishes events. Called by the settler; every method is fenced, one transaction at READ COMMITTED.
#[async_trait]
pub trait SettleStore: Send + Sync + 'static {
    /// Finishes events of which nothing is remembered: every route has confirmed. `ids` is sorted by partition and id.
    async fn finish(
        &self,
        fence: &Fence,
        ids: &[(PartitionNo, EventId)],
    ) -> Result<Settled, StoreError>;

    /// Writes letters of events whose rows may be gone already, with the event as it was carried: of routes that finish
    /// first and publish then.
    async fn bury_carried(&self, letters: &[CarriedLetter]) -> Result<Vec<LetterId>, StoreError>;

    /// Writes what is to be remembered, buries what is dead, and finishes events whose rows are all final.
    async fn record(&self, fence: &Fence, verdicts: &[Verdict]) -> Result<Settled, StoreError>;

    /// Reads letters by identity, in its order, for the listeners: the first one that is there, and as many more as one
    /// answer takes. The caller asks again for those behind the last one; nothing is given where none is there.
    async fn letters(&self, ids: &[LetterId]) -> Result<Vec<DeadLetter>, StoreError>;
}

/// A route of an event that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueRetry {
    /// The event's partition.
    pub partition: PartitionNo,
    /// The event.
    pub id: EventId,
    /// The route.
    pub route: Arc<str>,
}

/// A key that waits for an operator's decision about its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenPark {
    /// The key's partition.
    pub partition: PartitionNo,
    /// The route.
    pub route: Arc<str>,
    /// The key.
    pub key: String,
    /// The letter of its head.
    pub letter: LetterId,
}

/// A letter that parked its key and has been decided about: its key is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidedPark {
    /// The key's partition.
    pub partition: PartitionNo,
    /// The head of the key.
    pub event: EventId,
    /// The route.
    pub route: Arc<str>,
    /// The key.
    pub key: String,
    /// The letter of the head.
    pub letter: LetterId,
    /// Whether the head was redriven, so that it goes before the rest of its key.
    pub redriven: bool,
}

/// What a renewal answers, read in one snapshot after the lease was renewed. Its size does not grow with the events, the
/// letters or the parked keys that are stored.
#[derive(Debug, Clone, Default)]
pub struct Renewal {
    /// Whether the relay's own row was still there; otherwise it was put back by this call, owning nothing.
    pub known: bool,
    /// All partitions, and all relays that live or own one.
    pub view: LeaseView,
    /// Waiting routes of owned partitions that are due, redriven ones first, at most [`DUE_LIMIT`].
    pub due: Vec<DueRetry>,
    /// Parked keys of owned partitions that have been decided about and not been [forgotten](ParkStore::forget_decided)
    /// since, by letter, at most [`DECIDED_LIMIT`].
    pub decided: Vec<DecidedPark>,
}

/// How many due routes a renewal reports; what is beyond is found by the next one.
pub const DUE_LIMIT: u32 = 1_000;

/// How many decisions about parked keys a renewal reports; what is beyond is reported by the next one.
pub const DECIDED_LIMIT: u32 = 1_000;

/// Tells of parked keys. Called by the keeper, beside its renewals.
#[async_trait]
pub trait ParkStore: Send + Sync + 'static {
    /// Reads the parked keys of a partition in the order of their letters, from the one after `after`, the first `limit`.
    async fn parks(
        &self,
        partition: PartitionNo,
        after: LetterId,
        limit: u32,
    ) -> Result<Vec<OpenPark>, StoreError>;

    /// Forgets decisions that a renewal has reported; those that are gone already are left out.
    async fn forget_decided(&self, letters: &[LetterId]) -> Result<(), StoreError>;
}

/// Owns partitions. Called by the keeper.
#[async_trait]
pub trait LeaseStore: Send + Sync + 'static {
    /// Reads the shape of the outbox.
    async fn shape(&self) -> Result<OutboxShape, StoreError>;

    /// Renews the relay's lease until `lease` from now by the database's clock, registering it if it is not there, and
    /// reads what it should know: first the UPDATE of its own row, then, in a second statement, the rest.
    async fn renew(
        &self,
        relay: &RelayId,
        routes: u64,
        lease: Duration,
    ) -> Result<Renewal, StoreError>;

    /// Takes partitions: free ones where `from` is `None`, else those of a relay whose lease has run out. Gives those
    /// that were taken with their new epochs; locked or taken ones are left out. A dead relay that owns nothing any more
    /// is removed.
    async fn take(
        &self,
        relay: &RelayId,
        from: Option<&RelayId>,
        partitions: &[PartitionNo],
    ) -> Result<Vec<(PartitionNo, Epoch)>, StoreError>;

    /// Gives partitions back, where they are still held under the given epochs.
    async fn release(
        &self,
        relay: &RelayId,
        partitions: &[(PartitionNo, Epoch)],
    ) -> Result<(), StoreError>;

    /// Gives everything back and removes the relay's row.
    async fn leave(&self, relay: &RelayId) -> Result<(), StoreError>;
}

/// Everything that a relay needs of a store.
#[derive(Clone)]
pub struct RelayStore {
    /// For the keeper.
    pub leases: Arc<dyn LeaseStore>,
    /// For the keeper, beside its renewals.
    pub parks: Arc<dyn ParkStore>,
    /// For the reader.
    pub reader: Arc<dyn EventReader>,
    /// For the settler.
    pub settler: Arc<dyn SettleStore>,
    /// For the janitor.
    pub janitor: Arc<dyn JanitorStore>,
    /// Wakes that come from other processes, where the database can carry them.
    pub listener: Option<Arc<dyn WakeListener>>,
}

/// Hears wakes of other processes through the database.
#[async_trait]
pub trait WakeListener: Send + Sync + 'static {
    /// Rings the wake whenever another process rang; returns only with an error. The caller calls again, with backoff,
    /// and polls meanwhile.
    async fn listen(&self, wake: &Wake) -> Result<std::convert::Infallible, StoreError>;
}

impl RelayStore {
    /// Uses one store for everything.
    pub fn new(
        store: impl LeaseStore + ParkStore + EventReader + SettleStore + JanitorStore,
    ) -> Self {
        let store = Arc::new(store);
        Self {
            leases: store.clone(),
            parks: store.clone(),
            reader: store.clone(),
            settler: store.clone(),
            janitor: store,
            listener: None,
        }
    }

    /// Adds a listener for wakes of other processes.
    #[must_use]
    pub fn with_listener(mut self, listener: impl WakeListener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }
}

/// Keeps the store clean. Called by the janitor.
#[async_trait]
pub trait JanitorStore: Send + Sync + 'static {
    /// Moves scheduled events that are due into the outbox under new ids, in order of their due time, at most `limit` and
    /// as many as one transaction takes by their bytes, for partitions held under the fence. Gives how many were moved;
    /// zero when none is due.
    async fn promote_scheduled(&self, fence: &Fence, limit: u32) -> Result<u64, StoreError>;

    /// Deletes finished events, dead letters that were decided about, dedup keys, rows of the inbox and of the barrier whose
    /// retention has passed, at most `limit` of each and as many as one transaction takes by their bytes. Gives how many
    /// rows went; zero when none was left.
    async fn prune(&self, limit: u32) -> Result<u64, StoreError>;
}

/// What a consumer's inbox row is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxKey<'a> {
    /// The consumer's stable name.
    pub consumer: &'a str,
    /// The handler's stable name.
    pub handler: &'a str,
    /// The message's source.
    pub source: &'a str,
    /// The message.
    pub message_id: MessageId,
}

/// A store's transaction: what producers and handlers write in.
#[async_trait]
pub trait Store: Clone + Send + Sync + 'static {
    /// The open transaction. Dropped without [`commit`](Store::commit), it rolls back.
    type Tx: Send + Sync + 'static;

    /// Opens a transaction.
    async fn begin(&self) -> Result<Self::Tx, StoreError>;

    /// Commits; wakes the relays of this process when events were written.
    async fn commit(&self, tx: Self::Tx) -> Result<(), StoreError>;

    /// Rolls back.
    async fn rollback(&self, tx: Self::Tx) -> Result<(), StoreError>;

    /// Writes events in the transaction, in one INSERT.
    async fn append(&self, tx: &Self::Tx, events: &[NewEvent]) -> Result<(), StoreError>;

    /// Notes in the transaction that a message was received; `false` when it had been already.
    async fn receive(&self, tx: &Self::Tx, key: InboxKey<'_>) -> Result<bool, StoreError>;

    /// Gives the failure by which the database has disturbed the transaction, where it has: a lock that was not to be had, a
    /// deadlock, a connection that is gone. A handler or step that fails in such a transaction is not to blame, and no attempt
    /// of it is counted. A store that tells nothing, the default, counts it.
    fn disturbance(&self, _tx: &Self::Tx) -> Option<StoreError> {
        None
    }

    /// Gives the connections on which consumers and sagas open their transactions, so that no more run at once than there are;
    /// by default they are not known.
    fn connections(&self) -> Option<Connections> {
        None
    }

    /// Gives how often a transaction was written to so far, as a number that only grows; `None`, the default, where the store
    /// does not count. A handler that writes nothing through its transaction is warned of.
    fn writes(&self, _tx: &Self::Tx) -> Option<u64> {
        None
    }

    /// Tells whether an open transaction keeps all other writers of the database waiting; not so by default.
    fn has_one_writer(&self) -> bool {
        false
    }

    /// Tells how long an open transaction may be idle before the database ends it; not at all, by default.
    fn idle_limit(&self) -> Option<Duration> {
        None
    }

    /// Keeps an idle transaction from being ended, while a handler or step waits for something else. Called every third of
    /// the [limit](Self::idle_limit).
    async fn keep_awake(&self, _tx: &Self::Tx) {}

    /// Lets the events that are written in the transaction from now on follow a [`Trail`]: it [marks](Trail::mark) their
    /// headers. Transactions that are opened inside it later follow it too. A store that does nothing, the default,
    /// leaves events without these headers.
    fn follow(&self, _tx: &Self::Tx, _trail: Trail) {}

    /// Runs what a handler or a step does, so that code which is given no transaction finds this one. A store where nothing
    /// looks for it, the default, runs it as it is.
    fn within<'a, T: Send + 'a>(
        &'a self,
        _tx: &'a Self::Tx,
        work: BoxFuture<'a, T>,
    ) -> BoxFuture<'a, T> {
        work
    }
}

/// Figures of an outbox, for people and gauges. No count walks a whole table: `pending` stops at its limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct OutboxStats {
    /// Events that wait, counted up to [`OutboxStats::PENDING_LIMIT`].
    pub pending: u64,
    /// Age of the oldest of them.
    pub oldest_pending: Option<Duration>,
    /// Routes that wait for a retry, counted up to the same limit.
    pub retrying: u64,
    /// Dead letters about which nothing was decided.
    pub dead: u64,
}

impl OutboxStats {
    /// Counting stops here.
    pub const PENDING_LIMIT: u64 = 100_000;
}
