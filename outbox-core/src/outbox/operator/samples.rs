//! Samples of a database's routes: a row a minute and route, written by the relay that owns
//! partition 0.

use super::{Bounded, RelayLive};
use crate::{event::Timestamp, outbox::StoreError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One minute of a route, over all relays of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// The beginning of the minute, by the database's clock.
    pub at: Timestamp,
    /// The route's stable name.
    pub route: String,
    /// What was counted and seen.
    #[serde(flatten)]
    pub figures: SampleFigures,
}

/// The figures of a [`Sample`]. The counts are those of the minute; all others are as they were at
/// its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SampleFigures {
    /// Milliseconds that the counts cover: about 60,000. Less in the first minute of a relay that
    /// begins to write samples, more after a minute whose row could not be written.
    pub over_ms: u64,
    /// Events that the route's destination has confirmed.
    pub delivered: u64,
    /// Counted failures.
    pub failed: u64,
    /// Events that became dead letters.
    pub dead: u64,
    /// Events in the relays' memory that wait for the route.
    pub waiting: u64,
    /// Events in the outbox, of all routes, counted up to 10,000.
    pub backlog: Bounded,
    /// Age of the oldest of them, in milliseconds; `None` while there is none.
    pub oldest_ms: Option<u64>,
    /// Time from handing an event to the publisher until its confirmation reached the relay, which
    /// half of the delivered events did not exceed, in milliseconds; `None` if none was delivered.
    pub p50_ms: Option<u64>,
    /// The same time, which 99 of 100 delivered events did not exceed.
    pub p99_ms: Option<u64>,
}

impl SampleFigures {
    /// Gives the events that were delivered a second.
    ///
    /// ```
    /// # use outbox_core::admin::SampleFigures;
    /// let half = SampleFigures { over_ms: 30_000, delivered: 60, ..SampleFigures::default() };
    /// assert_eq!(half.rate(), 2.0);
    /// ```
    #[must_use]
    pub fn rate(&self) -> f64 {
        // Counts of a minute are far below the numbers that have no neighbour as a float.
        let over = Duration::from_millis(self.over_ms).as_secs_f64();
        if over > 0.0 { self.delivered as f64 / over } else { 0.0 }
    }
}

/// What a relay reads before it writes samples.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleBasis {
    /// The database's clock.
    pub now: Timestamp,
    /// Whether the relay owns partition 0, by which it is the one that writes samples.
    pub is_elected: bool,
    /// Events in the outbox, counted up to 10,000.
    pub backlog: Bounded,
    /// Age of the oldest of them.
    pub oldest: Option<Duration>,
    /// The relays that have written about themselves within the last minute, at most 200, this one
    /// too.
    pub relays: Vec<SampledRelay>,
}

/// A relay whose counters are sampled.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledRelay {
    /// Its identity, new at each start.
    pub id: String,
    /// Whether its lease is valid.
    pub live: bool,
    /// What it wrote about itself last.
    pub state: RelayLive,
}

/// Stores samples, for the relay that writes them.
#[async_trait]
pub trait SampleWriter: Send + Sync + 'static {
    /// Reads what the samples of a relay are made of.
    async fn sample_basis(&self, relay: &str) -> Result<SampleBasis, StoreError>;

    /// Writes samples, each in place of a former one of its minute and route.
    async fn write_samples(&self, samples: &[Sample]) -> Result<(), StoreError>;
}
