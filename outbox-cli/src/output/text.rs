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
}
