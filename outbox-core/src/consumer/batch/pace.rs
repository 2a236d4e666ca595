//! How fast a handler is, and how many of its deliveries may share a transaction.

use super::{MAX_BATCH, SLOW};
use std::time::Duration;

/// Runs whose times are kept: few enough that a handler which becomes slow is noticed within a batch.
const RUNS: usize = 15;
/// Runs after which the median is known.
const KNOWN_AFTER: usize = 8;
/// Full batches without a failure after which twice as many deliveries share a transaction. A batch costs
/// about half of what single runs cost: so failures cost less than the batches between them save.
const BATCHES_TO_GROW: usize = 3;
/// Runs without a failure after which a handler that runs alone shares a transaction again.
const RUNS_TO_GROW: usize = 16;

/// The pace of one handler.
#[derive(Debug)]
pub(in crate::consumer) struct Pace {
    /// The times of the last runs, in a ring.
    times: [Duration; RUNS],
    runs: usize,
    median: Duration,
    /// How many deliveries may share a transaction, as far as failures decide it.
    limit: usize,
    /// Deliveries without a failure since the limit has changed.
    succeeded: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            times: [Duration::ZERO; RUNS],
            runs: 0,
            median: Duration::ZERO,
            limit: MAX_BATCH,
            succeeded: 0,
        }
    }
}

impl Pace {
    /// Gives the median time of the last runs.
    pub(in crate::consumer) const fn median(&self) -> Duration {
        self.median
    }

    /// Gives how many deliveries may share a transaction; one where the handler runs alone. An `eager`
    /// caller does not wait until the median is known.
    pub(in crate::consumer) fn limit(&self, eager: bool) -> usize {
        let is_known = self.runs >= KNOWN_AFTER;
        if eager || (is_known && self.median <= SLOW) { self.limit } else { 1 }
    }

    /// Notes how long a run took, whatever its outcome.
    pub(in crate::consumer) fn note_time(&mut self, took: Duration) {
        self.times[self.runs % RUNS] = took;
        self.runs += 1;
        let mut times = self.times;
        let known = &mut times[..self.runs.min(RUNS)];
        known.sort_unstable();
        self.median = known[known.len() / 2];
    }

    /// Notes a run in a transaction of its own.
    pub(in crate::consumer) fn note_alone(&mut self, succeeded: bool) {
        match (succeeded, self.limit) {
            (true, 1) => self.note_committed(1),
            (false, 1) => self.succeeded = 0,
            // What runs alone meanwhile says little of batches.
            _ => {}
        }
    }

    /// Notes a batch with so many of its deliveries that was committed.
    pub(in crate::consumer) fn note_committed(&mut self, deliveries: usize) {
        self.succeeded = self.succeeded.saturating_add(deliveries);
        if self.succeeded >= RUNS_TO_GROW.max(BATCHES_TO_GROW * self.limit) {
            (self.limit, self.succeeded) = ((2 * self.limit).min(MAX_BATCH), 0);
        }
    }

    /// Notes that a batch of so many deliveries was rolled back because of this handler, or that nobody knows
    /// because of which.
    pub(in crate::consumer) fn note_rolled_back(&mut self, deliveries: usize) {
        (self.limit, self.succeeded) = ((self.limit.min(deliveries) / 2).max(1), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(median: Duration) -> Pace {
        let mut pace = Pace::default();
        (0..KNOWN_AFTER).for_each(|_| pace.note_time(median));
        pace
    }

    #[test]
    fn a_handler_shares_a_transaction_when_its_median_is_known_to_be_short() {
        let ms = Duration::from_millis;
        for (times, expected) in [
            (vec![], 1),
            (vec![ms(1); KNOWN_AFTER - 1], 1),
            (vec![ms(1); KNOWN_AFTER], MAX_BATCH),
            (vec![ms(5); KNOWN_AFTER], MAX_BATCH),
            (vec![ms(6); KNOWN_AFTER], 1),
            // A few slow runs among many fast ones are no slow handler.
            ([vec![ms(900); 7], vec![ms(1); 8]].concat(), MAX_BATCH),
            ([vec![ms(900); 8], vec![ms(1); 7]].concat(), 1),
            // Only the last ones count, in both directions.
            ([vec![ms(1); 100], vec![ms(900); 8]].concat(), 1),
            ([vec![ms(900); 100], vec![ms(1); 8]].concat(), MAX_BATCH),
        ] {
            let mut pace = Pace::default();
            times.iter().for_each(|took| pace.note_time(*took));
            assert_eq!(pace.limit(false), expected, "{times:?}");
            assert_eq!(pace.limit(true), MAX_BATCH, "an eager one does not wait");
        }
    }

    #[test]
    fn each_failed_batch_halves_the_next_one_and_batches_without_failure_double_it() {
        let mut pace = known(Duration::from_millis(1));
        let mut limits = Vec::new();
        for _ in 0..8 {
            pace.note_rolled_back(MAX_BATCH);
            limits.push(pace.limit(false));
        }
        assert_eq!(limits, [32, 16, 8, 4, 2, 1, 1, 1]);
        for _ in 0..RUNS_TO_GROW - 1 {
            pace.note_alone(true);
        }
        assert_eq!(pace.limit(false), 1);
        pace.note_alone(true);
        assert_eq!(pace.limit(false), 2, "after sixteen runs without a failure");
        pace.note_alone(true);
        let mut batches = Vec::new();
        for limit in [2, 4, 8, 16, 32] {
            let mut n = 0;
            while pace.limit(false) == limit {
                pace.note_committed(limit);
                n += 1;
            }
            batches.push(n);
        }
        assert_eq!((batches, pace.limit(false)), (vec![8, 4, 3, 3, 3], MAX_BATCH));
    }

    #[test]
    fn a_small_batch_that_failed_halves_its_own_size() {
        let mut pace = known(Duration::from_millis(1));
        pace.note_rolled_back(6);
        assert_eq!(pace.limit(false), 3);
        let mut alone = known(Duration::from_millis(1));
        alone.note_rolled_back(2);
        for _ in 0..10 * RUNS_TO_GROW {
            (0..RUNS_TO_GROW - 1).for_each(|_| alone.note_alone(true));
            alone.note_alone(false);
            assert_eq!(alone.limit(false), 1, "with a failure in sixteen it stays alone");
        }
    }

    /// In units of a single run, with batches that cost 0.5 and 0.1 of it for each delivery.
    #[test]
    fn a_stream_of_failures_costs_at_most_a_tenth_more_than_single_runs() {
        for one_in in [1_u32, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233] {
            for share in [0.5, 0.65] {
                let (mut pace, mut cost, mut n) = (known(Duration::from_millis(1)), 0.0, 0_u32);
                const DELIVERIES: u32 = 20_000;
                // Irregular, so that the failures do not fall on the same place of each batch.
                let fails =
                    |n: u32| (n.wrapping_mul(2_654_435_761) % 1_000_003).is_multiple_of(one_in);
                while n < DELIVERIES {
                    let batch = u32::try_from(pace.limit(false)).expect("small");
                    let failed = (n..n + batch).filter(|n| fails(*n)).count();
                    n += batch;
                    if batch == 1 {
                        cost += 1.0;
                        pace.note_alone(failed == 0);
                        continue;
                    }
                    cost += share * f64::from(batch);
                    if failed == 0 {
                        pace.note_committed(batch as usize);
                    } else {
                        cost += f64::from(batch);
                        pace.note_rolled_back(batch as usize);
                    }
                }
                let ratio = cost / f64::from(n);
                assert!(ratio < 1.1, "one in {one_in} fails, {share}: {ratio:.2}");
            }
        }
    }
}
