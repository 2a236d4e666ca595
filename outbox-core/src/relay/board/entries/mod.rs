//! The events in memory, each with its state on each of its routes.

mod entry;
mod leg;

pub(super) use entry::EventEntry;
pub(super) use leg::{AttemptHistory, LegEvent, LegState, RouteLeg};
