//! The rule for an operator's reason, which others read in the audit.

/// Most characters of a reason: the audit is read, and a story belongs elsewhere.
const LONGEST: usize = 1_000;

/// Why a text is no reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReasonFault {
    /// It says nothing.
    #[error("a reason is missing")]
    Missing,
    /// It has more than 1,000 characters.
    #[error("a reason has {} characters at most", LONGEST)]
    TooLong,
    /// It has a line break or another control character.
    #[error("a reason is one line, without control characters")]
    NotOneLine,
}

/// Checks an operator's reason: one line of 1 to 1,000 characters. Gives it without the spaces
/// around it.
///
/// ```
/// use outbox_core::admin::{ReasonFault, checked_reason};
/// assert_eq!(checked_reason(" billing is repaired "), Ok("billing is repaired"));
/// assert_eq!(checked_reason("  "), Err(ReasonFault::Missing));
/// ```
///
/// # Errors
/// [`ReasonFault`] of the first rule that the text breaks.
pub fn checked_reason(why: &str) -> Result<&str, ReasonFault> {
    let why = why.trim();
    if why.is_empty() {
        return Err(ReasonFault::Missing);
    }
    if why.chars().count() > LONGEST {
        return Err(ReasonFault::TooLong);
    }
    if why.contains(char::is_control) {
        return Err(ReasonFault::NotOneLine);
    }
    Ok(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_of_a_bounded_length() {
        let (longest, longer) = ("ä".repeat(LONGEST), "ä".repeat(LONGEST + 1));
        for (why, checked) in [
            ("billing is repaired", Ok("billing is repaired")),
            (" a \t", Ok("a")),
            ("", Err(ReasonFault::Missing)),
            (" \n ", Err(ReasonFault::Missing)),
            ("two\nlines", Err(ReasonFault::NotOneLine)),
            ("nul\0", Err(ReasonFault::NotOneLine)),
            (longest.as_str(), Ok(longest.as_str())),
            (longer.as_str(), Err(ReasonFault::TooLong)),
        ] {
            assert_eq!(checked_reason(why), checked, "{why:?}");
        }
        assert_eq!(ReasonFault::TooLong.to_string(), "a reason has 1000 characters at most");
    }
}
