//! The retry policy: pure arithmetic.

use std::{fmt, str::FromStr, time::Duration};

/// How often and how long a message is retried after transient failures.
///
/// The default is a route's: 1 s doubling to 5 min, full jitter, given up 24 h after the first
/// counted failure.
///
/// ```
/// # use outbox_core::failure::RetryPolicy;
/// # use std::time::Duration;
/// let policy = RetryPolicy::default()
///     .backoff(Duration::from_millis(200))
///     .factor(3.0)
///     .max_backoff(Duration::from_secs(5))
///     .give_up_after(Duration::from_hours(2));
/// assert_eq!(policy.wait_after(2), Duration::from_millis(600));
/// assert_eq!(policy.wait_after(9), Duration::from_secs(5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Attempts in all, the first included, from 1; `None` for no limit.
    pub max_attempts: Option<u32>,
    /// Wait before the second attempt.
    pub backoff: Duration,
    /// What each further wait is multiplied by, from 1.
    pub factor: f64,
    /// Longest wait.
    pub max_backoff: Duration,
    /// Give up when failures have been counted for this long, time with the breaker open not
    /// counted; `None` for never.
    pub give_up_after: Option<Duration>,
}

/// The decision of a policy after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Retry after a wait of up to this (the caller adds jitter).
    RetryWithin(Duration),
    /// Give up.
    GiveUp,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: None,
            backoff: Duration::from_secs(1),
            factor: 2.0,
            max_backoff: Duration::from_mins(5),
            give_up_after: Some(Duration::from_hours(24)),
        }
    }
}

impl RetryPolicy {
    /// A fixed number of attempts with the given first wait, doubling, at most 5 min apart.
    ///
    /// ```
    /// # use outbox_core::failure::RetryPolicy;
    /// # use std::time::Duration;
    /// let three = RetryPolicy::attempts(3, Duration::from_secs(1));
    /// assert_eq!(three.longest(), Some(Duration::from_secs(1 + 2)));
    /// ```
    #[must_use]
    pub fn attempts(max_attempts: u32, backoff: Duration) -> Self {
        Self {
            max_attempts: Some(max_attempts.max(1)),
            backoff,
            give_up_after: None,
            ..Self::default()
        }
    }

    /// Sets the number of attempts, the first included; zero counts as one.
    #[must_use]
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.max_attempts = Some(max_attempts.max(1));
        self.give_up_after = None;
        self
    }

    /// Sets the wait before the second attempt.
    #[must_use]
    pub fn backoff(mut self, backoff: Duration) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets what each further wait is multiplied by; less than 1 counts as 1.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = if factor.is_finite() { factor.max(1.0) } else { 1.0 };
        self
    }

    /// Sets the longest wait.
    #[must_use]
    pub fn max_backoff(mut self, max_backoff: Duration) -> Self {
        self.max_backoff = max_backoff;
        self
    }

    /// Sets after how long to give up.
    #[must_use]
    pub fn give_up_after(mut self, after: Duration) -> Self {
        self.give_up_after = Some(after);
        self
    }

    /// Never gives up.
    ///
    /// ```
    /// # use outbox_core::failure::RetryPolicy;
    /// assert_eq!(RetryPolicy::default().endless().longest(), None);
    /// ```
    #[must_use]
    pub fn endless(mut self) -> Self {
        self.max_attempts = None;
        self.give_up_after = None;
        self
    }

    /// Decides after a counted failure.
    ///
    /// `attempts` counts those finished, the failed one included; `failing_for` is how long
    /// failures have been counted.
    ///
    /// ```
    /// # use outbox_core::failure::{Decision, RetryPolicy};
    /// # use std::time::Duration;
    /// let policy = RetryPolicy::attempts(3, Duration::from_secs(1));
    /// let failing_for = Duration::from_secs(2);
    /// assert_eq!(policy.decide(1, failing_for), Decision::RetryWithin(Duration::from_secs(1)));
    /// assert_eq!(policy.decide(3, failing_for), Decision::GiveUp);
    /// ```
    #[must_use]
    pub fn decide(&self, attempts: u32, failing_for: Duration) -> Decision {
        if self.max_attempts.is_some_and(|max| attempts >= max)
            || self.give_up_after.is_some_and(|limit| failing_for >= limit)
        {
            return Decision::GiveUp;
        }
        Decision::RetryWithin(self.wait_after(attempts))
    }

    /// Gives the wait after the given number of finished attempts, without jitter.
    #[must_use]
    pub fn wait_after(&self, attempts: u32) -> Duration {
        let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.backoff.as_secs_f64() * self.factor.powi(exponent);
        if seconds.is_finite() && seconds < self.max_backoff.as_secs_f64() {
            Duration::from_secs_f64(seconds)
        } else {
            self.max_backoff
        }
    }

    /// Gives the longest time from the first attempt to the last, waits only; `None` when there is
    /// no end.
    #[must_use]
    pub fn longest(&self) -> Option<Duration> {
        match (self.max_attempts, self.give_up_after) {
            (Some(n), limit) => {
                // Past this many doublings every wait is the longest one.
                let counted = n.saturating_sub(1).min(256);
                let sum: Duration = (1..=counted).map(|a| self.wait_after(a)).sum();
                let rest = self.max_backoff.saturating_mul(n.saturating_sub(1) - counted);
                let all = sum.saturating_add(rest);
                Some(limit.map_or(all, |l| all.min(l.saturating_add(self.max_backoff))))
            }
            (None, Some(limit)) => Some(limit.saturating_add(self.max_backoff)),
            (None, None) => None,
        }
    }
}

