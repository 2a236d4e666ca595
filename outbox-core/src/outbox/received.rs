//! What a store must do for consumers beside the inbox: deferred deliveries, and dead letters.

use super::{Store, StoreError};
use crate::{
    event::{LetterId, Message},
    failure::{AttemptError, DeadLetter, DeadReason},
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use xxhash_rust::xxh3::xxh3_64;

/// The store's decision about a message before a handler runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The inbox row is written: the handler runs.
    New,
    /// The handler had the message already; nothing is written.
    Duplicate,
    /// Deliveries of the message's key are stored for this handler: it is queued behind them. Nothing is written.
    QueueBehind,
}

/// A delivery to store for one handler.
#[derive(Debug, Clone)]
pub struct DeferredDelivery<'a> {
    /// The consumer's stable name.
    pub consumer: &'a str,
    /// The handler's stable name.
    pub handler: &'a str,
    /// The message, stored whole.
    pub message: &'a Message,
    /// Time until it is due; `None` for a delivery that is queued behind others of its key.
    pub due_in: Option<Duration>,
    /// Its runs so far.
    pub history: History,
}

/// The runs of a delivery so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Runs that have ended, with any outcome.
    pub attempts: u32,
    /// Runs that failed.
    pub failures: u32,
    /// Time since the first failure.
    pub failing_for: Duration,
    /// The first failure and the last nine.
    pub errors: Vec<AttemptError>,
    /// The letter that it was redriven from.
    pub letter: Option<LetterId>,
}

/// The claim of a consumer's instance on a stored delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryClaim {
    /// Identity of the stored delivery.
    pub id: i64,
    /// The instance that has claimed it.
    pub by: Arc<str>,
}

/// A stored delivery that an instance has claimed.
#[derive(Debug, Clone)]
pub struct StoredDelivery {
    /// The claim.
    pub claim: DeliveryClaim,
    /// The handler's stable name; empty for a message that no handler took.
    pub handler: Arc<str>,
    /// The message, or why the row does not decode.
    pub message: Result<Message, String>,
    /// Runs that were started.
    pub started: u32,
    /// Whether the message had expired when it was claimed, by the database's clock.
    pub expired: bool,
    /// For how long it has waited for an instance that knows it; `None` where it does not wait, or was claimed
    /// by one that knows it.
    pub awaited_for: Option<Duration>,
    /// Its runs so far.
    pub history: History,
}

/// A query for stored deliveries to claim.
#[derive(Debug, Clone)]
pub struct ClaimQuery<'a> {
    /// The consumer's stable name.
    pub consumer: &'a str,
    /// The handlers that this instance has.
    pub handlers: &'a [Arc<str>],
    /// The instance that claims: random for each start of a consumer.
    pub by: &'a Arc<str>,
    /// How long the claims last, by the database's clock.
    pub lease: Duration,
    /// Number of deliveries at most, from 1.
    pub limit: u32,
}

/// How to store a delivery again whose run has ended.
#[derive(Debug, Clone)]
pub struct Deferral<'a> {
    /// Time until it is due again.
    pub due_in: Duration,
    /// Its runs so far, this one included.
    pub history: &'a History,
}

/// A dead letter to write for a consumer.
#[derive(Debug, Clone)]
pub struct ReceivedLetter<'a> {
    /// The consumer's stable name, which has no slash.
    pub consumer: &'a str,
    /// The handler that gives the message up; empty where no handler took it.
    pub handler: &'a str,
    /// The message; where it cannot be read, its bytes, as far as the transport gave them.
    pub message: Result<&'a Message, Option<&'a Bytes>>,
    /// Why the message is given up.
    pub reason: DeadReason,
    /// The runs of the delivery.
    pub history: &'a History,
}

