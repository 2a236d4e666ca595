//! The messages between the actors of a relay.

use super::board::{Attempt, ReadAnswer, RouteNo, Timer};
use crate::{
    event::{EventId, LetterId},
    outbox::{Controls, DueRetry, Epoch, PartitionNo, RelayLive, StoreError, UnparkedKey},
    runtime::now,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// An event with the epoch under which its partition was owned when it was read.
pub(crate) type OwnedEvent = (PartitionNo, Epoch, EventId);

/// A message to the dispatcher.
#[derive(Debug)]
pub(crate) enum DispatcherMsg {
    /// From the keeper or the settler: another relay owns these partitions by now.
    Lost(Vec<(PartitionNo, Epoch)>),
    /// From the keeper: release these partitions when nothing of them is in flight.
    Release(Vec<PartitionNo>),
    /// From the keeper: the lease was renewed. The keeper sends `Lost` first: a renewed lease does
    /// not cover lost partitions, and the dispatcher must not start events of them under it.
    Renewed {
        lease: Lease,
        /// Due retries of the relay's partitions.
        due: Vec<DueRetry>,
        unparked: Vec<UnparkedKey>,
        /// Whether a relay with other routes waits for its turn.
        other_routes_wait: bool,
    },
    /// From the keeper: the relay owns these partitions now. All of their parked keys are known.
    Gained(Vec<Gained>),
    /// From the reader: the answer to a read.
    Read(Result<ReadAnswer, StoreError>),
    /// From a publisher: results of a batch, with `is_last` the last ones.
    Published { route: RouteNo, results: Vec<(EventId, Attempt)>, is_last: bool },
    /// From the settler: these events are deleted.
    Finished(Vec<OwnedEvent>),
    /// From the settler, before `Recorded`: the dead letters that it has written.
    LettersWritten(Vec<(EventId, Arc<str>, LetterId)>),
    /// From the settler: the records of these events are written.
    Recorded(Vec<OwnedEvent>),
    /// From the timer actor.
    TimersFired(Vec<Timer>),
    /// From the operator actor: these controls are in force.
    Controls(Controls),
    /// From the operator actor: operators have unparked these keys. The next renewal reports them
    /// again.
    Unparked(Vec<UnparkedKey>),
    /// From the operator actor: describe the routes.
    Describe(oneshot::Sender<RelayLive>),
}

/// A partition that was gained.
#[derive(Debug)]
pub(crate) struct Gained {
    pub(crate) partition: PartitionNo,
    pub(crate) epoch: Epoch,
    /// Whether its former owner did not release it.
    pub(crate) crashed: bool,
    pub(crate) parked: Vec<ParkedKeyHash>,
}

/// A parked key, without the key's text: there may be many.
#[derive(Debug, Clone)]
pub(crate) struct ParkedKeyHash {
    pub(crate) route: Arc<str>,
    pub(crate) key_hash: u64,
    pub(crate) letter: LetterId,
}

/// A message from the dispatcher to the keeper.
#[derive(Debug)]
pub(crate) enum ReleaseMsg {
    /// Nothing of these partitions is under way any more: release them.
    Partitions(Vec<(PartitionNo, Epoch)>),
    /// Nothing is under way any more, and the relay stops: deregister it.
    All,
}

/// How long this relay may assume that it owns its partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The end of the lease, counted from before the renewal was sent.
    pub(crate) valid_until: Option<Instant>,
    /// Renewals that succeeded.
    pub(crate) renewals: u64,
    /// The number of the unbroken series of renewals. A renewal after the lease had run out begins
    /// a new term, and batches of earlier terms are void: another relay may have owned their
    /// partitions in between.
    pub(crate) term: u64,
}

impl Lease {
    pub(crate) fn is_valid(self) -> bool {
        self.valid_until.is_some_and(|until| now() < until)
    }

    /// Notes a renewal.
    pub(crate) fn renewed(&mut self, valid_until: Instant) {
        self.term += u64::from(!self.is_valid());
        self.valid_until = Some(valid_until);
        self.renewals += 1;
    }
}

/// Pauses between attempts, which double up to the longest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    next: Duration,
    first: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, first, longest }
    }

    pub(crate) fn take(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// The dispatcher has stopped, and with it this incarnation of the relay.
#[derive(Debug, thiserror::Error)]
#[error("the dispatcher has stopped")]
pub(crate) struct DispatcherStopped;
