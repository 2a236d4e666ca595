//! Names and attributes as every database, broker and log takes them.

use std::fmt;

/// The rule for a text: 1 to so many bytes, none of them of a control character.
///
/// Its `Display` is the rule as an error says it: `1 to 255 bytes without control characters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextRule(usize);

impl TextRule {
    /// An attribute of an event, such as its source, its topic and its key: every database's column
    /// takes so many bytes.
    pub const ATTRIBUTE: Self = Self::up_to(255);

    /// Makes the rule for texts of up to so many bytes.
    #[must_use]
    pub const fn up_to(longest: usize) -> Self {
        Self(longest)
    }

    /// Tells whether the text keeps the rule.
    #[must_use]
    pub fn allows(self, text: &str) -> bool {
        (1..=self.0).contains(&text.len()) && !text.chars().any(char::is_control)
    }
}

impl fmt::Display for TextRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1 to {} bytes without control characters", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::TextRule;

    #[test]
    fn a_text_has_a_byte_and_no_more_than_the_limit_and_no_control_character() {
        let rule = TextRule::up_to(4);
        for text in ["a", "a b", "\u{e9}\u{e9}", "abcd"] {
            assert!(rule.allows(text), "{text:?}");
        }
        for text in ["", "abcde", "\u{e9}\u{e9}a", "a\n", "\0", "\u{85}"] {
            assert!(!rule.allows(text), "{text:?}");
        }
        assert_eq!(rule.to_string(), "1 to 4 bytes without control characters");
    }
}
