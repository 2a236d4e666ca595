//! How long deliveries took, as counts by time: what several relays counted can be added up, which
//! percentiles cannot. Pure.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Numbers of a [`HandoverTimes`]: one for each bound, and one for what took longer than the last.
const NUMBERS: usize = HandoverTimes::BOUNDS_MS.len() + 1;

/// Delivered events by the time from handing them to the publisher until their confirmation reached
/// the relay: a count for each of [`BOUNDS_MS`](Self::BOUNDS_MS), and one for longer times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HandoverTimes(Vec<u64>);

impl HandoverTimes {
    /// The longest times of the counts, in milliseconds.
    pub const BOUNDS_MS: [u64; 15] =
        [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000];

    /// Counts events that took a time.
    pub fn record(&mut self, time: Duration, events: u64) {
        let is_below = |bound: &u64| Duration::from_millis(*bound) < time;
        let number = Self::BOUNDS_MS.partition_point(is_below);
        if self.0.len() <= number {
            self.0.resize(number + 1, 0);
        }
        self.0[number] += events;
    }

    /// Adds the counts of another one.
    pub fn add(&mut self, other: &Self) {
        // A row that somebody else wrote may have any length.
        let counts = other.0.len().min(NUMBERS);
        self.0.resize(self.0.len().max(counts), 0);
        for (sum, count) in self.0.iter_mut().zip(&other.0) {
            *sum = sum.saturating_add(*count);
        }
    }

    /// Gives what was counted since an earlier state.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |number: usize| earlier.0.get(number).copied().unwrap_or_default();
        let counts = self.0.iter().take(NUMBERS).enumerate();
        Self(counts.map(|(number, count)| count.saturating_sub(before(number))).collect())
    }

    /// Tells whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|count| *count == 0)
    }

    /// Gives the time, in milliseconds, that so many of a thousand events did not exceed; `None` if
    /// nothing was counted. Between two bounds the events count as spread evenly; beyond the last
    /// one it is the last one.
    ///
    /// ```
    /// # use outbox_core::admin::HandoverTimes;
    /// # use std::time::Duration;
    /// let mut times = HandoverTimes::default();
    /// times.record(Duration::from_millis(4), 98);
    /// times.record(Duration::from_millis(700), 2);
    /// assert_eq!((times.percentile(500), times.percentile(990)), (Some(4), Some(750)));
    /// ```
    #[must_use]
    pub fn percentile(&self, of_thousand: u32) -> Option<u64> {
        let counts = self.0.iter().take(NUMBERS);
        let total: u128 = counts.clone().map(|count| u128::from(*count)).sum();
        if total == 0 {
            return None;
        }
        let rank = (total * u128::from(of_thousand.min(1_000))).div_ceil(1_000).max(1);
        let (mut below, mut from) = (0_u128, 0_u64);
        for (count, bound) in counts.zip(Self::BOUNDS_MS) {
            let count = u128::from(*count);
            if below + count >= rank {
                let share = (u128::from(bound - from) * (rank - below)).div_ceil(count);
                return Some(from + u64::try_from(share).unwrap_or(bound - from));
            }
            (below, from) = (below + count, bound);
        }
        Some(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(counts: &[(u64, u64)]) -> HandoverTimes {
        let mut times = HandoverTimes::default();
        counts.iter().for_each(|(ms, n)| times.record(Duration::from_millis(*ms), *n));
        times
    }

    #[test]
    fn a_percentile_lies_between_the_bounds_of_the_events_at_its_rank() {
        for (counts, p50, p99) in [
            (&[][..], None, None),
            (&[(0, 1)], Some(1), Some(1)),
            (&[(10, 100)], Some(8), Some(10)),
            (&[(11, 100)], Some(15), Some(20)),
            (&[(1, 50), (2_000, 50)], Some(1), Some(1_980)),
            (&[(90_000, 10)], Some(60_000), Some(60_000)),
        ] {
            let times = times(counts);
            assert_eq!((times.percentile(500), times.percentile(990)), (p50, p99), "{counts:?}");
            assert_eq!(times.is_empty(), p50.is_none());
        }
    }

    #[test]
    fn counts_of_two_relays_are_added_and_former_ones_taken_away() {
        let mut sum = times(&[(1, 3)]);
        sum.add(&times(&[(1, 1), (60_000, 2)]));
        assert_eq!(sum, times(&[(1, 4), (60_000, 2)]));
        let since = sum.since(&times(&[(1, 3), (60_000, 2)]));
        assert_eq!((since.percentile(1_000), since.is_empty()), (Some(1), false));
        // Counters that began anew count as they are, and never below zero.
        assert!(times(&[(1, 1)]).since(&times(&[(1, 5)])).is_empty());
    }

    #[test]
    fn a_row_with_more_counts_than_there_are_bounds_is_cut() {
        let strange: HandoverTimes = serde_json::from_str(&format!("{:?}", [1; 1_000])).unwrap();
        let mut sum = HandoverTimes::default();
        sum.add(&strange);
        assert_eq!(sum, strange.since(&HandoverTimes::default()));
        assert_eq!(sum.0.len(), NUMBERS);
        assert_eq!(strange.percentile(1_000), Some(60_000));
    }
}
