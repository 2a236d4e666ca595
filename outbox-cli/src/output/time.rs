//! Instants and spans, for people.

use outbox_core::event::Timestamp;
use std::time::Duration;

/// Writes a span in its two largest units: `3 min`, `2 h 5 min`, `4 d`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let pair = |many: u64, unit: &str, few: u64, smaller: &str| match few {
        0 => format!("{many} {unit}"),
        few => format!("{many} {unit} {few} {smaller}"),
    };
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3_600 => pair(minutes, "min", seconds % 60, "s"),
        3_600..86_400 => pair(hours, "h", minutes, "min"),
        _ => pair(days, "d", hours, "h"),
    }
}

/// Writes how long ago an instant was.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        format!("in {}", span(at.since(now)))
    } else {
        format!("{} ago", span(now.since(at)))
    }
}

/// Writes an instant to the second, in UTC.
pub(crate) fn instant(at: Timestamp) -> String {
    let whole = Timestamp::from_micros(at.as_micros().div_euclid(1_000_000) * 1_000_000);
    whole.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_their_two_largest_units() {
        for (seconds, text) in [
            (0.25, "250 ms"),
            (1.9, "1 s"),
            (60.0, "1 min"),
            (125.0, "2 min 5 s"),
            (3_600.0, "1 h"),
            (7_500.0, "2 h 5 min"),
            (86_400.0, "1 d"),
            (90_000.0, "1 d 1 h"),
        ] {
            assert_eq!(span(Duration::from_secs_f64(seconds)), text);
        }
    }

    #[test]
    fn instants_are_before_or_after_now() {
        let now = Timestamp::from_micros(1_700_000_000_500_000);
        assert_eq!(ago(Timestamp::from_micros(1_699_999_940_500_000), now), "1 min ago");
        assert_eq!(ago(Timestamp::from_micros(1_700_000_060_500_000), now), "in 1 min");
        assert_eq!(instant(now), "2023-11-14T22:13:20Z");
    }
}
