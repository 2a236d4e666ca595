//! What strangers wrote, shown and not obeyed.

use std::fmt::Write;

/// Writes control characters and characters that change the direction of text as escapes, so that a
/// terminal shows them and does not obey them.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            c if c.is_control() || turns_text(c) => {
                // Writing into a string does not fail.
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    shown
}

/// Tells whether a character is invisible or changes the order in which others are shown.
fn turns_text(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Shows a text in at most so many characters; what is cut is marked by an ellipsis.
pub(crate) fn cut(text: &str, most: usize) -> String {
    let shown = shown(text);
    if shown.chars().count() <= most {
        return shown;
    }
    let mut cut: String = shown.chars().take(most.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Quotes a value for a shell, where it needs that.
pub(crate) fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', "'\\''"))
}

/// Writes as escapes of JSON what a terminal would obey inside of its texts.
pub(crate) fn escaped_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if (c.is_control() && c != '\n') || turns_text(c) {
            // All of these have four digits. Writing into a string does not fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_that_a_stranger_wrote() {
        for (text, safe) in [
            ("orders/7", "orders/7"),
            ("\x1b[2J\x1b]0;owned\x07", "\\u{1b}[2J\\u{1b}]0;owned\\u{7}"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("abc\u{202e}fdp.exe", "abc\\u{202e}fdp.exe"),
            ("grün 7 €", "grün 7 €"),
        ] {
            assert_eq!(shown(text), safe);
        }
    }

    #[test]
    fn a_long_text_is_cut_by_characters_and_marked() {
        assert_eq!(cut("grüße", 5), "grüße");
        assert_eq!(cut("grüße an alle", 5), "grüß…");
        assert_eq!(cut("\x1b\x1b\x1b", 6), "\\u{1b…");
    }

    #[test]
    fn a_value_is_quoted_for_the_shell_where_it_needs_that() {
        for (value, quote) in [
            ("billing", "billing"),
            ("a/b-c_d.e:f@g", "a/b-c_d.e:f@g"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's; rm", "'it'\\''s; rm'"),
        ] {
            assert_eq!(quoted(value), quote);
        }
    }

    #[test]
    fn a_document_has_the_same_texts_and_nothing_that_a_terminal_obeys() {
        let value = serde_json::json!({ "a\u{9b}": ["\u{7f}\u{202e}\u{feff}", "grün \n €"] });
        let json = serde_json::to_string_pretty(&value).unwrap();
        let escaped = escaped_json(&json);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
        let obeyed = |c: char| (c.is_control() && c != '\n') || turns_text(c);
        assert!(!escaped.contains(obeyed), "{escaped:?}");
    }
}
