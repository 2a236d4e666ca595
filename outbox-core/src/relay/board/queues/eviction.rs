//! Evictions: from which event on a key or a route has evicted its events, and how far a rescan
//! loads them again.

use crate::event::EventId;

/// The read that an event comes from. Only a rescan loads events that were evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadSource {
    /// A read past the cursor.
    Forward,
    /// A read by id, of an event that the order window or the sweep has found, or that is due.
    LookBack,
    /// A rescan, which reads evicted events again, in order.
    Rescan,
}

/// The point of a key or route from which on its events were evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EvictedFrom {
    /// The first evicted event.
    first: EventId,
    /// How far the present rescan loads the evicted events.
    rescan: RescanState,
}

/// How a rescan of a partition relates to the evicted events of one key or route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RescanState {
    /// It begins behind the first evicted event: loading from it would break the order of the key.
    Partial,
    /// It covers the first evicted event; all that it came to so far were loaded.
    Loading,
    /// The rescan came to an event that no queue has room for; it loads no later one.
    Full,
}

/// Why an event is not taken into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no room, and the event is the first one to be evicted.
    BeginsEviction,
    /// Earlier events are evicted already.
    Evicted,
}

impl EvictedFrom {
    /// Begins an eviction.
    pub(super) const fn at(first: EventId) -> Self {
        Self { first, rescan: RescanState::Partial }
    }

    /// Gives the first evicted event.
    pub(crate) const fn first(self) -> EventId {
        self.first
    }

    /// Notes that a rescan begins at an id.
    pub(crate) fn rescan_begins(&mut self, from: EventId) {
        // An eviction that began before this page is loaded in part only, and stays: its later
        // events would be published before the earlier ones that are still evicted.
        self.rescan = match self.first >= from {
            true => RescanState::Loading,
            false => RescanState::Partial,
        };
    }

    /// Tells whether the present rescan has loaded all that it came to.
    pub(crate) fn is_loading(self) -> bool {
        self.rescan == RescanState::Loading
    }

    /// Tells whether a rescan that has read everything up to `to` has loaded all evicted events.
    pub(super) fn is_loaded(self, to: EventId) -> bool {
        self.is_loading() && self.first.0 <= to.0 + 1
    }

    /// Tells whether an event stays out of memory, even if there is room.
    pub(super) fn evicts(self, id: EventId, source: ReadSource) -> bool {
        let loads = source == ReadSource::Rescan && self.is_loading();
        id >= self.first && !loads
    }

    /// Tells whether no evicted event is before this one.
    pub(super) fn is_first(self, id: EventId, source: ReadSource) -> bool {
        id <= self.first || !self.evicts(id, source)
    }
}

/// Decides whether an event is taken into memory, by the eviction of its route or key.
pub(super) fn check_capacity(
    evicted_from: Option<&mut EvictedFrom>,
    id: EventId,
    source: ReadSource,
    full: bool,
) -> Result<(), Refusal> {
    let Some(evicted_from) = evicted_from else {
        return if full { Err(Refusal::BeginsEviction) } else { Ok(()) };
    };
    if id < evicted_from.first {
        // Earlier than all evicted events: its turn is before them.
        if full {
            *evicted_from = EvictedFrom::at(id);
        }
        return if full { Err(Refusal::Evicted) } else { Ok(()) };
    }
    if source == ReadSource::Rescan && evicted_from.is_loading() {
        if full {
            *evicted_from = EvictedFrom { first: id, rescan: RescanState::Full };
        } else {
            evicted_from.first = EventId(id.0 + 1);
            return Ok(());
        }
    }
    Err(Refusal::Evicted)
}

#[cfg(test)]
mod tests {
    use super::{
        ReadSource::{Forward, LookBack, Rescan},
        RescanState::{Full, Loading, Partial},
        *,
    };

    #[test]
    fn an_eviction_lets_in_what_is_before_it_and_what_a_rescan_loads_in_order() {
        let ok: Result<(), Refusal> = Ok(());
        let out = Err(Refusal::Evicted);
        // The eviction begins at 10. How far its rescan is, an event, its read, whether there is no
        // room; then what becomes of the event and of the eviction.
        for (rescan, id, source, full, expected, first, after) in [
            (Partial, 9, Forward, false, ok, 10, Partial),
            (Partial, 9, Forward, true, out, 9, Partial),
            (Loading, 9, Rescan, true, out, 9, Partial),
            (Partial, 10, Forward, false, out, 10, Partial),
            (Partial, 10, Rescan, false, out, 10, Partial),
            (Loading, 10, LookBack, false, out, 10, Loading),
            (Loading, 10, Rescan, false, ok, 11, Loading),
            (Loading, 12, Rescan, true, out, 12, Full),
            (Full, 12, Rescan, false, out, 10, Full),
        ] {
            let mut evicted_from = EvictedFrom { first: EventId(10), rescan };
            let seen = check_capacity(Some(&mut evicted_from), EventId(id), source, full);
            let eviction = EvictedFrom { first: EventId(first), rescan: after };
            let case = format!("{rescan:?}, {id} by {source:?}, full: {full}");
            assert_eq!((seen, evicted_from), (expected, eviction), "{case}");
        }
        let none = |full| check_capacity(None, EventId(1), Forward, full);
        assert_eq!((none(false), none(true)), (ok, Err(Refusal::BeginsEviction)));
    }
}