/// Admits, defers and gives up a consumer's deliveries, in the transactions of their handlers.
#[async_trait]
pub trait ConsumerStore:
    RetrierStore
    + super::BarrierStore
    + super::InstanceStore
    + super::HandoverStore
    + super::HandlerNameStore
{
    /// Writes the inbox row of a message in the transaction, unless it is a duplicate or has to wait: with an
    /// `order_hash`, it is queued behind stored deliveries of the same consumer, handler and hash. Waits for
    /// another transaction that writes the same row.
    async fn admit(
        &self,
        tx: &Self::Tx,
        key: super::InboxKey<'_>,
        order_hash: Option<i64>,
    ) -> Result<Admission, StoreError>;

    /// Writes the inbox rows of several messages in the transaction, in the order of the keys; each with an `order_hash` as in
    /// [`admit`](Self::admit). Tells of each whether its row was written. Where it was not, the message is a duplicate, also of
    /// one before it in `keys`, or has to wait; a single [`admit`](Self::admit) tells which. By default one after the other; a
    /// store that can write them in one statement overrides it.
    async fn admit_all(
        &self,
        tx: &Self::Tx,
        keys: &[(super::InboxKey<'_>, Option<i64>)],
    ) -> Result<Vec<bool>, StoreError> {
        let mut admitted = Vec::with_capacity(keys.len());
        for (key, order_hash) in keys {
            admitted.push(self.admit(tx, key.clone(), *order_hash).await? == Admission::New);
        }
        Ok(admitted)
    }

    /// Opens a transaction that several deliveries share. No statement in it should last, or wait
    /// for a lock, for longer than about `limit`. Its caller gives the transaction up later than
    /// that, which ends no statement: one that waits for a lock has to fail first, so that the
    /// transaction is rolled back before its deliveries run again. By default it is an ordinary
    /// transaction, as for a store whose transactions wait for nothing.
    async fn begin_shared(&self, _limit: Duration) -> Result<Self::Tx, StoreError> {
        self.begin().await
    }

    /// Commits a transaction that several deliveries share. What comes before COMMIT (hooks, listeners, the writing of events)
    /// has to end within `limit`; where it does not, all of the transaction is rolled back, and this fails. COMMIT itself, and
    /// what comes after it, has the limits of an ordinary commit. By default it is one, as for a store that runs no hooks.
    async fn commit_shared(&self, tx: Self::Tx, _limit: Duration) -> Result<(), StoreError> {
        self.commit(tx).await
    }

    /// Checks that the work of all handlers so far is still in the transaction, and that the next one starts as in a transaction
    /// of its own: called between handlers that share a transaction. Fails where a statement has failed, also where the handler
    /// has handled the error, since the database may have rolled back more than that statement; and where a transaction that the
    /// handler opened inside is still open. By default it fails where the transaction was
    /// [disturbed](Store::disturbance).
    async fn check_intact(&self, tx: &Self::Tx) -> Result<(), StoreError> {
        self.disturbance(tx).map_or(Ok(()), Err)
    }

    /// Gives the decision of [`admit`](Self::admit), without writing, and opens a transaction that takes the
    /// database's only write lock with its first write. `None`, the default, where there is no such lock.
    async fn begin_with_deferred_lock(
        &self,
        _key: super::InboxKey<'_>,
        _order_hash: Option<i64>,
    ) -> Result<Option<(Admission, Self::Tx)>, StoreError> {
        Ok(None)
    }

    /// Tells whether a message was received before. By default in a transaction that is rolled back; a store that
    /// can read the inbox without one overrides it.
    async fn is_received(&self, key: super::InboxKey<'_>) -> Result<bool, StoreError> {
        let tx = self.begin().await?;
        let received = self.receive(&tx, key).await;
        self.rollback(tx).await?;
        received.map(|is_new| !is_new)
    }

    /// Stores a delivery in the transaction; one that is stored already stays as it is. `false`, with nothing
    /// written, when the delivery is to be queued behind others and there are none any more. Locks the head of
    /// the key's queue, so that the transaction that finishes the head sees the deliveries behind it.
    async fn defer(
        &self,
        tx: &Self::Tx,
        delivery: &DeferredDelivery<'_>,
    ) -> Result<bool, StoreError>;

    /// Writes a dead letter in the transaction.
    async fn write_dead_letter(
        &self,
        tx: &Self::Tx,
        letter: &ReceivedLetter<'_>,
    ) -> Result<DeadLetter, StoreError>;

    /// Opens a nested transaction: committed, it takes effect with the outer one; rolled back, only its own work
    /// is undone.
    async fn begin_nested(&self, tx: &Self::Tx) -> Result<Self::Tx, StoreError>;

    /// Tells how long the inbox keeps its rows.
    fn inbox_retention(&self) -> Duration;
}

/// Claims and finishes stored deliveries. Called by the retrier.
#[async_trait]
pub trait RetrierStore: Store {
    /// Claims due deliveries for a time: of each key only the first, and none that another instance has claimed.
    async fn claim(&self, query: &ClaimQuery<'_>) -> Result<Vec<StoredDelivery>, StoreError>;

    /// Claims the stored delivery of a message, and counts a run that starts now. `None` where others of its key
    /// come first, where it is claimed, or where a run of it was started before.
    async fn claim_new(
        &self,
        key: super::InboxKey<'_>,
        by: &Arc<str>,
        lease: Duration,
    ) -> Result<Option<DeliveryClaim>, StoreError>;

    /// Opens a transaction in which a stored delivery is handled and [finished](Self::finish). Each statement must
    /// see what other transactions have committed: READ COMMITTED, whatever the connection's default is.
    async fn begin_stored(&self) -> Result<Self::Tx, StoreError> {
        self.begin().await
    }

    /// Extends a claim; `starts` counts a run that starts now. `false` when the claim is lost.
    async fn extend_claim(
        &self,
        claim: &DeliveryClaim,
        lease: Duration,
        starts: bool,
    ) -> Result<bool, StoreError>;

    /// Removes a stored delivery in the transaction; the next of its key is due then. `false` when the claim is lost.
    async fn finish(&self, tx: &Self::Tx, claim: &DeliveryClaim) -> Result<bool, StoreError>;

    /// Releases a claimed delivery, due later; without a [`Deferral`] as it was before the run, due at once.
    /// `false` when the claim is lost.
    async fn reschedule(
        &self,
        claim: &DeliveryClaim,
        deferral: Option<Deferral<'_>>,
    ) -> Result<bool, StoreError>;

    /// Deletes inbox rows whose retention has passed, and rows of the barrier, at most `limit` of both. Gives how
    /// many it deleted.
    async fn prune_inbox(&self, limit: u32) -> Result<u64, StoreError>;
}

/// Gives the hash of a message's source and key, by which a consumer keeps the order of deliveries.
///
/// Two keys with one hash wait for each other, and nothing worse. A message without a key has no order.
#[must_use]
pub fn order_hash(message: &Message) -> Option<i64> {
    let key = message.key.as_ref()?;
    let text = [message.source.as_bytes(), key.as_bytes()].join(&0);
    Some(xxh3_64(&text).cast_signed())
}
