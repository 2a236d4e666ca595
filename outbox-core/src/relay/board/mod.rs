//! The dispatcher's board: the events in memory, their order, and which of them may be published
//! now. Pure: its inputs are messages and the time, its outputs reads, batches, writes and timers.
//!
//! ```text
//! read -> admission -> key queues -> batches -> outcomes -> writes -> settled
//!             full: evicted; a rescan reads on from the first evicted id when there is room
//! ```
//!
//! The state has owners with private fields, which the board composes: `entries/` the events in
//! memory and their states, `crash_isolation.rs` the events that are published alone, `controls/`
//! what an operator has paused or slowed down, `queues/` the order of the events on each route, the
//! room for them and the decisions about parked keys, `outcomes/` what each destination answered,
//! `reading/` the positions and what a read waits for. `dispatch/` decides what may be published
//! now, `outcomes/` what follows from the answers. `Board::state_of` gives the state of one event,
//! with a drawing in `entries/state.rs`.

mod entries;
mod reading;
mod queues;
mod crash_isolation;
mod controls;
mod dispatch;
mod outcomes;

#[cfg(test)]
mod tests;

use super::RelaySettings;
use crate::{
    event::EventId,
    failure::{FailureClass, Report},
    outbox::{DetachedLetter, Epoch, PartitionNo, RouteUpdate},
    transport::Route,
};
use controls::BoardControls;
use crash_isolation::CrashIsolation;
use entries::{Entries, EventState};
use outcomes::Destination;
use queues::{Parks, QueueLimits, RouteQueue};
use reading::Partition;
use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use dispatch::RouteBatch;
pub(crate) use outcomes::Attempt;
pub(crate) use reading::{ReadAnswer, ReadJob};

/// Index of a route in the relay's list.
pub(crate) type RouteNo = usize;

/// Hashes ids and key hashes by one multiplication: they are spread well enough.
#[derive(Debug, Default, Clone)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
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

pub(crate) type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// A retry that becomes due at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timer {
    /// When it is due.
    pub(crate) at: Instant,
    /// The event.
    pub(crate) id: EventId,
    /// The route.
    pub(crate) route: RouteNo,
}

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The destination of a route is down, or rejects everything.
    RouteDown {
        /// The route.
        route: RouteNo,
        /// What kind of failure it was.
        class: FailureClass,
        /// The last error.
        text: String,
    },
    /// The destination confirms again.
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
        /// Whether it is the first failure, or how many there were.
        report: Report,
        /// What kind of failure the last one was.
        class: FailureClass,
        /// The last error.
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
        /// How long it waits at least.
        wait: Duration,
    },
    /// The destination has rejected only this event for long, and its retry policy has no end.
    StaysRejected {
        /// The route.
        route: RouteNo,
        /// The event.
        id: EventId,
        /// The last error.
        text: String,
    },
}

/// The writes that the settler has to make, in order.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    /// Events without route rows that every route has confirmed, with the epoch under which they
    /// were read.
    pub(crate) finish: Vec<(PartitionNo, Epoch, EventId)>,
    /// Changes of route rows, with the epoch.
    pub(crate) record: Vec<(Epoch, RouteUpdate)>,
    /// Dead letters of events that are finished already.
    pub(crate) letters: Vec<DetachedLetter>,
}

