//! Instants as the databases keep them.

use std::{fmt, time::Duration};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// An instant: microseconds since 1970-01-01 UTC. Always read off the database's clock.
///
/// ```
/// # use outbox_core::event::Timestamp;
/// # use std::time::Duration;
/// let placed: Timestamp = "2026-11-22T10:00:00Z".parse()?;
/// let paid: Timestamp = "2026-11-22T10:01:30Z".parse()?;
/// assert_eq!(paid.since(placed), Duration::from_secs(90));
/// assert_eq!(paid.to_string(), "2026-11-22T10:01:30Z");
/// # Ok::<(), outbox_core::event::NoInstant>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Wraps microseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Gives microseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Gives how much later this is than another, or zero.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Reads an RFC 3339 text such as `2026-11-22T10:00:00Z`.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(at.unix_timestamp_nanos() / 1_000).ok().map(Self)
    }

    /// Writes RFC 3339 in UTC; `None` outside the years 0 to 9999, which it cannot write.
    #[must_use]
    pub fn to_rfc3339(self) -> Option<String> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000)
            .ok()?
            .format(&Rfc3339)
            .ok()
    }
}

impl From<std::time::SystemTime> for Timestamp {
    /// Converts to microseconds; instants beyond the range become its ends.
    fn from(at: std::time::SystemTime) -> Self {
        Self(match at.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros)
            }
        })
    }
}

impl fmt::Display for Timestamp {
    /// Writes RFC 3339, in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_rfc3339() {
            Some(text) => f.write_str(&text),
            None => write!(f, "{} us", self.0),
        }
    }
}
