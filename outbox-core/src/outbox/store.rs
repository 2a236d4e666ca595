//! What a store must do: one trait for each caller. All instants are the database's own.

use super::{
    ControlStore, Epoch, LeaseView, LiveStore, OperatorRows, PartitionNo, RouteRow, SampleWriter,
    StoreError, TrialStore,
};
use crate::{
    event::{
        CorrelationContext, EventId, LetterId, Message, MessageId, NewEvent, PayloadCodecs, RelayId,
    },
    failure::{AttemptError, DeadLetter, DeadReason},
    runtime::{Connections, Wake},
};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use serde::Serialize;
use std::{sync::Arc, time::Duration};

/// What a relay needs to know of an outbox before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxInfo {
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
    /// Its id, by which the events of a key are ordered.
    pub id: EventId,
    /// The message, or why the row does not decode.
    pub body: Result<Message, String>,
    /// The payload's length in bytes if it exceeds the read's limit: the message comes without its
    /// payload then.
    pub left_out: Option<u64>,
    /// Time until it expires, from now by the database's clock: zero when that is past, `None` when
    /// it never does.
    pub expires_in: Option<Duration>,
    /// Its rows, one for each route; empty for an event that has none yet.
    pub rows: Vec<RouteRow>,
}

/// The owner under which a write is made: the store refuses it for partitions that have another
/// owner or epoch by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The relay.
    pub relay: RelayId,
    /// The partitions of the write, with the epochs under which the relay owns them; sorted by
    /// number.
    pub partitions: Vec<(PartitionNo, Epoch)>,
}

/// What one read asks of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRead {
    /// The partition.
    pub partition: PartitionNo,
    /// Rows past this id are read whole.
    pub after: EventId,
    /// At most so many, from 1.
    pub limit: u32,
    /// Whether to look back over the window even if no row is found past `after`.
    pub look_back: bool,
}

/// One read over all owned partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPlan {
    /// One entry a partition, sorted by number.
    pub partitions: Vec<PartitionRead>,
    /// Ids to look back over, counted from `after`; zero where ids commit in order.
    pub window: u32,
    /// Longer payloads are [left out](StoredEvent::left_out), in bytes: this times its rows bounds
    /// the bytes of a read.
    pub payload_limit: u32,
}

/// The rows that one read found in one partition.
#[derive(Debug, Clone, Default)]
pub struct PartitionRows {
    /// Events past the position, by id, joined with their route rows.
    pub past: Vec<StoredEvent>,
    /// Whether the limit cut the list.
    pub full: bool,
    /// The ids of all events in the window, up to and including the position, in order.
    pub window: Vec<EventId>,
}

/// Reads events. Called by the reader. Every method is one round trip and one snapshot, or gives
/// the rows that one would: an event never comes without the events of its key that committed
/// before its own transaction got their lock.
#[async_trait]
pub trait EventReader: Send + Sync + 'static {
    /// Reads events past the positions, and ids in the windows. Gives one entry for each of the
    /// plan's partitions, in its order.
    async fn read(&self, plan: &ReadPlan) -> Result<Vec<PartitionRows>, StoreError>;

    /// Reads events by id, joined with their route rows. Events that do not exist are skipped;
    /// payloads of more than `payload_limit` bytes are left out.
    async fn fetch(
        &self,
        ids: &[(PartitionNo, EventId)],
        payload_limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError>;

    /// Reads one partition from an id (inclusive) to an id (inclusive), joined, the first `limit`
    /// rows; payloads of more than `payload_limit` bytes are left out.
    async fn page(
        &self,
        partition: PartitionNo,
        from: EventId,
        to: EventId,
        limit: u32,
        payload_limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError>;

    /// Reads the ids of one partition from an id (inclusive) to an id (inclusive), the first
    /// `limit`.
    async fn ids(
        &self,
        partition: PartitionNo,
        from: EventId,
        to: EventId,
        limit: u32,
    ) -> Result<Vec<EventId>, StoreError>;
}

/// A dead letter to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct NewLetter {
    /// The route that gives the event up; empty if no route takes the event.
    pub route: Arc<str>,
    /// Why.
    pub reason: DeadReason,
    /// Whether the later events of the key wait until an operator has decided about this letter.
    pub parks: bool,
}

/// A dead letter with its event, whose row may be deleted already.
#[derive(Debug, Clone, PartialEq)]
pub struct DetachedLetter {
    /// The event's partition.
    pub partition: PartitionNo,
    /// The event's id.
    pub id: EventId,
    /// The event.
    pub message: Message,
    /// Route, reason, and whether the letter parks its key.
    pub letter: NewLetter,
    /// What went wrong.
    pub errors: Vec<AttemptError>,
}