impl Writes {
    pub(crate) fn extend(&mut self, more: Self) {
        if self.is_empty() {
            *self = more;
        } else {
            self.finish.extend(more.finish);
            self.record.extend(more.record);
            self.letters.extend(more.letters);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.finish.is_empty() && self.record.is_empty() && self.letters.is_empty()
    }
}

/// Counters for operators and gauges.
///
/// ```
/// # use outbox_core::relay::Relay;
/// # async fn example(relay: &Relay) {
/// let mut stats = relay.stats();
/// let _ = stats.wait_for(|stats| stats.open_breakers > 0).await;
/// println!("a destination is down");
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStats {
    /// Events confirmed by their destination, counted once for each route.
    pub delivered: u64,
    /// Failed attempts that were counted.
    pub retried: u64,
    /// Events that became dead letters, counted once for each route.
    pub dead: u64,
    /// Events in memory.
    pub in_memory: usize,
    /// Events handed to publishers whose publish has not ended.
    pub in_flight: usize,
    /// Partitions owned.
    pub partitions: usize,
    /// Routes whose breaker is not closed.
    pub open_breakers: usize,
    /// Events that committed after later ones had been read, found by looking back.
    pub late: u64,
    /// Of these, those found beyond the order window, by the sweep: later events of their key may
    /// have overtaken them.
    pub beyond_window: u64,
    /// Events that wait for a route which this relay does not have.
    pub unrouted: usize,
    /// Events that were evicted from memory because earlier ones filled it; the relay reads them
    /// again.
    pub evicted: u64,
    /// Times that partitions were lost to another relay.
    pub leases_lost: u64,
}

/// The board. See the module.
pub(crate) struct Board {
    config: RelaySettings,
    routes: Arc<[Route]>,
    queues: Vec<RouteQueue>,
    destinations: Vec<Destination>,
    entries: Entries,
    partitions: BTreeMap<PartitionNo, Partition>,
    writes: Writes,
    timers: Vec<Timer>,
    notices: Vec<Notice>,
    crash_isolation: CrashIsolation,
    controls: BoardControls,
    parks: Parks,
    /// Whether a relay with other routes waits for its turn.
    other_routes_wait: bool,
    unrouted_reports: reading::UnroutedReports,
    positions: reading::Positions,
    stats: RelayStats,
    /// Spreads pauses; passed in by the actor, so that the board stays a function of its input.
    jitter: fn(Duration) -> Duration,
}

impl Board {
    pub(crate) fn new(
        config: RelaySettings,
        routes: Arc<[Route]>,
        jitter: fn(Duration) -> Duration,
    ) -> Self {
        let limits = |route: &Route| QueueLimits {
            events: config.per_route,
            bytes: route.max_in_memory,
            per_key: config.per_key,
        };
        Self {
            config,
            controls: BoardControls::new(routes.len()),
            queues: routes.iter().map(|route| RouteQueue::new(limits(route))).collect(),
            destinations: routes.iter().map(|_| Destination::default()).collect(),
            routes,
            entries: Entries::default(),
            partitions: BTreeMap::new(),
            writes: Writes::default(),
            timers: Vec::new(),
            notices: Vec::new(),
            crash_isolation: CrashIsolation::default(),
            parks: Parks::default(),
            other_routes_wait: false,
            unrouted_reports: reading::UnroutedReports::default(),
            positions: reading::Positions::default(),
            stats: RelayStats::default(),
            jitter,
        }
    }

    /// Takes the writes for the settler.
    pub(crate) fn take_writes(&mut self) -> Writes {
        std::mem::take(&mut self.writes)
    }

    /// Takes the timers to set.
    pub(crate) fn take_timers(&mut self) -> Vec<Timer> {
        std::mem::take(&mut self.timers)
    }

    /// Takes the lines for the log.
    pub(crate) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Gives the counters.
    pub(crate) fn stats(&self) -> RelayStats {
        RelayStats {
            in_memory: self.entries.len(),
            in_flight: self.partitions.values().map(Partition::in_flight).sum(),
            partitions: self.partitions.len(),
            open_breakers: self.destinations.iter().filter(|d| d.breaker().is_open()).count(),
            unrouted: self.partitions.values().map(Partition::unrouted).sum(),
            ..self.stats
        }
    }

    /// Tells whether the breaker of a route is not closed.
    pub(crate) fn breaker_is_open(&self, route: RouteNo) -> bool {
        self.destinations[route].breaker().is_open()
    }

    /// Gives the state of an event, by all who keep something of it. See [`EventState`].
    fn state_of(&self, partition: PartitionNo, id: EventId) -> EventState {
        let by_partition = || self.partitions.get(&partition)?.state_of(id);
        let by_reads = || self.positions.state_of(partition, id);
        let known = self.entries.state_of(id).or_else(by_partition).or_else(by_reads);
        known.unwrap_or(EventState::Unknown)
    }

    /// Tells whether no publish is in flight and no write is pending.
    pub(crate) fn is_quiet(&self) -> bool {
        self.writes.is_empty() && self.partitions.values().all(Partition::is_quiet)
    }
}
