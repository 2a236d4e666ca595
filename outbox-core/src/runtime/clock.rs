//! The only place that reads a clock. Work is timed by the monotonic one; instants of events come
//! from the database.

use std::time::{Instant, SystemTime};

/// Gives the monotonic time; under `tokio::time::pause` the paused one.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Gives the calendar time by this machine's clock, for values that another host compares with its
/// own clock: the timestamp under a webhook's signature and the dates in HTTP answers. Never for
/// leases, schedules or backoff.
#[must_use]
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}
