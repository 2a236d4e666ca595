//! What a store must do for consumers beside the inbox: deliveries kept for later, and letters of those given up.

use super::{Store, StoreError};
use crate::{
    event::{LetterId, Message},
    failure::{AttemptError, DeadLetter, DeadReason},
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use xxhash_rust::xxh3::xxh3_64;

/// What a store says of a message before a handler runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The inbox row is written: the handler's turn.
    First,
    /// The handler had it already; nothing is written.
    Repeat,
    /// Deliveries of its key are stored for this handler: it goes behind them. Nothing is written.
    Behind,
}

/// A delivery that is to be stored for one handler.
#[derive(Debug, Clone)]
pub struct PutBy<'a> {
    /// The consumer's stable name.
    pub consumer: &'a str,
    /// The handler's stable name.
    pub handler: &'a str,
    /// The message, stored whole.
    pub message: &'a Message,
    /// Time until it is due; `None` for one that goes behind others of its key.
    pub due_in: Option<Duration>,
    /// What became of it so far.
    pub history: History,
}

/// What became of a delivery so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Runs that have ended, however they did.
    pub runs: u32,
    /// Those of them that failed.
    pub failures: u32,
    /// Time since the first of them failed.
    pub failing_for: Duration,
    /// The first failure and the last nine.
    pub errors: Vec<AttemptError>,
    /// The letter that it was redriven from.
    pub letter: Option<LetterId>,
}

/// Whose a stored delivery is for the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Identity of the stored delivery.
    pub id: i64,
    /// Who has claimed it.
    pub by: Arc<str>,
}

/// A stored delivery that was claimed.
#[derive(Debug, Clone)]
pub struct StoredDelivery {
    /// Whose it is.
    pub claim: Claim,
    /// The handler's stable name; empty for one that no handler took.
    pub handler: Arc<str>,
    /// The message, or why the row does not decode.
    pub message: Result<Message, String>,
    /// Runs that were begun.
    pub started: u32,
    /// Whether the message's time had run out when it was claimed, by the database's clock.
    pub expired: bool,
    /// For how long it has waited for an instance that knows it; `None` where it does not, or was claimed as known.
    pub awaited_for: Option<Duration>,
    /// What became of it so far.
    pub history: History,
}

/// Who asks for stored deliveries.
#[derive(Debug, Clone)]
pub struct ClaimQuery<'a> {
    /// The consumer's stable name.
    pub consumer: &'a str,
    /// The handlers that are known here.
    pub handlers: &'a [Arc<str>],
    /// Who claims: random for each start of a consumer.
    pub by: &'a Arc<str>,
    /// For how long, by the database's clock.
    pub lease: Duration,
    /// At most so many, from 1.
    pub limit: u32,
}

/// How the run of a stored delivery ended that stays stored.
#[derive(Debug, Clone)]
pub struct Postponed<'a> {
    /// Time until it is due again.
    pub due_in: Duration,
    /// What became of it so far, this run included.
    pub history: &'a History,
}

/// A letter that a consumer writes.
#[derive(Debug, Clone)]
pub struct ReceivedLetter<'a> {
    /// The consumer's stable name, which has no slash.
    pub consumer: &'a str,
    /// The handler that gives up; empty where none took the message.
    pub handler: &'a str,
    /// The message; where it cannot be read, the bytes that came, as far as the transport gave them.
    pub message: Result<&'a Message, Option<&'a Bytes>>,
    /// Why.
    pub reason: DeadReason,
    /// What became of it.
    pub history: &'a History,
}

