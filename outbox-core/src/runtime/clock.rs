//! The only place that reads a clock. Work is timed by the monotonic one; instants of events come
//! from the database.

use std::time::{Duration, Instant, SystemTime};

/// What stands for a time without end: a century. The clock cannot represent the end of one that is
/// much longer.
const FOR_EVER: Duration = Duration::from_hours(24 * 36_525);

/// Gives the monotonic time; under `tokio::time::pause` the paused one.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Gives the instant after a time of any length, a century at most: a plain sum panics where the
/// clock cannot represent it, and the time may be one that a user or another host has chosen.
pub(crate) fn later(from: Instant, after: Duration) -> Instant {
    from + after.min(FOR_EVER)
}

/// Gives the calendar time by this machine's clock, for values that another host compares with its
/// own clock: the timestamp under a webhook's signature and the dates in HTTP answers. Never for
/// leases, schedules or backoff.
#[must_use]
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_end_ends_a_century_later() {
        let (start, day) = (now(), Duration::from_hours(24));
        for (after, expected) in [
            (Duration::ZERO, Duration::ZERO),
            (day, day),
            (day * 1_000_000, FOR_EVER),
            (Duration::from_secs(u64::MAX), FOR_EVER),
            (Duration::MAX, FOR_EVER),
        ] {
            assert_eq!(later(start, after).duration_since(start), expected, "{after:?}");
        }
    }
}
