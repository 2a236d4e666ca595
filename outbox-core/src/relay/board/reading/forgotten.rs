//! The ids of one partition that are not held: the sweep passes over what it finds in them, and fetches only what is new.

use crate::event::EventId;
use roaring::RoaringTreemap;

/// Ids of one partition that are remembered, at most. An id takes about two bytes.
const MOST: u64 = 1 << 20;

/// The ids of forgotten events of one partition. Those that find no room in it are fetched again by the sweep, whole, once
/// a pass of it: that was 11 % of the rate of all other keys, with 100,000 events behind one that waits.
#[derive(Debug, Default)]
pub(crate) struct Forgotten(RoaringTreemap);

impl Forgotten {
    pub(crate) fn insert(&mut self, id: EventId) {
        if self.0.len() < MOST {
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

    /// Makes room for the ids of the order window, which the next reads look back over: the lowest ones go.
    pub(crate) fn keep_from(&mut self, floor: EventId) {
        if self.0.len() >= MOST {
            self.0.remove_range(..floor.0.cast_unsigned());
        }
    }
}