/// The changes to the route rows of one event.
///
/// The store writes the rows as they are given. Each letter copies the event, and attempts and
/// errors from its route's row. The event is deleted with all its rows when every row of it in the
/// database is final.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteUpdate {
    /// Its partition.
    pub partition: PartitionNo,
    /// Its id.
    pub id: EventId,
    /// Rows to insert or replace, by route.
    pub rows: Vec<RouteRow>,
    /// Letters to write in the same transaction.
    pub letters: Vec<NewLetter>,
}

/// What a fenced write did.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    /// The partitions of the fence that the relay still owns; the others belong to another relay,
    /// and the write changed nothing there.
    pub held: Vec<PartitionNo>,
    /// How many events were deleted; after a repeated settle fewer than asked for is normal.
    pub deleted: u64,
    /// Letters that were written, with event, route and identity.
    pub letters: Vec<(EventId, Arc<str>, LetterId)>,
}

/// Finishes events. Called by the settler; every method is fenced, one transaction at READ
/// COMMITTED.
#[async_trait]
pub trait SettleStore: Send + Sync + 'static {
    /// Finishes events without route rows: every route has confirmed them. `ids` is sorted by
    /// partition and id.
    async fn finish(
        &self,
        fence: &Fence,
        ids: &[(PartitionNo, EventId)],
    ) -> Result<Settled, StoreError>;

    /// Writes letters of events whose rows may be deleted already, from the copy that the letter
    /// carries: at-most-once routes finish an event before they publish it.
    async fn write_detached_letters(
        &self,
        letters: &[DetachedLetter],
    ) -> Result<Vec<LetterId>, StoreError>;

    /// Writes route rows and dead letters, and finishes events whose rows are all final.
    async fn record(&self, fence: &Fence, updates: &[RouteUpdate]) -> Result<Settled, StoreError>;

    /// Reads letters by identity, in its order, for the listeners: the first one that exists, and
    /// as many more as one answer takes. The caller asks again for those behind the last one; the
    /// list is empty if none exists.
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

/// A key whose events wait for an operator's decision about the dead letter of its first event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedKey {
    /// The key's partition.
    pub partition: PartitionNo,
    /// The route.
    pub route: Arc<str>,
    /// The key.
    pub key: String,
    /// The dead letter of its first event.
    pub letter: LetterId,
}

/// A key that was parked, and about whose dead letter an operator has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnparkedKey {
    /// The key's partition.
    pub partition: PartitionNo,
    /// The event of the dead letter.
    pub event: EventId,
    /// The route.
    pub route: Arc<str>,
    /// The key.
    pub key: String,
    /// The dead letter.
    pub letter: LetterId,
    /// Whether the operator redrove the letter, so that its event goes before the later events of
    /// its key.
    pub redriven: bool,
}

/// The answer to a renewal, read in one snapshot after the lease was renewed. Its size does not
/// grow with the events, the letters or the parked keys that are stored.
#[derive(Debug, Clone, Default)]
pub struct Renewal {
    /// Whether the relay's own row existed; if not, this call registered the relay anew, without
    /// partitions.
    pub known: bool,
    /// All partitions, and all relays that have a valid lease or own a partition.
    pub view: LeaseView,
    /// Waiting routes of owned partitions that are due, redriven ones first, at most [`DUE_LIMIT`].
    pub due: Vec<DueRetry>,
    /// Keys of owned partitions that an operator's decision has unparked and whose row was not
    /// [deleted](ParkStore::delete_unparked) since, by letter, at most [`UNPARKED_LIMIT`].
    pub unparked: Vec<UnparkedKey>,
}

/// How many due routes a renewal reports; the next one reports the rest.
pub const DUE_LIMIT: u32 = 1_000;

/// How many unparked keys a renewal reports; the next one reports the rest.
pub const UNPARKED_LIMIT: u32 = 1_000;

/// Reads parked keys. Called by the keeper, beside its renewals.
#[async_trait]
pub trait ParkStore: Send + Sync + 'static {
    /// Reads the parked keys of a partition in the order of their letters, from the one after
    /// `after`, the first `limit`.
    async fn parked_keys(
        &self,
        partition: PartitionNo,
        after: LetterId,
        limit: u32,
    ) -> Result<Vec<ParkedKey>, StoreError>;

    /// Reads the unparked keys that the next renewal will report, by letter, at most
    /// [`UNPARKED_LIMIT`]: for a relay that was woken, which needs not wait for that. By default
    /// there are none.
    async fn unparked_keys(&self, relay: &RelayId) -> Result<Vec<UnparkedKey>, StoreError> {
        let _ = relay;
        Ok(Vec::new())
    }

    /// Deletes the rows of unparked keys that a renewal has reported; rows that are gone already
    /// are skipped.
    async fn delete_unparked(&self, letters: &[LetterId]) -> Result<(), StoreError>;
}

