//! How sentences write texts, instants, spans and names.

use crate::{admin::Control, event::Timestamp};
use std::time::Duration;

/// Longest error in a sentence, in bytes: a status line and a cause.
const LONGEST_ERROR: usize = 200;
/// Longest name or key in a sentence, in bytes: the longest that is stored.
const LONGEST_NAME: usize = 255;

/// Writes a stored text for a terminal, a page or a log: control characters and marks that change
/// the direction of writing become spaces, and a text of more than `longest` bytes is cut at a
/// character, with `..` in place of the rest.
///
/// # Source
/// Unicode Technical Report 36, section 2.3, on marks of direction.
#[must_use]
pub fn safe_text(text: &str, longest: usize) -> String {
    let is_unsafe = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len().min(longest) + 2);
    for c in text.chars() {
        if shown.len() + c.len_utf8() > longest {
            shown.push_str("..");
            break;
        }
        shown.push(if is_unsafe(c) { ' ' } else { c });
    }
    shown
}

/// Writes a name.
pub(super) fn name(text: &str) -> String {
    safe_text(text, LONGEST_NAME)
}

/// Writes an error.
pub(super) fn error(text: &str) -> String {
    safe_text(text.trim(), LONGEST_ERROR)
}

/// Writes an error in parentheses, with a space before; nothing where there is none.
pub(super) fn because(text: Option<&str>) -> String {
    text.map(error).filter(|text| !text.is_empty()).map_or_else(String::new, |e| format!(" ({e})"))
}

/// Writes an error behind a colon; nothing where there is none.
pub(super) fn cause(text: Option<&str>) -> String {
    text.map(error).filter(|text| !text.is_empty()).map_or_else(String::new, |e| format!(": {e}"))
}

/// Writes an argument of a command line, quoted for a shell where it has to be.
pub(super) fn argument(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@+=,%".contains(c);
    let text = name(text);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Writes an instant by the hour, with its day where that is another one than today.
pub(super) fn clock(at: Timestamp, now: Timestamp) -> String {
    let (Some(text), Some(today)) = (at.to_rfc3339(), now.to_rfc3339()) else {
        return at.to_string();
    };
    let (Some(day), Some(hour)) = (text.get(..10), text.get(11..16)) else { return text };
    match today.starts_with(day) {
        true => format!("{hour} UTC"),
        false => format!("{day} {hour} UTC"),
    }
}

/// Writes a span in its largest unit, rounded up.
pub(super) fn span(span: Duration) -> String {
    let up = |unit: u64| span.as_millis().div_ceil(u128::from(unit) * 1_000);
    match span.as_secs() {
        0..90 => format!("{} s", up(1)),
        90..5_400 => format!("{} min", up(60)),
        5_400..172_800 => format!("{} h", up(3_600)),
        _ => format!("{} days", up(86_400)),
    }
}

/// Writes when something is due: `in 12 s`, or `now`.
pub(super) fn due(at: Timestamp, now: Timestamp) -> String {
    let left = at.since(now);
    if left.is_zero() { "now".to_owned() } else { format!("in {}", span(left)) }
}

/// Writes a count with its noun.
pub(super) fn count(n: u32, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// Writes who set a control, why, and until when.
pub(super) fn control(control: &Control, now: Timestamp) -> String {
    let until = control
        .until
        .map_or_else(|| "until it is resumed".to_owned(), |at| format!("until {}", clock(at, now)));
    let (by, reason) = (name(&control.by), error(&control.reason));
    let since = clock(control.set_at, now);
    let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    format!("{by} paused it at {since}{why}, {until}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_stored_text_cannot_change_the_terminal_and_is_cut_at_a_character() {
        for (text, longest, shown) in [
            ("503", 10, "503"),
            ("\u{1b}[2J\u{1b}]0;x\u{7}evil", 40, " [2J ]0;x evil"),
            ("a\nb\r\tc\0d\u{9b}31m", 40, "a b  c d 31m"),
            ("\u{202e}txt.exe\u{2066}", 40, " txt.exe "),
            ("ääää", 5, "ää.."),
            ("", 5, ""),
        ] {
            assert_eq!(safe_text(text, longest), shown, "{text:?}");
        }
        assert_eq!(safe_text(&"x".repeat(1 << 20), 200).len(), 202);
    }

    #[test]
    fn a_name_is_one_argument_of_a_shell() {
        for (text, written) in [
            ("billing", "billing"),
            ("orders/7", "orders/7"),
            ("", "''"),
            ("-rf", "'-rf'"),
            ("a b", "'a b'"),
            ("it's $(rm)", "'it'\\''s $(rm)'"),
        ] {
            assert_eq!(argument(text), written);
        }
    }

    #[test]
    fn spans_and_instants_are_written_for_people() {
        for (millis, written) in [
            (1, "1 s"),
            (12_000, "12 s"),
            (89_500, "90 s"),
            (90_000, "2 min"),
            (3_600_000, "60 min"),
            (7_200_000, "2 h"),
            (200_000_000, "3 days"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), written);
        }
        let now = at("2026-11-30T14:03:00Z");
        assert_eq!(clock(at("2026-11-30T09:08:07.5Z"), now), "09:08 UTC");
        assert_eq!(clock(at("2026-11-29T23:59:59Z"), now), "2026-11-29 23:59 UTC");
        assert_eq!(due(at("2026-11-30T14:03:12Z"), now), "in 12 s");
        assert_eq!(due(at("2026-11-30T14:02:12Z"), now), "now");
    }
}
