//! The dispatcher's board: what is held in memory, in which order, and what may go now. Pure: it is told everything,
//! the time included, and answers with plans.
//!
//! ```text
//! read -> arrivals -> lanes (one a key and route) -> batches -> verdicts -> writes -> settled
//!                        full: forgotten, only the first id kept, read again when there is room
//! ```

mod held;
mod reading;
mod lanes;
mod verdicts;

#[cfg(test)]
mod tests;

use super::RelayConfig;
use crate::{
    event::{EventId, LetterId},
    failure::{FailureClass, Report},
    outbox::{CarriedLetter, DecidedPark, Epoch, PartitionNo, Verdict},
    transport::Route,
};
use held::Held;
use lanes::RouteQueue;
use reading::Partition;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use reading::{ReadAnswer, ReadJob};
pub(crate) use verdicts::{Attempt, RouteBatch};

/// Index of a route in the relay's list.
pub(crate) type RouteNo = usize;

/// Ids and hashes of keys are spread well enough as they are.
#[derive(Debug, Default, Clone)]
pub(crate) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(b);
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn write_i64(&mut self, n: i64) {
        self.write_u64(n.cast_unsigned());
    }
}

pub(crate) type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<AsIs>>;

/// A retry that the retrier should ring for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timer {
    /// When.
    pub(crate) at: Instant,
    /// The event.
    pub(crate) id: EventId,
    /// The route.
    pub(crate) route: RouteNo,
}

/// What people are to be told, in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The destination of a route is down, or rejects everything.
    RouteDown {
        /// The route.
        route: RouteNo,
        /// What kind of failure it was.
        class: FailureClass,
        /// What was said last.
        text: String,
    },
    /// It confirms again.
    RouteUp {
        /// The route.
        route: RouteNo,
        /// How long it was down.
        after: Duration,
    },
    /// Attempts of a route have failed.
    PublishFailed {
        /// The route.
        route: RouteNo,
        /// Whether it is the first one, or how many they are.
        report: Report,
        /// What kind of failure the last one was.
        class: FailureClass,
        /// What was said last.
        text: String,
        /// What happens next.
        next: String,
    },
    /// An event waits for a route that this relay does not have.
    Unrouted {
        /// The event.
        id: EventId,
        /// What is missing.
        text: String,
        /// For how long it waits at least.
        wait: Duration,
    },
    /// An event that alone is rejected has been for long, and its policy has no end.
    StaysRejected {
        /// The route.
        route: RouteNo,
        /// The event.
        id: EventId,
        /// What was said last.
        text: String,
    },
}

/// What the board wants written, in order.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    /// Events that every route has confirmed and of which nothing is remembered, with the epoch they were read under.
    pub(crate) finish: Vec<(PartitionNo, Epoch, EventId)>,
    /// What is to be remembered, with the epoch.
    pub(crate) record: Vec<(Epoch, Verdict)>,
    /// Letters of events that are finished already.
    pub(crate) bury: Vec<CarriedLetter>,
}

impl Writes {
    pub(crate) fn extend(&mut self, more: Self) {
        if self.is_empty() {
            *self = more;
        } else {
            self.finish.extend(more.finish);
            self.record.extend(more.record);
            self.bury.extend(more.bury);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.finish.is_empty() && self.record.is_empty() && self.bury.is_empty()
    }
}

/// Counters for people and gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStats {
    /// Confirmed by their destination, once for each route.
    pub delivered: u64,
    /// Failed attempts that were counted.
    pub retried: u64,
    /// Put aside, once for each route.
    pub dead: u64,
    /// Events held in memory.
    pub held: usize,
    /// Handed to publishers and not yet answered.
    pub in_flight: usize,
    /// Partitions owned.
    pub partitions: usize,
    /// Routes whose breaker is not closed.
    pub open_breakers: usize,
    /// Events that committed after later ones had been read, found by looking back.
    pub late: u64,
    /// Of these, those found beyond the order window, by the sweep: later events of their key may have overtaken them.
    pub beyond_window: u64,
    /// Events that wait for a route which this relay does not have.
    pub unrouted: usize,
    /// Events whose memory was given up for being behind others; they are read again.
    pub forgotten: u64,
    /// Times that partitions were lost to another relay.
    pub leases_lost: u64,
}