/// Owns partitions. Called by the keeper.
#[async_trait]
pub trait LeaseStore: Send + Sync + 'static {
    /// Reads how the outbox is set up.
    async fn info(&self) -> Result<OutboxInfo, StoreError>;

    /// Renews the relay's lease until `lease` from now by the database's clock, registering the
    /// relay if it has no row, and reads the [`Renewal`]: first the UPDATE of its own row, then the
    /// rest in a second statement.
    async fn renew(
        &self,
        relay: &RelayId,
        routes: u64,
        lease: Duration,
    ) -> Result<Renewal, StoreError>;

    /// Takes partitions: free ones if `from` is `None`, else those of a relay whose lease has run
    /// out. Gives the partitions that it took with their new epochs, and skips locked ones and
    /// those that another relay took. The row of a dead relay without partitions is deleted.
    async fn take(
        &self,
        relay: &RelayId,
        from: Option<&RelayId>,
        partitions: &[PartitionNo],
    ) -> Result<Vec<(PartitionNo, Epoch)>, StoreError>;

    /// Releases partitions that the relay still owns under the given epochs.
    async fn release(
        &self,
        relay: &RelayId,
        partitions: &[(PartitionNo, Epoch)],
    ) -> Result<(), StoreError>;

    /// Releases all partitions of the relay and deletes its row.
    async fn deregister(&self, relay: &RelayId) -> Result<(), StoreError>;
}

/// The parts of a store that a relay uses.
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
    /// Receives wakes of other processes, if the database can carry them.
    pub listener: Option<Arc<dyn WakeListener>>,
    /// What operators have paused or slowed down; without it the relay obeys no operator.
    pub controls: Option<Arc<dyn ControlStore>>,
    /// Where the relay writes about itself; without it operators see its lease only.
    pub live: Option<Arc<dyn LiveStore>>,
    /// Where the relay writes samples of its routes; without it there are none.
    pub samples: Option<Arc<dyn SampleWriter>>,
}

/// Receives wakes of other processes through the database.
#[async_trait]
pub trait WakeListener: Send + Sync + 'static {
    /// Triggers the wake whenever another process sent one; returns only with an error. The caller
    /// calls again, with backoff, and polls meanwhile.
    async fn listen(&self, wake: &Wake) -> Result<std::convert::Infallible, StoreError>;
}

impl RelayStore {
    /// Uses one store for all parts.
    pub fn new(
        store: impl LeaseStore + ParkStore + EventReader + SettleStore + JanitorStore,
    ) -> Self {
        Self::shared(&Arc::new(store))
    }

    /// Uses one store that others use too.
    pub fn shared<S>(store: &Arc<S>) -> Self
    where
        S: LeaseStore + ParkStore + EventReader + SettleStore + JanitorStore,
    {
        Self {
            leases: store.clone(),
            parks: store.clone(),
            reader: store.clone(),
            settler: store.clone(),
            janitor: store.clone(),
            listener: None,
            controls: None,
            live: None,
            samples: None,
        }
    }

    /// Adds a listener for wakes of other processes.
    #[must_use]
    pub fn with_listener(mut self, listener: impl WakeListener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Lets the relay obey the controls of a store.
    #[must_use]
    pub fn with_controls(mut self, controls: Arc<dyn ControlStore>) -> Self {
        self.controls = Some(controls);
        self
    }

    /// Lets the relay write about itself.
    #[must_use]
    pub fn with_live(mut self, live: Arc<dyn LiveStore>) -> Self {
        self.live = Some(live);
        self
    }

    /// Lets the relay write samples of its routes.
    #[must_use]
    pub fn with_samples(mut self, samples: Arc<dyn SampleWriter>) -> Self {
        self.samples = Some(samples);
        self
    }
}

/// Moves due events and deletes old rows. Called by the janitor.
#[async_trait]
pub trait JanitorStore: Send + Sync + 'static {
    /// Moves scheduled events that are due into the outbox under new ids, in order of their due
    /// time, at most `limit` and as many as one transaction takes by their bytes, for the fence's
    /// partitions that the relay owns. Gives how many it moved; zero when none is due.
    async fn promote_scheduled(&self, fence: &Fence, limit: u32) -> Result<u64, StoreError>;

