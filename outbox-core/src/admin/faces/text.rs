//! How the operator's faces write what strangers wrote, and times.

use crate::event::{PayloadEncoding, Timestamp};
use std::{fmt::Write, time::Duration};

/// Longest name of codec and key as shown, in characters: a stranger may have written them.
const LONGEST_ENCODING: usize = 240;

/// Writes control characters and characters that change the direction of text as escapes, so that a
/// terminal or a page shows them and does not obey them.
///
/// ```
/// # use outbox_core::admin::shown_text;
/// assert_eq!(shown_text("\x1b[2J"), "\\u{1b}[2J");
/// assert_eq!(shown_text("abc\u{202e}fdp.exe"), "abc\\u{202e}fdp.exe");
/// ```
///
/// # Source
/// Unicode Technical Report 36, section 2.3, on marks of direction.
#[must_use]
pub fn shown_text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            c if c.is_control() || is_unseen(c) => {
                // Writing into a string does not fail.
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    shown
}

/// Tells whether a character is invisible or changes the order in which others are shown.
#[must_use]
pub fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Shows a text in at most so many characters, with [`shown_text`]; what is cut is marked by an
/// ellipsis.
#[must_use]
pub fn cut_text(text: &str, most: usize) -> String {
    // A character is shown by ten at most, so that an endless text is not escaped whole.
    let read = text.char_indices().nth(most + 1).map_or(text.len(), |(end, _)| end);
    let shown = shown_text(&text[..read]);
    if read == text.len() && shown.chars().count() <= most {
        return shown;
    }
    let mut cut: String = shown.chars().take(most.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Says in place of a content that a payload codec has encoded it, and who can read it.
///
/// ```
/// # use outbox_core::{admin::encoded_text, event::Message};
/// # fn example(message: &Message) {
/// match message.encoding() {
///     Some(encoding) => println!("{}", encoded_text(encoding)),
///     None => println!("{}", String::from_utf8_lossy(&message.payload)),
/// }
/// # }
/// ```
#[must_use]
pub fn encoded_text(encoding: PayloadEncoding<'_>) -> String {
    format!(
        "It is encoded by {}: only a service that has both reads it. A try of its handler, in that service, decodes it.",
        cut_text(&encoding.to_string(), LONGEST_ENCODING)
    )
}

/// Writes as escapes of JSON what a terminal would obey, or a page would not show, inside of the texts
/// of a document. The document means the same.
///
/// ```
/// # use outbox_core::admin::escaped_json;
/// assert_eq!(escaped_json("{\"a\":\"b\u{202e}c\"}"), "{\"a\":\"b\\u202ec\"}");
/// ```
#[must_use]
pub fn escaped_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if (c.is_control() && c != '\n') || is_unseen(c) {
            // All of these have four digits. Writing into a string does not fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Writes a span in its two largest units: `3 min`, `2 h 5 min`, `4 d`.
#[must_use]
pub fn span_text(span: Duration) -> String {
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

/// Writes how long before or after now an instant is: `3 min ago`, `in 3 min`.
#[must_use]
pub fn ago_text(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        format!("in {}", span_text(at.since(now)))
    } else {
        format!("{} ago", span_text(now.since(at)))
    }
}

/// Writes an instant to the second, in UTC.
#[must_use]
pub fn instant_text(at: Timestamp) -> String {
    let whole = Timestamp::from_micros(at.as_micros().div_euclid(1_000_000) * 1_000_000);
    whole.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_wrote_is_shown_and_not_obeyed() {
        for (text, safe) in [
            ("orders/7", "orders/7"),
            ("\x1b[2J\x1b]0;owned\x07", "\\u{1b}[2J\\u{1b}]0;owned\\u{7}"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("abc\u{202e}fdp.exe", "abc\\u{202e}fdp.exe"),
            ("grün 7 €", "grün 7 €"),
        ] {
            assert_eq!(shown_text(text), safe);
        }
    }

    #[test]
    fn a_long_text_is_cut_by_characters_and_marked() {
        assert_eq!(cut_text("grüße", 5), "grüße");
        assert_eq!(cut_text("grüße an alle", 5), "grüß…");
        assert_eq!(cut_text("\x1b\x1b\x1b", 6), "\\u{1b…");
        assert_eq!(cut_text(&"x".repeat(1 << 20), 3), "xx…");
    }

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
            assert_eq!(span_text(Duration::from_secs_f64(seconds)), text);
        }
    }

    #[test]
    fn instants_are_before_or_after_now() {
        let now = Timestamp::from_micros(1_700_000_000_500_000);
        assert_eq!(ago_text(Timestamp::from_micros(1_699_999_940_500_000), now), "1 min ago");
        assert_eq!(ago_text(Timestamp::from_micros(1_700_000_060_500_000), now), "in 1 min");
        assert_eq!(instant_text(now), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn a_document_has_the_same_texts_and_nothing_that_a_terminal_obeys() {
        let value = serde_json::json!({ "a\u{9b}": ["\u{7f}\u{202e}\u{feff}", "grün \n €"] });
        let json = serde_json::to_string_pretty(&value).unwrap();
        let escaped = escaped_json(&json);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
        let obeyed = |c: char| (c.is_control() && c != '\n') || is_unseen(c);
        assert!(!escaped.contains(obeyed), "{escaped:?}");
    }
}
