//! The rate limit of one route: a token bucket of one second's worth of events. Pure, fed with
//! instants.

use std::time::{Duration, Instant};

/// The burst after a time without events.
const BURST: Duration = Duration::from_secs(1);
/// Longest time for one event.
const LONGEST_INTERVAL: Duration = Duration::from_hours(24);

/// A token bucket. Instead of a number of tokens it keeps the instant at which it is full, so that
/// its arithmetic is that of whole nanoseconds.
///
/// # Source
/// ITU-T I.371, generic cell rate algorithm, as virtual scheduling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenBucket {
    /// The time in which a token comes.
    interval: Duration,
    /// The time in which an empty bucket is full.
    window: Duration,
    full_at: Instant,
}

impl TokenBucket {
    /// Makes a bucket with one token, so that the rate holds from its first second on.
    pub(super) fn new(rate: f64, now: Instant) -> Self {
        let interval = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(LONGEST_INTERVAL);
        let interval = interval.clamp(Duration::from_nanos(1), LONGEST_INTERVAL);
        let window = interval.max(BURST);
        Self { interval, window, full_at: now + (window - interval) }
    }

    /// Gives the tokens that are there.
    pub(super) fn tokens(&self, now: Instant) -> usize {
        let filled = (now + self.window).saturating_duration_since(self.full_at.max(now));
        usize::try_from(filled.as_nanos() / self.interval.as_nanos()).unwrap_or(usize::MAX)
    }

    /// Takes tokens that are there.
    pub(super) fn take(&mut self, tokens: usize, now: Instant) {
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        self.full_at = self.full_at.max(now) + self.interval.saturating_mul(tokens);
    }

    /// Gives the instant from which on there is a token, which may have passed.
    pub(super) fn refill_at(&self) -> Instant {
        let one = self.full_at + self.interval;
        one.checked_sub(self.window).unwrap_or(self.full_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn tokens_come_at_the_rate_up_to_a_second_s_worth() {
        let start = Instant::now();
        for (rate, after, tokens) in [
            (100.0, 0, 1),
            (100.0, 9, 1),
            (100.0, 10, 2),
            (100.0, 500, 51),
            (100.0, 60_000, 100),
            (2.5, 399, 1),
            (2.5, 400, 2),
            (2.5, 60_000, 2),
            (0.5, 0, 1),
            (0.5, 60_000, 1),
        ] {
            let bucket = TokenBucket::new(rate, start);
            assert_eq!(bucket.tokens(start + MS * after), tokens, "{rate}/s after {after} ms");
        }
    }

    #[test]
    fn an_empty_bucket_has_a_token_again_exactly_when_it_says() {
        let start = Instant::now();
        for rate in [0.001, 0.3, 1.0, 3.0, 7.0, 100.0, 997.0, 1e6, 1e9] {
            let (mut bucket, mut now) = (TokenBucket::new(rate, start), start);
            for step in 0..100 {
                bucket.take(bucket.tokens(now), now);
                let at = bucket.refill_at();
                assert!(at > now, "{rate}/s, step {step}: it would be asked without end");
                assert_eq!(bucket.tokens(at - Duration::from_nanos(1)), 0, "{rate}/s, {step}");
                assert_eq!(bucket.tokens(at), 1, "{rate}/s, step {step}");
                now = at + MS * (step % 3);
            }
        }
    }

    #[test]
    fn whoever_takes_all_that_is_there_takes_no_more_than_the_rate() {
        let start = Instant::now();
        let (mut bucket, mut taken) = (TokenBucket::new(100.0, start), 0);
        for step in 0..=3_000 {
            let now = start + MS * step;
            let tokens = bucket.tokens(now);
            bucket.take(tokens, now);
            taken += tokens;
        }
        assert_eq!(taken, 301, "in three seconds");
    }
}
