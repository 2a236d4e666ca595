//! Texts from outside, as errors and log lines quote them: bounded, and without control characters.

/// Characters of a name that are quoted: the longest name of a header or attribute has as many.
const MAX_NAME: usize = 64;
/// Characters of a text that are quoted: a server's reason is a sentence or two.
const MAX_TEXT: usize = 256;

/// Gives the beginning of a name, without its control characters.
#[must_use]
pub fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}

/// Gives the beginning of a text on one line.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::{one_line, printable};

    #[test]
    fn a_quoted_text_is_bounded_and_has_no_control_character() {
        assert_eq!(printable("a\r\nb\0"), "ab");
        assert_eq!(printable(&"n".repeat(100)).len(), 64);
        assert_eq!(one_line(" low on\r\nmemory\n"), "low on  memory");
        assert_eq!(one_line(&"x".repeat(1000)).len(), 256);
    }
}