impl fmt::Display for RetryPolicy {
    /// Writes the compact form that is stored with an event, such as `3;1000;2;2000;-`
    /// (milliseconds).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max_attempts {
            Some(n) => write!(f, "{n}")?,
            None => f.write_str("-")?,
        }
        write!(
            f,
            ";{};{};{};",
            self.backoff.as_millis(),
            self.factor,
            self.max_backoff.as_millis()
        )?;
        match self.give_up_after {
            Some(d) => write!(f, "{}", d.as_millis()),
            None => f.write_str("-"),
        }
    }
}

impl FromStr for RetryPolicy {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        fn number<T: FromStr>(part: Option<&str>) -> Result<T, ()> {
            part.ok_or(())?.parse().map_err(|_| ())
        }
        let mut parts = s.split(';');
        let max_attempts = match parts.next().ok_or(())? {
            "-" => None,
            n => Some(n.parse::<u32>().map_err(|_| ())?.max(1)),
        };
        let backoff = Duration::from_millis(number(parts.next())?);
        let factor: f64 = number(parts.next())?;
        let max_backoff = Duration::from_millis(number(parts.next())?);
        let give_up_after = match parts.next().ok_or(())? {
            "-" => None,
            n => Some(Duration::from_millis(n.parse().map_err(|_| ())?)),
        };
        if parts.next().is_some() || !factor.is_finite() || factor < 1.0 {
            return Err(());
        }
        Ok(Self { max_attempts, backoff, factor, max_backoff, give_up_after })
    }
}

/// Gives the wait after so many failures of a broker or a database in a row: 100 ms doubling to
/// 5 s, without end.
pub(crate) fn backoff(failures: u32) -> Duration {
    let policy = RetryPolicy::default()
        .backoff(Duration::from_millis(100))
        .max_backoff(Duration::from_secs(5));
    policy.wait_after(failures.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let policy = RetryPolicy::default();
        let seconds: Vec<u64> = [1, 2, 3, 8, 9, 10, 1_000_000]
            .iter()
            .map(|&a| policy.wait_after(a).as_secs())
            .collect();
        assert_eq!(seconds, [1, 2, 4, 128, 256, 300, 300]);
    }

    #[test]
    fn gives_up_at_the_limits_and_not_before() {
        let three = RetryPolicy::attempts(3, Duration::from_secs(1));
        assert_eq!(three.decide(2, Duration::MAX), Decision::RetryWithin(Duration::from_secs(2)));
        assert_eq!(three.decide(3, Duration::ZERO), Decision::GiveUp);
        let day = RetryPolicy::default();
        assert_eq!(day.decide(9_999, Duration::from_hours(24)), Decision::GiveUp);
        assert!(matches!(day.decide(9_999, Duration::from_hours(23)), Decision::RetryWithin(_)));
        assert!(matches!(day.endless().decide(u32::MAX, Duration::MAX), Decision::RetryWithin(_)));
    }

    proptest! {
        #[test]
        fn the_stored_form_reads_back(n in proptest::option::of(1u32..), b in 0u64..1 << 40, f in 1.0f64..100.0, m in 0u64..1 << 40, g in proptest::option::of(0u64..1 << 40)) {
            let policy = RetryPolicy { max_attempts: n, backoff: Duration::from_millis(b), factor: f, max_backoff: Duration::from_millis(m), give_up_after: g.map(Duration::from_millis) };
            prop_assert_eq!(policy.to_string().parse::<RetryPolicy>(), Ok(policy));
        }

        #[test]
        fn any_text_is_a_policy_or_an_error(s in "\\PC{0,40}") {
            let _ = s.parse::<RetryPolicy>();
        }
    }
}
