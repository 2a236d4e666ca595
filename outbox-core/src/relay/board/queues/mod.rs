//! The queue of one route: which of its events may be published next, in the order of their keys,
//! and what it keeps in memory. At most one event of a key is in flight.

mod route_queue;
mod key_queue;
mod eviction;
mod memory;
mod solo;
mod parks;

pub(crate) use eviction::{EvictedFrom, ReadSource};
pub(crate) use memory::QueueLimits;
pub(crate) use parks::Parks;
pub(crate) use route_queue::{Admitted, Candidate, KeyHead, Ready, RouteQueue};
pub(crate) use solo::BatchFit;
