//! The breaker of one route: pure, fed with instants.

use std::time::{Duration, Instant};

/// First pause after the breaker opened: short, as most outages are.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause between probes: the longest delay until a recovery is noticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Pause before the next key is probed while the destination responds, though it rejects: a probe
/// costs it little.
const NEXT_KEY_PAUSE: Duration = Duration::from_millis(50);
/// Failures in a row that open the breaker, though each alone may be its message's.
const MAX_STREAK: u32 = 5;

/// Waiting keys at most for a new one to be probed before the pause ends.
const FEW_KEYS: usize = 2;

/// What a failure tells about the destination beside its class.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Failure {
    /// Whether the destination has responded.
    pub responded: bool,
    /// Keys that wait for the destination: the size of a round of probes.
    pub waiting: usize,
    /// From 0 to 1: spreads the probes of many relays.
    pub jitter: f64,
}

/// Whether a route may publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Publishes start freely.
    Closed,
    /// No publish starts before the instant.
    Open {
        /// When a probe may start.
        until: Instant,
    },
    /// One probe is under way.
    Probing,
}

/// The breaker of one route.
///
/// It opens at once when the destination is down, and after five failures in a row over at least
/// two keys without a success between; then single probes start, with pauses that double. If the
/// destination answers its probes, though it rejects each, the keys are probed one after the other
/// at once, and the pause grows only after a round of all of them.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: BreakerState,
    /// The instant at which it opened.
    opened_at: Option<Instant>,
    pause: Duration,
    /// Keys that are still to be probed before the pause grows.
    probe_size: usize,
    /// Whether the destination responded at the last failure.
    responds: bool,
    /// Failures in a row, and up to two keys of them.
    failure_streak: u32,
    streak_keys: [u64; 2],
    distinct_keys: u8,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: BreakerState::Closed,
            opened_at: None,
            pause: FIRST_PAUSE,
            probe_size: 0,
            responds: false,
            failure_streak: 0,
            streak_keys: [0; 2],
            distinct_keys: 0,
        }
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

    /// Gives when it opened; `None` while it is closed.
    #[must_use]
    pub const fn opened_at(&self) -> Option<Instant> {
        self.opened_at
    }

    /// Gives when a probe may start.
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
            BreakerState::Open { until } if now >= until => Some(1),
            BreakerState::Open { .. } | BreakerState::Probing => Some(0),
        }
    }

    /// Notes that a probe starts.
    pub fn probe_started(&mut self) {
        if let BreakerState::Open { .. } = self.state {
            self.state = BreakerState::Probing;
        }
    }

    /// Notes that a probe ended without an outcome (it was cancelled).
    pub fn probe_inconclusive(&mut self, now: Instant) {
        if self.state == BreakerState::Probing {
            self.state = BreakerState::Open { until: now };
        }
    }

    /// Notes a success: the breaker closes.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Notes that the destination is down.
    pub fn unavailable(&mut self, failure: Failure, now: Instant) {
        self.open(failure, now);
    }

    /// Notes a transient or permanent failure of one message; tells whether it opened (or kept
    /// open) the breaker, in which case the failures of the streak are the destination's, and their
    /// attempts are refunded.
    pub fn failed(&mut self, key: u64, failure: Failure, now: Instant) -> bool {
        if self.is_open() {
            self.open(failure, now);
            return true;
        }
        self.failure_streak += 1;
        match self.distinct_keys {
            0 => (self.streak_keys[0], self.distinct_keys) = (key, 1),
            1 if self.streak_keys[0] != key => {
                (self.streak_keys[1], self.distinct_keys) = (key, 2);
            }
            _ => {}
        }
        if self.failure_streak >= MAX_STREAK && self.distinct_keys >= 2 {
            self.open(failure, now);
            return true;
        }
        false
    }

    /// Notes a key that was not tried yet: it is probed soon if only rejections of a few other keys
    /// keep the breaker open; `waiting` keys wait in all.
    pub fn new_key(&mut self, waiting: usize, now: Instant) {
        if let BreakerState::Open { until } = self.state
            && self.responds
            && waiting <= FEW_KEYS
        {
            self.state = BreakerState::Open { until: until.min(now + NEXT_KEY_PAUSE) };
            self.probe_size = self.probe_size.max(waiting);
        }
    }

    fn open(&mut self, failure: Failure, now: Instant) {
        // An outage that was just noticed by several publishes in flight at once is one outage.
        if let BreakerState::Open { until } = self.state
            && now < until
        {
            return;
        }
        let Failure { responded, waiting, jitter } = failure;
        let was_open = self.is_open();
        if !was_open || (responded && !self.responds) {
            self.probe_size = waiting.max(1) + 1;
        }
        self.responds = responded;
        self.probe_size = self.probe_size.saturating_sub(1);
        let pause = if responded && self.probe_size > 0 {
            NEXT_KEY_PAUSE
        } else {
            self.probe_size = waiting.max(1);
            self.pause = if was_open { (self.pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
            self.pause.mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0))
        };
        self.state = BreakerState::Open { until: now + pause };
        self.opened_at.get_or_insert(now);
        (self.failure_streak, self.distinct_keys) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a second of pause with no spread, of a destination that does not respond.
    const SILENT: Failure = Failure { responded: false, waiting: 10, jitter: 0.5 };

    #[test]
    fn a_destination_that_is_down_opens_it_at_once_and_pauses_double() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        assert_eq!(breaker.allows(start), None);
        breaker.unavailable(SILENT, start);
        assert_eq!(breaker.allows(start), Some(0));
        let probe = start + FIRST_PAUSE;
        assert_eq!(breaker.allows(probe), Some(1));
        breaker.probe_started();
        assert_eq!(breaker.allows(probe), Some(0));
        breaker.unavailable(SILENT, probe);
        assert_eq!(breaker.probe_at(), Some(probe + FIRST_PAUSE * 2));
        assert_eq!(breaker.opened_at(), Some(start));
        breaker.succeeded();
        assert_eq!((breaker.state(), breaker.opened_at()), (BreakerState::Closed, None));
    }

    #[test]
    fn one_outage_seen_by_many_publishes_is_one() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..100 {
            breaker.unavailable(SILENT, start);
        }
        assert_eq!(breaker.probe_at(), Some(start + FIRST_PAUSE));
    }

    #[test]
    fn five_failures_over_two_keys_open_it_but_not_of_one_key() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        assert!((0..50).all(|_| !breaker.failed(1, SILENT, now)));
        let mut breaker = Breaker::default();
        let opened: Vec<bool> =
            [1, 1, 1, 1, 2].map(|key| breaker.failed(key, SILENT, now)).to_vec();
        assert_eq!(opened, [false, false, false, false, true]);
    }

    #[test]
    fn a_success_ends_the_failure_streak() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for key in 0..100 {
            assert!(!breaker.failed(key, SILENT, now));
            if key % 4 == 3 {
                breaker.succeeded();
            }
        }
    }

    /// Probes until a pause grows, and gives the pauses.
    fn pauses(breaker: &mut Breaker, mut now: Instant, waiting: usize, probes: usize) -> Vec<u128> {
        let rejected = Failure { responded: true, waiting, jitter: 0.5 };
        let mut pauses = Vec::new();
        for _ in 0..probes {
            let at = breaker.probe_at().expect("open");
            pauses.push(at.saturating_duration_since(now).as_millis());
            now = at;
            assert_eq!(breaker.allows(now), Some(1));
            breaker.probe_started();
            breaker.failed(1, rejected, now);
        }
        pauses
    }

    #[test]
    fn a_destination_that_rejects_is_probed_with_each_key_before_the_pause_grows() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for key in 0..5 {
            breaker.failed(key, Failure { responded: true, waiting: 3, jitter: 0.5 }, now);
        }
        assert_eq!(
            pauses(&mut breaker, now, 3, 11),
            [50, 50, 50, 1_000, 50, 50, 2_000, 50, 50, 4_000, 50]
        );
    }

    #[test]
    fn a_new_key_is_probed_soon_where_only_a_few_are_rejected() {
        let now = Instant::now();
        for (responded, waiting, soon) in [(true, 2, true), (true, 3, false), (false, 2, false)] {
            let mut breaker = Breaker::default();
            breaker.unavailable(Failure { responded, waiting: 1, jitter: 0.5 }, now);
            let mut at = now;
            for _ in 0..4 {
                at = breaker.probe_at().expect("open");
                breaker.probe_started();
                breaker.unavailable(Failure { responded, waiting: 1, jitter: 0.5 }, at);
            }
            breaker.new_key(waiting, at);
            let wait = breaker.probe_at().expect("open").saturating_duration_since(at);
            assert_eq!(wait == NEXT_KEY_PAUSE, soon, "{responded} {waiting}: {wait:?}");
        }
    }
}
