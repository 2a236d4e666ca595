//! The size of a read, in rows and bytes. Pure.

use crate::failure::FailureClass;
use std::time::{Duration, Instant};

/// Payload bytes of one read at most, unless one event has more: half a second at 16 MiB/s.
const READ_BYTES: usize = 8 << 20;
/// Smallest limit of a read in bytes: a few small events.
const MIN_BYTES: usize = 4 << 10;
/// Smallest limit after failures that may have been an outage of the database.
const MIN_BYTES_UNSURE: usize = 64 << 10;
/// A read that fails faster than this did not fail for its size: the database was unreachable.
const FAST_FAILURE: Duration = Duration::from_secs(1);
/// Average payload before any was read: most are smaller.
const INITIAL_AVERAGE: usize = 512;
/// How long a size that failed is not tried again.
const CEILING_AGE: Duration = Duration::from_mins(1);

/// The size of reads. It is halved when a read fails and grows again, but not to a size that failed
/// lately.
#[derive(Debug)]
pub(crate) struct ReadSize {
    bytes: usize,
    /// The last size that failed, with the instant.
    failed: Option<(usize, Instant)>,
    /// Average payload bytes of the rows that were read lately.
    average: usize,
}

/// The limits of one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Payload bytes in all.
    pub(crate) bytes: usize,
    /// Rows in all, from 1.
    pub(crate) rows: usize,
}

impl Default for ReadSize {
    fn default() -> Self {
        Self { bytes: READ_BYTES, failed: None, average: INITIAL_AVERAGE }
    }
}

impl ReadSize {
    /// Gives the limits of a read of at most `max_rows` rows, with room in memory for `room` bytes.
    pub(crate) fn budget(&self, max_rows: usize, room: usize) -> Budget {
        let bytes = self.bytes.min(room).max(1);
        // If large reads fail, the database is slow with many small rows too.
        let slow = READ_BYTES / self.bytes.max(1);
        let rows = (bytes / (self.average * 2).max(1)).min(max_rows / slow.max(1));
        Budget { bytes, rows: rows.clamp(1, max_rows.max(1)) }
    }

    /// Notes a read with its rows and payload bytes, left-out payloads included.
    pub(crate) fn read(&mut self, rows: usize, bytes: usize, now: Instant) {
        if let Some(average) = bytes.checked_div(rows) {
            self.average = average.max(usize::midpoint(self.average, average)).max(1);
        }
        let fresh = self.failed.filter(|(_, at)| now.saturating_duration_since(*at) < CEILING_AGE);
        let ceiling = fresh.map_or(READ_BYTES, |(failed, _)| failed / 4 * 3);
        self.bytes = (self.bytes + self.bytes / 4).min(ceiling).max(self.bytes.min(READ_BYTES));
    }

    /// Notes that a read failed after `took`: reads get smaller, unless the database was
    /// unreachable.
    pub(crate) fn failed(&mut self, class: FailureClass, took: Duration, now: Instant) {
        let least = match class {
            FailureClass::Unavailable if took < FAST_FAILURE => return,
            FailureClass::Unavailable => MIN_BYTES_UNSURE.min(self.bytes),
            FailureClass::Transient | FailureClass::Permanent => MIN_BYTES,
        };
        // Remembered: otherwise the next read had the size that had just failed.
        self.failed = Some((self.bytes, now));
        self.bytes = (self.bytes / 2).max(least);
    }
}

impl Budget {
    /// Gives the longest payload that is read in place, so that `rows` of them fit into the limit.
    pub(crate) fn payload_limit(self, rows: usize) -> u32 {
        u32::try_from(self.bytes / rows.max(1)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn small_events_are_read_by_the_thousand_and_large_ones_by_the_megabyte() {
        for (average, rows) in
            [(200, 4_096), (1_024, 4_096), (5_000, 838), (100_000, 41), (1 << 20, 4), (20 << 20, 1)]
        {
            let size = ReadSize { average, ..ReadSize::default() };
            let budget = size.budget(4_096, usize::MAX);
            assert_eq!((budget.rows, budget.bytes), (rows, READ_BYTES), "{average}");
            assert!(budget.rows * budget.payload_limit(budget.rows) as usize <= READ_BYTES);
        }
    }

    #[test]
    fn a_size_that_failed_is_not_tried_again_within_a_minute() {
        let (mut size, start) = (ReadSize::default(), Instant::now());
        let mut failed = Vec::new();
        // Everything over 3 MB takes too long.
        for tenth in 0..590 {
            let now = start + Duration::from_millis(tenth * 100);
            let bytes = size.budget(4_096, usize::MAX).bytes;
            if bytes > 3_000_000 {
                assert!(!failed.contains(&bytes), "{bytes} failed twice");
                failed.push(bytes);
                size.failed(FailureClass::Transient, SECOND, now);
            } else {
                size.read(10, 5_000, now);
            }
        }
        assert!(failed.len() < 5, "{failed:?}");
        let now = start + Duration::from_mins(3);
        (0..20).for_each(|_| size.read(10, 5_000, now));
        assert_eq!(size.budget(4_096, usize::MAX).bytes, READ_BYTES, "it grows again");
    }

    #[test]
    fn a_database_that_was_away_makes_no_read_small() {
        use FailureClass::{Permanent, Transient, Unavailable};
        let halves = |n: u32| READ_BYTES >> n;
        for (class, took, times, expected) in [
            (Unavailable, Duration::from_millis(999), 20, READ_BYTES),
            (Unavailable, SECOND, 1, halves(1)),
            (Unavailable, 30 * SECOND, 20, MIN_BYTES_UNSURE),
            (Transient, Duration::ZERO, 1, halves(1)),
            (Transient, Duration::ZERO, 20, MIN_BYTES),
            (Permanent, Duration::ZERO, 3, halves(3)),
        ] {
            let (mut size, now) = (ReadSize::default(), Instant::now());
            (0..times).for_each(|_| size.failed(class, took, now));
            assert_eq!(
                size.budget(4_096, usize::MAX).bytes,
                expected,
                "{class:?} after {took:?}, {times} times"
            );
        }
    }

    #[test]
    fn no_read_is_larger_than_the_room_that_is_left() {
        let size = ReadSize { average: 1 << 20, ..ReadSize::default() };
        assert_eq!(size.budget(4_096, 3 << 20), Budget { bytes: 3 << 20, rows: 1 });
        assert_eq!(size.budget(0, 0), Budget { bytes: 1, rows: 1 });
    }
}
