//! Other forms of instants: the text for serde, and the types of the crates `time` and `chrono`.

use super::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::str::FromStr;

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A text that is no instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an instant is written as RFC 3339 says: 2026-11-22T10:00:00Z")]
pub struct NoInstant;

impl FromStr for Timestamp {
    type Err = NoInstant;

    /// Reads RFC 3339, and what an instant beyond its years is shown as.
    fn from_str(text: &str) -> Result<Self, NoInstant> {
        let beyond = || {
            text.strip_suffix(" us").and_then(|micros| micros.parse().ok()).map(Self::from_micros)
        };
        Self::parse_rfc3339(text).or_else(beyond).ok_or(NoInstant)
    }
}

#[cfg(feature = "time")]
impl From<time::OffsetDateTime> for Timestamp {
    /// Converts to whole microseconds.
    fn from(at: time::OffsetDateTime) -> Self {
        // A year has five digits at most there, which microseconds hold.
        Self::from_micros(
            i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000)).unwrap_or(i64::MAX),
        )
    }
}

#[cfg(feature = "time")]
impl TryFrom<Timestamp> for time::OffsetDateTime {
    type Error = time::error::ComponentRange;

    /// Converts to UTC; fails outside the years that the type has.
    fn try_from(at: Timestamp) -> Result<Self, Self::Error> {
        Self::from_unix_timestamp_nanos(i128::from(at.as_micros()) * 1_000)
    }
}

#[cfg(feature = "chrono")]
impl From<chrono::DateTime<chrono::Utc>> for Timestamp {
    /// Converts to whole microseconds.
    fn from(at: chrono::DateTime<chrono::Utc>) -> Self {
        Self::from_micros(at.timestamp_micros())
    }
}

#[cfg(feature = "chrono")]
impl TryFrom<Timestamp> for chrono::DateTime<chrono::Utc> {
    type Error = NoInstant;

    /// Converts; fails outside the years that the type has.
    fn try_from(at: Timestamp) -> Result<Self, NoInstant> {
        Self::from_timestamp_micros(at.as_micros()).ok_or(NoInstant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_a_text_that_reads_back() {
        for (micros, text) in [
            (1_700_000_000_123_456, "2023-11-14T22:13:20.123456Z"),
            (0, "1970-01-01T00:00:00Z"),
            (i64::MAX, "9223372036854775807 us"),
        ] {
            let json = serde_json::to_string(&Timestamp::from_micros(micros)).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap().as_micros(), micros);
        }
        for none in ["", "yesterday", "2023-11-14", "7"] {
            assert_eq!(none.parse::<Timestamp>(), Err(NoInstant), "{none}");
        }
    }

    #[cfg(all(feature = "time", feature = "chrono"))]
    #[test]
    fn instants_are_those_of_time_and_chrono_to_the_microsecond() {
        for micros in [0, -1, 1_700_000_000_123_456, -62_135_596_800_000_000] {
            let at = Timestamp::from_micros(micros);
            assert_eq!(Timestamp::from(time::OffsetDateTime::try_from(at).unwrap()), at);
            assert_eq!(Timestamp::from(chrono::DateTime::try_from(at).unwrap()), at);
        }
        let beyond = Timestamp::from_micros(i64::MAX);
        assert!(
            time::OffsetDateTime::try_from(beyond).is_err()
                && chrono::DateTime::try_from(beyond).is_err()
        );
    }
}
