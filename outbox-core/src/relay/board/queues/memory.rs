//! What a route keeps in memory: its events and their bytes, with the limits of both.

/// The limits of a route's queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    /// Events in memory.
    pub(crate) events: usize,
    /// Their bytes, unless there is only one.
    pub(crate) bytes: usize,
    /// Events of one key that wait in memory.
    pub(crate) per_key: usize,
}

/// The events in memory for one route, those in flight included.
#[derive(Debug)]
pub(super) struct RouteMemory {
    events: usize,
    bytes: usize,
    most_events: usize,
    most_bytes: usize,
}

impl RouteMemory {
    pub(super) const fn new(limits: QueueLimits) -> Self {
        Self { events: 0, bytes: 0, most_events: limits.events, most_bytes: limits.bytes }
    }

    /// Gives how many events are in memory.
    pub(super) const fn events(&self) -> usize {
        self.events
    }

    /// Counts an event in.
    pub(super) fn take(&mut self, bytes: usize) {
        self.events += 1;
        self.bytes += bytes;
    }

    /// Counts an event out.
    pub(super) fn release(&mut self, bytes: usize) {
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Tells whether there are as many events in memory as may be.
    pub(super) const fn is_full(&self) -> bool {
        self.events >= self.most_events
    }

    /// Tells whether there is no place for one more event of so many bytes.
    pub(super) const fn is_full_for(&self, bytes: usize) -> bool {
        self.is_full() || (self.events > 0 && self.bytes + bytes > self.most_bytes)
    }

    /// Tells whether the route wants more events: at most half of its events and of its bytes are
    /// in memory.
    pub(super) const fn has_room(&self) -> bool {
        self.events <= self.most_events / 2 && self.bytes <= self.most_bytes / 2
    }

    /// Tells whether the route takes events that a pause holds: a quarter of its memory is for
    /// them, and with half of it free the route is read on.
    pub(super) const fn has_room_for_held(&self) -> bool {
        self.events <= self.most_events / 4 && self.bytes <= self.most_bytes / 4
    }

    /// Tells whether so many keys that a pause holds are too many.
    pub(super) const fn is_full_of_held(&self, keys: usize) -> bool {
        keys >= self.most_events
    }

    /// Gives how many more events the route wants.
    pub(super) const fn room(&self) -> usize {
        if self.has_room() { self.most_events - self.events } else { 0 }
    }

    /// Gives how many more bytes may be in memory.
    pub(super) const fn room_in_bytes(&self) -> usize {
        self.most_bytes.saturating_sub(self.bytes)
    }
}
