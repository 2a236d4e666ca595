//! What the board knows of an event.
//!
//! ```text
//!              looked back, due                   read
//!   Unknown ---------------------> Wanted --------------------.
//!      |  ^                          ^                        v
//!      |  |                          '-- payload left out -- Stashed
//!      |  | the read is over              redriven            |
//!      |  '----------- Settled                                | every earlier event of its
//!      |                  ^                                   | partition is admitted
//!      | read, in order   | during a read                     v
//!      '---------------------------------------------> (admission)
//!                         |                              | | | |
//!                         |  no row waits, or it         | | | |  no route takes it
//!                         |  does not decode             | | | '-----------------> Unrouted
//!                         |-- BeingBuried <--------------' | |
//!                         |                       room     | |  no room
//!                         |-- InMemory <-------------------' '------------> Evicted
//!                              |      ^                                       |  ^
//!                              |      '----------- rescan --------------------'  |
//!                              '-- evicted --> PendingEviction -- read is over --'
//! ```
//!
//! The bookkeeping has owners that differ in what ends it: [`Entries`](super::Entries) by the
//! settler's answers, a partition's ids of evicted and unrouted events by a rescan or by the lease,
//! the reads by the answer to a read. An event may be in several of them, for instance in memory on
//! one route and evicted on another, or wanted anew while it is in memory. So the state is derived,
//! by `Board::state_of`; the first of these that applies is given: settled, being buried, in memory
//! or pending eviction, unrouted, evicted, stashed, wanted.

/// The state of an event on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay::board) enum EventState {
    /// The board has nothing of it.
    Unknown,
    /// Its id is to be fetched.
    Wanted,
    /// It was read and waits for payloads, or for earlier events.
    Stashed,
    /// It has an entry and is on a key queue, in flight, or about to be recorded.
    InMemory,
    /// It has an entry that is in memory for no route: it is dropped when its record is written and
    /// the read under way is over.
    PendingEviction,
    /// The board has its id only: a rescan reads it again.
    Evicted,
    /// The board has its id only: it waits for a route that this relay does not have.
    Unrouted,
    /// Its final rows are being written; it has no entry.
    BeingBuried,
    /// The settler has deleted it, or written its last row, while a read was under way: that read
    /// may return it.
    Settled,
}

impl EventState {
    /// Tells whether there is nothing to fetch: the board has the event, has settled it, or keeps
    /// its id for later.
    pub(in crate::relay::board) const fn is_known(self) -> bool {
        match self {
            Self::Unknown | Self::Wanted | Self::Stashed => false,
            Self::InMemory
            | Self::PendingEviction
            | Self::Evicted
            | Self::Unrouted
            | Self::BeingBuried
            | Self::Settled => true,
        }
    }
}
