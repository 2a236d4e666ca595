//! What the actors of a relay tell each other.

use super::board::{Attempt, ReadAnswer, RouteNo, Timer};
use crate::{
    event::{EventId, LetterId},
    outbox::{DecidedPark, DueRetry, Epoch, PartitionNo, StoreError},
    runtime::now,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// An event under the ownership in which it was read.
pub(crate) type Place = (PartitionNo, Epoch, EventId);

/// Everything that the dispatcher is told.
#[derive(Debug)]
pub(crate) enum Note {
    /// By the keeper or the settler: these are somebody else's.
    Lost(Vec<(PartitionNo, Epoch)>),
    /// By the keeper: hand these back after what is in flight.
    Release(Vec<PartitionNo>),
    /// By the keeper: the lease, of which the dispatcher hears after it has heard of what was lost, so that it starts nothing
    /// of that; of all that is ours this is due, and these parked keys have been decided about; and whether a relay with
    /// other routes waits for its turn.
    Renewed { lease: Lease, due: Vec<DueRetry>, decided: Vec<DecidedPark>, others_wait: bool },
    /// By the keeper: these are ours from now on, with all keys that are parked there.
    Gained(Vec<Gained>),
    /// By the reader.
    Read(Result<ReadAnswer, StoreError>),
    /// By a publisher: answers to a batch, the last ones where it is `over`.
    Published { route: RouteNo, answers: Vec<(EventId, Attempt)>, over: bool },
    /// By the settler: finished in the database.
    Finished(Vec<Place>),
    /// By the settler, before it tells what was recorded: letters that were written.
    Buried(Vec<(EventId, Arc<str>, LetterId)>),
    /// By the settler: remembered in the database.
    Recorded(Vec<Place>),
    /// By the retrier.
    Rang(Vec<Timer>),
}

/// A partition that was gained.
#[derive(Debug)]
pub(crate) struct Gained {
    pub(crate) partition: PartitionNo,
    pub(crate) epoch: Epoch,
    /// Whether its former owner did not hand it back.
    pub(crate) crashed: bool,
    pub(crate) parks: Vec<ParkedKey>,
}

/// A key that waits for a decision about a letter.
#[derive(Debug, Clone)]
pub(crate) struct ParkedKey {
    pub(crate) route: Arc<str>,
    /// Hash of the key.
    pub(crate) key: u64,
    pub(crate) letter: LetterId,
}

/// Told to the keeper by the dispatcher.
#[derive(Debug)]
pub(crate) enum Handback {
    /// Nothing of these is under way any more.
    These(Vec<(PartitionNo, Epoch)>),
    /// Nothing at all is under way any more: the relay stops.
    Everything,
}

/// Until when this relay may believe that its partitions are its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Counted from before the renewal was sent.
    pub(crate) valid_until: Option<Instant>,
    /// Renewals that succeeded.
    pub(crate) renewals: u64,
    /// Which unbroken row of renewals it is. When one comes after the lease had run out, what was handed out before is
    /// void: somebody else may own it by now.
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

/// Pauses between tries that double from one length to another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pauses {
    next: Duration,
    first: Duration,
    longest: Duration,
}

impl Pauses {
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

/// The dispatcher ended: the relay is going down, and whoever talks to it with it.
#[derive(Debug, thiserror::Error)]
#[error("the dispatcher has stopped")]
pub(crate) struct Gone;
