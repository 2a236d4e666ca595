//! How much is read at once: rows and bytes. Pure.

use crate::failure::FailureClass;
use std::time::{Duration, Instant};

/// Bytes of payloads of one read at most, or one event: half a second at 16 MiB/s.
const READ_BYTES: usize = 8 << 20;
/// Reads get no smaller than this: a few small events.
const LEAST_BYTES: usize = 4 << 10;
/// Nor than this where the database may as well have been away.
const LEAST_UNSURE: usize = 64 << 10;
/// A read that fails within this time did not fail for its size: the database was not there.
const AT_ONCE: Duration = Duration::from_secs(1);
/// A payload's size before any was seen: most are smaller.
const USUAL: usize = 512;
/// For how long a size that failed is not reached again.
const REMEMBERED: Duration = Duration::from_mins(1);

/// How large reads are. They are halved when one fails, and grow again, past no size that failed a moment ago.
#[derive(Debug)]
pub(crate) struct ReadSize {
    bytes: usize,
    /// What failed, and when.
    failed: Option<(usize, Instant)>,
    /// Payload bytes of the rows that were read lately, each.
    average: usize,
}

/// What one read may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Payload bytes in all.
    pub(crate) bytes: usize,
    /// Rows in all, from 1.
    pub(crate) rows: usize,
}

impl Default for ReadSize {
    fn default() -> Self {
        Self { bytes: READ_BYTES, failed: None, average: USUAL }
    }
}

impl ReadSize {
    /// Gives what a read may take, of at most so many rows, with room for so many bytes.
    pub(crate) fn budget(&self, most_rows: usize, room: usize) -> Budget {
        let bytes = self.bytes.min(room).max(1);
        // A database that is slow is slow with small rows too.
        let slow = READ_BYTES / self.bytes.max(1);
        let rows = (bytes / (self.average * 2).max(1)).min(most_rows / slow.max(1));
        Budget { bytes, rows: rows.clamp(1, most_rows.max(1)) }
    }

    /// Notes a read of so many rows and payload bytes, those included that were left out.
    pub(crate) fn read(&mut self, rows: usize, bytes: usize, now: Instant) {
        if let Some(average) = bytes.checked_div(rows) {
            self.average = average.max(usize::midpoint(self.average, average)).max(1);
        }
        let fresh = self.failed.filter(|(_, at)| now.saturating_duration_since(*at) < REMEMBERED);
        let ceiling = fresh.map_or(READ_BYTES, |(failed, _)| failed / 4 * 3);
        self.bytes = (self.bytes + self.bytes / 4).min(ceiling).max(self.bytes.min(READ_BYTES));
    }

    /// Notes that a read failed, which took so long. It is made smaller, unless the database was away.
    pub(crate) fn failed(&mut self, class: FailureClass, took: Duration, now: Instant) {
        let least = match class {
            FailureClass::Unavailable if took < AT_ONCE => return,
            FailureClass::Unavailable => LEAST_UNSURE.min(self.bytes),
            FailureClass::Transient | FailureClass::Permanent => LEAST_BYTES,
        };
        self.failed = Some((self.bytes, now));
        self.bytes = (self.bytes / 2).max(least);
    }
}

impl Budget {
    /// Gives up to how many bytes a payload may be read where so many rows are.
    pub(crate) fn whole_up_to(self, rows: usize) -> u32 {
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
            assert!(budget.rows * budget.whole_up_to(budget.rows) as usize <= READ_BYTES);
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
            (Unavailable, 30 * SECOND, 20, LEAST_UNSURE),
            (Transient, Duration::ZERO, 1, halves(1)),
            (Transient, Duration::ZERO, 20, LEAST_BYTES),
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