/// Works for a consumer's deliveries, in the transactions of their handlers.
#[async_trait]
pub trait ConsumerStore:
    RetrierStore
    + super::BarrierStore
    + super::InstanceStore
    + super::HandoverStore
    + super::HandlerNameStore
{
    /// Notes in the transaction that a message was received, unless it had been already or has to wait: with a `lane`,
    /// it goes behind stored deliveries of the same consumer, handler and lane. Waits for another transaction that notes
    /// the same.
    async fn admit(
        &self,
        tx: &Self::Tx,
        key: super::InboxKey<'_>,
        lane: Option<i64>,
    ) -> Result<Admission, StoreError>;

    /// Says what [`admit`](Self::admit) would say, without writing, and opens a transaction that does not take the database's only
    /// write lock when it begins. `None`, the default, where there is no such lock.
    async fn begin_deferred(
        &self,
        _key: super::InboxKey<'_>,
        _lane: Option<i64>,
    ) -> Result<Option<(Admission, Self::Tx)>, StoreError> {
        Ok(None)
    }

    /// Tells whether a message was received before. By default in a transaction that is rolled back; a store that can ask
    /// without one does.
    async fn is_received(&self, key: super::InboxKey<'_>) -> Result<bool, StoreError> {
        let tx = self.begin().await?;
        let received = self.receive(&tx, key).await;
        self.rollback(tx).await?;
        received.map(|is_new| !is_new)
    }

    /// Stores a delivery in the transaction; one that is stored already stays as it is. `false`, with nothing written,
    /// when it should go behind others and there are none any more: locks the lane's head, so that whoever finishes that
    /// sees what was put behind it.
    async fn put_by(&self, tx: &Self::Tx, delivery: &PutBy<'_>) -> Result<bool, StoreError>;

    /// Writes a letter in the transaction.
    async fn bury(
        &self,
        tx: &Self::Tx,
        letter: &ReceivedLetter<'_>,
    ) -> Result<DeadLetter, StoreError>;

    /// Opens a transaction inside another: committed, it stays with it; rolled back, only what was done in it goes.
    async fn nest(&self, tx: &Self::Tx) -> Result<Self::Tx, StoreError>;

    /// Tells for how long the inbox remembers.
    fn inbox_retention(&self) -> Duration;
}

/// Works for the stored deliveries. Called by the retrier.
#[async_trait]
pub trait RetrierStore: Store {
    /// Claims deliveries that are due, the first of each lane only, for a time; what is claimed by others is left out.
    async fn claim(&self, query: &ClaimQuery<'_>) -> Result<Vec<StoredDelivery>, StoreError>;

    /// Claims the one stored delivery of a message, and counts a run that starts now. Nothing where others of its lane come
    /// first, where it is claimed, or where it was begun before.
    async fn claim_new(
        &self,
        key: super::InboxKey<'_>,
        by: &Arc<str>,
        lease: Duration,
    ) -> Result<Option<Claim>, StoreError>;

    /// Opens a transaction in which a stored delivery is handled and [finished](Self::finish). It has to see, statement
    /// by statement, what others have committed meanwhile: READ COMMITTED, whatever the connection's default is.
    async fn begin_stored(&self) -> Result<Self::Tx, StoreError> {
        self.begin().await
    }

    /// Prolongs a claim; `begins` counts a run that starts now. `false` when the claim is lost.
    async fn prolong(
        &self,
        claim: &Claim,
        lease: Duration,
        begins: bool,
    ) -> Result<bool, StoreError>;

    /// Removes a stored delivery in the transaction; the next of its lane is due then. `false` when the claim is lost.
    async fn finish(&self, tx: &Self::Tx, claim: &Claim) -> Result<bool, StoreError>;

    /// Gives a delivery back, to be due later; without a [`Postponed`] as it was when its run was begun, due at once.
    /// `false` when the claim is lost.
    async fn postpone(
        &self,
        claim: &Claim,
        postponed: Option<Postponed<'_>>,
    ) -> Result<bool, StoreError>;

    /// Deletes inbox rows whose retention has passed, and rows of the barrier, at most `limit` of both. Gives how many
    /// went.
    async fn forget(&self, limit: u32) -> Result<u64, StoreError>;
}

/// Gives the lane of a message within its consumer and handler: a hash of source and key, under which order is kept.
///
/// Two keys with one hash wait for each other, and nothing worse. A message without a key has no lane.
#[must_use]
pub fn lane_of(message: &Message) -> Option<i64> {
    let key = message.key.as_ref()?;
    let text = [message.source.as_bytes(), key.as_bytes()].join(&0);
    Some(xxh3_64(&text).cast_signed())
}
