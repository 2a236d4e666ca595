//! The breaker of one route: pure, fed with instants.

use std::time::{Duration, Instant};

/// First pause after the breaker opened: short, as most outages are.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause between probes: how late a recovery is noticed at worst.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Longest pause while the destination answers, though it refuses: asking costs it little.
const LONGEST_REFUSED: Duration = Duration::from_secs(1);
/// Failures in a row that open it, though each alone speaks of its message only.
const RUN: u32 = 5;

/// Whether a route may publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// All goes.
    Closed,
    /// Nothing goes before the instant.
    Open {
        /// When a probe may go.
        until: Instant,
    },
    /// One probe is under way.
    Probing,
}

/// The breaker of one route.
///
/// It opens at once when the destination is down, and after five failures in a row over at least two keys without a
/// success between; then single probes go, with pauses that double.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: BreakerState,
    pause: Duration,
    /// Publishes that make one probe: one, unless the destination answers and refuses; then twice as many each time, so
    /// that a run of refused messages is soon passed.
    width: usize,
    run: u32,
    run_keys: [u64; 2],
    run_distinct: u8,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: BreakerState::Closed, pause: FIRST_PAUSE, width: 1, run: 0, run_keys: [0; 2], run_distinct: 0 }
    }
}

impl Breaker {
    /// Tells the state.
    #[must_use]
    pub const fn state(&self) -> BreakerState {
        self.state
    }

    /// Tells whether the route is not known to work.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !matches!(self.state, BreakerState::Closed)
    }

    /// Gives when a probe may go.
    #[must_use]
    pub const fn probe_at(&self) -> Option<Instant> {
        match self.state {
            BreakerState::Open { until } => Some(until),
            BreakerState::Closed | BreakerState::Probing => None,
        }
    }

    /// Tells how many publishes may start now: all (`None`), those of a probe, or none.
    #[must_use]
    pub fn allows(&self, now: Instant) -> Option<usize> {
        match self.state {
            BreakerState::Closed => None,
            BreakerState::Open { until } if now >= until => Some(self.width),
            BreakerState::Open { .. } | BreakerState::Probing => Some(0),
        }
    }

    /// Notes that a probe starts.
    pub fn probe_started(&mut self) {
        if let BreakerState::Open { .. } = self.state {
            self.state = BreakerState::Probing;
        }
    }

    /// Notes that a probe ended without saying anything of the destination (it was cancelled).
    pub fn probe_void(&mut self, now: Instant) {
        if self.state == BreakerState::Probing {
            self.state = BreakerState::Open { until: now };
        }
    }

    /// Notes a success: all goes.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Notes that the destination is down. `jitter` in 0..1 spreads the probes of many relays.
    pub fn unavailable(&mut self, now: Instant, jitter: f64) {
        self.open(false, now, jitter);
    }

    /// Notes a transient or permanent (`refused`) failure of one message; tells whether it opened (or kept open) the breaker, in
    /// which case the failures of the run speak of the destination and their attempts are given back.
    pub fn failed(&mut self, key: u64, refused: bool, now: Instant, jitter: f64) -> bool {
        if self.is_open() {
            self.open(refused, now, jitter);
            return true;
        }
        self.run += 1;
        match self.run_distinct {
            0 => (self.run_keys[0], self.run_distinct) = (key, 1),
            1 if self.run_keys[0] != key => (self.run_keys[1], self.run_distinct) = (key, 2),
            _ => {}
        }
        if self.run >= RUN && self.run_distinct >= 2 {
            self.open(refused, now, jitter);
            return true;
        }
        false
    }

    fn open(&mut self, refused: bool, now: Instant, jitter: f64) {
        // An outage that was just noticed by several publishes in flight at once is one outage.
        if let BreakerState::Open { until } = self.state
            && now < until
        {
            return;
        }
        let longest = if refused { LONGEST_REFUSED } else { LONGEST_PAUSE };
        self.pause = if self.is_open() { (self.pause * 2).min(longest) } else { FIRST_PAUSE };
        self.width = if refused { (self.width * 2).min(256) } else { 1 };
        self.state = BreakerState::Open { until: now + self.pause.mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0)) };
        (self.run, self.run_distinct) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a second of pause with no spread.
    const EVEN: f64 = 0.5;

    #[test]
    fn a_destination_that_is_down_opens_it_at_once_and_pauses_double() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        assert_eq!(breaker.allows(start), None);
        breaker.unavailable(start, EVEN);
        assert_eq!(breaker.allows(start), Some(0));
        let probe = start + FIRST_PAUSE;
        assert_eq!(breaker.allows(probe), Some(1));
        breaker.probe_started();
        assert_eq!(breaker.allows(probe), Some(0));
        breaker.unavailable(probe, EVEN);
        assert_eq!(breaker.probe_at(), Some(probe + FIRST_PAUSE * 2));
        breaker.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn one_outage_seen_by_many_publishes_is_one() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..100 {
            breaker.unavailable(start, EVEN);
        }
        assert_eq!(breaker.probe_at(), Some(start + FIRST_PAUSE));
    }

    #[test]
    fn five_failures_over_two_keys_open_it_but_not_of_one_key() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        assert!((0..50).all(|_| !breaker.failed(1, false, now, EVEN)));
        let mut breaker = Breaker::default();
        let opened: Vec<bool> = [1, 1, 1, 1, 2].map(|key| breaker.failed(key, false, now, EVEN)).to_vec();
        assert_eq!(opened, [false, false, false, false, true]);
    }

    #[test]
    fn a_success_between_ends_the_run() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for key in 0..100 {
            assert!(!breaker.failed(key, false, now, EVEN));
            if key % 4 == 3 {
                breaker.succeeded();
            }
        }
    }

    #[test]
    fn probes_widen_while_the_destination_refuses() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for key in 0..5 {
            breaker.failed(key, true, now, EVEN);
        }
        let mut widths = Vec::new();
        for _ in 0..9 {
            now = breaker.probe_at().expect("open");
            widths.push(breaker.allows(now).expect("open"));
            breaker.probe_started();
            breaker.failed(1, true, now, EVEN);
        }
        assert_eq!(widths, [2, 4, 8, 16, 32, 64, 128, 256, 256]);
    }
}