/// The board. See the module.
pub(crate) struct Board {
    config: RelayConfig,
    routes: Arc<[Route]>,
    queues: Vec<RouteQueue>,
    held: FastMap<EventId, Held>,
    partitions: BTreeMap<PartitionNo, Partition>,
    writes: Writes,
    timers: Vec<Timer>,
    notices: Vec<Notice>,
    /// Events that some routes have confirmed while others are still to be tried.
    halfway: VecDeque<(Instant, EventId)>,
    /// Ids that were finished while a read was under way which may still show them.
    settled_during_read: FastMap<EventId, ()>,
    /// Ids of which something was written down while a read was under way which may still show what was before.
    recorded_during_read: FastMap<EventId, ()>,
    suspicion: lanes::Suspicion,
    /// Events to be read again later, whose memory is given up when the read under way is over.
    lingering: Vec<EventId>,
    /// Events that are put aside without having been held, until that is written.
    burying: FastMap<EventId, PartitionNo>,
    /// Keys to open once their heads have been fetched.
    unparking: Vec<(RouteNo, u64)>,
    /// Decisions about parked keys that cannot be followed yet, with the epoch of the partition.
    decided: Vec<(Epoch, DecidedPark)>,
    /// Further letters of parked keys.
    also_parked: BTreeSet<(RouteNo, u64, LetterId)>,
    /// Whether a relay with other routes waits for its turn.
    others_wait: bool,
    /// What was told of events that wait for a route.
    told_unrouted: BTreeSet<String>,
    positions: reading::Positions,
    stats: RelayStats,
    /// Spreads pauses; given by the actor, so that the board stays a function of its input.
    jitter: fn(Duration) -> Duration,
}

impl Board {
    pub(crate) fn new(
        config: RelayConfig,
        routes: Arc<[Route]>,
        jitter: fn(Duration) -> Duration,
    ) -> Self {
        let queues = routes.iter().map(|_| RouteQueue::default()).collect();
        Self {
            config,
            queues,
            routes,
            held: FastMap::default(),
            partitions: BTreeMap::new(),
            writes: Writes::default(),
            timers: Vec::new(),
            notices: Vec::new(),
            halfway: VecDeque::new(),
            settled_during_read: FastMap::default(),
            recorded_during_read: FastMap::default(),
            suspicion: lanes::Suspicion::default(),
            lingering: Vec::new(),
            burying: FastMap::default(),
            unparking: Vec::new(),
            decided: Vec::new(),
            also_parked: BTreeSet::new(),
            others_wait: false,
            told_unrouted: BTreeSet::new(),
            positions: reading::Positions::default(),
            stats: RelayStats::default(),
            jitter,
        }
    }

    /// Takes what is to be written.
    pub(crate) fn take_writes(&mut self) -> Writes {
        std::mem::take(&mut self.writes)
    }

    /// Takes the retries that the retrier should ring for.
    pub(crate) fn take_timers(&mut self) -> Vec<Timer> {
        std::mem::take(&mut self.timers)
    }

    /// Takes what people are to be told.
    pub(crate) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Gives the counters.
    pub(crate) fn stats(&self) -> RelayStats {
        RelayStats {
            held: self.held.len(),
            in_flight: self.partitions.values().map(|p| p.in_flight).sum(),
            partitions: self.partitions.len(),
            open_breakers: self.queues.iter().filter(|q| q.breaker.is_open()).count(),
            unrouted: self.partitions.values().map(|p| p.unrouted.len()).sum(),
            ..self.stats
        }
    }

    /// Tells whether nothing is in flight and nothing waits to be written.
    pub(crate) fn is_quiet(&self) -> bool {
        self.writes.is_empty() && self.partitions.values().all(Partition::is_quiet)
    }
}
