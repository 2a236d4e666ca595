//! The evicted ids of one partition: the sweep skips them and fetches only ids that the board does
//! not know.

use crate::event::EventId;
use roaring::RoaringTreemap;

/// Ids that are kept for one partition, at most. An id takes about two bytes.
const MAX_IDS: u64 = 1 << 20;

/// The ids of evicted events of one partition. Ids beyond the limit are fetched again by each
/// sweep, with their payloads: with 100,000 events behind a blocked one that cost the other keys 11
/// % of their rate.
#[derive(Debug, Default)]
pub(crate) struct Evicted(RoaringTreemap);

impl Evicted {
    pub(crate) fn insert(&mut self, id: EventId) {
        if self.0.len() < MAX_IDS {
            self.0.insert(id.0.cast_unsigned());
        }
    }

    pub(crate) fn remove(&mut self, id: EventId) {
        self.0.remove(id.0.cast_unsigned());
    }

    pub(crate) fn contains(&self, id: EventId) -> bool {
        self.0.contains(id.0.cast_unsigned())
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// At the limit, drops the ids below the order window, so that those within it, over which
    /// every read looks back, fit.
    pub(crate) fn keep_from(&mut self, floor: EventId) {
        if self.0.len() >= MAX_IDS {
            self.0.remove_range(..floor.0.cast_unsigned());
        }
    }
}