    /// Deletes finished events, resolved dead letters, dedup keys, rows of the inbox, of the barrier
    /// and of the audit whose retention has passed, and old plans, samples and rows of parts that
    /// have crashed, at most `limit` of each and as many as one transaction takes by their bytes. Gives how many rows it deleted; zero when none was left.
    async fn prune(&self, limit: u32) -> Result<u64, StoreError>;
}

/// The key of a consumer's inbox row.
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

    /// Writes the inbox row of a message in the transaction; `false` if the row exists already.
    async fn receive(&self, tx: &Self::Tx, key: InboxKey<'_>) -> Result<bool, StoreError>;

    /// Gives the database failure that has disturbed the transaction, if any: a lock timeout, a
    /// deadlock, a lost connection. If a handler or step fails in such a transaction, no attempt of
    /// it is counted. By default there is none, and every failure is counted.
    fn disturbance(&self, _tx: &Self::Tx) -> Option<StoreError> {
        None
    }

    /// Gives the pool in which consumers and sagas open their transactions: it bounds their
    /// concurrency. By default it is not known.
    fn connections(&self) -> Option<Connections> {
        None
    }

    /// Gives how often a transaction was written to so far, as a number that only grows; `None`,
    /// the default, if the store does not count. By it the consumer warns of handlers that write
    /// nothing through their transaction.
    fn writes(&self, _tx: &Self::Tx) -> Option<u64> {
        None
    }

    /// Gives the rows that consumers and coordinators share with operators; by default there are
    /// none, and nothing can be paused.
    fn operator(&self) -> Option<Arc<dyn OperatorRows>> {
        None
    }

    /// Gives what opens transactions in which handlers are tried; by default no handler can be.
    fn trials(&self) -> Option<Arc<dyn TrialStore<Self::Tx>>> {
        None
    }

    /// Gives the codecs with which payloads are decoded before a handler sees them. The store itself
    /// encodes what it writes. By default there are none, and a message that is encoded waits for an
    /// instance that has its codec.
    fn payload_codecs(&self) -> PayloadCodecs {
        PayloadCodecs::NONE
    }

    /// Tells whether an open transaction blocks all other writers of the database; `false` by
    /// default.
    fn has_one_writer(&self) -> bool {
        false
    }

    /// Tells whether the application waits for the only writer to end; `false`, the default, where
    /// there are several or the store does not know. Consumers then keep their transactions short.
    fn has_waiting_writer(&self) -> bool {
        false
    }

    /// Gives how long a transaction may be idle before the database ends it; `None`, the default,
    /// without a limit.
    fn idle_limit(&self) -> Option<Duration> {
        None
    }

    /// Keeps an idle transaction from being ended by the database while its handler or step waits
    /// for something else. Called every third of the [limit](Self::idle_limit).
    async fn keep_alive(&self, _tx: &Self::Tx) {}

    /// Sets the [`CorrelationContext`] of the events that are written in the transaction from now
    /// on: the store [applies](CorrelationContext::apply_to) it to their headers. Transactions that
    /// are opened inside this one later have it too. By default it is ignored, and events lack
    /// these headers.
    fn correlate(&self, _tx: &Self::Tx, _context: CorrelationContext) {}

    /// Runs the work of a handler or step so that code without a transaction parameter finds this
    /// transaction. By default the work runs as it is.
    fn within<'a, T: Send + 'a>(
        &'a self,
        _tx: &'a Self::Tx,
        work: BoxFuture<'a, T>,
    ) -> BoxFuture<'a, T> {
        work
    }
}

/// Figures of an outbox for operators and gauges. No count walks a whole table: `pending` stops at
/// its limit.
///
/// ```
/// # use outbox_core::outbox::OutboxStats;
/// # use std::time::Duration;
/// fn is_healthy(stats: &OutboxStats) -> bool {
///     stats.dead == 0 && stats.oldest_pending.is_none_or(|age| age < Duration::from_mins(5))
/// }
/// assert!(is_healthy(&OutboxStats::default()));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct OutboxStats {
    /// Events that wait to be published, counted up to [`OutboxStats::PENDING_LIMIT`].
    pub pending: u64,
    /// Age of the oldest of them.
    pub oldest_pending: Option<Duration>,
    /// Routes that wait for a retry, counted up to the same limit.
    pub retrying: u64,
    /// Dead letters that no operator has resolved.
    pub dead: u64,
}

impl OutboxStats {
    /// Counting stops here.
    pub const PENDING_LIMIT: u64 = 100_000;
}
